"""prepare, calibrate, convert: ranges, errors, determinism."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isa import numerics
from isa.errors import QuantizationError
from quantizer import calibrate, capture, convert, prepare, quantize, transfer
from quantizer.observers import ActivationObserver, Observer
from quantizer.recipe import Recipe
from quantizer.spec import activation_spec
from tests.thinning import examples

FINITE = st.floats(-1e4, 1e4, width=32)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).eval()


def observer() -> ActivationObserver:
    spec = activation_spec(Recipe.load("w8a8").activation)
    return spec.observer_or_fake_quant_ctr.with_args(
        dtype=spec.dtype, quant_min=-128, quant_max=127, qscheme=spec.qscheme
    )()


def qparams(*batches: torch.Tensor) -> tuple[float, int]:
    watch = observer()
    for batch in batches:
        watch(batch)
        watch.close_batch()
    scale, zero = watch.calculate_qparams()
    return scale.item(), int(zero.item())


IMAGE = torch.linspace(-1, 1, 27).reshape(1, 3, 3, 3)


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_zero_is_exact_and_the_error_is_at_most_half_a_step_in_range(values: list[float]) -> None:
    x = torch.tensor(values)
    scale, zero = qparams(x)
    q = numerics.quantize(x, numerics.inverse_scale(scale), zero)
    y = numerics.dequantize(q, scale, zero)
    assert numerics.dequantize(numerics.quantize(torch.zeros(1), numerics.inverse_scale(scale), zero), scale, zero) == 0
    # the range ends may lie half a step beyond the codes, since the zero point is rounded to an integer
    low, high = scale * (-128 - zero), scale * (127 - zero)
    inside = (x >= low) & (x <= high)
    assert ((y - x).abs()[inside] <= scale * 0.50001).all()
    assert ((y - x).abs() <= scale * 1.00001).all()


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_quantization_is_idempotent(values: list[float]) -> None:
    x = torch.tensor(values)
    scale, zero = qparams(x)
    q = numerics.quantize(x, numerics.inverse_scale(scale), zero)
    again = numerics.quantize(numerics.dequantize(q, scale, zero), numerics.inverse_scale(scale), zero)
    assert torch.equal(q, again)


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-30, 5.0])
def test_degenerate_ranges_give_normal_scales(value: float) -> None:
    scale, zero = qparams(torch.full((3,), value))
    assert 2.0**-24 <= scale <= 5 / 255 * 1.001
    assert -128 <= zero <= 127


def test_a_range_off_zero_is_stretched_to_hold_it() -> None:
    scale, zero = qparams(torch.tensor([2.1, 3.5]))
    assert (scale, zero) == (pytest.approx(3.5 / 255), -128)


def test_batches_weigh_the_same_at_first() -> None:
    scale, zero = qparams(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0]), torch.tensor([0.0, 5.0]))
    assert (scale, zero) == (pytest.approx(3 / 255), -128)


@pytest.mark.slow
@settings(max_examples=examples(5))
@given(st.integers(2, 4))
def test_a_batch_cut_to_the_exported_shape_counts_once(pieces: int) -> None:
    x = torch.randn(pieces, 3, 3, 3, generator=torch.Generator().manual_seed(pieces))
    prepared = calibrate(prepare(model(), (IMAGE,)), [x])
    seen = next(m for m in prepared.modules() if isinstance(m, ActivationObserver)).statistic
    assert (seen.batches, seen.low, seen.high) == (1, x.min(), x.max())


NORMED = {
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (2, 4, 6, 6)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 4, 2, 2), (2, 3, 4, 4)),
}


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", NORMED)
def test_a_folded_batch_norm_computes_what_the_model_does(name: str) -> None:
    """W' = gamma W / sigma, b' = beta - gamma (mu - b) / sigma, in binary32: not the same bits."""
    make, shape = NORMED[name]
    torch.manual_seed(0)
    unfolded, x = nn.Sequential(make(), nn.BatchNorm2d(4), nn.ReLU()).eval(), torch.randn(shape)
    norm = unfolded[1]
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.1, 10)
    folded = quantize(unfolded, (x,), [x], "f32")
    assert not [n for n in folded.graph.nodes if "batch_norm" in str(n.target)]
    with torch.no_grad():
        want = unfolded(x)
    assert (folded(x) - want).abs().max() <= 1e-5 * want.abs().max()


def test_dead_weights_quantize_to_zero() -> None:
    dead = model()
    nn.init.zeros_(dead[4].weight)
    q = quantize(dead, (IMAGE,), [IMAGE])
    assert torch.equal(q(IMAGE)[0], dead[4].bias)


@pytest.mark.slow
def test_equal_inputs_give_equal_graphs() -> None:
    first, second = (quantize(model(), (IMAGE,), [IMAGE, 2 * IMAGE]) for _ in range(2))
    assert str(first.graph) == str(second.graph)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_the_float_model_is_left_alone() -> None:
    original = model()
    before = {k: v.clone() for k, v in original.state_dict().items()}
    quantize(original, (IMAGE,), [IMAGE])
    assert all(torch.equal(v, original.state_dict()[k]) for k, v in before.items())


def test_resume_without_work_that_could_go_on(tmp_path: Path) -> None:
    said = r"resume = '.*kept': recipe qat-w8a8 has no \[round\] or \[compensate\], whose work could go on"
    with pytest.raises(QuantizationError, match=said):
        quantize(nn.Linear(2, 2).eval(), torch.zeros(1, 2), [torch.zeros(1, 2)], "qat-w8a8", resume=tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_no_batches_is_an_error() -> None:
    with pytest.raises(QuantizationError, match="calibration set is empty: give at least one batch"):
        quantize(model(), (IMAGE,), [])


def test_converting_without_calibration_is_an_error() -> None:
    with pytest.raises(QuantizationError, match="was not calibrated: run calibrate"):
        convert(prepare(model(), (IMAGE,)))


def test_a_batch_of_the_wrong_shape_names_both_shapes() -> None:
    with pytest.raises(QuantizationError, match=r"batch 2 has shapes \[\(1, 3, 4, 3\)\].*\[\(1, 3, 3, 3\)\]"):
        quantize(model(), (IMAGE,), [IMAGE, torch.zeros(1, 3, 4, 3)])


def test_a_batch_that_is_not_a_tensor_is_an_error() -> None:
    with pytest.raises(QuantizationError, match=r"input 0 is a int, not a torch\.Tensor"):
        quantize(model(), (IMAGE,), [(3,)])


def test_training_mode_is_an_error() -> None:
    training = model()
    training[1].train()
    with pytest.raises(QuantizationError, match=r"module 1 is in training mode: call model.eval\(\)"):
        prepare(training, (IMAGE,))


def test_nan_in_calibration_is_an_error() -> None:
    with pytest.raises(QuantizationError, match="ranges must be finite"):
        quantize(model(), (IMAGE,), [IMAGE * torch.nan])


def test_value_dependent_control_flow_is_an_error_with_advice() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x or -x."""
            return x if x.sum() > 0 else -x

    with pytest.raises(QuantizationError, match=r"torch\.export cannot capture Branch.*use torch\.where"):
        prepare(Branch().eval(), (IMAGE,))


