"""Metrics of a language model for the choice of a point: cross-entropy errors and accuracies of pairs, by prompt.

The bootstrap draws groups of the same prompt together. A new weighting takes one pass through the model, a new scale
none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hyperdpo.alignment.collation import padding_token, tokenize_groups
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import PaddedGroups, base_scores, conditioned_scores
from hyperdpo.alignment.run import AlignRun, fingerprint
from hyperdpo.choosing.choice import Sample
from hyperdpo.choosing.search import Effort, Space

#: Before an objective's name: its accuracy of pairs.
ACCURACY = "accuracy:"
#: Kept bytes of scores (8 a response), of the weightings used last: 3,200 weightings of 5,000 pairs.
KEPT_BYTES = 256_000_000


def read_for(run: AlignRun, source: Any, *, skip_invalid: bool, **reading: Any) -> Preferences:
    """The preferences of a source, read as :meth:`AlignRun.read` does; rows that are too long are skipped as well."""
    if skip_invalid:
        run.limits["skip_invalid"] = True
    return run.read(source, skip_invalid=skip_invalid, **reading)


def align_part(run: AlignRun, preferences: Preferences, split: str) -> tuple[str, Preferences]:
    """The groups that a point is chosen on, and what they are called.

    Args:
        split: ``auto``: the validation groups of the run's own data (its test groups where it has none), all groups of
            other data. Otherwise as :meth:`AlignRun.part`.

    Raises:
        InputError: as :meth:`AlignRun.part`.
    """
    if split == "auto" and fingerprint(preferences) == run.data["fingerprint"]:
        held_out = run.data["groups"]
        split = next((name for name in ("validation", "test") if held_out.get(name)), "auto")
    return run.part(preferences, split)


def align_space(run: AlignRun, scales: tuple[float, ...]) -> Space:
    """Where the points of a run may lie: at its own temperatures."""
    return Space(tuple(o.beta for o in run.objectives), scales)


def align_effort(run: AlignRun, points: int | None) -> Effort:
    """How much is measured: less than for a ranker, since each weighting passes all texts through the model."""
    m = len(run.objectives)
    return Effort(points=points or {1: 1, 2: 11}.get(m, 21), rounds=6, price_rounds=2, starts=1, random=0)


def metric_names(run: AlignRun) -> tuple[str, ...]:
    """Each objective's name, its cross-entropy error; then ``accuracy:NAME``."""
    return (*run.names, *(ACCURACY + name for name in run.names))


def larger_is_better(run: AlignRun) -> tuple[bool, ...]:
    """(2 m,), in the order of :func:`metric_names`: an error is better if small, an accuracy if large."""
    m = len(run.objectives)
    return (False,) * m + (True,) * m


def align_sample(
    run: AlignRun,
    preferences: Preferences,
    *,
    device: str = "cpu",
    description: str = "",
    show: bool = False,
    kept_bytes: int = KEPT_BYTES,
) -> Sample:
    """Preferences as a sample; the metrics are those of :meth:`AlignRun.front`.

    Args:
        kept_bytes: how much of the scores of the weightings used last is kept.
    """
    measure = _Measure(run, preferences, device, show, kept_bytes)
    return Sample(
        names=metric_names(run),
        larger_is_better=larger_is_better(run),
        counts=measure.counts,
        measure=measure,
        base=measure.sums(measure.groups.padded(measure.base), 1.0),
        description=description,
    )


class _Measure:
    """(P, 2 m + 1) points -> (P, 2 m, G) sums; temperatures are those of the run.

    The scores of the weightings used last are kept, up to ``kept_bytes``; others take another pass through the model.
    """

    def __init__(self, run: AlignRun, preferences: Preferences, device: str, show: bool, kept_bytes: int):
        self.run, self.device, self.show, self.kept_bytes = run, device, show, kept_bytes
        tokens = tokenize_groups(preferences, to_targets(preferences, run.objectives), run.tokenizer, **run.limits)
        self.tokens, self.pad = tokens, padding_token(run.tokenizer)
        run.model.to(device)
        self.base = base_scores(run.model, tokens, self.pad, device)
        self.betas = [o.beta for o in run.objectives]
        self.groups = PaddedGroups(tokens, self.base)
        questions = preferences.questions()
        keys: dict[int, int] = {}
        self._prompt = np.array([keys.setdefault(questions[t.index], len(keys)) for t in tokens])
        self._prompts = len(keys)
        counts = torch.cat([self.groups.signal.double(), self.groups.pairs()[1].double()], dim=1)
        self.counts = self._by_prompt(counts.numpy())
        self._kept: dict[bytes, torch.Tensor] = {}

    def __call__(self, points: np.ndarray) -> np.ndarray:
        m = len(self.betas)
        weights = [np.ascontiguousarray(w) for w in points[:, :m]]
        scores = self._scores_of(weights)
        return np.stack(
            [self.sums(scores[w.tobytes()], float(c)) for w, c in zip(weights, points[:, m], strict=True)],
        )

    def _scores_of(self, weights: list[np.ndarray]) -> dict[bytes, torch.Tensor]:
        """(responses, padded) scores of each of (m,) weights, by their bytes."""
        wanted = {w.tobytes(): w for w in weights}
        found = {key: self._kept.pop(key) for key in wanted if key in self._kept}
        new = [key for key in wanted if key not in found]
        if new:
            name = "choose" if self.show else ""
            grid = np.array([wanted[key] for key in new])
            rows = conditioned_scores(self.run.model, self.tokens, grid, self.pad, self.device, name=name)
            found |= {key: self.groups.padded(row) for key, row in zip(new, rows, strict=True)}
        self._kept |= found  # the last ones used stand last; all are of one size
        while len(self._kept) * next(iter(self._kept.values())).nbytes > self.kept_bytes:
            del self._kept[next(iter(self._kept))]
        return found

    def sums(self, scores: torch.Tensor, scale: float) -> np.ndarray:
        """(2 m, G) sums at one scale."""
        losses, right, _ = self.groups.measured(scores, self.betas, scale)
        return self._by_prompt(torch.cat([losses, right.double()], dim=1).numpy())

    def _by_prompt(self, values: np.ndarray) -> np.ndarray:
        """(groups, K) -> (K, prompts), summed."""
        sums = np.zeros((self._prompts, values.shape[1]))
        np.add.at(sums, self._prompt, values)
        return sums.T
