"""Origins: what is subtracted from columns of large numbers, so that 32 bits keep their differences."""

from __future__ import annotations

import numpy as np

#: An origin is worth its trouble where the values are so many times as large as they are apart: 1 bit gained or more.
LEAST_GAIN = 2.0


def may_need_origin(lowest: float, highest: float) -> bool:
    """Whether :func:`origin_of` can find an origin for a column with these extremes."""
    spread = highest - lowest
    return 0 < spread < np.inf and max(abs(lowest), abs(highest)) >= LEAST_GAIN * spread


def origin_of(values: np.ndarray) -> float | None:
    """The number to subtract from a column, or None where 32 bits hold it well enough.

    There is one where float32 cannot hold all whole numbers of the column (time stamps, dates as numbers such as
    20240131, large identifiers), or makes different fractions equal, and holds more of them after the subtraction.

    Args:
        values: (N,) float64; NaN where a value is missing.

    Returns:
        The lowest value.

    >>> origin_of(np.array([1704078000.0, 1704078001.0, 1704078002.0]))
    1704078000.0
    >>> origin_of(np.array([3.0, 12.0, 26.0])) is None
    True
    """
    values = values[np.isfinite(values)]
    if not len(values) or not may_need_origin(float(values.min()), float(values.max())):
        return None
    different = np.unique(values)
    origin = float(different[0])
    shifted = different - origin
    if (different == np.round(different)).all():
        held, after = (int((v.astype(np.float32) == v).sum()) for v in (different, shifted))
    else:
        held, after = (len(np.unique(v.astype(np.float32))) for v in (different, shifted))
    return origin if held < len(different) and after > held else None
