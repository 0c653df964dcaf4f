"""Query ids that were read as text, as the numbers they stand for where nothing is lost."""

from __future__ import annotations

import numpy as np


def as_written(names: np.ndarray) -> np.ndarray:
    """Query ids as numbers, only where the text can be had back from them.

    Args:
        names: (k,) str.

    Returns:
        (k,) int64 where all are whole numbers without leading zeros, uint64 where all of them fit into that only, else
        the texts.

    >>> as_written(np.array(["7", "12"])).tolist(), as_written(np.array(["007", "12"])).tolist()
    ([7, 12], ['007', '12'])
    """
    for kind in (np.int64, np.uint64):
        try:
            numbers = names.astype(kind)
        except (ValueError, OverflowError):
            continue
        if (numbers.astype(names.dtype) == names).all():
            return numbers
    return names


def as_given(names: np.ndarray) -> np.ndarray:
    """As :func:`as_written`. Where all texts end in ``.0``, as data frames write whole numbers, they count as numbers.

    >>> as_given(np.array(["7.0", "12.0"])).tolist(), as_given(np.array(["7.0", "12"])).tolist()
    ([7, 12], ['7.0', '12'])
    """
    if not np.strings.endswith(names, ".0").all():
        return as_written(names)
    numbers = as_written(np.array([name[:-2] for name in names.tolist()], dtype=str))
    return names if numbers.dtype.kind == "U" else numbers
