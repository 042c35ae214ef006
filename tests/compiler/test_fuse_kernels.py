"""What fuses with what, and where a kernel ends."""

import re

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from compiler.backend.kernel_spec import lower_kernel
from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntType
from compiler.interpreter.kern import run_kern
from compiler.interpreter.qnn import run_qnn
from compiler.ir.location import origins
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options
from isa.errors import ScheduleError, UnsupportedError
from tests.bits import assert_same
from tests.compiler.kern_graphs import CODES, GRAPHS, add, const, conv, dq, graph, inputs, linear, q, relu, residual
from tests.compiler.view_graphs import VIEWS

IMAGE = (1, 3, 6, 6)


def fuse(module: ModuleOp, options: Options | None = None) -> list[str]:
    """Each op of the kern level as ``kind: members``; bits are checked on the way."""
    arrays = inputs(module)
    want = run_qnn(module, arrays)
    fuse_kernels(module, options)
    module.verify()
    assert_same(run_kern(module, arrays), want)
    return [describe(op) for op in module.walk() if isinstance(op, (kern.BodyOp, kern.ConcatOp))]


def describe(op: kern.BodyOp | kern.ConcatOp) -> str:
    if isinstance(op, kern.ConcatOp):
        return "concat"
    kind = "view: " if isinstance(op, kern.ViewOp) else ""
    return kind + " ".join(m.name.removeprefix("qnn.") for m in op.members)


def test_a_convolution_swallows_its_activation_and_quantize():
    module = graph([IMAGE], lambda x: q(relu(conv(q(x), 8, 3))))
    assert fuse(module) == ["quantize", "conv2d relu quantize"]


def test_a_residual_add_joins_the_later_convolution_through_q_and_dq():
    module = graph([IMAGE], residual)
    assert fuse(module) == [
        "quantize",
        "conv2d relu quantize",
        "conv2d quantize",
        "conv2d hardswish quantize",
        "conv2d quantize dequantize dequantize add relu quantize",
    ]


def test_two_convolutions_that_meet_unquantized_store_one_of_them_as_float():
    module = graph([IMAGE], lambda x: q(add(conv(a := q(x), 8), conv(a, 8, 3))))
    assert fuse(module) == ["quantize", "conv2d", "conv2d add quantize"]


def test_a_value_used_twice_ends_the_kernel_unless_both_uses_are_inside():
    def body(x):
        y = conv(q(x), 4)
        inside = qnn.MulOp(y, qnn.SigmoidOp(y).output).output
        return q(relu(inside)), q(inside)

    assert fuse(graph([IMAGE], body)) == ["quantize", "conv2d sigmoid mul", "relu quantize", "quantize"]


def test_both_arms_of_an_operation_are_one_kernel_with_it():
    def arms(x, y):
        return q(qnn.MaximumOp(qnn.ExpOp(x).output, relu(y)).output)

    assert fuse(graph([IMAGE, IMAGE], arms)) == ["exp relu maximum quantize"]
    assert fuse(graph([IMAGE], lambda x: q(add(conv(q(x), 3), relu(x))))) == ["quantize", "conv2d relu add quantize"]


def test_an_arm_that_others_read_too_is_a_kernel_of_its_own():
    def arms(x):
        arm = relu(x)
        return q(add(qnn.ExpOp(x).output, arm)), q(arm)

    assert fuse(graph([IMAGE], arms)) == ["relu", "exp add quantize", "quantize"]


def test_without_fusion_every_op_is_a_kernel():
    module = graph([IMAGE], lambda x: q(add(relu(conv(q(x), 8)), const(8, 1, 1))))
    assert fuse(module, Options(fuse=False)) == ["quantize", "conv2d", "relu", "add", "quantize"]


def test_pools_fuse_only_when_asked_and_go_on_behind_the_pool():
    def body(x):
        y = q(relu(conv(q(x), 4, 3)))
        y = qnn.MaxPool2dOp(y, (2, 2), (2, 2)).output
        return q(qnn.AvgPool2dOp(q(conv(y, 4)), (3, 3)).output)

    assert fuse(graph([IMAGE], body)) == [
        "quantize",
        "conv2d relu quantize",
        "max_pool2d",
        "conv2d quantize",
        "avg_pool2d quantize",
    ]
    assert fuse(graph([IMAGE], body), Options(pool=True)) == [
        "quantize",
        "conv2d relu quantize max_pool2d",
        "conv2d quantize avg_pool2d quantize",
    ]


