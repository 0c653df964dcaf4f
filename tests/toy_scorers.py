"""Scorers of toy texts, as ``--scorer toy_scorers:low`` finds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def low(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Share of the words w3 ... w25."""
    words = [[word for word in text.split() if word[1:].isdigit()] or ["w99"] for text in texts]
    return np.array([np.mean([int(word[1:]) < 26 for word in some]) for some in words])


def high(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Share of the other words."""
    return 1 - low(prompts, texts)
