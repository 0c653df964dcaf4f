"""The tables that ``rank`` commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from hyperdpo.core.point import SUM_TOLERANCE
from hyperdpo.errors import counted
from hyperdpo.printing import console, four_digits
from hyperdpo.ranking.data_report import FeatureReport
from hyperdpo.ranking.explanation import Explanation
from hyperdpo.ranking.run import RankRun

#: Features that are printed for each column and pair of documents.
MOST_FEATURES = 3


def print_front(result: Mapping[str, Any]) -> None:
    """The content of ``FRONT.json`` as a table on stdout."""
    names = result["objectives"]
    data = result["data"]
    table = Table(
        title=f"{result['metric']['description']}, {data['split']} groups: {data['groups']}", title_justify="left"
    )
    shares = ["share"] if "main_share" in result["points"][0] else []
    for heading in ("weights", *shares, "scale", *names, "main"):
        table.add_column(heading, justify="right", overflow="fold")

    def row(point: Mapping[str, Any], *where: str) -> None:
        table.add_row(*where, *(_figure(point["metrics"][n]) for n in names), _figure(point["main"]))

    row(result["base"], "base", *("" for _ in shares), "")
    for point in result["points"]:
        share = (f"{point['main_share']:g}" for _ in shares)
        row(point, written_weights(point["weights"]), *share, f"{point['scale']:g}")
    terminal = console(120)
    terminal.print(table)
    terminal.print(
        f"hypervolume {four_digits(result['hypervolume'])}, with main {four_digits(result['hypervolume_with_main'])} "
        f"(reference {result['reference_point']}); {result['parameters']:,} parameters, "
        f"trained in {result['train_seconds']:.1f} s",
        highlight=False,
    )
    for name, how in data["corrected"].items():
        terminal.print(f"{name}: measured on clicks, {how}", highlight=False)
    if "oracle" in result:
        oracle = result["oracle"]
        terminal.print(
            f"of the attainable front: {_percent(oracle['fraction'])}, with main "
            f"{_percent(oracle['fraction_with_main'])} "
            f"(oracle hypervolume {four_digits(oracle['hypervolume'])}, with main "
            f"{four_digits(oracle['hypervolume_with_main'])})",
            highlight=False,
        )
    if "calibration" in result:
        _print_calibration(result["calibration"])


def _print_calibration(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Predicted and observed gain of the tenths of the items."""
    title = "mean gain, predicted and observed, by tenths of the prediction"
    table = Table("", *found, title=title, title_justify="left")
    for number in range(max(map(len, found.values()), default=0)):
        rows = (one[number] if number < len(one) else None for one in found.values())
        cells = ("" if row is None else f"{row['predicted']:.4f} {row['observed']:.4f}" for row in rows)
        table.add_row(str(number + 1), *cells)
    console(120).print(table)


def print_explanation(found: Explanation, top: int) -> None:
    """Two rows for each of the first documents: what its sum is made of, and its lead over the next."""
    documents = found.to_dict()["documents"]
    share = "" if found.main_share is None else f", main share {found.main_share:g}"
    point = ", ".join(f"{name} {w:g}" for name, w in zip(found.objectives, found.weights.tolist(), strict=True))
    title = f"query {found.query}, {counted(len(documents), 'document')}: {point}{share}, scale {found.scale:g}"
    table = Table(title=title, title_justify="left")
    for heading in ("#", "row", "", *found.names):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    table.add_column("swaps with the next at", overflow="fold")
    if found.trees is not None:
        table.add_column(f"features ({', '.join(sorted(set(found.trees.spaces.values())))})", overflow="fold")
    for one in documents[:top]:
        table.add_row(str(one["place"]), str(one["row"]), "sum", *(whole_percent(p) for p in one["parts"].values()))
        if (pair := one.get("over_next")) is not None:
            parts = (whole_percent(p) for p in pair["parts"].values())
            features = [] if found.trees is None else ["\n".join(feature_lines(pair))]
            table.add_row("", "", "lead", *parts, written_swaps(pair), *features)
    terminal = console(120)
    terminal.print(table)
    legend = (
        "sum: each objective's part of the document's score; lead: its part of the lead over the next document, "
        "negative where it speaks for the next; swaps: as the weight of one objective grows to this, the others "
        "shrinking in proportion"
    )
    if found.trees is not None:
        legend += "; features: TreeSHAP of the lead; network: the neural heads' part of the lead"
    terminal.print(legend, highlight=False)


