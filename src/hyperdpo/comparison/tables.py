"""The tables that ``rank compare`` and ``align compare`` print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from hyperdpo.alignment.gguf_models import described_origin
from hyperdpo.comparison.paired import CONFIDENCE, RATIOS, Ratio, ratio_of_pair
from hyperdpo.errors import counted
from hyperdpo.printing import console, four_digits

#: Headings, each with the cell of a method.
Columns = list[tuple[str, Callable[[Mapping[str, Any]], str]]]


def print_rankers(result: Mapping[str, Any]) -> None:
    """The content of ``compare.json`` of rankers as a table on stdout: mean ± standard deviation over the repeats,
    where there are several; epochs run, on average, of those allowed."""
    methods = result["methods"]
    columns: Columns = [
        ("hypervolume", lambda one: _places(one, "hypervolume")),
        ("with main", lambda one: _places(one, "hypervolume_with_main")),
        ("main", lambda one: _places(one, "main_mean")),
        ("main over points", lambda one: "-" if one["main_sd"] is None else f"± {one['main_sd']:.4f}"),
        ("models", lambda one: f"{one['models']:.0f}"),
        ("parameters", lambda one: f"{one['parameters']:,.0f}"),
        ("epochs", lambda one: "-" if one["epochs"] is None else f"{one['epochs']:.3g} / {one['epochs_allowed']}"),
        ("seconds", lambda one: _places(one, "train_seconds", ".1f")),
    ]
    base = result["base"]
    known = ", ".join(f"{name} {_figure(value)}" for name, value in base["metrics"].items())
    lines = [f"base: {known}, main {_figure(base['main'])}; temperatures {result['temperatures']}"]
    for name, one in methods.items():
        searches = [seed.get("details", {}).get("search_seconds", 0.0) for seed in one["seeds"]]
        if any(searches):
            lines.append(f"{name}: {sum(searches) / len(searches):.1f} s more to find the main label's share")
    for name, one in methods.items():
        views = [
            f"{view} ({counted(len(found['points']), 'point')}) {four_digits(found['hypervolume'])}, "
            f"with main {four_digits(found['hypervolume_with_main'])}"
            for view, found in one["views"].items()
        ]
        if views:
            lines.append(f"{name}, without another training: {'; '.join(views)}")
    if result["chosen"] is not None:
        lines.append(f"best one-shot entry on validation groups: {result['chosen']}")
    _print(result, ("train", "validation", "test"), columns, lines, width=140)
    _print_attained(methods)
    _print_levels(methods)
    _print_differences(result["level_differences"])


def _print_attained(methods: Mapping[str, Any]) -> None:
    """Fractions of attainable fronts, with a column for each form of these: fractions of different ones cannot be
    compared."""
    known = {name: one for name, one in methods.items() if "oracle" in one}
    if not known:
        return
    forms = list(dict.fromkeys(one["attainable_by"] for one in known.values()))
    title = "fraction of the attainable hypervolume, and of that with main; comparable within a column"
    table = Table("", *forms)
    for name, one in known.items():
        oracle = one["oracle"]
        cell = f"{_percent(oracle.get('fraction'))}, {_percent(oracle.get('fraction_with_main'))}"
        table.add_row(name, *(cell if form == one["attainable_by"] else "" for form in forms))
    _print_titled(title, table)


def _print_levels(methods: Mapping[str, Any]) -> None:
    """Each method at equal main scores: the score on test groups stands beside the one that was aimed at."""
    targets = [level["target_main"] for level in next(iter(methods.values()))["main_levels"]]
    if not targets:
        return
    title = "hypervolume with main at equal mean main scores: targets of validation groups, main of test groups"
    table = Table("")
    for target in targets:
        table.add_column(f"target main {target:.3f}", justify="right")
    for name, one in methods.items():
        table.add_row(name, *map(_level, one["main_levels"]))
    _print_titled(title, table)


def _print_differences(found: Sequence[Mapping[str, Any]]) -> None:
    """Each one-shot method over the best of the others: the ratio, and the mean difference with its standard error."""
    if not found:
        return
    title = (
        "hypervolume with main over the best of the other methods at each level; paired differences ± standard error"
    )
    targets = dict.fromkeys(one["target_main"] for one in found)
    table = Table("")
    for target in targets:
        table.add_column(f"target main {target:.3f}", justify="right")
    for name in dict.fromkeys(one["of"] for one in found):
        table.add_row(name, *(_difference(one) for one in found if one["of"] == name))
    _print_titled(title, table)


def print_language_models(result: Mapping[str, Any]) -> None:
    """The content of ``compare.json`` of language models as a table on stdout: mean ± standard deviation over the
    repeats."""
    methods = result["methods"]
    first = next(iter(methods.values()))
    with_texts = all("generated" in one for one in methods.values())
    scales = dict.fromkeys(point["scale"] for point in first["views"]["scales"]["points"])
    columns: Columns = [
        ("hypervolume", lambda one: _digits(one, "hypervolume")),
        ("at c = " + ", ".join(f"{c:g}" for c in scales), lambda one: _digits(one["views"]["scales"], "hypervolume")),
        ("control span", lambda one: _each(one["control_span"], ".3f")),
    ]
    if with_texts:
        columns += [
            ("of texts: hypervolume", lambda one: _digits(one["generated"], "hypervolume")),
            ("control span", lambda one: _each(one["generated"]["control_span"], ".2f")),
            ("rank correlation", lambda one: _each(one["generated"]["rank_correlation"], ".2f")),
            ("inner product", lambda one: _figure(one["generated"]["inner_product"])),
        ]
    columns += [
        ("models", lambda one: f"{one['models']:.0f}"),
        ("parameters", lambda one: f"{one['parameters']:,.0f}"),
        ("epochs", lambda one: f"{one['epochs']:.3g}"),
        ("seconds", lambda one: f"{one['train_seconds']:.1f}"),
    ]
    known = ", ".join(f"{name} {value:.4f}" for name, value in result["base"]["metrics"].items())
    shown = ", ".join(four_digits(r) for r in first["reference_point"])
    origin = described_origin(result["base"].get("gguf_origin"))
    known = f"{known}; {origin}" if origin else known
    lines = [f"base: {known}; reference {shown}; temperatures {result['temperatures']}"]
    if with_texts:
        mean = ", ".join(f"{name} {value:.3f}" for name, value in result["base"]["generated"].items())
        reference = result["settings"]["texts"]["reference"]
        lines.append(f"texts of the base: {mean}; their hypervolume's reference: {reference}")
    if "dpo-ls" in methods:
        for name, one in methods.items():
            if one["one_shot"]:
                pair = ratio_of_pair(result, name, "dpo-ls")
                ratios = {heading: Ratio(**pair[key]) for key, heading in RATIOS.items() if key in pair}
                shown = ", ".join(f"{of} {r}{f' ({r.reason})' if r.reason else ''}" for of, r in ratios.items())
                lines.append(f"{name} over dpo-ls, with {CONFIDENCE:.0%} intervals: {shown}")
    _print(result, ("train", "test"), columns, lines, width=160)


def _print(
    result: Mapping[str, Any],
    parts: Sequence[str],
    columns: Columns,
    lines: Sequence[str],
    *,
    width: int,
) -> None:
    """A table with a row for each method, and lines below it.

    Args:
        parts: of the data, whose groups the title counts.
        width: where standard output is no terminal.
    """
    methods, repeats = result["methods"], result["repeats"]
    first = next(iter(methods.values()))
    groups = "/".join(str(repeats[0]["groups"].get(name, 0)) for name in parts)
    table = Table(
        title=f"{first['metric']['description']}, {counted(len(first['points']), 'weighting')}, "
        f"{counted(len(repeats), 'repeat')}, groups {groups} ({'/'.join(parts)})",
        title_justify="left",
    )
    table.add_column("")
    for heading, _ in columns:
        table.add_column(heading, justify="right", overflow="fold")
    for name, one in methods.items():
        table.add_row(name, *(cell(one) for _, cell in columns))
    terminal = console(width)
    terminal.print(table)
    for line in lines:
        terminal.print(line, highlight=False)


def _print_titled(title: str, table: Table) -> None:
    """A small table below its title, which may be wider."""
    terminal = console(140)
    terminal.print(title, highlight=False)
    terminal.print(table)


def _places(one: Mapping[str, Any], name: str, form: str = ".4f") -> str:
    mean, sd = one[name], one[f"{name}_sd"]
    if mean is None:
        return "-"
    return f"{mean:{form}}" + ("" if sd is None else f" ± {sd:{form}}")


def _digits(one: Mapping[str, Any], name: str) -> str:
    value, sd = one[name], one[f"{name}_sd"]
    return four_digits(value) if sd is None else f"{four_digits(value)} ± {sd:#.2g}"


def _each(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values.values())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _level(level: Mapping[str, float | None]) -> str:
    """The hypervolume, the main score, and where the method's dial stands: its share λ or its scale c."""
    share, scale = level["main_share"], level["scale"]
    dial = f"c {scale:.3g}" if share is None else f"λ {share:.3g}"
    main = "-" if level["main"] is None else f"{level['main']:.3f}"
    return f"{four_digits(level['hypervolume_with_main'])}, main {main}, {dial}"


def _difference(one: Mapping[str, Any]) -> str:
    ratio = "-" if one["ratio"] is None else f"{one['ratio']:.3f}"
    error = "" if one["error"] is None else f" ± {one['error']:.4f}"
    return f"{ratio} × {one['to']}, {one['difference']:+.4f}{error}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
