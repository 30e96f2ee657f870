"""Weight updates other than SGD with momentum: one family a file, each a frozen
`hpo_bench.core.rule.Rule`.

To add one: a file here, and a yaml in ``configs/method`` whose ``method.rule._target_`` names it.
All R rows are updated at once; what a rule carries is a frozen dataclass of tensors with rows
first, so that checkpoints can hold it."""
