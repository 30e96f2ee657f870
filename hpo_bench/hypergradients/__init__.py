"""Hypergradient estimators: one a file, each a frozen value that declares the steps it needs and is
called with them.

To add one: a file here with a class that satisfies `hpo_bench.core.estimator.Estimator`, and a yaml
in ``configs/method`` whose ``method.estimator._target_`` names it. One that can take up weight
updates as they are made derives from `base.Accumulator` besides, one that stands for several others
from `base.Chooser`."""
