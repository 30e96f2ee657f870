"""What a training costs in gradients and Hessian-vector products, counted in the training of one
weight.

Counts depend on neither model nor data: one hyperparameter update's worth of weight updates tells
them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from hpo_bench.core.layout import Layout
from hpo_bench.core.loop import InitialState, Problem, train
from hpo_bench.core.recorder import NoRecord
from hpo_bench.core.update import Linearisation

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer


@dataclass(frozen=True)
class Work:
    """Cost of a training of one repetition.

    Args:
        interval: weight updates for each of which ``gradients`` and ``hessian_products`` are
            counted.
        gradients: forward and backward passes in one interval, the hypergradient's included.
        hessian_products: Hessian-vector products in one interval.
    """

    interval: int
    gradients: int
    hessian_products: int

    def between(self, first: int, last: int) -> tuple[int, int]:
        """Gradients and Hessian-vector products of the weight updates ``first`` + 1 … ``last``."""
        intervals = last // self.interval - first // self.interval
        return last - first + intervals * (
            self.gradients - self.interval
        ), intervals * self.hessian_products

    def of(self, updates: int) -> dict[str, int]:
        """The same from the start, by name: what ``run.json`` says."""
        gradients, products = self.between(0, updates)
        return {"weight_updates": updates, "gradients": gradients, "hessian_products": products}


class _OneWeight:
    """Stands for any model, with one weight and nothing to do, and counts what is asked of it."""

    carries_state = False
    layout = Layout(("w",), ((1,),))

    def __init__(self) -> None:
        self.gradients = self.products = 0

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        return {}

    def linearise(
        self, weights: Tensor, batch: Any, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """One gradient, and products as they are called for."""
        self.gradients += 1

        def product(vector: Tensor) -> Tensor:
            self.products += 1
            return vector

        def products(vectors: Tensor) -> Tensor:
            self.products += len(vectors)
            return vectors

        return Linearisation(weights[:, 0], weights, product, carried, products)


class _NoBatches:
    """A stream of nothing."""

    def batch(self, number: int) -> str:
        """A batch that nothing looks at."""
        return "nothing"


def work(trainer: Trainer) -> Work:
    """Count by training one weight for one interval; every model of one row costs the same
    gradients and products.
    """
    plan = trainer.plan
    counting, nothing = cast("Any", _OneWeight()), cast("Any", _NoBatches())
    problem = Problem(
        counting, nothing, None if plan.estimator is None else nothing, cast("Any", None)
    )
    start = InitialState(
        torch.zeros(1, 1), {name: torch.zeros(1, 1) for name in plan.rule.coordinates}
    )
    # A schedule changes no count, and its factors may lie on another device than this weight.
    short = replace(plan, weight_updates=plan.interval + 1, factors=None)
    train(problem, short, start, NoRecord(), until=plan.interval)
    return Work(plan.interval, counting.gradients, counting.products)
