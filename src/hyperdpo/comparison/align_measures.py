"""Language models compared: what each repeat measures, and what ``compare.json`` of ``align compare`` holds.

All methods have the same weights, temperatures, held-out groups and base. Measured are their cross-entropy errors and,
where a scorer is known, texts that they sample.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from hyperdpo import hashing
from hyperdpo.alignment.evaluation import AlignmentFront, control_spans, front_of_scores, span_errors
from hyperdpo.alignment.run import versions
from hyperdpo.alignment.sampling import continuation_texts, continue_rows, sampling
from hyperdpo.comparison.align import AlignTrainings, Settings, Speaker
from hyperdpo.comparison.entries import Entry, check_labels
from hyperdpo.comparison.repeats import AlignRepeat, check_seeds
from hyperdpo.comparison.summary import averages, means, measure_all, summary_of
from hyperdpo.comparison.trainings import cost, step_costs
from hyperdpo.core.pareto import hypervolume
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json
from hyperdpo.progress import progress_bar
from hyperdpo.stories.text_scorers import Scorer

#: Key of the random stream of sampled continuations: every weighting and method gets the same.
_TEXTS = 9
#: Scales at which every front is measured once more: they need no further pass of the model.
SCALES = (0.5, 1.0, 2.0)
#: Version of what is kept of a measurement; another one is measured again.
MEASURED = 3
#: What the reference point of generated texts is.
REFERENCE = "the base's mean minus one standard deviation of its texts"


@dataclass(frozen=True)
class Texts:
    """How texts are sampled and scored.

    Attributes:
        scorer: see :mod:`hyperdpo.stories.text_scorers`.
        name: of the scorer.
        prompts: at most so many of the held-out prompts.
        samples: continuations of each prompt.
        tokens: length of a continuation.
        batch_size: rows that are sampled at once.
    """

    scorer: Scorer
    name: str
    prompts: int
    samples: int
    tokens: int
    batch_size: int = 640

    @property
    def described(self) -> dict[str, Any]:
        """All but the scorer's function."""
        return {name: value for name, value in asdict(self).items() if name != "scorer"}


