"""How well outcomes fit the weights they were asked for: the measure that PARM and UniARM report beside hypervolume."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hyperdpo.errors import InputError


def inner_products(weights: np.ndarray, scores: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Σ_j w_j r_j of texts, with r_j = (score_j - mean_j) / spread_j: what a text is worth to one who wants w.

    >>> inner_products(np.array([[0.25, 0.75]]), np.array([[3.0, 10.0]]), np.array([1.0, 8.0]), np.array([2.0, 4.0]))
    array([0.625])

    Args:
        weights: (P, m).
        scores: (P, ..., m), more is better.
        mean, spread: (m,), of the base's texts; a spread of 0, of a score that the base never varies, counts as 1.

    Returns:
        (P, ...).
    """
    rewards = (scores - mean) / np.where(spread > 0, spread, 1.0)
    shape = (len(weights), *(1,) * (scores.ndim - 2), weights.shape[1])
    found: np.ndarray = (weights.reshape(shape) * rewards).sum(-1)
    return found


def mean_inner_product(weights: ArrayLike, scores: ArrayLike, base_mean: ArrayLike, base_sd: ArrayLike) -> np.ndarray:
    """The mean over weightings of the inner product of w and the rewards.

        mean_p sum_j w_pj r_pj,    r_j = (score_j - base mean_j) / base sd_j

    Rewards are in standard deviations of the base's own texts, so objectives of different units can be summed. The base
    itself has 0. A model that serves the objective asked for has more than one that serves both alike.

    >>> mean_inner_product([[1, 0], [0, 1]], [[3.0, 5.0], [1.0, 7.0]], [1.0, 5.0], [1.0, 2.0])
    array(1.5)

    Args:
        weights: (P, m).
        scores: (P, m), or (..., P, m): means of texts sampled at the weights; more is better.
        base_mean: (m,), or (..., m): of the base's texts.
        base_sd: (m,), or (..., m): their standard deviation, text by text; above 0.

    Returns:
        () or (...,).

    Raises:
        InputError: shapes that do not fit, or a standard deviation that is not above 0.
    """
    w, found = np.asarray(weights, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    mean, sd = np.asarray(base_mean, dtype=np.float64), np.asarray(base_sd, dtype=np.float64)
    if w.ndim != 2 or found.shape[-2:] != w.shape:
        raise InputError(f"scores of shape {found.shape} for weights of shape {w.shape}; expected (..., P, m)")
    if not (sd > 0).all():
        raise InputError(f"standard deviations {sd.tolist()} of the base's scores; expected numbers above 0")
    rewards = (found - mean[..., None, :]) / sd[..., None, :]
    return np.asarray((w * rewards).sum(-1).mean(-1))