def test_inputs_that_do_not_fit_the_model_are_an_error() -> None:
    with pytest.raises(QuantizationError, match=r"cannot capture Sequential for inputs of shapes \[\(1, 2, 3, 3\)\]"):
        prepare(model(), (torch.zeros(1, 2, 3, 3),))


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()


def test_ranges_transfer_to_another_size() -> None:
    small = (torch.randn(1, 3, 8, 8),)
    calibrated = calibrate(prepare(convolutional(), small, "w4a8"), [small])
    large = convert(transfer(calibrated, prepare(convolutional(), (torch.randn(1, 3, 12, 20),), "w4a8")))
    expected = convert(calibrated)
    assert large(torch.randn(1, 3, 12, 20)).shape == (1, 2, 8, 16)
    for one, other in zip(large.graph.nodes, expected.graph.nodes, strict=True):
        if "quantize_per_tensor" in str(one.target):
            assert one.args[1:] == other.args[1:]  # scale, zero point and limits
    assert all(map(torch.equal, large.buffers(), expected.buffers()))


def test_ranges_of_another_model_are_refused() -> None:
    small = (torch.randn(1, 3, 8, 8),)
    calibrated = calibrate(prepare(convolutional(), small), [small])
    other = prepare(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), small)
    with pytest.raises(QuantizationError, match="do not fit a graph that observes"):
        transfer(calibrated, other)


@pytest.mark.slow
def test_a_captured_graph_serves_every_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture(model(), IMAGE)
    wanted = [quantize(model(), IMAGE, [IMAGE], recipe) for recipe in ("w8a8", "w4a4")]
    monkeypatch.setattr(torch.export, "export", None)
    for recipe, want in zip(("w8a8", "w4a4"), wanted, strict=True):
        found = quantize(graph, IMAGE, [IMAGE], recipe)
        assert found.code == want.code
        assert found.state_dict().keys() == want.state_dict().keys()
        assert all(map(torch.equal, found.state_dict().values(), want.state_dict().values()))
        assert [n.meta.get("stack_trace") for n in found.graph.nodes if "conv" in n.name] == [
            n.meta.get("stack_trace") for n in want.graph.nodes if "conv" in n.name
        ]


def test_a_captured_graph_is_of_its_shapes() -> None:
    with pytest.raises(QuantizationError, match=r"cannot capture GraphModule for inputs of shapes \[\(2, 3, 3, 3\)\]"):
        prepare(capture(model(), IMAGE), torch.cat([IMAGE, IMAGE]))


@pytest.mark.slow
def test_a_frozen_range_outlives_calibration_and_transfer() -> None:
    prepared, other = (prepare(model(), (IMAGE,), "w8a8") for _ in range(2))
    for observer in (m for m in prepared.modules() if isinstance(m, Observer)):
        observer.freeze(torch.tensor([0.25]), torch.tensor([0]))
    names = [n for n, m in prepared.named_modules() if isinstance(m, Observer)]
    assert names
    calibrate(prepared, [(IMAGE * 100,)])
    transfer(prepared, other)
    for name in names:
        scale, zero = other.get_submodule(name).calculate_qparams()
        assert (scale.item(), zero.item()) == (0.25, 0)
