"""The ranker of expected gains: one column per objective, and one for the main label; a ranking is a weighted sum.

Shapes: G groups, n items (padded), m objectives, K weightings of each group; M columns: m, and the main label's where
there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hyperdpo.core.gains import gain_loss, gain_scores, gain_weights, total_loss
from hyperdpo.core.losses import top_one_log_probabilities
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import WITH_TREES, MixtureConfig, ScorerConfig
from hyperdpo.ranking.examples import Batch, LabelledBatch
from hyperdpo.ranking.network import Scorer
from hyperdpo.ranking.parametrizations import Ranker, Temperatures

if TYPE_CHECKING:
    from hyperdpo.data.splits import Part

#: λ while epochs are compared, and where nothing can choose it.
USUAL_SHARE = 0.25
#: Networks where no number is given: on small data, of so many training items at most, chance counts for more.
MEMBERS, MEMBERS_OF_SMALL, SMALL_ITEMS = 2, 4, 10_000
#: The trees' part of a blend that are compared on validation groups.
TREE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Shares λ that are compared on validation groups.
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


class NoScorer(Scorer):
    """Stands for the network of a ranker that has none."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.num_conditions, self.head = 0, None


class GainRanker(Ranker):
    """``mixture`` of the form ``gain``: column j is the expected gain of objective j, the last that of the main label.

    Column j is softmax(u_j) κ_j: head u_j says how the gain is shared, κ_j how much of it the list has. No w is
    sampled: weights and the main label's share λ enter when a list is scored, as v = ((1 - λ) w, λ). The main column
    is a part γ of what is learned, and the rest from the base scores: softmax(a s_base) κ_main.

    Several networks are trained side by side, and the mean of their softmax(u_j) counts. The first one says κ.

    Scores are log(sum_j v_j g_ij) / a, so that s_base and they are on one scale, and scale c moves to the base's order.

    Args:
        learns_main: there is a main label, and M = m + 1. Without one, the last column is softmax(a s_base).
    """

    takes_main_share = True
    needs_base = True
    base_slope: torch.Tensor
    size_totals: torch.Tensor
    listwise: torch.Tensor
    signal_shares: torch.Tensor

    def __init__(
        self,
        config: ScorerConfig,
        num_features: int,
        num_weights: int,
        settings: MixtureConfig | None = None,
        *,
        learns_main: bool,
    ):
        settings = MixtureConfig() if settings is None else settings
        self.num_columns, self.kind = num_weights + learns_main, config.kind
        super().__init__(config, num_features, num_weights)
        self.tree_weight = {"gbdt": 1.0, "blend": 0.5}.get(self.kind, 0.0)
        parts = settings.choices("learned_main") if learns_main else (0.0,)
        # The middle one stands for all of them while epochs are compared.
        self.learned_main = parts[len(parts) // 2]
        self.main_share = USUAL_SHARE if settings.main_share is None else settings.main_share
        rounds = [tuple({"learned_main": part} for part in parts)]
        if settings.main_share is None and learns_main:
            rounds.append(tuple({"main_share": share} for share in SHARES))
        self.candidates = tuple(candidates for candidates in rounds if len(candidates) > 1)
        #: The other networks.
        self.members = nn.ModuleList()
        if self.has_network:
            for _ in range((settings.members or MEMBERS) - 1):
                self.members.append(self._scorer(config, num_features))
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

    def tree_columns(self, part: Part) -> np.ndarray:
        """(N, M) float32: what the trees predict for the rows of a part; for :class:`~hyperdpo.ranking.examples.Items`.

        Raises:
            InputError: there are no trees yet, or a feature column is missing.
        """
        if self.trees is None:
            raise InputError("the trees of this ranker are not trained")
        return self.trees(part)

    @property
    def has_network(self) -> bool:
        """Whether heads are trained, and not trees alone."""
        return self.kind != "gbdt"

    @property
    def chosen(self) -> dict[str, float]:
        found = {"learned_main": self.learned_main, "main_share": self.main_share}
        return found | {"tree_weight": self.tree_weight} if self.kind in WITH_TREES else found

    @property
    def constants(self) -> dict[str, list[float]]:
        return {"signal_shares": self.signal_shares.tolist(), "base_slope": [float(self.base_slope)]}

    def num_parameters(self) -> int:
        return super().num_parameters() + (0 if self.trees is None else self.trees.parameters)

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        if not self.has_network:
            return NoScorer()
        return Scorer(config, num_features, num_outputs=self.num_columns)

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, G, M, n + 1), for N networks: the heads u_j, and last log κ_j, the same of all."""
        hidden = self.scorer.before_conditions(batch.features, batch.mask)
        heads = [self.scorer.out(hidden), *(member(batch.features, batch.mask) for member in self.members)]
        counts = batch.mask.sum(-1, keepdim=True)
        pooled = (hidden.detach() * batch.mask.unsqueeze(-1)).sum(1) / counts
        log_size = counts.to(hidden.dtype).log()
        basis = torch.cat([torch.ones_like(log_size), log_size, log_size.square()], -1)
        log_total = basis @ self.size_totals.T + self.totals(pooled) * self.listwise
        log_total = log_total.unsqueeze(-1)
        return torch.stack([torch.cat([one.transpose(1, 2), log_total], -1) for one in heads])

    def losses(self, output: torch.Tensor, batch: LabelledBatch, temperatures: Temperatures) -> torch.Tensor:
        """(G, M): the sum of the losses of each column's heads, and of its total."""
        heads, log_total = output[..., :-1], output[0, ..., -1]
        mask = batch.mask.unsqueeze(1) if batch.judged is None else batch.judged
        return gain_loss(heads, batch.targets, mask).sum(0) + total_loss(log_total, batch.targets.sum(-1))

    def columns(self, batch: Batch) -> torch.Tensor:
        """(G, m + 1, n): the expected gains, the main label's last; 0 on padding."""
        mask = batch.mask.unsqueeze(1)
        learned = self.learned_columns(batch).masked_fill(~mask, 0) / self.signal_shares.unsqueeze(-1)
        base = top_one_log_probabilities(self.base_slope * batch.base_scores.unsqueeze(1), mask).exp()
        if self.learns_main:
            own = learned[:, -1:]
            main = (1 - self.learned_main) * own.sum(-1, keepdim=True) * base + self.learned_main * own
            return torch.cat([learned[:, :-1], main], 1).masked_fill(~mask, 0)
        return torch.cat([learned, base], 1).masked_fill(~mask, 0)

    @property
    def tree_parts(self) -> tuple[float, ...]:
        """(M,): how much of what is learned for a column the trees give to it, τ, and γ τ for the main label."""
        if self.trees is None:
            return (0.0,) * self.num_columns
        main = (self.tree_weight * self.learned_main,) if self.learns_main else ()
        return (*(self.tree_weight,) * self.num_weights, *main)

    def column_sources(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What trees, base and network give to the columns, by name: (G, m + 1, n) float64 each; they sum to them.

        Column j is (1 - τ) of the network's gain and τ of the trees', over the share of groups with signal. The main
        column is γ of that; the rest of its total is the base's.

        Args:
            batch: with what the trees predict.
        """
        assert batch.tree_columns is not None
        mask = batch.mask.unsqueeze(1)
        whole = self.columns(batch).double()
        parts = torch.tensor(self.tree_parts, dtype=torch.float64, device=whole.device)
        by_trees = parts.unsqueeze(-1) * batch.tree_columns.double() / self.signal_shares.double().unsqueeze(-1)
        base = top_one_log_probabilities(self.base_slope * batch.base_scores.unsqueeze(1), mask).exp().double()
        learned_main = self.learned_main if self.learns_main else 0.0
        by_base = (1 - learned_main) * whole[:, -1:].sum(-1, keepdim=True) * base
        if not self.learns_main:
            by_trees = torch.cat([by_trees, torch.zeros_like(by_base)], 1)
        by_base = torch.cat([torch.zeros_like(whole[:, :-1]), by_base], 1)
        found = {"trees": by_trees.masked_fill(~mask, 0), "base": by_base.masked_fill(~mask, 0)}
        return found | {"neural": whole - found["trees"] - found["base"]} if self.has_network else found

    def learned_columns(self, batch: Batch) -> torch.Tensor:
        """(G, M, n): what heads and trees predict."""
        if self.tree_weight > 0 and batch.tree_columns is None:
            raise InputError("this ranker has trees, and the batch does not hold what they predict")
        if self.tree_weight == 1:
            assert batch.tree_columns is not None
            return batch.tree_columns
        output = self(batch).float()
        shares = top_one_log_probabilities(output[..., :-1], batch.mask.unsqueeze(1)).exp().mean(0)
        found = shares * output[0, ..., -1:].exp()
        if batch.tree_columns is None:
            return found
        return (1 - self.tree_weight) * found + self.tree_weight * batch.tree_columns

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        share = self.main_share if main_share is None else main_share
        return gain_scores(self.columns(batch), gain_weights(weights, share)) / self.base_slope
