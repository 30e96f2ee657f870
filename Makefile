PYTHON ?= python3

.PHONY: setup demo test lint check format

setup demo test lint check format:
	$(PYTHON) scripts/dev.py $@
