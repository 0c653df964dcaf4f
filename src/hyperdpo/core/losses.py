"""The losses: from scores and targets to one loss per group and objective, to the loss vector, to the number minimised.

G groups, n items (padded), m objectives. ``mask`` is (G, n) bool, True = a real item. Nothing here waits for the
device, so every function can stand in the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hyperdpo.errors import InputError, counted

#: Sums a tensor over all processes, elementwise, and returns the sum to each of them.
Reduce = Callable[[Tensor], Tensor]


def sum_over_processes(local: Tensor) -> Tensor:
    """The :data:`Reduce` of torch's process group: the sum, whose gradient reaches the local part only."""
    total = local.detach().clone()
    torch.distributed.all_reduce(total)
    return local + (total - local.detach())


def plackett_luce_log_likelihood(scores: Tensor, ranking: Tensor, mask: Tensor | None = None) -> Tensor:
    """Log-probability of a ranking under the Plackett-Luce model: the logarithm of Eq. (8).

        sum_i [ s_{ranking_i} - log sum_{k >= i} exp s_{ranking_k} ]

    >>> plackett_luce_log_likelihood(torch.zeros(3), torch.tensor([2, 0, 1])).exp()  # one of 3! rankings
    tensor(0.1667)

    Args:
        scores: (..., n).
        ranking: (..., n) long; ``ranking[..., i]`` is the index of the item at place i.
        mask: (..., n) bool or None for "all items are real". With a mask, the first (number of real items) places
            of the ranking count and must name the real items; what stands after them is ignored.

    Returns:
        (...), <= 0.
    """
    if mask is None:
        ordered, filled = scores.gather(-1, ranking), torch.ones_like(ranking, dtype=torch.bool)
    else:
        filled = torch.arange(ranking.shape[-1], device=ranking.device) < mask.sum(-1, keepdim=True)
        ordered = scores.gather(-1, ranking.masked_fill(~filled, 0)).masked_fill(~filled, torch.finfo(scores.dtype).min)
    remaining = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return (ordered - remaining).masked_fill(~filled, 0).sum(-1)


def top_one_log_probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    """Log-probability that each item comes first: the log-softmax over the real items.

    >>> top_one_log_probabilities(torch.zeros(3), torch.tensor([True, True, False])).exp()
    tensor([0.5000, 0.5000, 1.0000])

    Args:
        scores: (..., n); anything on padding, NaN included.
        mask: bool, broadcastable with ``scores``.

    Returns:
        (..., n), 0 (not -inf) on padding, so that a product with targets that are 0 there is 0. Gradients are finite,
        and 0 on padding.
    """
    # The lowest finite number instead of -inf: a row of padding alone is then not NaN anywhere on the way, which
    # torch's anomaly detection would stop at.
    masked = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.log_softmax(masked, -1).masked_fill(~mask, 0)


