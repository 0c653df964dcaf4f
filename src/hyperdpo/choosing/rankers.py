"""Metrics of a ranker for the choice of a point: NDCG of every objective and of main, by group, at any points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperdpo.choosing.choice import Sample
from hyperdpo.choosing.edge import AtParts, edge_sums, in_blocks, order_keys
from hyperdpo.choosing.scales import SHARES
from hyperdpo.choosing.search import WEIGHT_PARTS, Box, Space, written_box
from hyperdpo.core.control import linear_transformation
from hyperdpo.core.gains import gain_scores, gain_weights
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.splits import Part
from hyperdpo.objectives import MAIN
from hyperdpo.ranking.evaluation import ranker_scores
from hyperdpo.ranking.examples import Batch, Examples, Items
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.metrics import NdcgSettings, ideal_dcg, ndcg
from hyperdpo.ranking.parametrizations import MixtureRanker
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.sources import read_data

#: Scores, of all weightings, whose metrics are computed at once.
PASS_SCORES = 2_000_000
#: The largest factor between searched temperatures and the run's, for a ranker that answers at any.
MIXTURE_SPREAD = 2.0
#: Kept bytes of what a scorer computes before it sees weights: a million documents of width 64.
KEPT_BYTES = 256_000_000


def trained_box(run: RankRun) -> Box | None:
    """The ends of the temperatures that a ``temperature`` run was trained on, rounded inwards; None: another run.

    Its network was never trained beyond them, so nothing goes there.
    """
    if run.config.parametrization != "temperature":
        return None
    return written_box(*run.config.temperatures.box(len(run.objectives)))


def rank_space(
    run: RankRun, scales: tuple[float, ...], *, fixed_temperatures: bool = False, main_share: float | None = None
) -> Space:
    """Where the points of a run may lie.

    A mixture answers at any temperatures; each is searched from half the run's to twice it. A temperature ranker is
    searched where it was trained, see :func:`trained_box`. For expected gains the share λ is searched.

    Args:
        main_share: the only λ, for expected gains.

    Raises:
        InputError: a share that is out of range, or for a run that takes none.
    """
    betas, box = tuple(run.betas), trained_box(run)
    if main_share is not None:
        run.share(main_share, 1)
    if run.ranker.takes_main_share:
        return Space(betas, scales, shares=SHARES if main_share is None else (float(main_share),))
    if fixed_temperatures or not run.ranker.takes_temperatures:
        return Space(betas, scales)
    if box is not None:
        return Space(betas, scales, box, trained=True)
    return Space(betas, scales, written_box([b / MIXTURE_SPREAD for b in betas], [b * MIXTURE_SPREAD for b in betas]))


def rank_part(run: RankRun, data: Any, split: str) -> tuple[str, Part]:
    """The groups that a point is chosen on, and what they are called.

    Args:
        data: a file or directory, or a part (used as it is for ``auto`` and ``all``).
        split: ``auto``: the validation groups of the run's own data (its test groups where it has none), all groups of
            other data. Otherwise as :meth:`RankRun.part`.

    Raises:
        InputError: a split that the data are not part of, or files that cannot be read.
    """
    if isinstance(data, Part):
        return ("given", data) if split in ("auto", "all") else run.part(data.table, split)
    source = Path(data)
    if source.is_dir():
        table, name = read_data(source, run, "validation" if split == "auto" else split)
        return str(name), Part.whole(table)
    table, _ = read_data(source, run, split)
    own = [name for name, known in run.data["fingerprints"].items() if known == table.fingerprint != ""]
    if split == "auto":
        # Validation groups have chosen the epoch at most; test groups are left for judging the choice.
        split = next((name for name in ("validation", "test") if name in own), "auto")
    return run.part(table, split)


def metric_names(run: RankRun) -> tuple[str, ...]:
    """The objectives' names, and ``main`` where there is a main label: no objective has that name."""
    return run.objectives if run.config.main is None else (*run.objectives, MAIN)


def rank_sample(
    run: RankRun,
    examples: Examples,
    *,
    device: torch.device | str = "cpu",
    description: str = "",
    settings: NdcgSettings | None = None,
    kept_bytes: int = KEPT_BYTES,
) -> Sample:
    """The groups of :meth:`RankRun.examples` as a sample; the metrics are those of :meth:`RankRun.front`.

    Args:
        settings: another NDCG than the run's own.
        kept_bytes: how much is kept of the layers below a conditioned head.
    """
    measure = PointMeasure(run, examples, device, settings, kept_bytes)
    names = metric_names(run) if examples.main_gains is not None else run.objectives
    return Sample(
        names=names,
        larger_is_better=(True,) * len(names),
        counts=measure.counts,
        measure=measure,
        base=measure.base(),
        description=description,
        edge=measure.edge if len(run.objectives) == 2 else None,
    )


