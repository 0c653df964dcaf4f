"""Bounds of what can be computed, for those who check settings without importing torch."""

from __future__ import annotations

#: The largest power of a power mean. Mass of :data:`~hyperdpo.core.mixture.FLOOR` to this power is still a number of
#: single precision.
LARGEST_POWER = 4.0
