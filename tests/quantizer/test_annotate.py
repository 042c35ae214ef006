"""Where q/dq pairs lie: around kernels, never inside them, and shared where values only move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from isa.errors import QuantizationError
from quantizer import QuarticQuantizer, quantize, report
from quantizer.recipe import Change, Recipe

Forward = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


class Model(nn.Module):
    """Convolutions a, b (3 to 8, 8 to 8 channels), batch norm, linear; ``forward`` is given."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.c = nn.Conv2d(8, 8, 1)
        self.linear = nn.Linear(8, 8)
        self.function = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Images [1, 3, 6, 6]."""
        return self.function(self, x)


def graph(forward: Forward, recipe: str | Recipe = "w8a8") -> GraphModule:
    torch.manual_seed(0)
    model = Model(forward).eval()
    x = torch.randn(1, 3, 6, 6)
    return quantize(model, (x,), [x], recipe=recipe)


def calls(q: GraphModule) -> list[str]:
    """Targets in order, short; weights' dequantize left out."""
    names = (str(n.target).split(".")[1] for n in q.graph.nodes if n.op == "call_function")
    short = {"quantize_per_tensor": "q", "dequantize_per_tensor": "dq"}
    return [short.get(name, name) for name in names if name != "dequantize_per_channel"]


def find(q: GraphModule, name: str) -> Node:
    return next(n for n in q.graph.nodes if f"aten.{name}." in str(n.target))


def grid(node: Node) -> tuple[object, ...]:
    """Scale and zero point of a q or dq node."""
    assert "quantize_per_tensor" in str(node.target)
    return node.args[1:3]


CHAINS = [
    ("batch norm folds", lambda m, x: m.norm(m.a(x)), ["conv2d"]),
    ("conv, bn, relu", lambda m, x: functional.relu(m.norm(m.a(x))), ["conv2d", "relu"]),
    ("relu6", lambda m, x: functional.relu6(m.a(x)), ["conv2d", "relu6"]),
    ("hardtanh in place", lambda m, x: functional.hardtanh(m.a(x), 0, 6, inplace=True), ["conv2d", "hardtanh"]),
    ("hardswish", lambda m, x: functional.hardswish(m.a(x)), ["conv2d", "hardswish"]),
    ("sigmoid", lambda m, x: torch.sigmoid(m.a(x)), ["conv2d", "sigmoid"]),
    ("silu", lambda m, x: functional.silu(m.a(x)), ["conv2d", "silu"]),
    ("scalar arithmetic", lambda m, x: (m.a(x) * 0.5 + 3).relu(), ["conv2d", "mul", "add", "relu"]),
    ("pool, relu", lambda m, x: functional.avg_pool2d(x, 2).relu(), ["avg_pool2d", "relu"]),
]


@pytest.mark.thin(1)
@pytest.mark.parametrize(("forward", "chain"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS])
def test_a_chain_that_fuses_holds_no_quantization(forward: Callable[..., torch.Tensor], chain: list[str]) -> None:
    assert calls(graph(forward)) == ["q", "dq", *chain]


