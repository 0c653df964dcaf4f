"""The picture of a comparison of language models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.plots import COLOURS, draw_pair, new_figure, pairs_of, save_figure


def plot_language_models(result: Mapping[str, Any], path: Path) -> None:
    """Fronts of all methods in cross-entropy error, with the spread of the log-likelihood's deviation from the base as
    an inset (Figure 4 of the paper). Where texts were sampled, fronts of their mean scores stand below.

    Args:
        result: the content of ``compare.json``.

    Raises:
        InputError: the file cannot be written, or has an ending that is not known.
    """
    methods = result["methods"]
    rows = {"cross-entropy error": methods}
    if all("generated" in one for one in methods.values()):
        rows["mean score of texts"] = {label: _of_texts(one) for label, one in methods.items()}
    pairs = pairs_of(next(iter(methods.values()))["objectives"])
    figure = new_figure((4.8 * len(pairs), 4.6 * len(rows)))
    axes = figure.subplots(len(rows), len(pairs), squeeze=False)
    for some, (what, fronts) in zip(axes, rows.items(), strict=True):
        for axis, pair in zip(some, pairs, strict=True):
            draw_pair(axis, fronts, pair, what=what)
    axes[0][0].legend(loc="lower left", frameon=False, fontsize="small")
    inset = axes[0][0].inset_axes((0.68, 0.66, 0.3, 0.3))
    for position, (one, colour) in enumerate(zip(methods.values(), itertools.cycle(COLOURS), strict=False)):
        low, middle, high = np.mean([point["deviation_quartiles"] for point in one["points"]], 0)
        inset.errorbar([position], [middle], [[middle - low], [high - middle]], color=colour, fmt="o", markersize=3)
    inset.set_xticks([])
    inset.set_title("s - s_base: quartiles", fontsize="x-small")
    inset.tick_params(labelsize="x-small")
    save_figure(figure, path)


def _of_texts(one: Mapping[str, Any]) -> dict[str, Any]:
    points = [{"metrics": scores, "scale": 1.0} for scores in one["generated"]["points"]]
    return {"objectives": one["objectives"], "points": points}