class PointMeasure:
    """(P, 2 m + 1) points -> (P, K, G) NDCG times the group's weight, 0 where a group has none. One more number is the
    share λ.

    The heads of a mixture and expected gains do not depend on the point, nor do the layers below a conditioned head.
    They are computed once for all calls (the last up to ``kept_bytes``, the rest once per call).

    Args:
        settings: another NDCG than the run's own.
    """

    def __init__(
        self,
        run: RankRun,
        examples: Examples,
        device: torch.device | str = "cpu",
        settings: NdcgSettings | None = None,
        kept_bytes: int = KEPT_BYTES,
    ):
        self.run, self.examples, self.device, self.kept_bytes = run, examples, device, kept_bytes
        run.ranker.eval()
        self.settings = settings or run.config.metric
        self.gains = examples.measured_gains
        self.batches = examples.batches()
        self.counts = np.zeros((self.gains.shape[1], len(examples.sizes)))
        self._ideal: list[torch.Tensor] = []
        for group_batch in self.batches:
            labels, mask = self._labels(group_batch)
            ideal = ideal_dcg(labels, mask, self.settings)
            self._ideal.append(ideal)
            counted = ideal > 0 if self.settings.empty == "skip" else torch.ones_like(ideal, dtype=torch.bool)
            self.counts[:, group_batch.groups] = counted.cpu().numpy()
        #: (K, G), or 1: how much a group counts in the mean of a metric.
        self.weights = 1.0 if examples.label_weights is None else examples.label_weights.T
        self.counts *= self.weights
        self._columns: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._hidden: dict[int, Batch] = {}
        self._hidden_bytes = 0

    def _labels(self, group_batch: GroupBatch) -> tuple[torch.Tensor, torch.Tensor]:
        labels, mask = self.examples.measured(group_batch)
        return labels.to(self.device), mask.to(self.device)

    @torch.inference_mode()
    def __call__(self, points: np.ndarray) -> np.ndarray:
        m = len(self.run.objectives)
        sums = np.zeros((len(points), *self.counts.shape))
        dials = self._dials(points)
        vectors, of_point = np.unique(points[:, m + 1 : 2 * m + 1], axis=0, return_inverse=True)
        for number, group_batch in enumerate(self.batches):
            batch: Batch | None = None
            for v, betas in enumerate(vectors):
                chosen = np.flatnonzero(of_point.reshape(-1) == v)
                asked, which = np.unique(dials[chosen], axis=0, return_inverse=True)
                batch = batch or self._batch(number, group_batch)
                raw = self._scores(number, group_batch, batch, asked, betas)
                base = self._base(group_batch).to(raw)
                size = max(PASS_SCORES // max(raw[0].numel() * len(self.gains[0]), 1), 1)
                for start in range(0, len(chosen), size):
                    part = slice(start, start + size)
                    scales = torch.as_tensor(points[chosen[part], m], dtype=raw.dtype, device=raw.device)
                    scaled = linear_transformation(raw[which.reshape(-1)[part]], base, scales[:, None, None])
                    found = self._ndcg(number, group_batch, scaled)
                    sums[np.ix_(chosen[part], np.arange(len(self.counts)), group_batch.groups)] = found
        return sums * self.weights

    @torch.inference_mode()
    def at(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) float32 scores at one point, as :meth:`RankRun.score`, and their (K, G) NDCG.

        Scores are in the order of the examples' rows.
        """
        m = len(self.run.objectives)
        scores = np.zeros(self.examples.num_items, dtype=np.float32)
        found = np.zeros(self.counts.shape)
        for number, group_batch in enumerate(self.batches):
            batch = self._batch(number, group_batch)
            raw = self._scores(number, group_batch, batch, self._dials(point[None]), point[m + 1 : 2 * m + 1])
            base = self._base(group_batch).to(raw)
            scaled = linear_transformation(raw, base, float(point[m]))
            found[:, group_batch.groups] = self._ndcg(number, group_batch, scaled)[0]
            rows, mask = self.examples.index(group_batch)
            scores[rows[mask]] = scaled[0].cpu().numpy()[mask]
        return scores, found

    def _batch(self, number: int, group_batch: GroupBatch) -> Batch | None:
        """The items to score; None where their columns are known."""
        if number in self._columns:
            return None
        if number in self._hidden:
            return self._hidden[number]
        batch, scorer = Items.batch(self.examples, group_batch, self.device), self.run.ranker.scorer
        if not scorer.shares_blocks:
            return batch
        hidden = scorer.before_conditions(batch.features, batch.mask)
        small = Batch(hidden.new_empty((*batch.mask.shape, 0)), batch.mask, batch.base_scores, hidden=hidden)
        self._hidden_bytes += hidden.nbytes
        if self._hidden_bytes <= self.kept_bytes:
            self._hidden[number] = small
        return small

    def _dials(self, points: np.ndarray) -> np.ndarray:
        """(P, m) weights of points, or (P, m + 1) with their shares."""
        m = len(self.run.objectives)
        return np.delete(points, np.s_[m : 2 * m + 1], axis=1)

    def _scores(
        self, number: int, group_batch: GroupBatch, batch: Batch | None, dials: np.ndarray, betas: np.ndarray
    ) -> torch.Tensor:
        """(P, G, n) scores before any scale."""
        ranker = self.run.ranker
        if isinstance(ranker, GainRanker | MixtureRanker):
            if number not in self._columns:
                assert batch is not None
                found = ranker.columns(batch) if isinstance(ranker, GainRanker) else ranker.log_targets(batch)
                self._columns[number] = found, batch.mask, self._base(group_batch).to(found)
            return self._mixed(number, dials[:, None], betas)
        assert batch is not None
        return ranker_scores(ranker, dials, betas.tolist(), self.device)(group_batch, batch).float()

    def _mixed(
        self, number: int, dials: np.ndarray, betas: np.ndarray, rows: np.ndarray | slice = np.s_[:]
    ) -> torch.Tensor:
        """(P, R, n) scores of lists of a batch whose columns are known, at (P, R or 1, ...) weights and shares."""
        ranker, m = self.run.ranker, len(self.run.objectives)
        columns, mask, base = (one[rows] for one in self._columns[number])
        asked = torch.as_tensor(dials, dtype=torch.float32, device=columns.device).expand(-1, len(columns), -1)
        if isinstance(ranker, GainRanker):
            share = asked[..., m] if asked.shape[-1] > m else ranker.main_share
            return (gain_scores(columns, gain_weights(asked[..., :m], share)) / ranker.base_slope).float()
        assert isinstance(ranker, MixtureRanker)
        return mixture_scores(columns, mask, base, asked, betas.tolist(), power=ranker.power).float()

    @torch.inference_mode()
    def edge(self, point: np.ndarray) -> np.ndarray | None:
        """(K, 10,001) sums over all lists of NDCG times the group's weight: at every w = (i, 10,000 - i) / 10,000.

        The rest is as at the point. None: the ranking there is not that of a weighted sum.
        """
        m, ranker = len(self.run.objectives), self.run.ranker
        betas = point[m + 1 : 2 * m + 1]
        alike = isinstance(ranker, MixtureRanker) and ranker.power == 1 and len(set(betas.tolist())) == 1
        if not (alike or isinstance(ranker, GainRanker)):
            return None
        total = np.zeros((len(self.counts), WEIGHT_PARTS + 1))
        for number, group_batch in enumerate(self.batches):
            self._scores(number, group_batch, self._batch(number, group_batch), self._dials(point[None]), betas)
            keys, metrics = self._along_edge(number, group_batch, point)
            total += edge_sums(keys, metrics, len(group_batch.groups))
        return total

    def _along_edge(self, number: int, group_batch: GroupBatch, point: np.ndarray) -> tuple[AtParts, AtParts]:
        """The orders and the metrics of the lists of a batch, as :func:`edge_sums` takes them."""
        m = len(self.run.objectives)
        labels, mask = self._labels(group_batch)
        base, ideal = self._columns[number][2], self._ideal[number]

        def scores(rows: np.ndarray, parts: np.ndarray) -> torch.Tensor:
            dials = np.tile(self._dials(point[None]), (1, len(rows), 1))
            dials[0, :, 0] = parts / WEIGHT_PARTS
            dials[0, :, 1] = 1 - dials[0, :, 0]
            raw = self._mixed(number, dials, point[m + 1 : 2 * m + 1], rows)[0]
            return linear_transformation(raw, base[rows], float(point[m]))

        def keys(rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
            return order_keys(scores(rows, parts), mask[..., rows, :], self.settings.k).cpu().numpy()

        def metrics(rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
            known = mask[..., rows, :]
            found = ndcg(scores(rows, parts), labels[:, rows], known, self.settings, ideal[:, rows])
            weights = 1.0 if isinstance(self.weights, float) else self.weights[:, group_batch.groups[rows]]
            return found.double().nan_to_num(0.0).cpu().numpy() * weights

        size = max(PASS_SCORES // mask.shape[-1], 1)
        return in_blocks(keys, size), in_blocks(metrics, size)

    def _base(self, group_batch: GroupBatch) -> torch.Tensor:
        """(G, n) scores of the base, 0 where there is no item."""
        rows, mask = self.examples.index(group_batch)
        return torch.from_numpy(np.where(mask, self.examples.base_scores[rows], 0).astype(np.float32))

    def _ndcg(self, number: int, group_batch: GroupBatch, scores: torch.Tensor) -> np.ndarray:
        labels, mask = self._labels(group_batch)
        found = ndcg(scores[:, None], labels, mask, self.settings, self._ideal[number])
        return np.asarray(found.double().nan_to_num(0.0).cpu().numpy())

    def base(self) -> np.ndarray:
        """(K, G) NDCG of the base."""
        sums = np.zeros(self.counts.shape)
        for number, group_batch in enumerate(self.batches):
            scores = self._base(group_batch).to(self.device).unsqueeze(0)
            sums[:, group_batch.groups] = self._ndcg(number, group_batch, scores)[0]
        return sums * self.weights
