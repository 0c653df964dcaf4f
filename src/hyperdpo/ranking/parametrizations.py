"""Parametrisations: how a network's output becomes the score s(y, w | x), and what it is trained with.

Shapes: G groups, n items (padded), m objectives, K weightings of each group; M columns of expected gains: m, and the
main label's where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hyperdpo.core.control import normalised_temperatures, temperature_transformation
from hyperdpo.core.gains import gain_loss, gain_scores, gain_weights, total_loss
from hyperdpo.core.losses import listnet_dpo_loss, listnet_loss, top_one_log_probabilities
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import WITH_TREES, MixtureConfig, RankConfig, ScorerConfig
from hyperdpo.ranking.examples import Batch, LabelledBatch
from hyperdpo.ranking.network import Scorer

if TYPE_CHECKING:
    from hyperdpo.data.splits import Part
    from hyperdpo.ranking.tree_columns import TreeColumns

#: λ while epochs are compared, and where nothing can choose it.
USUAL_SHARE = 0.25
#: The trees' part of a blend that are compared on validation groups.
TREE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Shares λ that are compared on validation groups.
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
#: m temperatures, or (G, m) or (K, G, m) of them.
Temperatures = Sequence[float] | torch.Tensor


class Ranker(nn.Module):
    """``scratch``: the score is the network's output, conditioned on w.

    Args:
        num_weights: m, or 0 for a ranker that knows no weights (a base, or a model for one w).
    """

    #: Whether :meth:`scores` answers at temperatures other than those of the training.
    takes_temperatures = False
    #: Whether scores depend on the base scores.
    needs_base = False
    #: Whether :meth:`scores` takes a share λ of the main label.
    takes_main_share = False
    #: Trees that predict expected gains, of a ranker that has some.
    trees: TreeColumns | None = None
    #: Arguments of :meth:`use` that change how a trained ranker answers: one of each round is chosen, in turn.
    candidates: tuple[tuple[Mapping[str, float], ...], ...] = ()

    def __init__(self, config: ScorerConfig, num_features: int, num_weights: int = 0):
        super().__init__()
        self.num_weights = num_weights
        self.scorer = self._scorer(config, num_features)

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        return Scorer(config, num_features, self.num_weights)

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What :meth:`losses` takes; here the scores (G, n) or (K, G, n).

        Args:
            weights: (G, m) or (K, G, m); None for a ranker that knows none.
            temperatures: of the same shape, for a ranker that is trained with many.
        """
        return self.scorer(batch.features, batch.mask, weights if self.num_weights else None, batch.hidden)

    def losses(self, output: torch.Tensor, batch: LabelledBatch, temperatures: Temperatures) -> torch.Tensor:
        """(G, m) or (K, G, m) losses of what :meth:`forward` gave: ListNet on the distance from the base."""
        if output.dim() == 2:
            return listnet_dpo_loss(output, batch.base_scores, batch.targets, batch.label_mask, temperatures)
        chosen = temperatures if isinstance(temperatures, torch.Tensor) else [temperatures] * len(output)
        return torch.stack(
            [
                listnet_dpo_loss(scores, batch.base_scores, batch.targets, batch.label_mask, betas)
                for scores, betas in zip(output, chosen, strict=True)
            ]
        )

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """(K, G, n) scores of (K, G, m) weightings.

        Args:
            temperatures: m numbers.
            main_share: λ, a number or (K, G) of them, for a ranker that takes one; None: its own.
        """
        if self.num_weights:
            return self(batch, weights)
        return self(batch).expand(len(weights), -1, -1)

    @property
    def chosen(self) -> dict[str, float]:
        """What :meth:`use` has set: the settings that it answers with."""
        return {}

    def use(self, **settings: float) -> None:
        """Answer with other settings from now on, such as some of the :attr:`candidates`.

        Raises:
            KeyError: a setting that this ranker does not have.
        """
        for name, value in settings.items():
            if name not in self.chosen:
                raise KeyError(name)
            setattr(self, name, float(value))

    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters())


