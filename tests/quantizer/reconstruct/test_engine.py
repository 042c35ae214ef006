"""Reconstruction as a whole: codes that survive conversion, bits that survive a break, and what it is worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import quartic
from isa.errors import QuantizationError
from quantizer import Change, Recipe, convert, quantize, reference
from quantizer.batches import samples
from quantizer.observers import WeightObserver
from quantizer.polish import Polish
from quantizer.progress import Progress
from quantizer.ranges import MinMax
from quantizer.reconstruct.engine import reconstruct
from quantizer.reconstruct.layer import layers
from quantizer.reconstruct.options import Compensate, Round
from quantizer.size import constant
from tests.bits import assert_same
from tests.quantizer.reconstruct.networks import calibrated, images, network, recipe

FAST = dict(iterations=20, rate=0.05)
COUNTED = [(i, 4) for i in range(1, 5)]
"""Of the images."""
METHODS = {
    "compensated": recipe(None, True),
    "gptq": recipe(Round(method="gptq")),
    "adaround": recipe(Round(**FAST)),
    "brecq": recipe(Round(**FAST, scope="block", metric="fisher")),
    "compensated brecq": recipe(Round(**FAST, scope="block", batch=2), True),
    "quartdepth": recipe(Round(**FAST, metric="kfac", target="weight"), True),
    "fisher": recipe(Round(**FAST, metric="fisher", drop=1.0)),
    "w4a8": recipe(Round(**FAST), True, "w4a8"),
}


def codes(q: GraphModule) -> list[torch.Tensor]:
    held = (node for node in q.graph.nodes if node.op == "get_attr")
    return [value for node in held if (value := constant(q, node)).dtype == torch.int8]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_conversion_gives_the_very_codes_that_were_chosen(name: str) -> None:
    graph = calibrated(METHODS[name])
    reconstruct(graph, images(), METHODS[name])
    expected = []
    for layer in layers(graph):
        weight = constant(graph, layer.held)
        (user,) = layer.held.users
        observer = graph.get_submodule(str(user.target))
        assert isinstance(observer, WeightObserver)
        scale, zero = observer.broadcast(weight)
        steps = (weight / scale).round() + zero
        assert torch.equal((steps - zero) * scale, weight)
        expected.append(steps.to(torch.int8))
    assert len(expected) == 7
    found = codes(convert(graph))
    assert len(found) == 7
    assert all(any(torch.equal(a, b) for b in found) for a in expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_reference_and_simulator_agree_in_every_bit(name: str) -> None:
    q = quantize(network(), images()[0], images(), METHODS[name])
    exe = quartic.compile(q, machine="edge28")
    x = images(6)[-1]
    assert_same(quartic.simulate(exe, *x).outputs, reference(q)(*x))


def lost(name: str | None) -> float:
    """Squared error of the quantized network on the calibration images."""
    q = quantize(network(), images()[0], images(), METHODS[name] if name else recipe())
    with torch.no_grad():
        return sum(float((q(*x) - network()(*x)).square().sum()) for x in images())


@pytest.mark.slow
def test_every_method_loses_less_than_nearest_rounding() -> None:
    nearest = lost(None)
    assert {name: lost(name) < nearest for name in METHODS} == dict.fromkeys(METHODS, True)


class StoppedError(Exception):
    """Raised by whoever watches."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compensated brecq", "quartdepth"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    how = METHODS[name]
    whole = codes(quantize(network(), images()[0], images(), how))

    def stop(progress: Progress) -> None:
        if (progress.step, progress.index) == ("reconstructing", 2):
            raise StoppedError

    with pytest.raises(StoppedError):
        quantize(network(), images()[0], images(), how, resume=tmp_path, progress=stop)
    (folder,) = tmp_path.iterdir()
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [path.name for path in sorted(kept)] == ["unit0000.pt", "unit0001.pt"]
    again = codes(quantize(network(), images()[0], images(), how, resume=tmp_path))
    assert all(map(torch.equal, again, whole))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_another_seed_or_other_images_do_not_go_on_from_there(tmp_path: Path) -> None:
    how = METHODS["adaround"]
    for seed, batches in ((0, images()), (1, images()), (0, images(5)), (0, images())):
        quantize(network(), images()[0], batches, how, resume=tmp_path, seed=seed)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_weights_of_another_format_do_not_go_on_from_there(tmp_path: Path) -> None:
    """Of one stage and the same ranges of activations: the codes of one are none of the other."""
    for base in ("w8a8", "w4a8"):
        how = recipe(Round(method="gptq"), base=base)
        found = codes(quantize(network(), images()[0], images(), how, resume=tmp_path))
        assert all(map(torch.equal, found, codes(quantize(network(), images()[0], images(), how))))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file': Not a directory; give a folder that can be made, or None" in refused(
        METHODS["gptq"], resume=tmp_path / "file"
    )


