"""The groups of one split, ready for a scorer: features, gains, targets and base scores, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.data.batching import GroupBatch, row_index, sorted_batches
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import CHUNK_ROWS, FeatureTransform, column_chunks, column_values
from hyperdpo.objectives import Label

#: Items per batch where nothing is trained, and the shortest list in it as a part of the longest.
SCORING_ITEMS, SHORTEST = 4096, 0.75


class Features:
    """Transformed features of a part, by row; in memory, or streamed from the table's memory map."""

    def __init__(self, part: Part, transform: FeatureTransform, resident_bytes: float):
        self._transform = transform
        self._part = part
        self._columns = part.table.column_indices(transform.columns)
        total = int(part.sizes.sum())
        self.resident = total * len(transform.columns) * 4 <= resident_bytes
        self._values: torch.Tensor | None = None
        if self.resident:
            values = np.empty((total, len(transform.columns)), dtype=np.float32)
            done = 0
            for chunk in column_chunks(part, transform.columns):
                values[done : done + len(chunk)] = transform(chunk)
                done += len(chunk)
            self._values = torch.from_numpy(values)
        sizes = part.sizes
        self.starts = np.cumsum(sizes) - sizes
        self._shift = part.starts - self.starts

    def __call__(self, rows: np.ndarray, groups: np.ndarray) -> torch.Tensor:
        """(G, n) rows of the part, belonging to (G,) groups -> (G, n, F) float32."""
        if self._values is not None:
            flat = torch.from_numpy(rows.reshape(-1))
            return self._values.index_select(0, flat).view(*rows.shape, -1)
        table_rows = (rows + self._shift[groups][:, None]).reshape(-1)
        raw = self._part.table.take(table_rows, self._columns)
        return torch.from_numpy(self._transform(raw)).view(*rows.shape, -1)


@dataclass(frozen=True)
class Batch:
    """Padded tensors of G groups of at most n items, on one device."""

    features: torch.Tensor
    """(G, n, F) float32."""
    mask: torch.Tensor
    """(G, n) bool, True for items."""
    base_scores: torch.Tensor
    """(G, n) float32, 0 on padding."""
    hidden: torch.Tensor | None = field(default=None, kw_only=True)
    """(G, n, d): what a scorer makes of the features before it sees conditions, where that is known."""


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch with what is trained for."""

    targets: torch.Tensor
    """(G, m, n) float32, 0 on padding."""
    signal: torch.Tensor
    """(G, m) bool: the group says something about the objective."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """Groups to score. Rows are the part's own: group by group, in the table's order."""

    part: Part
    features: Features
    base_scores: np.ndarray
    """(N,) float32; zeros where there is no base (as for the base itself)."""

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
        )

    def batches(self, groups: np.ndarray | None = None) -> list[GroupBatch]:
        """All groups (or these) once, in batches of similar sizes, for scoring."""
        return sorted_batches(self.sizes, SCORING_ITEMS, groups, shortest=SHORTEST)


@dataclass(frozen=True, kw_only=True)
class Examples(Items):
    """Labelled groups: one split."""

    labels: tuple[Label, ...]
    """The m labels that are trained for, fitted."""
    gains: np.ndarray
    """(N, m) float32: larger is better."""
    targets: np.ndarray
    """(N, m) float32: t(z)."""
    signal: np.ndarray
    """(g, m) bool."""
    main_gains: np.ndarray | None
    """(N,) float32: the main label; None where it is not known."""

    def with_base(self, base_scores: np.ndarray) -> Examples:
        """The same examples with (N,) base scores."""
        return replace(self, base_scores=np.ascontiguousarray(base_scores, dtype=np.float32))

    def batch(self, group_batch: GroupBatch, device: torch.device | str = "cpu") -> LabelledBatch:
        """Padded tensors of some groups."""
        plain = super().batch(group_batch, device)
        targets = self.padded(self.targets, group_batch).transpose(0, 1)
        signal = torch.from_numpy(self.signal[group_batch.groups])
        return LabelledBatch(
            plain.features,
            plain.mask,
            plain.base_scores,
            targets.to(device, non_blocking=True),
            signal.to(device, non_blocking=True),
        )

    def padded(self, values: np.ndarray, group_batch: GroupBatch) -> torch.Tensor:
        """(N, k) per-row values -> (k, G, n), 0 on padding."""
        rows, mask = self.index(group_batch)
        return torch.from_numpy(np.ascontiguousarray(np.where(mask[..., None], values[rows], 0).transpose(2, 0, 1)))


def feature_columns(table: GroupedTable, taken: Sequence[str]) -> tuple[str, ...]:
    """The columns that are features: all but labels, base scores and excluded ones."""
    excluded = set(taken)
    return tuple(c for c in table.columns if c not in excluded)


def build_examples(
    part: Part,
    labels: Sequence[Label],
    main: Label | None,
    *,
    features: Features,
    base_scores: np.ndarray | None = None,
) -> Examples:
    """Everything a scorer is trained on or measured with.

    Args:
        labels: m fitted labels.
        main: the fitted main label; None where it is not known (its metric is then not reported).
        features: the part's; several sets of labels may share them.
        base_scores: (N,) of the part's rows; None: zeros.

    Raises:
        InputError: a column is missing, or a value does not suit its target.
    """
    known = [*labels, *(() if main is None else (main,))]
    raw = column_values(part, tuple(label.column for label in known))
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
    )


def label_targets(sizes: np.ndarray, gains: np.ndarray, labels: Sequence[Label]) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N, m) and signal (g, m) of ragged groups, in padded batches of similar sizes.

    Args:
        sizes: (g,) items of each group.
        gains: (N, m).
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
            if label.target == "l1":
                t, s = l1_targets(values, real)
            else:
                t, s = softmax_targets(values, real, label.target_temperature)
            targets[rows[mask], j] = t.numpy()[mask]
            signal[group_batch.groups, j] = s.numpy()
    return targets, signal
