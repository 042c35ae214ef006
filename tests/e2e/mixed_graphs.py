"""Quantized graphs with a width per tensor, drawn from a seed: q/dq nodes as any quantizer writes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx, nn

import quantizer.codebook  # noqa: F401  (registers its operators)

aten = torch.ops.aten
Q = torch.ops.quantized_decomposed

RANGES = {
    "4": (-8, 7, torch.int8),
    "4u": (0, 15, torch.uint8),
    "8": (-128, 127, torch.int8),
    "8u": (0, 255, torch.uint8),
    "16": (-32768, 32767, torch.int16),
}
"""Lowest code, highest code and PyTorch's type, by the name of a width."""
BITS = {"4": 4, "4u": 4, "8": 8, "8u": 8, "16": 16}
WEIGHTS = {4: (4, 8), 8: (4, 8), 16: (4, 8, 16)}
"""Bits of weights that have a mode, by the bits of the activations."""
FACTORS = {4: (4, 8), 8: (4, 8), 16: (8, 16)}
"""The same for second factors that are activations."""
BOOK = [-127, -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 32, 64, 127]
LARGEST = 3000
"""Elements of a tensor: the simulator takes milliseconds."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; ``stored`` are the codes behind it and the arguments that dequantize them."""

    node: fx.Node
    stored: tuple[fx.Node, tuple[Any, ...]] | None = None
    bits: int = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """PyTorch's shape."""
        return tuple(self.node.meta["val"].shape)


