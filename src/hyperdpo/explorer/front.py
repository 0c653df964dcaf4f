"""The front as a plotly figure: curve or cloud, other scales, base, pinned and current points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hyperdpo.core.point import Point
from hyperdpo.plots import COLOURS
from hyperdpo.printing import four_digits

GREY = "#888888"
#: Readable for colour-blind eyes, and in print.
SCALE = "Viridis"


@dataclass(frozen=True)
class Front:
    """A run's points on one split."""

    name: str
    """The run's name."""
    points: tuple[Point, ...]
    values: np.ndarray
    """(P, K)."""
    base: np.ndarray
    """(K,)."""


@dataclass(frozen=True)
class Marks:
    """A run's current point: one for each run, or for each column of a language model."""

    name: str
    run: int
    """Which front it belongs to."""
    value: np.ndarray
    """(K,)."""
    curve: np.ndarray | None = None
    """(C, K): metrics of its weights at growing scales, the base last."""


def figure(
    fronts: Sequence[Front],
    marks: Sequence[Marks],
    names: Sequence[str],
    objectives: tuple[str, ...],
    axes: tuple[int, int],
    *,
    colour: int | None = None,
    pinned: np.ndarray | None = None,
    larger_is_better: Sequence[bool],
) -> dict[str, Any]:
    """Traces in this order: a front for each run, a base for each run, pinned, then curve and current of each mark.

    Args:
        names: the K metrics.
        axes: which metrics are drawn.
        colour: a metric that colours the points of a single front.
        pinned: (K,) or None.
        larger_is_better: (K,).
    """
    x, y = axes
    joined = len(objectives) == 2 and set(axes) <= {0, 1}
    two, several = len(fronts) > 1, len(marks) > 1
    data: list[dict[str, Any]] = []
    for number, front in enumerate(fronts):
        tint: Any = COLOURS[number]
        marker: dict[str, Any] = {"size": 8, "color": tint, "symbol": ("circle", "square")[number % 2]}
        if colour is not None and not two:
            bar = {"title": {"text": _text(names[colour]), "side": "right"}, "thickness": 10, "outlinewidth": 0}
            marker |= {"color": _list(front.values[:, colour]), "colorscale": SCALE, "colorbar": bar}
        texts = [hover(point, front.values[p], names, objectives) for p, point in enumerate(front.points)]
        trace = _scatter(front.name if two else "front, c = 1", front.values, axes, marker=marker)
        line = {"color": tint, "width": 2}
        trace |= {"mode": "lines+markers" if joined else "markers", "line": line}
        data.append(trace | {"text": texts, "hovertemplate": "%{text}<extra></extra>"})
    for number, front in enumerate(fronts):
        marker = {"symbol": ("star", "star-square")[number % 2], "size": 13, "color": GREY}
        about = _about(hover(None, front.base, names, objectives))
        data.append(_scatter(f"base of {front.name}" if two else "base", front.base, axes, marker=marker, **about))
    here = {"symbol": "diamond-open", "size": 14, "color": GREY, "line": {"width": 2}}
    data.append(_scatter("pinned", pinned, axes, marker=here, **_about("pinned point")))
    for mark in marks:
        tint = COLOURS[mark.run] if two else COLOURS[1]
        curve = _scatter(f"other scales, {mark.name}" if several else "other scales", mark.curve, axes)
        line = {"color": tint, "width": 1.5, "dash": "dot"}
        data.append(curve | {"mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": not several})
        ring = {"symbol": "circle-open", "size": 18, "color": tint, "line": {"width": 3.5}}
        about = _about(_text(mark.name))
        dot = _scatter(f"now, {mark.name}" if several else "now", mark.value, axes, marker=ring, **about)
        if len(mark.name) == 1:  # the letter of an answer
            dot |= {"mode": "markers+text", "text": [_text(mark.name)], "textposition": "top center"}
        data.append(dot)
    better = ["higher is better" if larger else "lower is better" for larger in larger_is_better]
    layout: dict[str, Any] = {
        "xaxis": _axis(f"{names[x]} ({better[x]})"),
        "yaxis": _axis(f"{names[y]} ({better[y]})"),
        "margin": {"l": 62, "r": 12, "t": 8, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "uirevision": f"{x},{y}",
    }
    return {"data": data, "layout": layout, "config": {"displaylogo": False, "displayModeBar": False}}


def first_mark(fronts: int) -> int:
    """The trace with which the marks begin: curve, then point, of each."""
    return 2 * fronts + 1


def xy(values: np.ndarray | None, axes: tuple[int, int]) -> dict[str, list[float | None]]:
    """The coordinates of (K,) or (P, K) values; empty for None."""
    if values is None:
        return {"x": [], "y": []}
    rows = np.atleast_2d(values)
    return {"x": _list(rows[:, axes[0]]), "y": _list(rows[:, axes[1]])}


def hover(point: Point | None, values: np.ndarray, names: Sequence[str], objectives: tuple[str, ...]) -> str:
    """The text of a point of the front, under the mouse."""
    lines = ["base" if point is None else point.describe(objectives)]
    lines += [f"{name}: {four_digits(None if np.isnan(v) else v)}" for name, v in zip(names, values, strict=True)]
    return "<br>".join(map(_text, lines))


def _scatter(name: str, values: np.ndarray | None, axes: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": _text(name), **xy(values, axes), **more}


def _about(text: str) -> dict[str, str]:
    """What is shown where the mouse is."""
    return {"hovertemplate": f"{text}<br>%{{x:.4f}}, %{{y:.4f}}<extra></extra>"}


def _axis(title: str) -> dict[str, Any]:
    grid = "rgba(136,136,136,0.25)"
    return {"title": {"text": _text(title)}, "gridcolor": grid, "zeroline": False, "automargin": True}


def _text(text: str) -> str:
    """A text without tags, which plotly would read."""
    return escape(text, quote=False)


def _list(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if np.isnan(v) else float(v) for v in values]
