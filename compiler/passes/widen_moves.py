"""4-bit codes that no whole bytes hold are moved as 8-bit codes: two codes that share a byte cannot part.

Maxima of 4-bit codes are those of 8-bit codes too: the window unit compares bytes. Codes of a codebook have no 8-bit
form; they are made behind the move instead, out of moved binary32 values.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType, f32
from xdsl.ir import Attribute, Block, Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.ir.layout import channel_axis
from compiler.ir.location import blamed, insert_before
from isa.errors import UnsupportedError

TEARS = (
    "tears 4-bit codes of a codebook apart that share a byte; move the tensor before it is quantized, or keep its "
    "channels together and even"
)


def widen_moves(block: Block) -> None:
    """Put a conversion to 8 bits in front of, and one back behind, every chain of moves, join and pad that needs it."""
    for op in list(block.ops):
        if isinstance(op, (*kern.COPIES, qnn.MaxPool2dOp)) and _paired(op.results[0]) and (chain := _chain(op)):
            with blamed(op):
                (_encode_later if int_type(op.results[0]).codebook.data else _widen)(chain)


def _paired(value: SSAValue) -> bool:
    return is_int(value) and int_type(value).width.data == 4


def _chain(op: Operation) -> list[Operation]:
    """What must move as 8-bit codes and ends with ``op``; nothing where whole bytes move."""
    if isinstance(op, qnn.ConcatOp):
        return [] if _joins_bytes(op) else [op]
    if isinstance(op, qnn.MaxPool2dOp):
        return [op]
    if isinstance(op, qnn.PadOp):
        return [op] if any(op.padding.data) else []
    if any(isinstance(use.operation, kern.MOVES) for use in op.results[0].uses):
        return []
    members = [op]
    while isinstance(owner := members[0].operands[0].owner, kern.MOVES):
        members.insert(0, owner)
    return [] if kern.moves_bytes(members) else members


def _joins_bytes(op: qnn.ConcatOp) -> bool:
    shape = shape_of(op.output)
    along_channels = op.axis.value.data % len(shape) == channel_axis(len(shape))
    return not along_channels or all(shape_of(v)[op.axis.value.data] % 2 == 0 for v in op.inputs[:-1])


def _widen(members: Sequence[Operation]) -> None:
    first, last = members[0], members[-1]
    narrow = int_type(last.results[0])
    wide = IntType(8, narrow.scale.data, narrow.zero.data)
    moved = _moved(members, {v: _converted(first, v, wide) for v in dict.fromkeys(first.operands)}, wide, last)
    _replace(members, _converted(last, moved, narrow))


def _encode_later(members: Sequence[Operation]) -> None:
    """Move what the codes of a codebook are made of, and make them behind the last move."""
    last, replaced = members[-1], dict[Operation, None]()
    moved = _unencoded(last, last.results[0], replaced)
    encoders = [op for op in replaced if isinstance(op, qnn.QuantizeOp)]
    if len({(op.thresholds, int_type(op.output)) for op in encoders}) != 1:
        raise UnsupportedError(f"{last.name} {TEARS}")
    thresholds = encoders[0].thresholds
    assert thresholds is not None, "a codebook has thresholds"
    codes = qnn.QuantizeOp(moved, int_type(last.results[0]), None, [t.data for t in thresholds])
    insert_before(last, codes)
    _replace(list(replaced), codes.output)


def _unencoded(last: Operation, value: SSAValue, replaced: dict[Operation, None]) -> SSAValue:
    """The binary32 tensor that ``value`` encodes, moved as it is; ``replaced`` grows by what encoded and moved it."""
    op = value.owner
    if not isinstance(op, (*kern.MOVES, qnn.ConcatOp, qnn.QuantizeOp)):
        raise UnsupportedError(f"{last.name} {TEARS}")
    if isinstance(op, qnn.QuantizeOp):
        result = op.input
    else:
        result = _moved([op], {v: _unencoded(last, v, replaced) for v in dict.fromkeys(op.operands)}, f32, last)
    replaced[op] = None
    return result


def _moved(
    members: Sequence[Operation], values: dict[SSAValue, SSAValue], element: Attribute, before: Operation
) -> SSAValue:
    """The result of the chain for other ``values`` of its operands, of type ``element``."""
    for op in members:
        clone = type(op).create(
            operands=[values[v] for v in op.operands],
            result_types=[TensorType(element, shape_of(op.results[0]))],
            properties=dict(op.properties),
            attributes=dict(op.attributes),
        )
        insert_before(before, clone, source=op)
        values[op.results[0]] = clone.results[0]
    return values[members[-1].results[0]]


def _replace(members: Sequence[Operation], value: SSAValue) -> None:
    """Readers of the last of ``members`` read ``value``; those that nobody reads any more go."""
    members[-1].results[0].replace_all_uses_with(value)
    for op in reversed(members):
        if not op.results[0].uses.get_length():
            op.detach()
            op.erase()


def _converted(before: Operation, value: SSAValue, kind: IntType) -> SSAValue:
    """The same values as codes of another width: exact, as both have one scale and zero point."""
    real = qnn.DequantizeOp(value)
    insert_before(before, real)
    codes = qnn.QuantizeOp(real.output, kind)
    insert_before(before, codes)
    return codes.output
