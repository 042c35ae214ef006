"""Walk the steps of a tiled kernel in program order: loops expand here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import Block, Operation

from compiler.dialects.tile import ChannelOp, ForOp, KernelOp
from compiler.ir.tiling import Box, Range, Tile, Tiling


def walk_steps(kernel: KernelOp, tiling: Tiling) -> Iterator[tuple[Operation, Tile]]:
    """Every load, mma, vector, pool, copy and store of ``kernel`` with the tile that it works on."""
    whole = {d: Range(0, size) for d, size in zip("nhwc", tiling.spec.output, strict=True)}
    whole["k"] = Range(0, tiling.reduction[-1].stop)
    return _walk(kernel.steps.block, whole, whole["k"].stop)


def _walk(block: Block, at: dict[str, Range], k_stop: int) -> Iterator[tuple[Operation, Tile]]:
    tile: Tile | None = None
    for op in block.ops:
        if isinstance(op, ForOp):
            yield from _loop(op, at, k_stop)
        elif not isinstance(op, ChannelOp):
            if tile is None:
                k = at["k"]
                tile = Tile(Box(at["n"], at["h"], at["w"], at["c"]), k, k.start == 0, k.stop == k_stop)
            yield op, tile


def _loop(op: ForOp, at: dict[str, Range], k_stop: int) -> Iterator[tuple[Operation, Tile]]:
    dim, size, step = op.dim.data, op.size.value.data, op.step.value.data
    for start in range(0, size, step):
        yield from _walk(op.body.block, {**at, dim: Range(start, min(start + step, size))}, k_stop)
