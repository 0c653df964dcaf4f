"""Pictures of an experiment on language models, as plain plotly figures, see :mod:`hyperdpo.experiments.charts`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from hyperdpo.experiments.figures import FULL, GREY, MOST, THIRD, Chart, base_star, curve, dots, look, picture


def language_charts(result: Mapping[str, Any]) -> list[Chart]:
    """Every chart of an experiment, in the order of its declaration."""
    (case,) = result["cases"]
    found = [chart for name in result["charts"] for chart in CHARTS[name](case)]
    for number, one in enumerate(found):
        one["id"] = f"chart{number}"
    return found


def fronts(case: Mapping[str, Any]) -> list[Chart]:
    """Cross-entropy errors of each pair of objectives."""
    comparison = case["comparison"]
    methods = {label: one["points"] for label, one in comparison["methods"].items()}
    note = "Down and left is better. Click an entry of the legend to hide or show it, double click to see it alone."
    return _pairs(case, "Fronts, cross-entropy error", note, methods, comparison["base"])


def texts(case: Mapping[str, Any]) -> list[Chart]:
    """Mean scores of sampled texts."""
    comparison = case["comparison"]
    methods = comparison["methods"]
    if not all("generated" in one for one in methods.values()):
        return []
    points = {
        label: [
            {**point, "metrics": scores, "metrics_sd": {}}
            for point, scores in zip(one["points"], one["generated"]["points"], strict=True)
        ]
        for label, one in methods.items()
    }
    base = {"metrics": comparison["base"]["generated"], "main": None}
    note = "The mean over sampled continuations of held-out prompts, the same prompts and random numbers for all."
    return _pairs(case, "Fronts, scores of sampled texts", note, points, base)


def hypervolumes(case: Mapping[str, Any]) -> list[Chart]:
    """Hypervolume of each entry, of the errors and of the texts."""
    methods = case["comparison"]["methods"]
    labels = list(methods)
    note = "The bar is the standard deviation over seeds."

    def drawn(title: str, found: list[Mapping[str, Any]]) -> Chart:
        return dots(title, note, labels, [f["hypervolume"] for f in found], [f["hypervolume_sd"] for f in found])

    charts = [drawn("Hypervolume, cross-entropy error", list(methods.values()))]
    if all("generated" in one for one in methods.values()):
        charts.append(drawn("Hypervolume, texts", [one["generated"] for one in methods.values()]))
    return charts


def spans(case: Mapping[str, Any]) -> list[Chart]:
    """Control spans over those of DPO-LS; as they are, where these are no reference or are not there."""
    rows, note = case["rows"], "Each objective's metric at its own vertex less that at the others'"
    labels = [row["label"] for row in rows]
    charts = []
    for key, what, unit in (("span", "cross-entropy error", " (nats)"), ("texts_span", "texts", "")):
        if any(row.get(key) is None for row in rows):
            continue
        values = [row[f"{key}_ratio"] for row in rows]
        if None in values:
            values = [sum(row[key]) / len(row[key]) for row in rows]
            why = "DPO-LS is not among the entries" if rows[0][f"{key}_ratio_reason"] is None else "see the table"
            drawn = f"{note}, mean over objectives{unit}. No ratio to DPO-LS's: {why}. 0: w is ignored."
        else:
            drawn = f"{note}, over DPO-LS's; 0: w is ignored."
        charts.append(dots(f"Control, {what}", drawn, labels, values, [None] * len(rows)))
    return charts


def deviations(case: Mapping[str, Any]) -> list[Chart]:
    """Quartiles of how far the log-likelihood of responses moved from the base."""
    data = []
    for number, (label, one) in enumerate(case["comparison"]["methods"].items()):
        low, middle, high = zip(*(point["deviation_quartiles"] for point in one["points"]), strict=True)
        x = list(range(1, len(middle) + 1))
        style = look(number, label)
        errors = {
            "type": "data",
            "symmetric": False,
            "array": [h - m for h, m in zip(high, middle, strict=True)],
            "arrayminus": [m - b for m, b in zip(middle, low, strict=True)],
        }
        data.append({**style, "x": [place + 0.06 * number for place in x], "y": list(middle), "error_y": errors})
    layout = {
        "xaxis": {"title": {"text": "number of the weighting"}},
        "yaxis": {"title": {"text": "s - s_base (nats)"}, "zerolinecolor": GREY},
    }
    note = "Median and quartiles over all held-out responses: the inset of the paper's Figure 4, at each weighting."
    return [picture("Deviation from the base", note, data, layout, width=FULL)]


def _pairs(
    case: Mapping[str, Any], title: str, note: str, methods: Mapping[str, Any], base: Mapping[str, Any]
) -> list[Chart]:
    names, drawn = case["objectives"], []
    for i, j in combinations(range(len(names)), 2):
        data = [
            curve(points, (names[i], names[j]), **look(number, label))
            for number, (label, points) in enumerate(methods.items())
        ]
        if len(names) > 2:
            for trace in data:
                trace["mode"] = "markers"
        data.append(base_star(base, names[i], names[j]))
        layout = {"xaxis": {"title": {"text": names[i]}}, "yaxis": {"title": {"text": names[j]}}}
        drawn.append(picture(title, note, data, layout, width=MOST if len(names) == 2 else THIRD))
    return drawn


CHARTS = {
    "front": fronts,
    "texts": texts,
    "hypervolumes": hypervolumes,
    "spans": spans,
    "deviations": deviations,
}
