"""The tables that ``align`` commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from hyperdpo.alignment.evaluation import AlignmentFront
from hyperdpo.printing import console, four_digits
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
    console(140).print(table)
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
    terminal = console(140)
    terminal.print(table)
    for prompt, texts in zip(found["prompts"], found["texts"], strict=True):
        terminal.print(f"{prompt} ...", highlight=False, markup=False, style="bold")
        for w, text in zip(found["weights"], texts, strict=True):
            shown = ",".join(f"{x:.2g}" for x in w)
            terminal.print(f"  {shown:>9}  {' '.join(text.split())}", highlight=False, markup=False)
