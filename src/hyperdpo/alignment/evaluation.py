"""How well a conditioned language model does at each weighting: cross-entropy per objective, and what w changes.

Everything is measured on a fixed grid of weights, never on sampled ones. G groups, R responses in all of them, P points
(weights and scale), m objectives. Scores are summed log-probabilities of responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.collation import Collator, TokenGroup, labelled_of, token_batches, worth_sharing
from hyperdpo.alignment.model import Responses
from hyperdpo.alignment.sampling import evaluation_mode
from hyperdpo.core.control import linear_transformation
from hyperdpo.core.loss_options import desensitised_scores
from hyperdpo.core.losses import listnet_dpo_loss
from hyperdpo.core.pareto import hypervolume
from hyperdpo.errors import InputError
from hyperdpo.fronts import front_dict, grid_points, named
from hyperdpo.progress import Update, progress_bar

if TYPE_CHECKING:
    from hyperdpo.alignment.model import ConditionedLM

#: Table 2's reference point for pairs, where a model that finds both responses alike has a loss of ln 2.
PAIR_REFERENCE = 1.1
#: Tokens, padding included, that go through the model at once.
PASS_TOKENS = 16_384

#: (B,) scores of the rows of a batch: what is measured.
RowScores = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class AlignmentFront:
    """Metrics of P points on some groups."""

    objectives: tuple[str, ...]
    weights: np.ndarray
    """(P, m)."""
    scales: np.ndarray
    """(P,)."""
    losses: np.ndarray
    """(P, m): the cross-entropy error of each objective at the temperatures of the training."""
    accuracies: np.ndarray
    """(P, m): share of the pairs of a group that the objective orders and the model orders alike."""
    deviations: np.ndarray
    """(P, 3): quartiles of s - s_base over all responses."""
    reference_point: np.ndarray
    """(m,): see :func:`reference_point`."""
    temperatures: tuple[float, ...]
    """(m,)."""
    span_errors: np.ndarray | None = None
    """(m,): standard errors of the control spans, see :func:`span_errors`; None where the front has none."""

    @property
    def base_losses(self) -> np.ndarray:
        """(m,): of the base, which finds all n responses alike: ln n on average."""
        return self.reference_point * math.log(2) / PAIR_REFERENCE

    @property
    def hypervolume(self) -> float:
        """The volume that the losses, which are minimised, dominate from the reference point."""
        return hypervolume(self.losses, self.reference_point, ["minimize"] * len(self.objectives))

    @property
    def hypervolume_with_main(self) -> None:
        """There is no main label."""

    @property
    def control_span(self) -> dict[str, float]:
        """See :func:`control_spans`; of the losses at scale 1, turned so that more is better. Empty without it."""
        unscaled = self.scales == 1
        if not unscaled.any():
            return {}
        return dict(
            zip(self.objectives, control_spans(self.weights[unscaled], -self.losses[unscaled]).tolist(), strict=True)
        )

    @property
    def control_span_error(self) -> dict[str, float | None]:
        """Standard error of each control span over the groups; None where one group alone has a signal."""
        if self.span_errors is None:
            return {}
        return named(self.objectives, self.span_errors)

    def to_dict(self) -> dict[str, Any]:
        """The keys of ``FRONT.json`` that depend on the front alone."""
        names = self.objectives
        metric = {"name": "cross_entropy", "description": "cross-entropy error per objective; lower is better"}
        points = [
            {
                "metrics": named(names, self.losses[p]),
                "accuracy": named(names, self.accuracies[p]),
                "deviation_quartiles": self.deviations[p].tolist(),
                "main": None,
            }
            for p in range(len(self.weights))
        ]
        temperatures = np.tile(self.temperatures, (len(points), 1))
        return front_dict(self, "minimize", metric, temperatures, points, self.reference_point.tolist()) | {
            "base": {"metrics": named(names, self.base_losses), "main": None},
            "control_span": self.control_span,
            "control_span_error": self.control_span_error,
        }


def reference_point(groups: Sequence[TokenGroup]) -> np.ndarray:
    """(m,): 1.1 / ln 2 of the loss of a model that finds all responses alike, ln n on average.

    For pairs it is Table 2's (1.1, 1.1); for more responses it leaves the same relative room. The n of an objective
    is the number of responses that it has a label for.
    """
    m = len(groups[0].signal)
    sizes = [np.full(m, len(g.completion_ids)) if g.labelled is None else g.labelled.sum(1) for g in groups]
    signal = np.stack([group.signal for group in groups])
    counts = np.maximum(signal.sum(0), 1)
    return PAIR_REFERENCE / math.log(2) * (np.log(np.maximum(sizes, 1)) * signal).sum(0) / counts


def vertex_rows(weights: np.ndarray) -> list[int] | None:
    """The first row of (P, m) weights that is each vertex of the simplex; None where one is missing."""
    rows = [np.flatnonzero(np.isclose(weights[:, j], 1)) for j in range(weights.shape[1])]
    return [int(row[0]) for row in rows] if all(map(len, rows)) else None


def control_spans(weights: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """Each objective's metric where all weight lies on it, minus its mean where another has all the weight.

    Args:
        weights: (P, m), all vertices among them.
        metrics: (P, m), or (P, G, m) for the spans of each group; more is better.

    Returns:
        (m,), or (G, m).

    Raises:
        InputError: a vertex is missing.
    """
    m, rows = weights.shape[1], vertex_rows(weights)
    if rows is None:
        raise InputError(
            "control span: the weights do not hold all vertices of the simplex; add the missing unit vectors"
        )
    ends = metrics[rows]  # (m, ..., m): row i is at w = e_i
    if m == 1:
        return np.zeros(metrics.shape[1:])
    own = ends.diagonal(axis1=0, axis2=-1)
    found: np.ndarray = own - (ends.sum(0) - own) / (m - 1)
    return found


def span_errors(weights: np.ndarray, metrics: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """(m,): standard error of each control span over the groups with signal: sd / sqrt(n); NaN for fewer than 2.

    Args:
        weights: (P, m), all vertices among them.
        metrics: (P, G, m), of each group; more is better.
        signal: (G, m) bool.
    """
    spans = control_spans(weights, metrics)
    found = [own[has] for own, has in zip(spans.T, signal.T, strict=True)]
    return np.array([one.std(ddof=1) / math.sqrt(len(one)) if len(one) > 1 else math.nan for one in found])


@torch.inference_mode()
def group_scores(
    score: RowScores,
    groups: Sequence[TokenGroup],
    pad_token_id: int,
    device: torch.device | str = "cpu",
    *,
    pass_tokens: int = PASS_TOKENS,
    update: Update | None = None,
) -> list[np.ndarray]:
    """(n,) float32 scores of the responses of each group, in batches of similar lengths.

    Args:
        score: of the rows of a batch, as :class:`~hyperdpo.alignment.collation.Collator` makes it.
        update: called with the number of groups that are done.
    """
    collate = Collator(pad_token_id, share_prompts=worth_sharing(groups))
    lengths = [group.length for group in groups]
    sizes = [len(group.completion_ids) for group in groups]
    found: list[np.ndarray] = [np.empty(0)] * len(groups)
    done = 0
    for chosen in token_batches(lengths, sizes, pass_tokens):
        batch = {key: value.to(device) for key, value in collate([groups[int(i)] for i in chosen]).items()}
        rows = score(batch).float().cpu().numpy()
        places, mask = batch["rows"].cpu().numpy(), batch["mask"].cpu().numpy()
        for position, i in enumerate(chosen):
            found[int(i)] = rows[places[position][mask[position]]]
        done += len(chosen)
        if update is not None:
            update(done)
    return found


def row_logps(
    model: torch.nn.Module, batch: dict[str, Tensor], weights: Tensor | None = None, ld_alpha: float | None = None
) -> Tensor:
    """(B,) summed log-probabilities of the responses of a batch, at (m,) or (B, m) weights, alike in a group.

    Args:
        ld_alpha: the scores are :func:`~hyperdpo.core.loss_options.desensitised_scores`; None: plain sums.
    """
    return row_scores(model, batch, weights, ld_alpha)[0]


def row_scores(
    model: torch.nn.Module, batch: dict[str, Tensor], weights: Tensor | None = None, ld_alpha: float | None = None
) -> tuple[Tensor, Tensor]:
    """(B,) scores as of :func:`row_logps`, and the plain sums, which are the same without ``ld_alpha``.

    Prompts that the batch has apart are computed once for all their responses.
    """
    inputs: dict[str, Any] = {"weights": weights}
    if ld_alpha is not None:
        inputs["shared_tokens"] = shared_tokens(batch)
    if "prompt_ids" in batch:
        inputs |= {"input_ids": batch["prompt_ids"], "attention_mask": batch["prompt_mask"]}
        inputs["responses"] = Responses(batch["response_ids"], batch["response_mask"], batch["owner"])
        if weights is not None and weights.dim() > 1:
            inputs["weights"] = weights[batch["rows"][:, 0]]
    else:
        inputs |= {name: batch[name] for name in ("input_ids", "attention_mask", "completion_mask")}
    found = model(**inputs)
    if ld_alpha is None:
        return found["logps"], found["logps"]
    return desensitised_scores(found["logps"], found["tail_logps"], ld_alpha), found["logps"]


def shared_tokens(batch: dict[str, Tensor]) -> Tensor:
    """(B,): tokens of the shortest response of each row's group."""
    rows, mask = batch["rows"], batch["mask"]
    lengths = batch["completion_mask"].sum(1)
    shortest = lengths[rows].masked_fill(~mask, batch["completion_mask"].shape[1]).amin(1, keepdim=True)
    found = torch.empty_like(lengths)
    found[rows[mask]] = shortest.expand_as(rows)[mask]
    return found


