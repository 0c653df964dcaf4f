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
from hyperdpo.ranking.run import RankRun


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
    if front := metrics.get("validation_front"):
        terminal.print(
            f"validation hypervolume at {counted(len(front['points']), 'weighting')}: "
            f"{four_digits(front['hypervolume'])}, "
            f"with main {four_digits(front['hypervolume_with_main'])}; {front['metric']['description']}",
            highlight=False,
        )
    terminal.print(f"run: {out}", highlight=False)
