"""One LSTM layer over a whole sequence, R repetitions at once: value, gradient and their tangents,
all written out.

With gates i, f, g, o of a_t = W_ih·x_t + W_hh·h_{t-1} + b and c_t = f∘c_{t-1} + i∘g, h_t = o∘tanh
c_t, all that the derivatives need of a step are five factors, ∂c_t/∂a_{i,f,g} and ∂h_t/∂a_o
(``slopes`` s) and ∂h_t/∂c_t (``through`` q):

    tangents    c'_t = Σ_{i,f,g} s∘a'_t + f∘c'_{t-1},    h'_t = s_o∘a'_{t,o} + q∘c'_t
    covectors   dc_t = q∘dh_t + f∘dc_{t+1},              δ_t  = s∘(dc_t, dc_t, dc_t, dh_t),
                dh_{t-1} += W_hhᵀ·δ_t

A Hessian-vector product is the tangent of the covectors (Pearlmutter 1994, forward over reverse):
the same recurrence once more, with terms in s', q' and f' that are computed for the whole sequence
at once. Only the products with W_hh run step by step, all others are one matrix product a layer; no
graph is kept and nothing is computed twice.

Shapes: S steps, N parallel columns, H units; sequences are (R, S, N, H), inputs (R, S·N, E), gates
in torch's order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Parameters:
    """Weights of a layer, or anything of their shapes:

    W_ih (R, 4H, E), W_hh (R, 4H, H), b_ih and b_hh (R, 4H).
    """

    inputs: Tensor
    hidden: Tensor
    inputs_bias: Tensor
    hidden_bias: Tensor


@dataclass(frozen=True)
class LayerRun:
    """A layer's forward pass.

    Args:
        inputs: (R, S·N, E).
        gates: after their nonlinearities, (R, S, N, 4H).
        hidden, cells: (R, S + 1, N, H), beginning with the state before the first step.
        squashed: tanh of the cells after each step, (R, S, N, H).
    """

    inputs: Tensor
    gates: Tensor
    hidden: Tensor
    cells: Tensor
    squashed: Tensor

    @property
    def outputs(self) -> Tensor:
        """What all steps put out, (R, S·N, H)."""
        return self.hidden[:, 1:].flatten(1, 2)


@dataclass(frozen=True)
class Slopes:
    """Local derivatives of all steps.

    Args:
        gates: s, (R, S, N, 4, H).
        through: q, (R, S, N, H).
    """

    gates: Tensor
    through: Tensor


@dataclass(frozen=True)
class Covectors:
    """Derivatives of a loss with respect to what happens inside a layer.

    Args:
        gates: δ, before the nonlinearities, (R, S, N, 4H).
        hidden, cells: dh and dc, (R, S, N, H).
    """

    gates: Tensor
    hidden: Tensor
    cells: Tensor


@dataclass(frozen=True)
class LayerTangents:
    """A layer's forward pass differentiated along a direction: a' (R, S, N, 4H), h' and c' (R, S,
    N, H).
    """

    activations: Tensor
    hidden: Tensor
    cells: Tensor

    @property
    def outputs(self) -> Tensor:
        """What all steps put out, (R, S·N, H)."""
        return self.hidden.flatten(1, 2)


def _flat(sequence: Tensor) -> Tensor:
    """(R, S, N, ·) -> (R, S·N, ·), without copying for a slice of steps, either."""
    return sequence.flatten(1, 2)


def _four(gates: Tensor) -> Tensor:
    """(…, 4H) -> (…, 4, H)."""
    result: Tensor = gates.unflatten(-1, (4, -1))
    return result


def forward(weights: Parameters, inputs: Tensor, state: tuple[Tensor, Tensor]) -> LayerRun:
    """Run a layer from the state (h, c), (R, N, H) each; the steps follow from the number of
    inputs.
    """
    rows, columns, units = state[0].shape
    bias = (weights.inputs_bias + weights.hidden_bias).unsqueeze(1)
    gates = torch.baddbmm(bias, inputs, weights.inputs.mT).unflatten(1, (-1, columns))
    steps = gates.shape[1]
    hidden, cells = (gates.new_empty(rows, steps + 1, columns, units) for _ in range(2))
    squashed = gates.new_empty(rows, steps, columns, units)
    hidden[:, 0], cells[:, 0] = state
    recurrent, h, c, tanh = weights.hidden.mT, hidden.unbind(1), cells.unbind(1), squashed.unbind(1)
    for t, gate in enumerate(gates.unbind(1)):
        gate.baddbmm_(h[t], recurrent)
        gate[..., : 2 * units].sigmoid_()
        gate[..., 2 * units : 3 * units].tanh_()
        gate[..., 3 * units :].sigmoid_()
        i, f, g, o = gate.chunk(4, -1)
        torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
        torch.tanh(c[t + 1], out=tanh[t])
        torch.mul(o, tanh[t], out=h[t + 1])
    return LayerRun(inputs, gates, hidden, cells, squashed)


def slopes(run: LayerRun) -> Slopes:
    """All local derivatives: s = (g·i(1-i), c_{t-1}·f(1-f), i·(1-g²), tanh(c_t)·o(1-o)) and q =
    o·(1 - tanh²c_t).
    """
    i, f, g, o = run.gates.chunk(4, -1)
    out = _four(torch.empty_like(run.gates))
    for index, (gate, factor) in enumerate(
        ((i, g), (f, run.cells[:, :-1]), (g, i), (o, run.squashed))
    ):
        own = torch.mul(gate, gate, out=out[..., index, :])
        if gate is g:
            torch.sub(1, own, out=own)
        else:
            torch.sub(gate, own, out=own)
        own *= factor
    through = run.squashed.square().neg_().add_(1).mul_(o)
    return Slopes(out, through)


def backward(weights: Parameters, run: LayerRun, local: Slopes, outputs: Tensor) -> Covectors:
    """Carry dL/dh (R, S·N, H) of the outputs back through all steps; overwrites ``outputs``."""
    units = outputs.shape[-1]
    steps, columns = run.squashed.shape[1:3]
    hidden = outputs.unflatten(1, (steps, columns))
    gates, cells = torch.empty_like(run.gates), torch.empty_like(hidden)
    delta, forget = _four(gates).unbind(1), run.gates[..., units : 2 * units].unbind(1)
    flat, dh, dc = gates.unbind(1), hidden.unbind(1), cells.unbind(1)
    s, q = local.gates.unbind(1), local.through.unbind(1)
    for t in reversed(range(steps)):
        torch.mul(
            q[t], dh[t].baddbmm_(flat[t + 1], weights.hidden) if t + 1 < steps else dh[t], out=dc[t]
        )
        if t + 1 < steps:
            dc[t].addcmul_(dc[t + 1], forget[t + 1])
        torch.mul(s[t][..., :3, :], dc[t].unsqueeze(-2), out=delta[t][..., :3, :])
        torch.mul(s[t][..., 3, :], dh[t], out=delta[t][..., 3, :])
    return Covectors(gates, hidden, cells)


def gradient(run: LayerRun, covectors: Covectors, out: Parameters) -> None:
    """Write the derivatives of the loss by all parameters."""
    delta = _flat(covectors.gates)
    torch.bmm(delta.mT, run.inputs, out=out.inputs)
    torch.bmm(delta.mT, _flat(run.hidden[:, :-1]), out=out.hidden)
    torch.sum(delta, 1, out=out.inputs_bias)
    out.hidden_bias.copy_(out.inputs_bias)


def inputs_covector(weights: Parameters, covectors: Covectors) -> Tensor:
    """dL/d inputs (R, S·N, E)."""
    return torch.bmm(_flat(covectors.gates), weights.inputs)


def tangent_forward(
    weights: Parameters, run: LayerRun, local: Slopes, along: Parameters, inputs: Tensor
) -> LayerTangents:
    """Differentiate the pass along parameters ``along`` and input tangents ``inputs`` (R, S·N, E);
    h'_0 = c'_0 = 0.
    """
    units = run.squashed.shape[-1]
    bias = (along.inputs_bias + along.hidden_bias).unsqueeze(1)
    flat = torch.baddbmm(bias, run.inputs, along.inputs.mT).baddbmm_(inputs, weights.inputs.mT)
    activations = flat.baddbmm_(_flat(run.hidden[:, :-1]), along.hidden.mT).view_as(run.gates)
    hidden, cells = torch.empty_like(run.squashed), torch.empty_like(run.squashed)
    recurrent, a, h, c = weights.hidden.mT, activations.unbind(1), hidden.unbind(1), cells.unbind(1)
    s, q, forget = (
        local.gates.unbind(1),
        local.through.unbind(1),
        run.gates[..., units : 2 * units].unbind(1),
    )
    for t in range(len(a)):
        if t > 0:
            a[t].baddbmm_(h[t - 1], recurrent)
        effect = s[t] * _four(a[t])
        torch.sum(effect[..., :3, :], -2, out=c[t])
        if t > 0:
            c[t].addcmul_(forget[t], c[t - 1])
        torch.addcmul(effect[..., 3, :], q[t], c[t], out=h[t])
    return LayerTangents(activations, hidden, cells)


def _before(sequence: Tensor) -> Tensor:
    """The sequence one step earlier, beginning with zeros."""
    return torch.cat([torch.zeros_like(sequence[:, :1]), sequence[:, :-1]], 1)


def _slope_tangents(run: LayerRun, tangents: LayerTangents) -> tuple[Tensor, Tensor, Tensor]:
    """s' (R, S, N, 4, H), q' and f' (R, S, N, H)."""
    i, f, g, o = run.gates.chunk(4, -1)
    a_i, a_f, a_g, a_o = tangents.activations.chunk(4, -1)
    steep = 1 - run.squashed.square()
    squashed = steep * tangents.cells
    slope_i, slope_f, slope_g, slope_o = i - i * i, f - f * f, 1 - g * g, o - o * o
    i_, f_, g_, o_ = slope_i * a_i, slope_f * a_f, slope_g * a_g, slope_o * a_o
    out = _four(torch.empty_like(run.gates))
    torch.addcmul(g_ * slope_i, i_ * g, 1 - 2 * i, out=out[..., 0, :])
    torch.addcmul(
        _before(tangents.cells) * slope_f, f_ * run.cells[:, :-1], 1 - 2 * f, out=out[..., 1, :]
    )
    torch.addcmul(i_ * slope_g, i * g, g_, value=-2, out=out[..., 2, :])
    torch.addcmul(squashed * slope_o, o_ * run.squashed, 1 - 2 * o, out=out[..., 3, :])
    return out, torch.addcmul(o_ * steep, o * run.squashed, squashed, value=-2), f_