def listnet_loss(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """ListNet: the cross-entropy between targets and top-one probabilities, Eq. (9), group by group.

        l_gj = - sum_i t_gji log softmax(s_g)_i

    >>> targets = torch.tensor([[1.0, 0.0]])
    >>> listnet_loss(torch.zeros(1, 2), targets, torch.ones(1, 2, dtype=torch.bool))  # ln 2
    tensor([0.6931])

    Args:
        scores: (G, n).
        targets: (G, n), or (G, m, n) for m objectives on the same scores; 0 on padding.
        mask: (G, n); or (G, m, n) where an objective has no label for some of the items: its softmax then runs over
            the items that it has labels for.

    Returns:
        (G,), or (G, m): not reduced. With a mask (G, n) one log-softmax serves all objectives.
    """
    if mask.dim() > scores.dim():
        scores = scores.unsqueeze(-2)
    log_probabilities = top_one_log_probabilities(scores, mask)
    if targets.dim() > log_probabilities.dim():
        log_probabilities = log_probabilities.unsqueeze(-2)
    return -(targets * log_probabilities).sum(-1)  # on a CPU twice as fast as a batched matrix-vector product


def listnet_dpo_loss(
    scores: Tensor, base_scores: Tensor, targets: Tensor, mask: Tensor, temperatures: Sequence[float] | Tensor
) -> Tensor:
    """ListNet on the scores' distance from the base, Eq. (10), group by group and objective by objective.

        l_gj = - sum_i t_gji log softmax(beta_j (s_g - s_base,g))_i

    With equal temperatures all objectives share one log-softmax: m times less work. This is used for a sequence of
    numbers or a CPU tensor. Temperatures on another device, or with a gradient, take the general path: comparing them
    would wait for the device.

    >>> scores, base, mask = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    >>> targets = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    >>> listnet_dpo_loss(scores, base, targets, mask, [1.0, 0.5])  # as far from the base everywhere: ln 2
    tensor([[0.6931, 0.6931]])

    Args:
        scores: (G, n).
        base_scores: (G, n), of the frozen model.
        targets: (G, m, n); 0 on padding.
        mask: (G, n); or (G, m, n), as for :func:`listnet_loss`.
        temperatures: m numbers > 0, beta in the paper: a sequence, a tensor (m,), or a tensor (G, m) with those of
            each group.

    Returns:
        (G, m): not reduced.

    Raises:
        InputError: there are not m temperatures, or one that can be seen is not a finite number > 0.
    """
    m = targets.shape[-2]
    found = temperatures.shape[-1] if isinstance(temperatures, Tensor) else len(temperatures)
    if found != m:
        raise InputError(f"{counted(found, 'temperature')} for {counted(m, 'objective')}, expected one per objective")
    distance = scores - base_scores
    if isinstance(temperatures, Tensor) and (
        temperatures.dim() > 1 or temperatures.device.type != "cpu" or temperatures.requires_grad
    ):
        scaled = temperatures.to(distance).unsqueeze(-1) * distance.unsqueeze(-2)
    else:
        values = [float(value) for value in temperatures]
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise InputError(f"temperatures {values}, expected finite numbers > 0")
        if values.count(values[0]) == m:
            return listnet_loss(values[0] * distance, targets, mask)
        scaled = torch.stack([value * distance for value in values], dim=-2)  # a tensor of them would have to be copied
    per_objective = mask if mask.dim() > scores.dim() else mask.unsqueeze(-2)
    return -(targets * top_one_log_probabilities(scaled, per_objective)).sum(-1)


def mean_losses(
    group_losses: Tensor, signal: Tensor, reduce: Reduce | None = None, counts: Tensor | None = None
) -> Tensor:
    """The loss vector of Eq. (7) and Eq. (11): per objective the mean over the groups with signal.

    >>> losses = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    >>> mean_losses(losses, torch.tensor([[True, True], [True, False]]))
    tensor([2., 2.])

    Args:
        group_losses: (G, m).
        signal: (G, m) bool; False leaves the group out of that objective's mean.
        reduce: sums over processes. Sums and counts both go through it, in one call, so every process returns the
            value over all groups. Its gradient reaches the local groups only; where gradients are then *averaged*
            over processes (DDP), multiply the loss by the number of processes.
        counts: (m,) to divide by, instead of the groups with signal in these G. A constant makes a sum of batches the
            mean over all groups, however many of them a batch holds.

    Returns:
        (m,), at least float32. An objective without any group with signal gives 0, with a gradient of 0.
    """
    dtype = torch.promote_types(group_losses.dtype, torch.float32)  # a count does not fit into half precision
    sums = group_losses.to(dtype).masked_fill(~signal, 0).sum(0)
    totals = torch.stack((sums, signal.sum(0).to(dtype)))
    if reduce is not None:
        totals = reduce(totals)
    return totals[0] / (totals[1].clamp_min(1) if counts is None else counts)


def average_counts(signal: Tensor, batches: float) -> Tensor:
    """The groups with signal that a batch holds on average: the ``counts`` with which every group weighs the same.

    Divided by its own number of groups with signal, a batch without any would count as a loss of 0. An objective whose
    labels cover few groups would lose weight, by an amount that depends on the size of the batches.

    >>> average_counts(torch.tensor([[True, True], [True, False], [True, True], [True, False]]), batches=2)
    tensor([2., 1.])

    Args:
        signal: (N, m) bool, of all groups of the training data.
        batches: number of batches in an epoch: N / B for batches of B groups.

    Returns:
        (m,) float32, n_j / batches with n_j the groups with signal, or 1 where there are none.
    """
    return (signal.sum(0).clamp_min(1).double() / batches).float()


def scalarise(losses: Tensor, weights: Tensor) -> Tensor:
    """Linear scalarisation w^T L, Eq. (12).

    >>> scalarise(torch.tensor([1.0, 3.0]), torch.tensor([0.75, 0.25]))
    tensor(1.5000)

    Args:
        losses: (..., m).
        weights: (..., m), on the simplex.

    Returns:
        (...).
    """
    return (losses * weights).sum(-1)


def cosine_penalty(losses: Tensor, weights: Tensor) -> Tensor:
    """G_w, the penalty of section 3.3: minus the cosine of the angle between the weights and the loss vector.

    >>> cosine_penalty(torch.tensor([2.0, 2.0]), torch.tensor([0.5, 0.5]))
    tensor(-1.0000)

    Args:
        losses: (..., m).
        weights: (..., m).

    Returns:
        (...), from -1 to 1. Where either vector is 0 the angle is not defined: 0, with a gradient of 0.
    """
    norms = torch.linalg.vector_norm(losses, dim=-1) * torch.linalg.vector_norm(weights, dim=-1)
    defined = norms > 0
    cosines = scalarise(losses, weights) / torch.where(defined, norms, 1)
    return -torch.where(defined, cosines, 0)


def hypernet_loss(
    group_losses: Tensor,
    signal: Tensor,
    weights: Tensor,
    penalty: float = 0.0,
    reduce: Reduce | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """The number a training step minimises: Eq. (13) for one batch.

    With one w for the batch: w^T L + penalty * G_w(L), where L is the loss vector of the batch. Objectives without
    signal in the batch are left out of the penalty's two vectors.

    With one w per group: sum_j (sum_g w_gj l_gj) / (groups with signal for j), plus penalty times the mean over groups
    of G_{w_g}(l_g). This penalty is a surrogate: G_w is defined on an expectation, which a single group does not
    give. Objectives without signal in a group are left out of its two vectors (0 if no weight remains), and groups
    without any signal out of the mean. With the same w in every row and no penalty, both forms are equal.

    >>> losses, signal = torch.tensor([[1.0, 3.0], [2.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool)
    >>> hypernet_loss(losses, signal, torch.tensor([0.5, 0.5]))
    tensor(1.7500)
    >>> hypernet_loss(losses, signal, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # one w per group
    tensor(1.)

    Args:
        group_losses: (G, m), from :func:`listnet_dpo_loss`.
        signal: (G, m) bool.
        weights: (m,), or (G, m) for one w per group.
        penalty: lambda in the paper.
        reduce: sums over processes; see :func:`mean_losses`.
        counts: (m,) divisors of the scalarised part; see :func:`mean_losses`. The penalty takes the batch's means.

    Returns:
        A scalar.

    Raises:
        InputError: the weights have neither shape.
    """
    groups, m = group_losses.shape
    if weights.shape == (m,):
        loss = scalarise(mean_losses(group_losses, signal, reduce, counts), weights)
        if not penalty:
            return loss
        losses = mean_losses(group_losses, signal, reduce)
        given = mean_losses(signal.to(losses.dtype), signal, reduce)  # 1 for an objective with signal, else 0
        return loss + penalty * cosine_penalty(losses, weights * given)
    if weights.shape != (groups, m):
        raise InputError(f"weights of shape {tuple(weights.shape)}, expected ({m},) or ({groups}, {m})")
    loss = mean_losses(group_losses * weights, signal, reduce, counts).sum()
    if not penalty:
        return loss
    cosines = cosine_penalty(group_losses.masked_fill(~signal, 0), weights.masked_fill(~signal, 0))
    surrogate = mean_losses(cosines.unsqueeze(-1), signal.any(-1, keepdim=True), reduce)
    return loss + penalty * surrogate.squeeze(-1)