class AugmentationRanker(Ranker):
    """``augmentation``: the base score plus the network's output, which starts at 0, so that training starts exactly at
    the base."""

    needs_base = True

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        return Scorer(config, num_features, self.num_weights, zero_start=True)

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        return batch.base_scores + super().forward(batch, weights, temperatures)


class MixtureRanker(Ranker):
    """``mixture``: m heads that learn the objectives' targets; the score is the minimiser of the scalarised loss.

    No w is sampled: head j is trained with its own objective alone, and weights and temperatures enter through
    :func:`~hyperdpo.core.mixture.mixture_scores` after training.

    One more head learns the base's scores. With smoothing γ the expected target of objective j is softmax(u_j + β_j δ),
    δ = γ (u_0 - s_base): at the temperatures of the training, scores then start from (1 - γ) s_base + γ u_0.

    Args:
        betas: the m temperatures of the training; None: 1.
        base_spread: the base scores' standard deviation within a group; u_0 is learned in units of it.
    """

    takes_temperatures = True
    needs_base = True
    base_spread: torch.Tensor

    def __init__(
        self,
        config: ScorerConfig,
        num_features: int,
        num_weights: int,
        settings: MixtureConfig | None = None,
        betas: Sequence[float] | None = None,
        base_spread: float = 1.0,
    ):
        settings = MixtureConfig(distillation=0.0) if settings is None else settings
        self.distillation = settings.distillation
        super().__init__(config, num_features, num_weights)
        smoothings, powers = settings.choices("smoothing"), settings.choices("power")
        # The middle one stands for all of them while epochs are compared.
        self.smoothing, self.power = smoothings[len(smoothings) // 2], powers[len(powers) // 2]
        if len(smoothings) * len(powers) > 1:
            self.candidates = (tuple({"smoothing": s, "power": p} for s in smoothings for p in powers),)
        self.betas = tuple(betas) if betas is not None else (1.0,) * num_weights
        self.register_buffer("base_spread", torch.tensor(float(base_spread)))

    @property
    def chosen(self) -> dict[str, float]:
        return {"smoothing": self.smoothing, "power": self.power}

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        return Scorer(config, num_features, num_outputs=self.num_weights + (self.distillation > 0))

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(G, m, n): the heads u_j; (G, m + 1, n) with u_0, the last."""
        heads = self.scorer(batch.features, batch.mask)
        return heads.unsqueeze(1) if heads.dim() == 2 else heads.transpose(1, 2)

    def losses(self, output: torch.Tensor, batch: LabelledBatch, temperatures: Temperatures) -> torch.Tensor:
        """(G, m): each head's cross-entropy with its own targets, and a share of what u_0 is from the base."""
        losses = _heads_loss(output[:, : self.num_weights], batch)
        if not self.distillation:
            return losses
        base = top_one_log_probabilities(batch.base_scores / self.base_spread, batch.mask).exp() * batch.mask
        return losses + self.distillation * listnet_loss(output[:, -1], base, batch.mask).unsqueeze(-1)

    def log_targets(self, batch: Batch) -> torch.Tensor:
        """(G, m, n): the logarithms of the expected targets, 0 on padding."""
        output = self(batch).float()
        heads = output[:, : self.num_weights]
        if self.distillation:
            slopes = self.smoothing * torch.tensor(self.betas, device=heads.device).unsqueeze(-1)
            heads = heads + slopes * (self.base_spread * output[:, -1:] - batch.base_scores.unsqueeze(1))
        return top_one_log_probabilities(heads, batch.mask.unsqueeze(1))

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        log_targets = self.log_targets(batch)
        return mixture_scores(log_targets, batch.mask, batch.base_scores, weights, temperatures, power=self.power)


class TemperatureRanker(Ranker):
    """``temperature``, the temperature hypernetwork: the network sees w and β/|β|_1.

    The length |β|_1 enters through :func:`~hyperdpo.core.control.temperature_transformation`.

    Args:
        augmentation: the network's output is added to the base score, as in the paper's appendix C.3.
    """

    takes_temperatures = True
    needs_base = True

    def __init__(self, config: ScorerConfig, num_features: int, num_weights: int, *, augmentation: bool):
        self.augmentation = augmentation
        super().__init__(config, num_features, num_weights)

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        return Scorer(config, num_features, 2 * self.num_weights, zero_start=self.augmentation)

    def forward(
        self, batch: Batch, weights: torch.Tensor | None = None, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert weights is not None
        assert temperatures is not None
        temperatures = temperatures.expand(weights.shape)
        conditions = torch.cat([weights, normalised_temperatures(temperatures)], -1)
        scores = self.scorer(batch.features, batch.mask, conditions, batch.hidden)
        if self.augmentation:
            scores = scores + batch.base_scores
        return temperature_transformation(scores, batch.base_scores, temperatures)

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        return self(batch, weights, torch.as_tensor(temperatures, dtype=weights.dtype, device=weights.device))


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
        if self.kind == "blend":
            rounds.insert(0, tuple({"tree_weight": weight} for weight in TREE_WEIGHTS))
        self.candidates = tuple(candidates for candidates in rounds if len(candidates) > 1)
        if self.has_network:
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

    def num_parameters(self) -> int:
        return super().num_parameters() + (0 if self.trees is None else self.trees.parameters)

    def _scorer(self, config: ScorerConfig, num_features: int) -> Scorer:
        if not self.has_network:
            return NoScorer()
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
        mask = batch.mask.unsqueeze(1)
        learned = self._learned(batch).masked_fill(~mask, 0) / self.signal_shares.unsqueeze(-1)
        base = top_one_log_probabilities(self.base_slope * batch.base_scores.unsqueeze(1), mask).exp()
        if self.learns_main:
            own = learned[:, -1:]
            main = (1 - self.learned_main) * own.sum(-1, keepdim=True) * base + self.learned_main * own
            return torch.cat([learned[:, :-1], main], 1).masked_fill(~mask, 0)
        return torch.cat([learned, base], 1).masked_fill(~mask, 0)

    def _learned(self, batch: Batch) -> torch.Tensor:
        """(G, M, n): what heads and trees predict."""
        if self.tree_weight > 0 and batch.tree_columns is None:
            raise InputError("this ranker has trees, and the batch does not hold what they predict")
        if self.tree_weight == 1:
            assert batch.tree_columns is not None
            return batch.tree_columns
        output = self(batch).float()
        heads, log_total = output[..., :-1], output[..., -1:]
        found = top_one_log_probabilities(heads, batch.mask.unsqueeze(1)).exp() * log_total.exp()
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


def _heads_loss(heads: torch.Tensor, batch: LabelledBatch) -> torch.Tensor:
    """(G, m): the cross-entropy of each head with its own targets."""
    groups, m, items = heads.shape
    mask = batch.mask.unsqueeze(1).expand(-1, m, -1) if batch.judged is None else batch.judged
    mask = mask.reshape(-1, items)
    return listnet_loss(heads.reshape(-1, items), batch.targets.reshape(-1, items), mask).view(groups, m)


def conditioned_ranker(config: RankConfig, num_features: int) -> Ranker:
    """The ranker for all weightings that the configuration asks for, with new weights."""
    m = len(config.objectives)
    if config.parametrization == "mixture":
        if config.mixture.form == "gain":
            return GainRanker(config.scorer, num_features, m, config.mixture, learns_main=config.main is not None)
        return MixtureRanker(config.scorer, num_features, m, config.mixture, [o.beta for o in config.objectives])
    if config.parametrization == "temperature":
        augmentation = config.temperatures.parametrization == "augmentation"
        return TemperatureRanker(config.scorer, num_features, m, augmentation=augmentation)
    kind = AugmentationRanker if config.parametrization == "augmentation" else Ranker
    return kind(config.scorer, num_features, m)


def fixed_ranker(config: RankConfig, num_features: int) -> Ranker:
    """The same network without w, for one weighting (a baseline); a base is one too.

    Only ``augmentation`` keeps its parametrisation: the others' baselines are trained from scratch, as in the paper.
    """
    kind = AugmentationRanker if config.parametrization == "augmentation" else Ranker
    return kind(config.scorer, num_features)
