"""[smooth], [fold] and [polish]: the function stays, channels become alike, and everything says where it was done."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

from isa.errors import DescriptionError, QuantizationError
from quantizer import Change, Override, Recipe, prepare, quantize, report, rescale
from quantizer.channels import Channels, Factors
from quantizer.fold import Fold
from quantizer.log2 import Log2
from quantizer.operands import operands
from quantizer.polish import Polish
from quantizer.scaling import SCALED
from quantizer.smooth import Smooth

W4A4 = Recipe.load("w4a4")
STAGES = {
    "smooth": dataclasses.replace(W4A4, smooth=Smooth()),
    "fold": dataclasses.replace(W4A4, fold=Fold()),
    "fold, no shift": dataclasses.replace(W4A4, fold=Fold(shift=False)),
    "polish": dataclasses.replace(W4A4, polish=Polish(modules=("*",))),
}
STAGED = pytest.mark.parametrize("recipe", STAGES.values(), ids=STAGES.keys())


class Convolutions(nn.Module):
    """Batch norm, depthwise, grouped, strided, transposed, a maximum, and a join of two branches."""

    shape = (2, 3, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1)
        self.grouped, self.whole = nn.Conv2d(12, 8, 3, groups=2), nn.Conv2d(8, 6, 3)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2, bias=False), nn.Conv2d(12, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        y = self.point(functional.relu6(self.depthwise(x)))
        y = self.whole(functional.max_pool2d(functional.gelu(self.grouped(y)), 2))
        z = self.up(functional.leaky_relu(y))
        return self.last(torch.cat([functional.silu(z), functional.relu(z)[:, :, :6] + 1, torch.tanh(z)], 1))


class Transformer(nn.Module):
    """One block, its queries, keys and values from one layer each."""

    shape = (1, 6, 16)

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.proj = (nn.Linear(16, 16) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).view(1, 6, 2, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(1, 6, 16))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


NETWORKS = (Convolutions, Transformer)


def network(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """With parameters whose channels differ in size."""
    g = torch.Generator().manual_seed(seed)
    model = kind().eval()
    for name, value in model.named_parameters():
        value.data = torch.randn(value.shape, generator=g) * 0.4
        if value.dim() == 1 and "norm" in name:
            value.data = torch.exp(1.5 * torch.randn(value.shape, generator=g))
    return model


def batches(shape: tuple[int, ...], count: int = 3) -> list[tuple[torch.Tensor]]:
    g = torch.Generator().manual_seed(5)
    return [(torch.randn(shape, generator=g),) for _ in range(count)]


def rescaled(kind: type[nn.Module], recipe: Recipe) -> GraphModule:
    data = batches(kind.shape)  # type: ignore[attr-defined]
    return rescale(network(kind), data[0], data, recipe)


def told(graph: GraphModule) -> dict[str, list[str]]:
    """What was done, by the name of the layer."""
    found = {node.name: (node.meta.get("custom") or {}).get(SCALED) for node in graph.graph.nodes}
    return {name: words for name, words in found.items() if words}


@pytest.mark.slow
@STAGED
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_function_stays(kind: type[nn.Module], recipe: Recipe) -> None:
    model, graph = network(kind), rescaled(kind, recipe)
    for (x,) in batches(kind.shape, 2):  # type: ignore[attr-defined]
        with torch.no_grad():
            expected, found = model(x), graph(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * expected.abs().max().item())
    assert any("scale" in words[-1].split(": ")[1] for words in told(graph).values())


@pytest.mark.slow
def test_factors_go_into_what_makes_the_values_or_stay_products() -> None:
    assert told(rescaled(Transformer, STAGES["smooth"])) == {
        "linear": ["smooth: scale into layer_norm"],
        "linear_1": ["smooth: scale into layer_norm"],
        "linear_2": ["smooth: scale into layer_norm"],
        "linear_3": ["smooth: scale by a product behind matmul_default_1"],
        "linear_4": ["smooth: scale into layer_norm_1"],
        "linear_5": ["smooth: scale by a product behind gelu"],
    }
    input_ = "it is the graph's input, which would be quantized twice"
    assert told(rescaled(Convolutions, STAGES["fold"])) == {
        "conv2d": [f"fold: not here: {input_}"],
        "conv2d_1": ["fold: scale into conv2d"],
        "conv2d_2": ["fold: scale and shift by a product behind relu6"],
        "conv2d_3": ["fold: scale and shift into conv2d_2"],
        "conv2d_4": ["fold: scale and shift by a product behind gelu"],
        "conv_transpose2d": ["fold: scale into conv2d_4"],
        "conv2d_5": [
            "fold: scale and shift by a product behind silu, by a product behind add, by a product behind tanh"
        ],
    }


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("kind", NETWORKS)
def test_folded_channels_have_one_range(kind: type[nn.Module]) -> None:
    graph = rescaled(kind, STAGES["fold"])
    data = batches(kind.shape)  # type: ignore[attr-defined]
    words = told(graph)
    seen = {each.value: Channels(each.axis) for each in operands(graph) if "shift" in words[each.layers[0].name][0]}
    assert seen

    class Look(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n in seen:
                seen[n].add(value)
            return value

    for batch in data:
        Look(graph).run(*batch)
    for channels in seen.values():
        low, high = channels.range
        live = high > low + 1e-3
        torch.testing.assert_close(low[live], -torch.ones_like(low[live]), rtol=0, atol=1e-4)
        torch.testing.assert_close(high[live], torch.ones_like(high[live]), rtol=0, atol=1e-4)


def test_weights_of_one_scale_take_no_factors_of_their_outputs() -> None:
    """They would differ between rows, for which that scale is too coarse."""
    tensor = dataclasses.replace(STAGES["fold"], weight=W4A4.weight.changed(Change(per="tensor")))
    assert told(rescaled(Convolutions, tensor))["conv2d_1"] == ["fold: scale by a product behind relu"]


def test_the_last_stage_that_claims_an_operand_decides() -> None:
    both = dataclasses.replace(W4A4, smooth=Smooth(), fold=Fold(modules=("fc*",)), polish=Polish(modules=("fc2",)))
    words = told(rescaled(Transformer, both))
    assert words["linear"] == ["smooth: scale into layer_norm"]
    assert words["linear_4"] == ["fold: scale and shift into layer_norm_1"]
    assert words["linear_5"] == ["polish: LogNP codes, scale by a product behind gelu"]


@pytest.mark.slow
def test_an_operand_that_is_no_outlier_is_left_to_the_stage_before() -> None:
    both = dataclasses.replace(W4A4, fold=Fold(), polish=Polish(where="outliers", threshold=99, modules=("*",)))
    words = told(rescaled(Transformer, both))["linear_5"]
    assert re.fullmatch(
        r"polish: not here: its largest magnitudes are \d\.\d\d times the percentile, less than 99", words[0]
    )
    assert words[1] == "fold: scale and shift by a product behind gelu"


def test_a_channel_that_is_nearly_always_zero_makes_no_outliers_of_its_neighbours() -> None:
    plain = torch.linspace(0.5, 1, 100).expand(1, 2, 100)
    rare = torch.zeros(1, 1, 100)
    rare[..., -1] = 1
    found = Channels(1, (95.0,))
    found.add(torch.cat([plain, rare], 1))
    weights = torch.ones(1, 3)
    assert Polish(where="outliers").factors(found, weights, False) == (
        "its largest magnitudes are 1.03 times the percentile, less than 4"
    )
    spiked = Channels(1, (95.0,))
    spiked.add(torch.cat([rare + 0.1, rare + 0.1, plain[:, :1]], 1))
    assert isinstance(Polish(where="outliers").factors(spiked, weights, False), Factors)


class Residual(nn.Module):
    """What a layer reads is also added to its result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return x + self.second(x)


