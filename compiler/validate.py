"""Execute every level on the same inputs and compare bits with the graph as imported.

Outputs decide; where they differ, the intermediate values behind each FX node say which operation is the first to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter, PythonValues
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from compiler.dialects import kern
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.interpreter.tile import run_tile
from compiler.ir.location import origins
from compiler.ir.signature import main_function, output_names
from isa.errors import ValidationError
from isa.numerics import code_type

Array = NDArray[Any]
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of ``@main`` in its order, and the outputs of the graph as imported."""

    name: str
    inputs: tuple[Array, ...]
    expected: tuple[Array, ...]


class Validator:
    """Compares what a module computes, as it goes through the compiler, with what it computed at first.

    Created from the qnn module that the frontend made, which is copied: passes rewrite in place.
    """

    def __init__(self, module: ModuleOp) -> None:
        self.original = module.clone()
        self.names = output_names(main_function(module))
        arguments = main_function(module).body.block.args
        inputs = {name: tuple(make(a, i) for i, a in enumerate(arguments)) for name, make in PROBES.items()}
        self.probes = tuple(Probe(name, given, run_tile(self.original, given)) for name, given in inputs.items())

    def check(self, step: str, module: ModuleOp) -> None:
        """Execute ``module`` at its level; ValidationError naming ``step`` and the first operation that differs."""
        try:
            module.verify()
        except VerifyException as error:
            raise ValidationError(f"pass {step}: its result is not valid: {error}; {REPORT}") from error
        for probe in self.probes:
            try:
                outputs = run_tile(module, probe.inputs)
            except Exception as error:  # a wrong module can fail in any way: it is the pass that is to blame
                raise ValidationError(f"pass {step}: its result cannot be executed: {error}; {REPORT}") from error
            if (difference := self._difference(probe, outputs)) is not None:
                raise ValidationError(f"pass {step}: {difference}{self._origin(module, probe)}; {REPORT}")

    def compare(self, step: str, probe: Probe, outputs: Sequence[Array]) -> None:
        """Compare outputs that ``step`` made from a probe's inputs; ValidationError where a bit differs."""
        if (difference := self._difference(probe, outputs)) is not None:
            raise ValidationError(f"{step}: {difference}; {REPORT}")

    def _difference(self, probe: Probe, outputs: Sequence[Array]) -> str | None:
        if len(outputs) != len(probe.expected):
            return f"@main gives {len(outputs)} outputs, must give {len(probe.expected)}"
        for name, actual, expected in zip(self.names, outputs, probe.expected, strict=True):
            if (where := _differs(actual, expected)) is not None:
                return f"output {name!r} differs on {probe.name} inputs: {where}"
        return None

    def _origin(self, module: ModuleOp, probe: Probe) -> str:
        """The first operation, in program order, whose value is none that the graph as imported has at its node."""
        wanted: dict[str, list[Array]] = {}
        for op, value in _trace(self.original, probe):
            if node := _node(op):  # constants have none
                wanted.setdefault(node, []).append(value)
        for op, value in _trace(module, probe):
            like = [a for a in wanted.get(_node(op), ()) if a.size == value.size and a.dtype == value.dtype]
            # Reshapes come and go with passes, so elements are compared in row-major order; permutes sink through
            # elementwise operations, whose elements then are the same in another order.
            order = np.ravel if isinstance(op, kern.COPIES) else _sorted
            differences = [_differs(order(value), order(a)) for a in like]
            if differences and None not in differences:
                return f"; the first to differ is {_describe(op)}: {differences[-1]}"
        return ""


REPORT = "the compiler made a mistake, please report it with the model"


class _Recorder(Interpreter.Listener):
    def __init__(self) -> None:
        self.seen: list[tuple[Operation, Array]] = []

    def did_interpret_op(self, op: Operation, results: PythonValues) -> None:
        """Keep the result of every operation that has one."""
        if len(results) == 1 and isinstance(results[0], np.ndarray):
            self.seen.append((op, cast(Array, results[0])))


def _trace(module: ModuleOp, probe: Probe) -> Iterator[tuple[Operation, Array]]:
    """Operations in program order with their values; those of a kernel's body before the kernel."""
    recorder = _Recorder()
    run_tile(module, probe.inputs, (recorder,))
    return iter(recorder.seen)


def _sorted(array: Array) -> Array:
    return np.sort(array, axis=None)


def _node(op: Operation) -> str:
    """FX node of an operation, and for a kernel of what it yields."""
    maker = op.result_value.owner if isinstance(op, kern.BodyOp) else op
    found = origins(maker) if isinstance(maker, Operation) else ()
    found = found or origins(op)
    return found[-1].node if found else ""


def _describe(op: Operation) -> str:
    found = origins(op)
    place = f" ({'; '.join(str(one) for one in found)})" if found else ""
    kernel = op if isinstance(op, kern.BodyOp | kern.ConcatOp) else op.parent_op()
    inside = f" in kernel {kernel.kernel.data!r}" if isinstance(kernel, kern.BodyOp) and kernel is not op else ""
    name = f" {op.kernel.data!r}" if isinstance(op, kern.BodyOp | kern.ConcatOp) else ""
    return f"{op.name}{name}{inside}{place}"


def _differs(actual: Array, expected: Array) -> str | None:
    """Where and how many elements differ; every NaN is the same NaN."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        found = f"{actual.dtype}{list(actual.shape)}"
        return f"is {found}, must be {expected.dtype}{list(expected.shape)}"
    different = ~((actual == expected) | ((actual != actual) & (expected != expected)))
    if not different.any():
        return None
    index = tuple(int(i) for i in np.argwhere(different)[0])
    count = int(different.sum())
    return f"{count} of {actual.size} elements, at {list(index)} is {actual[index]}, must be {expected[index]}"


def _random(argument: SSAValue, index: int) -> Array:
    rng, shape = np.random.default_rng(index), shape_of(argument)
    if is_int(argument):
        codes = int_type(argument)
        return rng.integers(codes.low, codes.high + 1, shape).astype(code_type(codes.width.data))
    return rng.normal(size=shape).astype(np.float32)


def _extreme(argument: SSAValue, index: int) -> Array:
    """The ends of the range at random; in front, what is no finite number."""
    rng, shape = np.random.default_rng(index), shape_of(argument)
    if is_int(argument):
        codes = int_type(argument)
        return rng.choice(np.array([codes.low, codes.high], code_type(codes.width.data)), shape)
    values = rng.choice(np.array([-1e6, 1e6], np.float32), shape)
    head = values.reshape(-1)[: len(SPECIAL)]
    head[...] = SPECIAL[: len(head)]
    return values


PROBES = {"random": _random, "extreme": _extreme}
"""Name -> an array for an argument of ``@main`` and its index."""
