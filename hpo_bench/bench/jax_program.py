"""The training of one hidden ReLU layer as a user of JAX writes it: `vmap`, `scan` and `jit`.

The same mathematics as the engine's, in the plainest form that JAX makes fast: derivatives by
`grad`, Hessian-vector products by one `linearize` for all terms of the series, the whole training
one compiled program. Tests hold both equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Weights = dict[str, jax.Array]
Pair = tuple[jax.Array, jax.Array]
Raw = dict[str, jax.Array]


@dataclass(frozen=True)
class Data:
    """Inputs (N, d) and targets (N, 1) or (N,) of the parts of a dataset;

    ``test`` None leaves evaluation out.
    """

    training: Pair
    validation: Pair
    test: Pair | None


def mean_loss(task: str) -> Callable[[Weights, Pair], jax.Array]:
    """Mean squared error for a task of ``regression``, else mean cross-entropy."""

    def outputs(weights: Weights, inputs: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(inputs @ weights["layers.0.weight"].T + weights["layers.0.bias"])
        return hidden @ weights["layers.2.weight"].T + weights["layers.2.bias"]

    def squared_error(weights: Weights, batch: Pair) -> jax.Array:
        return jnp.mean((outputs(weights, batch[0]) - batch[1]) ** 2)

    def cross_entropy(weights: Weights, batch: Pair) -> jax.Array:
        log_chances = jax.nn.log_softmax(outputs(weights, batch[0]))
        return -jnp.mean(jnp.take_along_axis(log_chances, batch[1][:, None], axis=-1))

    return squared_error if task == "regression" else cross_entropy


def plus(a: Weights, b: Weights, factor: jax.Array | float = 1.0) -> Weights:
    """The weights a + factor·b, array by array."""
    total: Weights = jax.tree.map(lambda x, y: x + factor * y, a, b)
    return total


def dot(a: Weights, b: Weights) -> jax.Array:
    """The inner product of two sets of weights."""
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), jnp.zeros(()))


def natural(raw: Raw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Learning rate, weight decay and momentum."""
    return 10 ** raw["lr"], 10 ** raw["weight_decay"], jax.nn.sigmoid(raw["momentum"])


def adam(
    raw: Raw, gradient: Raw, memory: tuple[jax.Array, Raw, Raw]
) -> tuple[Raw, tuple[jax.Array, Raw, Raw]]:
    """A step of size 0.05 with β = (0.9, 0.999), and log10 of the learning rate kept within [-10,
    0].
    """
    count = memory[0] + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, memory[1], gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, memory[2], gradient)

    def moved(value: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return value - 0.05 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

    raw = jax.tree.map(moved, raw, first, second)
    return {**raw, "lr": jnp.clip(raw["lr"], -10, 0)}, (count, first, second)


def training(
    task: str, data: Data, look_back: int | None
) -> Callable[[Weights, Raw, jax.Array, jax.Array], Any]:
    """One repetition's training, for `jax.vmap` and `jax.jit`.

    Args:
        look_back: i of the Neumann series; None to leave the hyperparameters as they are.

    Returns:
        From initial weights, raw hyperparameters, row numbers of the training batches (K, T, B) and
        of the validation batches (K, T, B), or (K, T, 0) for all rows: the final weights, raw
        hyperparameters and losses (K, T, 3) before each update, of the batch, the test and the
        validation set, NaN where not evaluated.
    """
    loss = mean_loss(task)

    def batch(part: Pair, places: jax.Array) -> Pair:
        return part if places.shape[-1] == 0 else (part[0][places], part[1][places])

    def losses(weights: Weights, own: jax.Array, places: jax.Array) -> jax.Array:
        if data.test is None:
            return jnp.stack([own, jnp.nan, jnp.nan])
        validation = jnp.nan if look_back is None else loss(weights, batch(data.validation, places))
        return jnp.stack([own, loss(weights, data.test), validation])

    def train(weights: Weights, raw: Raw, places: jax.Array, second: jax.Array) -> Any:
        def interval(carry: Any, own: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            weights, buffer, raw, memory = carry
            lr, weight_decay, momentum = natural(raw)

            def moved(
                weights: Weights, buffer: Weights, gradient: Weights
            ) -> tuple[Weights, Weights]:
                decayed = plus(gradient, weights, weight_decay)
                buffer = plus(decayed, buffer, momentum)
                return plus(weights, buffer, -lr), buffer

            def update(state: tuple[Weights, Weights], now: tuple[jax.Array, jax.Array]) -> Any:
                own_loss, gradient = jax.value_and_grad(loss)(
                    state[0], batch(data.training, now[0])
                )
                return moved(*state, gradient), losses(state[0], own_loss, now[1])

            if look_back is None:
                (weights, buffer), seen = lax.scan(update, (weights, buffer), own)
                return (weights, buffer, raw, memory), seen
            but_last, last = (
                jax.tree.map(lambda x, part=part: x[part], own) for part in (slice(-1), -1)
            )
            (weights, buffer), seen = lax.scan(update, (weights, buffer), but_last)
            last_batch = batch(data.training, last[0])
            (own_loss, gradient), tangent = jax.linearize(
                lambda w: jax.value_and_grad(loss)(w, last_batch), weights
            )
            new_weights, new_buffer = moved(weights, buffer, gradient)
            term = total = jax.grad(loss)(new_weights, batch(data.validation, last[1]))
            for _ in range(look_back - 1):
                term = plus(term, plus(tangent(term)[1], term, weight_decay), -lr)
                total = plus(total, term)
            hypergradient = {
                "lr": -dot(total, new_buffer) * lr * jnp.log(10.0),
                "weight_decay": -lr * dot(total, weights) * weight_decay * jnp.log(10.0),
                "momentum": -lr * dot(total, buffer) * momentum * (1 - momentum),
            }
            seen = jnp.concatenate([seen, losses(weights, own_loss, last[1])[None]])
            raw, memory = adam(raw, hypergradient, memory)
            return (new_weights, new_buffer, raw, memory), seen

        zeros = jax.tree.map(jnp.zeros_like, (weights, raw, raw))
        start = weights, zeros[0], raw, (jnp.zeros(()), zeros[1], zeros[2])
        (weights, _, raw, _), seen = lax.scan(interval, start, (places, second))
        return weights, raw, seen

    return train
