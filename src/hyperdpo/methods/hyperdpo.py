"""HyperDPO: one training for every w."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Conditioned, Recipe


def hyperdpo(weights: np.ndarray) -> list[Recipe]:
    """One conditioned model answers for all (P, m) weights."""
    return [Recipe((Conditioned(),)) for _ in weights]
