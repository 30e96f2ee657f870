PYTHON ?= python3

.PHONY: setup demo test lint check format docs

setup demo test lint check format docs:
	$(PYTHON) scripts/dev.py $@
