"""Logit mixing: one training per objective, predictions averaged where an answer is made."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Recipe, expert


def logit_mixing(weights: np.ndarray) -> list[Recipe]:
    """The m experts, all asked; at w, the average of what they say, weighted with w and normalised again.

    For language models: the next token's log-probabilities, at every step. It costs m times the computation, and
    memory for m models.
    """
    experts = tuple(expert(j, weights.shape[1]) for j in range(weights.shape[1]))
    return [Recipe(experts, tuple(map(float, w)), average="predictions") for w in weights]
