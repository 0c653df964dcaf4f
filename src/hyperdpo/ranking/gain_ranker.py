"""The mixture of expected gains: one column per label, whose weighted sum orders a list at any weights.

Shapes: G groups, n items (padded), m objectives, M columns that are learned: m, and the main label's where there is
one, K weightings of each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from hyperdpo.core.gains import gain_loss, gain_scores, gain_weights, total_loss
from hyperdpo.core.losses import top_one_log_probabilities
from hyperdpo.data.batching import row_index, sorted_batches
from hyperdpo.objectives import Label
from hyperdpo.ranking.config import ScorerConfig
from hyperdpo.ranking.examples import Batch, Examples, LabelledBatch
from hyperdpo.ranking.metrics import NdcgSettings, relative_gains
from hyperdpo.ranking.parametrizations import Ranker, Temperatures

#: Items per batch where relative gains are computed.
CHUNK_ITEMS = 65536


class GainRanker(Ranker):
    """``mixture`` of the form ``gain``: column j is the expected gain of objective j, the last that of the main label.

    Column j is softmax(u_j) κ_j: head u_j says how the gain is shared, κ_j how much of it the list has. No w is
    sampled: weights and the main label's share λ enter when a list is scored, as v = ((1 - λ) w, λ). The main column
    is a part γ of what is learned, and the rest from the base scores: softmax(a s_base) κ_main.

    Scores are log(sum_j v_j g_ij) / a, so that s_base and they are on one scale, and scale c moves to the base's order.

    Args:
        learns_main: there is a main label, and M = m + 1.
    """

    needs_base = True
    base_slope: torch.Tensor
    size_totals: torch.Tensor
    listwise: torch.Tensor
    signal_shares: torch.Tensor

    def __init__(self, config: ScorerConfig, num_features: int, num_weights: int, *, learns_main: bool):
        self.num_columns = num_weights + learns_main
        super().__init__(config, num_features, num_weights)
        self.learned_main = 0.5 if learns_main else 0.0
        self.main_share = 0.25
        # What a list's features add to log κ; 0 at the start.
        self.totals = nn.Linear(config.width, self.num_columns)
        nn.init.zeros_(self.totals.weight)
        nn.init.zeros_(self.totals.bias)
        #: a: the base scores' slope, such that softmax(a s_base) is the base's share of the main gain.
        self.register_buffer("base_slope", torch.tensor(1.0))
        #: log κ_j by the number of items alone: (M, 3) coefficients of 1, log n and log² n.
        self.register_buffer("size_totals", torch.zeros(self.num_columns, 3))
        #: Whether a list's features are used for κ_j, or its size alone.
        self.register_buffer("listwise", torch.ones(self.num_columns, dtype=torch.bool))
        #: Columns are divided by this: the share of groups with signal where others are left out of the metric.
        self.register_buffer("signal_shares", torch.ones(self.num_columns))

    @property
    def learns_main(self) -> bool:
        """Whether there is a main label."""
        return self.num_columns > self.num_weights

    @property
    def chosen(self) -> dict[str, float]:
        return {"learned_main": self.learned_main, "main_share": self.main_share}

    def _scorer(self, config: ScorerConfig, num_features: int):  # type: ignore[no-untyped-def]
        from hyperdpo.ranking.network import Scorer

        return Scorer(config, num_features, num_outputs=self.num_columns)

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(G, M, n + 1): the heads u_j, and last log κ_j."""
        hidden = self.scorer.before_conditions(batch.features, batch.mask)
        heads = self.scorer.out(hidden).transpose(1, 2)
        counts = batch.mask.sum(-1, keepdim=True)
        pooled = (hidden.detach() * batch.mask.unsqueeze(-1)).sum(1) / counts
        log_size = counts.to(hidden.dtype).log()
        basis = torch.cat([torch.ones_like(log_size), log_size, log_size.square()], -1)
        log_total = basis @ self.size_totals.T + self.totals(pooled) * self.listwise
        return torch.cat([heads, log_total.unsqueeze(-1)], -1)

    def losses(self, output: torch.Tensor, batch: LabelledBatch, temperatures: Temperatures) -> torch.Tensor:
        """(G, M): the loss of each column's head, and of its total."""
        heads, log_total = output[..., :-1], output[..., -1]
        mask = batch.mask.unsqueeze(1) if batch.judged is None else batch.judged
        return gain_loss(heads, batch.targets, mask) + total_loss(log_total, batch.targets.sum(-1))

    def columns(self, batch: Batch) -> torch.Tensor:
        """(G, m + 1, n): the expected gains, the main label's last; 0 on padding."""
        output = self(batch).float()
        mask = batch.mask.unsqueeze(1)
        shares = top_one_log_probabilities(output[..., :-1], mask).exp()
        base = top_one_log_probabilities(self.base_slope * batch.base_scores.unsqueeze(1), mask).exp()
        scale = (output[..., -1].exp() / self.signal_shares).unsqueeze(-1)
        if self.learns_main:
            main = (1 - self.learned_main) * base + self.learned_main * shares[:, -1:]
            found = torch.cat([shares[:, :-1], main], 1) * scale
        else:
            found = torch.cat([shares * scale, base], 1)
        return found.masked_fill(~mask, 0)

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        share = self.main_share if main_share is None else main_share
        return gain_scores(self.columns(batch), gain_weights(weights, share)) / self.base_slope


