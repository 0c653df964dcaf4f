"""Control after training: a trained model at other temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hyperdpo.core.point import check_temperatures
from hyperdpo.errors import InputError

Scores = TypeVar("Scores", np.ndarray, Tensor)

#: How far two temperature vectors may be from proportional, entry by entry: decimals in a file, float32.
PROPORTION_TOLERANCE = 1e-6


def normalised_temperatures(temperatures: Scores) -> Scores:
    """The point β / |β|_1 of the simplex: what a network sees of β for
    :func:`temperature_transformation`.

    >>> normalised_temperatures(np.array([1.0, 3.0]))
    array([0.25, 0.75])

    Args:
        temperatures: (..., m) numbers > 0, numpy or torch.

    Returns:
        As ``temperatures``.
    """
    total: Scores = temperatures.sum(-1)[..., None]
    return temperatures / total


def proportional_scale(temperatures: ArrayLike | Tensor, trained: ArrayLike | Tensor) -> float | None:
    """The scale c that turns the temperatures of a training into others: temperatures = c * trained.

    >>> proportional_scale([1.0, 3.0], trained=[0.5, 1.5])
    2.0

    Args:
        temperatures: m numbers > 0.
        trained: m numbers > 0.

    Returns:
        c, for :func:`linear_transformation`; None if they are not proportional within 1e-6.

    Raises:
        InputError: a value that is not a finite number > 0, or different lengths.
    """
    have = check_temperatures(trained, len(trained) if isinstance(trained, Sequence | np.ndarray | Tensor) else 1)
    wanted = check_temperatures(temperatures, len(have))
    scale = float(wanted.sum() / have.sum())
    return scale if (np.abs(wanted - scale * have) <= PROPORTION_TOLERANCE * wanted).all() else None


def linear_transformation(scores: Scores, base_scores: Scores | None, scale: float | Scores) -> Scores:
    """The scores at temperature c * beta of a model trained at beta, Eq. (14), up to a shift per group.

        s_c = (1 - 1/c) s_base + s / c

    A scale below 1 moves away from the base, a scale above 1 towards it. For a language model this holds for the
    log-probability of a whole response; token by token, while decoding, it is an approximation.

    >>> linear_transformation(np.array([4.0, 0.0]), np.array([0.0, 2.0]), scale=2.0)
    array([2., 1.])

    Args:
        scores: (G, n) or any shape, numpy or torch.
        base_scores: the same shape. Not needed, and may be None, when ``scale`` is the number 1.
        scale: c, a number > 0; or an array broadcastable to ``scores``, such as (G, 1) for one scale per group. The
            values of a tensor are not checked while torch traces (compile, export).

    Returns:
        As ``scores``; the same object when ``scale`` is the number 1.

    Raises:
        InputError: a scale is not a finite number > 0, or there are no base scores and the scale is not 1.
    """
    if isinstance(scale, (int, float, np.generic)):
        factor = float(scale)
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"scale {scale}, expected a finite number > 0")
        if factor == 1:
            return scores
        scale = factor
    elif not torch.compiler.is_compiling():
        bad = ~((scale > 0) & (scale < math.inf))
        if bad.any():
            raise InputError(f"scale {float(scale[bad][0])}, expected finite numbers > 0")
    if base_scores is None:
        raise InputError("a scale other than 1 needs base scores, found none")
    return (1 - 1 / scale) * base_scores + scores / scale


def temperature_transformation(
    scores: Scores, base_scores: Scores | None, temperatures: Sequence[float] | np.ndarray | Tensor
) -> Scores:
    """The scores at β of a model whose network sees β / |β|_1 only, Eq. (19).

        s(w, β) = (1 - 1/|β|_1) s_base + s(w, β/|β|_1) / |β|_1

    It is :func:`linear_transformation` with a scale of |β|_1: the trained model answers at temperatures that sum to 1.

    >>> temperature_transformation(np.array([4.0, 0.0]), np.array([0.0, 2.0]), [0.5, 1.5])
    array([2., 1.])

    Args:
        scores: (..., n), numpy or torch: of a network given :func:`normalised_temperatures`.
        base_scores: the same shape. May be None for one vector of numbers, not a tensor, whose sum is 1.
        temperatures: (m,) numbers > 0; or (G, m), one vector per group, for scores (..., G, n). The values of a
            tensor are not checked while torch traces (compile, export).

    Returns:
        As ``scores``, of the same dtype.

    Raises:
        InputError: a temperature is not a finite number > 0, or base scores are needed and there are none.
    """
    if isinstance(temperatures, Tensor):
        if not torch.compiler.is_compiling():
            _check_positive(temperatures[~((temperatures > 0) & (temperatures < math.inf))])
        if isinstance(scores, Tensor):
            return linear_transformation(scores, base_scores, temperatures.to(scores).sum(-1, keepdim=True))
        temperatures = temperatures.detach().cpu().numpy()
    array = np.asarray(temperatures, dtype=np.float64)
    _check_positive(array[~(np.isfinite(array) & (array > 0))])
    if array.ndim == 1:
        return linear_transformation(scores, base_scores, float(array.sum()))
    norms = array.sum(-1, keepdims=True)
    if isinstance(scores, Tensor):
        return linear_transformation(scores, base_scores, torch.as_tensor(norms).to(scores))
    return linear_transformation(scores, base_scores, norms.astype(scores.dtype))


def _check_positive(bad: np.ndarray | Tensor) -> None:
    """Raises for the first of the temperatures that were found to be wrong."""
    if len(bad):
        raise InputError(f"temperature {float(bad[0]):g}, expected finite numbers > 0")
