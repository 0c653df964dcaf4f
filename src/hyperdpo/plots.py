"""Pictures of fronts; no display is needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.files import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that colour-blind readers can tell apart (Okabe and Ito), and markers for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_fronts(
    fronts: Mapping[str, Mapping[str, Any]], path: Path, base: Mapping[str, Any] | None = None, what: str = ""
) -> None:
    """Draw fronts over the objectives, with the main metric as an inset (mean ± standard deviation over points).

    Two objectives make one picture, as in the paper's Figure 2; more make one for each pair.

    Args:
        fronts: name -> front, as in ``FRONT.json``: ``objectives``, ``points`` and ``metric``; all have the same
            objectives.
        base: the base's ``metrics`` and ``main``, to be marked; None: no mark.
        what: what the axes show of each objective.

    Raises:
        InputError: the file cannot be written, or its name has an unknown ending.
    """
    first = next(iter(fronts.values()))
    pairs = pairs_of(first["objectives"])
    columns = int(np.ceil(np.sqrt(len(pairs))))
    rows = -(-len(pairs) // columns)
    figure = new_figure((6.4, 5.2) if len(pairs) == 1 else (3.6 * columns, 3.1 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        draw_pair(axis, fronts, pair, base, what)
    for axis in axes[len(pairs) :]:
        axis.axis("off")
    axes[0].legend(loc="lower left", fontsize="small", frameon=False)
    figure.suptitle(first["metric"]["description"], fontsize="small")
    mains = {name: _numbers(point["main"] for point in front["points"]) for name, front in fronts.items()}
    mains = {name: values for name, values in mains.items() if not np.isnan(values).all()}
    if mains:
        if len(pairs) == 1:
            axes[0].margins(0.12)
            inset = axes[0].inset_axes((0.70, 0.67, 0.28, 0.26))
        else:
            inset = axes[len(pairs)] if len(pairs) < len(axes) else axes[0].inset_axes((0.62, 0.66, 0.36, 0.32))
            inset.axis("on")
        _draw_main(inset, list(mains.values()), base)
    save_figure(figure, path)


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each pair of objectives; a single one with itself."""
    return list(itertools.combinations(names, 2)) or [(names[0], names[0])]


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty picture, of that size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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


def draw_pair(
    axis: Axes,
    fronts: Mapping[str, Mapping[str, Any]],
    pair: tuple[str, str],
    base: Mapping[str, Any] | None = None,
    what: str = "",
) -> None:
    """Draw fronts over two objectives, see :func:`plot_fronts`; another scale is paler."""
    for position, (label, front) in enumerate(fronts.items()):
        # Each round of colours shifts the markers by one, so that no two of 49 look alike.
        turn, place = divmod(position, len(COLOURS))
        style: dict[str, Any] = {
            "color": COLOURS[place],
            "marker": MARKERS[(place + turn) % len(MARKERS)],
            "markersize": 4,
        }
        style["linestyle"] = "-" if len(front["objectives"]) <= 2 else "none"
        for number, points in enumerate(by_scale(front["points"]).values()):
            x, y = (_numbers(point["metrics"][name] for point in points) for name in pair)
            axis.plot(x, y, label=None if number else label, alpha=1 / (1 + 0.7 * number), **style)
    if base is not None and None not in (known := [base["metrics"][name] for name in pair]):
        axis.plot(*known, "*", color="grey", markersize=11, label="base")
    x_label, y_label = (f"{name}: {what}" if what else name for name in pair)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.25)


def by_scale(points: Sequence[Mapping[str, Any]]) -> dict[float, list[Mapping[str, Any]]]:
    """The points of each scale c."""
    found: dict[float, list[Mapping[str, Any]]] = {}
    for point in points:
        found.setdefault(point["scale"], []).append(point)
    return found


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    """Numbers, NaN where there is none."""
    return np.array(list(values), dtype=np.float64)


def _draw_main(axis: Axes, mains: Sequence[np.ndarray], base: Mapping[str, Any] | None) -> None:
    means, spreads = [np.nanmean(values) for values in mains], [np.nanstd(values) for values in mains]
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
