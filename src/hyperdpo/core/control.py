"""Control after training: a trained model at another temperature."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hyperdpo.errors import InputError

Scores = TypeVar("Scores", np.ndarray, Tensor)


def linear_transformation(scores: Scores, base_scores: Scores | None, scale: float | Scores) -> Scores:
    """The scores at temperature c * beta of a model trained at beta, Eq. (14), up to a shift per group.

        s_c = (1 - 1/c) s_base + s / c

    A scale below 1 moves away from the base, a scale above 1 towards it. For a language model this holds for the
    log-probability of a whole response; token by token, while decoding, it is an approximation.

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
