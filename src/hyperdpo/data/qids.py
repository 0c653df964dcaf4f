"""Query ids that were read as text, as the numbers they stand for where nothing is lost."""

from __future__ import annotations

import re

import numpy as np

_WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0)?")


def as_given(names: np.ndarray) -> np.ndarray:
    """Query ids as they were written: numbers only where the text can be had back from them.

    Args:
        names: (k,) str.

    Returns:
        (k,) int64 where all are whole numbers without leading zeros (``7``; or all as ``7.0``, as data frames write
        them), uint64 where all of them fit into that only, else the texts.

    >>> as_given(np.array(["7", "12"])).tolist(), as_given(np.array(["007", "12"])).tolist()
    ([7, 12], ['007', '12'])
    """
    found = [_WHOLE.fullmatch(name) for name in names.tolist()]
    if not all(found) or len({bool(match and match[2]) for match in found}) > 1 or "-0" in names:
        return names
    numbers = [int(name.partition(".")[0]) for name in names.tolist()]
    low, high = min(numbers, default=0), max(numbers, default=0)
    if low >= -(2**63) and high < 2**63:
        return np.array(numbers, dtype=np.int64)
    return np.array(numbers, dtype=np.uint64) if low >= 0 and high < 2**64 else names
