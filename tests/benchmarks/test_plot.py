"""Charts as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.depth.plot import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axes, chart, nice

SVG = "{http://www.w3.org/2000/svg}"


def test_steps_are_one_two_or_five() -> None:
    assert [nice(x) for x in (0.031, 0.9, 1.0, 1.1, 3.0, 7.0)] == [0.05, 1, 1, 2, 5, 10]


def test_places_on_the_sheet() -> None:
    axes = Axes(8, 128, 0.5)
    assert axes.x(8) == LEFT
    assert axes.x(128) == WIDTH - RIGHT
    assert axes.x(32) == (LEFT + WIDTH - RIGHT) / 2
    assert axes.y(0.5) == TOP
    assert axes.y(0) < HEIGHT


def test_a_chart_is_xml_with_its_points_bars_and_names() -> None:
    lines = {"a < b": [(8.0, 0.2, 0.05), (32.0, 0.1, 0.0)], "other": [(8.0, 0.3, 0.1), (32.0, 0.4, 0.1)]}
    root = ElementTree.fromstring(chart("title", "scenes", "error", lines))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"title", "scenes", "error", "a < b", "other", "8", "32", "0", "0.5"} <= set(texts)
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    axes = Axes(8, 32, 0.5)
    assert circles[2] == pytest.approx((axes.x(8), axes.y(0.3)), abs=0.06)
    assert len(list(root.iter(f"{SVG}polyline"))) == 2


def test_a_chart_needs_two_places() -> None:
    with pytest.raises(ValueError, match="a chart needs two different x, not 1"):
        chart("t", "x", "y", {"a": [(1.0, 2.0, 0.0)]})
