"""Expected gains: the columns whose weighted sum is the best order for any mix of NDCGs.

NDCG_j of an order is the sum over items of g_ij / log2(1 + rank_i), with the relative gain g_ij = gain(z_ij) / IDCG_j.
IDCG_j is the largest DCG@k that the list allows. For a utility sum_j v_j NDCG_j the best order given x sorts by

    sum_j v_j E[g_ij | x]

whatever v is: every label, the main one included, is one more term.

A head u_j with the loss -sum_i g_ij log softmax(u_j)_i, g not normalised, has the minimiser E[g_j | x] / κ_j, where
κ_j = E[sum_i g_ij | x]. So column j is softmax(u_j) κ_j. (The expected share of a label, times its expected total, is
something else: share and total are correlated.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from hyperdpo.core.losses import top_one_log_probabilities

#: A column counts as at least this, so that all scores are finite.
FLOOR = 1e-9


def gain_loss(scores: Tensor, relative: Tensor, mask: Tensor) -> Tensor:
    """-sum_i g_i log softmax(s)_i, whose minimiser over s is softmax(s) = E[g] / E[sum_i g_i].

    Args:
        scores: (..., n).
        relative: (..., n), g_i >= 0; the sum need not be 1.
        mask: (..., n) bool.

    Returns:
        (...); 0 for lists without gain.

    Example:
        >>> gain_loss(torch.zeros(3), torch.tensor([1.0, 0.5, 0.0]), torch.ones(3, dtype=torch.bool))
        tensor(1.6479)
    """
    return -(relative * top_one_log_probabilities(scores, mask)).masked_fill(~mask, 0).sum(-1)


def total_loss(log_total: Tensor, total: Tensor) -> Tensor:
    """κ - T log κ, the Poisson deviance up to what does not depend on κ: its minimiser over κ is E[T].

    Args:
        log_total: log κ, any shape.
        total: T = sum_i g_i >= 0, of the same shape.

    Example:
        >>> total_loss(torch.tensor(0.0), torch.tensor(2.0))
        tensor(1.)
    """
    return log_total.exp() - total * log_total


def gain_weights(weights: Tensor, main_share: Tensor | float) -> Tensor:
    """v = ((1 - λ) w, λ): the weights of the columns, the main label's last.

    Args:
        weights: (..., m) w on the simplex.
        main_share: λ in [0, 1), one number or (...) of them.

    Returns:
        (..., m + 1).

    Example:
        >>> gain_weights(torch.tensor([0.5, 0.5]), 0.2)
        tensor([0.4000, 0.4000, 0.2000])
    """
    share = torch.as_tensor(main_share, dtype=weights.dtype, device=weights.device).expand(weights.shape[:-1])
    return torch.cat([(1 - share).unsqueeze(-1) * weights, share.unsqueeze(-1)], -1)


def gain_scores(columns: Tensor, column_weights: Tensor) -> Tensor:
    """log sum_j v_j g_ij: scores whose order is that of the weighted sum.

    Args:
        columns: (G, M, n) expected gains >= 0.
        column_weights: (K, G, M) v >= 0.

    Returns:
        (K, G, n).

    Example:
        >>> columns = torch.tensor([[[0.8, 0.2], [0.1, 0.9]]])
        >>> gain_scores(columns, torch.tensor([[[0.5, 0.5]]])).exp()
        tensor([[[0.4500, 0.5500]]])
    """
    return torch.einsum("kgm,gmn->kgn", column_weights, columns).clamp_min(FLOOR).log()
