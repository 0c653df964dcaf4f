"""Scorers of toy texts, as ``--scorer toy_scorers:low`` finds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def low(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Share of the words w3 ... w25."""
    return np.array([np.mean([int(word[1:]) < 26 for word in text.split() or ["w99"]]) for text in texts])


def high(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Share of the other words."""
    return 1 - low(prompts, texts)
