"""Kernel specs: shapes as (n, h, w, c), constants as the back end stores them, anchors and macs."""

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from compiler.backend.kernel_spec import Lowered, lower_kernel
from compiler.dialects import kern, qnn
from compiler.ir.kernel import CopyAnchor, MatrixAnchor, PoolAnchor, Window
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.fuse_options import Options
from isa.errors import UnsupportedError
from isa.instructions import DType, Operand, Reduce
from tests.compiler.kern_graphs import CODES, POSITIVE, add, const, conv, dq, graph, linear, q, relu


def lowered(module: ModuleOp, options: Options | None = None) -> list[Lowered]:
    fuse_kernels(module, options)
    return [lower_kernel(op) for op in module.walk() if isinstance(op, kern.KernelOp)]


def last(module: ModuleOp, options: Options | None = None) -> Lowered:
    return lowered(module, options)[-1]


def weight_of(module: ModuleOp) -> np.ndarray:
    return next(qnn.constant_array(op) for op in module.walk() if isinstance(op, qnn.ConstantOp))


def test_a_convolution_has_its_weights_by_taps_then_channels():
    module = graph([(1, 4, 7, 9)], lambda x: conv(q(x), 6, 3, groups=2, strides=(2, 1), pad=(1, 0, 0, 2)))
    weight = weight_of(module)
    spec = last(module).spec
    assert spec.operands == ((1, 7, 9, 4), (6, 3, 3, 2))
    assert spec.output == (1, 3, 9, 6)
    assert spec.anchor == MatrixAnchor(0, 1, Window((3, 3), (2, 1), (1, 1), (1, 0)), 2, CODES.zero.data)
    assert np.array_equal(spec.constants[1], weight.transpose(0, 2, 3, 1))
    assert spec.macs == 3 * 9 * 6 * 3 * 3 * 2


def test_a_depthwise_convolution_has_taps_of_channels():
    module = graph([(1, 4, 5, 5)], lambda x: conv(q(x), 4, 3, groups=4))
    weight = weight_of(module)
    spec = last(module).spec
    assert isinstance(spec.anchor, MatrixAnchor)
    assert spec.anchor.depthwise
    assert np.array_equal(spec.constants[1], weight[:, 0].transpose(1, 2, 0))


def test_a_channel_multiplier_is_a_grouped_convolution():
    spec = last(graph([(1, 4, 5, 5)], lambda x: conv(q(x), 8, 3, groups=4))).spec
    assert isinstance(spec.anchor, MatrixAnchor)
    assert (spec.anchor.depthwise, spec.anchor.groups, spec.operands[1]) == (False, 4, (8, 3, 3, 1))


def test_a_linear_layer_is_a_one_by_one_convolution_over_rows():
    spec = last(graph([(5, 12)], lambda x: linear(q(x), 7))).spec
    assert (spec.operands, spec.output) == (((1, 1, 5, 12), (7, 1, 1, 12)), (1, 1, 5, 7))
    assert spec.macs == 5 * 12 * 7


def test_a_batched_matmul_takes_both_operands_as_activations():
    module = graph([(2, 3, 4), (2, 4, 5)], lambda a, b: qnn.MatmulOp(q(a), q(b, POSITIVE)).output)
    spec = last(module).spec
    assert (spec.operands, spec.output) == (((2, 1, 3, 4), (2, 1, 4, 5)), (2, 1, 3, 5))
    assert spec.anchor == MatrixAnchor(0, 1, Window(), 1, -3, -128, dynamic_weight=True)
    assert spec.macs == 2 * 3 * 4 * 5


def test_a_residual_is_a_stream_that_dequantizes():
    module = graph([(1, 4, 5, 5)], lambda x: q(add(conv(a := q(x), 4), dq(a))))
    got = last(module)
    assert len(got.values) == len(got.spec.operands) == 2  # read as activation and as stream
    stream = got.spec.program.streams[1]
    assert (stream.operand, stream.dtype, stream.zero) == (0, DType.I8, -3)
    assert stream.scale == float(np.float32(0.05))
    assert [op.kind for op in got.spec.program.ops] == [
        Operand.PARAMETER,
        Operand.PARAMETER,
        Operand.REGISTER,
    ]


