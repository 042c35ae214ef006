"""Sensitivity: what it measures, that the planted layer leads, and its errors."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf

import pytest
import torch
from torch import nn

from isa.errors import InputError, QuantizationError
from quantizer import Change, Override, Recipe, quantize
from quantizer.flow import calibrate, prepare
from quantizer.fold import Fold
from quantizer.log2 import Log2
from quantizer.polish import Polish
from quantizer.probe import layers_of
from quantizer.quantizers import simulate
from quantizer.reconstruct.options import Compensate
from quantizer.sensitivity import MEASURES, WIDTHS, LayerSensitivity, Sensitivity, sensitivity
from quantizer.smooth import Smooth
from quantizer.staged import codes_of, observer_of


class Chain(nn.Module):
    """Three layers and a product; the input of the second has an outlier that takes the codes from all else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.planted, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, 8]."""
        y = torch.relu(self.first(x))
        spread = torch.cat([y[:, :7], 400 * y[:, 7:]], 1)
        z = torch.relu(self.planted(spread))
        return self.last(z) + torch.matmul(z, z.transpose(0, 1)).mean(1, keepdim=True)


class Spread(Chain):
    """Channels in front of the second layer differ in size, and nothing else reads them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, 8]."""
        y = torch.tanh(self.first(x)) * 2.0 ** torch.arange(-4, 4)
        return self.last(torch.relu(self.planted(y)))


class Attention(nn.Module):
    """Two products, the second one of probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, T, C]."""
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x


STAGES = {
    "smooth": Smooth(),
    "fold": Fold(),
    "polish": Polish(modules=("planted",)),
    "compensate": Compensate(),
}


@pytest.fixture(scope="module")
def model() -> Chain:
    torch.manual_seed(0)
    made = Chain().eval()
    with torch.no_grad():
        made.planted.weight[:, 7] /= 400  # what the outlier carries counts no more than the rest
    return made


def inputs(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 8, generator=generator) for _ in range(count)]


def distance(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (found - target).square().mean()


@pytest.fixture(scope="module", params=MEASURES)
def measured(request: pytest.FixtureRequest, model: Chain) -> Sensitivity:
    batches = inputs()
    with torch.no_grad():
        targets = [model(x) for x in batches]
    options = dict(targets=targets, metric=distance) if request.param == "metric" else {}
    return sensitivity(model, batches[0], batches, by=request.param, samples=24, **options)


@pytest.mark.slow
@pytest.mark.thin(1)
def test_layers_are_what_overrides_match(measured: Sensitivity) -> None:
    assert [layer.module for layer in measured.layers] == ["first", "planted", "last", ""]
    found = {layer.module: layer for layer in measured.layers}
    assert (found["planted"].nodes, found["planted"].weights, found["planted"].product) == (("linear_1",), 64, False)
    assert (found[""].weights, found[""].product, set(found[""].losses)) == (0, True, {"w4a4", "w8a8", "w16a16"})
    assert measured.widths == WIDTHS


@pytest.mark.slow
def test_the_planted_layer_leads(measured: Sensitivity) -> None:
    assert measured.ranked("w4a4")[0].module == "planted"
    assert measured.ranked("w4a8")[0].module == "planted"


def test_more_bits_lose_less(measured: Sensitivity) -> None:
    planted = next(layer for layer in measured.layers if layer.module == "planted").losses
    assert planted["w4a4"] > planted["w4a8"] >= planted["w8a8"] > planted["w16a16"] >= 0


def test_json_reads_back_as_an_equal_value(measured: Sensitivity) -> None:
    assert Sensitivity.from_json(measured.to_json()) == measured


@pytest.mark.slow
def test_it_is_deterministic(model: Chain) -> None:
    batches = inputs()
    first, second = (sensitivity(model, batches[0], batches, widths=("w4a8", "w4a4"), samples=6) for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("width", ["w4a8", "w8a8"])
@pytest.mark.parametrize("module", ["first", "planted"])
def test_the_loss_is_that_of_a_graph_with_this_layer_quantized(model: Chain, module: str, width: str) -> None:
    assert_as_alone(model, inputs(), module, width, Recipe.load("w8a8"))


@pytest.mark.slow
@pytest.mark.parametrize("width", ["w4a4", "w4a8"])
@pytest.mark.parametrize("start", ["w8a8", "w4a4"])
@pytest.mark.parametrize("stage", STAGES)
def test_stages_take_part(stage: str, start: str, width: str) -> None:
    """At every width as in a graph that has it, whatever the recipe's own."""
    torch.manual_seed(0)
    model = Spread().eval()
    staged = replace(Recipe.load(start), **{stage: STAGES[stage]})
    found = assert_as_alone(model, inputs(), "planted", width, staged)
    assert found not in sensitivity(model, inputs()[0], inputs(), start, widths=(width,), samples=12).layers


