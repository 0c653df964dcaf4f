"""The weights w, checked, as tensors of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.settings import ConditioningConfig
from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError

__all__ = ["ConditioningConfig", "Weights", "centred", "weight_rows"]

Weights = Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]]


def centred(weights: Tensor) -> Tensor:
    """w as networks see it: 0 at the middle of the simplex, entries of mean square 1 at each vertex.

    Args:
        weights: (..., m).

    Returns:
        (..., m), (m w - 1) / sqrt(m - 1).
    """
    m = weights.shape[-1]
    return (m * weights - 1) / math.sqrt(max(m - 1, 1))


def weight_rows(weights: Weights | None, num_objectives: int, rows: int, device: torch.device) -> Tensor:
    """The weights of each row of a batch.

    The values of a tensor on an accelerator are not checked: that would make it wait.

    Args:
        weights: (m,) for all rows alike, or (B, m); points of the simplex.
        num_objectives: m.
        rows: B.
        device: where the result is to be.

    Returns:
        (1, m) or (B, m), float32.

    Raises:
        InputError: none given, another shape, or not on the simplex.
    """
    if weights is None:
        raise InputError(f"weights are missing; the model needs {num_objectives}, one per objective")
    if isinstance(weights, Tensor):
        found = weights
        if weights.shape[-1:] != (num_objectives,) or weights.device.type == "cpu":
            check_weights(weights.detach().cpu().numpy(), num_objectives)
    else:
        if isinstance(weights, (list, tuple)) and any(isinstance(row, Tensor) for row in weights):
            weights = torch.stack([torch.as_tensor(row) for row in weights]).cpu().numpy()
        found = torch.from_numpy(check_weights(weights, num_objectives))
    if found.dim() == 1:
        found = found[None]
    if found.dim() != 2 or len(found) not in (1, rows):
        raise InputError(
            f"weights of shape {tuple(found.shape)} for {rows} rows, expected ({num_objectives},) or one row each"
        )
    return found.to(device=device, dtype=torch.float32)
