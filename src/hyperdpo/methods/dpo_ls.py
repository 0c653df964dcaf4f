"""DPO-LS: linear scalarisation, one training per w."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Fixed, Recipe


def dpo_ls(weights: np.ndarray) -> list[Recipe]:
    """A model of its own for each of the (P, m) weights, trained with Eq. (12)."""
    return [Recipe((Fixed(tuple(map(float, w))),)) for w in weights]
