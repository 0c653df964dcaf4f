"""What a training logs: of a batch, as sums that add up over processes; of an evaluation, as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.collation import TokenGroup
from hyperdpo.alignment.evaluation import PaddedGroups, front_of_scores, ordered_pairs
from hyperdpo.objectives import Objective


def group_of_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """(B,): the group that each row belongs to.

    Args:
        rows: (G, n) places of a group's rows in the batch.
        mask: (G, n).
    """
    owner = torch.empty(int(mask.sum()), dtype=torch.long, device=rows.device)
    groups = torch.arange(len(rows), device=rows.device).unsqueeze(1).expand_as(rows)
    owner[rows[mask]] = groups[mask]
    return owner


def loss_sums(objectives: Sequence[Objective], losses: Tensor, signal: Tensor, name: str = "loss") -> dict[str, Tensor]:
    """(2,) by name: the sum of each objective's losses (G, m) over groups with a signal (G, m), and their number."""
    totals, counts = losses.masked_fill(~signal, 0).sum(0), signal.sum(0)
    return {f"{name}/{o.name}": torch.stack((totals[j], counts[j].to(totals))) for j, o in enumerate(objectives)}


def reward_sums(
    objectives: Sequence[Objective],
    scores: Tensor,
    base: Tensor,
    targets: Tensor,
    signal: Tensor,
    mask: Tensor,
    weights: Tensor,
    labelled: Tensor | None = None,
) -> dict[str, Tensor]:
    """Rewards β (s - s_base) and log-probabilities s as they are logged, each as a sum and the number of its terms.

    Args:
        objectives: m of them.
        scores, base: (G, n), s and s_base.
        targets: (G, m, n).
        signal: (G, m).
        mask: (G, n).
        weights: (G, m).
        labelled: (G, m, n), the responses that an objective has a label for; None: all. The best and worst response by
            the weighted targets are among those that no objective lacks, where there are two of them.

    Returns:
        (2,) by name.
    """
    rewards = scores - base
    betas = weights.new_tensor([o.beta for o in objectives])
    overall = (targets * weights.unsqueeze(-1)).sum(1)
    of_all = mask
    if labelled is not None:
        whole = (labelled | ~signal.unsqueeze(-1)).all(1) & mask
        of_all = torch.where(whole.sum(-1, keepdim=True) > 1, whole, mask)
    best, worst, margins = best_and_worst(overall, rewards * (weights @ betas).unsqueeze(-1), of_all)
    likely, unlikely, _ = best_and_worst(overall, scores, of_all)
    values = {
        "rewards/chosen": best,
        "rewards/rejected": worst,
        "rewards/margins": margins,
        "rewards/accuracies": margins > 0,
        "logps/chosen": likely,
        "logps/rejected": unlikely,
        "logps/mean": scores[mask],
    }
    # Where the weighted targets order nothing, for want of labels or of differences, no response is the best.
    ordered = best_and_worst(overall, overall, of_all)[2] > 0
    values = {name: one if name == "logps/mean" else one[ordered] for name, one in values.items()}
    pairs = {name: (one.sum(), scores.new_tensor(one.numel())) for name, one in values.items()}
    right, counted = ordered_pairs(rewards, targets, mask if labelled is None else labelled, signal)
    for j, objective in enumerate(objectives):
        has = signal[:, j]
        own = best_and_worst(targets[:, j], rewards * objective.beta, mask if labelled is None else labelled[:, j])[2]
        pairs[f"rewards/{objective.name}/margins"] = (own * has).sum(), has.sum()
        pairs[f"rewards/{objective.name}/accuracies"] = right[:, j].sum(), counted[:, j].sum()
    return {name: torch.stack((total.to(scores), count.to(scores))) for name, (total, count) in pairs.items()}


def evaluation_metrics(
    objectives: Sequence[Objective],
    groups: Sequence[TokenGroup],
    scores: Sequence[Sequence[np.ndarray]],
    base: Sequence[np.ndarray],
    grid: np.ndarray,
) -> dict[str, float]:
    """The metrics of an evaluation set, as :meth:`~hyperdpo.alignment.trainer.HyperDPOTrainer.evaluate` logs them.

    Args:
        scores: for each of the (P, m) weights of ``grid``, (n,) of each group.
        base: (n,) of each group under the base.
    """
    names, betas = [o.name for o in objectives], [o.beta for o in objectives]
    front = front_of_scores(names, groups, scores, base, grid, betas, partial=True)
    known = ~np.isnan(front.losses[0])
    weights, losses = front.weights[:, known], front.losses[:, known]
    asked = weights.sum(1) > 0  # a weighting of objectives that this set has labels of
    shares = weights[asked] / weights[asked].sum(1, keepdims=True)
    metrics = {"loss": float((shares * losses[asked]).sum(1).mean())}
    if known.all():
        metrics["hypervolume"] = front.hypervolume
    spans = front.control_span if len(names) > 1 else {}
    for j in np.flatnonzero(known):
        metrics[f"loss/{names[j]}"] = float(front.losses[:, j].mean())
        if names[j] in spans:
            metrics[f"control_span/{names[j]}"] = spans[names[j]]
    padded, sums = PaddedGroups(groups, base), dict[str, Tensor]()
    targets, signal, mask = padded.targets.double(), padded.signal, padded.mask
    for w, one in zip(torch.from_numpy(grid), scores, strict=True):
        each = w.expand(len(groups), -1)
        add_sums(
            sums,
            reward_sums(objectives, padded.padded(one), padded.reference, targets, signal, mask, each, padded.labelled),
        )
    return metrics | means(sums)


def add_sums(totals: dict[str, Tensor], sums: Mapping[str, Tensor]) -> None:
    """Add sums and numbers of terms to those of before, by name."""
    for name, both in sums.items():
        totals[name] = both if name not in totals else totals[name] + both


def means(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The means of (2,) sums and numbers of terms; names without a term are left out."""
    found = {name: both.tolist() for name, both in sums.items()}
    return {name: total / count for name, (total, count) in found.items() if count}


def best_and_worst(targets: Tensor, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards (G,) of the response with the largest target and of the one with the least, and their difference."""
    top = targets.masked_fill(~mask, -torch.inf).argmax(-1, keepdim=True)
    low = targets.masked_fill(~mask, torch.inf).argmin(-1, keepdim=True)
    best, worst = rewards.gather(-1, top).squeeze(-1), rewards.gather(-1, low).squeeze(-1)
    return best, worst, best - worst
