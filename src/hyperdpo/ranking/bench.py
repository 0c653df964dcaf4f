"""One split and seed on which methods are trained side by side: each training once, for all methods that need it.

A finished training is a file and is never run again; an unfinished one goes on from its checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors
from hyperdpo.methods import METHODS, Conditioned, Fixed, Job, Margin, Recipe, jobs_of
from hyperdpo.options import parse_method
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, with_overrides
from hyperdpo.ranking.draws import fixed_weights
from hyperdpo.ranking.evaluation import ScoreBatch, ranker_scores, score_items
from hyperdpo.ranking.examples import Batch, Examples, Features, build_examples
from hyperdpo.ranking.fitting import SAMPLING, UNREAD, conditioned_training, prepare, seeded
from hyperdpo.ranking.parametrizations import Ranker, fixed_ranker
from hyperdpo.ranking.training import History, Training, fingerprint, train
from hyperdpo.ranking.variants import VARIANTS, kept_settings

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Random stream of a repeat for the initial weights that all models for one w share.
FIXED_INIT = 13


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: its name in tables and plots.
        method: ``hyperdpo``, ``dpo-ls``, ``dpo-soup``, ``mo-dpo`` or ``lightgbm-ls``.
        overrides: settings that differ from the comparison's own: scorer, training, parametrisation, temperatures.
        temperatures: vectors β (m numbers each) at which the front is measured besides the configured one.
        scales: scales c at which the front is measured besides 1.
        dense: measure a conditioned method at 101 weightings, too.
    """

    label: str
    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    temperatures: tuple[tuple[float, ...], ...] = ()
    scales: tuple[float, ...] = (0.5, 2.0)
    dense: bool = True

    @property
    def one_shot(self) -> bool:
        """One training answers for every w."""
        return self.method == "hyperdpo"


@dataclass(frozen=True)
class Repeat:
    """One seed on one split."""

    name: str
    seed: int
    parts: Mapping[str, Part]
    """``train``, ``validation`` and ``test``."""
    base_source: BaseSource = field(default_factory=lambda: BaseSource("trained"))
    given_base: Mapping[str, np.ndarray] | None = None
    """(N,) per split; None where ``base_source`` is ``given``: a LightGBM base is trained."""
    oracle: GroupedTable | None = None
    """Expected labels of generated data: the same rows as the test part's table."""


def parse_entry(text: str) -> Entry:
    """An entry from ``METHOD`` or ``METHOD:VARIANT``, of :data:`~hyperdpo.ranking.variants.VARIANTS`.

    Raises:
        InputError: no such method or variant.
    """
    method, overrides = parse_method(text, VARIANTS)
    return Entry(text, method, overrides, scales=()) if method == "lightgbm-ls" else Entry(text, method, overrides)


def note_kept_settings(entries: Sequence[Entry], given: Mapping[str, Any]) -> None:
    """Say which of the settings that are given for all entries an entry replaces by its own."""
    labels: dict[str, list[str]] = {}
    for entry in entries:
        for kept in kept_settings(entry.overrides, given):
            labels.setdefault(kept, []).append(entry.label)
    for kept, named in labels.items():
        warnings.warn(f"{', '.join(named)} keeps its own {kept}", stacklevel=2)


@dataclass(frozen=True)
class Trained:
    """A finished job."""

    ranker: Ranker
    history: History
    epochs_allowed: int


