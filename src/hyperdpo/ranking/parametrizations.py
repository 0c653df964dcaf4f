"""Parametrisations: how a network's output becomes the score s(y, w | x), and what it is trained with.

Shapes: G groups, n items (padded), m objectives, K weightings of each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from hyperdpo.core.control import normalised_temperatures, temperature_transformation
from hyperdpo.core.losses import listnet_dpo_loss, listnet_loss, top_one_log_probabilities
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.ranking.config import MixtureConfig, ScorerConfig
from hyperdpo.ranking.examples import Batch, LabelledBatch
from hyperdpo.ranking.network import Scorer

if TYPE_CHECKING:
    from hyperdpo.ranking.tree_columns import TreeColumns

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
    def constants(self) -> dict[str, list[float]]:
        """What was fitted once for all lists, for the run's metadata."""
        return {}

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


def _heads_loss(heads: torch.Tensor, batch: LabelledBatch) -> torch.Tensor:
    """(G, m): the cross-entropy of each head with its own targets."""
    groups, m, items = heads.shape
    mask = batch.mask.unsqueeze(1).expand(-1, m, -1) if batch.judged is None else batch.judged
    mask = mask.reshape(-1, items)
    return listnet_loss(heads.reshape(-1, items), batch.targets.reshape(-1, items), mask).view(groups, m)