def base_scores(
    model: ConditionedLM,
    groups: Sequence[TokenGroup],
    pad_token_id: int,
    device: torch.device | str = "cpu",
    ld_alpha: float | None = None,
) -> list[np.ndarray]:
    """(n,) scores of each group under the base: they do not depend on w, so once is enough."""

    def score(batch: dict[str, Tensor]) -> Tensor:
        return row_logps(model, batch, None, ld_alpha)

    with evaluation_mode(model), model.base_only(), progress_bar("base scores", len(groups), "groups") as update:
        return group_scores(score, groups, pad_token_id, device, update=update)


def conditioned_scores(
    model: ConditionedLM,
    groups: Sequence[TokenGroup],
    weights: np.ndarray,
    pad_token_id: int,
    device: torch.device | str = "cpu",
    *,
    name: str = "",
) -> list[list[np.ndarray]]:
    """For each of the (P, m) weights, the (n,) scores of each group.

    Args:
        name: of a progress bar; empty: none.
    """
    found: list[list[np.ndarray]] = []
    bar = progress_bar(name, len(weights) * len(groups), "groups", show=bool(name))
    with evaluation_mode(model), bar as update:

        def scored(done: float, words: str = "") -> None:
            update(len(found) * len(groups) + done, f"weighting {len(found) + 1} of {len(weights)}")

        for w in torch.as_tensor(np.asarray(weights), dtype=torch.float32, device=device):

            def score(batch: dict[str, Tensor], w: Tensor = w) -> Tensor:
                return row_logps(model, batch, w)

            found.append(group_scores(score, groups, pad_token_id, device, update=scored))
    return found


