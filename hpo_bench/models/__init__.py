"""Models whose R repetitions train at once, one file a family.

A configuration's ``model._target_`` names a frozen value with ``build(table, dtype, device) ->
Model`` (`hpo_bench.core.model`); `hpo_bench.models.autograd` wraps any ``torch.nn.Module``."""