def test_what_others_read_too_is_left_and_said() -> None:
    data = batches((1, 8))
    q = quantize(Residual().eval(), data[0], data, STAGES["fold"])
    assert [layer.scaled for layer in report(q).layers if layer.weight] == [
        ("fold: not here: it is the graph's input, which would be quantized twice",),
        ("fold: not here: add reads it too",),
    ]


def test_scales_per_channel_of_activations_are_folded() -> None:
    """``per = "channel"`` asks for it: where it cannot be, that is an error, not a scale per tensor."""
    data = batches((1, 8))
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).eval()
    channel = Change(per="channel")
    one = W4A4.with_overrides(Override("2", activation=channel))
    (layer,) = [row.scaled for row in report(quantize(model, data[0], data, one)).layers if row.scaled]
    assert layer == ("fold: scale and shift by a product behind gelu",)
    everywhere = dataclasses.replace(W4A4, activation=W4A4.activation.changed(channel))
    message = (
        "linear.*activation: per = 'channel' cannot be: it is the graph's input, which would be quantized twice; say"
    )
    with pytest.raises(QuantizationError, match=message):
        quantize(model, data[0], data, everywhere)


@pytest.mark.slow
def test_factors_of_attention_have_no_scales_per_channel() -> None:
    everywhere = dataclasses.replace(W4A4, activation=W4A4.activation.changed(Change(per="channel")))
    data = batches(Transformer.shape)
    message = "matmul.*per = 'channel' cannot be: scales per channel do not factor out of a sum of products of two act"
    with pytest.raises(QuantizationError, match=message):
        quantize(network(Transformer), data[0], data, everywhere)


