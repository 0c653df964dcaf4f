"""Origins: what is subtracted from columns of large numbers, so that 32 bits keep their differences."""

from __future__ import annotations

import numpy as np

#: An origin is worth its trouble where the values are so many times as large as they are apart: 1 bit gained or more.
LEAST_GAIN = 2.0
#: From here on float32 does not hold every whole number.
EXACT_FLOAT32 = float(2**24)


def may_need_origin(lowest: float, highest: float) -> bool:
    """Whether :func:`origin_of` can find an origin for a column with these extremes."""
    spread, size = highest - lowest, max(abs(lowest), abs(highest))
    return bool(np.isfinite(spread)) and (size >= EXACT_FLOAT32 or (spread > 0 and size >= LEAST_GAIN * spread))


def origin_of(values: np.ndarray) -> float | None:
    """The number to subtract from a column, or None where 32 bits hold it well enough.

    There is one where float32 cannot hold the column's whole numbers or makes different fractions equal, and holds more
    of them after the subtraction. Examples are time stamps, dates such as 20240131, and large identifiers. Values far
    from most of the large ones, such as a 0 that stands for a missing time stamp, have no say.

    Args:
        values: (N,) float64; NaN where a value is missing.

    Returns:
        The lowest value; where some lie far from the others, the lowest of those others but for a twentieth.

    >>> origin_of(np.array([1704078000.0, 1704078001.0, 1704078002.0]))
    1704078000.0
    >>> origin_of(np.array([3.0, 12.0, 26.0])) is None
    True
    """
    different = np.unique(values[np.isfinite(values)])
    if len(different) < 2 or not may_need_origin(float(different[0]), float(different[-1])):
        return None
    held = different.astype(np.float32) == different
    large = different[(np.abs(different) >= EXACT_FLOAT32) & ~held]
    low, middle, high = np.quantile(large if len(large) else different, (0.05, 0.5, 0.95), method="nearest")
    if abs(middle) < LEAST_GAIN * (high - low):
        return None
    spread = different[-1] - different[0]
    origin = float(different[0]) if abs(middle) >= LEAST_GAIN * spread else float(low)
    shifted = different - origin
    if (different == np.round(different)).all():
        before, after = int(held.sum()), int((shifted.astype(np.float32) == shifted).sum())
    else:
        before, after = (len(np.unique(v.astype(np.float32))) for v in (different, shifted))
    return origin if before < len(different) and after > before else None
