"""The attainable front of generated data, from an oracle file of noise-free expected labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hyperdpo.core.mixture import mixture_scores
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Batch, Examples, label_targets
from hyperdpo.ranking.metrics import NdcgSettings


def check_oracle(oracle: GroupedTable, table: GroupedTable, labels: Sequence[Label]) -> None:
    """Refuse an oracle that does not belong to a table.

    Raises:
        InputError: other groups or rows, a label column that is missing.
    """
    if not np.array_equal(oracle.offsets, table.offsets) or not np.array_equal(oracle.qids, table.qids):
        raise InputError(
            f"{oracle.source}: {oracle.num_groups} groups with {oracle.num_rows} rows do not match those of "
            f"{table.source} ({table.num_groups} groups, {table.num_rows} rows); expected its oracle file"
        )
    for label in labels:
        oracle.column_index(label.column)


def oracle_front(
    examples: Examples,
    oracle: GroupedTable,
    weights: np.ndarray,
    scales: Sequence[float],
    betas: list[float],
    metric: NdcgSettings,
) -> Front:
    """The front of the closed form with the targets of the expected labels, measured on the observed ones.

    It has the same base, temperatures and weights as the model's front, so it is where the model would be if
    it knew everything that can be known.

    Args:
        examples: the observed split, with base scores.
        oracle: the same groups and rows as the table the split was taken from.

    Raises:
        InputError: as :func:`check_oracle`.
    """
    part = examples.part
    check_oracle(oracle, part.table, examples.labels)
    twin = Part(oracle, part.groups)
    raw = column_values(twin, tuple(label.column for label in examples.labels))
    gains = np.stack([label.gains(raw[:, j]) for j, label in enumerate(examples.labels)], axis=1)
    targets, signal = label_targets(twin.sizes, gains, examples.labels)
    expected = replace(examples, targets=targets, signal=signal)
    grid = torch.as_tensor(weights, dtype=torch.float32)

    def score(group_batch: GroupBatch, _: Batch) -> torch.Tensor:
        batch = expected.batch(group_batch)
        return mixture_scores(batch.targets.log(), batch.mask, batch.base_scores, grid, betas, batch.signal)

    return evaluate_front(score, examples, weights, scales, betas, metric)


def attained(front: Front, attainable: Front) -> dict[str, Any]:
    """The fraction of the attainable front that a front reaches, and what it loses at each w.

    Returns:
        Hypervolumes of the oracle and the fractions of them; ``regret``: at each point, the weighted metric
        sum_j w_j NDCG_j of the oracle minus that of the front.
    """
    best, with_main = attainable.hypervolume, attainable.hypervolume_with_main
    own = front.hypervolume_with_main
    regret = (front.weights * (np.nan_to_num(attainable.metrics) - np.nan_to_num(front.metrics))).sum(1)
    return {
        "hypervolume": best,
        "hypervolume_with_main": with_main,
        "fraction": front.hypervolume / best if best else None,
        "fraction_with_main": own / with_main if own is not None and with_main else None,
        "regret": regret.tolist(),
    }
