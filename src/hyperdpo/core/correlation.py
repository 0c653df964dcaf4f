"""Whether one number rises with another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr


def rank_correlation(weights: ArrayLike, values: ArrayLike) -> float:
    """Spearman's rank correlation of (P,) weights and (P,) values; 0 where one of them does not vary.

    >>> rank_correlation([0, 0.5, 1], [3.0, 4.0, 9.0])
    1.0
    """
    if np.ptp(weights) == 0 or np.ptp(values) == 0:
        return 0.0
    return float(spearmanr(weights, values).statistic)