def test_a_pool_of_codes_that_others_read_stays_apart():
    def body(x):
        y = q(conv(q(x), 4))
        return qnn.MaxPool2dOp(y, (2, 2)).output, conv(y, 4)

    assert "conv2d quantize" in fuse(graph([IMAGE], body), Options(pool=True))


def test_codes_stay_inside_only_where_nan_cannot_be():
    def body(x, other):
        y = conv(q(x), 4)
        return dq_chain(y), dq_chain(add(other, other))

    def dq_chain(value):
        return relu(dq(q(value)))

    assert fuse(graph([IMAGE, (1, 4, 6, 6)], body)) == [
        "quantize",
        "conv2d quantize dequantize relu",
        "add quantize",
        "dequantize relu",
    ]


def test_a_chain_longer_than_a_program_goes_on_in_another_kernel():
    def body(x):
        y = conv(q(x), 4)
        for _ in range(20):
            y = qnn.HardsigmoidOp(y).output
        return y

    module = graph([IMAGE], body)
    assert len(fuse(module)) == 3
    assert all(len(s.program.ops) <= 60 for s in specs(module))


def test_a_fifth_stream_goes_to_another_kernel():
    shape = (1, 4, 6, 6)

    def body(x, *others):
        y = conv(q(x), 4)
        for other in others:
            y = add(y, other)
        return y

    module = graph([IMAGE, *[shape] * 5], body)
    assert fuse(module) == ["quantize", "conv2d add add add", "add add"]
    assert max(len(s.program.streams) for s in specs(module)) == 4


def specs(module: ModuleOp):
    return [lower_kernel(op).spec for op in module.walk() if isinstance(op, kern.KernelOp)]


def test_reshapes_that_keep_the_bytes_are_views_and_others_copies_if_the_operand_has_other_readers():
    def body(x):
        codes = q(x)
        y = qnn.AvgPool2dOp(codes, (6, 6)).output
        wide = qnn.ReshapeOp(codes, (1, 108)).output
        return linear(qnn.ReshapeOp(q(y), (1, 3)).output, 5), linear(wide, 5)

    got = fuse(graph([IMAGE], body))
    assert "view: reshape" in got
    assert "reshape" in got


def test_a_reshape_that_moves_bytes_is_a_view_that_its_only_operands_kernel_writes():
    got = fuse(graph([IMAGE], lambda x: linear(qnn.ReshapeOp(q(x), (1, 108)).output, 5)))
    assert got == ["quantize", "view: reshape", "linear"]


def test_flatten_and_transpose_to_tokens_is_a_view():
    def body(x):
        flat = qnn.ReshapeOp(q(x), (1, 3, 36)).output
        return linear(qnn.PermuteOp(flat, (0, 2, 1)).output, 5)

    assert fuse(graph([IMAGE], body)) == ["quantize", "view: reshape permute", "linear"]


def test_a_reshape_with_uneven_steps_goes_through_rank_one():
    module = graph([(1, 6, 2, 2)], lambda x: q(conv(qnn.ReshapeOp(q(x), (1, 4, 3, 2)).output, 4)))
    assert fuse(module)[1:] == ["view: reshape", "reshape", "conv2d quantize"]


def test_a_padded_tensor_that_is_too_large_to_fill_is_joined_from_strips():
    sides = (0, 0, 0, 1, 2, 0, 1, 3)
    taken = 4 * (3 * 6 * 6 + 4 * 8 * 10)
    for bound, kinds in ((taken, ["pad"]), (taken - 1, ["pad", "concat", "concat", "concat"])):
        module = graph([IMAGE], lambda x: qnn.PadOp(x, sides, 2.5).output)
        assert fuse(module, Options(fill_bytes=bound)) == kinds


