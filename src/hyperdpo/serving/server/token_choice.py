"""The next token of every row of a batch: the most likely, or one that is drawn with random numbers of the row's own.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenChoice:
    """How a row's tokens are chosen.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: draw from the fewest most likely tokens whose probabilities sum to at least this.
        rng: of the row alone, so that what is drawn does not depend on other rows.
    """

    temperature: float
    top_p: float
    rng: np.random.Generator


@torch.inference_mode()
def next_tokens(logits: Tensor, choices: Sequence[TokenChoice]) -> list[int]:
    """N tokens from (N, V) logits. Every row's is the one that it would have alone."""
    tokens = logits.argmax(-1)
    for nucleus in (False, True):
        rows = [i for i, c in enumerate(choices) if c.temperature > 0 and (c.top_p < 1) == nucleus]
        if rows:
            tokens[rows] = _drawn(logits[rows], [choices[i] for i in rows], nucleus)
    return [int(token) for token in tokens.tolist()]


def _drawn(logits: Tensor, choices: Sequence[TokenChoice], nucleus: bool) -> Tensor:
    """(N,): inverts the distribution function at one uniform number for each row."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    # The largest is 0 before the division, so that no temperature, however small, divides to infinity minus infinity.
    shifted = logits.double() - logits.double().amax(-1, keepdim=True)
    probabilities = (shifted / column([max(c.temperature, 1e-6) for c in choices])).softmax(-1)
    order = None
    if nucleus:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= column([c.top_p for c in choices]), 0)
    heights = probabilities.cumsum(-1)
    wanted = column([c.rng.random() for c in choices]) * heights[:, -1:]
    places = torch.searchsorted(heights, wanted, right=True).clamp_max(logits.shape[-1] - 1)
    return (places if order is None else order.gather(-1, places)).squeeze(-1)
