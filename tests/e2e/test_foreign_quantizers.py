"""Graphs of ``quartic.export`` under quantizers that are not ours: equal bits, or a refusal that names the float."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

import quartic
from benchmarks.zoo import NETWORKS
from tests.bits import assert_same

aten = torch.ops.aten
CONFIG = get_symmetric_quantization_config(is_per_channel=True)


class WithProducts(XNNPACKQuantizer):
    """XNNPACK's, and the operands of products, which it does not know."""

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate in place."""
        for node in model.graph.nodes:
            if node.target is aten.matmul.default:
                wanted = dict.fromkeys(node.all_input_nodes, CONFIG.input_activation)
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=wanted, _annotated=True)
        return super().annotate(model)


def images(name: str) -> torch.Tensor:
    return NETWORKS[name].images(shape=NETWORKS[name].small)


def model(name: str) -> nn.Module:
    return NETWORKS[name].model(shape=NETWORKS[name].small)


def quantized(graph: GraphModule, x: torch.Tensor, quantizer: type[XNNPACKQuantizer]) -> GraphModule:
    prepared = prepare_pt2e(graph, quantizer().set_global(CONFIG))
    prepared(x)
    return convert_pt2e(prepared)


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", ["gates", "vit_nano", "resnet_v2_nano"])
def test_the_exported_graph_computes_what_the_model_does(name: str) -> None:
    x, original = images(name), model(name)
    with torch.no_grad():
        expected = original(x)
        error = (quartic.export(original, (x,))(x) - expected).abs().max()
    assert error < 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantizer", "machine"),
    [
        ("digits", XNNPACKQuantizer, "edge28"),
        ("vit_nano", WithProducts, "tiny"),
        pytest.param("resnet18", XNNPACKQuantizer, "edge28", marks=pytest.mark.slow),
    ],
)
def test_what_annotates_every_product_compiles(name: str, quantizer: type[XNNPACKQuantizer], machine: str) -> None:
    x = images(name)
    q = quantized(quartic.export(model(name), (x,)), x, quantizer)
    exe, reference = quartic.compile(q, machine), quartic.reference(q)
    for probe in (x, 100 * x, torch.zeros_like(x)):
        assert_same(quartic.simulate(exe, probe).outputs, reference(probe))


def test_batch_norms_are_folded_before_another_quantizer_sees_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    graph = quartic.export(model, (torch.zeros(1, 3, 8, 8),))
    assert not [n for n in graph.graph.nodes if n.target in (aten.batch_norm.default, aten.mul.Tensor)]


def refusals(q: GraphModule) -> tuple[str, str]:
    """What the compiler says, and what the reference says."""
    with pytest.raises(quartic.QuarticError) as compiler:
        quartic.compile(q)
    with pytest.raises(quartic.QuarticError) as reference:
        quartic.reference(q)
    return str(compiler.value), str(reference.value)


@pytest.mark.slow
def test_products_that_it_leaves_in_float_are_named() -> None:
    x = images("vit_nano")
    compiler, reference = refusals(quantized(quartic.export(model("vit_nano"), (x,)), x, XNNPACKQuantizer))
    place = r"aten\.matmul\.default \(node matmul_default_1, module blocks\.0\.attn, benchmarks/zoo/vit\.py:\d+\)"
    assert re.search(rf"{place}\n   rule: needs a quantized operand, got a float tensor \[1, 3, 10, 10\]", compiler)
    assert "\n   do: quantize the operand: the quantizer left it in float" in compiler
    place = r"matmul_default_1 \(aten\.matmul\) in blocks\.0\.attn, vit\.py:\d+"
    assert re.search(rf"{place}: works on codes, but operand softmax_int is float: quantize it", reference)


@pytest.mark.slow
def test_attention_that_it_left_whole_says_what_to_do() -> None:
    x = images("vit_nano")
    graph = torch.export.export(model("vit_nano"), (x,)).module()
    assert isinstance(graph, GraphModule)
    compiler, reference = refusals(quantized(graph, x, XNNPACKQuantizer))
    node = r"node scaled_dot_product_attention_1, module blocks\.1\.attn, benchmarks/zoo/vit\.py:\d+"
    assert re.search(rf"2\. aten\.scaled_dot_product_attention\.default \({node}\)\n", compiler)
    whole = "attention was left whole, so neither its products nor its probabilities are quantized"
    assert f"   rule: {whole}\n   do: use quartic.quantize, or give the other quantizer a graph that says " in compiler
    assert "graph = quartic.export(model, inputs), then prepare_pt2e(graph, quantizer)" in compiler
    node = r"scaled_dot_product_attention_1 \(aten\.scaled_dot_product_attention\) in blocks\.1\.attn, vit\.py:\d+"
    assert re.search(rf"{node}: {whole}: use quartic\.quantize", reference)
    assert reference.endswith("graph = quartic.export(model, inputs), then prepare_pt2e(graph, quantizer)")


def test_export_says_what_it_cannot_capture() -> None:
    with pytest.raises(quartic.QuarticError, match=r"module \(root\) is in training mode: call model\.eval\(\) before"):
        quartic.export(nn.Linear(3, 2), (torch.zeros(1, 3),))
