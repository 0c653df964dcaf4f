"""DPO Soup: one training per objective, parameters averaged."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Recipe, expert


def dpo_soup(weights: np.ndarray) -> list[Recipe]:
    """The m experts, from the same initialisation; at w, the average of their parameters weighted with w."""
    experts = tuple(expert(j, weights.shape[1]) for j in range(weights.shape[1]))
    return [Recipe(experts, tuple(map(float, w))) for w in weights]
