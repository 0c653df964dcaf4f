"""The groups of one split, ready for a scorer: features, gains, targets and base scores, batch by batch."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.data.batching import GroupBatch, row_index, sorted_batches
from hyperdpo.data.groups import abridged
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import CHUNK_ROWS, FeatureTransform, column_chunks
from hyperdpo.objectives import Label
from hyperdpo.ranking.clicks import group_weights, read_labels
from hyperdpo.ranking.labels import check_present

#: Items per batch where nothing is trained, and the shortest list in it as a part of the longest.
SCORING_ITEMS, SHORTEST = 4096, 0.75


class Features:
    """Transformed features of a part, by row; in memory, or streamed from the table's memory map."""

    def __init__(self, part: Part, transform: FeatureTransform, resident_bytes: float):
        self._transform = transform
        self._part = part
        self._columns = part.table.column_indices(transform.columns)
        self._unexpected: set[str] = set()
        total = int(part.sizes.sum())
        self.resident = total * transform.width * 4 <= resident_bytes
        self._values: torch.Tensor | None = None
        if self.resident:
            values = np.empty((total, transform.width), dtype=np.float32)
            done = 0
            for chunk in column_chunks(part, transform.columns, transform.origins):
                values[done : done + len(chunk)] = self._transformed(chunk)
                done += len(chunk)
            self._values = torch.from_numpy(values)
        sizes = part.sizes
        self.starts = np.cumsum(sizes) - sizes
        self._shift = part.starts - self.starts

    def __call__(self, rows: np.ndarray, groups: np.ndarray) -> torch.Tensor:
        """(G, n) rows of the part, belonging to (G,) groups -> (G, n, F + I) float32, I of them say what is missing."""
        if self._values is not None:
            flat = torch.from_numpy(rows.reshape(-1))
            return self._values.index_select(0, flat).view(*rows.shape, -1)
        table_rows = (rows + self._shift[groups][:, None]).reshape(-1)
        raw = self._part.table.take(table_rows, self._columns, self._transform.origins)
        return torch.from_numpy(self._transformed(raw)).view(*rows.shape, -1)

    def _transformed(self, raw: np.ndarray) -> np.ndarray:
        """(N, F + I) of (N, F) raw values. The first missing value of a column that had none in training is noted."""
        new = set(self._transform.unexpected(raw)) - self._unexpected
        if new:
            self._unexpected |= new
            warnings.warn(
                f"{self._part.table.source}: values of {abridged(sorted(new))} are missing. No value of these columns "
                "was missing in the training data, so the training mean stands in",
                stacklevel=2,
            )
        return self._transform(raw)


@dataclass(frozen=True)
class Batch:
    """Padded tensors of G groups of at most n items, on one device."""

    features: torch.Tensor
    """(G, n, F + I) float32: what the transform makes of F features."""
    mask: torch.Tensor
    """(G, n) bool, True for items."""
    base_scores: torch.Tensor
    """(G, n) float32, 0 on padding."""
    hidden: torch.Tensor | None = field(default=None, kw_only=True)
    """(G, n, d): what a scorer makes of the features before it sees conditions, where that is known."""
    tree_columns: torch.Tensor | None = field(default=None, kw_only=True)
    """(G, M, n): the expected gains that trees predict, where a ranker has trees."""


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch with what is trained for."""

    targets: torch.Tensor
    """(G, m, n) float32, 0 on padding."""
    signal: torch.Tensor
    """(G, m) bool: the group says something about the objective."""
    judged: torch.Tensor | None = field(default=None, kw_only=True)
    """(G, m, n) bool: the items that an objective has labels for; None: all."""
    weights: torch.Tensor | None = field(default=None, kw_only=True)
    """(G, m): how much a group counts in the loss of an objective, 1 on average; None: all alike."""

    @property
    def label_mask(self) -> torch.Tensor:
        """The items that take part in the losses: (G, n), or (G, m, n) where some are not judged."""
        return self.mask if self.judged is None else self.judged


@dataclass(frozen=True, kw_only=True)
class Items:
    """Groups to score. Rows are the part's own: group by group, in the table's order."""

    part: Part
    features: Features
    base_scores: np.ndarray
    """(N,) float32; zeros where there is no base (as for the base itself)."""
    trees: Callable[[Part], np.ndarray] | None = None
    """For a ranker with trees: (N, M) float32 expected gains of the part's rows."""

    @property
    def sizes(self) -> np.ndarray:
        """(g,) items of each group."""
        return self.part.sizes

    @property
    def num_items(self) -> int:
        return len(self.base_scores)

    def index(self, group_batch: GroupBatch) -> tuple[np.ndarray, np.ndarray]:
        """Rows and mask, (G, n) each, of some groups; padding repeats a group's last row."""
        return row_index(self.features.starts, self.sizes, group_batch)

    def batch(self, group_batch: GroupBatch, device: torch.device | str = "cpu") -> Batch:
        """Padded tensors of some groups."""
        rows, mask = self.index(group_batch)
        return Batch(
            self.features(rows, group_batch.groups).to(device, non_blocking=True),
            torch.from_numpy(mask).to(device, non_blocking=True),
            torch.from_numpy(np.where(mask, self.base_scores[rows], 0)).to(device, non_blocking=True),
            tree_columns=self._tree_batch(rows, device),
        )

    def _tree_batch(self, rows: np.ndarray, device: torch.device | str) -> torch.Tensor | None:
        """(G, M, n) of (G, n) rows."""
        if self._tree_columns is None:
            return None
        columns = np.ascontiguousarray(np.moveaxis(self._tree_columns[rows], -1, 1))
        return torch.from_numpy(columns).to(device, non_blocking=True)

    @functools.cached_property
    def _tree_columns(self) -> np.ndarray | None:
        return None if self.trees is None else self.trees(self.part)

    def batches(self, groups: np.ndarray | None = None) -> list[GroupBatch]:
        """All groups (or these) once, in batches of similar sizes, for scoring."""
        return sorted_batches(self.sizes, SCORING_ITEMS, groups, shortest=SHORTEST)


