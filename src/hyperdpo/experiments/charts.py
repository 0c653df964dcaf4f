"""Interactive pictures of an experiment, as plain plotly figures; the page adds the colours of its theme.

A chart is a mapping with ``id``, ``title``, ``note``, ``figure`` ({``data``, ``layout``}), ``width`` (the rem it
would like) and ``least`` (pixels below which it scrolls).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from hyperdpo.experiments.figures import (
    COLOURS,
    GREY,
    MOST,
    SYMBOLS,
    THIRD,
    Chart,
    Point,
    base_star,
    curve,
    described,
    dots,
    look,
    padded,
    picture,
    weights_text,
)
from hyperdpo.experiments.results import temperature_fronts

#: Told apart by eyes of all kinds, and in print.
SCALE = "Viridis"
#: More objectives than this have too many pairs for panels.
MOST_PAIRED = 5


def charts(result: Mapping[str, Any]) -> list[Chart]:
    """Every chart of an experiment, in the order of its declaration."""
    found: list[Chart] = []
    for name in result["charts"]:
        if name == "sweep":
            found += sweep(result)
            continue
        for case in result["cases"]:
            found += CHARTS[name](case)
    for number, one in enumerate(found):
        one["id"] = f"chart{number}"
    return found


def fronts(case: Mapping[str, Any]) -> list[Chart]:
    """The fronts over the objectives, and the main metric."""
    comparison, names = case["comparison"], case["objectives"]
    drawn = [_plane(case)] if len(names) == 2 else [_profiles(case)]
    if 2 < len(names) <= MOST_PAIRED:
        drawn.append(_pairs(case))
    methods = comparison["methods"]
    if all(one["main_mean"] is not None for one in methods.values()):
        values = [one["main_mean"] for one in methods.values()]
        spreads = [one["main_sd"] for one in methods.values()]
        note = "Mean over the points of the front; the bar is the standard deviation over them."
        drawn.append(dots("Main objective", note, list(methods), values, spreads, mark=comparison["base"]["main"]))
    return drawn


def hypervolumes(case: Mapping[str, Any]) -> list[Chart]:
    """Hypervolume of each entry, without and with the main objective."""
    rows = case["rows"]
    drawn = []
    for key, title in (("hypervolume", "Hypervolume"), ("hypervolume_with_main", "Hypervolume with main")):
        if all(row[key] is not None for row in rows):
            note = "The bar is the standard deviation over seeds."
            labels, values, spreads = ([row[k] for row in rows] for k in ("label", key, f"{key}_sd"))
            drawn.append(dots(title, note, labels, values, spreads))
    return drawn


def relative(case: Mapping[str, Any]) -> list[Chart]:
    """Hypervolumes over their mean, beside the paper's over theirs."""
    rows = [row for row in case["rows"] if row["paper"] and "hypervolume" in row["paper"]]
    if not rows:
        return []
    labels = [row["label"] for row in rows]
    ours, papers = [row["hypervolume"] for row in rows], [row["paper"]["hypervolume"] for row in rows]
    mean, printed = sum(ours) / len(ours) or 1.0, sum(papers) / len(papers)
    series = (
        ("here", [v / mean for v in ours], [(row["hypervolume_sd"] or 0) / mean for row in rows], COLOURS[0], "circle"),
        ("paper", [v / printed for v in papers], None, COLOURS[1], "diamond"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": labels,
            "y": values,
            "line": {"color": colour},
            "marker": {"symbol": symbol, "size": 9, "color": colour},
            "error_y": {"type": "data", "array": errors, "visible": errors is not None},
            "hovertemplate": "%{x}: %{y:.4f}<extra>" + name + "</extra>",
        }
        for name, values, errors, colour, symbol in series
    ]
    layout = {"xaxis": {"title": {"text": ""}}, "yaxis": {"title": {"text": "hypervolume over the mean"}}}
    note = "Data sets differ in how large a hypervolume is; the effect of the setting shows in what is above the mean."
    return [picture("Effect on the hypervolume, here and in the paper", note, data, layout, width=THIRD)]


def scales(case: Mapping[str, Any]) -> list[Chart]:
    """Fronts at several scales c, the main metric as colour: one chart for each entry."""
    fans = {}
    for label, method in case["comparison"]["methods"].items():
        fan: dict[str, list[Point]] = {}
        for point in method["views"]["scales"]["points"] if "scales" in method["views"] else method["points"]:
            fan.setdefault(f"c = {point['scale']:g}", []).append(point)
        fans[label] = fan
    return _fans(case, fans)


def temperatures(case: Mapping[str, Any]) -> list[Chart]:
    """Fronts at several temperature vectors, the main metric as colour: one chart for each entry."""
    fans = {}
    for label, method in case["comparison"]["methods"].items():
        found = temperature_fronts(method)
        fans[label] = {f"β = ({', '.join(f'{b:g}' for b in betas)})": points for betas, points in found.items()}
    return _fans(case, fans)