class Drawing:
    """A graph that grows by drawn steps. Scales fit the values of a random input, so that none dies."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.root, self.graph = nn.Module(), fx.Graph()
        self.shape = tuple(self.random.randint(low, high) for low, high in ((1, 2), (1, 9), (2, 9), (2, 9)))
        self.values = [Value(self.placed(self.graph.placeholder("x"), self.rand(*self.shape)))]
        for _ in range(self.random.randint(6, 14)):
            grown = getattr(self, self.random.choice(STEPS))()
            if grown is not None and grown.node.meta["val"].numel() <= LARGEST:
                self.values.append(grown)

    def module(self) -> fx.GraphModule:
        """The graph: its last value, and some others, as binary32 or as codes where PyTorch can show them."""
        shown = self.values[-1:] + self.some(self.values[1:-1], 2)
        self.graph.output(tuple(self.shown(value) for value in shown))
        return fx.GraphModule(self.root, self.graph)

    def shown(self, value: Value) -> fx.Node:
        whole = value.stored and value.bits > 4 and value.stored[0].meta["val"].dtype != torch.uint8
        return value.stored[0] if value.stored and whole and self.random.random() < 0.3 else value.node

    # Parts of a graph

    def rand(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def some(self, values: list[Value], most: int) -> list[Value]:
        return self.random.sample(values, self.random.randint(0, min(most, len(values))))

    def placed(self, node: fx.Node, value: torch.Tensor) -> fx.Node:
        node.meta["val"] = value
        return node

    def attribute(self, value: torch.Tensor) -> fx.Node:
        name = f"p{len(list(self.root.buffers()))}"
        self.root.register_buffer(name, value)
        return self.placed(self.graph.get_attr(name), value)

    def call(self, target: Any, *args: Any) -> fx.Node:
        found = target(*fx.node.map_arg(args, lambda node: node.meta["val"]))
        return self.placed(self.graph.call_function(target, args), found)

    def quantized(self, value: Value, *widths: str) -> Value:
        """``value`` as codes of one of ``widths``: its own if it has some and the draw is kind, else new ones."""
        widths = widths or tuple(RANGES)
        if value.bits in {BITS[w] for w in widths} and self.random.random() < 0.6:
            return value
        return self.requantized(value, self.random.choice(widths))

    def requantized(self, value: Value, width: str) -> Value:
        low, high, dtype = RANGES[width]
        least, most = (float(f(value.node.meta["val"]).nan_to_num()) for f in (torch.amin, torch.amax))
        scale = max(most - least, 1e-3) * self.random.choice((0.7, 1.0, 1.5)) / (high - low)
        zero = min(max(round(low - least / scale), low), high)
        args = (scale, zero, low, high, dtype)
        codes = self.call(Q.quantize_per_tensor.default, value.node, *args)
        return self.dequantized(codes, args, BITS[width])

    def dequantized(self, codes: fx.Node, args: tuple[Any, ...], bits: int) -> Value:
        return Value(self.call(Q.dequantize_per_tensor.default, codes, *args), (codes, args), bits)

    def decoded(self, value: Value) -> Value:
        """``value`` through a codebook of 16 entries."""
        step = max(float(value.node.meta["val"].abs().max()), 1e-3) / 127
        thresholds = [step * (a + b) / 2 for a, b in pairwise(BOOK)]
        codes = self.call(torch.ops.quartic.quantize_codebook.default, value.node, thresholds)
        return Value(self.call(torch.ops.quartic.dequantize_codebook.default, codes, BOOK, 0, step), None, 4)

    def weight(self, bits: int, *shape: int) -> fx.Node:
        """Drawn codes per channel, half of the time with zero points."""
        return self.asymmetric(bits, *shape) if self.random.random() < 0.5 else self.per_channel(bits, None, *shape)

    def asymmetric(self, bits: int, *shape: int) -> fx.Node:
        """Drawn codes with a scale and a zero point per channel."""
        half = 1 << (bits - 1)
        return self.per_channel(bits, torch.randint(-half, half, shape[:1], generator=self.generator), *shape)

    def per_channel(self, bits: int, zeros: torch.Tensor | None, *shape: int) -> fx.Node:
        low, high, dtype = RANGES[self.random.choice([w for w in RANGES if BITS[w] == bits])]
        zeros = (low + high + 1) // 2 + (torch.zeros(shape[0], dtype=torch.int64) if zeros is None else zeros)
        codes = torch.randint(low, high + 1, shape, generator=self.generator).to(dtype)
        scales = (torch.rand(shape[0], generator=self.generator).double() + 0.1) / (high - low)
        named = [self.attribute(t) for t in (codes, scales, zeros)]
        return self.call(Q.dequantize_per_channel.default, *named, 0, low, high, dtype)

    def source(self) -> Value:
        """Some value, the last ones rather than the first."""
        return self.random.choice(self.values[-3:])

    def partner(self, value: Value, fits: Callable[[tuple[int, ...]], bool]) -> Value:
        return self.random.choice([other for other in self.values if fits(other.shape)] or [value])

    def maybe(self, value: Value) -> Value:
        """``value``, or its codes of any width."""
        return self.quantized(value) if self.random.random() < 0.8 else value

    # Steps

    def convolution(self) -> Value:
        value = self.source()
        x = self.decoded(value) if self.random.random() < 0.2 else self.quantized(value)
        bits = self.random.choice((4, 8) if x.stored is None else WEIGHTS[x.bits])
        channels, image = x.shape[1], x.shape[2:]
        groups = self.random.choice([1, 1, channels])
        outputs = channels if groups > 1 else self.random.randint(1, 9)
        kernel = [self.random.randint(1, min(3, size)) for size in image]
        bias = self.attribute(self.rand(outputs)) if self.random.random() < 0.5 else None
        w = self.weight(bits, outputs, channels // groups, *kernel)
        return Value(self.call(aten.conv2d.default, x.node, w, bias, [1, 1], [k // 2 for k in kernel], [1, 1], groups))

    def linear(self) -> Value:
        x = self.quantized(self.source())
        w = self.weight(self.random.choice(WEIGHTS[x.bits]), self.random.randint(1, 9), x.shape[-1])
        return Value(self.call(aten.linear.default, x.node, w))

    def product(self) -> Value:
        """A matmul of two activations, as attention has."""
        a = self.quantized(self.source())
        b = self.partner(a, lambda s: s[:2] == a.shape[:2] and s[3] == a.shape[3])
        b = self.quantized(b, *(w for w in RANGES if BITS[w] in FACTORS[a.bits]))
        return Value(self.call(aten.matmul.default, a.node, self.call(aten.transpose.int, b.node, 2, 3)))

    def binary(self) -> Value:
        a = self.source()
        b = self.partner(a, lambda s: s == a.shape)
        target = self.random.choice((aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.maximum.default))
        return Value(self.call(target, self.maybe(a).node, self.maybe(b).node))

    def concat(self) -> Value:
        a, axis = self.source(), self.random.randint(1, 3)
        rest = a.shape[:axis] + a.shape[axis + 1 :]
        others = [self.partner(a, lambda s: s[:axis] + s[axis + 1 :] == rest) for _ in range(self.random.randint(1, 2))]
        joined = Value(self.call(aten.cat.default, [self.maybe(value).node for value in (a, *others)], axis))
        return self.maybe(joined)

    def pool(self) -> Value:
        x = self.source()
        kernel, stride = (
            [self.random.randint(1, min(3, s)) for s in x.shape[2:]],
            [self.random.randint(1, 2) for _ in "hw"],
        )
        match self.random.choice(("max", "average", "adaptive", "mean")):
            case "max":
                x = self.quantized(x, "8", "8u", "16")
                return self.same(
                    x, lambda node: self.call(aten.max_pool2d.default, node, kernel, stride), on_codes=False
                )
            case "average":
                return Value(self.call(aten.avg_pool2d.default, self.quantized(x).node, kernel, stride))
            case "adaptive":
                sizes = [self.random.randint(1, s) for s in x.shape[2:]]
                return Value(self.call(aten.adaptive_avg_pool2d.default, self.quantized(x).node, sizes))
            case _:
                return Value(self.call(aten.mean.dim, self.quantized(x).node, [2, 3], True))

    def same(self, x: Value, move: Callable[[fx.Node], fx.Node], on_codes: bool = True) -> Value:
        """A move of ``x``: of its codes, or of what they stand for, which a quantizer quantizes again alike."""
        if x.stored is None:
            return Value(move(x.node))
        codes, args = x.stored
        if on_codes and self.random.random() < 0.5:
            return self.dequantized(move(codes), args, x.bits)
        moved = move(x.node)
        if self.random.random() < 0.5:
            return Value(moved, None, 32)
        return self.dequantized(self.call(Q.quantize_per_tensor.default, moved, *args), args, x.bits)

    def permute(self) -> Value:
        order = [0, *self.random.sample((1, 2, 3), 3)]
        return self.same(self.maybe(self.source()), lambda node: self.call(aten.permute.default, node, order))

    def reshape(self) -> Value:
        x = self.maybe(self.source())
        n, c, h, w = x.shape
        shape = self.random.choice([(n, c * h, 1, w), (n, h, c, w), (n, w, h, c), (n, c, w, h), (n, 1, c, h * w)])
        return self.same(x, lambda node: self.call(aten.reshape.default, node, shape))

    def slice(self) -> Value:
        x, axis = self.maybe(self.source()), self.random.randint(1, 3)
        start = self.random.randint(0, x.shape[axis] - 1)
        end, step = self.random.randint(start + 1, x.shape[axis]), self.random.choice((1, 1, 2))
        return self.same(x, lambda node: self.call(aten.slice.Tensor, node, axis, start, end, step))

    def pad(self) -> Value:
        x, sides = self.maybe(self.source()), [self.random.randint(0, 2) for _ in range(4)]
        return self.same(x, lambda node: self.call(aten.constant_pad_nd.default, node, sides, 0.0), on_codes=False)

    def resize(self) -> Value:
        x = self.quantized(self.source())
        sizes = [self.random.randint(1, 2 * s) for s in x.shape[2:]]
        if self.random.random() < 0.5:
            return Value(self.call(aten.upsample_bilinear2d.vec, x.node, sizes, self.random.random() < 0.5, None))
        return self.same(x, lambda node: self.call(aten.upsample_nearest2d.vec, node, sizes, None), on_codes=False)

    def rows(self) -> Value:
        x, axis = self.maybe(self.source()), self.random.choice((1, 3))
        match self.random.choice(("softmax", "norm", "sum", "amax")):
            case "softmax":
                return Value(self.call(aten.softmax.int, x.node, axis))
            case "norm":
                return Value(self.call(aten.layer_norm.default, x.node, [x.shape[3]]))
            case "sum":
                return Value(self.call(aten.sum.dim_IntList, x.node, [axis], True))
            case _:
                return Value(self.call(aten.amax.default, x.node, [axis], True))

    def function(self) -> Value:
        target = self.random.choice((aten.relu.default, aten.sigmoid.default, aten.gelu.default, aten.tanh.default))
        return self.maybe(Value(self.call(target, self.maybe(self.source()).node)))

    def branches(self) -> Value:
        """One tensor read at two widths, which meet again."""
        x = self.source()
        one, other = (self.requantized(x, width) for width in self.random.sample(tuple(RANGES), 2))
        return self.maybe(Value(self.call(aten.mul.Tensor, one.node, other.node)))

    def again(self) -> Value:
        """A tensor's codes at another width."""
        return self.quantized(self.quantized(self.source()))