@dataclass(frozen=True, kw_only=True)
class Examples(Items):
    """Labelled groups: one split."""

    labels: tuple[Label, ...]
    """The m labels that are trained for, fitted."""
    gains: np.ndarray
    """(N, m) float32: larger is better; NaN where an item is not judged."""
    targets: np.ndarray
    """(N, m) float32: t(z)."""
    signal: np.ndarray
    """(g, m) bool."""
    main_gains: np.ndarray | None
    """(N,) float32: the main label, NaN where an item is not judged; None where it is not known."""
    group_weights: np.ndarray | None = None
    """(g,) float32: the groups' own weights; None: all 1."""
    click_counts: np.ndarray | None = None
    """(g, m), or (g, m + 1) with the main label: how often a group counts by its clicks; None: all 1. See
    :mod:`hyperdpo.ranking.clicks`."""

    def with_base(self, base_scores: np.ndarray) -> Examples:
        """The same examples with (N,) base scores."""
        return replace(self, base_scores=np.ascontiguousarray(base_scores, dtype=np.float32))

    def batch(self, group_batch: GroupBatch, device: torch.device | str = "cpu") -> LabelledBatch:
        """Padded tensors of some groups."""
        plain = super().batch(group_batch, device)
        targets = self.padded(self.targets, group_batch).transpose(0, 1)
        signal = torch.from_numpy(self.signal[group_batch.groups])
        judged = None
        if self.some_unjudged:
            judged = self.judged(self.gains, group_batch).transpose(0, 1).to(device, non_blocking=True)
        return LabelledBatch(
            plain.features,
            plain.mask,
            plain.base_scores,
            targets.to(device, non_blocking=True),
            signal.to(device, non_blocking=True),
            judged=judged,
            tree_columns=plain.tree_columns,
            weights=self._loss_weights(group_batch, device),
        )

    @property
    def row_weights(self) -> np.ndarray | float:
        """(N,) the weight of each row's group, or 1 for all."""
        return 1.0 if self.group_weights is None else np.repeat(self.group_weights, self.sizes)

    @functools.cached_property
    def label_weights(self) -> np.ndarray | None:
        """(g, m), or (g, m + 1) with the main label: how much a group counts for each label; None: all alike."""
        if self.click_counts is None:
            own = self.group_weights
            return None if own is None else np.repeat(own[:, None], self.measured_gains.shape[1], axis=1)
        return self.click_counts if self.group_weights is None else self.click_counts * self.group_weights[:, None]

    def _loss_weights(self, group_batch: GroupBatch, device: torch.device | str) -> torch.Tensor | None:
        if self.label_weights is None:
            return None
        found = self.label_weights[group_batch.groups, : self.targets.shape[1]] / self._mean_weights
        return torch.from_numpy(found.astype(np.float32)).to(device, non_blocking=True)

    @functools.cached_property
    def _mean_weights(self) -> np.ndarray:
        """(m,) mean weights of the groups with signal."""
        assert self.label_weights is not None
        total = (self.label_weights[:, : self.targets.shape[1]] * self.signal).sum(0)
        return np.where(total > 0, total, 1) / np.maximum(self.signal.sum(0), 1)

    @functools.cached_property
    def some_unjudged(self) -> bool:
        """Whether any objective lacks the label of an item."""
        return bool(np.isnan(self.gains).any())

    @functools.cached_property
    def measured_gains(self) -> np.ndarray:
        """(N, m), or (N, m + 1) with the main label: what metrics are computed from."""
        return self.gains if self.main_gains is None else np.column_stack([self.gains, self.main_gains])

    def judged(self, gains: np.ndarray, group_batch: GroupBatch) -> torch.Tensor:
        """(k, G, n) bool of (N, k) gains: items that are judged, False on padding."""
        rows, mask = self.index(group_batch)
        return torch.from_numpy(np.ascontiguousarray((mask[..., None] & ~np.isnan(gains[rows])).transpose(2, 0, 1)))

    def measured(self, group_batch: GroupBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains (k, G, n) of :attr:`measured_gains`, and the mask of the items that count: (G, n), or (k, G, n) where
        some are not judged. A list is measured without the items that are not."""
        gains = self.measured_gains
        labels = self.padded(gains, group_batch)
        if np.isnan(gains).any():
            return labels.nan_to_num(0.0), self.judged(gains, group_batch)
        _, mask = self.index(group_batch)
        return labels, torch.from_numpy(mask)

    def padded(self, values: np.ndarray, group_batch: GroupBatch) -> torch.Tensor:
        """(N, k) per-row values -> (k, G, n), 0 on padding."""
        rows, mask = self.index(group_batch)
        return torch.from_numpy(np.ascontiguousarray(np.where(mask[..., None], values[rows], 0).transpose(2, 0, 1)))


def build_examples(
    part: Part,
    labels: Sequence[Label],
    main: Label | None,
    *,
    features: Features,
    base_scores: np.ndarray | None = None,
    qid_column: str = "qid",
    weight: str | None = None,
) -> Examples:
    """Everything a scorer is trained on or measured with.

    Args:
        labels: m fitted labels.
        main: the fitted main label; None where it is not known (its metric is then not reported).
        features: the part's; several sets of labels may share them.
        base_scores: (N,) of the part's rows; None: zeros.
        qid_column: as the part's file was read with, for messages.
        weight: the column with the groups' weights.

    Raises:
        InputError: a column or a label is missing, or a value does not suit its target.
    """
    known = [*labels, *(() if main is None else (main,))]
    raw, click_counts = read_labels(part, known, qid_column)
    for j, label in enumerate(known):
        check_present(part, label, raw[:, j], qid_column)
    gains = np.stack([label.gains(raw[:, j]) for j, label in enumerate(labels)], axis=1)
    targets, signal = label_targets(part.sizes, gains, labels)
    return Examples(
        part=part,
        features=features,
        labels=tuple(labels),
        gains=gains,
        targets=targets,
        signal=signal,
        main_gains=None if main is None else main.gains(raw[:, -1]),
        base_scores=np.zeros(len(gains), np.float32) if base_scores is None else base_scores.astype(np.float32),
        group_weights=group_weights(part, weight, qid_column),
        click_counts=click_counts,
    )


def label_targets(sizes: np.ndarray, gains: np.ndarray, labels: Sequence[Label]) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N, m) and signal (g, m) of ragged groups, in padded batches of similar sizes.

    Args:
        sizes: (g,) items of each group.
        gains: (N, m), NaN where an item is not judged: it is left out of the list.
    """
    inputs = np.stack([label.target_inputs(gains[:, j]) for j, label in enumerate(labels)], axis=1)
    starts = np.cumsum(sizes) - sizes
    targets = np.zeros_like(inputs)
    signal = np.zeros((len(sizes), len(labels)), dtype=bool)
    for group_batch in sorted_batches(sizes, CHUNK_ROWS):
        rows, mask = row_index(starts, sizes, group_batch)
        real = torch.from_numpy(mask)
        for j, label in enumerate(labels):
            values = torch.from_numpy(inputs[:, j][rows])
            judged = real & ~values.isnan()
            if label.target == "l1":
                t, s = l1_targets(values, judged)
            else:
                t, s = softmax_targets(values, judged, label.target_temperature)
            targets[rows[mask], j] = t.numpy()[mask]
            signal[group_batch.groups, j] = s.numpy()
    return targets, signal
