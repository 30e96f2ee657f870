"""
A method of your own
====================

A method is a yaml and, where it estimates hypergradients in a new way, a class. This one knows the
sign of a hypergradient alone: it asks the paper's estimator, and forgets how long the answer is.
"""

import sys
from pathlib import Path

Path("signs.py").write_text(
    '''
from dataclasses import dataclass

from hpo_bench.hypergradients.neumann import Neumann


@dataclass(frozen=True)
class Signs(Neumann):
    """The signs of the paper's hypergradients."""

    def finish(self, memory, gradient, tuned):
        found = super().finish(memory, gradient, tuned)
        return {name: value.sign() for name, value in found.items()}
'''
)
sys.path.insert(0, ".")

# %%
# The yaml names the class, and how the method is called and drawn. ``${look_back}`` is the setting
# of that name.

folder = Path("mine/method")
folder.mkdir(parents=True, exist_ok=True)
(folder / "signs.yaml").write_text(
    """# @package _global_
method:
  name: signs
  label: Signs
  colour: "#AA3377"
  line_style: "-"
  order: 75
  estimator: {_target_: signs.Signs, look_back: "${look_back}"}
  optimiser: {_target_: hpo_bench.core.optimisers.SGD, lr: "${hyper.lr}"}
tuned: [weight_decay, lr, momentum]
"""
)

# %%
# ``config_dir`` is where such yamls are. The runs are stored like all others, with a digest of the
# class's file.

import hpo_bench

results = hpo_bench.sweep(
    method=["random", "ours_wd_lr_m", "signs"],
    dataset="diabetes",
    repetitions=20,
    hyperparameter_updates=200,
    config_dir="mine",
    progress=False,
)
results.summary()

# %%
# The paper's figure of final test errors takes it in, with its own label and colour.

figure = hpo_bench.plot("fig09", results, method=["random", "ours_wd_lr_m", "signs"])