STEPS = (
    "convolution", "convolution", "convolution", "linear", "linear", "product", "product", "binary", "binary",
    "concat", "concat", "pool", "pool", "permute", "reshape", "slice", "pad", "resize", "rows", "function",
    "branches", "again",
)  # fmt: skip


class Built(Drawing):
    """A graph that a test writes down: ``x`` of ``shape``, and the parts of a drawing."""

    def __init__(self, shape: tuple[int, ...] = (2, 6, 5, 8)) -> None:
        super().__init__(0)
        self.root, self.graph = nn.Module(), fx.Graph()
        self.shape = shape
        self.x = Value(self.placed(self.graph.placeholder("x"), self.rand(*self.shape)))

    def linear_of(self, x: Value, bits: int, outputs: int = 8) -> Value:
        return Value(self.call(aten.linear.default, x.node, self.weight(bits, outputs, x.shape[-1])))

    def matmul_of(self, a: Value, b: Value) -> Value:
        return Value(self.call(aten.matmul.default, a.node, self.call(aten.transpose.int, b.node, 2, 3)))

    def returning(self, *nodes: fx.Node) -> fx.GraphModule:
        self.graph.output(nodes)
        return fx.GraphModule(self.root, self.graph)


def mixed(seed: int) -> tuple[fx.GraphModule, tuple[int, ...]]:
    """The graph of ``seed``, and its input's shape."""
    drawing = Drawing(seed)
    return drawing.module(), drawing.shape


def widths_met(module: fx.GraphModule) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Per operator that reads dequantized tensors: its name, and the bits of each."""
    for node in module.graph.nodes:
        if node.op == "call_function" and "quantize" not in str(node.target):
            bits = tuple(b for b in map(bits_of, node.all_input_nodes) if b)
            yield str(node.target).split(".")[1], bits


def bits_of(node: fx.Node) -> int:
    """Bits of the codes that ``node`` dequantizes, perhaps moved; 0 if it computes."""
    match str(node.target).split(".")[1:2]:
        case ["dequantize_per_tensor"] | ["dequantize_per_channel"]:
            low, high = node.args[-3:-1]
            return (int(high) - int(low)).bit_length()  # type: ignore[call-overload]
        case ["dequantize_codebook"]:
            return 4
        case ["transpose"] | ["permute"] | ["reshape"] | ["slice"]:
            return bits_of(node.all_input_nodes[0])
        case _:
            return 0
