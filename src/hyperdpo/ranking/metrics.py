"""Ranking metrics on padded groups: NDCG and reciprocal rank, for many objectives and many weightings at once.

G groups, n items (padded). ``mask`` is (G, n) bool, True = a real item. Scores and labels may have leading dimensions
that broadcast: the scores (P, 1, G, n) of P weightings against the labels (m, G, n) of m objectives give (P, m, G).
No metric depends on the order of the items: tied scores are averaged over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hyperdpo.errors import InputError
from hyperdpo.ranking.config import NdcgSettings

#: 2^z - 1 summed over a list stays exact enough in float32, and far from overflow, up to here.
LARGEST_EXPONENT = 60


#: The convention of the paper.
PAPER_NDCG = NdcgSettings()


def ndcg(
    scores: Tensor, labels: Tensor, mask: Tensor, settings: NdcgSettings = PAPER_NDCG, ideal: Tensor | None = None
) -> Tensor:
    """Normalised discounted cumulative gain of each group.

    Tied scores get the expected value over random tie-breaking, as in ``sklearn.metrics.ndcg_score``.

    Args:
        scores: (..., G, n), finite on real items; anything on padding.
        labels: (..., G, n), >= 0 on real items; anything on padding.
        mask: (G, n), or (..., G, n) where labels are known for different items.
        settings: which NDCG.
        ideal: from :func:`ideal_dcg`, for the same labels, mask and settings, where many scores are evaluated on
            the same labels. The labels are then not checked again.

    Returns:
        (..., G), from 0 to 1; NaN for the groups that ``settings.empty = "skip"`` leaves out.

    Raises:
        InputError: a score is not finite (a diverged model would otherwise get a plausible figure); a label is
            negative or NaN; with exponential gain, a label above 60.
    """
    if not (scores.isfinite() | ~mask).all():
        raise InputError("ndcg: a score is infinite or NaN, expected finite scores")
    if ideal is None:
        ideal = ideal_dcg(labels, mask, settings)
    dcg = _expected_dcg(scores.masked_fill(~mask, -torch.inf), _gains(labels, mask, settings), settings.k)
    empty = {"skip": torch.nan, "one": 1.0, "zero": 0.0}[settings.empty]
    return torch.where(ideal > 0, dcg / ideal, empty)


def ideal_dcg(labels: Tensor, mask: Tensor, settings: NdcgSettings = PAPER_NDCG) -> Tensor:
    """The largest DCG any ranking reaches: what :func:`ndcg` divides by. 0 for groups without a positive label.

    Args:
        labels: (..., G, n).
        mask: (G, n).
        settings: which NDCG.

    Returns:
        (..., G).

    Raises:
        InputError: as :func:`ndcg`, for the labels.
    """
    valid = (labels >= 0) & labels.isfinite()
    if settings.gain == "exponential":
        valid &= labels <= LARGEST_EXPONENT
    bad = mask & ~valid
    if bad.any():
        value = labels[bad][0].item()
        if settings.gain == "exponential" and value > LARGEST_EXPONENT:
            raise InputError(
                f"ndcg: label {value:g} with exponential gain, expected at most {LARGEST_EXPONENT}: "
                "transform the label or use linear gain"
            )
        raise InputError(f"ndcg: label {value:g}, expected finite labels >= 0")
    gains = _gains(labels, mask, settings)
    best = gains.topk(_places(gains, settings.k), dim=-1).values
    return best @ _discounts(best).to(best.dtype)


def relative_gains(labels: Tensor, mask: Tensor, settings: NdcgSettings = PAPER_NDCG) -> Tensor:
    """What one item adds to NDCG where its discount is 1: its gain, divided by the ideal DCG.

    NDCG is the sum of these over the first k places, each divided by log2(1 + place).

    Args:
        labels: (..., G, n).
        mask: (G, n), or (..., G, n) where labels are known for different items.
        settings: which NDCG.

    Returns:
        (..., G, n), from 0 to 1; 0 on padding and in groups without a positive label.

    Raises:
        InputError: as :func:`ndcg`, for the labels.
    """
    ideal = ideal_dcg(labels, mask, settings).unsqueeze(-1)
    return torch.where(ideal > 0, _gains(labels, mask, settings) / ideal, 0)


def mrr(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Reciprocal rank of the first item with a positive label, of each group.

    With ties it is the reciprocal of the expected rank under random tie-breaking (not the expected reciprocal, which
    is a little larger).

    Args:
        scores: (..., G, n), finite on real items; anything on padding.
        labels: (..., G, n); what is > 0 is positive.
        mask: (G, n).

    Returns:
        (..., G), in (0, 1]; NaN for groups without a positive label.

    Raises:
        InputError: a score is not finite.
    """
    if not (scores.isfinite() | ~mask).all():
        raise InputError("mrr: a score is infinite or NaN, expected finite scores")
    positive = (labels > 0) & mask
    scores, positive = torch.broadcast_tensors(scores, positive)
    best = scores.masked_fill(~positive, -torch.inf).amax(-1, keepdim=True)
    above = ((scores > best) & mask).sum(-1)
    level = (scores == best) & mask
    level_positive = (level & positive).sum(-1)
    level_other = level.sum(-1) - level_positive
    # Of p positives among t others in random order, the first one is expected behind t / (p + 1) of the others.
    rank = above + 1 + level_other / (level_positive + 1)
    return torch.where(level_positive > 0, 1 / rank, torch.nan)


