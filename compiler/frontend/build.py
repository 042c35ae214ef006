"""Records -> ``func.func @main`` of qnn operations, or one error that lists all that cannot be compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerType, ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from compiler.defects import ADVICE
from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import float_tensor, int_type, is_int, shape_of
from compiler.frontend.qdq import (
    Codes,
    Constant,
    Float,
    Indices,
    Mask,
    Quantized,
    Refusal,
    Thresholds,
    Value,
    Weight,
    check_sum,
    codes_type,
    matrix_weight,
)
from compiler.frontend.records import Call, Input, Output, Parameter, Record, Ref
from compiler.ir.location import Origin
from compiler.ir.signature import NAME
from isa.errors import UnsupportedError

DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
UNSUPPORTED = (
    "the operator is not supported",
    "replace it by supported operators (docs/api.md lists them), or leave it out of the model",
)
WITHOUT_BUILDER = {
    "aten.scaled_dot_product_attention.default": (
        "attention was left whole, so neither its products nor its probabilities are quantized",
        "use quartic.quantize, or give the other quantizer a graph that says attention as products and a softmax: "
        "graph = quartic.export(model, inputs), then prepare_pt2e(graph, quantizer)",
    )
}
"""Rule and advice for operators that only the quantizer can bring into a form that compiles."""
LEFT = "quantize the operand: the quantizer left it in float"
NOT_QUANTIZED = "quantize the model first (quartic.quantize, quartic quantize): nothing in it is"
COMPUTED = "layers multiply by constants: write it as torch.matmul of two tensors, a convolution with unfold before it"
RESULTS_ALONE = "return the indices from the model: nothing on the chip computes with them"
WEIGHTS_ALONE = (
    "weights alone are quantized, which is for evaluation in PyTorch: no machine multiplies codes by binary32; "
    "quantize activations too"
)


class Graph:
    """The function under construction: environment of values, block of operations, refusals so far."""

    def __init__(self) -> None:
        self.block = Block()
        self.values: dict[str, Value | tuple[Value, ...] | None] = {}
        self.shared: dict[str, list[str]] = {}
        """Names of one tensor, where operators in place made it have several."""
        self.refused: list[tuple[Call, Refusal]] = []
        self.in_binary32 = False
        """Whether the graph holds no codes at all, so that products are of binary32."""
        self.weights_alone = False
        self.coded = True
        """Whether anything is quantized."""
        """Whether constants are all that is quantized."""
        self._place = Origin("")
        self._floats: dict[SSAValue, SSAValue] = {}
        self._constants: dict[tuple[int, Any], tuple[NDArray[Any], SSAValue]] = {}

    def at(self, place: Origin) -> None:
        """Give operations added from now on the location ``place``."""
        self._place = place

    def add(self, op: Operation) -> SSAValue:
        """Append an operation; its single result."""
        op.location = self._place.attribute
        self.block.add_op(op)
        return op.results[0]

    def argument(self, kind: Attribute) -> BlockArgument:
        """One more argument of the function."""
        return self.block.insert_arg(kind, len(self.block.args))

    def constant(self, array: NDArray[Any], codes: IntType | IntegerType | None = None) -> SSAValue:
        """A constant; the same array is emitted once."""
        key = (id(array), codes)
        if key not in self._constants:
            self._constants[key] = array, self.add(qnn.ConstantOp(array, codes))
        return self._constants[key][1]

    def float(self, value: Any) -> SSAValue:
        """``value`` as a binary32 tensor: dequantized if it was lazy; Python numbers become rank-0 constants."""
        match value:
            case Float(ssa):
                return ssa
            case Quantized(ssa):
                _check_uniform(value)
                if ssa not in self._floats:
                    self._floats[ssa] = self.add(qnn.DequantizeOp(ssa))
                return self._floats[ssa]
            case Weight():
                return self.constant(value.dequantized())
            case Constant(array) if array.dtype == np.float32:
                return self.constant(array)
            case Constant(array) if array.ndim == 0 or array.dtype.kind in "bi":
                return self.constant(array.astype(np.float32))
            case bool():
                pass
            case int() | float():
                return self.constant(np.asarray(value, np.float32))
            case _:
                pass
        advice = RESULTS_ALONE if isinstance(value, Indices) else "keep this operator in float32"
        raise Refusal(f"needs a float32 operand, got {describe(value)}", advice)

    def ints(self, value: Any) -> SSAValue:
        """The codes behind ``value``; Refusal unless it is the dequantization of some."""
        if isinstance(value, Quantized):
            return value.ssa
        if isinstance(value, Weight) and value.axis is None:
            kind = IntType(value.width, float(value.scale[0]), int(value.zero[0]))
            return self.constant(np.ascontiguousarray(value.codes), kind)
        advice = WEIGHTS_ALONE if self.weights_alone else LEFT if self.coded else NOT_QUANTIZED
        raise Refusal(f"needs a quantized operand, got {describe(value)}", advice)

    def uniform(self, value: Any) -> SSAValue:
        """The codes behind ``value``, for what computes with them: a codebook must not decode them."""
        source = self.ints(value)
        _check_uniform(value)
        return source

    def factor(self, value: Any) -> SSAValue:
        """An operand of a product: the codes behind ``value``, or in a graph without any codes binary32."""
        if self.in_binary32 and not isinstance(value, (Quantized, Weight)):
            return self.float(value)
        return self.ints(value)

    def weight(self, value: Any, x: SSAValue) -> tuple[SSAValue, SSAValue, tuple[int, ...] | None]:
        """Constants for the weights [O, ...] and the combined scale [O] of a convolution or linear; zero points."""
        if isinstance(value, Constant) and not is_int(x) and value.array.dtype == np.float32:
            ones = np.ones(value.array.shape[0], np.float32)
            return self.constant(np.ascontiguousarray(value.array)), self.add(qnn.ConstantOp(ones)), None
        if not isinstance(value, (Weight, Constant)):
            raise Refusal(f"needs a constant weight, got {describe(value)}", COMPUTED)
        if not isinstance(value, Weight) or not is_int(x):
            advice = "quantize this layer's weight" if self.coded else NOT_QUANTIZED
            raise Refusal(f"needs a quantized constant weight, got {describe(value)}", advice)
        codes, scale, zeros = matrix_weight(value, int_type(x))
        check_sum(codes, zeros, int_type(x))
        narrow = IntegerType(4) if value.width == 4 else None
        return self.constant(np.ascontiguousarray(codes), narrow), self.add(qnn.ConstantOp(scale)), zeros

    def bias(self, value: Any, channels: int) -> SSAValue | None:
        """A binary32 bias constant [O], or None."""
        if value is None:
            return None
        array = value.dequantized() if isinstance(value, Weight) else getattr(value, "array", None)
        if array is None or array.shape != (channels,) or array.dtype != np.float32:
            raise Refusal(
                f"bias must be a constant float32 vector of {channels} entries, got {describe(value)}",
                "pass the bias as a parameter, or add it with a separate addition",
            )
        return self.constant(array)

    def resolve(self, value: Any) -> Any:
        """An argument with references replaced by values."""
        if isinstance(value, Ref):
            return self.values.get(value.name)
        if isinstance(value, tuple):
            return tuple(self.resolve(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
        return value

    def broken(self, value: Any) -> bool:
        """Whether an argument depends on a refused operator."""
        if isinstance(value, tuple):
            return any(self.broken(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
        return isinstance(value, Ref) and self.values.get(value.name) is None


def _check_uniform(value: Any) -> None:
    if isinstance(value, Quantized) and int_type(value.ssa).codebook.data:
        raise Refusal(
            "only products and moves read codes of a codebook",
            "quantize this operand uniformly; a codebook belongs to the operand of a product",
        )


def describe(value: Any) -> str:
    """What a frontend value is, for an error."""
    match value:
        case Codes(ssa):
            return f"integer codes {list(shape_of(ssa))}"
        case Quantized(ssa):
            return f"a quantized tensor {list(shape_of(ssa))}"
        case Thresholds(ssa):
            return f"codes {list(shape_of(ssa))} that no dequantize_codebook reads"
        case Indices(ssa):
            return f"indices {list(shape_of(ssa))}"
        case Float(ssa):
            return f"a float tensor {list(shape_of(ssa))} that is not quantized"
        case Constant(array):
            return f"a {array.dtype} parameter {list(array.shape)} that is not quantized"
        case Weight():
            return f"a quantized parameter {list(value.codes.shape)}"
        case _:
            return repr(value)


def build_module(records: Sequence[Record], binary32: bool = False) -> ModuleOp:
    """The qnn module of a recorded graph. Raises UnsupportedError that lists every refused operator.

    ``binary32`` says that products of a graph without any codes are meant to be of binary32.
    """
    graph, names, outputs = Graph(), list[str](), Output(())
    graph.in_binary32 = binary32
    for record in walk(graph, records):
        if isinstance(record, Input):
            names.append(record.name)
        elif isinstance(record, Output):
            outputs = record
    if graph.refused:
        cause = next((r.__cause__ for _, r in graph.refused if r.__cause__ is not None), None)
        raise UnsupportedError(_report(graph.refused)) from cause
    return _finish(graph, names, outputs)


def walk(graph: Graph, records: Sequence[Record]) -> Iterator[Record]:
    """Build ``records`` into ``graph`` one by one; each is given once it is built or refused.

    Raises UnsupportedError for an input that no binary can have.
    """
    from compiler.frontend.aten import OPERATORS

    targets = [record.target for record in records if isinstance(record, Call)]
    graph.in_binary32 &= not any("quantize_" in target for target in targets)
    floats = all(record.dtype == "float32" for record in records if isinstance(record, Input))
    coded = any(".dequantize_" in target for target in targets)
    graph.coded = any("quantize_" in target for target in targets)
    graph.weights_alone = coded and floats and not any(".quantize_" in target for target in targets)
    for record in records:
        match record:
            case Input():
                argument = graph.argument(_input_type(record, records))
                argument.location = record.location.attribute
                float_input = record.dtype == "float32"
                graph.values[record.name] = Float(argument) if float_input else Codes(argument, record.dtype[0] == "u")
            case Parameter():
                graph.values[record.name] = Constant(record.array)
            case Call():
                _build_call(graph, record, OPERATORS.get(record.target))
            case Output():
                pass
        yield record


def _build_call(graph: Graph, call: Call, builder: Any) -> None:
    graph.values[call.name] = None
    if builder is not None and any(graph.broken(value) for value in (*call.args, *call.kwargs.values())):
        return
    graph.at(call.location)
    try:
        if builder is None:
            raise Refusal(*WITHOUT_BUILDER.get(call.target, UNSUPPORTED))
        args = tuple(graph.resolve(value) for value in call.args)
        kwargs = {key: graph.resolve(value) for key, value in call.kwargs.items()}
        value = builder(graph, *args, **kwargs)
        if call.shape is not None and 0 in call.shape:
            raise Refusal(f"its result {list(call.shape)} has no elements", "leave it out of the model")
        _check_shape(call, value)
    except Refusal as refusal:
        graph.refused.append((call, refusal))
        return
    except (ValueError, VerifyException) as error:
        graph.refused.append((call, Refusal(str(error), "change the layer so that it keeps this rule")))
        return
    except Exception as error:
        graph.refused.append((call, _unforeseen(error)))
        return
    graph.values[call.name] = value
    if call.target.split(".")[1].endswith("_") and call.args and isinstance(call.args[0], Ref):
        # In place: later users of the operand, and of what else names the same tensor, see the result.
        names = graph.shared.setdefault(call.args[0].name, [call.args[0].name])
        graph.shared[call.name] = names
        names.append(call.name)
        graph.values |= dict.fromkeys(names, value)


def _unforeseen(error: Exception) -> Refusal:
    """An exception that no rule explains; it stays the cause of what the user is told."""
    refusal = Refusal(
        f"the frontend failed on it with {type(error).__name__}: {str(error).partition(chr(10))[0]}",
        ADVICE,
    )
    refusal.__cause__ = error
    return refusal


def _check_shape(call: Call, value: Any) -> None:
    if call.shape is None or not isinstance(value, (Codes, Quantized, Float, Indices)):
        return
    if shape_of(value.ssa) != call.shape:
        raise Refusal(
            f"shape {list(shape_of(value.ssa))} is not PyTorch's {list(call.shape)}",
            "report this: it is a defect of the frontend",
        )


def _input_type(record: Input, records: Sequence[Record]) -> Attribute:
    if record.dtype == "float32":
        return float_tensor(record.shape)
    for user in records:
        if isinstance(user, Call) and user.target == DEQUANTIZE and user.args[0] == Ref(record.name):
            _, scale, zero, low, high, dtype = user.args[:6]
            kind = codes_type(scale, zero, low, high, dtype)[0]
            if kind.width.data == 4:
                raise UnsupportedError(
                    f"input {record.name} holds 4-bit codes; take the float tensor and quantize it in the model, or "
                    "8-bit codes"
                )
            return TensorType(kind, record.shape)
    raise UnsupportedError(
        f"input {record.name}: dtype must be float32, or int8 or int16 followed by a dequantize, got {record.dtype}; "
        "convert the input before the model"
    )


def _report(refused: Sequence[tuple[Call, Refusal]]) -> str:
    lines = [f"{len(refused)} operator{'s' * (len(refused) > 1)} cannot be compiled as asked:"]
    for i, (call, refusal) in enumerate(refused, 1):
        place = call.location
        where = ", ".join(filter(None, (f"node {call.name}", place.module and f"module {place.module}", place.source)))
        lines += [f"{i}. {call.target} ({where})", f"   rule: {refusal.rule}", f"   do: {refusal.advice}"]
    return "\n".join(lines)


def _finish(graph: Graph, inputs: Sequence[str], outputs: Output) -> ModuleOp:
    results: list[SSAValue] = []
    for ref in outputs.values:
        value = graph.values.get(ref.name)
        if isinstance(value, Codes):
            if value.unsigned:
                raise UnsupportedError(
                    f"output {ref.name} is uint8; return the dequantized tensor, or quantize it to int8"
                )
            if int_type(value.ssa).width.data == 4:
                raise UnsupportedError(
                    f"output {ref.name} holds 4-bit codes; return the dequantized tensor, or quantize it to 8 bits"
                )
            results.append(value.ssa)
        elif isinstance(value, Indices):
            results.append(value.ssa)
        elif isinstance(value, Mask):
            raise UnsupportedError(f"output {ref.name} is a mask of type bool; return mask.float()")
        else:
            results.append(_float_result(graph, ref, value))
    if not results:
        raise UnsupportedError("the graph returns no tensor; return at least one")
    graph.block.add_op(ReturnOp(*results))
    types = ([arg.type for arg in graph.block.args], [value.type for value in results])
    main = FuncOp(
        "main",
        types,
        Region(graph.block),
        arg_attrs=_names(inputs),
        res_attrs=_names([ref.name for ref in outputs.values]),
    )
    return ModuleOp([main])


def _float_result(graph: Graph, ref: Ref, value: Any) -> SSAValue:
    try:
        return graph.float(value)
    except Refusal as refusal:
        raise UnsupportedError(f"output {ref.name}: {refusal.rule}; {refusal.advice}") from refusal


def _names(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr([DictionaryAttr({NAME: StringAttr(name)}) for name in names])
