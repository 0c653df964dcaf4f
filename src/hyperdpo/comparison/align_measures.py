"""Language models compared: what each repeat measures, and what ``compare.json`` of ``align compare`` holds.

All methods have the same weights, temperatures, held-out groups and base. Measured are their cross-entropy errors and,
where a scorer is known, texts that they sample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo import hashing
from hyperdpo.alignment.evaluation import AlignmentFront, PaddedGroups, front_of_scores
from hyperdpo.alignment.run import fingerprint, versions
from hyperdpo.alignment.text_fronts import REFERENCE
from hyperdpo.comparison.align import AlignTrainings, Settings, Speaker
from hyperdpo.comparison.entries import Entry, check_labels
from hyperdpo.comparison.paired import Measured, compared_ratios
from hyperdpo.comparison.repeats import AlignRepeat, check_seeds
from hyperdpo.comparison.sampled_texts import TextMeasurements, Texts
from hyperdpo.comparison.summary import averages, means, measure_all, summary_of
from hyperdpo.comparison.trainings import cost, step_costs
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json
from hyperdpo.progress import progress_bar
from hyperdpo.scorers.scorer import probed

#: Scales at which every front is measured once more: they need no further pass of the model.
SCALES = (0.5, 1.0, 2.0)
#: Version of what is kept of a measurement; another one is measured again.
MEASURED = 4


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
    least_span: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train and measure every entry on every repeat.

    Args:
        settings: what all trainings of a repeat share.
        base: a transformers causal LM.
        out: directory of the trainings and measurements; an interrupted comparison resumes there.
        points: weightings of each front.
        texts: how texts are sampled and scored at each of them; None: they are not.
        least_span: a control span in nats that is worth dividing by.
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
        here = AlignMeasurements(trainings, weight_grid(len(trainings.settings.names), points), texts)
        prompts[repeat.name] = here.prompts
        return here

    #: By repeat, then by entry.
    prompts: dict[str, dict[str, dict[str, Measured]]] = {}
    result = measure_all(repeats, entries, measurements, summary, say)
    held_out = {repeat.name: fingerprint(repeat.test) for repeat in repeats}
    result["ratios"] = compared_ratios(result, prompts, held_out, least_span)
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
            "least_span": least_span,
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

    Attributes:
        prompts: for each entry that was measured, its metrics prompt by prompt: ``cross_entropy``, and ``generated``.
    """

    def __init__(self, trainings: AlignTrainings, grid: np.ndarray, texts: Texts | None):
        self.trainings, self.grid, self.texts = trainings, grid, texts
        self.prompts: dict[str, dict[str, Measured]] = {}
        names = trainings.settings.names
        front = self._front([trainings.test_base for _ in grid[:1]], grid[:1])
        self.base: dict[str, Any] = {"metrics": dict(zip(names, front.base_losses.tolist(), strict=True)), "main": None}
        self._sampled: TextMeasurements | None = None
        self._base_texts: dict[str, Any] = {}
        if texts is not None:
            self._sampled = TextMeasurements(trainings, grid, texts)
            self._scored = probed(self._sampled.scorer, names, self._sampled.prompts[0])
            self._base_texts = self._kept("base", {}, self._sampled.base)
            self.base["generated"] = self._base_texts["generated"]
            self.base["generated_tokens"] = self._base_texts["tokens"]

    def measured(self, entry: Entry) -> dict[str, Any]:
        """Front, spans, cost, and texts of an entry.

        Returns:
            The keys of an alignment run's ``FRONT.json``, cost, ``views`` (``scales``: the same weightings at three
            scales) and, with texts, ``generated``: what
            :meth:`~hyperdpo.comparison.sampled_texts.TextMeasurements.measured` finds, but for single prompts.
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
        self.prompts[entry.label] = self._per_prompt(result)
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
        padded = PaddedGroups(self.trainings.test_groups, self.trainings.test_base)
        betas = self.trainings.settings.betas
        losses = [padded.measured(padded.padded(one), betas, 1.0)[0].tolist() for one in scores]
        result["prompts"] = {"losses": losses, "signal": padded.signal.tolist()}
        if self._sampled is not None:
            result["generated"] = self._sampled.measured(speakers, self._base_texts)
        return result

    def _per_prompt(self, result: dict[str, Any]) -> dict[str, Measured]:
        """What of a measurement stands for single prompts, which it leaves the result."""
        prompts, reference = result.pop("prompts"), np.array(result["reference_point"])
        losses = np.array(prompts["losses"])
        found = {"cross_entropy": Measured(self.grid, -losses, np.array(prompts["signal"]), -reference)}
        if self._sampled is not None:
            found["generated"] = self._sampled.per_prompt(result["generated"], self._base_texts)
            del result["generated"]["prompts"]
        return found

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

    def _kept(self, label: str, told: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured before of the same trainings, or what is measured now.

        Args:
            label: the beginning of the file's name.
            told: what the measurement depends on, besides what all of this repeat do.
        """
        shared = {
            "version": MEASURED,
            "grid": self.grid.tolist(),
            "texts": None if self.texts is None else self.texts.described | {"scored": self._scored},
            "repeat": self.trainings.fingerprint,
            "versions": versions(),
        }
        print_ = hashing.fingerprint({"of": label, "measured": told, **shared}, 64)[:12]
        path = self.trainings.directory / "measured" / f"{label.replace(':', '-')}-{print_}.json"
        if path.exists():
            found = read_json(path, remedy="delete it to measure again")
            if not isinstance(found, dict):
                raise InputError(f"{path}: not a measurement; remove the file")
            return found
        result = measure()
        write_json(path, result, sealed=True)
        return result


# --- over all repeats


def summary(entry: Entry, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry over all repeats: means, standard deviations (None for one repeat), and each repeat."""
    result = summary_of(entry, seeds, mean_points) | averages(seeds, "control_span")
    result |= means(seeds, "epochs", "steps", "step_seconds", "step_processor_seconds")
    if all("generated" in seed for seed in seeds):
        texts = [seed["generated"] for seed in seeds]
        result["generated"] = means(texts, "points", "kl", "tokens") | averages(
            texts, "hypervolume", "tokens_per_second", "control_span", "rank_correlation", "inner_product"
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
