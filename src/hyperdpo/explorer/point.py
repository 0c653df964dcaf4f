"""Points behind the sliders: in digits that can be written down, and on their way to the base."""

from __future__ import annotations

import numpy as np

from hyperdpo.choosing.scales import SCALES
from hyperdpo.choosing.search import DIGITS
from hyperdpo.core.point import Point

#: Scales of the curve from a point to the base.
CURVE_SCALES = tuple(c for c in SCALES if c >= 1)


def curve(point: Point) -> np.ndarray:
    """(1 + C, 2 m + 1), with a share (1 + C, 2 m + 2): the point, and its weights at growing scales from 1 (from the
    point's, if less)."""
    rows = np.tile(point.row(), (1 + len(CURVE_SCALES), 1))
    rows[1:, len(point.weights)] = [min(point.scale, CURVE_SCALES[0]), *CURVE_SCALES[1:]]
    return rows


def written(value: float) -> float:
    """A scale or temperature with the digits that are written down."""
    return float(f"{value:.{DIGITS}g}")
