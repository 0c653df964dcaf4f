"""What rows of an experiment on language models have, and those of rankers do not: control, texts, steps, ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperdpo.comparison.paired import CONFIDENCE, RATIOS, Ratio, ratio_of_pair
from hyperdpo.comparison.spans import SpanRatio, span_ratios


def add_spans(rows: list[dict[str, Any]], comparison: Mapping[str, Any]) -> None:
    """Control over that of DPO-LS, and what texts say."""
    methods = comparison["methods"]
    reference = next((label for label, one in methods.items() if one["method"] == "dpo-ls"), None)
    least = comparison["settings"].get("least_span", 0.0)
    for row in rows:
        one = methods[row["label"]]
        ratios = {} if reference is None else span_ratios(comparison, row["label"], reference, least)
        for key, kind in (("span_ratio", "cross_entropy"), ("texts_span_ratio", "generated")):
            row[key], row[f"{key}_reason"] = ratios.get(kind, SpanRatio(None))
        pair = {} if reference is None else ratio_of_pair(comparison, row["label"], reference)
        row["intervals"] = {key: pair[key] for key in RATIOS if key in pair}
        row["span"] = list(one["control_span"].values())
        row["accuracy"] = accuracies(one)
        row["seeds"] = len(one["seeds"])
        row |= {key: one.get(key) for key in ("step_seconds", "step_processor_seconds")}
        texts = one.get("generated")
        if texts is None:
            continue
        row["texts"] = texts["hypervolume"]
        row["texts_span"] = list(texts["control_span"].values())
        row["texts_sd"] = texts["hypervolume_sd"] if len(one["seeds"]) > 1 else None
        if reference is not None:
            row["texts_ratio"] = 1.0 if row["label"] == reference else pair.get("texts_hypervolume", {}).get("value")
        row["rank_correlation"] = min(texts["rank_correlation"].values())
        row |= {key: texts[key] for key in ("inner_product", "inner_product_sd", "kl", "tokens", "tokens_per_second")}


def accuracies(method: Mapping[str, Any]) -> list[float]:
    """Of each objective at its own vertex: the share of the pairs of responses that the model orders as its label."""
    names = method["objectives"]
    points = {tuple(point["weights"]): point["accuracy"] for point in method["points"]}
    vertices = [tuple(float(i == j) for i in range(len(names))) for j in range(len(names))]
    return [points[vertex][name] for name, vertex in zip(names, vertices, strict=True) if vertex in points]


def with_interval(row: Mapping[str, Any], value: float | None, key: str) -> str:
    """A ratio to DPO-LS with its interval, where there is one.

    Args:
        key: one of :data:`RATIOS`.
    """
    known = row.get("intervals", {}).get(key)
    return str(Ratio(value, *(known[end] for end in ("low", "high")) if known else ()))


def ratio_columns(case: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The table of ratios as text: headings, with one cell per pair. Columns with nothing to say are left out."""
    pairs = case["comparison"].get("ratios", [])
    if not pairs:
        return []
    columns = [("method", [pair["of"] for pair in pairs]), ("over", [pair["to"] for pair in pairs])]
    columns += [
        (heading, [str(Ratio(**pair[key])) if key in pair else "-" for pair in pairs])
        for key, heading in RATIOS.items()
    ]
    columns.append(("seeds", [str(pair["repeats"]) for pair in pairs]))
    return [(heading, cells) for heading, cells in columns if set(cells) != {"-"}]


def ratios_explained() -> str:
    """What the intervals beside the ratios are."""
    return (
        f"Ratios with {CONFIDENCE:.0%} intervals from a paired bootstrap: both methods on the same draws of the "
        "held-out prompts. They do not tell how much luck there is in a training's seed."
    )


def missing_ratios(case: Mapping[str, Any]) -> list[str]:
    """Why a ratio is missing, each reason once."""
    told = {
        f"No ratio of {heading}: {pair[key]['reason']}."
        for pair in case["comparison"].get("ratios", [])
        for key, heading in RATIOS.items()
        if key in pair and pair[key]["reason"]
    }
    return sorted(told)
