"""HyperDPO: one training for every w."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Answer, Conditioned


def hyperdpo(weights: np.ndarray) -> list[Answer]:
    """One conditioned model answers for all (P, m) weights."""
    return [Answer((Conditioned(),)) for _ in weights]
