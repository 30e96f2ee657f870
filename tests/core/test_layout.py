"""The layout of weights in one vector is its own inverse."""

from __future__ import annotations

import numpy as np
import torch

from hpo_bench.core.layout import Layout


def test_layout_is_its_own_inverse():
    layout = Layout(("a", "b", "c"), ((2, 3), (4,), (1,)))
    flat = np.arange(5 * layout.count, dtype=float).reshape(5, -1)
    arrays = layout.arrays(flat)
    assert {name: array.shape for name, array in arrays.items()} == {
        "a": (5, 2, 3),
        "b": (5, 4),
        "c": (5, 1),
    }
    assert (layout.flatten(arrays) == flat).all()
    views = layout.views(torch.from_numpy(flat))
    assert all((views[name].numpy() == arrays[name]).all() for name in layout.names)
