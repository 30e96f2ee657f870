"""Hypergradient estimators: one a file, each a frozen value that knows no rule.

To add one: a file here with a frozen dataclass derived from `hpo_bench.core.estimator.Estimator`,
and a yaml in ``configs/method`` whose ``method.estimator._target_`` names it.
"""