@dataclass(frozen=True)
class Model:
    """How an entry answers at any weights, once its jobs are done."""

    scores: Callable[[Examples, np.ndarray, Sequence[float]], ScoreBatch]
    """For some examples, from (P, m) weights, and temperatures where the model takes them."""
    models: int
    parameters: int
    seconds: float
    epochs: list[int]
    """Epochs that each job ran."""
    epochs_allowed: int | None = None
    """The most that each could have run; None for trees."""
    details: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """One repeat: what is shared by all entries, and the trainings done so far."""

    def __init__(self, repeat: Repeat, config: RankConfig, directory: Path, accelerator: Accelerator):
        self.repeat, self.directory, self.accelerator = repeat, directory, accelerator
        for name in ("validation", "test"):
            if name not in repeat.parts:
                raise InputError(f"{repeat.name}: no {name} groups; expected some, to choose epochs and to measure on")
        config = replace(config, seed=repeat.seed)
        given = repeat.given_base
        if repeat.base_source.kind == "given" and given is None:
            from hyperdpo.ranking.gbdt_bench import lightgbm_base

            given = lightgbm_base(repeat, config, directory)
        self.prepared = prepare(
            config,
            repeat.parts,
            accelerator,
            checkpoint=directory / "base.safetensors",
            base_source=repeat.base_source,
            given_base=given,
        )
        self._trained: dict[str, Trained] = {}
        self._expert_scores: dict[str, np.ndarray] = {}

    @property
    def validation(self) -> Examples:
        return self.prepared.examples["validation"]

    def test(self) -> Examples:
        """The test part, labelled and with base scores."""
        prepared, part = self.prepared, self.repeat.parts["test"]
        config = prepared.config
        features = Features(part, prepared.transform, config.resident_gib * 2**30)
        base = prepared.base_scores["test"][part.rows()]
        return build_examples(part, config.objectives, config.main, features=features, base_scores=base)

    def model(self, entry: Entry, grid: np.ndarray) -> Model:
        """Train what an entry needs to answer at the (P, m) grid."""
        config = self.config(entry)
        answers = METHODS[entry.method](grid)
        jobs = jobs_of(answers)
        trained = {job: self.trained(job, config) for job in jobs}
        rankers = [trained[job].ranker for job in jobs]
        return Model(
            scores=lambda _, weights, betas: self._scores(weights, betas, entry, config),
            models=len(jobs),
            parameters=sum(ranker.num_parameters() for ranker in rankers),
            seconds=sum(one.history.seconds for one in trained.values()),
            epochs=[one.history.epochs[-1] for one in trained.values()],
            epochs_allowed=max(one.epochs_allowed for one in trained.values()),
        )

    def config(self, entry: Entry) -> RankConfig:
        """The configuration of an entry, with this repeat's labels and seed.

        Raises:
            InputError: overrides of what all entries share.
        """
        config = with_overrides(self.prepared.config, entry.overrides)
        if entry.method == "mo-dpo":
            # Always from scratch, the experts too: an augmentation would need them wherever it is used.
            config = replace(config, parametrization="scratch")
        if (config.objectives, config.main) != (self.prepared.config.objectives, self.prepared.config.main):
            raise InputError(f"{entry.label}: objectives and main label are shared by all entries of a comparison")
        return config

    def trained(self, job: Job, config: RankConfig) -> Trained:
        """The result of a job: from memory, from its file, or by training it now."""
        training = self._training(job, config)
        name = f"{job.name}-{training.fingerprint[:12]}"
        if name in self._trained:
            return self._trained[name]
        path = self.directory / "models" / f"{name}.safetensors"
        if path.exists():
            tensors, values = read_tensors(path)
            try:
                training.ranker.load_state_dict(tensors)
                history = History(**values["history"])
                training.ranker.use(**history.chosen)
                training.ranker.to(self.accelerator.device)
            except (KeyError, TypeError, RuntimeError) as error:
                raise InputError(f"{path}: not a finished training ({str(error).splitlines()[0]})") from None
        else:
            checkpoint = self.directory / "models" / f"{name}.partial.safetensors"
            history = train(replace(training, checkpoint=checkpoint), self.accelerator)
            write_tensors(path, training.ranker.state_dict(), {"job": job.name, "history": asdict(history)})
            checkpoint.unlink(missing_ok=True)
        self._trained[name] = Trained(training.ranker, history, training.config.epochs)
        return self._trained[name]

    def _training(self, job: Job, config: RankConfig) -> Training:
        if isinstance(job, Conditioned):
            return replace(conditioned_training(self.prepared, config), name="hyperdpo")
        prepared, w = self.prepared, np.array(job.weights)
        same: dict[str, Any] = dict(
            validation=self.validation,
            config=config.training,
            metric=config.metric,
            seed=config.seed,
            grid=w[None],
            choice=lambda front: float(np.nansum(w * front.metrics[0])),
            validation_betas=(prepared.betas,),
        )
        settings = config.to_dict()
        unread = {*UNREAD, *SAMPLING, "validation_points"}
        known = {name: settings[name] for name in ("scorer", "seed")} | {
            "training": {k: v for k, v in settings["training"].items() if k not in unread},
            "augmentation": config.parametrization == "augmentation",
        }
        with seeded(config.seed, FIXED_INIT):
            ranker = fixed_ranker(config, prepared.transform.width)
        print_ = fingerprint(prepared.fingerprint, known, job.name)
        if isinstance(job, Fixed):
            return Training(
                name=f"w = {_numbers(job.weights)}",
                ranker=ranker,
                train=prepared.examples["train"],
                sampler=fixed_weights(w),
                betas=prepared.betas,
                fingerprint=print_,
                **same,
            )
        return Training(
            name=f"margin, w = {_numbers(job.weights)}",
            ranker=ranker,
            train=self._with_margin(job, config),
            sampler=fixed_weights(np.ones(1)),
            betas=(prepared.betas[job.objective] / job.weights[job.objective],),
            fingerprint=print_,
            **same,
        )

    def _with_margin(self, job: Margin, config: RankConfig) -> Examples:
        """The training examples of objective i, with the margin of Eq. (18) in the base scores.

            beta_i r = (beta_i / w_i) (s - [s_base + sum_{j != i} w_j (s_j - s_base)])

        so (18) is a single-objective fine-tuning from another base, at temperature beta_i / w_i.
        """
        examples, i = self.prepared.examples["train"], job.objective
        base = examples.base_scores.astype(np.float64)
        margin = np.zeros_like(base)
        for j, one in enumerate(job.experts):
            if j != i and job.weights[j] > 0:
                margin += job.weights[j] * (self._scored(one, config) - base)
        label = self.prepared.config.objectives[i]
        return replace(
            examples,
            labels=(label,),
            gains=examples.gains[:, [i]],
            targets=examples.targets[:, [i]],
            signal=examples.signal[:, [i]],
            base_scores=(base + margin).astype(np.float32),
        )

    def _scored(self, job: Fixed, config: RankConfig) -> np.ndarray:
        """(N,) scores of an expert on the training rows: it is frozen, so they are computed once."""
        training = self._training(job, config)
        if training.fingerprint not in self._expert_scores:
            ranker = self.trained(job, config).ranker
            scores = score_items(ranker, self.prepared.examples["train"], None, (), self.accelerator.device)
            self._expert_scores[training.fingerprint] = scores
        return self._expert_scores[training.fingerprint]

    def _scores(self, weights: np.ndarray, betas: Sequence[float], entry: Entry, config: RankConfig) -> ScoreBatch:
        answers = METHODS[entry.method](weights)
        if all(answer.jobs == (Conditioned(),) for answer in answers):
            return ranker_scores(self.trained(Conditioned(), config).ranker, weights, betas, self.accelerator.device)
        rankers = [self._averaged(answer, config) for answer in answers]

        def score(_: GroupBatch, batch: Batch) -> torch.Tensor:
            return torch.stack([ranker(batch) for ranker in rankers])

        return score

    def _averaged(self, answer: Recipe, config: RankConfig) -> Ranker:
        """The model of an answer, ready to score."""
        rankers = [self.trained(job, config).ranker for job in answer.jobs]
        if len(rankers) == 1:
            return rankers[0].eval()
        with seeded(config.seed, FIXED_INIT):  # its weights are replaced; the caller's random state stays
            average = fixed_ranker(config, self.prepared.transform.width)
        states = [ranker.state_dict() for ranker in rankers]
        average.load_state_dict(
            {
                name: torch.stack(
                    [share * state[name] for share, state in zip(answer.shares, states, strict=True)]
                ).sum(0)
                for name in states[0]
            }
        )
        return average.to(self.accelerator.device).eval()


def _numbers(weights: Sequence[float]) -> str:
    return ",".join(f"{w:.2g}" for w in weights)
