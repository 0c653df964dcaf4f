"""Weights of the sliders: moving one rescales the others in proportion, and the sum stays 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hyperdpo.choosing.search import WEIGHT_PARTS as PARTS
from hyperdpo.choosing.search import whole_parts


class Simplex:
    """A point of the simplex, in parts of 1/10,000, that is moved one coordinate at a time.

    While one weight is at 1, the ratios of the others are kept, so that moving it there and back changes nothing.

    Args:
        weights: m numbers >= 0 with a sum above 0; they are scaled to a sum of 1.
    """

    def __init__(self, weights: Sequence[float]):
        self.set(weights)

    def set(self, weights: Sequence[float]) -> None:
        """Take another point."""
        self.parts = apportioned(weights, PARTS)
        self._exact = [float(w) for w in weights]  # before rounding
        self._full: int | None = None  # the weight at 1, while the ratios of the others are remembered

    @property
    def weights(self) -> tuple[float, ...]:
        """(m,), sum 1."""
        return tuple(part / PARTS for part in self.parts)

    def move(self, index: int, value: float) -> None:
        """Set one weight (it is clipped to 0 to 1); the others share the rest in proportion.

        Others that are all 0, without kept ratios, share the rest equally. A single weight stays 1.
        """
        m = len(self.parts)
        if m == 1 or not math.isfinite(value):
            return
        if self._full not in (None, index):  # the one at 1 is one of the others now
            self._exact, self._full = [float(part) for part in self.parts], None
        mine = round(min(max(value, 0.0), 1.0) * PARTS)
        others = [j for j in range(m) if j != index]
        ratios = [self._exact[j] for j in others]
        total = sum(ratios)
        ratios = [r / total for r in ratios] if total > 0 else [1 / len(others)] * len(others)
        parts = [mine] * m
        exact = [mine / PARTS] * m
        for j, part, ratio in zip(others, apportioned(ratios, PARTS - mine), ratios, strict=True):
            parts[j] = part
            exact[j] = ratio * ((PARTS - mine) / PARTS if mine < PARTS else 1.0)
        self.parts, self._exact, self._full = tuple(parts), exact, index if mine == PARTS else None


def apportioned(shares: Sequence[float], parts: int) -> tuple[int, ...]:
    """Whole numbers that sum to ``parts``, in proportion to the shares, by largest remainders."""
    total = sum(shares)
    return tuple(map(int, whole_parts(np.array([[share / total * parts for share in shares]]), parts)[0]))
