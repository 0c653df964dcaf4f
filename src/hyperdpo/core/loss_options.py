"""Options of the listwise DPO loss that users of TRL know from pairs: smoothed labels, an anchor on the best response,
and less weight on what makes a response long.

G groups, n items (padded), m objectives. For pairs with labels of 0 and 1 each is the option of the same name in TRL.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from hyperdpo.errors import InputError

#: What label smoothing takes noise in the labels for: see :func:`smoothed_targets`.
Smoothing: TypeAlias = Literal["robust", "conservative"]


def smoothed_targets(targets: Tensor, mask: Tensor, rate: float, kind: Smoothing = "robust") -> Tensor:
    """Targets of labels that are wrong now and then.

    The noise: with probability 2 rate the labels of a group say nothing, so that their target is uniform. For a pair
    this swaps chosen and rejected with probability ``rate``. With n items that have a label,

        robust:        t'_i = (t_i - 2 rate / n) / (1 - 2 rate)
        conservative:  t'_i = (1 - 2 rate) t_i + 2 rate / n

    ``robust`` undoes the noise: over its draws the loss is on average the loss at the true targets. Some targets are
    then negative, and the loss has no lower bound. For pairs it is robust DPO, TRL's ``loss_type="robust"``.
    ``conservative`` is the average target of a true label that was passed through the noise: for pairs, cDPO.

    >>> import torch
    >>> pair, both = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[True, True]])
    >>> smoothed_targets(pair, both, 0.1, "conservative")
    tensor([[[0.9000, 0.1000]]])
    >>> smoothed_targets(pair, both, 0.1)
    tensor([[[ 1.1250, -0.1250]]])

    Args:
        targets: (G, m, n), 0 on padding.
        mask: (G, n), or (G, m, n) where an objective has no label for some of the items.
        rate: from 0 to below 0.5.

    Returns:
        (G, m, n); 0 off the mask. Their sum is that of ``targets`` where it is 1.

    Raises:
        InputError: the rate is out of its range.
    """
    if not 0 <= rate < 0.5:
        raise InputError(f"label_smoothing is {rate}; expected a number from 0 to below 0.5")
    if mask.dim() < targets.dim():
        mask = mask.unsqueeze(-2)
    uniform = mask.to(targets) / mask.sum(-1, keepdim=True).clamp_min(1)
    if kind == "conservative":
        return ((1 - 2 * rate) * targets + 2 * rate * uniform).masked_fill(~mask, 0)
    return ((targets - 2 * rate * uniform) / (1 - 2 * rate)).masked_fill(~mask, 0)


def desensitised_scores(scores: Tensor, tails: Tensor, alpha: float) -> Tensor:
    """Scores that a long response cannot win by its length alone (LD-DPO).

    The tokens beyond the length of the group's shortest response, its tail, count alpha times:

        s_i = sum_{k <= L} log p(y_ik) + alpha sum_{k > L} log p(y_ik),    L = min_i |y_i|

    It applies to the model and to its base alike.

    >>> import torch
    >>> desensitised_scores(torch.tensor([-3.0, -8.0]), torch.tensor([0.0, -4.0]), 0.5)
    tensor([-3., -6.])

    Args:
        scores: (...), sums over all tokens of a response.
        tails: (...), sums over the tail.
        alpha: from 0, the tail does not count, to 1, the scores are what they were.
    """
    return scores - (1 - alpha) * tails


def best_items(targets: Tensor, mask: Tensor) -> Tensor:
    """(G, m, n) bool: the items with the largest target of each objective, several of them where they tie.

    Args:
        targets: (G, m, n).
        mask: (G, n) or (G, m, n), the items that count.
    """
    if mask.dim() < targets.dim():
        mask = mask.unsqueeze(-2)
    top = targets.masked_fill(~mask, -float("inf")).amax(-1, keepdim=True)
    return (targets == top) & mask


def anchor_losses(scores: Tensor, targets: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """The negative log-likelihood of each objective's best item: the anchor of RPO, TRL's loss type ``sft``.

        a_gj = - (1 / |B_gj|) sum_{i in B_gj} s_gi / L_j,    B_gj the items with the largest target

    L_j is the average length of these items. So the mean of a_gj over groups is a mean over tokens.

    >>> import torch
    >>> scores, both = torch.tensor([[-6.0, -9.0]]), torch.tensor([[True, True]])
    >>> anchor_losses(scores, torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]), both, torch.tensor([3.0, 3.0]))
    tensor([[3.0000, 2.5000]])

    Args:
        scores: (G, n), summed log-probabilities.
        targets: (G, m, n).
        mask: (G, n) or (G, m, n), the items that have a label.
        lengths: (m,), L.

    Returns:
        (G, m): not reduced.
    """
    best = best_items(targets, mask).to(scores)
    mean = (best * scores.unsqueeze(-2)).sum(-1) / best.sum(-1).clamp_min(1)
    return -mean / lengths
