"""What a training adds to the listwise DPO loss: the options ``rpo_alpha``, ``ld_alpha`` and ``label_smoothing``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.tokenization import TokenGroup
from hyperdpo.core.loss_options import Smoothing, anchor_losses, best_items, smoothed_targets
from hyperdpo.core.losses import listnet_dpo_loss

if TYPE_CHECKING:
    from hyperdpo.alignment.training_config import HyperDPOConfig


@dataclass(frozen=True)
class LossOptions:
    """The options of one training; without any, the loss is
    :func:`~hyperdpo.core.losses.listnet_dpo_loss`."""

    rpo_alpha: float | None = None
    ld_alpha: float | None = None
    label_smoothing: float = 0.0
    smoothing: Smoothing = "robust"
    lengths: Tensor | None = None
    """(m,): see :func:`best_lengths`; only with ``rpo_alpha``."""

    @classmethod
    def of(cls, args: HyperDPOConfig, groups: Sequence[TokenGroup]) -> LossOptions:
        """Those of a training with these settings on these groups."""
        lengths = best_lengths(groups) if args.rpo_alpha else None
        return cls(
            args.rpo_alpha, args.ld_alpha, args.label_smoothing, cast(Smoothing, args.smoothing or "robust"), lengths
        )

    def losses(
        self,
        scores: Tensor,
        base: Tensor,
        targets: Tensor,
        mask: Tensor,
        betas: Sequence[float],
        logps: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """(G, m) losses, the anchors in them; and the anchors alone, without ``rpo_alpha`` None.

        Args:
            scores, base: (G, n), with less weight on tails where ``ld_alpha`` is set.
            targets: (G, m, n).
            mask: (G, n) or (G, m, n), the responses that have a label.
            betas: m temperatures.
            logps: (G, n), the plain log-probabilities.
        """
        wanted = targets
        if self.label_smoothing:
            wanted = smoothed_targets(targets, mask, self.label_smoothing, self.smoothing)
        losses = listnet_dpo_loss(scores, base, wanted, mask, betas)
        if not self.rpo_alpha or self.lengths is None:
            return losses, None
        anchors = anchor_losses(logps, targets, mask, self.lengths.to(logps))
        return losses + self.rpo_alpha * anchors, anchors


def best_lengths(groups: Sequence[TokenGroup]) -> Tensor:
    """(m,) float32: tokens of each objective's best response, on average over the groups with a signal of it.

    Divided by it, the mean of an anchor over the groups is a mean over the tokens of their best responses, as in TRL.
    """
    totals, counts = np.zeros(len(groups[0].signal)), np.zeros(len(groups[0].signal))
    for group in groups:
        lengths = np.array([len(ids) for ids in group.completion_ids], dtype=float)
        targets = torch.as_tensor(np.asarray(group.targets))[None]
        labelled = torch.ones_like(targets, dtype=torch.bool)
        if group.labelled is not None:
            labelled = torch.as_tensor(np.asarray(group.labelled))[None]
        best = best_items(targets, labelled)[0].numpy()
        totals += np.where(group.signal, (best * lengths).sum(1) / np.maximum(best.sum(1), 1), 0)
        counts += group.signal
    return torch.from_numpy(totals / np.maximum(counts, 1)).float().clamp_min(1)
