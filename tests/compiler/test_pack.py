"""Constants in blocks: order, alignment, one copy of what is equal."""

from __future__ import annotations

import numpy as np

from compiler.backend.pack import ALIGN, ConstantPool, params_block, weight_block
from compiler.ir.kernel import KernelSpec, MatrixAnchor, Stream, VectorProgram, Window
from compiler.ir.tiling import Range
from isa.instructions import DType


def spec(weights: np.ndarray, depthwise: bool = False, pooled: bool = False) -> KernelSpec:
    channels = weights.shape[-1] if depthwise else weights.shape[0]
    anchor = MatrixAnchor(0, 1, Window((2, 3)), channels if depthwise else 1, 0, depthwise=depthwise)
    vectors = tuple(np.arange(channels, dtype=np.float32) + 100 * i for i in range(3))
    program = VectorProgram((Stream(None, DType.I32),), (), DType.F32, params=vectors[:2])
    pool = VectorProgram((Stream(None, DType.I8),), (), DType.F32, params=vectors[2:]) if pooled else None
    shape = (1, 4, 4, 5)
    return KernelSpec(
        "k", (shape, weights.shape), (DType.I8, DType.I8), (1, 3, 2, channels), anchor, program,
        pool_program=pool, constants={1: weights},
    )  # fmt: skip


def test_equal_blocks_are_stored_once_and_every_block_starts_a_burst():
    pool = ConstantPool()
    offsets = [pool.add(b) for b in (b"abc", b"", b"x" * 65, b"abc", b"y")]
    assert offsets[3] == offsets[0] == 0
    assert all(offset % ALIGN == 0 for offset in offsets)
    assert bytes(pool.data[offsets[2] : offsets[2] + 65]) == b"x" * 65
    assert bytes(pool.data[offsets[4] :]) == b"y"


def test_a_block_holds_rows_of_output_channels_over_a_chunk_of_inputs():
    weights = np.arange(4 * 2 * 3 * 5, dtype=np.int8).reshape(4, 2, 3, 5)
    block = np.frombuffer(weight_block(spec(weights), Range(1, 3), Range(2, 5)), np.int8)
    assert np.array_equal(block.reshape(2, 2, 3, 3), weights[1:3, :, :, 2:5])


def test_a_depthwise_block_is_taps_by_channels():
    weights = np.arange(2 * 3 * 7, dtype=np.int8).reshape(2, 3, 7)
    block = np.frombuffer(weight_block(spec(weights, depthwise=True), Range(4, 7), Range(0, 0)), np.int8)
    assert np.array_equal(block.reshape(2, 3, 3), weights[..., 4:7])


def test_parameters_are_the_vectors_of_both_programs_one_after_the_other():
    kernel = spec(np.zeros((4, 2, 3, 5), np.int8), pooled=True)
    block = np.frombuffer(params_block(kernel, Range(1, 3)), np.float32)
    assert block.tolist() == [1, 2, 101, 102, 201, 202]
