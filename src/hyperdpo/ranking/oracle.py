"""The attainable front of generated data, from an oracle file of noise-free expected labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hyperdpo.core.gains import gain_scores, gain_weights
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Batch, Examples, label_targets
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.gains import gain_examples, group_totals, signal_shares
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
    gains = _expected_labels(examples, oracle, examples.labels)
    targets, signal = label_targets(examples.sizes, gains, examples.labels)
    expected = replace(examples, targets=targets, signal=signal)
    grid = torch.as_tensor(weights, dtype=torch.float32)

    def score(group_batch: GroupBatch, _: Batch) -> torch.Tensor:
        batch = expected.batch(group_batch)
        return mixture_scores(batch.targets.log(), batch.mask, batch.base_scores, grid, betas, batch.signal)

    return evaluate_front(score, examples, weights, scales, betas, metric)


def expected_gains(examples: Examples, oracle: GroupedTable, main: Label | None, metric: NdcgSettings) -> np.ndarray:
    """Estimates of E[g_ij | hidden vectors] from the labels' expectations: the columns that a perfect model would have.

    A gain g_ij = z_ij / IDCG_j depends on the whole list's observed labels, so E[z_ij] alone does not give E[g_ij]. Its
    share of the list does, but for the correlation of label and IDCG: E[z_ij] / sum_l E[z_lj]. The list's total
    κ_j = E[sum_i g_ij] comes from a Poisson regression of the observed totals, over the measured groups, on the
    logarithms of sum_l E[z_lj], of its ratio to the IDCG of the expected labels, and of n.

    Args:
        examples: the observed split.
        oracle: the same groups and rows as the table the split was taken from.
        main: fitted; None: there is none.
        metric: with ``empty: skip`` columns are divided by the share of groups with signal, as the metric's mean is.

    Returns:
        (N, m), or (N, m + 1) with the main label.

    Raises:
        InputError: as :func:`check_oracle`, or a label is negative.
    """
    m, labels = len(examples.labels), examples.labels if main is None else (*examples.labels, main)
    means = _expected_labels(examples, oracle, labels)
    observed = replace(examples, main_gains=None if main is None else examples.main_gains)
    expected_main = None if main is None else means[:, m]
    known = replace(observed, gains=means[:, :m], main_gains=expected_main, click_counts=None)
    seen, ideal = (gain_examples(one, main, metric) for one in (observed, known))
    sizes, totals = examples.sizes, group_totals(ideal)
    sums = np.add.reduceat(means.astype(np.float64), np.cumsum(sizes) - sizes)
    columns = ideal.targets.astype(np.float64)
    for j, total in enumerate(group_totals(seen).T):
        possible = totals[:, j] > 0
        if not possible.any():
            continue
        basis = np.log(np.stack([sums[possible, j], totals[possible, j], sizes[possible]], axis=1))
        fit = make_pipeline(StandardScaler(), PoissonRegressor(alpha=1e-3, max_iter=1000))
        factor = np.zeros(len(sizes))
        factor[possible] = fit.fit(basis, total[possible]).predict(basis) / totals[possible, j]
        columns[:, j] *= np.repeat(factor, sizes)
    return np.asarray(columns / signal_shares(seen, examples.click_counts, metric.empty))


def gain_oracle_front(
    ranker: GainRanker,
    examples: Examples,
    oracle: GroupedTable,
    weights: np.ndarray,
    scales: Sequence[float],
    betas: list[float],
    metric: NdcgSettings,
    *,
    main: Label | None,
    main_share: float,
) -> Front:
    """The front of the order by sum_j v_j E[g_ij], v = ((1 - λ) w, λ), measured on the observed labels.

    It is the front of an actual ranking, at the share of the front that it is compared with; not a bound: the columns
    are those of :func:`expected_gains`.

    Args:
        ranker: whose slope of the base scores puts columns and base on one scale, where a scale is not 1.
        examples, oracle, main: as :func:`expected_gains`.
        main_share: λ; without a main label it has no effect.

    Raises:
        InputError: as :func:`expected_gains`.
    """
    columns = expected_gains(examples, oracle, main, metric)
    grid = torch.as_tensor(weights, dtype=torch.float64)
    v = grid if main is None else gain_weights(grid, main_share)
    slope = float(ranker.base_slope)

    def score(group_batch: GroupBatch, batch: Batch) -> torch.Tensor:
        found = examples.padded(columns, group_batch).transpose(0, 1)
        return gain_scores(found, v.unsqueeze(1).expand(-1, len(found), -1)) / slope

    return evaluate_front(score, examples, weights, scales, betas, metric)


def _expected_labels(examples: Examples, oracle: GroupedTable, labels: Sequence[Label]) -> np.ndarray:
    """(N, k) expectations of labels, direction-flipped.

    Raises:
        InputError: as :func:`check_oracle`.
    """
    check_oracle(oracle, examples.part.table, labels)
    raw = column_values(Part(oracle, examples.part.groups), tuple(label.column for label in labels))
    return np.stack([label.gains(raw[:, j]) for j, label in enumerate(labels)], axis=1)


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
