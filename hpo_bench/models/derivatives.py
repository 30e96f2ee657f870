"""Gradients and Hessian-vector products by autograd, and in one line what keeps them from being
computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpo_bench.errors import UserError


def gradient_of(
    value: Tensor, leaf: Tensor, create_graph: bool, vector: Tensor | None = None
) -> Tensor:
    """Of a sum, or the product of a gradient's Jacobian with a vector.

    Raises:
        UserError: some operation of the module has no second derivative, or the value does not
            depend on the leaf.
    """
    if vector is not None and not value.requires_grad:  # the loss is linear in the parameters
        return torch.zeros_like(leaf)
    keep = create_graph or vector is not None
    try:
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(
                value, leaf, vector, retain_graph=keep, create_graph=create_graph, allow_unused=True
            )
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if "sparse" in text:
            raise UserError(
                "model: has a layer with sparse gradients; make its embeddings with sparse=False"
            ) from error
        if "derivative for" not in text and "double backward" not in text.lower():
            raise
        raise UserError(
            f"model: has a layer that cannot be differentiated twice ({text[:160]})"
        ) from error
    if found is None:
        if vector is None:
            raise UserError(
                "loss: does not depend on the model's parameters (detached, or computed by "
                "another module?)"
            )
        return torch.zeros_like(leaf)
    return found if create_graph else found.detach()
