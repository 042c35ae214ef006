"""Walk the steps of a tiled kernel in program order: loops expand here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import Block, Operation

from compiler.dialects.tile import ChannelOp, ForOp, KernelOp, MmaOp, ProductOp, VectorOp
from compiler.ir.tiling import Box, Range, Tile, Tiling, Turn


def walk_steps(kernel: KernelOp, tiling: Tiling, turn: Turn | None = None) -> Iterator[tuple[Operation, Tile]]:
    """Every load, mma, vector, pool, copy and store of ``kernel``, in ``turn`` if it shares a loop, with its tile."""
    whole = {d: Range(0, size) for d, size in zip("nhwc", tiling.spec.output, strict=True)}
    whole["k"] = Range(0, tiling.reduction[-1].stop)
    part: dict[str, Range] = {}
    if turn is not None:
        part = {"n": Range(turn.image, turn.image + 1), tiling.stripe_dim: turn.rows}
        if not turn.rows.size:
            return iter(())
    steps = _walk(kernel.steps.block, whole | part, part, whole["k"].stop)
    return steps if tiling.spec.product is None or not tiling.schedule.pipelined else _pipelined(steps)


Steps = list[tuple[Operation, Tile]]


def _pipelined(steps: Iterator[tuple[Operation, Tile]]) -> Iterator[tuple[Operation, Tile]]:
    """Two products per tile, in a software pipeline: first product of a tile, vector programs of the one before it, the
    epilogue of the one before that, second product. So neither the MMU nor the VCU waits for the other.
    """
    waiting: list[tuple[Steps, Steps, Steps]] = []
    for tile in (*_by_tile(steps), None, None):
        first, *late = ([], [], [], []) if tile is None else _cut(tile)
        yield from first
        if len(waiting) > 0:
            yield from waiting[-1][0]
        if len(waiting) > 1:
            yield from waiting[-2][2]
        if len(waiting) > 0:
            yield from waiting[-1][1]
        waiting = [*waiting[-1:], (late[0], late[1], late[2])]


def _by_tile(steps: Iterator[tuple[Operation, Tile]]) -> Iterator[Steps]:
    gathered: Steps = []
    for op, tile in steps:
        if gathered and tile.out != gathered[-1][1].out:
            yield gathered
            gathered = []
        gathered.append((op, tile))
    if gathered:
        yield gathered


def _cut(steps: Steps) -> tuple[Steps, Steps, Steps, Steps]:
    """Up to the first product; vector programs; second product; epilogue and store."""
    kinds = [type(op) for op, _ in steps]
    mma, vector, product = kinds.index(MmaOp), kinds.index(VectorOp), kinds.index(ProductOp)
    return steps[: mma + 1], steps[mma + 1 : vector + 1], steps[vector + 1 : product + 1], steps[product + 1 :]


def _walk(
    block: Block, at: dict[str, Range], part: dict[str, Range], k_stop: int
) -> Iterator[tuple[Operation, Tile]]:
    """The steps of a block at a place in the loops around it; loops over a dimension in ``part`` stay inside that."""
    tile: Tile | None = None
    for op in block.ops:
        if isinstance(op, ForOp):
            yield from _loop(op, at, part, k_stop)
        elif not isinstance(op, ChannelOp):
            if tile is None:
                k = at["k"]
                tile = Tile(Box(at["n"], at["h"], at["w"], at["c"]), k, k.start == 0, k.stop == k_stop)
            yield op, tile


def _loop(
    op: ForOp, at: dict[str, Range], part: dict[str, Range], k_stop: int
) -> Iterator[tuple[Operation, Tile]]:
    dim, step = op.dim.data, op.step.value.data
    whole = part.get(dim, Range(0, op.size.value.data))
    for start in range(whole.start, whole.stop, step):
        yield from _walk(op.body.block, {**at, dim: Range(start, min(start + step, whole.stop))}, part, k_stop)