@pytest.mark.slow
@pytest.mark.parametrize("width", ["w4a4", "w8a8"])
@pytest.mark.parametrize("start", ["w4a4", "w4a8 elsewhere"])
def test_probabilities_in_powers_of_two_take_part(start: str, width: str) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(1, 6, 16) for _ in range(3)]
    recipe = replace(Recipe.load("w4a4"), log2=Log2(2))
    if start != "w4a4":  # the other product has the codes that the stage asks for
        recipe = recipe.with_overrides(Override("0", activation=Change(bits=8)))
    assert_as_alone(nn.Sequential(Attention(), Attention()).eval(), batches, "0", width, recipe)


def assert_as_alone(
    model: nn.Module, batches: list[torch.Tensor], module: str, width: str, recipe: Recipe
) -> LayerSensitivity:
    """Against torchao's own conversion, everything but the layer in binary32."""
    found = sensitivity(model, batches[0], batches, recipe, widths=(width,), samples=2 * len(batches[0]))
    weight, activation = (Change(bits=int(bits)) for bits in width[1:].split("a"))
    product = module == "0"
    alone = replace(
        recipe,
        weight=recipe.weight.changed(Change(bits=32)),
        activation=recipe.activation.changed(Change(bits=32)),
        elementwise=Change(bits=32),
        wide=Change(bits=32),
        overrides=(Override(module, weight=None if product else weight, activation=activation),),
        log2=recipe.log2 if activation.bits == 4 else None,
    )
    q = quantize(model, batches[0], batches, alone)
    ratios = []
    with torch.no_grad():
        for x in batches[:2]:
            wanted = model(x).double()
            ratios.append((q(x).double() - wanted).square().sum() / wanted.square().sum())
    layer = next(layer for layer in found.layers if layer.module == module)
    assert layer.losses[width] == pytest.approx(float(sum(ratios)) / 2, rel=1e-4)
    return layer


def test_fisher_is_its_formula() -> None:
    """One layer, y = W x: with the loss sum(y c), the gradients are c x' and W' c."""
    torch.manual_seed(2)
    model, x, c = nn.Sequential(nn.Linear(5, 3, bias=False)).eval(), torch.randn(1, 5), torch.randn(1, 3)

    def loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (found * target).sum()

    found = sensitivity(model, x, [x], by="fisher", targets=[c], loss=loss, widths=("w4a8",))
    graph = calibrate(prepare(model, x, "w8a8"), [x])
    (layer,) = layers_of(graph, ("w4a8",))
    act, weight = layer.edges
    w = model[0].weight.detach()
    error_x = simulate(x, *codes_of(graph, act, 8)) - x
    error_w = simulate(w, *codes_of(graph, weight, 4)) - w
    want = (error_w * (c.T @ x)).square().sum() + (error_x * (c @ w)).square().sum()
    assert found.layers[0].losses["w4a8"] == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.slow
def test_codes_of_another_width_are_those_of_an_observer_of_that_width(model: Chain) -> None:
    batches = inputs()
    narrow, wide = (calibrate(prepare(model, batches[0], name), batches) for name in ("w4a4", "w8a8"))
    for left, right in zip(layers_of(narrow, WIDTHS), layers_of(wide, WIDTHS), strict=True):
        for a, b in zip(left.edges, right.edges, strict=True):
            observer = observer_of(narrow, a)
            assert observer is not None
            for one, other in zip(observer.calculate_qparams(), codes_of(wide, b, 4)[:2], strict=True):
                assert torch.equal(one.flatten(), other.flatten())


@pytest.mark.slow
def test_stages_that_learn_are_left_out_and_said(model: Chain) -> None:
    x = inputs()[0]
    staged = Recipe.load("w4a4-quartdepth")
    found = sensitivity(model, x, [x], staged, widths=("w4a8",), samples=6)
    assert found.left_out == ("round",)
    assert Sensitivity.from_json(found.to_json()) == found
    rest = sensitivity(model, x, [x], replace(staged, round=None), widths=("w4a8",), samples=6)
    assert (rest.layers, rest.left_out) == (found.layers, ())
    learned = sensitivity(model, x, [x], "qat-w8a8", widths=("w8a8",), samples=6)
    assert learned.left_out == ("train",)


@pytest.mark.slow
def test_fisher_does_not_see_errors_cancel(model: Chain) -> None:
    x = inputs()[0]
    staged = replace(Recipe.load("w4a8"), compensate=Compensate(), smooth=Smooth())
    found = sensitivity(model, x, [x], staged, widths=("w4a8",), by="fisher")
    assert found.left_out == ("compensate",)
    plain = sensitivity(model, x, [x], replace(staged, compensate=None), widths=("w4a8",), by="fisher")
    assert found.layers == plain.layers