def written_swaps(pair: Mapping[str, Any]) -> str:
    """At which weights a pair of documents swaps, in words."""
    return ", ".join(f"{name} {w:.3g}" for name, w in pair["swaps"].items() if w is not None) or "never"


def feature_lines(pair: Mapping[str, Any]) -> list[str]:
    """A line for each column that trees have a part in: the features that lead, and the network's part."""
    lines = []
    for name, leading in pair.get("features", {}).items():
        found = [f"{feature} {value:+.2g}" for feature, value in list(leading.items())[:MOST_FEATURES]]
        if "neural" in pair["sources"]:
            found.append(f"network {whole_percent(pair['sources']['neural'][name])}")
        lines.append(f"{name}: {', '.join(found)}")
    return lines


def written_weights(weights: Sequence[float]) -> str:
    """Weights as ``--weights`` takes them: two digits where those sum to 1, else as many as it needs."""
    text: list[str] = []
    for digits in range(2, 18):
        text = [f"{w:.{digits}g}" for w in weights]
        if abs(sum(map(float, text)) - 1) < SUM_TOLERANCE / 2:
            break
    return ",".join(text)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def whole_percent(value: float | None) -> str:
    """A part without decimals; a dash where it is not defined."""
    return "-" if value is None else f"{value:.0%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def print_features(reports: Sequence[FeatureReport]) -> None:
    """Every feature as a row of a table on stdout."""
    table = Table("feature", "values", "missing", "scaling")
    for one in reports:
        table.add_row(one.name, one.kind, f"{one.missing:.1%}" if one.missing else "", one.scaling)
    console(120).print(table)


def print_fit(run: RankRun, out: Path) -> None:
    metrics = run.metrics
    table = Table("", "parameters", "epochs", "items/s", "seconds", "validation")
    for name, history in metrics["history"].items():
        best = history["validation"][history["best"]]
        parameters = metrics["base_parameters"] if name == "base" else metrics["parameters"]
        table.add_row(
            name,
            f"{parameters:,}",
            f"{history['epochs'][-1]} (best {history['epochs'][history['best']]})",
            f"{history['items'] / max(history['seconds'], 1e-9):,.0f}",
            f"{history['seconds']:.1f}",
            _figure(best),
        )
    terminal = console(120)
    terminal.print(table)
    m, main = len(run.objectives), run.config.main
    if any(history["validation"][history["best"]] is not None for history in metrics["history"].values()):
        terminal.print("validation: what the best epoch was chosen by; see docs/ranking.md", highlight=False)
    described = (
        f"{counted(len(run.transform.columns), 'feature')}, {counted(m, 'objective')}: {', '.join(run.objectives)}"
    )
    terminal.print(
        f"{described}; base: {run.base_source.kind}, on {main.name if main else 'no main label'}", highlight=False
    )
    if run.ranker.chosen:
        chosen = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in run.ranker.chosen.items())
        unused = "; the trees are not used" if run.ranker.chosen.get("tree_weight") == 0 else ""
        terminal.print(f"the ranker answers with {chosen}{unused}", highlight=False)
    if front := metrics.get("validation_front"):
        terminal.print(
            f"validation hypervolume at {counted(len(front['points']), 'weighting')}: "
            f"{four_digits(front['hypervolume'])}, "
            f"with main {four_digits(front['hypervolume_with_main'])}; {front['metric']['description']}",
            highlight=False,
        )
    terminal.print(f"run: {out}", highlight=False)
