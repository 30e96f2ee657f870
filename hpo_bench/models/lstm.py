"""A word-level language model: embedding, LSTM layers, decoder to the vocabulary; cross-entropy
over all tokens.

Every derivative is written out (`hpo_bench.models.lstm_layer`). With the decoder's logits z = W·h +
b for M tokens and p = softmax z, ∂L/∂z = (p - onehot)/M, whose tangent is p∘(z' - ⟨p, z'⟩)/M: the
decoder keeps one array of the logits' size, and a Hessian-vector product makes another.

A row of the dataset is one time step of N parallel columns, so a batch of B rows is (B, N) words,
and the state that the layers end a batch with is where the next batch of the same part begins
(truncated back-propagation: a constant in every derivative). It begins at zero with each pass over
the part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.layout import Layout
from hpo_bench.core.model import Batch, Split
from hpo_bench.core.table import Table
from hpo_bench.core.update import Linearisation
from hpo_bench.errors import UserError
from hpo_bench.models import lstm_layer
from hpo_bench.models.lstm_layer import Covectors, LayerRun, Parameters, Slopes

TRAINED = ("training", "validation")  # parts that carry a state of their own from batch to batch
FALLBACK_STEPS = 70  # evaluated at once where training batches are not bounded

State = tuple[Tensor, Tensor]  # h and c, (R, layers, N, H) each


@dataclass(frozen=True)
class LSTM:
    """Embedding, LSTM layers and an untied decoder, without dropout (paper: 650 wide, two layers).

    Args:
        embedding: width of the word vectors, E.
        hidden: units of each layer, H.
        layers: how many.
        evaluation_steps: time steps of the consecutive batches that a whole set is evaluated in;
            None for all at once.
    """

    embedding: int = 650
    hidden: int = 650
    layers: int = 2
    evaluation_steps: int | None = FALLBACK_STEPS

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> LanguageModel:
        """The model for a stream of words.

        Raises:
            UserError: the table does not hold words, or a size is not one.
        """
        if table.inputs.ndim != 2 or table.task != "language":
            raise UserError(
                f"model=lstm: does not fit dataset {table.name}, whose rows are not words"
            )
        for key in ("embedding", "hidden", "layers"):
            checks.whole(f"model.{key}", getattr(self, key), 1)
        checks.whole_or("model.evaluation_steps", self.evaluation_steps, None)
        return LanguageModel(self, table.outputs, table.inputs.shape[1], dtype, device)


def _names(layer: int) -> tuple[str, str, str, str]:
    return tuple(
        f"lstm.{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )  # type: ignore[return-value]


def _layout(shape: LSTM, words: int) -> Layout:
    """As in torch: an Embedding, an LSTM and a Linear."""
    sizes: dict[str, tuple[int, ...]] = {"embedding.weight": (words, shape.embedding)}
    gates = 4 * shape.hidden
    for layer in range(shape.layers):
        width = shape.hidden if layer else shape.embedding
        sizes |= zip(
            _names(layer), ((gates, width), (gates, shape.hidden), (gates,), (gates,)), strict=True
        )
    sizes |= {"decoder.weight": (words, shape.hidden), "decoder.bias": (words,)}
    return Layout(tuple(sizes), tuple(sizes.values()))


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: the words (S·N,) or (R, S·N), each layer's run, and the mean loss (R,) with p
    (R, M, V).
    """

    words: Tensor
    targets: Tensor
    runs: tuple[LayerRun, ...]
    loss: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Backward:
    """What a gradient leaves for Hessian-vector products: ∂L/∂z (R, M, V), and each layer's
    part.
    """

    logits: Tensor
    slopes: tuple[Slopes, ...]
    covectors: tuple[Covectors, ...]


