"""Texts that the models of a comparison sample, what they score, and how far they are from the base's own.

What a model sampled is kept apart from its scores: another scorer needs no new sample. Random numbers depend on the
prompt and on which of its texts it is, so that all methods and weightings have the same.

Shapes: P weightings, N prompts, n texts of each, m objectives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hyperdpo.alignment.answer_sets import asked
from hyperdpo.alignment.answers import decoded
from hyperdpo.alignment.collation import TokenGroup, token_batches
from hyperdpo.alignment.evaluation import PASS_TOKENS, control_spans, span_errors
from hyperdpo.alignment.sampling import end_tokens, evaluation_mode, new_texts, pad_token, whole_words
from hyperdpo.alignment.text_fronts import signs_of
from hyperdpo.comparison.align import AlignTrainings, Speaker
from hyperdpo.comparison.paired import Measured
from hyperdpo.core.correlation import rank_correlation
from hyperdpo.core.inner_product import mean_inner_product
from hyperdpo.core.pareto import hypervolume
from hyperdpo.core.preferences import stream
from hyperdpo.progress import progress_bar
from hyperdpo.scorers.scorer import NamedScorer, Scorer, scores_of

#: Key of the random stream of sampled continuations: every weighting and method gets the same.
_TEXTS = 9


@dataclass(frozen=True)
class Texts:
    """How texts are sampled and scored.

    Attributes:
        scorer: see :mod:`hyperdpo.scorers.registry`.
        name: of the scorer.
        prompts: at most so many of the held-out prompts.
        samples: continuations of each prompt.
        tokens: length of a continuation.
    """

    scorer: Scorer
    name: str
    prompts: int
    samples: int
    tokens: int

    @property
    def described(self) -> dict[str, Any]:
        """All but the scorer's function."""
        return {name: value for name, value in asdict(self).items() if name != "scorer"}


@dataclass(frozen=True)
class Sampled:
    """What a model wrote.

    Attributes:
        ids: N n lists of token ids, the end of the text included: the n texts of a prompt follow each other.
        logps: (N, n), their log-probabilities under the model.
        base_logps: (N, n), under the base.
        seconds: that the sampling took.
    """

    ids: list[list[int]]
    logps: np.ndarray
    base_logps: np.ndarray
    seconds: float

    @property
    def lengths(self) -> np.ndarray:
        """(N, n) numbers of tokens."""
        return np.array([len(one) for one in self.ids]).reshape(self.logps.shape)


