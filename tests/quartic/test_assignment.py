"""Widths within a budget: what is predicted is what is simulated, and the graph is the one that compiles."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import quartic
from benchmarks.zoo.digits import trained
from isa.errors import AssignmentError, DescriptionError, QuantizationError
from isa.machine import Machine
from quantizer import Recipe
from quantizer.log2 import Log2
from quantizer.sensitivity import Sensitivity
from quartic.assignment import Assigner, assigner, budget_of, profile_prices
from tests.e2e.support import assert_bits

pytestmark = pytest.mark.slow  # all of them measure and compile a network

BATCHES = [(x,) for x in torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).split(1)]


@pytest.fixture(scope="module")
def digits() -> Assigner:
    return assigner(trained(), BATCHES[0], BATCHES, "tiny", samples=4)


@pytest.mark.slow
def test_prices_add_up_to_the_whole(digits: Assigner) -> None:
    """What every cycle costs is with whoever takes the cycle, and nothing is lost."""
    q = quartic.quantize(trained(), BATCHES[0], BATCHES)
    exe = quartic.compile(q, "tiny")
    run, prices = quartic.timing(exe), profile_prices(exe)
    assert sum(p.cycles for p in prices.values()) == run.cycles
    assert sum(p.femtojoules for p in prices.values()) == pytest.approx(run.joules * 1e15, rel=1e-6)
    start = digits.problem().solution(digits.start).price
    assert (start.cycles, start.femtojoules) == (run.cycles, pytest.approx(run.joules * 1e15, rel=1e-6))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["latency_seconds", "energy_joules"])
def test_the_budget_holds_in_the_simulator_as_predicted(digits: Assigner, unit: str) -> None:
    problem = digits.problem()
    cheap, start = (digits._cost(s) for s in (problem.cheapest(unit.split("_")[0]), problem.solution(digits.start)))
    limit = (getattr(cheap, unit) + getattr(start, unit)) / 2
    made = digits.assign(budget_of(**{"latency_seconds": None, "energy_joules": None, "sqnr_db": None, unit: limit}))
    assert getattr(made.simulated, unit) <= limit
    assert getattr(made.predicted, unit) == pytest.approx(getattr(made.simulated, unit), rel=0.05)
    assert len(set(made.widths.values())) > 1
    again = quartic.compile(quartic.quantize(trained(), BATCHES[0], BATCHES, recipe=made.recipe), "tiny")
    assert again.binary.code == made.executable.binary.code
    assert_bits(made.graph, [BATCHES[0][0], BATCHES[1][0]], "tiny")


@pytest.mark.slow
def test_an_sqnr_is_kept_at_the_least_latency(digits: Assigner) -> None:
    made = digits.assign(budget_of(None, None, 25.0), 25.0)
    assert made.sqnr_db >= 25.0
    assert made.simulated.latency_seconds < digits._cost(digits.problem().solution(digits.start)).latency_seconds


@pytest.mark.slow
def test_every_layer_has_its_width_in_the_graph(digits: Assigner) -> None:
    from quantizer import report

    widths = {module: ("w4a8", "w8a8", "w4a4")[i % 3] for i, module in enumerate(digits.start)}
    graph = quartic.quantize(trained(), BATCHES[0], BATCHES, recipe=digits.recipe_of(widths))
    found = {layer.module: layer for layer in report(graph).layers if layer.weight is not None}
    for module, width in widths.items():
        weight = found[module].weight
        assert weight is not None
        assert f"w{weight.bits}a{found[module].activation}" == width, module


def test_layers_around_others_come_first(digits: Assigner) -> None:
    """An override of a module holds for all inside of it, so what is inside says its own width behind it."""
    layers = digits.sensitivity.layers
    names = ("", "a.attn", "a.attn.proj", "b")
    made = Assigner.recipe_of(
        _With(digits, Sensitivity("sqnr", "w8a8", tuple(map(lambda x, n: replace(x, module=n), layers, names)))),
        {"a.attn.proj": "w8a8", "a.attn": "w4a4", "": "w8a8", "b": "w4a8"},
    )
    assert [o.modules for o in made.overrides] == ["b", "a.attn", "a.attn.proj"]


def test_powers_of_two_go_where_no_probabilities_of_4_bits_are_left(digits: Assigner) -> None:
    (first, *_) = digits.sensitivity.layers
    work = _With(digits, Sensitivity("sqnr", "w4a4", (replace(first, module="attn", product=True, weights=0),)))
    work.recipe = replace(Recipe.load("w4a4"), log2=Log2())
    assert Assigner.recipe_of(work, {"attn": "w4a4"}).log2 == Log2()
    assert Assigner.recipe_of(work, {"attn": "w8a8"}).log2 is None


class _With:
    """An assigner with another sensitivity."""

    def __init__(self, base: Assigner, sensitivity: Sensitivity) -> None:
        self.recipe, self.machine, self.same, self.sensitivity = base.recipe, base.machine, {}, sensitivity


@pytest.mark.slow
def test_the_front_falls_and_is_simulated_where_asked(digits: Assigner) -> None:
    with ThreadPoolExecutor(1) as executor:
        points = digits.front(points=6, simulate=2, executor=executor)
    costs, losses = [p.predicted.latency_seconds for p in points], [p.predicted_loss for p in points]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    assert len(points) > 3
    simulated = [p for p in points if p.simulated is not None]
    assert simulated == [points[0], points[-1]]
    for point in simulated:
        assert point.simulated is not None
        assert point.simulated.latency_seconds == pytest.approx(point.predicted.latency_seconds, rel=0.05)


@pytest.mark.slow
def test_to_json_says_what_was_predicted_and_simulated(digits: Assigner) -> None:
    made = digits.assign(budget_of(1.0, None, None))
    found = made.to_json()
    assert found["predicted"].keys() == found["simulated"].keys() == {"latency_seconds", "energy_joules"}
    assert found["widths"] == dict(made.widths)


def test_a_budget_below_the_fastest(digits: Assigner) -> None:
    with pytest.raises(AssignmentError, match=r"no assignment of widths takes 1e-07 s or less: the fastest takes \d"):
        digits.assign(budget_of(1e-7, None, None))


@pytest.mark.slow
def test_a_sensitivity_that_does_not_add_up_in_decibels(digits: Assigner) -> None:
    other = replace(digits.sensitivity, by="fisher")
    found = assigner(trained(), BATCHES[0], BATCHES[:1], "tiny", sensitivity=other)
    with pytest.raises(AssignmentError, match="a bound on the SQNR needs a sensitivity by 'sqnr', not by 'fisher'"):
        found.assign(budget_of(None, None, 30.0), 30.0)


@pytest.mark.parametrize(
    ("given", "said"), [((None, None, None), "none"), ((1.0, None, 30.0), "latency and SQNR")]
)
def test_one_budget(given: tuple, said: str) -> None:
    with pytest.raises(AssignmentError, match=re.escape(f"an energy or an SQNR; here is {said}")):
        budget_of(*given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("10ms", None, None), "latency = '10ms': must be a number of seconds"),
        ((None, "2mJ", None), "energy = '2mJ': must be a number of joules"),
        ((None, None, "30dB"), "SQNR = '30dB': must be a number of decibels"),
        ((True, None, None), "latency = True: must be a number of seconds"),
        ((1.0, None, None, "energy"), "minimise = 'energy' is of an SQNR, at which it is least; within a budget the "),
    ],
)
def test_budgets_that_are_none(given: tuple, said: str) -> None:
    with pytest.raises(AssignmentError, match=re.escape(said)):
        budget_of(*given)


def test_a_start_width_that_was_not_measured(digits: Assigner) -> None:
    layers = (replace(x, losses={"w4a4": x.losses["w4a4"]}) for x in digits.sensitivity.layers)
    short = replace(digits.sensitivity, layers=tuple(layers))
    told = (
        "layer 'stem.0' is w8a8 in recipe w8a8, where the assignment starts, and the sensitivity has w4a4: measure that"
        " width too, or start at another recipe"
    )
    with pytest.raises(AssignmentError, match=re.escape(told)):
        assigner(trained(), BATCHES[0], BATCHES[:1], "tiny", sensitivity=short)


def test_what_is_no_sensitivity_and_no_number_of_samples() -> None:
    with pytest.raises(AssignmentError, match=r"the sensitivity is a dict: give what quartic\.sensitivity gave, or "):
        assigner(trained(), BATCHES[0], BATCHES, "tiny", sensitivity={})  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="samples = 0: must be a whole number, at least 1"):
        assigner(trained(), BATCHES[0], BATCHES, "tiny", samples=0)
    with pytest.raises(DescriptionError, match=r"a machine is a name or the path of a \.toml file, not NoneType"):
        assigner(trained(), BATCHES[0], BATCHES, None)  # type: ignore[arg-type]


def test_an_sqnr_that_is_no_number_of_decibels() -> None:
    for value in (-4000.0, float("nan")):
        with pytest.raises(AssignmentError, match=re.escape(f"an SQNR of {value} dB: must be in -300 .. 300")):
            budget_of(None, None, value)


@pytest.mark.slow
def test_unknown_machines_and_models_without_layers() -> None:
    with pytest.raises(DescriptionError, match="machine 'edge29': No such file"):
        quartic.assign(trained(), BATCHES[0], BATCHES, "edge29", latency_seconds=1.0)
    empty = Sensitivity("sqnr", "w8a8", ())
    with pytest.raises(AssignmentError, match="no layers: no kernel of the model multiplies what the sensitivity"):
        Assigner(trained(), BATCHES[0], BATCHES, Machine.load("edge28"), Recipe.load("w8a8"), empty)


def test_a_sensitivity_that_lacks_a_layer(digits: Assigner) -> None:
    """What it loses would count for nothing."""
    short = replace(digits.sensitivity, layers=digits.sensitivity.layers[1:])
    (node,), module = digits.sensitivity.layers[0].nodes, digits.sensitivity.layers[0].module
    told = f"the sensitivity lacks {node} (module {module}), which the model multiplies at"
    with pytest.raises(AssignmentError, match=re.escape(told)):
        Assigner(trained(), BATCHES[0], BATCHES, Machine.load("tiny"), Recipe.load("w8a8"), short)


@pytest.mark.slow
def test_the_depth_model_within_an_energy() -> None:
    from benchmarks.depth.model import trained as trained_depth

    generator = torch.Generator().manual_seed(0)
    batches = [(torch.rand(1, 3, 112, 112, generator=generator),) for _ in range(2)]
    losses = quartic.sensitivity(trained_depth(), batches[0], batches, by="fisher", samples=2)
    made = quartic.assign(trained_depth(), batches[0], batches, energy_joules=180e-6, sensitivity=losses, samples=1)
    assert made.simulated.energy_joules <= 180e-6
    assert made.predicted.energy_joules == pytest.approx(made.simulated.energy_joules, rel=0.05)
    assert len(set(made.widths.values())) > 1
    assert_bits(made.graph, [batches[1][0]])
