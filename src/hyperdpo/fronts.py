"""What fronts of rankers and of language models share: points on a grid of weights and scales, written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np


def grid_points(weights: np.ndarray, scales: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
    """``weights`` (P C, m) and ``scales`` (P C,) of every pair, weights running fastest.

    Args:
        weights: (P, m).
        scales: C numbers.
    """
    repeated = np.repeat(np.asarray(scales, dtype=np.float64), len(weights))
    return {"weights": np.tile(weights, (len(scales), 1)), "scales": repeated}


def named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Numbers by name; NaN is not JSON, so it becomes null."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def front_dict(
    front: Any,
    direction: Literal["maximize", "minimize"],
    metric: Mapping[str, Any],
    temperatures: np.ndarray,
    points: Sequence[Mapping[str, Any]],
    reference_point: Sequence[float],
) -> dict[str, Any]:
    """The keys of ``FRONT.json`` that every front has.

    Args:
        front: with ``objectives``, ``weights`` (P, m), ``scales`` (P,), ``hypervolume`` and ``hypervolume_with_main``.
        direction: of all objectives.
        metric: its name and description.
        temperatures: (P, m), before the scale.
        points: what was measured at each point.
        reference_point: m numbers, of the hypervolume.
    """
    places = zip(front.weights.tolist(), front.scales.tolist(), temperatures.tolist(), points, strict=True)
    return {
        "objectives": list(front.objectives),
        "directions": dict.fromkeys(front.objectives, direction),
        "metric": dict(metric),
        "points": [{"weights": w, "scale": c, "temperature": betas, **found} for w, c, betas, found in places],
        "hypervolume": front.hypervolume,
        "hypervolume_with_main": front.hypervolume_with_main,
        "reference_point": list(reference_point),
    }
