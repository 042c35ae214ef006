"""Operands that broadcast inside a tensor of more than four dimensions: neighbouring dimensions become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of, tensor

Shape = tuple[int, ...]
Move = Callable[[SSAValue], Operation]
LARGEST_RANK = 4
ROW_MAJOR = (0, 3, 1, 2)
"""Order that gives a tensor of rank 4, which lies with dimension 1 innermost, the layout of all other ranks."""
UNDO_ROW_MAJOR = (0, 2, 3, 1)


def groups_of(shapes: Sequence[Shape], result: Shape) -> list[list[int]]:
    """Neighbouring dimensions of ``result`` along which every operand either has all elements or repeats."""
    groups: list[list[int]] = []
    last: tuple[bool, ...] = ()
    for axis, count in enumerate(result):
        if count == 1:
            continue
        repeats = tuple(shape[axis] == 1 for shape in shapes)
        if repeats == last:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        last = repeats
    return groups


def expanded(shapes: Sequence[Shape], result: Shape) -> list[Shape]:
    """``shapes`` with as little spelled out as makes at most four groups: the smallest copy that gives fewest first."""
    shapes = list(shapes)
    while len(groups := groups_of(shapes, result)) > LARGEST_RANK:
        choices: list[tuple[int, int, list[Shape]]] = []
        for i, shape in enumerate(shapes):
            for group in groups:
                if shape[group[0]] == 1:
                    grown = tuple(result[a] if a in group else n for a, n in enumerate(shape))
                    after = [*shapes[:i], grown, *shapes[i + 1 :]]
                    choices.append((len(groups_of(after, result)), prod(grown), after))
        shapes = min(choices)[2]
    return shapes


def collapse_broadcasts(op: Operation, move: Callable[[SSAValue, Sequence[Move]], SSAValue]) -> Operation | None:
    """``op`` of high rank over at most four dimensions; None if it needs no change.

    ``move`` applies moves to a value in front of ``op``. The result lies in memory as that of ``op``.
    """
    result = shape_of(op.results[0])
    full = [(1,) * (len(result) - len(shape)) + shape for shape in map(shape_of, op.operands)]
    if len(result) <= LARGEST_RANK or all(shape == result or prod(shape) == 1 for shape in full):
        return None
    whole = expanded(full, result)
    groups = groups_of(whole, result)
    operands: list[SSAValue] = []
    for value, given, grown in zip(op.operands, full, whole, strict=True):
        moves: list[Move] = []
        if grown != given:
            moves += [_reshape(given), _expand(grown)]
        moves.append(_reshape(_joined(grown, groups)))
        operands.append(move(value, [*moves, *_row_major(len(groups))]))
    shape = _joined(result, groups)
    if len(groups) == LARGEST_RANK:
        shape = tuple(shape[i] for i in ROW_MAJOR)
    kind = TensorType(tensor(op.results[0]).element_type, shape)
    return type(op).create(operands=operands, result_types=[kind], properties=dict(op.properties))


def _joined(shape: Shape, groups: Sequence[Sequence[int]]) -> Shape:
    return tuple(prod(shape[a] for a in group) for group in groups)


def _reshape(shape: Shape) -> Move:
    return lambda value: qnn.ReshapeOp(value, shape)


def _expand(shape: Shape) -> Move:
    return lambda value: qnn.ExpandOp(value, shape)


def _row_major(rank: int) -> list[Move]:
    return [lambda value: qnn.PermuteOp(value, ROW_MAJOR)] if rank == LARGEST_RANK else []
