"""What an experiment found, as rows of a table, beside the paper's figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.comparison.summary import mean_and_sd
from hyperdpo.errors import counted
from hyperdpo.experiments.experiment import Figures
from hyperdpo.experiments.language_rows import missing_ratios, ratio_columns, ratios_explained, with_interval
from hyperdpo.printing import console

#: Queries of MSLR-WEB10K, and feature columns.
PAPER_GROUPS, PAPER_FEATURES = 10_000, 136
#: Averages of a comparison that a row takes over, with their standard deviations over repeats.
TAKEN = ("hypervolume", "hypervolume_with_main", "main_mean", "train_seconds")


def case_of(
    comparison: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, name: str = "", value: int | None = None
) -> dict[str, Any]:
    """One of the ``cases`` of ``NAME.json``.

    Args:
        comparison: the content of ``compare.json``.
        rows: of the table.
        value: of what the cases differ in.
    """
    first = next(iter(comparison["methods"].values()))
    return {
        "name": name,
        "value": value,
        "objectives": list(first["objectives"]),
        "groups": comparison["repeats"][0]["groups"],
        "rows": rows,
        "comparison": comparison,
    }


def table_rows(comparison: Mapping[str, Any], paper: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """One row per method.

    Returns:
        Rows with ``label``, ``method``, the averages and ``_sd`` over repeats of ``hypervolume``,
        ``hypervolume_with_main``, ``main_mean``, ``train_seconds``; ``main_sd`` (over the points of a front),
        ``models``, ``parameters``, ``epochs``, ``epochs_allowed``; ``ratio`` and ``ratio_with_main`` (hypervolumes over
        those of DPO-LS); ``dense`` (hypervolume of the same model at 101 weightings); ``fraction`` and
        ``fraction_with_main``, of the oracle's hypervolume, ``regret`` (mean over weightings); ``gap`` (where fronts at
        several temperatures should meet); ``paper``: the paper's figures, and its ``ratio``. None where there is
        nothing, such as a deviation of one repeat.
    """
    methods = comparison["methods"]
    reference: Mapping[str, Any] = next((one for one in methods.values() if one["method"] == "dpo-ls"), {})
    printed_reference = next(
        (paper[label] for label, one in methods.items() if one is reference and label in paper), {}
    )

    def ratio(own: float | None, other: float | None) -> float | None:
        return own / other if own is not None and other else None

    def on_the_same(one: Mapping[str, Any], key: str) -> float | None:
        """The reference's mean over the repeats that the method has."""
        own, others = one["seeds"], reference.get("seeds", ())
        if len(own) == len(others) or not others:
            return reference.get(key)
        names = {seed["repeat"] for seed in own}
        return mean_and_sd([seed[key] for seed in others if seed["repeat"] in names])[0]

    rows = []
    for label, one in methods.items():
        oracle = one.get("oracle", {})
        row: dict[str, Any] = {"label": label, "method": one["method"]}
        for key in TAKEN:
            row[key], row[f"{key}_sd"] = one[key], one[f"{key}_sd"]
        row |= {key: one[key] for key in ("main_sd", "models", "parameters", "epochs")}
        row["epochs_allowed"] = one.get("epochs_allowed")  # of rankers
        row |= {
            "ratio": ratio(one["hypervolume"], on_the_same(one, "hypervolume")),
            "ratio_with_main": ratio(one["hypervolume_with_main"], on_the_same(one, "hypervolume_with_main")),
            "dense": one["views"].get("dense", {}).get("hypervolume"),
            "fraction": oracle.get("fraction"),
            "fraction_with_main": oracle.get("fraction_with_main"),
            "regret": float(np.mean(oracle["regret"])) if oracle else None,
            "gap": meeting_gap(one),
        }
        printed: dict[str, float | None] = dict(paper.get(label, {}))
        if "hypervolume" in printed and printed_reference:
            printed["ratio"] = ratio(printed["hypervolume"], printed_reference["hypervolume"])
        row["paper"] = printed or None
        rows.append(row)
    return rows


def temperature_fronts(method: Mapping[str, Any]) -> dict[tuple[float, ...], Sequence[Mapping[str, Any]]]:
    """The points of each temperature vector that a method was asked at, its own first."""
    fronts = {tuple(method["points"][0]["temperature"]): method["points"]}
    for name, view in method["views"].items():
        if name.startswith("temperature "):
            fronts[tuple(view["points"][0]["temperature"])] = view["points"]
    return fronts