def gain_examples(examples: Examples, main: Label | None, metric: NdcgSettings) -> Examples:
    """Examples whose targets are relative gains: of the objectives, and of the main label where there is one.

    Args:
        main: fitted.
    """
    gains = examples.measured_gains
    targets = np.zeros(gains.shape, np.float32)
    sizes = examples.sizes
    starts = np.cumsum(sizes) - sizes
    for group_batch in sorted_batches(sizes, CHUNK_ITEMS):
        rows, mask = row_index(starts, sizes, group_batch)
        values = torch.from_numpy(np.moveaxis(gains[rows], -1, 0))  # (M, G, n)
        judged = torch.from_numpy(mask) & ~values.isnan()
        found = relative_gains(values.nan_to_num(0.0), judged, metric)
        targets[rows[mask]] = np.moveaxis(found.numpy(), 0, -1)[mask]
    labels = examples.labels if main is None else (*examples.labels, main)
    signal = np.add.reduceat(targets, starts) > 0 if len(sizes) else np.zeros((0, gains.shape[1]), bool)
    return replace(examples, labels=labels, gains=gains, targets=targets, signal=signal)


def group_totals(examples: Examples) -> np.ndarray:
    """(g, M): the sum of each group's targets."""
    starts = np.cumsum(examples.sizes) - examples.sizes
    return np.add.reduceat(examples.targets.astype(np.float64), starts)


def fit_size_totals(train: Examples) -> np.ndarray:
    """(M, 3): Poisson regressions of each label's total on 1, log n and log² n."""
    from sklearn.linear_model import PoissonRegressor

    totals, log_size = group_totals(train), np.log(train.sizes)
    basis = np.stack([log_size, log_size**2], 1)
    centre, spread = basis.mean(0), np.where(basis.std(0) > 1e-9, basis.std(0), 1)
    found = []
    for total in totals.T:
        # A little ridge: lists of one length leave the coefficients undetermined.
        model = PoissonRegressor(alpha=1e-3, max_iter=1000).fit((basis - centre) / spread, np.maximum(total, 1e-12))
        slopes = model.coef_ / spread
        found.append([model.intercept_ - slopes @ centre, *slopes])
    return np.array(found)


def fit_base_slope(examples: Examples, relative: np.ndarray) -> float:
    """a > 0 that minimises the loss of softmax(a s_base) with the main label's relative gains.

    Args:
        examples: groups that the base was not trained on, where there are any.
        relative: (N,) the main label's.
    """
    from scipy.optimize import minimize_scalar

    sizes = examples.sizes
    starts = np.cumsum(sizes) - sizes
    scores = examples.base_scores.astype(np.float64)
    spread = float(np.sqrt(np.mean((scores - np.repeat(np.add.reduceat(scores, starts) / sizes, sizes)) ** 2)))
    if spread == 0:
        return 1.0
    total = np.add.reduceat(relative.astype(np.float64), starts)

    def loss(log_slope: float) -> float:
        s = np.exp(log_slope) * scores
        top = np.maximum.reduceat(s, starts)
        log_sum = np.log(np.add.reduceat(np.exp(s - np.repeat(top, sizes)), starts)) + top
        return float((total * log_sum).sum() - relative @ s)

    # From hardly any to nearly all on the first item, in units of the scores' spread.
    found = minimize_scalar(loss, bounds=(np.log(0.01 / spread), np.log(30 / spread)), method="bounded")
    return float(np.exp(found.x))


def total_deviance(log_total: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(M,): mean Poisson deviance, up to a constant, of (g, M) predictions."""
    return (np.exp(log_total) - total * log_total).mean(0)


Columns = Sequence[str]
