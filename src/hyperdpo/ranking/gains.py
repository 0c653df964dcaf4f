"""Relative gains as training targets, and what is fitted before and after a training of expected gains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import PoissonRegressor

from hyperdpo.core.gains import FLOOR, gain_loss, total_loss
from hyperdpo.data.batching import row_index, sorted_batches
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError, one_line
from hyperdpo.files import read_json, write_json
from hyperdpo.objectives import Label
from hyperdpo.progress import note
from hyperdpo.ranking.clicks import LARGEST_CORRECTION
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.gain_ranker import TREE_WEIGHTS, GainRanker
from hyperdpo.ranking.metrics import NdcgSettings, relative_gains
from hyperdpo.ranking.tree_columns import TreeColumns, train_tree_columns

#: What a column that is judged has at least of its list's mean.
LEAST_SHARE = 0.01
#: Items per batch where relative gains are computed.
CHUNK_ITEMS = 65536


def gain_examples(examples: Examples, main: Label | None, metric: NdcgSettings) -> Examples:
    """Examples whose targets are relative gains: of the objectives, and of the main label where there is one.

    Those of click data are times how often their group counts, and a tenth of that, so that they stay within 1.

    Args:
        main: fitted; None: there is none.

    Raises:
        InputError: a label is negative.
    """
    gains = examples.measured_gains
    labels = examples.labels if main is None else (*examples.labels, main)
    for label, lowest in zip(labels, np.fmin.reduce(gains, axis=0, initial=0.0), strict=True):
        if lowest < 0:
            raise InputError(
                f"label {label.name!r}: mixture.form gain needs labels of at least 0; found {lowest:g}. "
                "Shift the label, or use mixture.form product"
            )
    targets = np.zeros(gains.shape, np.float32)
    sizes = examples.sizes
    starts = np.cumsum(sizes) - sizes
    for group_batch in sorted_batches(sizes, CHUNK_ITEMS):
        rows, mask = row_index(starts, sizes, group_batch)
        values = torch.from_numpy(np.moveaxis(gains[rows], -1, 0))  # (M, G, n)
        judged = torch.from_numpy(mask) & ~values.isnan()
        found = relative_gains(values.nan_to_num(0.0), judged, metric)
        targets[rows[mask]] = np.moveaxis(found.numpy(), 0, -1)[mask]
    if examples.click_counts is not None:
        targets *= np.repeat(examples.click_counts / click_scales(labels), sizes, axis=0)
    signal = np.add.reduceat(targets, starts) > 0 if len(sizes) else np.zeros((0, gains.shape[1]), bool)
    return replace(examples, labels=labels, gains=gains, targets=targets, signal=signal, click_counts=None)


def click_scales(labels: Sequence[Label]) -> np.ndarray:
    """(M,) float32: what the gains of :func:`gain_examples` are divided by."""
    return np.array([1 if label.click_column is None else LARGEST_CORRECTION for label in labels], np.float32)


def signal_shares(examples: Examples, click_counts: np.ndarray | None, empty: str = "skip") -> np.ndarray:
    """(M,) mean of what a group counts in the metric, by which a column's expected gain is divided.

    Args:
        examples: from :func:`gain_examples`.
        click_counts: (g, M) of the examples before.
        empty: what the metric does with groups without signal.
    """
    counted = 1 / click_scales(examples.labels) * (1 if click_counts is None else click_counts)
    counted = counted * examples.signal if empty == "skip" else np.broadcast_to(counted, examples.signal.shape)
    share = np.average(counted, axis=0, weights=examples.group_weights)
    return np.where(share > 0, share, 1)  # a label without signal has a column of zeros, not of infinities


def group_totals(examples: Examples) -> np.ndarray:
    """(g, M): the sum of each group's targets."""
    starts = np.cumsum(examples.sizes) - examples.sizes
    return np.add.reduceat(examples.targets.astype(np.float64), starts)