def regret(case: Mapping[str, Any]) -> list[Chart]:
    """What each method loses at each w against the oracle."""
    comparison, names = case["comparison"], case["objectives"]
    methods = {label: one for label, one in comparison["methods"].items() if "oracle" in one}
    if not methods:
        return []
    pair = len(names) == 2
    data = []
    for number, (label, one) in enumerate(methods.items()):
        points = one["points"]
        data.append(
            {
                **look(number, label),
                "mode": "lines+markers" if pair else "markers",
                "x": [p["weights"][0] if pair else place for place, p in enumerate(points, 1)],
                "y": one["oracle"]["regret"],
                "text": [weights_text(p) for p in points],
                "hovertemplate": "%{text}<br>regret %{y:.4f}<extra>%{fullData.name}</extra>",
            }
        )
    x = f"weight of {names[0]}" if pair else "number of the weighting, single objectives first"
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": "regret"}, "rangemode": "tozero"}}
    note = "The weighted metric Σ w NDCG of a perfect model at the same temperature, less that of the method."
    return [picture("Regret at each weighting", note, data, layout)]


def sweep(result: Mapping[str, Any]) -> list[Chart]:
    """Cost and quality against what the cases differ in."""
    cases, by_groups = result["cases"], result["vary"] == "groups"
    titles = {
        "ratio": ("Hypervolume over that of DPO-LS", False),
        "ratio_with_main": ("Hypervolume with main over that of DPO-LS", False),
        "fraction": ("Part of the oracle's hypervolume", False),
        "fraction_with_main": ("Part of the oracle's hypervolume, with main", False),
        "train_seconds": ("Seconds of training", True),
        "parameters": ("Parameters", True),
    }
    drawn = []
    for key, (title, logarithmic) in titles.items():
        data = []
        for number, label in enumerate(row["label"] for row in cases[0]["rows"]):
            values = [next(row[key] for row in case["rows"] if row["label"] == label) for case in cases]
            if any(value is not None for value in values):
                hover = f"{'%{x:,} groups' if by_groups else 'm = %{x}'}: %{{y:.4g}}<extra>%{{fullData.name}}</extra>"
                x = [case["value"] for case in cases]
                data.append({**look(number, label), "x": x, "y": values, "hovertemplate": hover})
        x_axis: dict[str, Any] = {"title": {"text": "training groups" if by_groups else "objectives"}}
        x_axis |= {"type": "log" if by_groups else "linear", "tickvals": [case["value"] for case in cases]}
        y_axis: dict[str, Any] = {"title": {"text": ""}, "type": "log" if logarithmic else "linear"}
        if data:
            drawn.append(picture(title, "", data, {"xaxis": x_axis, "yaxis": y_axis}, width=THIRD))
    return drawn


def _plane(case: Mapping[str, Any]) -> Chart:
    """Two objectives: the fronts, as lines."""
    names, comparison = case["objectives"], case["comparison"]
    data = [trace for traces in _curves(case) for trace in traces]
    data.append(base_star(comparison["base"], *names))
    layout = {"xaxis": {"title": {"text": names[0]}}, "yaxis": {"title": {"text": names[1]}}}
    note = (
        "Up and right is better. Click an entry of the legend to hide or show it, double click to see it alone; "
        "the same models at 101 weightings are hidden at first."
    )
    return picture("Fronts", note, data, layout, width=MOST)


def _curves(case: Mapping[str, Any]) -> Iterator[list[Chart]]:
    """The traces of each method's front, and of the oracle's."""
    names, methods = case["objectives"], case["comparison"]["methods"]
    for number, (label, one) in enumerate(methods.items()):
        traces = [curve(one["points"], names, **look(number, label))]
        if "dense" in one["views"]:
            style = look(number, f"{label}, 101 weightings")
            del style["marker"]
            style |= {
                "mode": "lines",
                "visible": "legendonly",
                "line": {"color": style["line"]["color"], "dash": "dot"},
            }
            traces.append(curve(one["views"]["dense"]["points"], names, **style))
        yield traces
    if "oracle" in case:
        yield [curve(case["oracle"], names, name="oracle", mode="lines", line={"color": GREY, "dash": "dash"})]


