"""Scores of many weightings of the same groups, and the front they make: metrics per point, hypervolumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from hyperdpo.core.control import linear_transformation
from hyperdpo.core.losses import listnet_dpo_loss
from hyperdpo.core.pareto import hypervolume
from hyperdpo.data.batching import GroupBatch
from hyperdpo.fronts import front_dict, grid_points, named
from hyperdpo.progress import Update
from hyperdpo.ranking.examples import Batch, Examples, Items
from hyperdpo.ranking.metrics import NdcgSettings, ideal_dcg, mrr, ndcg
from hyperdpo.ranking.parametrizations import Ranker

#: Items, times weightings, that go through a ranker at once.
PASS_ITEMS = 8192
#: Scores of P weightings for the groups of a batch, before any scale: (P, G, n).
ScoreBatch = Callable[[GroupBatch, Batch], torch.Tensor]


@dataclass(frozen=True)
class Front:
    """Metrics of P points (weights and scale) on one split."""

    objectives: tuple[str, ...]
    weights: np.ndarray
    """(P, m)."""
    scales: np.ndarray
    """(P,)."""
    temperatures: np.ndarray
    """(P, m): at which the model was asked, before the scale."""
    metrics: np.ndarray
    """(P, m): mean NDCG of each objective."""
    main: np.ndarray | None
    """(P,): mean NDCG of the main label; None where it is not known."""
    mrr: np.ndarray
    """(P, m): mean reciprocal rank."""
    cross_entropy: np.ndarray
    """(P, m): the loss vector at the temperatures of the training."""
    groups_counted: np.ndarray
    """(m,): groups that have a positive label for the objective."""
    settings: NdcgSettings
    main_shares: np.ndarray | None = None
    """(P,): λ, the main label's share; None for a model that takes none."""

    @property
    def hypervolume(self) -> float:
        """The volume that the objectives' metrics dominate, from a reference of zeros."""
        return front_hypervolume(self.metrics)

    @property
    def hypervolume_with_main(self) -> float | None:
        """With the main label's metric as one more axis."""
        return None if self.main is None else front_hypervolume(np.column_stack([self.metrics, self.main]))

    def only(self, positions: Sequence[int]) -> Front:
        """The front of some of the objectives."""
        columns = list(positions)
        return replace(
            self,
            objectives=tuple(self.objectives[j] for j in columns),
            weights=self.weights[:, columns],
            temperatures=self.temperatures[:, columns],
            metrics=self.metrics[:, columns],
            mrr=self.mrr[:, columns],
            cross_entropy=self.cross_entropy[:, columns],
            groups_counted=self.groups_counted[columns],
        )

    @staticmethod
    def joined(fronts: Sequence[Front]) -> Front:
        """The points of several fronts on the same split, one after the other."""
        first = fronts[0]
        main = None if first.main is None else np.concatenate([f.main for f in fronts if f.main is not None])

        def column(name: str) -> Any:
            return np.concatenate([getattr(front, name) for front in fronts])

        return replace(
            first,
            main=main,
            main_shares=None if first.main_shares is None else column("main_shares"),
            weights=column("weights"),
            scales=column("scales"),
            temperatures=column("temperatures"),
            metrics=column("metrics"),
            mrr=column("mrr"),
            cross_entropy=column("cross_entropy"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of ``FRONT.json`` that depend on the front alone."""
        names = self.objectives
        points = [
            {
                **({} if self.main_shares is None else {"main_share": float(self.main_shares[p])}),
                "metrics": named(names, self.metrics[p]),
                "main": None if self.main is None or np.isnan(self.main[p]) else float(self.main[p]),
                "mrr": named(names, self.mrr[p]),
                "cross_entropy": named(names, self.cross_entropy[p]),
            }
            for p in range(len(self.weights))
        ]
        metric = {"name": "ndcg", **asdict(self.settings), "description": self.settings.describe()}
        counted = {name: int(n) for name, n in zip(names, self.groups_counted, strict=True)}
        found = front_dict(self, "maximize", metric, self.temperatures, points, [0.0] * len(names))
        return found | {"groups_counted": counted}


def front_hypervolume(metrics: np.ndarray) -> float:
    """Hypervolume of (P, m) metrics to be maximised, against zeros; NaN (no group could measure it) counts as 0."""
    points = np.nan_to_num(metrics, nan=0.0)
    return hypervolume(points, np.zeros(points.shape[1]), ["maximize"] * points.shape[1])


#: Sums an array over processes.
ReduceArray = Callable[[np.ndarray], np.ndarray]


@torch.inference_mode()
def score_items(
    ranker: Ranker,
    items: Items,
    weights: np.ndarray | None,
    temperatures: Sequence[float],
    device: torch.device | str = "cpu",
    *,
    main_share: np.ndarray | None = None,
    batches: list[GroupBatch] | None = None,
    reduce: ReduceArray | None = None,
) -> np.ndarray:
    """(N,) float32 scores of the items.

    Args:
        weights: (g, m), one row per group, or None for a ranker that knows none.
        temperatures: m numbers.
        main_share: (g,) λ of each group, for a ranker that takes one; None: its own.
        batches: only these groups (a process's share); the others score 0 here.
        reduce: sums over processes.
    """
    ranker.eval()
    scores = np.zeros(items.num_items, dtype=np.float32)
    for group_batch in items.batches() if batches is None else batches:
        batch = Items.batch(items, group_batch, device)
        if weights is None:
            found = ranker(batch)
        else:
            w = _tensor(weights[group_batch.groups], device).unsqueeze(0)
            share = None if main_share is None else _tensor(main_share[group_batch.groups], device).unsqueeze(0)
            found = ranker.scores(batch, w, temperatures, share)[0]
        rows, mask = items.index(group_batch)
        scores[rows[mask]] = found.float().cpu().numpy()[mask]
    return scores if reduce is None else reduce(scores)


def ranker_scores(
    ranker: Ranker,
    weights: np.ndarray,
    temperatures: Sequence[float],
    device: torch.device | str = "cpu",
    main_share: float | None = None,
) -> ScoreBatch:
    """The (P, G, n) scores of a ranker at (P, m) weights; a ranker that knows no weights scores once.

    Args:
        main_share: λ, for a ranker that takes one; None: its own.
    """
    grid = _tensor(weights, device).unsqueeze(1)

    def score(_: GroupBatch, batch: Batch) -> torch.Tensor:
        # A network without conditions (of a mixture, or for one w) runs once for all weightings.
        conditioned = ranker.scorer.num_conditions > 0
        per_pass = max(PASS_ITEMS // max(batch.mask.numel(), 1), 1) if conditioned else len(grid)
        groups = len(batch.mask)
        if ranker.scorer.shares_blocks and batch.hidden is None:  # once for all passes
            batch = replace(batch, hidden=ranker.scorer.before_conditions(batch.features, batch.mask))
        return torch.cat(
            [
                ranker.scores(batch, part.expand(-1, groups, -1), temperatures, main_share)
                for part in grid.split(per_pass)
            ]
        )

    return score


@torch.inference_mode()
def evaluate_front(
    score: ScoreBatch,
    examples: Examples,
    weights: np.ndarray,
    scales: Sequence[float] | np.ndarray,
    betas: Sequence[float],
    settings: NdcgSettings,
    *,
    device: torch.device | str = "cpu",
    batches: list[GroupBatch] | None = None,
    reduce: ReduceArray | None = None,
    with_losses: bool = True,
    update: Update | None = None,
) -> Front:
    """Metrics of every pair of weights and scale.

    Args:
        score: the model at the (P, m) weights.
        scales: C scales; the front has P x C points, weights running fastest.
        betas: the temperatures of the scores, and of the cross-entropy.
        batches: only these groups (a process's share).
        reduce: sums an array over processes.
        with_losses: False leaves cross-entropy and reciprocal rank out (they are NaN), for speed.
        update: called with the items done.
    """
    m, points = len(examples.labels), len(weights) * len(scales)
    main = examples.main_gains
    shape = (4, points, examples.measured_gains.shape[1])
    sums, counts, done = np.zeros(shape), np.zeros(shape), 0
    for group_batch in examples.batches() if batches is None else batches:
        batch = examples.batch(group_batch, device)
        raw = score(group_batch, batch).float()
        scaled = torch.cat([linear_transformation(raw, batch.base_scores, float(c)) for c in scales])
        labels, mask = (one.to(device) for one in examples.measured(group_batch))
        ideal = ideal_dcg(labels, mask, settings)
        counted = examples.label_weights
        share = None if counted is None else torch.as_tensor(counted[group_batch.groups].T, device=device)
        found = ndcg(scaled[:, None], labels, mask, settings, ideal)
        _add(sums[0], counts[0], found, share)
        _add(sums[3], counts[3], found)
        if with_losses:
            _add(sums[1], counts[1], mrr(scaled[:, None], labels, mask), share)
            for p in range(points):
                loss = listnet_dpo_loss(scaled[p], batch.base_scores, batch.targets, batch.label_mask, betas)
                weight = batch.signal.double() if share is None else batch.signal * share[:m].T.double()
                sums[2, p, :m] += (loss.masked_fill(~batch.signal, 0) * weight).sum(0).cpu().numpy()
                counts[2, p, :m] += weight.sum(0).cpu().numpy()
        done += int(batch.mask.sum())
        if update is not None:
            update(done)
    if reduce is not None:
        sums, counts = reduce(sums), reduce(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
    return Front(
        objectives=tuple(label.name for label in examples.labels),
        **grid_points(weights, scales),
        temperatures=np.tile(np.asarray(betas, dtype=np.float64), (points, 1)),
        metrics=means[0, :, :m],
        main=None if main is None else means[0, :, m],
        mrr=means[1, :, :m],
        cross_entropy=means[2, :, :m],
        groups_counted=counts[3, 0, :m],
        settings=settings,
    )


def _add(sums: np.ndarray, counts: np.ndarray, values: torch.Tensor, weights: torch.Tensor | None = None) -> None:
    """Add (P, L, G) values, NaN where a group does not count, to (P, L) sums and counts, with (L, G) weights."""
    values = values.double()
    share = torch.ones_like(values) if weights is None else weights.double()
    sums += (values * share).nansum(-1).cpu().numpy()
    counts += (share * ~values.isnan()).sum(-1).cpu().numpy()


def _tensor(values: np.ndarray, device: torch.device | str) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)