def fit_size_totals(train: Examples) -> np.ndarray:
    """(M, 3): Poisson regressions of each label's total on 1, log n and log² n."""
    totals, log_size = group_totals(train), np.log(train.sizes)
    basis = np.stack([log_size, log_size**2], 1)
    centre, spread = basis.mean(0), np.where(basis.std(0) > 1e-9, basis.std(0), 1)
    found = []
    for total in totals.T:
        # A little ridge: lists of one length leave the coefficients undetermined.
        model = PoissonRegressor(alpha=1e-3, max_iter=1000)
        model.fit((basis - centre) / spread, np.maximum(total, 1e-12), train.group_weights)
        slopes = model.coef_ / spread
        found.append([model.intercept_ - slopes @ centre, *slopes])
    return np.array(found)


def fit_base_slope(examples: Examples, relative: np.ndarray | None) -> float:
    """a > 0 that minimises the loss of softmax(a s_base) with the main label's relative gains.

    Args:
        examples: groups that the base was not trained on, where there are any.
        relative: (N,) the main label's; None: a is one over the scores' spread within their group.
    """
    sizes = examples.sizes
    starts = np.cumsum(sizes) - sizes
    scores = examples.base_scores.astype(np.float64)
    spread = float(np.sqrt(np.mean((scores - np.repeat(np.add.reduceat(scores, starts) / sizes, sizes)) ** 2)))
    if spread == 0 or relative is None:
        return 1 / spread if spread else 1.0
    total = np.add.reduceat(relative.astype(np.float64), starts)

    def loss(log_slope: float) -> float:
        s = np.exp(log_slope) * scores
        top = np.maximum.reduceat(s, starts)
        log_sum = np.log(np.add.reduceat(np.exp(s - np.repeat(top, sizes)), starts)) + top
        return float((total * log_sum).sum() - relative @ s)

    # From hardly any to nearly all on the first item, in units of the scores' spread.
    found = minimize_scalar(loss, bounds=(np.log(0.01 / spread), np.log(30 / spread)), method="bounded")
    return float(np.exp(found.x))


def prepare_ranker(
    ranker: GainRanker,
    train: Examples,
    validation: Examples | None,
    metric: NdcgSettings,
    click_counts: np.ndarray | None = None,
) -> np.ndarray:
    """Set what the data decide before the training: totals by list length, the base's slope, shares of signal.

    Args:
        train, validation: from :func:`gain_examples`.
        click_counts: (g, M) of the training examples before.

    Returns:
        (M,) weights of the columns' losses, so that a label with few signals counts as much as the others.
    """
    ranker.size_totals.copy_(torch.from_numpy(fit_size_totals(train)))
    # A base fits its own training groups too well, so its slope is fitted on others where there are any.
    slope_on = validation if validation is not None else train
    relative = slope_on.targets[:, -1] * slope_on.row_weights if ranker.learns_main else None
    ranker.base_slope.fill_(fit_base_slope(slope_on, relative))
    ranker.signal_shares.copy_(torch.from_numpy(signal_shares(train, click_counts, metric.empty)))
    balance = 1 / signal_shares(train, click_counts)
    return np.asarray(balance / balance.sum())


