"""How large a quantized model is: codes, scales, zero points and float leftovers, which tables often leave out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch.fx import GraphModule, Node

FLOAT_BITS = 32
CODEBOOK_BITS = 15 * FLOAT_BITS + 16 * 8
"""The thresholds and entries of a codebook."""


@dataclass(frozen=True)
class Size:
    """Bits of constants, by what they are. Everything that a graph stores is in one of them, once; sizes add up."""

    codes: int = 0
    """Quantized constants at their width, 4-bit ones packed."""
    scales: int = 0
    """binary32, of constants and of the activations that are read; with the tables of codebooks."""
    zeros: int = 0
    """At the width of the codes; those of symmetric ones, which are all 0, take nothing."""
    floats: int = 0
    """What stayed unquantized: biases, parameters of norms, position embeddings, binary32 weights, indices."""
    numbers: int = 0
    """How many constants codes and floats stand for; not bits."""

    @property
    def total(self) -> int:
        """Bits of everything: codes, scales, zero points and floats."""
        return self.codes + self.scales + self.zeros + self.floats

    @property
    def in_float(self) -> int:
        """Bits if every constant were binary32."""
        return FLOAT_BITS * self.numbers

    def __add__(self, other: Size) -> Size:
        return Size(*(getattr(self, row.name) + getattr(other, row.name) for row in fields(Size)))


def width(least: int, most: int) -> int:
    """Bits of a code in ``least`` .. ``most``: the narrowest of 4, 8 and 16."""
    return next(bits for bits in (4, 8, 16) if most - least < 1 << bits)


def sizes(q: GraphModule) -> dict[Node, Size]:
    """Size of the constants and quantizers of ``q`` by the operator that is the first to read them."""
    order = {node: i for i, node in enumerate(q.graph.nodes)}
    found: dict[Node, Size] = {}
    for node in q.graph.nodes:
        size = _size(q, node)
        if size.total and (readers := sorted(_readers(node), key=order.__getitem__)):
            found[readers[0]] = found.get(readers[0], Size()) + size
    return found


def _readers(node: Node) -> Iterator[Node]:
    """The operators behind quantization and dequantization."""
    for user in node.users:
        if is_qdq(user):
            yield from _readers(user)
        else:
            yield user


def is_qdq(node: Node) -> bool:
    """Whether a node only turns values into codes or back."""
    return str(node.target).startswith(("quantized_decomposed.", "quartic."))


def _size(q: GraphModule, node: Node) -> Size:
    """What a node holds; of codes also what dequantizes them. A quantizer counts where activations become codes."""
    name = str(node.target)
    if node.op == "get_attr" and node.users:
        return _constant(q, node)
    if name.startswith("quantized_decomposed.quantize_per_tensor"):
        least, most = (int(end) for end in node.args[3:5])  # type: ignore[arg-type]
        return Size(scales=FLOAT_BITS, zeros=width(least, most) if node.args[2] else 0)
    return Size(scales=FLOAT_BITS + CODEBOOK_BITS, zeros=8) if name.startswith("quartic.quantize_codebook") else Size()


def constant(q: GraphModule, node: Node) -> torch.Tensor:
    """The tensor of a ``get_attr``."""
    value: object = q
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor), "exported graphs hold tensors"
    return value


def _constant(q: GraphModule, node: Node) -> Size:
    value, user = constant(q, node), next(iter(node.users))
    count = value.numel()
    if "dequantize" not in str(user.target):
        return Size(floats=count * value.element_size() * 8, numbers=count)
    place = user.args.index(node)
    if "per_channel" in str(user.target):
        bits = width(*(int(end) for end in user.args[4:6]))  # type: ignore[arg-type]
        zeros = bits * count if place == 2 and value.any() else 0
        return [Size(codes=count * bits, numbers=count), Size(scales=FLOAT_BITS * count), Size(zeros=zeros)][place]
    bits = width(*(int(end) for end in user.args[3:5]))  # type: ignore[arg-type]
    return Size(count * bits, FLOAT_BITS, bits if user.args[2] else 0, numbers=count)