def meeting_gap(method: Mapping[str, Any]) -> float | None:
    """How far apart fronts lie where they should meet.

    With all weight on objective j only β_j counts, so the fronts of two temperature vectors that share it have that
    point in common. The mean distance between such points in the auxiliary metrics; None where nothing should meet.
    """
    fronts, gaps = temperature_fronts(method), []
    for (first, ours), (second, theirs) in combinations(fronts.items(), 2):
        for j in range(len(first)):
            if first[j] == second[j]:
                ends = [next((p for p in points if p["weights"][j] == 1), None) for points in (ours, theirs)]
                if all(end is not None and None not in end["metrics"].values() for end in ends):
                    a, b = ([end["metrics"][n] for n in method["objectives"]] for end in ends if end is not None)
                    gaps.append(float(np.linalg.norm(np.subtract(a, b))))
    return float(np.mean(gaps)) if gaps else None


def describe_data(data: Path, repeats: Sequence[RankRepeat], generated: bool, *, paper_preset: bool) -> dict[str, Any]:
    """Which data this is, by its name without the path, and whether the paper's is another."""
    parts, name = repeats[0].parts, data.resolve().name
    folds = len({(one.parts["test"].table.fingerprint, one.parts["test"].groups.tobytes()) for one in repeats})
    groups = {part_name: len(part.groups) for part_name, part in parts.items()}
    total, width = sum(groups.values()), len(parts["train"].table.columns)
    counts = ", ".join(f"{number:,} {part}" for part, number in groups.items())
    if generated:
        differs = "These are generated data, not the paper's MSLR-WEB10K: compare orders and shapes, not values."
    elif not paper_preset:
        differs = "These are not the paper's data and objectives: compare orders and shapes, not values."
    elif total != PAPER_GROUPS or width < PAPER_FEATURES:
        differs = (
            f"The paper's data set, MSLR-WEB10K, has {PAPER_GROUPS:,} groups; this one has {total:,}: "
            "compare orders and shapes, not values."
        )
    else:
        differs = None
    return {
        "source": name,
        "description": f"{name}: {counts} groups{f', in {folds} folds' if folds > 1 else ''}",
        "groups": groups,
        "generated": generated,
        "differs": differs,
    }