def check_measurable(objectives: Sequence[str], signal: np.ndarray | Tensor) -> None:
    """Refuse groups that say nothing about some objective: its loss would be 0, as that of a perfect model.

    Args:
        objectives: m names.
        signal: (G, m) bool.

    Raises:
        InputError: naming the first one.
    """
    for name, known in zip(objectives, torch.as_tensor(signal).T, strict=True):
        if not known.any():
            raise InputError(
                f"objective {name!r}: none of the {len(signal)} groups to measure on has a label of it that says "
                "anything; expected at least one (another split.seed, a larger part of the split, or other data)"
            )


def front_of_scores(
    objectives: Sequence[str],
    groups: Sequence[TokenGroup],
    scores: Sequence[Sequence[np.ndarray]],
    base: Sequence[np.ndarray],
    weights: np.ndarray,
    betas: Sequence[float],
    scales: Sequence[float] = (1.0,),
    *,
    partial: bool = False,
) -> AlignmentFront:
    """The front of P weightings at C scales, weights running fastest.

    Scales need no more passes through the model: they are applied to the sequence's log-probability.

    Args:
        scores: for each weighting, (n,) of each group.
        base: (n,) of each group.
        partial: groups may say nothing about an objective: its losses and accuracies are then NaN.

    Raises:
        InputError: no group has a signal of some objective, and the front is not to be partial.
    """
    padded = PaddedGroups(groups, base)
    reference, signal = padded.reference, padded.signal
    if not partial:
        check_measurable(objectives, signal)
    unknown = ~signal.any(0).numpy()
    losses, accuracies, deviations = [], [], []
    vertices, ends = vertex_rows(weights), {}
    for c in scales:
        for p, one in enumerate(scores):
            group_losses, right, scaled = padded.measured(padded.padded(one), betas, float(c))
            if c == 1 and vertices is not None and p in vertices:
                ends[p] = -group_losses.numpy()
            losses.append((group_losses.sum(0) / signal.sum(0).clamp_min(1)).numpy())
            accuracies.append((right.sum(0) / padded.pairs()[1].sum(0).clamp_min(1)).numpy())
            deviations.append(np.quantile((scaled - reference)[padded.mask].numpy(), [0.25, 0.5, 0.75]))
    errors = None
    if ends and vertices is not None:
        errors = span_errors(weights[vertices], np.stack([ends[p] for p in vertices]), signal.numpy())
    return AlignmentFront(
        objectives=tuple(objectives),
        **grid_points(weights, scales),
        losses=np.where(unknown, np.nan, losses),
        accuracies=np.where(unknown, np.nan, accuracies),
        deviations=np.array(deviations),
        reference_point=reference_point(groups),
        temperatures=tuple(map(float, betas)),
        span_errors=errors,
    )


