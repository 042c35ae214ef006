"""Interpolation by a factor that gives no whole sizes takes PyTorch's positions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from isa import numerics


@pytest.mark.parametrize("factor", [3.5, 7 / 4, 1.5, 1 / 3, 2 / 3, 0.3])
@pytest.mark.parametrize("size", [5, 19, 37])
def test_nearest_takes_the_elements_that_pytorch_takes(factor: float, size: int) -> None:
    x = torch.arange(float(size)).reshape(1, 1, size)
    expected = functional.interpolate(x, scale_factor=factor, mode="nearest").flatten().long().numpy()
    num, den, phase = numerics.resize_scale(*numerics.resize_ratio(factor), nearest=True)
    assert (numerics.positions(int(size * factor), size, num, den, phase)[0] == expected).all()


@pytest.mark.parametrize("factor", [3.5, 7 / 4, 1.5, 2 / 3])
def test_bilinear_lies_where_pytorch_looks(factor: float) -> None:
    x = torch.arange(19.0).reshape(1, 1, 1, 19)
    expected = functional.interpolate(x, scale_factor=(1.0, factor), mode="bilinear").flatten()
    num, den, phase = numerics.resize_scale(*numerics.resize_ratio(factor))
    low, high, t = numerics.positions(int(19 * factor), 19, num, den, phase)
    assert torch.allclose(torch.from_numpy(low + (high - low) * t).float(), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2.0**0.5, 1001.0, 0.0005, -1.0, 0.0])
def test_other_factors_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="is not a ratio of whole numbers up to 1000"):
        numerics.resize_ratio(factor)
