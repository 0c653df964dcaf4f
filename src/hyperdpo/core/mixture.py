"""The closed form of linear scalarisation: the best possible scores for given weights.

For equal temperatures β the minimiser of the scalarised loss over all score functions satisfies
softmax(β (s - s_base)) = sum_j w_j E[t(z^j) | x, y]: a mixture of the objectives' expected targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperdpo.errors import InputError

#: Mixture mass below this counts as this: a target of exactly 0 would ask for a score of minus infinity.
FLOOR = 1e-9


def mixture_scores(
    expected_targets: Tensor,
    signal: Tensor,
    mask: Tensor,
    base_scores: Tensor,
    weights: Tensor,
    temperatures: Sequence[float],
) -> Tensor:
    """The scores s = s_base + log(sum_j w_j p_j) / β that minimise the scalarised loss for each of P weightings.

    Objectives without signal in a group leave their weight to the others; where no weight remains, s = s_base.

    Args:
        expected_targets: (G, m, n), each row a distribution over the items, 0 on padding: p_j = E[t(z^j) | x, y].
        signal: (G, m) bool.
        mask: (G, n) bool.
        base_scores: (G, n).
        weights: (P, m), on the simplex.
        temperatures: m equal numbers > 0.

    Returns:
        (P, G, n); the base scores on padding.

    Raises:
        InputError: the temperatures differ (the minimiser then has no closed form).
    """
    beta = float(temperatures[0])
    if any(float(t) != beta for t in temperatures):
        raise InputError(f"temperatures {list(temperatures)}: the closed form holds for equal temperatures only")
    given = weights[:, None, :] * signal  # (P, G, m)
    total = given.sum(-1, keepdim=True)
    mixed = torch.einsum("pgm,gmn->pgn", given / total.clamp_min(FLOOR), expected_targets)
    distance = mixed.clamp_min(FLOOR).log() / beta
    return base_scores + distance.masked_fill(~mask | (total <= 0), 0)
