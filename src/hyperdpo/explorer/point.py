"""A point of a run, in numbers that can be written down: the state behind the sliders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdpo.choosing.scales import SCALES

#: Scales of the curve from a point to the base.
CURVE_SCALES = tuple(c for c in SCALES if c >= 1)
#: Scales and temperatures have so many significant digits, as those of ``hyperdpo choose``.
DIGITS = 3


@dataclass(frozen=True)
class Point:
    """Weights, scale and temperatures.

    Attributes:
        weights: (m,), on the simplex, multiples of 1/10,000.
        scale: c, of Eq. (14).
        temperatures: (m,), β before the scale.
    """

    weights: tuple[float, ...]
    scale: float
    temperatures: tuple[float, ...]

    def row(self) -> np.ndarray:
        """(2 m + 1,): as the measures of :mod:`hyperdpo.choosing` take it."""
        return np.array([*self.weights, self.scale, *self.temperatures])

    def curve(self) -> np.ndarray:
        """(1 + C, 2 m + 1): the point, and its weights at growing scales from 1 (from the point's, if less)."""
        rows = np.tile(self.row(), (1 + len(CURVE_SCALES), 1))
        rows[1:, len(self.weights)] = [min(self.scale, CURVE_SCALES[0]), *CURVE_SCALES[1:]]
        return rows

    def to_dict(self, objectives: tuple[str, ...]) -> dict[str, Any]:
        """For JSON, weights and temperatures by name."""
        return {
            "weights": dict(zip(objectives, self.weights, strict=True)),
            "scale": self.scale,
            "temperatures": dict(zip(objectives, self.temperatures, strict=True)),
        }

    def describe(self, objectives: tuple[str, ...]) -> str:
        """In words: ``clicks 0.3, quality 0.7; c = 2``."""
        named = ", ".join(f"{name} {w:g}" for name, w in zip(objectives, self.weights, strict=True))
        return f"{named}; c = {self.scale:g}"


def written(value: float) -> float:
    """A scale or temperature with the digits that are written down."""
    return float(f"{value:.{DIGITS}g}")
