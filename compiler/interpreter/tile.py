"""Reference semantics of the ``tile`` dialect: kernels run tile by tile through their rings, on arrays.

A step may only use what a ring's slot holds, so a wrong loop, halo, ring depth or order shows as an error or as other
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import Operation

from compiler.backend.kernel_spec import lower_kernel, stored
from compiler.backend.walk import walk_steps
from compiler.dialects.qnn_base import shape_of
from compiler.dialects.tile import (
    ChannelOp,
    CopyOp,
    EpilogueOp,
    KernelOp,
    LoadOp,
    MmaOp,
    PoolOp,
    ProductOp,
    StoreOp,
    VectorOp,
)
from compiler.interpreter.func import FuncFunctions
from compiler.interpreter.kern import KernFunctions
from compiler.interpreter.qnn import QnnFunctions, check_inputs
from compiler.interpreter.rows import fill_rows, run_stages
from compiler.interpreter.spec import anchor_result, interpolate, product, run_program, run_spec, seen, settled
from compiler.ir.channel import Ring
from compiler.ir.kernel import MatrixAnchor, PoolAnchor, ResizeAnchor, Shape4, VectorProgram, Window
from compiler.ir.layout import storage_order
from compiler.ir.tiling import READS, Box, Tile, Tiling
from isa.errors import SimulationError
from isa.instructions import DType

Array = NDArray[Any]
ARRAYS = {DType.I4: np.int8, DType.I8: np.int8, DType.I16: np.int16, DType.I32: np.int32, DType.F32: np.float32}
"""Arrays with one code or number per element."""


@dataclass
class Slots:
    """A ring and the arrays in its slots."""

    ring: Ring
    arrays: dict[int, Array] = field(default_factory=dict[int, Array])

    def push(self, key: object, array: Array) -> None:
        """Fill the next slot."""
        self.arrays[self.ring.push(key)] = array

    def get(self, key: object, what: str) -> Array:
        """What the slot with ``key`` holds; SimulationError when no slot does."""
        slot = self.ring.find(key)
        if slot is None:
            raise SimulationError(f"{what} uses {key}, which no slot of its ring holds")
        return self.arrays[slot]


@dataclass
class KernelRun:
    """One kernel being executed over whole operands as (n, h, w, c)."""

    kernel: KernelOp
    tiling: Tiling
    operands: list[Array]
    result: Array
    rings: dict[tuple[str, int], Slots] = field(default_factory=dict[tuple[str, int], Slots])

    def run(self) -> Array:
        """Every step in program order; returns the result (n, h, w, c)."""
        for op in self.kernel.steps.block.ops:
            if isinstance(op, ChannelOp):
                self.rings[op.role.data, op.operand.value.data] = Slots(Ring(op.slots.value.data))
        actions = {
            LoadOp: self._load,
            MmaOp: self._mma,
            VectorOp: self._vector,
            PoolOp: self._pool,
            ProductOp: self._product,
            EpilogueOp: self._epilogue,
            CopyOp: self._copy,
            StoreOp: self._store,
        }
        for turn in self.tiling.turns():
            for op, tile in walk_steps(self.kernel, self.tiling, turn):
                actions[type(op)](op, tile)  # type: ignore[index]
        return self.result

    def _load(self, op: Operation, tile: Tile) -> None:
        assert isinstance(op, LoadOp)
        assert isinstance(op.ring.owner, ChannelOp)
        role, operand = op.ring.owner.role.data, op.ring.owner.operand.value.data
        slots = self.rings[role, operand]
        if role in READS:
            box = self.tiling.box(role, operand, tile)
            if slots.ring.find(box) is None:
                slots.push(box, _cut(self.operands[operand], box))
            return
        key = self._block_key(role, tile)
        if slots.ring.find(key) is None:
            slots.push(key, self._weights(tile) if role == "weight" else np.zeros(0))

    def _block_key(self, role: str, tile: Tile) -> object:
        channels = self.tiling.anchor_box(tile.out).c
        if role == "weight":
            return (role, channels, tile.k)
        return (role, self.tiling.params_range(channels), None)

    def _weights(self, tile: Tile) -> Array:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        weights, c = self.tiling.spec.constants[anchor.weight], self.tiling.anchor_box(tile.out).c
        if anchor.depthwise:
            return weights[..., c.start : c.stop]
        return weights[c.start : c.stop, ..., tile.k.start : tile.k.stop]

    def _box(self, role: str, operand: int, tile: Tile) -> tuple[Box, Array]:
        box = self.tiling.box(role, operand, tile)
        slots = self.rings.get((role, operand))
        if slots is None:
            return box, _cut(self.operands[operand], box)
        return box, slots.get(box, f"kernel {self.tiling.spec.name}: operand {operand}")

    def _mma(self, op: Operation, tile: Tile) -> None:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        out = self.tiling.anchor_box(tile.out)
        act_box, act = self._box("act", anchor.act, tile)
        window = self._cut_window(anchor.window, out, self.tiling.spec.operands[anchor.act])
        if anchor.dynamic_weight:
            weight = self._box("rhs", anchor.weight, tile)[1]
        else:
            weight = self.rings["weight", anchor.weight].get(self._block_key("weight", tile), "tile.mma")
        slots = self.rings["acc", -1]
        start = None if tile.first_k else slots.get(out, "tile.mma")
        acc = self._groups(replace(anchor, window=window), tile, out, act_box, act, weight, start)
        if start is None:
            slots.push(out, acc)
        else:
            start[...] = acc

    def _groups(
        self, anchor: MatrixAnchor, tile: Tile, out: Box, act_box: Box, act: Array, weight: Array, start: Array | None
    ) -> Array:
        """Groups one by one: a tile may hold part of one, or several."""
        shape = (1, out.h.size, out.w.size, out.c.size)
        zeros = anchor.weight_zeros
        if anchor.groups == 1 or anchor.depthwise:
            groups = out.c.size if anchor.depthwise else 1
            anchor = replace(anchor, groups=groups, weight_zeros=zeros[out.c.start : out.c.stop])
            return product(anchor, act, weight, shape, start)
        per_out, per_in = self.tiling.group_outputs, self.tiling.group_inputs
        parts: list[Array] = []
        for group in range(out.c.start // per_out, (out.c.stop - 1) // per_out + 1):
            low, high = max(out.c.start, group * per_out), min(out.c.stop, (group + 1) * per_out)
            first = group * per_in + tile.k.start - act_box.c.start
            piece = act[..., first : first + tile.k.size]
            rows = weight[low - out.c.start : high - out.c.start]
            held = None if start is None else start[..., low - out.c.start : high - out.c.start]
            one = replace(anchor, groups=1, weight_zeros=zeros[low:high])
            parts.append(product(one, piece, rows, (*shape[:3], high - low), held))
        return np.concatenate(parts, 3)

    def _cut_window(self, window: Window, out: Box, shape: Shape4) -> Window:
        top = window.input_range(0, out.h.start, out.h.stop, shape[1])[2]
        left = window.input_range(1, out.w.start, out.w.stop, shape[2])[2]
        return replace(window, pad=(max(top, 0), max(left, 0)))

    def _streams(self, tile: Tile, role: str) -> Callable[[VectorProgram, Array | None], list[Array | None]]:
        """What programs read in ``role``, given the anchor's result."""

        def read(program: VectorProgram, start: Array | None) -> list[Array | None]:
            return [start if s.operand is None else self._box(role, s.operand, tile)[1] for s in program.streams]

        return read

    def _params(self, tile: Tile, box: Box) -> Callable[[VectorProgram], list[Array]]:
        def cut(program: VectorProgram) -> list[Array]:
            if program.params:
                self.rings["params", -1].get(self._block_key("params", tile), "tile.vector")
            return [p[box.c.start : box.c.stop] for p in program.params]

        return cut

    def _run(
        self, program: VectorProgram, tile: Tile, box: Box, start: Array | None, role: str, rows: Sequence[Array] = ()
    ) -> Array:
        streams = fill_rows(program, self._streams(tile, role)(program, start), rows)
        return run_program(program, streams, _shape(box), self._params(tile, box)(program))

    def _vector(self, op: Operation, tile: Tile) -> None:
        spec, box = self.tiling.spec, self.tiling.anchor_box(tile.out)
        start: Array | None = None
        if isinstance(spec.anchor, MatrixAnchor):
            start = self.rings["acc", -1].get(box, "tile.vector")
        elif isinstance(spec.anchor, PoolAnchor):
            act = spec.anchor.act
            start = self._reduce(spec.anchor, box, self._box("act", act, tile)[1], spec.operands[act])
        elif isinstance(spec.anchor, ResizeAnchor):
            start = self._interpolate(spec.anchor, tile, box)
        swept = self.tiling.row_box(tile.out)
        role = "row" if spec.row_channels else "stream"
        rows, start = run_stages(spec, start, _shape(swept), self._streams(tile, role), self._params(tile, swept))
        value = self._run(spec.program, tile, box, start, "stream", rows)
        if spec.pool is not None:
            self.rings["inner", -1].push(box, value)
        else:
            self._write(tile.out, value)

    def _interpolate(self, anchor: ResizeAnchor, tile: Tile, out: Box) -> Array:
        held, source = self._box("act", anchor.act, tile)
        rows, columns = (
            out[1 + i].start * anchor.num[i] + anchor.phase[i] - held[1 + i].start * anchor.den[i] for i in (0, 1)
        )
        return interpolate(replace(anchor, phase=(rows, columns)), source, (out.h.size, out.w.size))

    def _pool(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        assert isinstance(spec.pool, PoolAnchor)
        assert spec.inner is not None
        inner = self.rings["inner", -1].get(self.tiling.anchor_box(tile.out), "tile.pool")
        start = self._reduce(spec.pool, tile.out, inner, spec.inner)
        assert spec.pool_program is not None
        self._write(tile.out, self._run(spec.pool_program, tile, tile.out, start, "pooled"))

    def _product(self, op: Operation, tile: Tile) -> None:
        product = self.tiling.spec.product
        assert product is not None
        inner = self.rings["inner", -1].get(self.tiling.anchor_box(tile.out), "tile.product")
        factor = self._box("second", product.weight, tile)[1]
        self.rings["product", -1].push(tile.out, anchor_result(product, inner, factor, _shape(tile.out)))

    def _epilogue(self, op: Operation, tile: Tile) -> None:
        program = self.tiling.spec.pool_program
        assert program is not None
        start = self.rings["product", -1].get(tile.out, "tile.epilogue")
        self._write(tile.out, self._run(program, tile, tile.out, start, "pooled"))

    def _reduce(self, pool: PoolAnchor, out: Box, source: Array, shape: Shape4) -> Array:
        window = self._cut_window(pool.window, out, shape)
        sizes = (1, out.h.size, out.w.size, out.c.size)
        return anchor_result(replace(pool, window=window), source, source, sizes)

    def _copy(self, op: Operation, tile: Tile) -> None:
        self._write(tile.out, run_spec(self.tiling.spec, self.operands))

    def _write(self, box: Box, value: Array) -> None:
        """To the output ring, or straight to the result where it stays in SRAM."""
        if ("output", -1) in self.rings:
            self.rings["output", -1].push(box, value)
        else:
            _cut(self.result, box)[...] = value

    def _store(self, op: Operation, tile: Tile) -> None:
        _cut(self.result, tile.out)[...] = self.rings["output", -1].get(tile.out, "tile.store")


def _shape(box: Box) -> Shape4:
    return (1, box.h.size, box.w.size, box.c.size)


def _cut(array: Array, box: Box) -> Array:
    return array[tuple(slice(r.start, r.stop) for r in box)]


@register_impls
class TileFunctions(InterpreterFunctions):
    """Tiled kernels run step by step."""

    @impl(KernelOp)
    def run_kernel(self, interpreter: Interpreter, op: KernelOp, args: tuple[Any, ...]) -> PythonValues:
        lowered = lower_kernel(op)
        spec = lowered.spec
        by_value = dict(zip(op.inputs, args, strict=True))
        operands = [
            spec.constants[i] if i in spec.constants or value is None else stored(by_value[value])
            for i, value in enumerate(lowered.values)
        ]
        shaped = [a if i in spec.constants else seen(spec, i, a) for i, a in enumerate(operands)]
        result = np.zeros(spec.output, ARRAYS[spec.stored.output])
        result = KernelRun(op, Tiling(spec, op.schedule.data), shaped, result).run()
        return (logical(settled(spec, result), shape_of(op.output)),)


def logical(array: Array, shape: tuple[int, ...]) -> Array:
    """An (n, h, w, c) array back in PyTorch's dimension order."""
    order = storage_order(len(shape))
    lies = array.reshape([shape[i] for i in order])
    return np.asarray(lies.transpose(np.argsort(order)), order="C")


def run_tile(
    module: ModuleOp, inputs: Sequence[Array], listeners: tuple[Interpreter.Listener, ...] = ()
) -> tuple[Array, ...]:
    """Outputs of ``@main`` at qnn, kern or tile level for ``inputs`` in its order."""
    interpreter = Interpreter(module, listeners=listeners)
    for functions in (QnnFunctions(), KernFunctions(), TileFunctions(), FuncFunctions()):
        interpreter.register_implementations(functions)
    main = interpreter.get_op_for_symbol("main")
    check_inputs(main.regions[0].block.args, inputs)
    return interpreter.call_op("main", tuple(inputs))