def _gains(labels: Tensor, mask: Tensor, settings: NdcgSettings) -> Tensor:
    """(..., G, n) floating point, 0 on padding."""
    if not labels.is_floating_point():
        labels = labels.to(torch.get_default_dtype())
    labels = labels.masked_fill(~mask, 0)
    return labels if settings.gain == "linear" else torch.exp2(labels) - 1


def _places(values: Tensor, k: int | None) -> int:
    """How many places of (..., n) count."""
    n = values.shape[-1]
    return n if k is None else min(k, n)


def _discounts(places: Tensor) -> Tensor:
    """1 / log2(i + 1) for the places i = 1 ... K of (..., K): (K,) float64."""
    return 1 / torch.log2(torch.arange(2, places.shape[-1] + 2, dtype=torch.float64, device=places.device))


def _expected_dcg(scores: Tensor, gains: Tensor, k: int | None) -> Tensor:
    """Expected DCG under random tie-breaking, without a sort of the whole list.

    Items of equal score share the mean discount of the places they fill together; without a tie that is the discount
    of the place itself. Only the last such class can reach beyond place k. Its items are found by comparison; each is
    as likely as the others to stand within the first k.

    Args:
        scores: (..., G, n), -inf on padding.
        gains: (..., G, n), 0 on padding.
        k: places that count.

    Returns:
        (..., G).
    """
    n, places = scores.shape[-1], _places(scores, k)
    top, indices = scores.topk(min(places + 1, n), dim=-1)  # one more place shows whether a tie crosses the end
    same = (top[..., 1:] == top[..., :-1]) & (top[..., 1:] > -torch.inf)  # equal padding needs no care
    top, indices = top[..., :places], indices[..., :places]
    lead = torch.broadcast_shapes(gains.shape[:-1], scores.shape[:-1])
    taken = gains.expand(*lead, n).gather(-1, indices.expand(*lead, places))
    discounts = _discounts(top)
    if not same.any():
        return taken @ discounts.to(taken.dtype)

    within = same[..., : places - 1]
    first = torch.nn.functional.pad(~within, (1, 0), value=True)
    final = torch.nn.functional.pad(~within, (0, 1), value=True)
    place = torch.arange(places, device=top.device).expand_as(top)
    start = place.where(first, 0).cummax(-1).values
    stop = (place + 1).where(final, places).flip(-1).cummin(-1).values.flip(-1)
    sums = torch.nn.functional.pad(discounts.cumsum(0), (1, 0))
    shared = ((sums[stop] - sums[start]) / (stop - start)).to(taken.dtype)
    dcg = (taken * shared).sum(-1)

    crossing = same[..., places - 1 :].any(-1)  # (..., G); there is no such place where the whole list counts
    rows = crossing.reshape(-1, crossing.shape[-1]).any(0)  # (G,)
    if rows.any():
        last = top[..., rows, -1:]
        level = scores[..., rows, :] == last
        mean_gain = (gains[..., rows, :] * level).sum(-1, keepdim=True) / level.sum(-1, keepdim=True)
        at_the_end = shared[..., rows, :] * (top[..., rows, :] == last)
        # 0 for a class that ends within the first k places, and for padding
        dcg[..., rows] += ((mean_gain - taken[..., rows, :]) * at_the_end).sum(-1)
    return dcg