def test_a_constant_that_varies_over_pixels_is_a_stream():
    module = graph([(1, 4, 5, 5)], lambda x: q(add(conv(q(x), 4), const(1, 1, 5, 5))))
    spec = last(module).spec
    assert spec.operands[2] == (1, 5, 5, 1)
    assert spec.constants[2].shape == (1, 5, 5, 1)


def test_pools_reduce_centred_codes():
    first, second = lowered(
        graph(
            [(1, 4, 6, 6)],
            lambda x: qnn.AvgPool2dOp(qnn.MaxPool2dOp(q(x), (2, 2), (2, 2)).output, (3, 3)).output,
        )
    )[1:]
    assert first.spec.anchor == PoolAnchor(0, Window((2, 2), (2, 2)), Reduce.MAX, -3, 0.0)
    assert second.spec.anchor == PoolAnchor(0, Window((3, 3)), Reduce.SUM, -3, float(np.float32(0.05)))
    assert [op.immediate for op in second.spec.program.ops] == [float(np.float32(1 / 9))]


def test_an_average_that_leaves_out_padding_multiplies_by_a_count_per_pixel():
    module = graph([(1, 4, 4, 4)], lambda x: qnn.AvgPool2dOp(q(x), (2, 2), (2, 2), (1, 1, 1, 1), False).output)
    spec = last(module).spec
    assert spec.constants[1][0, :, :, 0].tolist() == [[1, 0.5, 1], [0.5, 0.25, 0.5], [1, 0.5, 1]]


def test_an_uneven_adaptive_pool_is_a_product_with_ones():
    spec = last(graph([(2, 3, 5, 4)], lambda x: qnn.AdaptiveAvgPool2dOp(q(x), (2, 3)).output)).spec
    assert spec.operands == ((2, 1, 6, 20), (2, 1, 20, 3), (1, 1, 6, 1))
    assert spec.output == (2, 1, 6, 3)
    assert np.array_equal(spec.constants[2].reshape(-1), 1 / spec.constants[0][0, 0].sum(1, dtype=np.float32))


def test_a_trailing_pool_has_an_inner_tensor_and_a_program():
    def body(x):
        return qnn.MaxPool2dOp(q(relu(conv(q(x), 4, 3))), (3, 3), (2, 2), (1, 1, 1, 1)).output

    spec = last(graph([(1, 3, 8, 8)], body), Options(pool=True)).spec
    assert (spec.inner, spec.output) == ((1, 8, 8, 4), (1, 4, 4, 4))
    assert spec.pool is not None
    assert spec.pool.window == Window((3, 3), (2, 2), (1, 1), (1, 1))
    assert spec.pool_program is not None
    assert not spec.pool_program.ops


def test_a_movement_is_loops_over_strides():
    spec = last(graph([(1, 3, 4, 5)], lambda x: qnn.ReshapeOp(q(x), (1, 60)).output)).spec
    assert spec.output == spec.operands[0] == (1, 4, 5, 3)
    assert spec.movement is None  # the kernel writes codes where the view reads them


def test_a_pad_of_rows_and_columns_is_a_window_of_one_tap():
    module = graph([(1, 2, 3, 3)], lambda x: qnn.PadOp(q(x), (0, 0, 0, 0, 1, 0, 0, 2), 0.1).output)
    spec = last(module).spec
    assert spec.anchor == PoolAnchor(0, Window(pad=(1, 0)), Reduce.SUM, -1, 0.0)
    assert spec.program.zero == -1


def test_another_pad_fills_and_copies():
    module = graph([(1, 2, 3, 3)], lambda x: qnn.PadOp(x, (0, 0, 1, 0, 1, 0, 0, 2), 0.25).output)
    anchor = last(module).spec.anchor
    assert isinstance(anchor, CopyAnchor)
    assert (anchor.fill, anchor.output_offset, anchor.sizes) == (0.25, 5 * 3 + 1, (1, 3, 3, 2))


def test_a_batch_that_only_one_factor_has_is_refused():
    module = graph([(3, 4), (2, 4, 5)], lambda a, b: qnn.MatmulOp(q(a), q(b)).output)
    with pytest.raises(UnsupportedError, match="1 by 2 matrices; repeat the smaller batch"):
        lowered(module)