@pytest.mark.slow
def test_a_seed_gives_the_same_bits_and_leaves_the_global_one_alone() -> None:
    how = METHODS["brecq"]
    first = codes(quantize(network(), images()[0], images(), how, seed=3))
    graph = calibrated(how)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    reconstruct(graph, images(), how, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, codes(convert(graph))))


@pytest.mark.slow
def test_the_model_itself_stays_as_it_was() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize(model, images()[0], images(), METHODS["quartdepth"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_progress_names_every_unit() -> None:
    said: list[Progress] = []
    quantize(network(), images()[0], images(), METHODS["brecq"], progress=said.append)
    steps = [each.step for each in said]
    assert list(dict.fromkeys(steps)) == ["calibrating", "taking gradients", "reconstructing"]
    assert [(each.index, each.count) for each in said[: steps.index("reconstructing")]] == 2 * COUNTED
    said = said[steps.index("reconstructing") :]
    assert [each.part for each in said] == ["stem", "blocks.0", "blocks.1", "mix", "up"]
    assert [(each.index, each.count) for each in said] == [(i, 5) for i in range(1, 6)]
    assert said[-1].eta == 0.0
    assert said[0].eta == said[0].seconds * 4


def test_progress_of_a_trial_and_of_inputs_in_one_batch() -> None:
    said: list[Progress] = []
    how = replace(Recipe.load("w4a4"), polish=Polish(modules=("*",), where="error"))
    batch = torch.cat([x for (x,) in images()])
    quantize(network(), images()[0], (batch,), how, progress=said.append)
    steps = [each.step for each in said]
    assert list(dict.fromkeys(steps)) == ["observing channels", "trying codes", "calibrating"]
    assert [(each.index, each.count) for each in said if each.part == "inputs"] == 2 * COUNTED
    tried = [each for each in said if each.step == "trying codes"]
    assert [(each.index, each.count) for each in tried] == [(i, len(tried)) for i in range(1, len(tried) + 1)]
    assert {"mix", "up"} <= {each.part for each in tried}


def test_batches_that_are_not_a_list_are_not_counted_ahead() -> None:
    said: list[Progress] = []
    quantize(network(), images()[0], iter(images()), "w8a8", progress=said.append)
    assert not said


def test_a_tied_weight_is_rounded_once_and_the_float_model_keeps_its_own() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(functional_relu(self.first(x)))

    functional_relu = nn.functional.relu
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    q = quantize(Tied().eval(), x, [x], METHODS["gptq"])
    found = codes(q)
    assert all(torch.equal(found[0], each) for each in found)
    assert_same(quartic.simulate(quartic.compile(q, "edge28"), x).outputs, reference(q)(x))


@pytest.mark.slow
def test_gradients_come_from_targets_where_there_are_any() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().mean()

    how = METHODS["quartdepth"]
    targets = [torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    found = [
        codes(quantize(network(), images()[0], images(), how, targets=t, loss=f))
        for t, f in ((None, None), (targets, loss))
    ]
    assert not all(map(torch.equal, *found))


@pytest.mark.slow
def test_batches_and_their_targets_are_split_to_the_exported_size() -> None:
    how, parts = METHODS["quartdepth"], images()
    how = replace(how, activation=how.activation.changed(Change(range=MinMax())))  # of batches of any size
    targets = [torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    one = codes(quantize(network(), parts[0], parts, how, targets=targets))
    pairs = [(torch.cat([a[0], b[0]]),) for a, b in (parts[:2], parts[2:])]
    joined = [torch.cat(targets[:2]), torch.cat(targets[2:])]
    two = codes(quantize(network(), parts[0], pairs, how, targets=joined))
    assert len(one) == 7
    assert all(map(torch.equal, one, two))
    pieces, aims = samples(calibrated(how), pairs, joined)
    assert aims is not None
    assert all(torch.equal(piece[0], part[0]) for piece, part in zip(pieces, parts, strict=True))
    assert all(map(torch.equal, aims, targets))
    assert len(aims) == 4


def refused(how: object, **given: object) -> str:
    with pytest.raises(QuantizationError) as error:
        quantize(network(), images()[0], images(), how, **given)  # type: ignore[arg-type]
    return str(error.value)


@pytest.mark.slow
def test_targets_that_do_not_fit_are_named() -> None:
    how = METHODS["quartdepth"]
    assert refused(how, targets=[1]) == "1 targets for 4 batches: give one for each batch"
    small = refused(how, targets=[torch.ones(1, 1, 8, 8)] * 4)
    assert small.startswith("a target of shapes [(1, 1, 8, 8)] for outputs of shapes [(1, 2, 8, 8)]: give targets as")
    pairs = [(torch.cat([a[0], b[0]]),) for a, b in (images()[:2], images()[2:])]
    with pytest.raises(QuantizationError) as error:
        quantize(network(), images()[0], pairs, how, targets=[torch.ones(3), torch.ones(2)])
    assert str(error.value).startswith("target 1 ((3,)) cannot be split into 2 pieces of the exported size")


@pytest.mark.parametrize("device", ["gpu", "hpu:7"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    found = refused(METHODS["gptq"], device=device)
    assert found.startswith(f"device {device!r}: ")
    assert found.endswith("; take 'cpu', or one that is there")


def test_a_gradient_that_is_zero_everywhere_is_named() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 0 * output.sum()

    message = "stem: the gradient of the loss is 0 there in every calibration image: give targets and a loss"
    assert refused(METHODS["quartdepth"], loss=loss).startswith(message)


def test_losses_that_are_none_are_named() -> None:
    how = METHODS["quartdepth"]
    assert refused(how, loss="mse") == "the loss is a str: give a function of output and target, or None"
    message = "the loss gives a tensor of shape (1, 2, 8, 8), with a gradient: must be a tensor of one number"
    assert refused(how, loss=lambda output, target: output - target).startswith(message)
    assert refused(how, loss=lambda output, target: 3.0).startswith("the loss gives a float, without a gradient")


def test_sums_that_are_singular_are_named_with_their_layer() -> None:
    how = replace(METHODS["compensated"], compensate=Compensate(damping=0.0))
    x = torch.linspace(-1, 1, 8)[None]
    with pytest.raises(QuantizationError, match=r"^0: the sums over the layer's 8 inputs are singular: give a damping"):
        quantize(nn.Sequential(nn.Linear(8, 2)).eval(), (x,), [(x,)], how)


class Nothing(nn.Module):
    """A layer whose result nobody takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> None:
        self.layer(x)


@pytest.mark.parametrize("name", ["fisher", "quartdepth", "brecq"])
def test_a_model_without_layers_has_nothing_to_round(name: str) -> None:
    x = torch.ones(1, 3)
    q = quantize(Nothing().eval(), (x,), [(x,)], METHODS[name])
    assert not [node for node in q.graph.nodes if node.op == "call_function"]


@pytest.mark.slow
def test_the_preset_of_the_paper_agrees_in_every_bit_with_its_codebooks() -> None:
    preset = Recipe.load("w4a4-quartdepth")
    assert preset.round is not None
    assert preset.polish is not None
    how = replace(preset, round=replace(preset.round, iterations=10), polish=replace(preset.polish, where="modules"))
    q = quantize(network(), images()[0], images(), how)
    assert any("codebook" in str(node.target) for node in q.graph.nodes)
    x = images(6)[-1]
    exe = quartic.compile(q, machine="quartdepth28-w4a4")
    assert_same(quartic.simulate(exe, *x).outputs, reference(q)(*x))
