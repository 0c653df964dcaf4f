"""Building blocks of the pictures: plain plotly traces, and how the methods look in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperdpo.plots import COLOURS as SHARED_COLOURS
from hyperdpo.printing import four_digits

Chart = dict[str, Any]
Point = Mapping[str, Any]

#: How many rem a picture would like to have; a row is filled with what fits.
FULL, MOST, THIRD = 70, 44, 22
#: The last shared colour is black, which a dark page would hide; grey is that of what is no method.
COLOURS = (*SHARED_COLOURS[:6], "#A6761D")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "cross")
GREY = "#888888"


def picture(
    title: str,
    note: str,
    data: list[dict[str, Any]],
    layout: Mapping[str, Any],
    *,
    width: int = FULL,
    least: int = 0,
) -> Chart:
    return {
        "title": title,
        "note": note,
        "figure": {"data": data, "layout": dict(layout)},
        "width": width,
        "least": least,
    }


def look(number: int, label: str) -> dict[str, Any]:
    """How the method with that number looks, in every chart."""
    turn, place = divmod(number, len(COLOURS))  # the symbol moves on by one more with each round of colours
    colour = COLOURS[place]
    marker = {"color": colour, "symbol": SYMBOLS[(place + turn) % len(SYMBOLS)], "size": 8}
    return {"type": "scatter", "mode": "lines+markers", "name": label, "line": {"color": colour}, "marker": marker}


def base_star(base: Mapping[str, Any], x: str, y: str) -> dict[str, Any]:
    main = "" if base["main"] is None else f"<br>main: {base['main']:.4f}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "base",
        "x": [base["metrics"][x]],
        "y": [base["metrics"][y]],
        "marker": {"symbol": "star", "size": 13, "color": GREY},
        "hovertemplate": f"{x}: %{{x:.4f}}<br>{y}: %{{y:.4f}}{main}<extra>base</extra>",
    }


def weights_text(point: Point) -> str:
    return f"w = ({', '.join(f'{w:.3g}' for w in point['weights'])})"


def described(point: Point) -> str:
    """What hovering shows: weights, scale, temperatures, metrics ± sd and main."""
    where = f"{weights_text(point)}, c = {point['scale']:g}, β = ({', '.join(f'{b:g}' for b in point['temperature'])})"
    sds = point.get("metrics_sd", {})
    lines = [where, *(_value(name, value, sds.get(name)) for name, value in point["metrics"].items())]
    return "<br>".join([*lines, _value("main", point["main"], point.get("main_sd"))])


def _value(name: str, value: float | None, sd: float | None) -> str:
    if value is None:
        return f"{name}: -"
    return f"{name}: {value:.4f}" + (f" ± {sd:.4f}" if sd is not None else "")


def padded(values: Sequence[float]) -> list[float] | None:
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.01
    return [low - room, high + room]


def dots(
    title: str,
    note: str,
    labels: Sequence[str],
    values: Sequence[float],
    spreads: Sequence[float | None],
    mark: float | None = None,
) -> Chart:
    """A dot with an error bar for each entry, first on top; ``mark`` is the base's value."""
    known = zip(values, spreads, strict=True)
    texts = [four_digits(value) + ("" if sd is None else f" ± {sd:.2g}") for value, sd in known]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(values),
            "y": list(labels),
            "marker": {
                "size": 10,
                "color": [COLOURS[k % len(COLOURS)] for k in range(len(labels))],
                "symbol": [SYMBOLS[k % len(SYMBOLS)] for k in range(len(labels))],
            },
            "error_x": {"type": "data", "array": [s or 0 for s in spreads], "color": GREY, "thickness": 1.5},
            "text": texts,
            "hovertemplate": "%{y}: %{text}<extra></extra>",
            "showlegend": False,
        }
    ]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": ""}},
        "yaxis": {"autorange": "reversed", "automargin": True},
        "height": 110 + 36 * len(labels),
    }
    if mark is not None:
        line = {"color": GREY, "dash": "dash", "width": 1}
        layout["shapes"] = [{"type": "line", "x0": mark, "x1": mark, "yref": "paper", "y0": 0, "y1": 1, "line": line}]
        note += f" The dashed line is the base: {four_digits(mark)}."
        # An invisible point keeps the line within the axis.
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [mark],
                "y": [labels[0]],
                "marker": {"opacity": 0},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    return picture(title, note, data, layout, width=THIRD)


def curve(points: Sequence[Point], names: Sequence[str], **style: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [p["metrics"][names[0]] for p in points],
        "y": [p["metrics"][names[1]] for p in points],
        "text": [described(p) for p in points],
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        **style,
    }
