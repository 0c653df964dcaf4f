"""Methods compared on language models over several repeats: what ``compare.json`` of ``align compare`` holds.

Every method is asked for the same weights at the same temperatures, on the same held-out groups, from the same base:
for its cross-entropy errors, and, where a scorer is known, for texts that it samples.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from hyperdpo.alignment.bench import Bench, Entry, Settings, Speaker
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.evaluation import AlignmentFront, control_spans, front_of_scores, span_errors
from hyperdpo.alignment.run import versions
from hyperdpo.alignment.sampling import continuation_texts, continue_rows, sampling
from hyperdpo.core.pareto import hypervolume
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json
from hyperdpo.printing import four_digits
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.comparison import mean_and_sd
from hyperdpo.stories.text_scorers import Scorer

#: Key of the random stream of sampled continuations: every weighting and method gets the same.
_TEXTS = 9
#: What is averaged over repeats; each gets a neighbour ``_sd``. The first ones as for rankers.
AVERAGED = ("hypervolume", "hypervolume_with_main", "main_mean", "main_sd", "train_seconds", "models", "parameters")


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


@dataclass(frozen=True)
class Repeat:
    """One seed on one split."""

    name: str
    seed: int
    train: Preferences
    test: Preferences


def compare(
    settings: Callable[[Repeat], Settings],
    repeats: Sequence[Repeat],
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
        out: directory of the trainings; a comparison that was stopped goes on there. What was measured is kept, too.
        points: weightings of each front.
        texts: sample and score texts at each of them.
        say: is told what has been done, line by line.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: two entries of one label, or whatever data, settings and model do not allow.
    """
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--methods: {label!r} is named more than once")
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    bases, described = [], []
    chosen: Settings | None = None
    for number, repeat in enumerate(repeats, 1):
        chosen = settings(repeat)
        bench = Bench(chosen, base, tokenizer, repeat.train, repeat.test, out / repeat.name, cpu=cpu, show=show)
        grid = weight_grid(len(chosen.names), points)
        measured = Measurements(bench, grid, texts, out / repeat.name / "measured")
        bases.append(measured.base)
        described.append(
            {
                "name": repeat.name,
                "seed": repeat.seed,
                "groups": {"train": len(repeat.train), "test": len(repeat.test)},
            }
        )
        for entry in entries:
            result: dict[str, Any] = {"repeat": repeat.name, "seed": repeat.seed} | measured.of(entry)
            results[entry.label].append(result)
            generated = result.get("generated")
            more = "" if generated is None else f", of texts {four_digits(generated['hypervolume'])}"
            say(
                f"{repeat.name} ({number} of {len(repeats)}) {entry.label}: hypervolume "
                f"{four_digits(result['hypervolume'])}{more}, {result['train_seconds']:.1f} s"
            )
    if chosen is None:
        raise InputError("--seeds: found 0; expected at least 1")
    return {
        "methods": {entry.label: summary(entry, results[entry.label]) for entry in entries},
        "chosen": None,
        "base": _averaged(bases),
        "weights": weight_grid(len(chosen.names), points).tolist(),
        "temperatures": list(chosen.betas),
        "repeats": described,
        "settings": {
            "model": chosen.model,
            "objectives": [asdict(o) for o in chosen.objectives],
            "training": dict(chosen.training),
            "conditioning": dict(chosen.conditioning),
            "sampling_factor": chosen.sampling_factor,
            "learning_rate_factor": chosen.learning_rate_factor,
            "texts": None
            if texts is None
            else {k: v for k, v in asdict(texts).items() if k != "scorer"} | {"reference": REFERENCE},
        },
        "versions": versions(),
        "oracle": None,
    }


#: Scales at which every front is measured once more: they cost no pass, Eq. (14).
SCALES = (0.5, 1.0, 2.0)
#: Version of what is kept of a measurement; another one is measured again.
MEASURED = 2
#: What the reference point of generated texts is.
REFERENCE = "the base's mean minus one standard deviation of its texts"


