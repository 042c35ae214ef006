"""The picture and the table of energy against depth error."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.depth.pareto import Row, drawing, report

ROWS = (
    Row("w8a8", None, 2.0e-4, 3.0e-4, 0.11, 0.93, 40.0, {"w8a8": 2}),
    Row("w4a4", None, 1.4e-4, 2.0e-4, 0.30, 0.40, 8.0, {"w4a4": 2}),
    Row("assigned 1", 1.5e-4, 1.51e-4, 2.1e-4, 0.12, 0.91, 20.0, {"w4a4": 1, "w4a8": 1}),
    Row("assigned 2", 1.9e-4, 1.89e-4, 2.8e-4, 0.107, 0.93, 38.0, {"w8a8": 1, "w4a8": 1}),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_every_row_is_drawn_inside_of_the_picture() -> None:
    root = ElementTree.fromstring(drawing(ROWS, 0.106))
    dots, squares = root.findall(f"{SVG}circle"), root.findall(f"{SVG}rect")[1:]
    assert (len(dots), len(squares)) == (2, 2)
    assert all(0 < float(dot.get("cx", "")) < 640 and 0 < float(dot.get("cy", "")) < 400 for dot in dots)
    assert all(0 <= float(square.get("y", "")) < 400 for square in squares)
    words = [text.text or "" for text in root.findall(f"{SVG}text")]
    assert {"w8a8", "w4a4 (0.300)", "float", "AbsRel"} <= set(words)  # what leaves the scale says its value


def test_cheaper_is_to_the_left_and_better_below() -> None:
    first, second = ElementTree.fromstring(drawing(ROWS, 0.106)).findall(f"{SVG}circle")
    assert float(first.get("cx", "")) < float(second.get("cx", ""))
    assert float(first.get("cy", "")) < float(second.get("cy", ""))


def test_the_table_has_predicted_beside_simulated() -> None:
    text = report(ROWS, 0.106, "Head.")
    assert "| assigned 1 | 0.1500 | 0.1510 | 0.2100 | 0.1200 | 0.9100 | 20.0 | 1 w4a4, 1 w4a8 |" in text
    assert "| w8a8 |  | 0.2000 |" in text