class TextMeasurements:
    """The texts of one repeat: sampled, scored and compared with the base's.

    Args:
        trainings: of the repeat.
        grid: (P, m), the weights of every front.
    """

    def __init__(self, trainings: AlignTrainings, grid: np.ndarray, texts: Texts):
        self.trainings, self.grid, self.texts = trainings, grid, texts
        self.groups = trainings.test_groups[: texts.prompts]
        self.scorer = NamedScorer(texts.name, tuple(trainings.settings.names), texts.scorer)
        self._signs = signs_of(trainings.settings.objectives)

    def base(self) -> dict[str, Any]:
        """The base's own texts.

        Returns:
            ``generated`` {objective: mean}, ``mean`` and ``sd`` (m numbers each, text by text, turned so that more is
            better) and ``tokens``, the mean length.
        """
        (sampled,) = self.all_sampled("sample the base's texts", [self.trainings.base_speaker()])
        scores = self.scores(sampled)
        turned = scores * self._signs
        return {
            "generated": self._named(scores.mean((0, 1))),
            "mean": turned.mean((0, 1)).tolist(),
            "sd": turned.std((0, 1)).tolist(),
            "tokens": float(sampled.lengths.mean()),
        }

    def measured(self, speakers: Sequence[Speaker], base: dict[str, Any]) -> dict[str, Any]:
        """What a method writes at the P weightings.

        Args:
            base: of :meth:`base`.

        Returns:
            ``points`` (mean scores), ``hypervolume``, ``reference_point``, ``control_span``, ``control_span_error``
            (over prompts), ``rank_correlation`` of each objective's score with its weight, ``inner_product`` (None
            where the base's texts all score alike), ``tokens_per_second``; for each weighting ``kl`` (nats from the
            base, of a whole text) and ``tokens`` (mean length); ``prompts``: (P, N, m) means over a prompt's texts,
            turned so that more is better.
        """
        found = self.all_sampled("sample texts", speakers)
        mean, sd = np.array(base["mean"]), np.array(base["sd"])
        prompts = np.stack([self.scores(one).mean(1) for one in found]) * self._signs  # (P, N, m)
        turned, m = prompts.mean(1), len(self._signs)
        errors = span_errors(self.grid, prompts, np.ones(prompts.shape[1:], dtype=bool))
        names = self.trainings.settings.names
        return {
            "points": [self._named(row * self._signs) for row in turned],
            "hypervolume": hypervolume(turned, mean - sd, ["maximize"] * m),
            "reference_point": ((mean - sd) * self._signs).tolist(),
            "control_span": self._named(control_spans(self.grid, turned)),
            "control_span_error": {
                name: None if np.isnan(error) else float(error) for name, error in zip(names, errors, strict=True)
            },
            "rank_correlation": {name: rank_correlation(self.grid[:, j], turned[:, j]) for j, name in enumerate(names)},
            "inner_product": float(mean_inner_product(self.grid, turned, mean, sd)) if (sd > 0).all() else None,
            "kl": [float((one.logps - one.base_logps).mean()) for one in found],
            "tokens": [float(one.lengths.mean()) for one in found],
            "tokens_per_second": sum(int(one.lengths.sum()) for one in found) / sum(one.seconds for one in found),
            "prompts": prompts.tolist(),
        }

    def per_prompt(self, measured: dict[str, Any], base: dict[str, Any]) -> Measured:
        """Of what :meth:`measured` found, for a bootstrap over prompts."""
        values, mean, sd = np.array(measured["prompts"]), np.array(base["mean"]), np.array(base["sd"])
        known = np.ones(values.shape[1:], dtype=bool)
        return Measured(self.grid, values, known, mean - sd, np.stack((mean, sd)))

    # --- samples

    def all_sampled(self, stage: str, speakers: Sequence[Speaker]) -> list[Sampled]:
        """:meth:`sampled` of each speaker, with a progress bar of that name."""
        found: list[Sampled] = []
        each = len(self.groups) * self.texts.samples
        with progress_bar(stage, each * len(speakers), "texts", show=self.trainings.show) as update:
            for speaker in speakers:

                def written(done: int, before: int = each * len(found)) -> None:
                    update(before + done)

                found.append(self.sampled(speaker, written))
                written(each)
        return found

    def sampled(self, speaker: Speaker, update: Callable[[int], None] = lambda done: None) -> Sampled:
        """The texts of a speaker, kept on disk; ``update`` is called with the number of those that are written."""
        how = {"prompts": self.texts.prompts, "samples": self.texts.samples, "tokens": self.texts.tokens}
        found = self.trainings.kept("texts", speaker, how, lambda: self._sample(speaker, update))
        lengths = found["lengths"]
        ids = [one.tolist() for one in np.split(found["ids"], np.cumsum(lengths)[:-1])]
        return Sampled(ids, found["logps"], found["base_logps"], float(found["seconds"][0]))

    def _sample(self, speaker: Speaker, update: Callable[[int], None]) -> dict[str, np.ndarray]:
        trainings, texts, started = self.trainings, self.texts, time.monotonic()
        base, tokenizer = trainings.base, trainings.tokenizer
        ends, pad = end_tokens(base, tokenizer), pad_token(base, tokenizer)
        written: list[list[list[int]]] = [[] for _ in self.groups]
        longest = [len(group.prompt_ids) + texts.tokens for group in self.groups]
        with torch.no_grad(), evaluation_mode(base), trainings.measuring():
            for chosen in token_batches(longest, [texts.samples] * len(longest), PASS_TOKENS):
                some = [self.groups[int(i)] for i in chosen]
                owner = [i for i in range(len(some)) for _ in range(texts.samples)]
                randoms = np.stack([self._randoms(some[i], k % texts.samples) for k, i in enumerate(owner)])
                prompts = [group.prompt_ids for group in some]
                rows = decoded(base, prompts, owner, randoms, ends, pad, forward=speaker.forward)
                for place, i in enumerate(chosen):
                    written[int(i)] = rows[place * texts.samples : (place + 1) * texts.samples]
                update(sum(map(len, written)))
        seconds = time.monotonic() - started
        groups = [self._as_group(group, rows) for group, rows in zip(self.groups, written, strict=True)]
        ids = [one for rows in written for one in rows]
        return {
            "ids": np.array([token for one in ids for token in one], dtype=np.int32),
            "lengths": np.array([len(one) for one in ids], dtype=np.int64),
            "logps": np.stack(trainings.group_scores(speaker, groups)),
            "base_logps": np.stack(trainings.group_scores(trainings.base_speaker(), groups)),
            "seconds": np.array([seconds]),
        }

    def _randoms(self, group: TokenGroup, number: int) -> np.ndarray:
        return stream(self.trainings.settings.seed, _TEXTS, group.index, number).random(self.texts.tokens)

    def _as_group(self, group: TokenGroup, rows: list[list[int]]) -> TokenGroup:
        m = len(group.signal)
        return TokenGroup(
            group.prompt_ids, rows, np.zeros((m, len(rows)), np.float32), np.zeros(m, dtype=bool), group.index
        )

    # --- scores

    def scores(self, sampled: Sampled) -> np.ndarray:
        """(N, n, m) scores, as the scorer has them."""
        found = scores_of(self.scorer, self.scorer.objectives, self.prompts, self._written(sampled))
        return found.reshape(*sampled.logps.shape, -1)

    @cached_property
    def prompts(self) -> list[str]:
        """What was asked, once for each text."""
        groups = self.trainings.repeat.test.groups
        return [asked(groups[group.index].prompt) for group in self.groups for _ in range(self.texts.samples)]

    def _written(self, sampled: Sampled) -> list[str]:
        """The texts; one that ran into the limit ends with its last whole word."""
        tokenizer, ends = self.trainings.tokenizer, end_tokens(self.trainings.base, self.trainings.tokenizer)
        starts = [group.prompt_ids for group in self.groups for _ in range(self.texts.samples)]
        both = zip(starts, sampled.ids, strict=True)
        texts = new_texts(tokenizer, starts, [list(start) + ids for start, ids in both])
        ended = [ids[-1] in ends for ids in sampled.ids]
        return [(text if over else whole_words(text)).rstrip() for text, over in zip(texts, ended, strict=True)]

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.trainings.settings.names, values.tolist(), strict=True))
