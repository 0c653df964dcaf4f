"""The tables that ``align`` commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hyperdpo.alignment.comparison import REFERENCE, SCALES
from hyperdpo.alignment.evaluation import AlignmentFront
from hyperdpo.alignment.spans import span_ratios
from hyperdpo.errors import counted
from hyperdpo.printing import four_digits
from hyperdpo.progress import note


def print_front(front: AlignmentFront, what: str) -> None:
    """Losses and accuracies per point, then the hypervolume and the control span."""
    table = Table(title=f"cross-entropy error and accuracy of pairs, {what}", title_justify="left")
    for heading in ("weights", "scale", *front.objectives, *(f"accuracy: {name}" for name in front.objectives)):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("s - s_base: median (IQR)", justify="right", overflow="fold")
    base = (*(f"{loss:.4f}" for loss in front.base_losses), *("50.0%" for _ in front.objectives))
    table.add_row("base", "", *base, "0.00 (0.00)")
    for p, w in enumerate(front.weights):
        low, middle, high = front.deviations[p]
        table.add_row(
            ",".join(f"{x:.2g}" for x in w),
            f"{front.scales[p]:g}",
            *(f"{loss:.4f}" for loss in front.losses[p]),
            *(f"{accuracy:.1%}" for accuracy in front.accuracies[p]),
            f"{middle:.2f} ({high - low:.2f})",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    reference = ", ".join(four_digits(r) for r in front.reference_point)
    line = f"hypervolume {four_digits(front.hypervolume)} (reference {reference})"
    spans = front.control_span if len(front.objectives) > 1 else {}
    if spans:
        line += "; control span " + ", ".join(f"{name} {span:.4f}" for name, span in spans.items())
    click.echo(line)
    if deaf := [name for name, span in spans.items() if span <= 0]:
        note(
            f"{', '.join(deaf)}: the weight has no effect: the loss at full weight is no lower than at zero weight; "
            "train longer or at a higher learning rate, or look at the labels"
        )


def print_generated(found: Mapping[str, Any]) -> None:
    """Mean scores at several weightings, then texts side by side.

    Args:
        found: what :func:`~hyperdpo.stories.demo.generated_side_by_side` gave.
    """
    table = Table(title="sampled texts", title_justify="left")
    for heading in ("weights", *found["objectives"]):
        table.add_column(heading, justify="right", overflow="fold")
    for w, scores in zip(found["weights"], found["scores"], strict=True):
        table.add_row(",".join(f"{x:.2g}" for x in w), *(f"{score:.2f}" for score in scores))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for prompt, texts in zip(found["prompts"], found["texts"], strict=True):
        console.print(f"{prompt} ...", highlight=False, markup=False, style="bold")
        for w, text in zip(found["weights"], texts, strict=True):
            shown = ",".join(f"{x:.2g}" for x in w)
            console.print(f"  {shown:>9}  {' '.join(text.split())}", highlight=False, markup=False)


def print_comparison(result: Mapping[str, Any]) -> None:
    """The content of ``compare.json`` as a table on stdout: mean ± standard deviation over the repeats."""
    methods, repeats = result["methods"], result["repeats"]
    first = next(iter(methods.values()))
    groups = "/".join(str(repeats[0]["groups"][name]) for name in ("train", "test"))
    several = counted(len(repeats), "repeat")
    table = Table(
        title=f"{first['metric']['description']}, {counted(len(first['points']), 'weighting')}, {several}, "
        f"groups {groups} (train/test)",
        title_justify="left",
    )
    table.add_column("")
    with_texts = all("generated" in one for one in methods.values())
    headings = ["hypervolume", "at c = " + ", ".join(f"{c:g}" for c in SCALES), "control span"]
    headings += ["of texts: hypervolume", "control span", "rank correlation"] if with_texts else []
    for heading in (*headings, "models", "parameters", "epochs", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, one in methods.items():
        cells = [_with_sd(one, "hypervolume"), _with_sd(one["views"]["scales"], "hypervolume")]
        cells.append(_each(one["control_span"], ".3f"))
        if with_texts:
            texts = one["generated"]
            cells += [
                _with_sd(texts, "hypervolume"),
                _each(texts["control_span"], ".2f"),
                _each(texts["rank_correlation"], ".2f"),
            ]
        cells += [f"{one['models']:.0f}", f"{one['parameters']:,.0f}", f"{one['epochs']:.3g}"]
        table.add_row(name, *cells, f"{one['train_seconds']:.1f}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    known = ", ".join(f"{name} {value:.4f}" for name, value in result["base"]["metrics"].items())
    shown = ", ".join(four_digits(r) for r in first["reference_point"])
    lines = [f"base: {known}; reference {shown}; temperatures {result['temperatures']}"]
    if with_texts:
        mean = ", ".join(f"{name} {value:.3f}" for name, value in result["base"]["generated"].items())
        lines.append(f"texts of the base: {mean}; their hypervolume's reference: {REFERENCE}")
    if "dpo-ls" in methods:
        for name, one in methods.items():
            if one["one_shot"]:
                ratios = span_ratios(result, name, "dpo-ls")
                shown = ", ".join(f"{of} {r}{f' ({r.reason})' if r.reason else ''}" for of, r in ratios.items())
                lines.append(f"{name}, control span over dpo-ls's: {shown}")
    for line in lines:
        console.print(line, highlight=False)


def _with_sd(one: Mapping[str, Any], name: str) -> str:
    value, sd = one[name], one[f"{name}_sd"]
    return four_digits(value) if sd is None else f"{four_digits(value)} ± {sd:#.2g}"


def _each(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values.values())
