"""Calibration of expected gains: what a run predicts for items, against what their labels turned out to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hyperdpo.objectives import MAIN
from hyperdpo.ranking.examples import Examples, Items
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.gains import click_scales, gain_examples
from hyperdpo.ranking.labels import all_labels
from hyperdpo.ranking.run import RankRun

#: Parts of equal size that predictions are cut into.
PARTS = 10


def deciles(predicted: np.ndarray, observed: np.ndarray, weights: np.ndarray | float = 1.0) -> list[dict[str, Any]]:
    """Mean prediction and mean observation of the tenths of the items, from the smallest prediction to the largest.

    Equal predictions stay together, so a tenth may be larger than others, or empty: empty ones are left out.

    Args:
        predicted, observed: (N,).
        weights: (N,) how much an item counts in the tenths and in the means, or one number for all. Items of weight 0
            are left out.

    Returns:
        ``predicted``, ``observed`` and ``count`` of each tenth; the count is that of the items.
    """
    weights = np.broadcast_to(weights, predicted.shape)
    counted = weights > 0
    if not counted.any():
        return []
    predicted, observed, weights = predicted[counted], observed[counted], weights[counted]
    cuts = np.quantile(predicted, np.arange(1, PARTS) / PARTS, method="inverted_cdf", weights=weights)
    part = np.searchsorted(cuts, predicted, side="left")
    return [
        {
            "predicted": float(np.average(predicted[part == p], weights=weights[part == p])),
            "observed": float(np.average(observed[part == p], weights=weights[part == p])),
            "count": int((part == p).sum()),
        }
        for p in np.unique(part)
    ]


@torch.inference_mode()
def calibration(
    run: RankRun, examples: Examples, device: torch.device | str = "cpu"
) -> dict[str, list[dict[str, Any]]] | None:
    """The deciles of each column of a run of expected gains, and of ``main`` where its label is known.

    Both sides are expectations over all groups, with the groups' weights: a group without a positive label has gains
    of 0. Columns that ``metric.empty: skip`` has divided by the share of groups with signal are multiplied by it again.
    NDCG is the run's own, which its columns are about.

    Args:
        examples: from :meth:`~hyperdpo.ranking.run.RankRun.examples`. Items that are not judged are left out.

    Returns:
        Name -> :func:`deciles`; None for a run that does not predict gains.

    Raises:
        InputError: a label is negative.
    """
    ranker = run.ranker
    if not isinstance(ranker, GainRanker):
        return None
    main = run.config.main if ranker.learns_main and examples.main_gains is not None else None
    observed = gain_examples(examples, main, run.config.metric)
    names = (*run.objectives, MAIN)[: run.ranker.num_weights + (main is not None)]
    scales, own = click_scales(observed.labels), click_scales(all_labels(run.config))
    seen = observed.targets * (1 if examples.click_counts is None else scales)
    predicted = np.zeros((examples.num_items, len(names)))
    ranker.eval()
    for group_batch in examples.batches():
        learned = ranker.columns(Items.batch(examples, group_batch, device))[:, : ranker.num_columns]
        found = (learned * ranker.signal_shares.unsqueeze(-1))[:, : len(names)].cpu().numpy()
        rows, mask = examples.index(group_batch)
        predicted[rows[mask]] = np.moveaxis(found, 1, -1)[mask] * own[: len(names)]
    weights = ~np.isnan(observed.gains) * np.reshape(examples.row_weights, (-1, 1))
    return {name: deciles(predicted[:, j], seen[:, j], weights[:, j]) for j, name in enumerate(names)}