class PaddedGroups:
    """Groups of responses as tensors, to measure scores on.

    Args:
        base: (n,) scores of each group under the base.
    """

    def __init__(self, groups: Sequence[TokenGroup], base: Sequence[np.ndarray]):
        n, m = max(len(one) for one in base), len(groups[0].signal)
        self.mask = torch.zeros(len(groups), n, dtype=torch.bool)
        self.targets = torch.zeros(len(groups), m, n)
        for g, group in enumerate(groups):
            self.mask[g, : len(base[g])] = True
            self.targets[g, :, : len(base[g])] = torch.from_numpy(np.asarray(group.targets))
        self.signal = torch.from_numpy(np.stack([group.signal for group in groups]))
        #: (G, m, n), the responses that an objective has a label for; None where none is missing.
        self.labelled = labelled_of(groups, self.mask) if any(g.labelled is not None for g in groups) else None
        self.reference = self.padded(base)

    def padded(self, values: Sequence[np.ndarray]) -> Tensor:
        """(G, n) float64 of (n,) numbers of each group."""
        out = torch.zeros(self.mask.shape, dtype=torch.float64)
        for g, one in enumerate(values):
            out[g, : len(one)] = torch.from_numpy(np.asarray(one, dtype=np.float64))
        return out

    def measured(self, scores: Tensor, betas: Sequence[float], scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """(G, m) losses, 0 without signal; (G, m) pairs that are ordered alike; (G, n) scores at the scale."""
        scaled = linear_transformation(scores, self.reference, scale)
        mask = self.mask if self.labelled is None else self.labelled
        losses = listnet_dpo_loss(scaled, self.reference, self.targets.double(), mask, betas)
        return losses.masked_fill(~self.signal, 0), self.pairs(scaled - self.reference)[0], scaled

    def pairs(self, rewards: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(G, m) pairs that each objective orders and whose rewards are ordered alike (ties count half), and all that
        it orders; rewards (G, n) are s - s_base, None: all alike."""
        rewards = torch.zeros_like(self.reference) if rewards is None else rewards
        mask = self.mask if self.labelled is None else self.labelled
        return ordered_pairs(rewards, self.targets, mask, self.signal)


def ordered_pairs(rewards: Tensor, targets: Tensor, mask: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """(G, m) pairs that each objective orders and whose rewards are ordered alike (ties count half); and all it orders.

    Args:
        rewards: (G, n), s - s_base.
        targets: (G, m, n).
        mask: (G, n), or (G, m, n) where an objective has no label for some of the responses.
        signal: (G, m).
    """
    better = targets.unsqueeze(-1) > targets.unsqueeze(-2)  # (G, m, n, n): the first is better
    mask = mask if mask.dim() == targets.dim() else mask.unsqueeze(1)
    real = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    counted = better & real & signal[..., None, None]
    difference = (rewards.unsqueeze(-1) - rewards.unsqueeze(-2)).unsqueeze(1)
    right = (difference > 0).float() + 0.5 * (difference == 0).float()
    return (right * counted).sum((-2, -1)), counted.sum((-2, -1))