def test_progress_counts_to_the_end(model: Chain) -> None:
    told: list[tuple[int, int]] = []
    x = inputs()[0]
    sensitivity(model, x, [x], widths=("w8a8",), progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 4) for i in range(1, 5)]


def test_decibels() -> None:
    layer = LayerSensitivity("a", ("conv2d",), False, 9, {"w4a8": 1e-3, "w8a8": 0.0})
    assert layer.sqnr_db("w4a8") == pytest.approx(30)
    assert layer.sqnr_db("w8a8") == inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "taste"}, "by = 'taste': must be one of 'sqnr', 'metric', 'fisher'"),
        ({"by": "metric"}, "by = 'metric' needs a metric of outputs and targets, and targets, one per batch"),
        ({"widths": ("w4a9",)}, "width 'w4a9': must be one of w4a4, w4a8, w8a8, w8a16, w16a16"),
        ({"targets": [1, 2], "metric": len, "by": "metric"}, "2 targets for 1 batches: give one per batch"),
        ({"targets": iter([1, 2]), "metric": len, "by": "metric"}, "2 targets for 1 batches: give one per batch"),
        ({"widths": "w4a4"}, "widths = 'w4a4': must be a list of some of w4a4, w4a8, w8a8, w8a16, w16a16"),
        ({"widths": []}, "widths = []: must be a list of some of w4a4, w4a8, w8a8, w8a16, w16a16"),
        ({"widths": 4}, "widths = 4: must be a list of some of"),
        ({"samples": 0}, "samples = 0: must be a whole number, at least 1"),
        ({"samples": "8"}, "samples = '8': must be a whole number, at least 1"),
        ({"metric": len}, "by = 'sqnr' reads no metric: say by = 'metric', or leave the metric out"),
        ({"loss": len}, "by = 'sqnr' reads no loss: say by = 'fisher', or leave the loss out"),
        ({"by": "metric", "metric": "absrel"}, "the metric is a str: give a function of outputs and target"),
        ({"targets": [1]}, "by = 'sqnr' alone reads no targets: give a metric, and say by = 'metric', or leave them"),
        (
            {"targets": [1], "by": "fisher"},
            "by = 'fisher' alone reads no targets: give the loss that reads them, or leave them out",
        ),
        (
            {"loss": len, "by": "fisher"},
            "by = 'fisher': the loss needs targets, one per batch, or as many None",
        ),
        (
            {"by": "metric", "targets": [1], "metric": lambda found, target: None},
            "the metric gave a NoneType: must give a number, the smaller the better",
        ),
        (
            {"by": "metric", "targets": [1], "metric": lambda found, target: found},
            "the metric gave a tensor of shape (6, 4): must give a number",
        ),
        ({"recipe": "f32"}, "no layers: recipe f32 quantizes no convolution, linear layer or product of the model"),
        (
            {"by": "metric", "targets": [1], "metric": lambda found, target: float("nan")},
            "layer 'first' loses nan at w4a4: look for overflow or NaN in the model, or in what measures",
        ),
        (
            {"by": "fisher", "targets": [1], "loss": lambda found, target: 3.0},
            "by = 'fisher' needs a loss that is one number and has a gradient",
        ),
    ],
)
def test_errors(model: Chain, options: dict, message: str) -> None:
    x = inputs()[0]
    with pytest.raises(QuantizationError, match=re.escape(message)):
        sensitivity(model, x, [x], **options)


def test_outputs_that_are_masked_with_infinities() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), -torch.inf)

    x = torch.randn(4, 4)
    assert all(0 < lost < 1 for row in sensitivity(Masked().eval(), x, [x]).layers for lost in row.losses.values())


def test_a_tensor_is_no_list_of_batches(model: Chain) -> None:
    with pytest.raises(QuantizationError, match=re.escape("the calibration set is a Tensor: give a list of batches")):
        sensitivity(model, inputs()[0], inputs()[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "s.json: not a table of sensitivities (Expecting"),
        ('{"by": "sqnr", "recipe": ""}', "s.json: not a table of sensitivities (no key 'layers')"),
        (
            '{"by": "sqnr", "recipe": "", "layers": [{"module": "a", "nodes": [], "product": false, "weights": 1,'
            ' "losses": {"w5a5": 1}}]}',
            "s.json: unknown width 'w5a5'; known are w4a4",
        ),
        (
            '{"by": "taste", "recipe": "", "layers": []}',
            "s.json: by = 'taste': must be one of 'sqnr', 'metric', 'fisher'",
        ),
        (
            '{"by": "sqnr", "recipe": "", "layers": [{"module": "a", "nodes": [], "product": false, "weights": 1,'
            ' "losses": {"w4a4": NaN}}]}',
            "s.json: layer 'a' has a loss that is not finite; measure it again",
        ),
    ],
)
def test_json_that_is_none(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Sensitivity.from_json(text, "s.json")
