"""Reference semantics of row stages: a vector program over whole rows, then one binary32 per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.interpreter.vector import evaluate
from compiler.ir.kernel import KernelSpec, RowStage, Shape4, VectorProgram
from isa import numerics
from isa.instructions import RowReduce

Array = NDArray[Any]


def fill_rows(program: VectorProgram, streams: Sequence[Array | None], rows: Sequence[Array]) -> list[Array]:
    """The streams of a program, row results among them, without those that nothing gives."""
    full = [rows[s.row] if s.row >= 0 else raw for s, raw in zip(program.streams, streams, strict=True)]
    return [raw for raw in full if raw is not None]


def run_stages(
    spec: KernelSpec,
    start: Array | None,
    shape: Shape4,
    streams: Callable[[VectorProgram, Array | None], Sequence[Array | None]],
    params: Callable[[VectorProgram], Sequence[Array] | None] = lambda program: None,
) -> tuple[list[Array], Array | None]:
    """Row results, each (n, h, w, 1), and the anchor's result as later programs see it.

    ``shape`` is that of the rows; ``streams`` gives what a program reads, with the anchor's result.
    """
    rows: list[Array] = []
    for stage in spec.stages:
        program = stage.program
        swept = shape if stage.reduce is not RowReduce.NONE else (*shape[:3], 1)
        raw = fill_rows(program, streams(program, start), rows)
        value = evaluate(program, [np.broadcast_to(s, swept) for s in raw], params(program))
        rows += reduce_rows(stage, value)
        start = value if stage.in_place else start
    return rows, start


def reduce_rows(stage: RowStage, value: Array) -> list[Array]:
    """The results of a stage for elements (n, h, w, c), each (n, h, w, 1)."""
    match stage.reduce:
        case RowReduce.NONE:
            found: tuple[Array, ...] = (value[..., 0],)
        case RowReduce.MAX:
            found = (numerics.row_max(value),)
        case RowReduce.MIN:
            found = (-numerics.row_max(-value),)
        case RowReduce.SUM:
            found = (numerics.row_sum(value, stage.fraction),)
        case RowReduce.SQUARES:
            found = (numerics.row_squares(value, stage.fraction),)
        case RowReduce.MOMENTS:
            found = numerics.row_moments(value, stage.fraction)
        case RowReduce.ARGMAX:
            found = (numerics.row_argmax(value).astype(np.float32),)
    return [np.asarray(each, np.float32)[..., None] for each in found]
