"""Interactive pages, each one file that needs no network: sensitivities by layer and width, and the front of widths."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quartic.files import write_text

if TYPE_CHECKING:
    from quantizer.sensitivity import Sensitivity
    from quartic.assigned import Point

UNITS = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}


def sensitivity_figure(found: Sensitivity) -> Any:
    """A map of the losses, on a logarithmic scale: a row per layer, a column per width."""
    from plotly import graph_objects as go

    rows = [[_decades(layer.losses.get(width)) for width in found.widths] for layer in found.layers]
    names = [layer.module or "(root)" for layer in found.layers]
    figure = go.Figure(go.Heatmap(z=rows, x=list(found.widths), y=names, colorbar={"title": f"log10 {found.by} loss"}))
    figure.update_layout(title=f"Loss when one layer alone is quantized, by {found.by}", height=200 + 16 * len(names))
    figure.update_yaxes(autorange="reversed")
    return figure


def _decades(loss: float | None) -> float | None:
    return log10(loss) if loss is not None and loss > 0 else None


def front_figure(points: Sequence[Point], by: str, title: str, loss: str = "predicted loss") -> Any:
    """Predicted loss against predicted latency or energy, and the simulated cost of the points that were simulated.

    Losses are on a logarithmic scale, which has no 0: points without a loss lie a decade below all others, and say so.
    """
    from plotly import graph_objects as go

    unit, scale = UNITS[by]
    field = "latency_seconds" if by == "latency" else "energy_joules"
    some = [p.predicted_loss for p in points if p.predicted_loss > 0]
    floor = min(some, default=0.0) / 10
    figure = go.Figure(
        go.Scatter(
            x=[scale * getattr(p.predicted, field) for p in points],
            y=[p.predicted_loss or floor for p in points],
            text=["<br>".join([*_none(p), *(f"{m or '(root)'}: {w}" for m, w in p.widths.items())]) for p in points],
            mode="lines+markers",
            name="predicted",
        )
    )
    known = [p for p in points if p.simulated is not None]
    figure.add_scatter(
        x=[scale * getattr(p.simulated, field) for p in known],
        y=[p.predicted_loss or floor for p in known],
        text=["<br>".join([*_none(p), f"output SQNR {p.sqnr_db:.1f} dB"]) for p in known],
        mode="markers",
        marker={"symbol": "x", "size": 10},
        name="simulated",
    )
    said = f"{loss} (0 is drawn at {floor:.1g})" if some and len(some) < len(points) else loss
    figure.update_layout(title=title, xaxis_title=f"{by} in {unit}", yaxis_title=said)
    if some:
        figure.update_yaxes(type="log")
    return figure


def _none(point: Point) -> list[str]:
    return [] if point.predicted_loss else ["no loss"]


def save(figure: Any, path: Path) -> None:
    """Write a figure as one page, whole or not at all."""
    write_text(path, figure.to_html(include_plotlyjs=True, full_html=True))
