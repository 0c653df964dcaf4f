"""Pictures of a language model's fronts."""

from __future__ import annotations

import itertools
from pathlib import Path

from hyperdpo.alignment.evaluation import AlignmentFront
from hyperdpo.plots import COLOURS, save_figure


def plot_front(front: AlignmentFront, path: Path) -> None:
    """The losses of each pair of objectives, one colour a scale.

    Raises:
        InputError: the file cannot be written, or has an ending that is not known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs = list(itertools.combinations(range(len(front.objectives)), 2)) or [(0, 0)]
    figure = Figure(figsize=(4.6 * len(pairs), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (i, j) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for colour, c in zip(itertools.cycle(COLOURS), dict.fromkeys(front.scales), strict=False):
            points = front.losses[front.scales == c][:, [i, j]]
            axis.plot(*points.T, "o-" if len(pairs) == 1 else "o", color=colour, markersize=4, label=f"c = {c:g}")
        axis.set_xlabel(f"{front.objectives[i]}: cross-entropy error")
        axis.set_ylabel(f"{front.objectives[j]}: cross-entropy error")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize="small")
    save_figure(figure, path)