def columns(result: Mapping[str, Any], case: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The table of a case as text: headings, with one cell per row. Columns with nothing to say are left out."""
    rows = case["rows"]
    paper = [row["paper"] or {} for row in rows]
    yield "method", [row["label"] for row in rows]
    yield "hypervolume", [spread(row["hypervolume"], row["hypervolume_sd"]) for row in rows]
    yield "paper: hypervolume", [figure(p.get("hypervolume")) for p in paper]
    yield "over DPO-LS", [with_interval(row, row["ratio"], "hypervolume") for row in rows]
    yield "paper: over DPO-LS", [ratio_text(p.get("ratio")) for p in paper]
    yield "with main", [spread(row["hypervolume_with_main"], row["hypervolume_with_main_sd"]) for row in rows]
    yield "over DPO-LS, with main", [ratio_text(row["ratio_with_main"]) for row in rows]
    yield "main (± over points)", [spread(row["main_mean"], row["main_sd"]) for row in rows]
    yield "paper: main", [spread(p.get("main_mean"), p.get("main_sd")) for p in paper]
    yield "control span over DPO-LS", [with_interval(row, row.get("span_ratio"), "control_span") for row in rows]
    yield "control spans", [each(row.get("span"), ".3f") for row in rows]
    yield "pairs in order, each objective at its vertex", [each(row.get("accuracy"), ".3f") for row in rows]
    yield "texts: hypervolume", [spread(row.get("texts"), row.get("texts_sd")) for row in rows]
    yield "texts: over DPO-LS", [with_interval(row, row.get("texts_ratio"), "texts_hypervolume") for row in rows]
    spans = [with_interval(row, row.get("texts_span_ratio"), "texts_control_span") for row in rows]
    yield "texts: control span over DPO-LS", spans
    yield "texts: least rank correlation", [figure(row.get("rank_correlation"), 3) for row in rows]
    yield "texts: mean inner product", [spread(row.get("inner_product"), row.get("inner_product_sd")) for row in rows]
    yield "texts: KL to the base along w (nats)", [each(row.get("kl"), ".2f") for row in rows]
    yield "texts: tokens along w", [each(row.get("tokens"), ".1f") for row in rows]
    yield "texts: tokens per second", [figure(row.get("tokens_per_second")) for row in rows]
    yield "seconds", [f"{row['train_seconds']:,.1f}" for row in rows]
    yield "seconds per step", [figure(row.get("step_seconds"), 3) for row in rows]
    yield "processor seconds per step", [figure(row.get("step_processor_seconds"), 3) for row in rows]
    yield "paper: seconds", ["-" if "train_seconds" not in p else f"{p['train_seconds']:,.0f}" for p in paper]
    yield "models", [f"{row['models']:,.0f}" for row in rows]
    yield "parameters", [f"{row['parameters']:,.0f}" for row in rows]
    yield "paper: parameters", ["-" if "parameters" not in p else f"{p['parameters']:,.0f}" for p in paper]
    yield "epochs (allowed)", [epochs_text(row["epochs"], row.get("epochs_allowed")) for row in rows]
    yield "of the oracle", [percent(row["fraction"]) for row in rows]
    yield "of the oracle, with main", [percent(row["fraction_with_main"]) for row in rows]
    yield "mean regret", [figure(row["regret"], 3) for row in rows]
    yield "at 101 weightings", [spread(row["dense"], None) for row in rows]
    yield "gap where fronts should meet", [figure(row["gap"], 3) for row in rows]
    seeds = [str(row.get("seeds", "-")) for row in rows]
    yield "seeds", seeds if len(set(seeds)) > 1 else ["-"] * len(rows)


def table(result: Mapping[str, Any], case: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The columns that say something."""
    return [(heading, cells) for heading, cells in columns(result, case) if set(cells) != {"-"}]


def missing(case: Mapping[str, Any]) -> list[str]:
    """Why a cell of the table has a dash where a ratio would be, each reason once."""
    told = {
        f"No ratio of control spans{where}: {row[key]}."
        for row in case["rows"]
        for key, where in (("span_ratio_reason", ""), ("texts_span_ratio_reason", " in texts"))
        if row.get(key)
    }
    return sorted(told)


def print_result(result: Mapping[str, Any]) -> None:
    """The tables, on stdout."""
    from rich.table import Table

    terminal = console(120)
    terminal.print(f"{result['title']}\n{facts(result)}", highlight=False)
    for case in result["cases"]:
        found = table(result, case)
        labels = found[0][1]
        # Too many columns for a terminal: methods side by side instead, a line for each quantity.
        shown = Table(title=case["name"] or None, title_justify="left")
        shown.add_column("")
        for label in labels:
            shown.add_column(label, justify="right", overflow="fold")
        for heading, cells in found[1:]:
            shown.add_row(heading, *cells)
        terminal.print(shown)
        for line in missing(case):
            terminal.print(line, highlight=False)
        if ratios := ratio_columns(case):
            shown = Table(title=ratios_explained(), title_justify="left")
            for heading, _ in ratios:
                shown.add_column(heading, overflow="fold", justify="left" if heading in ("method", "over") else "right")
            for row in zip(*(cells for _, cells in ratios), strict=True):
                shown.add_row(*row)
            terminal.print(shown)
            for line in missing_ratios(case):
                terminal.print(line, highlight=False)
    if result["data"]["differs"]:
        terminal.print(result["data"]["differs"], highlight=False)


def facts(result: Mapping[str, Any]) -> str:
    """Data, metric, temperatures and seeds, on one line."""
    seeds = len(result["seeds"])
    betas = result["temperatures"]
    temperatures = ", ".join(f"{b:g}" for b in betas)
    temperatures = f"β = {betas[0]:g} for every objective" if len(set(betas)) == 1 else f"β = ({temperatures})"
    return (
        f"{result['data']['description']}; {result['metric']['description']}; {temperatures}; "
        f"{counted(result['points'], 'weighting')}; {counted(seeds, 'seed')}"
    )


def figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:#.{digits}g}".removesuffix(".")


def spread(value: float | None, sd: float | None) -> str:
    """Mean ± standard deviation, both to the place that gives the mean four digits."""
    if value is None:
        return "-"
    places = 3 - math.floor(math.log10(abs(value))) if value else 4
    return f"{value:.{places}f}" + ("" if sd is None else f" ± {sd:.{places}f}")


def each(values: Sequence[float] | None, form: str) -> str:
    """Several numbers in one cell."""
    return ", ".join(f"{value:{form}}" for value in values or ()) or "-"


def ratio_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def epochs_text(run: float | None, allowed: int | None) -> str:
    return "-" if run is None else f"{run:.3g}" + ("" if allowed is None else f" ({allowed})")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
