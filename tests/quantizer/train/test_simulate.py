"""Fake quantizers: what they compute and which gradients they pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizer.quantizers import Grid, affine, simulate, symmetric
from quantizer.ranges import Average, MinMax
from quantizer.recipe import Format
from quantizer.spec import activation_spec, weight_spec
from quantizer.train.clock import Clock
from quantizer.train.options import Train
from quantizer.train.simulate import ActivationQuantizer, StraightThrough, WeightQuantizer

GRIDS = st.sampled_from([affine(4), affine(8), symmetric(4, narrow=True), symmetric(8, narrow=True), symmetric(16)])
VALUES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20)


def apply(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    return StraightThrough.apply(x, scale, zero, grid, None)


def activation(stage: Train, *values: float, bits: int = 8) -> ActivationQuantizer:
    spec = activation_spec(Format(bits, False, "tensor", Average()))
    observer = spec.observer_or_fake_quant_ctr(
        dtype=spec.dtype, quant_min=spec.quant_min, quant_max=spec.quant_max, qscheme=spec.qscheme
    )
    observer(torch.tensor(values))
    return ActivationQuantizer(observer, Clock(stage)).train()


def weight(stage: Train, bits: int = 4, per: str = "channel") -> WeightQuantizer:
    spec = weight_spec(Format(bits, True, per, MinMax()))
    axis = {} if spec.ch_axis is None else {"ch_axis": spec.ch_axis}
    observer = spec.observer_or_fake_quant_ctr(
        dtype=spec.dtype, quant_min=spec.quant_min, quant_max=spec.quant_max, qscheme=spec.qscheme, **axis
    )
    return WeightQuantizer(observer, Clock(stage)).train()


@given(VALUES, GRIDS, st.floats(1e-3, 10), st.integers(-8, 7))
def test_forward_is_what_quantization_leaves(values: list[float], grid: Grid, scale: float, zero: int) -> None:
    x, s, z = torch.tensor(values), torch.tensor([scale]), torch.tensor([0 if grid.symmetric else zero])
    assert torch.equal(apply(x, s, z, grid), simulate(x, s, z, grid))


@given(VALUES, GRIDS, st.floats(1e-3, 10), st.integers(-8, 7))
def test_the_gradient_passes_where_the_nearest_code_is_in_range(
    values: list[float], grid: Grid, scale: float, zero: int
) -> None:
    x, s, z = torch.tensor(values, requires_grad=True), torch.tensor([scale]), 0 if grid.symmetric else zero
    apply(x, s, torch.tensor([z]), grid).backward(torch.full(x.shape, 3.0))
    codes = torch.round(x.detach() * (1.0 / s.double()).float()) + z
    assert torch.equal(x.grad, 3.0 * ((codes >= grid.least) & (codes <= grid.most)))


def test_the_gradient_of_a_scale_is_that_of_lsq() -> None:
    grid, scale = symmetric(4, narrow=True), torch.tensor([0.5], requires_grad=True)
    x = torch.tensor([0.3, -0.9, 9.0, -9.0])  # 0.6, -1.8 steps, and 18 beyond code 7 on both sides
    apply(x, scale, torch.tensor([0]), grid).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    errors = (1 - 0.6) + 10 * (-2 + 1.8) + 100 * 7 - 1000 * 7
    torch.testing.assert_close(scale.grad, torch.tensor([errors / (4 * 7) ** 0.5]))


def test_master_weights_add_up_what_no_code_shows() -> None:
    quantizer, w = weight(Train()), torch.nn.Parameter(torch.tensor([[1.0, 0.3]]))
    optimiser = torch.optim.SGD([w], 0.01)
    before = quantizer(w).detach()
    for _ in range(10):
        optimiser.zero_grad()
        quantizer(w)[0, 1].backward()
        optimiser.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[1.0, 0.2]]))
    assert before[0, 1] == pytest.approx(2 / 7)
    assert quantizer(w)[0, 1].item() == pytest.approx(1 / 7)


def test_stochastic_rounding_is_right_on_average_and_only_in_training() -> None:
    quantizer = weight(Train(stochastic=True))
    w = torch.tensor([[7.0] + [2.3] * 10_000])
    found = quantizer(w)
    assert set(found[0, 1:].tolist()) == {2.0, 3.0}
    assert found[0, 1:].mean().item() == pytest.approx(2.3, abs=0.02)
    assert set(quantizer.eval()(w)[0, 1:].tolist()) == {2.0}


def test_a_seed_gives_the_same_noise() -> None:
    w = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weight(Train(stochastic=True))(w), weight(Train(stochastic=True))(w))


def test_quantization_starts_after_its_delay() -> None:
    stage = Train(steps=10, delay=0.2, delay_activations=0.3)
    w, x = torch.tensor([[1.0, 0.3]]), torch.tensor([0.0, 0.301, 1.0])
    weights, activations = weight(stage), activation(stage, 0.0, 1.0)
    clock = activations.clock = weights.clock
    started = []
    for _ in range(5):
        clock.tick()
        started.append((not torch.equal(weights(w), w), not torch.equal(activations(x), x)))
    assert started == [(False, False), (False, False), (True, False), (True, True), (True, True)]


def test_in_eval_mode_everything_is_quantized_whatever_the_delay() -> None:
    stage, x = Train(delay=1.0, delay_activations=1.0), torch.tensor([0.3, 1.0])
    assert torch.equal(weight(stage).train()(x[None]), x[None])
    assert weight(stage).eval()(x[None])[0, 0] == pytest.approx(2 / 7)
    assert not torch.equal(activation(stage, 0.0, 1.0).eval()(torch.tensor([0.301])), torch.tensor([0.301]))


def test_ranges_follow_the_average_and_then_freeze() -> None:
    quantizer = activation(Train(steps=4, freeze_ranges=0.5, constant=0.25), 0.0, 1.0)
    highs = []
    for _ in range(4):
        quantizer.clock.tick()
        quantizer(torch.tensor([0.0, 5.0]))
        highs.append(quantizer.high.item())
    assert highs == pytest.approx([2.0, 2.75, 2.75, 2.75])
    assert quantizer.parameters_now()[0].item() == pytest.approx(2.75 / 255)


def test_fixed_ranges_stay_as_calibrated() -> None:
    quantizer = activation(Train(ranges="fixed"), 0.0, 1.0)
    before = [each.clone() for each in quantizer.parameters_now()]
    quantizer.clock.tick()
    quantizer(torch.tensor([-5.0, 5.0]))
    assert all(map(torch.equal, before, quantizer.parameters_now()))


def test_learned_ranges_have_gradients_until_they_freeze() -> None:
    quantizer = activation(Train(steps=2, ranges="learned", freeze_ranges=0.5), 0.0, 1.0)
    x, found = torch.tensor([0.5, 9.0], requires_grad=True), []
    for _ in range(2):
        quantizer.clock.tick()
        quantizer.scale.grad = None
        quantizer(x).sum().backward()
        found.append(quantizer.scale.grad is not None)
    assert found == [True, False]
