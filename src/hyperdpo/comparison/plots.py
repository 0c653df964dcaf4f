"""The picture of a comparison of language models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.plots import COLOURS, MARKERS, save_figure


def plot_language_models(result: Mapping[str, Any], path: Path) -> None:
    """Fronts of all methods in cross-entropy error, with the spread of the log-likelihood's deviation from the base as
    an inset (Figure 4 of the paper), and, where texts were sampled, fronts of their mean scores beside it.

    Args:
        result: the content of ``compare.json``.

    Raises:
        InputError: the file cannot be written, or has an ending that is not known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = result["methods"]
    names = next(iter(methods.values()))["objectives"]
    with_texts = all("generated" in one for one in methods.values())
    pairs = list(itertools.combinations(names, 2)) or [(names[0], names[0])]
    figure = Figure(figsize=(4.8 * len(pairs), 4.6 * (1 + with_texts)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + with_texts, len(pairs), squeeze=False)
    looks = list(zip(methods.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False))
    for column, (i, j) in enumerate(pairs):
        for (label, one), colour, marker in looks:
            style = {"marker": marker, "color": colour, "markersize": 4, "linewidth": 1.2, "label": label}
            style["linestyle"] = "-" if len(pairs) == 1 else ""
            axes[0][column].plot(*([p["metrics"][n] for p in one["points"]] for n in (i, j)), **style)
            if with_texts:
                axes[1][column].plot(*([p[n] for p in one["generated"]["points"]] for n in (i, j)), **style)
        for row, what in enumerate(["cross-entropy error", "mean score of texts"][: 1 + with_texts]):
            axes[row][column].set_xlabel(f"{i}: {what}")
            axes[row][column].set_ylabel(f"{j}: {what}")
            axes[row][column].grid(alpha=0.25)
    axes[0][0].legend(frameon=False, fontsize="small")
    inset = axes[0][0].inset_axes((0.68, 0.66, 0.3, 0.3))
    for position, ((_, one), colour, _marker) in enumerate(looks):
        low, middle, high = np.mean([p["deviation_quartiles"] for p in one["points"]], 0)
        inset.errorbar([position], [middle], [[middle - low], [high - middle]], color=colour, fmt="o", markersize=3)
    inset.set_xticks([])
    inset.set_title("s - s_base: quartiles", fontsize="x-small")
    inset.tick_params(labelsize="x-small")
    save_figure(figure, path)