def tangent_backward(
    weights: Parameters,
    run: LayerRun,
    local: Slopes,
    covectors: Covectors,
    along: Parameters,
    tangents: LayerTangents,
    outputs: Tensor,
) -> Tensor:
    """Differentiate `backward`: δ' (R, S, N, 4H) from the tangent (R, S·N, H) of its ``outputs``;
    overwrites that.

    Every term that does not depend on a later step's δ' is there before the loop begins.
    """
    units = outputs.shape[-1]
    own, cells, forget_ = _slope_tangents(run, tangents)
    own[..., :3, :] *= covectors.cells.unsqueeze(-2)
    own[..., 3, :] *= covectors.hidden
    cells *= covectors.hidden
    cells[:, :-1].addcmul_(covectors.cells[:, 1:], forget_[:, 1:])
    hidden = outputs.view_as(covectors.hidden)
    _flat(hidden[:, :-1]).baddbmm_(_flat(covectors.gates[:, 1:]), along.hidden)
    gates = own.flatten(-2)
    delta, forget = own.unbind(1), run.gates[..., units : 2 * units].unbind(1)
    flat, dh, dc = gates.unbind(1), hidden.unbind(1), cells.unbind(1)
    s, q = local.gates.unbind(1), local.through.unbind(1)
    for t in reversed(range(len(dh))):
        if t + 1 < len(dh):
            dh[t].baddbmm_(flat[t + 1], weights.hidden)
            dc[t].addcmul_(dc[t + 1], forget[t + 1])
        dc[t].addcmul_(q[t], dh[t])
        delta[t][..., :3, :].addcmul_(s[t][..., :3, :], dc[t].unsqueeze(-2))
        delta[t][..., 3, :].addcmul_(s[t][..., 3, :], dh[t])
    return gates


def tangent_gradient(
    run: LayerRun,
    covectors: Covectors,
    tangents: LayerTangents,
    gates: Tensor,
    inputs: Tensor,
    out: Parameters,
) -> None:
    """Differentiate `gradient`, given δ' = ``gates`` and the tangent of the inputs."""
    delta, delta_ = _flat(covectors.gates), _flat(gates)
    torch.bmm(delta_.mT, run.inputs, out=out.inputs)
    out.inputs.baddbmm_(delta.mT, inputs)
    torch.bmm(delta_.mT, _flat(run.hidden[:, :-1]), out=out.hidden)
    out.hidden.baddbmm_(_flat(covectors.gates[:, 1:]).mT, _flat(tangents.hidden[:, :-1]))
    torch.sum(delta_, 1, out=out.inputs_bias)
    out.hidden_bias.copy_(out.inputs_bias)


def tangent_inputs_covector(
    weights: Parameters, covectors: Covectors, along: Parameters, gates: Tensor
) -> Tensor:
    """Differentiate `inputs_covector`, given δ' = ``gates``: (R, S·N, E)."""
    return torch.bmm(_flat(gates), weights.inputs).baddbmm_(_flat(covectors.gates), along.inputs)
