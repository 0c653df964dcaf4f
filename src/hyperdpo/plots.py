"""Pictures of fronts; no display is needed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.files import written
from hyperdpo.ranking.evaluation import Front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that colour-blind readers can tell apart (Okabe and Ito), and markers for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_fronts(fronts: Mapping[str, Front], path: Path, base: Mapping[str, Any] | None = None) -> None:
    """Draw fronts over the auxiliary axes, with the main metric as an inset (mean ± standard deviation over points).

    Two objectives make one picture, as in the paper's Figure 2; more make one for each pair.

    Args:
        fronts: name -> front; all have the same objectives.
        base: the base's ``metrics`` and ``main``, to be marked; None: no mark.

    Raises:
        InputError: the file cannot be written, or its name has an unknown ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = next(iter(fronts.values())).objectives
    pairs = list(itertools.combinations(range(len(names)), 2)) or [(0, 0)]
    columns = int(np.ceil(np.sqrt(len(pairs))))
    rows = -(-len(pairs) // columns)
    size = (6.4, 5.2) if len(pairs) == 1 else (3.6 * columns, 3.1 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (i, j) in zip(axes, pairs, strict=False):
        _draw_pair(axis, fronts, i, j, base)
    for axis in axes[len(pairs) :]:
        axis.axis("off")
    axes[0].legend(loc="lower left", fontsize="small", frameon=False)
    metric = next(iter(fronts.values())).settings.describe()
    figure.suptitle(metric, fontsize="small")
    shown = {name: front for name, front in fronts.items() if front.main is not None}
    if shown:
        if len(pairs) == 1:
            axes[0].margins(0.12)
            inset = axes[0].inset_axes((0.70, 0.67, 0.28, 0.26))
        else:
            inset = axes[len(pairs)] if len(pairs) < len(axes) else axes[0].inset_axes((0.62, 0.66, 0.36, 0.32))
            inset.axis("on")
        _draw_main(inset, shown, base)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all.

    Raises:
        InputError: the file cannot be written, or its name has an unknown ending.
    """
    try:
        with written(path) as temporary:
            figure.savefig(temporary, dpi=150, format=path.suffix[1:] or None)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: cannot be drawn ({error}); expected a name ending in .png, .pdf or .svg") from None


def _draw_pair(axis: Axes, fronts: Mapping[str, Front], i: int, j: int, base: Mapping[str, Any] | None) -> None:
    names = next(iter(fronts.values())).objectives
    for position, (name, front) in enumerate(fronts.items()):
        # Each round of colours shifts the markers by one, so that no two of 49 look alike.
        turn, place = divmod(position, len(COLOURS))
        colour, marker = COLOURS[place], MARKERS[(place + turn) % len(MARKERS)]
        for number, scale in enumerate(dict.fromkeys(front.scales)):
            points = front.metrics[front.scales == scale][:, [i, j]]
            joined = "-" if len(names) == 2 else "none"
            label = name if number == 0 else None
            fade = 1 / (1 + 0.7 * number)
            axis.plot(*points.T, linestyle=joined, color=colour, marker=marker, markersize=4, label=label, alpha=fade)
    if base is not None:
        x, y = base["metrics"][names[i]], base["metrics"][names[j]]
        if x is not None and y is not None:
            axis.plot(x, y, "*", color="grey", markersize=11, label="base")
    axis.set_xlabel(names[i])
    axis.set_ylabel(names[j])
    axis.grid(alpha=0.25)


def _draw_main(axis: Axes, fronts: Mapping[str, Front], base: Mapping[str, Any] | None) -> None:
    means = [np.nanmean(front.main) for front in fronts.values() if front.main is not None]
    spreads = [np.nanstd(front.main) for front in fronts.values() if front.main is not None]
    colours = list(itertools.islice(itertools.cycle(COLOURS), len(means)))
    axis.bar(range(len(means)), means, yerr=spreads, color=colours, capsize=3, width=0.6)
    low, high = np.subtract(means, spreads).min(), np.add(means, spreads).max()
    if base is not None and base["main"] is not None:
        axis.axhline(base["main"], color="grey", linestyle="--", linewidth=1)
        low, high = min(low, base["main"]), max(high, base["main"])
    room = 0.2 * (high - low) or 0.05
    axis.set_ylim(max(low - 2 * room, 0), high + room)
    axis.set_xticks([])
    axis.tick_params(labelsize="x-small")
    axis.set_title("main", fontsize="x-small")
