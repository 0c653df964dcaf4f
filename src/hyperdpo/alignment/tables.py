"""The tables that ``align`` commands print."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from hyperdpo.alignment.evaluation import AlignmentFront


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
    line = f"hypervolume {front.hypervolume:.4g} (reference {', '.join(f'{r:.4g}' for r in front.reference_point)})"
    if len(front.objectives) > 1 and (front.scales == 1).any():
        line += "; control span " + ", ".join(f"{name} {span:.4f}" for name, span in front.control_span.items())
    click.echo(line)