def test_codes_are_filled_whatever_they_take():
    module = graph([IMAGE], lambda x: dq(qnn.PadOp(q(x), (0, 0, 0, 0, 1, 1, 1, 1)).output))
    assert "concat" not in fuse(module, Options(fill_bytes=0))


def test_dequantized_values_that_leave_are_computed():
    module = graph([IMAGE], lambda x: (y := q(conv(q(x), 4)), dq(y)))
    assert fuse(module)[-1] == "dequantize"


def test_broadcast_of_another_rank_is_reshaped_first():
    module = graph([(1, 3, 4, 5), (3, 4, 5), (5,)], lambda x, y, z: add(add(x, y), z))
    assert fuse(module) == ["reshape", "add add"]


def test_a_sum_behind_moves_that_move_nothing_joins_its_product():
    assert "dequantize dequantize mul reduce" in fuse(graph(*VIEWS["taps_innermost"]))


def test_the_kernel_keeps_every_origin_with_the_anchor_first():
    module = graph([IMAGE], lambda x: q(relu(conv(q(x), 8, 3))))
    fuse_kernels(module)
    kernel = [op for op in module.walk() if isinstance(op, kern.KernelOp)][-1]
    assert [o.node for o in origins(kernel)] == ["n1", "n2", "n3"]
    assert kernel.kernel.data == "n1"


def test_groups_decide_what_fuses():
    def build():
        return graph([IMAGE], lambda x: q(relu(conv(q(x), 8, 3))))

    assert fuse(build(), Options(groups=(("n1", "n2"), ("n3",)))) == ["quantize", "conv2d relu", "quantize"]
    assert fuse(build(), Options(groups=(("n1",), ("n2", "n3")))) == ["quantize", "conv2d", "relu quantize"]
    with pytest.raises(ScheduleError, match=r"nodes n1, n3: n3 cannot be fused with n1"):
        fuse_kernels(build(), Options(groups=(("n1", "n3"),)))


@pytest.mark.thin(1)
@pytest.mark.parametrize("options", [Options(), Options(fuse=False), Options(pool=True)])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_groups_of_a_result_give_it_back(name: str, options: Options):
    module = graph(*GRAPHS[name])
    again = module.clone()
    fuse_kernels(module, options)
    kernels = [op for op in module.walk() if isinstance(op, kern.KernelOp)]
    groups = tuple(tuple(dict.fromkeys(o.node for o in origins(op))) for op in kernels)
    fuse_kernels(again, Options(pool=options.pool, groups=groups))
    assert str(again) == str(module)


def test_the_names_of_kernels_are_unique():
    module = graph([IMAGE], lambda x: q(relu(conv(q(x), 8, 3))))
    unknown = module.location
    for op in module.walk():
        op.location = unknown
    fuse_kernels(module)
    names = re.findall(r'kern\.kernel "([^"]+)"', str(module))
    assert len(names) == len(set(names)) == 2


def test_a_weight_that_is_an_input_is_refused():
    def body(x, scale):
        a = q(x)
        w = qnn.ConstantOp(np.ones((2, 3, 1, 1), np.int8)).output
        return qnn.Conv2dOp(a, w, scale).output

    with pytest.raises(UnsupportedError, match=r"scale of qnn\.conv2d must be known at compile time"):
        fuse_kernels(graph([IMAGE, (2,)], body))


def test_the_same_input_gives_the_same_text():
    module = graph([IMAGE], residual)
    first, second = module.clone(), module.clone()
    fuse_kernels(first)
    fuse_kernels(second)
    assert str(first) == str(second)


def test_a_narrow_range_is_kept():
    module = graph([IMAGE], lambda x: q(conv(q(x), 8, 3), IntType(8, 0.05, 3), (-5, 7)))
    assert fuse(module)[-1] == "conv2d quantize"
    assert CODES.low == -128


def test_a_dequantize_in_front_of_a_product_is_no_arm_of_its_kernel():
    def body(x, y, z):
        stored = dq(q(relu(x)))
        return q(qnn.SelectOp(conv(q(y), 3), stored, qnn.ExpOp(z).output).output)

    kernels = fuse(graph([IMAGE, IMAGE, IMAGE], body))
    assert any(kernel.startswith("conv2d") for kernel in kernels)
