"""Tile maths: which box of each operand a tile of the output needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from compiler.ir.kernel import CopyAnchor, KernelSpec, MatrixAnchor, PoolAnchor, ResizeAnchor, Window
from compiler.ir.schedule import KernelSchedule

READS = ("act", "rhs", "row", "stream", "second", "pooled")
"""How a kernel reads an operand as boxes: the anchor's input, an activation as weights, a stream of a reduction's
passes over whole rows, a stream of the vector program, the other factor of a trailing product, a stream of the program
behind the trailing anchor. One operand may be read in several ways."""


class Range(NamedTuple):
    """Half-open interval of indices."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of indices."""
        return self.stop - self.start


class Box(NamedTuple):
    """A box of a tensor seen as (n, h, w, c)."""

    n: Range
    h: Range
    w: Range
    c: Range

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.n.size * self.h.size * self.w.size * self.c.size


class Turn(NamedTuple):
    """When a kernel in a shared loop runs a part of its tiles: a stripe of one image."""

    image: int
    stripe: int
    rows: Range
    """What it makes of the output then, in rows (columns if there is one row)."""


class Tile(NamedTuple):
    """One step of a kernel's loops: an output box, and the chunk of the reduction."""

    out: Box
    k: Range
    first_k: bool
    last_k: bool


def split(size: int, step: int) -> tuple[Range, ...]:
    """[0, size) in pieces of ``step``; the last may be shorter."""
    return tuple(Range(i, min(i + step, size)) for i in range(0, size, step))


