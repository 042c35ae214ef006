"""A calibrated graph as a module to train, and back."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

from isa.errors import QuantizationError
from quantizer.coding import CodebookObserver
from quantizer.observers import Observer, WeightObserver
from quantizer.quantizers import dequantize, quantize
from quantizer.train.clock import Clock
from quantizer.train.foreign import adopt
from quantizer.train.norms import AXES, NORMS, Norm, NormedProduct, attribute
from quantizer.train.options import Train
from quantizer.train.simulate import ActivationQuantizer, CodebookQuantizer, WeightQuantizer, shaped

T = TypeVar("T", Graph, GraphModule)
PREFIX = "normed_"
FakeQuantizer = ActivationQuantizer | CodebookQuantizer | WeightQuantizer
Quantizers = dict[str, FakeQuantizer]


class Trainable(nn.Module):
    """A calibrated graph with fake quantizers for observers and live batch norms where it has any, to train.

    Called as the model, for inputs of the shapes it was prepared for. A forward pass in training mode is a step; in
    eval mode it computes what ``convert`` will make of it, to the bit. Parameters are the float master weights.

    * ``prepared``: the graph; of torchao's ``prepare_pt2e`` with another quantizer, batch norms were folded, and stay.
    * ``stage``: what the table [train] says.
    * ``seed``: of rounding at random.

    Raises QuantizationError for a graph without calibration.
    """

    _prepared: GraphModule

    def __init__(self, prepared: GraphModule, stage: Train, seed: int = 0) -> None:
        super().__init__()
        if any(_is_foreign(module) for module in prepared.modules()):
            prepared = adopt(_copied(prepared))
        observers = [module for module in prepared.modules() if isinstance(module, Observer)]
        if not all(observer.seen for observer in observers):
            raise QuantizationError("the prepared model was not calibrated: run calibrate(prepared, batches) first")
        self.clock = Clock(stage, seed)
        self._quantizers = _quantizers(prepared, self.clock)
        self.graph = _trainable(prepared, self._quantizers, self.clock)
        object.__setattr__(self, "_prepared", prepared)  # no submodule: its parameters are not those that are trained

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The model's outputs for ``inputs``."""
        if self.training:
            self.clock.tick()
        return self.graph(*inputs)

    @torch.no_grad()
    def finish(self, into: GraphModule | None = None) -> GraphModule:
        """The prepared graph with the weights as they are now, on their codes, and all ranges frozen: for ``convert``.

        It is a copy, and the training can go on.

        * ``into``: instead of a copy, the same model prepared for inputs of another size, as one image where the
          training has batches.

        Raises QuantizationError where that observes other tensors.
        """
        prepared = _copied(self._prepared) if into is None else into
        prepared.meta.pop(NORMS, None)
        self._check(prepared)
        trained = dict(self.graph.named_parameters(remove_duplicate=False))
        for node in prepared.graph.nodes:
            module = self._module(PREFIX + node.name)
            if isinstance(module, NormedProduct):
                for operand, value in zip(_operands(node), module.folded(), strict=True):
                    _set(prepared, operand, value)
            elif node.op == "get_attr" and node.target in trained:
                _set(prepared, node, trained[node.target])
        for node in prepared.graph.nodes:
            if not isinstance(observer := _called(prepared, node), Observer):
                continue
            quantizer = self._quantizers[str(node.target)]
            if isinstance(quantizer, ActivationQuantizer):
                observer.freeze(*quantizer.parameters_now())
            elif isinstance(quantizer, CodebookQuantizer):
                observer.freeze(*cast(Observer, _called(self._prepared, node)).calculate_qparams())
            else:
                _round(prepared, node.args[0], observer, quantizer)
        return prepared

    def _check(self, other: GraphModule) -> None:
        """Raise QuantizationError where the names of ``other`` are not those of the graph that was trained."""
        observed, own = (_observed(graph) for graph in (other, self._prepared))
        if observed != own or not _names(self._prepared) <= _names(other):
            raise QuantizationError(
                f"a training of {len(own)} quantized tensors does not fit a graph with {len(observed)}: prepare the "
                "model that was trained, by the same recipe, for both sizes"
            )

    def _module(self, name: str) -> nn.Module | None:
        return getattr(self.graph, name, None)

    @property
    def prepared(self) -> GraphModule:
        """The calibrated graph that this was made from, as it was."""
        return self._prepared

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the inputs."""
        return [tuple(n.meta["val"].shape) for n in self._prepared.graph.nodes if n.op == "placeholder"]

    @property
    def types(self) -> list[torch.dtype]:
        """Types of the inputs."""
        return [n.meta["val"].dtype for n in self._prepared.graph.nodes if n.op == "placeholder"]

    def get_extra_state(self) -> dict[str, Any]:
        """How far the training is, for checkpoints."""
        return {"step": self.clock.step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from the ``state`` that ``get_extra_state`` gave."""
        self.clock.step = state["step"]


