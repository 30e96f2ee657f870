"""Residual networks with basic blocks (He et al. 2016) in torchvision's layout: its names, order,
shapes and start.

Where every output of a convolution sees the whole image, as in the last two stages for images of 32
× 32, the convolution is a product with a matrix made of the kernel's parts that meet the image; the
others meet padding alone. Measured for ResNet-18 on one core with 100 such images, float32: a
gradient then takes about 45 % of the time that `torch.nn.Conv2d` needs, a Hessian-vector product
about 55 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo_bench.core.model import Model
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.models.autograd import AutogradModel, Head, built, count_activations, layer_weights
from hpo_bench.models.row_by_row import RowByRow


class Convolution(nn.Conv2d):
    """Square convolution without bias whose padding keeps the size:

    `torch.nn.Conv2d`, or a matrix product.
    """

    def __init__(self, wide_in: int, wide_out: int, size: int, stride: int) -> None:
        super().__init__(wide_in, wide_out, size, stride, padding=size // 2, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ⌈h / stride⌉, ⌈w / stride⌉)."""
        (size, _), (stride, _) = self.kernel_size, self.stride
        if size == 1 and stride > 1:
            inputs, stride = inputs[..., ::stride, ::stride], 1
        starts = [seen_from(extent, size, stride) for extent in inputs.shape[-2:]]
        if starts[0] is None or starts[1] is None:
            return functional.conv2d(inputs, self.weight, stride=stride, padding=size // 2)
        height, width = inputs.shape[-2:]
        seen = [
            self.weight[..., a : a + height, b : b + width].flatten(1)
            for a in starts[0]
            for b in starts[1]
        ]
        matrix = torch.stack(seen, 1).flatten(0, 1)
        result: Tensor = (inputs.flatten(1) @ matrix.mT).unflatten(
            1, (-1, len(starts[0]), len(starts[1]))
        )
        return result


def seen_from(extent: int, size: int, stride: int) -> list[int] | None:
    """Where in the kernel an image of ``extent`` begins, for each output;

    None if one does not see all of the image.
    """
    starts = [size // 2 - output * stride for output in range((extent - 1) // stride + 1)]
    return starts if starts[-1] >= 0 and starts[0] + extent <= size else None


@layer_weights.register(Convolution)
def _(layer: Convolution, random: np.random.Generator) -> list[np.ndarray]:
    """torchvision's start: normal with variance 2 / fan_out."""
    fan_out = layer.out_channels * math.prod(layer.kernel_size)
    return [random.standard_normal(tuple(layer.weight.shape)) * math.sqrt(2 / fan_out)]


class BasicBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut x); where the shape changes, that is a 1 × 1
    convolution.
    """

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = Convolution(wide_in, wide_out, 3, stride), nn.BatchNorm2d(wide_out)
        self.conv2, self.bn2 = Convolution(wide_out, wide_out, 3, 1), nn.BatchNorm2d(wide_out)
        self.relu, self.downsample = nn.ReLU(), nn.Sequential()
        if stride > 1 or wide_in != wide_out:
            self.downsample = nn.Sequential(
                Convolution(wide_in, wide_out, 1, stride), nn.BatchNorm2d(wide_out)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ⌈h / stride⌉, ⌈w / stride⌉)."""
        inner = self.relu(self.bn1(self.conv1(inputs)))
        result: Tensor = self.relu(self.bn2(self.conv2(inner)) + self.downsample(inputs))
        return result


class ResidualNetwork(nn.Module):
    """Stem, stages ``layer1``, ``layer2``, … of blocks, each twice as wide; mean over the image;

    ``fc``.
    """

    def __init__(self, channels: int, width: int, blocks: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = (
            Convolution(channels, width, 7, 2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.maxpool, self.stages = (
            nn.MaxPool2d(3, 2, padding=1),
            tuple(f"layer{n}" for n in range(1, len(blocks) + 1)),
        )
        wide_in = width
        for stage, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            wide_out, first = width << stage, 2 if stage else 1
            stack = [
                BasicBlock(wide_out if n else wide_in, wide_out, 1 if n else first)
                for n in range(count)
            ]
            self.add_module(name, nn.Sequential(*stack))
            wide_in = wide_out
        self.fc = nn.Linear(wide_in, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, outputs)."""
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(inputs))))
        for name in self.stages:
            hidden = self.get_submodule(name)(hidden)
        result: Tensor = self.fc(hidden.mean((-2, -1)))
        return result


@dataclass(frozen=True)
class ResNet:
    """Residual network for images (paper: ResNet-18).

    Its batch-norm statistics belong to each repetition: the training and the validation forward
    passes move them, the evaluation uses them; no derivative goes through them, because losses in
    training mode use the batch's own.

    Args:
        blocks: blocks of each stage.
        width: channels of the first stage.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    width: int = 64

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> Model:
        """The model for images (N, C, h, w); on a CPU `RowByRow`.

        Raises:
            UserError: the table's rows are not images with classes, or a size is not one.
        """
        if table.inputs.ndim != 4 or table.task != "classification":
            raise UserError(
                f"model=resnet18: does not fit dataset {table.name}, whose rows are not images "
                "with classes"
            )
        for key, sizes in (("blocks", list(self.blocks)), ("width", [self.width])):
            if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
                raise UserError(
                    f"model.{key}={getattr(self, key)}: must be whole numbers, at least 1"
                )
        module = built(
            lambda: ResidualNetwork(table.inputs.shape[1], self.width, self.blocks, table.outputs)
        )
        activations = count_activations(module, torch.zeros(2, *table.inputs.shape[1:]))
        model = AutogradModel(
            module, Head.of(table.task, table.target_scale), dtype, device, activations
        )
        return RowByRow(model) if device.type == "cpu" else model