def _profiles(case: Mapping[str, Any]) -> Chart:
    """Many objectives: a line for each weighting, over parallel axes."""
    names, comparison = case["objectives"], case["comparison"]
    with_main = comparison["base"]["main"] is not None
    axes = [*names, "main"] if with_main else list(names)
    data: list[dict[str, Any]] = []
    methods = {label: one["points"] for label, one in comparison["methods"].items()}
    for number, (label, points) in enumerate(methods.items()):
        x: list[str | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for point in points:  # one trace, broken between weightings
            x += [*axes, None]
            y += [*(point["metrics"][n] for n in names), *([point["main"]] if with_main else []), None]
            text += [described(point)] * len(axes) + [""]
        style = look(number, label)
        style["marker"] = {**style["marker"], "size": 6}
        style["line"] = {**style["line"], "width": 1}
        hover = "%{x}: %{y:.4f}<br>%{text}<extra>%{fullData.name}</extra>"
        data.append(
            {**style, "x": x, "y": y, "text": text, "opacity": 0.75, "connectgaps": False, "hovertemplate": hover}
        )
    base = {**comparison["base"]["metrics"], "main": comparison["base"]["main"]}
    data.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "base",
            "x": axes,
            "y": [base[a] for a in axes],
            "line": {"color": GREY, "dash": "dash"},
            "marker": {"symbol": "star", "size": 10, "color": GREY},
            "hovertemplate": "%{x}: %{y:.4f}<extra>base</extra>",
        }
    )
    layout = {"xaxis": {"title": {"text": ""}}, "yaxis": {"title": {"text": "NDCG"}}}
    note = "Each line is one weighting of one method. Double click an entry of the legend to see it alone."
    return picture("Every weighting over all objectives", note, data, layout)


def _pairs(case: Mapping[str, Any]) -> Chart:
    """A panel for each pair of objectives."""
    names, comparison = case["objectives"], case["comparison"]
    rows = len(names) - 1
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"height": 180 * rows + 120}
    room = 0.03
    for panel, (i, j) in enumerate(combinations(range(len(names)), 2), 1):
        x, y = f"x{panel}", f"y{panel}"
        row, column = j - 1, i
        left, top = column / rows, 1 - row / rows
        layout[f"xaxis{panel}"] = {
            "anchor": y,
            "domain": [left + (room if column else 0), (column + 1) / rows],
            "title": {"text": names[i] if row == rows - 1 else ""},
            "nticks": 4,
        }
        layout[f"yaxis{panel}"] = {
            "anchor": x,
            "domain": [1 - (row + 1) / rows + room, top],
            "title": {"text": names[j] if column == 0 else ""},
            "nticks": 4,
        }
        for number, (label, one) in enumerate(comparison["methods"].items()):
            style = look(number, label) | {"mode": "markers", "legendgroup": label, "showlegend": panel == 1}
            style["marker"] = {**style["marker"], "size": 7}
            data.append(curve(one["points"], (names[i], names[j]), **style) | {"xaxis": x, "yaxis": y})
        star = base_star(comparison["base"], names[i], names[j])
        data.append(star | {"xaxis": x, "yaxis": y, "legendgroup": "base", "showlegend": panel == 1})
    return picture("Pairs of objectives", "Up and right is better.", data, layout, least=760)


def _fans(case: Mapping[str, Any], fans: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[Chart]:
    """One chart for each method, with several fronts and the main metric as colour; all on the same axes."""
    names = case["objectives"][:2]
    points = [point for fan in fans.values() for front in fan.values() for point in front]
    mains = [point["main"] for point in points if point["main"] is not None]
    ranges = [padded([p["metrics"][name] for p in points if p["metrics"][name] is not None]) for name in names]
    drawn = []
    for label, fan in fans.items():
        data = []
        for number, (name, front) in enumerate(fan.items()):
            symbol = SYMBOLS[number % len(SYMBOLS)]
            marker: dict[str, Any] = {"size": 9, "symbol": symbol, "line": {"color": GREY, "width": 1}}
            if mains:
                marker |= {"color": [p["main"] for p in front], "coloraxis": "coloraxis"}
            style = {"name": name, "mode": "lines+markers", "line": {"color": GREY, "width": 1}, "legendgroup": name}
            data.append(curve(front, names, **style, marker=marker, showlegend=False))
            # The legend cannot show a colour that stands for a number: a point that is nowhere is grey there.
            data.append(
                {**style, "type": "scatter", "x": [None], "y": [None], "marker": {"symbol": symbol, "color": GREY}}
            )
        data.append(base_star(case["comparison"]["base"], *names))
        layout: dict[str, Any] = {
            "xaxis": {"title": {"text": names[0]}, "range": ranges[0]},
            "yaxis": {"title": {"text": names[1]}, "range": ranges[1]},
        }
        if mains:
            bar = {"title": {"text": "main"}, "thickness": 12, "outlinewidth": 0}
            layout["coloraxis"] = {"colorscale": SCALE, "cmin": min(mains), "cmax": max(mains), "colorbar": bar}
        drawn.append(picture(label, "", data, layout, width=THIRD))
    return drawn


CHARTS = {
    "front": fronts,
    "hypervolumes": hypervolumes,
    "relative": relative,
    "scales": scales,
    "temperatures": temperatures,
    "regret": regret,
}