def test_residual_is_quantized_but_the_convolution_before_the_add_is_not() -> None:
    def block(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(m.a(x))
        return functional.relu(m.c(y) + y)

    q = graph(block)
    add = find(q, "add")
    assert [str(a.target).split(".")[-2] for a in add.args] == ["conv2d", "dequantize_per_tensor"]
    assert [u.target for u in add.users] == [torch.ops.aten.relu.default]


def test_of_two_convolutions_added_only_the_later_stays_float() -> None:
    q = graph(lambda m, x: m.c(y := functional.relu(m.a(x))) + m.b(y))
    first, second = find(q, "add").args
    assert "dequantize" in str(first.target)
    assert "conv2d" in str(second.target)


def test_a_value_with_two_uses_is_quantized_once_for_both() -> None:
    q = graph(lambda m, x: m.b(y := m.a(x)) + m.c(y))
    shared = next(n for n in find(q, "conv2d").users)
    assert "quantize_per_tensor" in str(shared.target)
    assert len(shared.users) == 2


def test_a_broadcast_gate_is_quantized() -> None:
    def gate(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(m.a(x))
        return y * torch.sigmoid(m.c(y.mean((2, 3), keepdim=True)))

    assert all("dequantize" in str(a.target) for a in find(graph(gate), "mul").args)


def test_long_sums_are_cut_so_that_a_kernel_reads_few_tensors() -> None:
    def chain(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(m.a(x))
        parts = [functional.max_pool2d(y, 3, 1, 1) for _ in range(5)]
        return m.c(y) + parts[0] + parts[1] + parts[2] + parts[3]

    q = graph(chain)
    adds = [n for n in q.graph.nodes if "aten.add" in str(n.target)]
    assert ["dequantize" in str(n.args[0].target) for n in adds] == [False, False, True, False]


SHARED = [
    ("cat", lambda m, x: m.linear(torch.cat([m.a(x), m.norm(m.a(x))], 1).reshape(-1, 8)), "cat"),
    ("max_pool2d", lambda m, x: m.c(functional.max_pool2d(m.a(x), 2)), "max_pool2d"),
    ("reshape", lambda m, x: m.linear(m.a(x).reshape(-1, 8)), "reshape"),
    ("permute", lambda m, x: m.linear(m.a(x).permute(0, 2, 3, 1)), "permute"),
    ("pad", lambda m, x: m.c(functional.pad(m.a(x), (1, 0, 2, 1))), "pad"),
]


@pytest.mark.thin(1)
@pytest.mark.parametrize(("forward", "name"), [row[1:] for row in SHARED], ids=[row[0] for row in SHARED])
def test_ops_that_move_values_share_the_grid_of_their_operands(forward: Callable[..., torch.Tensor], name: str) -> None:
    node = find(graph(forward), name)
    grids = {grid(n) for n in (*node.all_input_nodes, *node.users)}
    assert len(grids) == 1


@pytest.mark.thin(1)
@pytest.mark.parametrize(
    ("recipe", "low"),
    [
        ("w4a4", -128),
        ("w8a8", -128),
        ("w16a16", -32768),
        (replace(Recipe.load("w4a4"), elementwise=Change(bits=32)), -128),
    ],
    ids=["w4a4", "w8a8", "w16a16", "w4a4, binary32 between"],
)
@pytest.mark.parametrize("moved", [False, True])
def test_maxima_are_of_whole_bytes(recipe: str | Recipe, low: int, moved: bool) -> None:
    """Also where what reads them, or stands in front of them, is of four bits."""

    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = functional.pad(m.a(x), (1, 0, 0, 1)) if moved else m.a(x)
        return m.c(functional.max_pool2d(y, 2))

    node = find(graph(forward, recipe), "max_pool2d")
    assert [n.args[3] for n in (*node.all_input_nodes, *node.users)] == [low, low]


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("pool", [functional.max_pool2d, functional.avg_pool2d])
def test_windows_read_codes_of_products_where_elementwise_operators_read_binary32(
    pool: Callable[..., torch.Tensor], moved: bool
) -> None:
    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return pool(functional.pad(y, (1, 0, 0, 1)) if moved else y, 2) + torch.tanh(y).mean((2, 3), keepdim=True)

    q = graph(forward, "w16a16")
    (read,) = find(q, "avg_pool2d" if pool is functional.avg_pool2d else "max_pool2d").all_input_nodes
    assert read.args[3:5] == (-32768, 32767)
    assert find(q, "tanh").all_input_nodes == [find(q, "conv2d")]


@pytest.mark.parametrize("recipe", ["w8a8", "w16a16"])
def test_a_move_stays_binary32_where_any_of_its_readers_wants_that(recipe: str) -> None:
    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([m.a(x), x], 1)[:, :8]
        return m.c(y) + torch.tanh(y).mean((2, 3), keepdim=True)

    q = graph(forward, recipe)
    coded = ["dequantize_per_tensor" in str(read.target) for read in find(q, "cat").all_input_nodes]
    assert coded == [recipe == "w8a8"] * 2
    assert ("dequantize_per_tensor" in str(find(q, "tanh").all_input_nodes[0].target)) == (recipe == "w8a8")
    last = [node for node in q.graph.nodes if "aten.conv2d" in str(node.target)][-1]
    assert "dequantize_per_tensor" in str(last.all_input_nodes[0].target)


def test_weights_are_symmetric_narrow_int8_per_output_channel() -> None:
    q = graph(lambda m, x: m.a(x))
    node = next(n for n in q.graph.nodes if "dequantize_per_channel" in str(n.target))
    codes, scales, zeros = (getattr(q, str(a.target)) for a in node.args[:3])
    assert (codes.dtype, codes.min().item() >= -127, codes.abs().amax((1, 2, 3)).tolist()) == (
        torch.int8,
        True,
        [127] * 8,
    )
    assert (scales.shape, zeros.any().item()) == ((8,), False)


def test_outputs_stay_float_and_the_report_says_so() -> None:
    (row,) = report(graph(lambda m, x: m.a(x).flatten(1))).unquantized
    assert (row.node, row.reason) == ("flatten", "leaves the graph: an output is stored as binary32")
    assert row.source.startswith("test_annotate.py:")


def test_the_report_names_operators_outside_the_table_and_what_they_starve() -> None:
    q = graph(lambda m, x: functional.avg_pool2d(torch.cumsum(m.a(x), 1), 2))
    rows = {r.node: r.reason for r in report(q).unquantized}
    assert rows["cumsum"] == "aten.cumsum.default is not in the table of operators: its operands and result are float"


@pytest.mark.parametrize(("recipe", "coded"), [("w8a8", True), ("w16a16", False)])
def test_a_move_that_also_leaves_the_graph_has_codes_where_elementwise_operands_do(recipe: str, coded: bool) -> None:
    def forward(m: Model, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.cat([m.a(x), x], 1)[:, :8]
        return y, m.c(y)

    q = graph(forward, recipe)
    assert all(("dequantize" in str(read.target)) == coded for read in find(q, "cat").all_input_nodes)


def test_the_report_says_that_windows_alone_need_codes() -> None:
    """Sums and interpolation take binary32, so that nothing is said of those that read it."""
    recipe = replace(Recipe.load("w8a8"), activation=Recipe.load("f32").activation, elementwise=Change(bits=32))

    def pooled(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x).sigmoid()
        return m.c(functional.avg_pool2d(y, 2)) + m.c(functional.interpolate(y, scale_factor=0.5, mode="bilinear"))

    rows = {row.node: row.reason for row in report(graph(pooled, recipe)).unquantized}
    assert rows["avg_pool2d"] == "its operand sigmoid is float, but aten.avg_pool2d.default works on codes"
    assert set(rows) == {"conv2d", "avg_pool2d", "conv2d_1", "conv2d_2", "add"}


def test_quantizer_metadata_keeps_module_and_source() -> None:
    node = find(graph(lambda m, x: m.a(x).relu()), "conv2d")
    assert next(reversed(node.meta["nn_module_stack"].values()))[0] == "a"
    assert "test_annotate.py" in node.meta["stack_trace"]


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(QuantizationError, match=r"unknown recipe 'w3a5': known recipes are f32, qat-w4a8, .*, w8a8$"):
        QuarticQuantizer("w3a5")


def test_results_of_an_unknown_operator_stay_float() -> None:
    q = graph(lambda m, x: torch.sort(m.a(x), -1)[0].flatten(1))
    assert [n.name for n in q.graph.nodes][-5:] == ["conv2d", "sort", "getitem", "flatten", "output"]
    assert any(row.reason.startswith("aten.sort.default is not in the table") for row in report(q).unquantized)


def codes_in_front_of(body: object, shape: tuple[int, ...], name: str) -> bool:
    """Whether the operand of operator ``name`` is quantized."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return body(x)  # type: ignore[operator]

    x = torch.randn(shape)
    q = quantize(Net().eval(), (x,), [(x,)])
    node = next(n for n in q.graph.nodes if name in str(n.target))
    return "dequantize" in str(node.args[0].target)


@pytest.mark.parametrize(
    ("body", "shape", "quantized"),
    [
        (lambda x: (x * x).sum(-1), (2, 5, 3), False),  # the sum ends the product's kernel
        (lambda x: (x * x).sum(1), (2, 3, 5, 4), False),  # channels of an image lie innermost
        (lambda x: (x * x).sum(1), (2, 5, 3), True),  # rows would have to be gathered
        (lambda x: (x.softmax(-1) * x).sum(-1), (2, 5, 3), True),  # a kernel has one row operation
        (lambda x: x.sum(-1), (2, 5, 3), True),
    ],
)
def test_a_sum_reads_codes_unless_it_ends_an_elementwise_kernel(
    body: object, shape: tuple[int, ...], quantized: bool
) -> None:
    assert codes_in_front_of(body, shape, "aten.sum") is quantized


@pytest.mark.slow
def test_probabilities_are_operands_of_their_product_and_scores_in_memory_are_wide() -> None:
    q = graph(lambda _, x: x.softmax(-1) @ x, "w4a4")
    ranges = {name: [x.args[3:5] for x in find(q, name).all_input_nodes] for name in ("softmax", "matmul")}
    assert ranges == {"softmax": [(-32768, 32767)], "matmul": [(-8, 7), (-8, 7)]}
