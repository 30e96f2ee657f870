"""``python -m hpo_bench`` is ``hpo-bench``."""

from hpo_bench.cli import main

if __name__ == "__main__":
    main()
