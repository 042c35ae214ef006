"""Pages of assignments: what is drawn where."""

from __future__ import annotations

import math

import pytest

from quartic.assigned import Cost, Point
from quartic.plots import front_figure


def points(*losses: float) -> list[Point]:
    """Each costs 1 ms more than the one before it; the last one was simulated."""
    made = [Point({"": "w8a8"}, Cost(i * 1e-3, i * 1e-3), loss) for i, loss in enumerate(losses, 1)]
    last = made[-1]
    return [*made[:-1], Point(last.widths, last.predicted, last.predicted_loss, Cost(4e-3, 4e-3), math.inf)]


@pytest.mark.slow
def test_points_without_a_loss_lie_a_decade_below_the_others() -> None:
    figure = front_figure(points(1e-2, 1e-4, 0.0), "latency", "a front")
    predicted, simulated = figure.data
    assert predicted.x == pytest.approx((1, 2, 3))
    assert predicted.y == pytest.approx((1e-2, 1e-4, 1e-5))
    assert predicted.text == ("(root): w8a8", "(root): w8a8", "no loss<br>(root): w8a8")
    assert simulated.y == pytest.approx((1e-5,))
    assert simulated.text == ("no loss<br>output SQNR inf dB",)
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.title.text == "predicted loss (0 is drawn at 1e-05)"


@pytest.mark.slow
def test_without_zeros_nothing_is_said_of_them() -> None:
    assert front_figure(points(1e-2, 1e-4), "energy", "a front").layout.yaxis.title.text == "predicted loss"


def test_without_losses_the_scale_is_linear() -> None:
    figure = front_figure(points(0.0, 0.0), "latency", "a front")
    assert figure.data[0].y == (0.0, 0.0)
    assert figure.layout.yaxis.type is None
