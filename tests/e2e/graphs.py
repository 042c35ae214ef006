"""Random CNN graphs: a recipe drawn by hypothesis, and the module that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

Shape = tuple[int, int, int]

ACTIVATIONS = ("relu", "relu6", "hardtanh", "hardswish", "sigmoid")


@dataclass(frozen=True)
class Step:
    """One operation on earlier values (0 is the graph's input), with the options that ``kind`` needs."""

    kind: str
    args: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A graph of steps whose last value is the output."""

    batch: int
    shape: Shape
    steps: tuple[Step, ...]


class Graph(nn.Module):
    """The module of a recipe; parameters are seeded."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(recipe.steps))
            layers = {f"step{index}": _layer(step) for index, step in enumerate(recipe.steps) if step.kind in LAYERS}
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last value, for input [batch, *shape]."""
        values = [x]
        for index, step in enumerate(self.recipe.steps):
            operands = [values[arg] for arg in step.args]
            if step.kind in LAYERS:
                values.append(self.layers[f"step{index}"](operands[0]))
            else:
                values.append(_apply(step.kind, operands, dict(step.options)))
        return values[-1]


LAYERS = {"conv": nn.Conv2d, "linear": nn.Linear}


def _layer(step: Step) -> nn.Module:
    return LAYERS[step.kind](**dict(step.options))


def _apply(kind: str, operands: list[torch.Tensor], options: dict[str, Any]) -> torch.Tensor:
    match kind:
        case "add":
            return operands[0] + operands[1]
        case "mul":
            return operands[0] * operands[1]
        case "concat":
            return torch.cat(operands, 1)
        case "pad":
            return functional.pad(operands[0], **options)
        case "hardtanh":
            return functional.hardtanh(operands[0], -0.7, 1.3)
        case "sigmoid":
            return torch.sigmoid(operands[0])
        case "mean":
            return operands[0].mean([2, 3])
        case "flatten":
            return torch.flatten(operands[0], 1)
        case _:
            return getattr(functional, kind)(operands[0], **options)


def _windowed(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def _conv(draw: st.DrawFn, arg: int, shape: Shape) -> tuple[Step, Shape]:
    channels, height, width = shape
    pad = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    kernel = tuple(
        draw(st.integers(1, min(4, size + 2 * extra))) for size, extra in zip((height, width), pad, strict=True)
    )
    fits = all(
        2 * (side - 1) < size + 2 * extra for side, size, extra in zip(kernel, (height, width), pad, strict=True)
    )
    dilation = draw(st.integers(1, 2)) if fits else 1
    stride = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, *[g for g in range(2, channels + 1) if channels % g == 0]]))
    outputs = groups * draw(st.integers(1, max(1, 9 // groups)))
    options = {
        "in_channels": channels, "out_channels": outputs, "kernel_size": kernel, "stride": stride, "padding": pad,
        "dilation": dilation, "groups": groups, "bias": draw(st.booleans()),
    }  # fmt: skip
    out = (
        outputs,
        _windowed(height, kernel[0], stride, pad[0], dilation),
        _windowed(width, kernel[1], stride, pad[1], dilation),
    )
    return Step("conv", (arg,), tuple(options.items())), out


@st.composite
def _pool(draw: st.DrawFn, arg: int, shape: Shape) -> tuple[Step, Shape]:
    channels, height, width = shape
    kind = draw(st.sampled_from(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"]))
    if kind == "adaptive_avg_pool2d":
        size = (draw(st.integers(1, height)), draw(st.integers(1, width)))
        return Step(kind, (arg,), (("output_size", size),)), (channels, *size)
    kernel = draw(st.integers(1, min(3, height, width)))
    stride, pad = draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2))
    options: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": pad}
    if kind == "avg_pool2d":
        options["count_include_pad"] = draw(st.booleans())
    out = (channels, _windowed(height, kernel, stride, pad), _windowed(width, kernel, stride, pad))
    return Step(kind, (arg,), tuple(options.items())), out


@st.composite
def recipes(draw: st.DrawFn, max_steps: int = 5) -> Recipe:
    """Graphs of up to ``max_steps`` operations, the first a convolution, that end in a head half of the time."""
    sizes = st.integers(1, 9)
    shape: Shape = (draw(sizes), draw(sizes), draw(sizes))
    batch = draw(st.sampled_from([1, 1, 2]))
    shapes: list[Shape] = [shape]
    steps: list[Step] = []

    def push(step: Step, out: Shape) -> None:
        steps.append(step)
        shapes.append(out)

    push(*draw(_conv(0, shape)))
    for _ in range(draw(st.integers(0, max_steps - 1))):
        last = len(shapes) - 1
        kind = draw(st.sampled_from(["conv", "act", "add", "mul", "concat", "pool", "pad"]))
        if kind == "conv":
            push(*draw(_conv(last, shapes[last])))
        elif kind == "act":
            push(Step(draw(st.sampled_from(ACTIVATIONS)), (last,)), shapes[last])
        elif kind == "pool":
            push(*draw(_pool(last, shapes[last])))
        elif kind == "pad":
            left, right, top, bottom = (draw(st.integers(0, 2)) for _ in range(4))
            channels, height, width = shapes[last]
            push(
                Step("pad", (last,), (("pad", (left, right, top, bottom)),)),
                (channels, height + top + bottom, width + left + right),
            )
        else:
            match_channels = kind != "concat"
            others = [
                index
                for index in range(1, last + 1)
                if shapes[index][1:] == shapes[last][1:] and (not match_channels or shapes[index] == shapes[last])
            ]
            other = draw(st.sampled_from(others))
            channels = shapes[last][0] + (0 if match_channels else shapes[other][0])
            push(Step(kind, (last, other)), (channels, *shapes[last][1:]))
    if draw(st.booleans()):
        channels, height, width = shapes[-1]
        mean = draw(st.booleans())
        features = channels if mean else channels * height * width
        steps.append(Step("mean" if mean else "flatten", (len(shapes) - 1,)))
        options = {"in_features": features, "out_features": draw(sizes), "bias": draw(st.booleans())}
        steps.append(Step("linear", (len(shapes),), tuple(options.items())))
    return Recipe(batch, shape, tuple(steps))
