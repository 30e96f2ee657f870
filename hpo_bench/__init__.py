"""hpo-bench: reproducible experiments in one-pass, gradient-based hyperparameter optimisation."""

__version__ = "0.1.0"
