"""Weights over objectives laid out as a grid, and the random streams that everything is drawn from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from hyperdpo._lazy import lazy_names
from hyperdpo.core.sampling import sample_dirichlet
from hyperdpo.errors import InputError, counted

#: Names that this module had in version 0.1.
__getattr__ = lazy_names(
    __name__,
    {
        "SUM_TOLERANCE": "hyperdpo.core.point",
        "check_weights": "hyperdpo.core.point",
        "sample_temperatures": "hyperdpo.core.sampling",
        "sample_weights": "hyperdpo.core.sampling",
    },
    deprecated=True,
)


def stream(seed: int, *key: int) -> np.random.Generator:
    """A generator for one purpose, such as ``stream(seed, epoch, step)``.

    It depends on the seed and the key alone: a run that is resumed at step k draws what it would have drawn.
    Different keys, ``stream(1)`` and ``stream(1, 0)`` included, give independent streams.

    >>> stream(3, 1, 7).random() == stream(3, 1, 7).random()
    True

    Raises:
        InputError: a negative seed or key.
    """
    if min(seed, *key, 0) < 0:
        raise InputError(f"seed {seed}, key {key}: expected integers >= 0")
    # A spawn key, because numpy pads entropy with zeros: SeedSequence([1]) and SeedSequence([1, 0]) are one stream.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def weight_grid(num_objectives: int, points: int = 11, seed: int = 0) -> np.ndarray:
    """Weights spread over the simplex, vertices first; the same ones at every call.

    One objective: the single row (1,). Two: evenly spaced from (1, 0) to (0, 1). More: first the vertices. Then the
    layers of Das and Dennis while a whole layer fits: all weights that are multiples of 1/2, then 1/3, and so on,
    without repetitions. Then points drawn uniformly from the inside.

    >>> weight_grid(2, 3)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])

    Args:
        num_objectives: m.
        points: number of rows, at least m.
        seed: of the points drawn.

    Returns:
        (points, m) float64; (1, 1) for one objective.

    Raises:
        InputError: no objective, or fewer points than objectives.
    """
    if num_objectives < 1:
        raise InputError(f"{counted(num_objectives, 'objective')}, expected at least 1")
    if points < num_objectives:
        raise InputError(
            f"{counted(points, 'point')} for {counted(num_objectives, 'objective')}, "
            "expected at least one per objective"
        )
    if num_objectives == 1:
        return np.ones((1, 1))
    if num_objectives == 2:
        second = np.arange(points)
        return np.stack((second[::-1], second), axis=-1) / (points - 1)
    rows: list[np.ndarray] = []
    for divisions in itertools.count(1):
        # One more than fits is enough to know that the layer does not.
        layer = list(itertools.islice(_lattice_layer(num_objectives, divisions), points - len(rows) + 1))
        if len(layer) > points - len(rows):
            break
        rows += [np.array(parts) / divisions for parts in layer]
    inside = sample_dirichlet(np.ones(num_objectives), points - len(rows), stream(seed))
    return np.concatenate((np.array(rows), inside))


def _lattice_layer(num_objectives: int, divisions: int) -> Iterator[tuple[int, ...]]:
    """The m-part compositions of ``divisions`` without a common factor: those no smaller number of divisions gives."""
    for bars in itertools.combinations(range(divisions + num_objectives - 1), num_objectives - 1):
        edges = (-1, *bars, divisions + num_objectives - 1)
        parts = tuple(right - left - 1 for left, right in itertools.pairwise(edges))[::-1]
        if math.gcd(*parts) == 1:
            yield parts