def _quantizers(prepared: GraphModule, clock: Clock) -> Quantizers:
    """One for each observer, by all the names that this has."""
    made: dict[Observer, FakeQuantizer] = {}
    names: Quantizers = {}
    for name, module in prepared.named_modules(remove_duplicate=False):
        if not isinstance(module, Observer):
            continue
        if module not in made:
            made[module] = _quantizer(module, clock)
        names[name] = made[module]
    return names


def _is_foreign(module: nn.Module) -> bool:
    return isinstance(module, UniformQuantizationObserverBase) and not isinstance(module, Observer)


def _quantizer(observer: Observer, clock: Clock) -> FakeQuantizer:
    if isinstance(observer, WeightObserver):
        return WeightQuantizer(observer, clock)
    if isinstance(observer, CodebookObserver):
        return CodebookQuantizer(observer, clock)
    return ActivationQuantizer(observer, clock)


def _trainable(prepared: GraphModule, quantizers: Quantizers, clock: Clock) -> GraphModule:
    """The graph with live norms, fake quantizers and parameters of its own."""
    graph = _copied(prepared.graph)
    norms: dict[str, Norm] = prepared.meta.get(NORMS, {})
    owned: dict[str, Any] = dict(quantizers)
    for node in list(graph.nodes):
        if (norm := _norm(node, norms)) is None:
            continue
        weight = cast(Node, node.args[1])
        quantizer = quantizers[str(weight.target)] if weight.op == "call_module" else None
        name = PREFIX + node.name
        owned[name] = NormedProduct(norm, node, cast(WeightQuantizer | None, quantizer), clock)
        with graph.inserting_before(node):
            live = graph.call_module(name, (node.args[0],))
        live.meta = dict(node.meta)
        node.replace_all_uses_with(live)
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op in ("get_attr", "call_module") and not node.users:
            graph.erase_node(node)
    clones: dict[torch.Tensor, nn.Parameter] = {}  # a parameter may have several names
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attribute(prepared, node)
            if isinstance(value, nn.Parameter):
                value = clones.setdefault(value, nn.Parameter(value.detach().clone(), value.requires_grad))
            owned[str(node.target)] = value
        elif node.op == "call_module" and node.target not in owned:
            owned[str(node.target)] = prepared.get_submodule(str(node.target))
    return GraphModule(owned, graph)


def floating(prepared: GraphModule) -> GraphModule:
    """A copy of a prepared graph that computes what the float model does, and observes nothing."""
    graph = _copied(prepared)
    for name, module in list(graph.named_modules(remove_duplicate=False)):
        if isinstance(module, Observer):
            graph.set_submodule(name, nn.Identity())
    return graph


def _norm(node: Node, norms: dict[str, Norm]) -> Norm | None:
    """The batch norm that was folded into the weight of ``node``, where it is the only product of it."""
    if node.target not in AXES or len(node.args) < 3:
        return None
    weight, _ = _operands(node)
    norm = norms.get(str(weight.target)) if weight.op == "get_attr" else None
    return norm if norm is not None and len(weight.users) == 1 else None


def _operands(product: Node) -> tuple[Node, Node]:
    """The constants that are a product's weight, behind its observer, and its bias."""
    weight, bias = cast(tuple[Node, Node], product.args[1:3])
    return cast(Node, weight.args[0]) if weight.op == "call_module" else weight, bias


def _names(graph: GraphModule) -> set[str]:
    return {node.name for node in graph.graph.nodes}


def _observed(graph: GraphModule) -> list[str]:
    """What each observer observes, and in which codes."""
    calls = [(node, _called(graph, node)) for node in graph.graph.nodes]
    return [f"{node.name} {module.grid}" for node, module in calls if isinstance(module, Observer)]


def _copied(value: T) -> T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own tree of arguments
        return copy.deepcopy(value)


def _called(prepared: GraphModule, node: Node) -> nn.Module | None:
    return prepared.get_submodule(str(node.target)) if node.op == "call_module" else None


def _round(prepared: GraphModule, node: Node, observer: Observer, quantizer: WeightQuantizer) -> None:
    """Let a weight be exactly what its codes are, and the range that of these codes."""
    weight = attribute(prepared, node)
    assert weight is not None, "weights are constants of the graph"
    scale, zero = quantizer.parameters_of(weight)
    observer.freeze(scale, zero)
    scale, zero = (shaped(each, observer.ch_axis, weight) for each in (scale, zero))
    _set(prepared, node, dequantize(quantize(weight, scale, zero, observer.grid), scale, zero))


def _set(graph: GraphModule, node: Node, value: torch.Tensor) -> None:
    """Let the constant that ``node`` reads be ``value``, and leave the tensor that it was, which others may read."""
    old = attribute(graph, node)
    assert old is not None, "weights are constants of the graph"
    owner, _, name = str(node.target).rpartition(".")
    value = value.detach().to(old.device, copy=True)
    value = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    setattr(graph.get_submodule(owner), name, value)