def test_what_is_not_read_by_weights_is_refused_in_the_recipe() -> None:
    with pytest.raises(
        DescriptionError, match="wide: per = 'channel' is for weights, and for what layers with weights"
    ):
        dataclasses.replace(W4A4, wide=Change(per="channel"))


def test_preparing_needs_the_batches_first() -> None:
    data = batches((1, 8))
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    message = r"recipe w4a4, changed: \[fold\] scales channels by what calibration batches say: prepare what rescale"
    with pytest.raises(QuantizationError, match=message):
        prepare(model, data[0], STAGES["fold"])
    prepare(rescale(model, data[0], data, STAGES["fold"]), data[0], STAGES["fold"])


def test_patterns_that_match_nothing_are_named() -> None:
    data = batches((1, 8))
    message = (
        r"recipe w4a4, changed: \[polish\] modules = \['\*decoder\*', '\*head\*'\]: match no layer of the model; near"
    )
    with pytest.raises(QuantizationError, match=message):
        quantize(Residual().eval(), data[0], data, dataclasses.replace(W4A4, polish=Polish()))


def test_a_calibration_set_is_needed() -> None:
    with pytest.raises(QuantizationError, match="the calibration set is empty: give at least one batch"):
        quantize(Residual().eval(), torch.zeros(1, 8), [], STAGES["fold"])
    with pytest.raises(QuantizationError, match="the calibration set is a Tensor: give a list of batches"):
        quantize(Residual().eval(), torch.zeros(1, 8), torch.zeros(1, 8), STAGES["fold"])


def test_dead_and_negative_channels_are_polished() -> None:
    """The percentile is of |x|; of dead channels and of those of mostly zeros it has a floor."""
    x = torch.zeros(1, 4, 100)
    x[0, 1] = -torch.arange(100.0)
    x[0, 2, 7] = 50.0
    x[0, 3] = torch.arange(100.0)
    seen = Channels(1, [95.0])
    seen.add(x)
    found = Polish().factors(seen, torch.ones(4), True)
    assert not isinstance(found, str)
    mean = (94.0 * 94.0) ** (1 / 3)
    torch.testing.assert_close(found.scale, torch.tensor([mean, 94.0, 1.0, 94.0], dtype=torch.float64))
    assert found.shift is None
    one = Polish(alpha=0.0).factors(seen, torch.ones(4), True)
    assert not isinstance(one, str)
    torch.testing.assert_close(one.scale, torch.full((4,), mean, dtype=torch.float64))