class Measurements:
    """What one repeat says about each entry; kept on disk once measured.

    Args:
        bench: of the repeat.
        grid: (P, m).
        texts: how texts are sampled; None: they are not.
        directory: of what was measured.
    """

    def __init__(self, bench: Bench, grid: np.ndarray, texts: Texts | None, directory: Path):
        self.bench, self.grid, self.texts, self.directory = bench, grid, texts, directory
        self._signs = np.array([-1.0 if o.direction == "minimize" else 1.0 for o in bench.settings.objectives])
        names = bench.settings.names
        front = self._front([bench.test_base for _ in grid[:1]], grid[:1])
        self.base: dict[str, Any] = {"metrics": dict(zip(names, front.base_losses.tolist(), strict=True)), "main": None}
        self._reference: np.ndarray | None = None
        if texts is not None:
            found = self._kept("base", "", lambda: self._base_texts(bench.base_speaker()))
            self.base["generated"] = found["generated"]
            self._reference = np.array(found["reference"])

    def of(self, entry: Entry) -> dict[str, Any]:
        """Front, spans, cost, and texts of an entry.

        Returns:
            The keys of an alignment run's ``FRONT.json``, cost, ``views`` (``scales``: the same weightings at three
            scales) and, with texts, ``generated``: ``points`` (mean scores), ``hypervolume``, ``reference_point``,
            ``control_span``, ``control_span_error`` (over prompts), ``rank_correlation`` of each objective's score with
            its weight, ``tokens_per_second``.
        """
        model = self.bench.model(entry, self.grid)
        cost = {
            "train_seconds": model.seconds,
            "models": model.models,
            "parameters": model.parameters,
            "epochs": model.epochs,
        }
        key = repr((model.trainings, entry.overrides.get("soup")))
        speakers: Callable[[], list[Speaker]] = functools.cache(lambda: [model.at(w) for w in self.grid])
        scores = functools.cache(lambda: self._scores(entry.label, speakers()))
        result = self._kept(entry.label, key, lambda: self._measure(speakers(), scores()))
        view = self._kept(f"{entry.label}-scales", repr((key, SCALES)), lambda: self._view(scores()))
        return result | cost | {"views": {"scales": view}}

    def _scores(self, label: str, speakers: Sequence[Speaker]) -> list[list[np.ndarray]]:
        """For each of the speakers, the (n,) scores of each test group."""
        found = []
        with progress_bar(f"measure {label}", len(speakers), "weightings", show=self.bench.show) as update:
            for speaker in speakers:
                found.append(self.bench.scores(speaker))
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
        bench = self.bench
        names, betas = bench.settings.names, bench.settings.betas
        return front_of_scores(names, bench.test_groups, scores, bench.test_base, grid, betas, scales)

    def _base_texts(self, speaker: Speaker) -> dict[str, Any]:
        scores, _ = self._sampled(speaker)
        names = self.bench.settings.names
        turned = scores * self._signs
        reference = turned.mean(0) - turned.std(0)
        return {
            "generated": dict(zip(names, scores.mean(0).tolist(), strict=True)),
            "reference": reference.tolist(),
        }

    def _generated(self, speakers: Sequence[Speaker]) -> dict[str, Any]:
        assert self._reference is not None
        assert self.texts is not None
        names, started, tokens = self.bench.settings.names, time.monotonic(), 0
        means = []
        with progress_bar("sample texts", len(speakers), "weightings", show=self.bench.show) as update:
            for speaker in speakers:
                scores, count = self._sampled(speaker)
                means.append(scores.reshape(-1, self.texts.samples, len(names)).mean(1))
                tokens += count
                update(len(means))
        seconds = time.monotonic() - started
        prompts = np.array(means)  # (P, prompts, m)
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
        texts, bench, tokenizer = self.texts, self.bench, self.bench.tokenizer
        groups = bench.test_groups[: texts.prompts]
        rows = [group.prompt_ids for group in groups for _ in range(texts.samples)]
        found: list[str] = []
        tokens = 0
        with sampling(bench.base, bench.settings.seed, _TEXTS):
            for first in range(0, len(rows), texts.batch_size):
                some = rows[first : first + texts.batch_size]
                new = continue_rows(bench.base, tokenizer, some, texts.tokens, speaker.generate)
                found += continuation_texts(bench.base, tokenizer, some, new)
                tokens += new.numel()
        prompts = tokenizer.batch_decode(rows, skip_special_tokens=True)
        scores = np.asarray(texts.scorer(prompts, found), dtype=np.float64)
        shape = (len(rows), len(bench.settings.names))
        if scores.shape != shape or not np.isfinite(scores).all():
            finite = "finite" if np.isfinite(scores).all() else "not finite"
            raise InputError(
                f"scorer {texts.name}: found an array of shape {scores.shape}, {finite}; expected {shape}, one column "
                "per objective, and finite numbers"
            )
        return scores, tokens

    def _kept(self, label: str, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured before of the same trainings, or what is measured now."""
        texts = None if self.texts is None else {k: v for k, v in asdict(self.texts).items() if k != "scorer"}
        told = repr((MEASURED, key, self.grid.tolist(), texts, self.bench.fingerprint, versions()))
        name = f"{label.replace(':', '-')}-{xxhash.xxh3_64_hexdigest(told.encode())[:12]}.json"
        path = self.directory / name
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict):
                raise InputError(f"{path}: not a measurement; expected what a comparison wrote")
            return found
        result = measure()
        write_json(path, result)
        return result


def summary(entry: Entry, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry over all repeats: means, standard deviations (None for one repeat), and each repeat."""
    first = seeds[0]
    result: dict[str, Any] = {name: first[name] for name in ("objectives", "directions", "metric", "reference_point")}
    result |= {"method": entry.method, "settings": dict(entry.overrides), "one_shot": entry.one_shot}
    for name in AVERAGED:
        result[name], result[f"{name}_sd"] = mean_and_sd([seed[name] for seed in seeds])
    result["epochs"] = mean_and_sd([seed["epochs"] for seed in seeds])[0]
    result["points"] = _mean_points([seed["points"] for seed in seeds])
    result["control_span"], result["control_span_sd"] = _named([seed["control_span"] for seed in seeds])
    generated = [seed["generated"] for seed in seeds if "generated" in seed]
    if generated:
        one: dict[str, Any] = {}
        result["generated"] = one
        for name in ("hypervolume", "tokens_per_second"):
            one[name], one[f"{name}_sd"] = mean_and_sd([g[name] for g in generated])
        for name in ("control_span", "rank_correlation"):
            one[name], one[f"{name}_sd"] = _named([g[name] for g in generated])
        one["points"] = [_named([g["points"][p] for g in generated])[0] for p in range(len(result["points"]))]
    result["views"] = {}
    for view in first["views"]:
        found = [seed["views"][view] for seed in seeds]
        volume, sd = mean_and_sd([one["hypervolume"] for one in found])
        points = _mean_points([one["points"] for one in found])
        result["views"][view] = {"points": points, "hypervolume": volume, "hypervolume_sd": sd}
    result["seeds"] = [dict(seed) for seed in seeds]
    return result


def _rank(weights: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where nothing varies."""
    if np.ptp(values) == 0 or np.ptp(weights) == 0:
        return 0.0
    return float(spearmanr(weights, values).statistic)


def _named(values: Sequence[Mapping[str, float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    both = {name: mean_and_sd([one[name] for one in values]) for name in values[0]}
    return {n: mean for n, (mean, _) in both.items()}, {n: sd for n, (_, sd) in both.items()}


def _mean_points(fronts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    averaged = []
    for points in zip(*fronts, strict=True):
        one: dict[str, Any] = {k: points[0][k] for k in ("weights", "scale", "temperature", "main")}
        for key in ("metrics", "accuracy"):
            one[key], one[f"{key}_sd"] = _named([point[key] for point in points])
        one["deviation_quartiles"] = np.mean([point["deviation_quartiles"] for point in points], 0).tolist()
        averaged.append(one)
    return averaged


def _averaged(bases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"metrics": _named([base["metrics"] for base in bases])[0], "main": None}
    if all("generated" in base for base in bases):
        found["generated"] = _named([base["generated"] for base in bases])[0]
    return found
