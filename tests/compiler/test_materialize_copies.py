"""Copies go where bytes cannot be shared, and nowhere else."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.ir.location import origins
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from tests.compiler.alias_graphs import CASES, adaptive, concat, pad, reshape, shuffled
from tests.compiler.kern_graphs import GRAPHS, conv, graph, q, relu


def settled(body, *shapes: tuple[int, ...]) -> ModuleOp:
    module = graph(list(shapes) or [(1, 3, 9, 8)], body)
    fuse_kernels(module)
    materialize_copies(module)
    module.verify()
    return module


def copies(module: ModuleOp) -> list[kern.KernelOp]:
    return [op for op in module.walk() if isinstance(op, kern.KernelOp) and op.kernel.data.startswith("copy_")]


def test_slices_of_one_join_need_no_copy():
    assert not copies(settled(lambda x: relu(concat(relu(x), relu(relu(x))))))


def test_an_input_is_copied_into_a_join():
    (copy,) = copies(settled(lambda x: relu(concat(relu(x), x))))
    assert copy.inputs[0].owner is copy.parent_block()


def test_a_value_is_copied_into_its_second_join():
    def body(x):
        a = relu(x)
        return [relu(concat(a, relu(a))), relu(concat(relu(a), a))]

    assert len(copies(settled(body))) == 1


@pytest.mark.parametrize(("between", "channels", "copied"), [(8, 3, 1), (7, 3, 0), (8, 4, 0)])
def test_a_small_part_made_long_before_the_others_is_copied(between: int, channels: int, copied: int):
    """So the join takes no memory in between: it is 12 or 13 channels, of which the early part has 3 or 4."""

    def body(x):
        codes = q(x)
        early, y = q(conv(codes, channels)), q(conv(codes, 9))
        for _ in range(between - 1):
            y = q(conv(y, 9))
        return relu(qnn.DequantizeOp(concat(early, y)).output)

    assert len(copies(settled(body))) == copied


@pytest.mark.parametrize(("sram_bytes", "copied"), [(None, 1), (13 * 72, 1), (13 * 72 - 1, 0)])
def test_half_of_a_join_is_copied_if_it_is_made_very_early_and_the_join_may_stay_on_chip(sram_bytes, copied):
    def body(x):
        codes = q(x)
        early, y = q(conv(codes, 7)), q(conv(codes, 6))
        for _ in range(27):
            y = q(conv(y, 6))
        return relu(qnn.DequantizeOp(concat(early, y)).output)

    module = graph([(1, 3, 9, 8)], body)
    fuse_kernels(module)
    materialize_copies(module, sram_bytes)
    assert len(copies(module)) == copied


def test_a_join_that_is_part_of_another_counts_from_when_its_own_early_part_is_copied():
    def body(x):
        codes = q(x)
        early, small, y = q(conv(codes, 7)), q(conv(codes, 1)), q(conv(codes, 5))
        for _ in range(27):
            y = q(conv(y, 5))
        return relu(qnn.DequantizeOp(concat(early, concat(small, y))).output)

    assert [shape_of(c.output)[1] for c in copies(settled(body))] == [1, 7]


def test_an_operand_of_a_view_is_not_a_slice():
    def body(x):
        a = q(conv(q(x), 4))
        return [relu_of(concat(a, q(conv(q(x), 4)))), reshape(a, 1, 4, 72)]

    def relu_of(codes):
        return q(relu(qnn.DequantizeOp(codes).output))

    assert any(c.inputs[0].owner.kernel.data == "n1" for c in copies(settled(body)))


def test_what_an_uneven_pool_reads_is_not_a_slice():
    def body(x):
        a, b = q(conv(q(x), 5)), q(conv(q(x), 3))
        return [q(conv(concat(a, b), 2)), q(conv(adaptive(a), 2))]

    (copy,) = copies(settled(body))
    assert shape_of(copy.output) == (1, 5, 9, 8)


def test_an_uneven_pool_is_copied_into_an_output_of_images():
    (copy,) = copies(settled(lambda x: adaptive(q(conv(q(x), 5)))))
    assert copy.output.uses.get_length() == 1


@pytest.mark.parametrize(
    ("body", "copied"),
    [
        (lambda x: shuffled(relu(x)), 0),
        (lambda x: concat(shuffled(relu(x)), shuffled(relu(relu(x)))), 0),
        (lambda x: relu(concat(shuffled(relu(x)), shuffled(relu(relu(x))))), 2),  # pixels of both lie side by side
        (lambda x: relu(concat(shuffled(relu(x)), shuffled(relu(relu(x))), axis=2)), 0),
        (lambda x: shuffled(relu(concat(x, x))), 1),
    ],
    ids=["one plane", "planes of an output", "channels of a join", "rows of a join", "two planes"],
)
def test_moves_write_where_their_bytes_lie_without_gaps(body, copied: int):
    found = copies(settled(body, (1, 1, 9, 8)))
    assert len([c for c in found if isinstance(c.inputs[0].owner, Operation)]) == copied


def test_padding_rows_and_columns_of_codes_writes_its_slice_itself():
    def body(x):
        a = q(conv(q(x), 4))
        wide = pad(a, (0, 0, 0, 0, 1, 1, 0, 0))
        return q(conv(concat(wide, pad(a, (0, 0, 0, 0, 2, 0, 0, 0))), 4))

    assert not copies(settled(body))


def test_returned_inputs_views_of_inputs_and_values_returned_twice_are_copied():
    def body(x):
        a = q(conv(q(x), 4))
        return [x, reshape(x, 1, 216), a, a]

    # The reshape walks packed bytes, so the planar input is packed for it first; it writes the output itself.
    assert len(copies(settled(body))) == 4


def test_copies_have_names_of_their_own_and_a_location():
    found = copies(settled(lambda x: [x, x, x]))
    assert [c.kernel.data for c in found] == ["copy_0", "copy_1", "copy_2"]
    assert all(origins(c) for c in found)


@pytest.mark.parametrize("name", [*GRAPHS, *CASES])
def test_once_is_enough(name):
    shapes, body = {**GRAPHS, **CASES}[name]
    module = settled(body, *shapes)
    before = len(copies(module))
    materialize_copies(module)
    assert len(copies(module)) == before