@dataclass(frozen=True, eq=False)
class Tiling:
    """A kernel under a schedule: its tiles in program order and the operand boxes of each."""

    spec: KernelSpec
    schedule: KernelSchedule

    @property
    def images(self) -> int:
        """Images per tile: one; a copy's strides may cross images, so it moves the whole batch at once."""
        return self.spec.output[0] if isinstance(self.spec.anchor, CopyAnchor) else 1

    def tiles_of(self, turn: Turn) -> int:
        """How many output tiles a turn has."""
        s = self.schedule
        step = s.tile_h if self.stripe_dim == "h" else s.tile_w
        others = (count for dim, count in self.counts.items() if dim not in ("n", "k", self.stripe_dim))
        return -(-turn.rows.size // step) * prod(others)

    @cached_property
    def ranges(self) -> dict[str, tuple[Range, ...]]:
        """The pieces of each dimension of the output."""
        n, h, w, c = self.spec.output
        s = self.schedule
        found = {
            "n": split(n, self.images),
            "h": split(h, s.tile_h),
            "w": split(w, s.tile_w),
            "c": split(c, s.tile_c),
        }
        if s.stripes:
            step = s.tile_h if self.stripe_dim == "h" else s.tile_w
            found[self.stripe_dim] = tuple(
                Range(piece.start + start, piece.stop + start)
                for start, stop in self.stripes
                for piece in split(stop - start, step)
            )
        return found

    @property
    def stripe_dim(self) -> str:
        """The dimension that a shared loop cuts: rows, or columns where there is one row."""
        return "h" if self.spec.output[1] > 1 else "w"

    @cached_property
    def stripes(self) -> tuple[Range, ...]:
        """The stripes of a kernel in a shared loop, some of them empty; none of another."""
        ends = self.schedule.stripes
        return tuple(Range(a, b) for a, b in zip((0, *ends), ends, strict=False))

    def turns(self) -> tuple[Turn | None, ...]:
        """The turns of a kernel in a shared loop, in order; one, None, of another."""
        if not self.stripes:
            return (None,)
        images = range(self.spec.output[0])
        return tuple(Turn(n, j, rows) for n in images for j, rows in enumerate(self.stripes))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many pieces each dimension of the output, and the reduction ("k"), is cut into."""
        n, h, w, c = self.spec.output
        s = self.schedule
        k = 1
        if isinstance(anchor := self.spec.anchor, MatrixAnchor) and not anchor.depthwise:
            k = -(-self.group_inputs // s.tile_k)
        found = {"n": n // self.images, "h": -(-h // s.tile_h), "w": -(-w // s.tile_w), "c": -(-c // s.tile_c), "k": k}
        if s.stripes:
            step = s.tile_h if self.stripe_dim == "h" else s.tile_w
            sizes = (stop - start for start, stop in zip((0, *s.stripes), s.stripes, strict=False))
            found[self.stripe_dim] = sum(-(-size // step) for size in sizes)
        return found

    @cached_property
    def reduction(self) -> tuple[Range, ...]:
        """Chunks of a matrix kernel's input channels (per group); one empty chunk otherwise."""
        anchor = self.spec.anchor
        if not isinstance(anchor, MatrixAnchor) or anchor.depthwise:
            return (Range(0, 0),)
        return split(self.group_inputs, self.schedule.tile_k)

    @property
    def group_inputs(self) -> int:
        """Input channels per group of a matrix kernel."""
        anchor = self.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        return self.spec.operands[anchor.act][3] // anchor.groups

    @property
    def group_outputs(self) -> int:
        """Output channels per group of a matrix kernel."""
        anchor = self.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        return self.conv_shape[3] // anchor.groups

    @property
    def conv_shape(self) -> tuple[int, int, int, int]:
        """Shape that the anchor produces: the inner tensor of a trailing pool, else the output."""
        return self.spec.inner or self.spec.output

    def tiles(self) -> Iterator[Tile]:
        """Every step, in program order: loops as ordered, reduction innermost."""
        order = self.schedule.order
        index: dict[str, Range] = {}
        last = len(self.reduction) - 1

        def loop(depth: int) -> Iterator[Tile]:
            if depth == len(order):
                out = Box(index["n"], index["h"], index["w"], index["c"])
                for i, k in enumerate(self.reduction):
                    yield Tile(out, k, i == 0, i == last)
                return
            for piece in self.ranges[order[depth]]:
                index[order[depth]] = piece
                yield from loop(depth + 1)

        return loop(0)

    def params_range(self, channels: Range) -> Range:
        """The channels of the parameter block that a tile of ``channels`` uses."""
        return Range(0, self.conv_shape[3]) if self.schedule.whole_params else channels

    def anchor_box(self, out: Box) -> Box:
        """What the anchor must produce for ``out``: itself, or with a trailing pool the taps' box."""
        if self.spec.pool is None:
            return out
        inner = self.spec.inner
        assert inner is not None
        if isinstance(self.spec.pool, MatrixAnchor):
            return Box(out.n, out.h, out.w, Range(0, inner[3]))
        return _window_box(self.spec.pool.window, out, inner, out.c)

    def row_box(self, out: Box) -> Box:
        """What the row stages sweep for ``out``: whole rows of channels."""
        made = self.anchor_box(out)
        return made._replace(c=Range(0, self.spec.row_channels)) if self.spec.row_channels else made

    def box(self, role: str, operand: int, tile: Tile) -> Box:
        """The box of ``operand`` that ``tile`` reads in ``role`` (one of READS)."""
        anchor, shape = self.spec.anchor, self.spec.operands[operand]
        if isinstance(anchor, CopyAnchor):
            return Box(*(Range(0, size) for size in shape))
        made = tile.out if role == "pooled" else self.anchor_box(tile.out)
        if role == "rhs":
            assert isinstance(anchor, MatrixAnchor)
            rows, columns = (made.c, tile.k) if anchor.transposed else (tile.k, made.c)
            return Box(_clip(made.n, shape[0]), Range(0, 1), rows, columns)
        if role == "second":
            assert self.spec.product is not None
            rows, columns = Range(0, self.conv_shape[3]), tile.out.c
            rows, columns = (columns, rows) if self.spec.product.transposed else (rows, columns)
            return Box(_clip(made.n, shape[0]), Range(0, 1), rows, columns)
        if role == "row":
            made = self.row_box(tile.out)
        if role == "act" and isinstance(anchor, ResizeAnchor):
            rows, columns = (anchor.input_range(i, *made[1 + i], shape[1 + i]) for i in (0, 1))
            return Box(made.n, Range(*rows), Range(*columns), made.c)
        if role == "act":
            assert isinstance(anchor, MatrixAnchor | PoolAnchor)
            matrix = isinstance(anchor, MatrixAnchor)
            channels = self._input_channels(anchor, made, tile.k) if matrix else made.c
            return _window_box(anchor.window, made, shape, channels)
        return Box(*(_clip(r, size) for r, size in zip(made, shape, strict=True)))

    def max_box(self, role: str, operand: int) -> Box:
        """A box at least as large, in every dimension, as that of any tile; its ranges start at 0."""
        spec, s, shape = self.spec, self.schedule, self.spec.operands[operand]
        anchor = spec.anchor
        if isinstance(anchor, CopyAnchor):
            return Box(*(Range(0, size) for size in shape))
        h, w, c = (min(t, size) for t, size in zip((s.tile_h, s.tile_w, s.tile_c), spec.output[1:], strict=True))
        if role == "second":
            assert spec.product is not None
            rows, columns = Range(0, self.conv_shape[3]), Range(0, c)
            rows, columns = (columns, rows) if spec.product.transposed else (rows, columns)
            return Box(Range(0, 1), Range(0, 1), rows, columns)
        if spec.pool is not None and role != "pooled":
            if isinstance(spec.pool, MatrixAnchor):
                c = self.conv_shape[3]
            else:
                h, w = (_taps(spec.pool.window, axis, t, self.conv_shape[1 + axis]) for axis, t in ((0, h), (1, w)))
        if role == "row":
            c = spec.row_channels or c
        if role == "rhs":
            assert isinstance(anchor, MatrixAnchor)
            rows, columns = Range(0, min(s.tile_k, self.group_inputs)), Range(0, c)
            rows, columns = (columns, rows) if anchor.transposed else (rows, columns)
            return Box(Range(0, 1), Range(0, 1), rows, columns)
        if role == "act" and isinstance(anchor, ResizeAnchor):
            # The first and last positions fall anywhere between two inputs.
            h, w = (-(-(t - 1) * anchor.num[i] // anchor.den[i]) + 3 for i, t in ((0, h), (1, w)))
        elif role == "act":
            assert isinstance(anchor, MatrixAnchor | PoolAnchor)
            h, w = (_taps(anchor.window, axis, t, shape[1 + axis]) for axis, t in ((0, h), (1, w)))
            c = self._max_input_channels(c) if isinstance(anchor, MatrixAnchor) else c
        sizes = (1, min(h, shape[1]), min(w, shape[2]), min(c, shape[3]))
        return Box(*(Range(0, size) for size in sizes))

    def _max_input_channels(self, c: int) -> int:
        anchor = self.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        if anchor.depthwise:
            return c
        chunk = min(self.schedule.tile_k, self.group_inputs)
        if anchor.groups == 1 or self.group_outputs % self.schedule.tile_c == 0:
            return chunk
        return min(anchor.groups, -(-c // self.group_outputs) + 1) * self.group_inputs

    def _input_channels(self, anchor: MatrixAnchor, box: Box, k: Range) -> Range:
        if anchor.depthwise:
            return box.c
        first, last = box.c.start // self.group_outputs, (box.c.stop - 1) // self.group_outputs
        if anchor.groups == 1:
            return k
        # Chunks of the reduction are cut inside each group; several groups are read whole.
        if first == last:
            return Range(first * self.group_inputs + k.start, first * self.group_inputs + k.stop)
        return Range(first * self.group_inputs, (last + 1) * self.group_inputs)


def _taps(window: Window, axis: int, outputs: int, size: int) -> int:
    """Input length that ``outputs`` neighbouring outputs read, at most ``size``."""
    return min((outputs - 1) * window.stride[axis] + window.extent(axis), size)


def _clip(index: Range, size: int) -> Range:
    """A broadcast dimension has one index, whatever the tile."""
    return index if size > 1 or index.stop <= size else Range(0, 1)


def _window_box(window: Window, out: Box, shape: tuple[int, int, int, int], channels: Range) -> Box:
    h_low, h_high, _ = window.input_range(0, out.h.start, out.h.stop, shape[1])
    w_low, w_high, _ = window.input_range(1, out.w.start, out.w.stop, shape[2])
    return Box(out.n, Range(h_low, h_high), Range(w_low, w_high), channels)