def train_trees(
    ranker: GainRanker,
    train: Examples,
    validation: Examples | None,
    columns: Sequence[str],
    origins: Sequence[float],
    config: RankConfig,
    fingerprint: str,
    checkpoint: Path | None,
) -> float:
    """Give a ranker its trees: those of an interrupted training, or new ones.

    Args:
        train, validation: from :func:`gain_examples`.
        columns, origins: the features.
        fingerprint: what must agree for kept trees to be used.
        checkpoint: of the training; the trees are kept beside it.

    Returns:
        The seconds that their training took.
    """
    kept = None if checkpoint is None else trees_beside(checkpoint)
    if kept is not None and kept.exists():
        try:
            found = read_json(kept)
            if isinstance(found, dict) and found.get("fingerprint") == fingerprint:
                ranker.trees = TreeColumns.of(found["texts"], columns, origins, config.gbdt.threads)
                return float(found["seconds"])
        except (InputError, KeyError, TypeError, ValueError) as error:
            note(f"{kept}: kept trees cannot be read ({one_line(error)}); they are trained again")
    started = time.monotonic()
    ranker.trees = train_tree_columns(train, validation, columns, origins=origins, config=config.gbdt, seed=config.seed)
    seconds = time.monotonic() - started
    if kept is not None:
        write_json(kept, {"fingerprint": fingerprint, "seconds": seconds, "texts": ranker.trees.texts}, sealed=True)
    return seconds


def trees_beside(checkpoint: Path) -> Path:
    """The file that keeps the trees of a training while its network is trained."""
    return checkpoint.with_suffix(".trees.json")


def settle_columns(
    ranker: GainRanker, validation: Examples, device: torch.device | str, *, trees: Callable[[Part], np.ndarray] | None
) -> dict[str, float]:
    """Decide by the losses of validation groups how totals are predicted, and how much of the columns is the trees'.

    A loss is steadier than a front: in a few dozen groups the best of several fronts is often luck.

    Args:
        validation: from :func:`gain_examples`.
        trees: see :class:`~hyperdpo.ranking.examples.Items`.

    Returns:
        What was chosen, for :meth:`GainRanker.use`.
    """
    ranker.eval()
    if ranker.has_network:
        _choose_totals(ranker, validation, device)
    if not (ranker.has_network and trees):
        return {}
    validation, losses = replace(validation, trees=trees), []
    for weight in TREE_WEIGHTS:
        ranker.use(tree_weight=weight)
        losses.append(float(column_losses(ranker, validation, device).sum()))
    found = {"tree_weight": TREE_WEIGHTS[int(np.argmin(losses))]}
    ranker.use(**found)
    return found


@torch.inference_mode()
def column_losses(ranker: GainRanker, examples: Examples, device: torch.device | str) -> np.ndarray:
    """(M,): -sum_i g_i log(c_i / sum c) of each learned column c, over the gain of all groups; smaller is better.

    To c is added :data:`LEAST_SHARE` of its mean in the list: a prediction of exactly 0 is not infinitely wrong.

    Args:
        examples: from :func:`gain_examples`.
    """
    losses = torch.zeros(2, ranker.num_columns, dtype=torch.float64)
    for group_batch in examples.batches():
        batch = examples.batch(group_batch, device)
        mask = batch.mask.unsqueeze(1)
        columns = ranker.learned_columns(batch).masked_fill(~mask, 0)
        columns = columns + LEAST_SHARE * columns.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        judged = mask if batch.judged is None else batch.judged
        parts = gain_loss(columns.clamp_min(FLOOR).log(), batch.targets, judged), batch.targets.sum(-1)
        for k, part in enumerate(parts):
            losses[k] += (part if batch.weights is None else part * batch.weights).double().sum(0).cpu()
    return (losses[0] / losses[1].clamp_min(FLOOR)).numpy()


@torch.inference_mode()
def _choose_totals(ranker: GainRanker, validation: Examples, device: torch.device | str) -> None:
    """Use a list's features for κ_j only where the Poisson loss is smaller than by size alone."""
    losses = torch.zeros(2, ranker.num_columns, dtype=torch.float64)
    for group_batch in validation.batches():
        batch = validation.batch(group_batch, device)
        for listwise in (0, 1):
            ranker.listwise.fill_(bool(listwise))
            log_total = ranker(batch)[0, ..., -1].double()
            loss = total_loss(log_total, batch.targets.sum(-1).double())
            losses[listwise] += (loss if batch.weights is None else loss * batch.weights).sum(0).cpu()
    ranker.listwise.copy_(losses[1] < losses[0])