def test_percentiles_are_averages_over_images() -> None:
    seen = Channels(-1 % 2, [95.0])
    seen.add(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    seen.add(torch.tensor([[5.0, 0.0]]))
    assert seen.percentile(95.0).tolist() == [3.0, 2.0]
    assert (seen.low.tolist(), seen.high.tolist(), seen.largest.tolist()) == ([1.0, -2.0], [5.0, 4.0], [5.0, 4.0])
    assert [each.tolist() for each in seen.range] == [[3.0, 2.0 / 3], [3.0, 2.0 / 3]]


@pytest.mark.parametrize(("shiftable", "scale", "shift"), [(True, 1.0, 100.0), (False, 100.0, None)])
def test_a_channel_that_never_changes_takes_no_range_from_the_others(
    shiftable: bool, scale: float, shift: float | None
) -> None:
    seen = Channels(1)
    seen.add(torch.tensor([[[100.0, 100.0], [-2.0, 4.0], [0.0, 0.0]]]))
    found = Fold().factors(seen, torch.ones(3), shiftable)
    assert found.scale.tolist() == [scale, 3.0 if shiftable else 4.0, 1.0]
    assert (None if found.shift is None else found.shift.tolist()) == (None if shift is None else [shift, 1.0, 0.0])


@pytest.mark.parametrize("shiftable", [True, False])
def test_channels_of_one_value_an_image_have_the_range_of_all_images(shiftable: bool) -> None:
    """Averages of least and largest values would both be the mean, which says nothing of a size."""
    seen = Channels(1)
    seen.add(torch.tensor([[-1.0, 10.0], [1.0, 30.0], [3.0, 20.0]]))
    found = Fold().factors(seen, torch.ones(2), shiftable)
    assert found.scale.tolist() == ([2.0, 10.0] if shiftable else [3.0, 30.0])
    assert found.shift is None or found.shift.tolist() == [1.0, 20.0]


def test_smoothing_is_the_papers_equation() -> None:
    seen = Channels(1)
    seen.add(torch.tensor([[8.0, -2.0, 0.0, 4.0]]))
    weights = torch.tensor([2.0, 0.5, 1.0, 0.0], dtype=torch.float64)
    assert Smooth(0.5).factors(seen, weights, True).scale.tolist() == [2.0, 2.0, 1.0, 1.0]
    assert Smooth(1.0).factors(seen, weights, True).scale.tolist() == [8.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Smooth(1.5), "alpha = 1.5: must be in 0 .. 1"),
        (lambda: Polish(percent=0), "percent = 0: must be above 0 and at most 100"),
        (lambda: Polish(floor=0), "floor = 0: must be above 0 and at most 1"),
        (lambda: Polish(alpha=2), "alpha = 2: must be in 0 .. 1"),
        (lambda: Polish(where="here"), "where = 'here': must be one of 'modules', 'outliers', 'error'"),
    ],
)
def test_parameters_are_checked(make: object, message: str) -> None:
    with pytest.raises(DescriptionError, match=re.escape(message)):
        make()  # type: ignore[operator]


@pytest.mark.slow
def test_powers_of_two_are_of_probabilities_of_4_bits() -> None:
    coded, data = dataclasses.replace(W4A4, log2=Log2(2)), batches(Transformer.shape)
    found = report(quantize(network(Transformer), data[0], data, coded)).layers
    assert [row.scaled for row in found if row.scaled] == [("log2: probabilities in powers of 2^(1/2)",)]
    wide = dataclasses.replace(Recipe.load("w4a8"), log2=Log2())
    message = (
        r"recipe w4a8, changed: \[log2\] modules = \['\*'\]: match no product whose first factor is a softmax of 4-bit"
    )
    with pytest.raises(QuantizationError, match=message):
        quantize(network(Transformer), data[0], data, wide)
    with pytest.raises(DescriptionError, match=r"steps = 0: must be in 1 \.\. 4"):
        Log2(0)


def test_wider_operands_are_divided_and_stay_uniform() -> None:
    data, wide = batches((1, 8)), dataclasses.replace(Recipe.load("w4a8"), polish=Polish(modules=("2",)))
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).eval()
    q = quantize(model, data[0], data, wide)
    assert [row.scaled for row in report(q).layers if row.scaled] == [
        ("polish: uniform codes, scale by a product behind gelu",)
    ]
    assert not any("codebook" in str(node.target) for node in q.graph.nodes)
