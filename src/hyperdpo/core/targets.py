"""Targets t(z): the labels of a group, normalised so that they sum to 1 over its items.

Both functions return ``(targets, signal)``. ``signal`` is False for a group without information on an objective;
its targets are all 0, so its loss is 0, and :func:`hyperdpo.core.losses.mean_losses` leaves it out of the mean.

Targets do not change during training: compute them once per data set (checking the labels waits for the device).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hyperdpo.errors import InputError


def softmax_targets(labels: Tensor, mask: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """t(z) = softmax(z / temperature), for dense labels.

    >>> targets, signal = softmax_targets(torch.tensor([[1.0, 1.0, 9.0]]), torch.tensor([[True, True, False]]))
    >>> targets
    tensor([[0.5000, 0.5000, 0.0000]])

    Args:
        labels: (..., n), finite on real items; anything on padding.
        mask: bool, broadcastable to ``labels``; True = a real item.
        temperature: > 0, in the unit of the labels. With labels from 1 to 254 a temperature of 1 is one-hot.

    Returns:
        targets (..., n), which sum to 1 over the real items and are 0 on padding; signal (...), False for groups of
        fewer than 2 real items, whose targets are all 0.

    Raises:
        InputError: a label of a real item is not finite, or the temperature is not a finite number > 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"softmax targets: temperature {temperature}, expected a finite number > 0")
    labels, mask, signal = _prepared(labels, mask)
    masked = labels.masked_fill(~mask, -torch.inf)
    # The largest label is taken off before the division, so that a small temperature cannot overflow.
    exponents = (masked - masked.amax(-1, keepdim=True)) / temperature
    return torch.softmax(exponents, -1).masked_fill(~(mask & signal.unsqueeze(-1)), 0), signal


def l1_targets(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """t(z) = z / sum(z), for sparse labels that are never negative.

    >>> targets, signal = l1_targets(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.ones(2, 2, dtype=torch.bool))
    >>> targets
    tensor([[0.2500, 0.7500],
            [0.0000, 0.0000]])
    >>> signal
    tensor([ True, False])

    Args:
        labels: (..., n), finite and >= 0 on real items; anything on padding.
        mask: bool, broadcastable to ``labels``; True = a real item.

    Returns:
        targets (..., n), which sum to 1 over the real items and are 0 on padding; signal (...), False for groups
        without a signal: fewer than 2 real items, or all labels 0. Their targets are all 0.

    Raises:
        InputError: a label of a real item is negative or not finite.
    """
    labels, mask, signal = _prepared(labels, mask)
    _reject(labels, mask & (labels < 0), "labels >= 0 for l1 targets")
    labels = labels.masked_fill(~mask, 0)
    largest = labels.amax(-1, keepdim=True)
    signal = signal & (largest.squeeze(-1) > 0)
    shares = labels / largest  # in [0, 1], so that the sum neither overflows nor underflows
    return (shares / shares.sum(-1, keepdim=True)).masked_fill(~(mask & signal.unsqueeze(-1)), 0), signal


def _prepared(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Floating-point labels (..., n), the mask at their shape, and which groups have two real items (...)."""
    if not labels.is_floating_point():
        labels = labels.to(torch.get_default_dtype())
    mask = mask.expand_as(labels)
    _reject(labels, mask & ~labels.isfinite(), "finite labels")
    return labels, mask, mask.sum(-1) >= 2


def _reject(labels: Tensor, bad: Tensor, expected: str) -> None:
    """Raises for the first True of ``bad`` (..., n), with its place and value."""
    if not bad.any():
        return
    *group, position = bad.nonzero()[0].tolist()
    place = f"group {group[0] if len(group) == 1 else tuple(group)}, " if group else ""
    value = labels[(*group, position)].item()
    raise InputError(f"{place}position {position}: label {value:g}, expected {expected}")