class LanguageModel:
    """R copies of an `LSTM` language model.

    Costs of one batch in matrix products: a forward pass 1, a gradient 3, a Hessian-vector product
        6.

    Args:
        shape: sizes.
        words: V, size of the vocabulary.
        columns: N, sequences read side by side.
    """

    carries_state = True

    def __init__(
        self, shape: LSTM, words: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.shape, self.words, self.columns, self.dtype, self.device = (
            shape,
            words,
            columns,
            dtype,
            device,
        )
        self.layout = _layout(shape, words)

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """PyTorch's defaults: embedding normal, the others uniform within ±1/√H."""
        bound = 1 / math.sqrt(self.shape.hidden)
        first, *others = self.layout.sizes
        return np.concatenate(
            [random.standard_normal(first), random.uniform(-bound, bound, sum(others))]
        )

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """Zeros: h and c of each part, (R, layers, N, H)."""
        zeros = torch.zeros(
            rows,
            self.shape.layers,
            self.columns,
            self.shape.hidden,
            dtype=self.dtype,
            device=self.device,
        )
        return {f"{split}.{name}": zeros for split in TRAINED for name in ("hidden", "cells")}

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Words (S, N), or (R, S, N), as they are."""
        return Batch(
            inputs.long(), targets.long(), targets.shape[0 if shared else 1], shared, split, first
        )

    def _layers(self, views: Mapping[str, Tensor]) -> list[Parameters]:
        return [
            Parameters(*(views[name] for name in _names(layer)))
            for layer in range(self.shape.layers)
        ]

    def _embedded(self, table: Tensor, words: Tensor) -> Tensor:
        """Word vectors (R, S·N, E) out of ``table`` (R, V, E)."""
        if words.ndim == 1:
            return table.index_select(1, words)
        return torch.stack(
            [own.index_select(0, chosen) for own, chosen in zip(table, words, strict=True)]
        )

    def _embedding_gradient(self, words: Tensor, covectors: Tensor, out: Tensor) -> None:
        """Add up covectors (R, S·N, E) by word; indexed writes keep one order on every device."""
        out.zero_()
        for row, covector in enumerate(covectors):
            out[row].index_put_(
                (words if words.ndim == 1 else words[row],), covector, accumulate=True
            )

    def _state(self, batch: Batch, carried: Mapping[str, Any]) -> State:
        state = carried[f"{batch.split}.hidden"], carried[f"{batch.split}.cells"]
        return (torch.zeros_like(state[0]), torch.zeros_like(state[1])) if batch.first else state

    def _run(
        self, views: Mapping[str, Tensor], words: Tensor, state: State
    ) -> tuple[list[LayerRun], State]:
        """Every layer's pass over the words, and the state after it."""
        runs: list[LayerRun] = []
        for layer, weights in enumerate(self._layers(views)):
            inputs = runs[-1].outputs if runs else self._embedded(views["embedding.weight"], words)
            runs.append(
                lstm_layer.forward(weights, inputs, (state[0][:, layer], state[1][:, layer]))
            )
        after = (
            torch.stack([run.hidden[:, -1] for run in runs], 1),
            torch.stack([run.cells[:, -1] for run in runs], 1),
        )
        return runs, after

    def _forward(
        self, views: Mapping[str, Tensor], batch: Batch, state: State
    ) -> tuple[ForwardPass, State]:
        """Forward pass and the state after it."""
        words, targets = batch.inputs.flatten(-2), batch.targets.flatten(-2)
        runs, after = self._run(views, words, state)
        logits = torch.baddbmm(
            views["decoder.bias"].unsqueeze(1), runs[-1].outputs, views["decoder.weight"].mT
        )
        wanted = targets.expand(len(logits), -1).unsqueeze(-1)
        loss, probabilities = _cross_entropy(logits, wanted)
        return ForwardPass(words, wanted, tuple(runs), loss, probabilities), after

    def _backward(
        self, views: Mapping[str, Tensor], forward: ForwardPass, out: Mapping[str, Tensor]
    ) -> Backward:
        """Write the gradient into ``out``; turns the probabilities into ∂L/∂z in place."""
        tokens = forward.targets.shape[1]
        logits = forward.probabilities.div_(tokens)
        logits.scatter_add_(
            -1, forward.targets, logits.new_full((), -1 / tokens).expand_as(forward.targets)
        )
        covector = _decoder_gradient(views, forward.runs[-1].outputs, logits, out)
        slopes, covectors, layers = [], [], self._layers(out)
        for layer, weights in reversed(list(enumerate(self._layers(views)))):
            run = forward.runs[layer]
            slopes.append(lstm_layer.slopes(run))
            covectors.append(lstm_layer.backward(weights, run, slopes[-1], covector))
            lstm_layer.gradient(run, covectors[-1], layers[layer])
            covector = lstm_layer.inputs_covector(weights, covectors[-1])
        self._embedding_gradient(forward.words, covector, out["embedding.weight"])
        return Backward(logits, tuple(reversed(slopes)), tuple(reversed(covectors)))

    def _hessian_product(
        self, views: Mapping[str, Tensor], forward: ForwardPass, kept: Backward, vector: Tensor
    ) -> Tensor:
        """The tangent of the gradient along ``vector`` (R, P)."""
        along, product = self.layout.views(vector), torch.empty_like(vector)
        out = self.layout.views(product)
        changes, inputs, tangents = (
            self._layers(along),
            self._embedded(along["embedding.weight"], forward.words),
            [],
        )
        entering = []
        for weights, run, local, change in zip(
            self._layers(views), forward.runs, kept.slopes, changes, strict=True
        ):
            entering.append(inputs)
            tangents.append(lstm_layer.tangent_forward(weights, run, local, change, inputs))
            inputs = tangents[-1].outputs
        covector = _decoder_tangent(views, along, forward, kept.logits, inputs, out)
        layers = self._layers(out)
        for layer, weights in reversed(list(enumerate(self._layers(views)))):
            run, own, change, tangent = (
                forward.runs[layer],
                kept.covectors[layer],
                changes[layer],
                tangents[layer],
            )
            gates = lstm_layer.tangent_backward(
                weights, run, kept.slopes[layer], own, change, tangent, covector
            )
            lstm_layer.tangent_gradient(run, own, tangent, gates, entering[layer], layers[layer])
            covector = lstm_layer.tangent_inputs_covector(weights, own, change, gates)
        self._embedding_gradient(forward.words, covector, out["embedding.weight"])
        return product

    @torch.no_grad()
    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss and gradient; Hessian-vector products if ``second_order``."""
        views, gradient = self.layout.views(weights), torch.empty_like(weights)
        forward, after = self._forward(views, batch, self._state(batch, carried))
        kept = self._backward(views, forward, self.layout.views(gradient))
        if not second_order:
            return Linearisation(forward.loss, gradient, _refuse, _with(carried, batch, after))

        @torch.no_grad()
        def hessian_product(vector: Tensor) -> Tensor:
            return self._hessian_product(views, forward, kept, vector)

        return Linearisation(forward.loss, gradient, hessian_product, _with(carried, batch, after))

    @torch.no_grad()
    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean cross-entropy (R,), and the state after the batch."""
        forward, after = self._forward(
            self.layout.views(weights), batch, self._state(batch, carried)
        )
        return forward.loss, _with(carried, batch, after)

    @torch.no_grad()
    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state after the batch, without the decoder, which is about half of a forward pass."""
        views = self.layout.views(weights)
        return _with(
            carried,
            batch,
            self._run(views, batch.inputs.flatten(-2), self._state(batch, carried))[1],
        )

    @torch.no_grad()
    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Unweighted mean (R,) of the losses of consecutive batches from the zero state on, and its
        exponential.
        """
        axis, views = 0 if batch.shared else 1, self.layout.views(weights)
        size, losses = self.shape.evaluation_steps or batch.count, []
        zeros = weights.new_zeros(len(weights), self.shape.layers, self.columns, self.shape.hidden)
        state = zeros, zeros
        for inputs, targets in zip(
            batch.inputs.split(size, axis), batch.targets.split(size, axis), strict=True
        ):
            part = Batch(inputs, targets, inputs.shape[axis], batch.shared, batch.split, False)
            forward, state = self._forward(views, part, state)
            losses.append(forward.loss)
        loss = torch.stack(losses).mean(0)
        return loss, loss.exp()

    def _numbers(self, steps: int) -> tuple[int, int]:
        """Numbers of one layer's sequence and of the logits in a batch."""
        tokens = steps * self.columns
        return tokens * max(self.shape.hidden, self.shape.embedding), tokens * self.words

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Sequences and logits that linearisations keep, those that a product makes, and the
        weights.

        Measured with full-size layers and Ours (WD+LR+M): 1.4 GiB, foretold (with
        `evaluation_bytes`) 1.7 GiB."""
        sequence, logits = self._numbers(batch_rows)
        kept = 18 * self.shape.layers * sequence + logits
        making = max(
            6 * self.shape.layers * sequence + 2 * logits, (6 * self.shape.layers + 16) * sequence
        )
        return self.dtype.itemsize * (
            max(window, 1) * kept + making + (8 + 3 * window) * self.layout.count
        )

    def evaluation_bytes(self, rows: int) -> int:
        """One batch's forward pass."""
        sequence, logits = self._numbers(min(rows, self.shape.evaluation_steps or rows))
        return self.dtype.itemsize * (8 * self.shape.layers * sequence + 2 * logits)

    def working_set(self, batch_rows: int) -> int:
        """Sequences and logits of a forward pass."""
        sequence, logits = self._numbers(batch_rows)
        return self.dtype.itemsize * (7 * self.shape.layers * sequence + logits)


def _refuse(vector: Tensor) -> Tensor:
    raise RuntimeError("linearised to first order only")


def _with(carried: Mapping[str, Any], batch: Batch, state: State) -> Mapping[str, Any]:
    return {**carried, f"{batch.split}.hidden": state[0], f"{batch.split}.cells": state[1]}


def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of -log p at the targets (R, M, 1): (R,); and p = softmax z in the place of the logits
    (R, M, V).

    A second array of that size would cost more than the arithmetic. log Σ exp z follows from the
    largest p (≥ 1/V)."""
    largest, at_target = logits.amax(-1), logits.gather(-1, targets).squeeze(-1)
    probabilities = torch.softmax(logits, -1, out=logits)
    return (largest - at_target - probabilities.amax(-1).log()).mean(-1), probabilities


def _decoder_gradient(
    views: Mapping[str, Tensor], hidden: Tensor, logits: Tensor, out: Mapping[str, Tensor]
) -> Tensor:
    """Write the decoder's gradient, given ∂L/∂z; returns ∂L/∂h (R, M, H)."""
    torch.bmm(logits.mT, hidden, out=out["decoder.weight"])
    torch.sum(logits, 1, out=out["decoder.bias"])
    return torch.bmm(logits, views["decoder.weight"])


def _decoder_tangent(
    views: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    forward: ForwardPass,
    logits: Tensor,
    inputs: Tensor,
    out: Mapping[str, Tensor],
) -> Tensor:
    """Differentiate `_decoder_gradient` along weights and hidden tangents ``inputs``; returns the
    tangent of ∂L/∂h.

    With p/M = ∂L/∂z + onehot/M the tangent of ∂L/∂z is ∂L/∂z∘y + onehot∘y/M, where y = z' - ⟨p,
    z'⟩."""
    hidden, tokens = forward.runs[-1].outputs, forward.targets.shape[1]
    change = torch.baddbmm(along["decoder.bias"].unsqueeze(1), hidden, along["decoder.weight"].mT)
    change.baddbmm_(inputs, views["decoder.weight"].mT)
    mean = tokens * (logits * change).sum(-1, keepdim=True) + change.gather(-1, forward.targets)
    at_target = (change.gather(-1, forward.targets) - mean) / tokens
    change.sub_(mean).mul_(logits).scatter_add_(-1, forward.targets, at_target)
    torch.bmm(change.mT, hidden, out=out["decoder.weight"])
    out["decoder.weight"].baddbmm_(logits.mT, inputs)
    torch.sum(change, 1, out=out["decoder.bias"])
    return torch.bmm(change, views["decoder.weight"]).baddbmm_(logits, along["decoder.weight"])