def compare(
    settings: Callable[[AlignRepeat], Settings],
    repeats: Sequence[AlignRepeat],
    entries: Sequence[Entry],
    base: Any,
    tokenizer: Any,
    out: Path,
    *,
    points: int = 11,
    texts: Texts | None = None,
    cpu: bool = False,
    show: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train and measure every entry on every repeat.

    Args:
        settings: what all trainings of a repeat share.
        base: a transformers causal LM.
        out: directory of the trainings and measurements; an interrupted comparison resumes there.
        points: weightings of each front.
        texts: how texts are sampled and scored at each of them; None: they are not.
        say: called with each line of progress.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: two entries of one label, or whatever data, settings and model do not allow.
    """
    check_labels(entries)
    check_seeds(len(repeats))

    def measurements(repeat: AlignRepeat) -> AlignMeasurements:
        directory = out / repeat.name
        trainings = AlignTrainings(settings(repeat), base, tokenizer, repeat, directory, cpu=cpu, show=show)
        return AlignMeasurements(trainings, weight_grid(len(trainings.settings.names), points), texts)

    result = measure_all(repeats, entries, measurements, summary, say)
    last = settings(repeats[-1])
    return result | {
        "chosen": None,
        "weights": weight_grid(len(last.names), points).tolist(),
        "temperatures": list(last.betas),
        "settings": {
            "model": last.model,
            "objectives": [asdict(o) for o in last.objectives],
            "training": dict(last.training),
            "conditioning": dict(last.conditioning),
            "sampling_factor": last.sampling_factor,
            "learning_rate_factor": last.learning_rate_factor,
            "training_precision": last.training_precision,
            "texts": None if texts is None else texts.described | {"reference": REFERENCE},
        },
        "versions": versions(),
        "oracle": None,
    }


class AlignMeasurements:
    """What one repeat says about the base and about each entry; kept on disk once measured.

    Args:
        trainings: of the repeat.
        grid: (P, m), the weights of every front.
        texts: how texts are sampled; None: they are not.
    """

    def __init__(self, trainings: AlignTrainings, grid: np.ndarray, texts: Texts | None):
        self.trainings, self.grid, self.texts = trainings, grid, texts
        self._signs = np.array([-1.0 if o.direction == "minimize" else 1.0 for o in trainings.settings.objectives])
        names = trainings.settings.names
        front = self._front([trainings.test_base for _ in grid[:1]], grid[:1])
        self.base: dict[str, Any] = {"metrics": dict(zip(names, front.base_losses.tolist(), strict=True)), "main": None}
        self._reference: np.ndarray | None = None
        if texts is not None:
            found = self._kept("base", {}, lambda: self._base_texts(trainings.base_speaker()))
            self.base["generated"] = found["generated"]
            self._reference = np.array(found["reference"])

    def measured(self, entry: Entry) -> dict[str, Any]:
        """Front, spans, cost, and texts of an entry.

        Returns:
            The keys of an alignment run's ``FRONT.json``, cost, ``views`` (``scales``: the same weightings at three
            scales) and, with texts, ``generated``: ``points`` (mean scores), ``hypervolume``, ``reference_point``,
            ``control_span``, ``control_span_error`` (over prompts), ``rank_correlation`` of each objective's score with
            its weight, ``tokens_per_second``.
        """
        trained = self.trainings.all_trained(entry, self.grid)
        told = {"trainings": [one.name for one in trained], "method": entry.method, "soup": entry.overrides.get("soup")}
        speakers: Callable[[], list[Speaker]] = functools.cache(
            lambda: [self.trainings.speaker(entry, w) for w in self.grid]
        )
        scores = functools.cache(lambda: self._scores(entry.label, speakers()))
        result = self._kept(entry.label, told, lambda: self._measure(speakers(), scores()))
        view = self._kept(f"{entry.label}-scales", told | {"scales": SCALES}, lambda: self._view(scores()))
        epochs = max(one.epochs for one in trained if one.epochs is not None)
        return result | cost(trained) | step_costs(trained) | {"epochs": epochs, "views": {"scales": view}}

    def _scores(self, label: str, speakers: Sequence[Speaker]) -> list[list[np.ndarray]]:
        """For each of the speakers, the (n,) scores of each test group."""
        found = []
        with progress_bar(f"measure {label}", len(speakers), "weightings", show=self.trainings.show) as update:
            for speaker in speakers:
                found.append(self.trainings.scores(speaker))
                update(len(found))
        return found

    def _measure(self, speakers: Sequence[Speaker], scores: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        front = self._front(scores, self.grid)
        result = front.to_dict() | {"hypervolume_with_main": None, "main_mean": None, "main_sd": None}
        if self.texts is not None:
            result["generated"] = self._generated(speakers)
        return result

    def _view(self, scores: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """The same weightings at other scales, too."""
        front = self._front(scores, self.grid, SCALES).to_dict()
        return {name: front[name] for name in ("points", "hypervolume", "hypervolume_with_main")}

    def _front(
        self, scores: Sequence[Sequence[np.ndarray]], grid: np.ndarray, scales: Sequence[float] = (1.0,)
    ) -> AlignmentFront:
        trainings = self.trainings
        names, betas = trainings.settings.names, trainings.settings.betas
        return front_of_scores(names, trainings.test_groups, scores, trainings.test_base, grid, betas, scales)

    def _base_texts(self, speaker: Speaker) -> dict[str, Any]:
        scores, _ = self._sampled(speaker)
        names = self.trainings.settings.names
        turned = scores * self._signs
        reference = turned.mean(0) - turned.std(0)
        return {
            "generated": dict(zip(names, scores.mean(0).tolist(), strict=True)),
            "reference": reference.tolist(),
        }

    def _generated(self, speakers: Sequence[Speaker]) -> dict[str, Any]:
        assert self._reference is not None
        assert self.texts is not None
        names, started, tokens = self.trainings.settings.names, time.monotonic(), 0
        per_prompt = []
        with progress_bar("sample texts", len(speakers), "weightings", show=self.trainings.show) as update:
            for speaker in speakers:
                scores, count = self._sampled(speaker)
                per_prompt.append(scores.reshape(-1, self.texts.samples, len(names)).mean(1))
                tokens += count
                update(len(per_prompt))
        seconds = time.monotonic() - started
        prompts = np.array(per_prompt)  # (P, prompts, m)
        table = prompts.mean(1)
        turned = table * self._signs
        spans = control_spans(self.grid, turned)
        errors = span_errors(self.grid, prompts * self._signs, np.ones(prompts.shape[1:], dtype=bool))
        return {
            "points": [dict(zip(names, row.tolist(), strict=True)) for row in table],
            "hypervolume": hypervolume(turned, self._reference, ["maximize"] * len(names)),
            "reference_point": (self._reference * self._signs).tolist(),
            "control_span": dict(zip(names, spans.tolist(), strict=True)),
            "control_span_error": {
                name: None if np.isnan(error) else float(error) for name, error in zip(names, errors, strict=True)
            },
            "rank_correlation": {name: _rank(self.grid[:, j], turned[:, j]) for j, name in enumerate(names)},
            "tokens_per_second": tokens / seconds,
        }

    def _sampled(self, speaker: Speaker) -> tuple[np.ndarray, int]:
        """(N, m) scores of sampled continuations, and how many tokens they have."""
        assert self.texts is not None
        texts, trainings, tokenizer = self.texts, self.trainings, self.trainings.tokenizer
        groups = trainings.test_groups[: texts.prompts]
        rows = [group.prompt_ids for group in groups for _ in range(texts.samples)]
        found: list[str] = []
        tokens = 0
        with sampling(trainings.base, trainings.settings.seed, _TEXTS):
            for first in range(0, len(rows), texts.batch_size):
                some = rows[first : first + texts.batch_size]
                new = continue_rows(trainings.base, tokenizer, some, texts.tokens, speaker.generate)
                found += continuation_texts(trainings.base, tokenizer, some, new)
                tokens += new.numel()
        prompts = tokenizer.batch_decode(rows, skip_special_tokens=True)
        scores = np.asarray(texts.scorer(prompts, found), dtype=np.float64)
        shape = (len(rows), len(trainings.settings.names))
        if scores.shape != shape or not np.isfinite(scores).all():
            finite = "finite" if np.isfinite(scores).all() else "not finite"
            raise InputError(
                f"scorer {texts.name}: found an array of shape {scores.shape}, {finite}; expected {shape}, one column "
                "per objective, and finite numbers"
            )
        return scores, tokens

    def _kept(self, label: str, told: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured before of the same trainings, or what is measured now.

        Args:
            label: the beginning of the file's name.
            told: what the measurement depends on, besides what all of this repeat do.
        """
        shared = {
            "version": MEASURED,
            "grid": self.grid.tolist(),
            "texts": None if self.texts is None else self.texts.described,
            "repeat": self.trainings.fingerprint,
            "versions": versions(),
        }
        print_ = hashing.fingerprint({"of": label, "measured": told, **shared}, 64)[:12]
        path = self.trainings.directory / "measured" / f"{label.replace(':', '-')}-{print_}.json"
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict):
                raise InputError(f"{path}: not a measurement; remove the file")
            return found
        result = measure()
        write_json(path, result)
        return result


# --- over all repeats


def summary(entry: Entry, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry over all repeats: means, standard deviations (None for one repeat), and each repeat."""
    result = summary_of(entry, seeds, mean_points) | averages(seeds, "control_span")
    result |= means(seeds, "epochs", "steps", "step_seconds", "step_processor_seconds")
    if all("generated" in seed for seed in seeds):
        texts = [seed["generated"] for seed in seeds]
        result["generated"] = means(texts, "points") | averages(
            texts, "hypervolume", "tokens_per_second", "control_span", "rank_correlation"
        )
    return result


def mean_points(fronts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The points of several fronts at the same weights and scales, averaged one by one."""
    return [
        {name: points[0][name] for name in ("weights", "scale", "temperature", "main")}
        | averages(points, "metrics", "accuracy")
        | means(points, "deviation_quartiles")
        for points in zip(*fronts, strict=True)
    ]


def _rank(weights: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where nothing varies."""
    if np.ptp(values) == 0 or np.ptp(weights) == 0:
        return 0.0
    return float(spearmanr(weights, values).statistic)
