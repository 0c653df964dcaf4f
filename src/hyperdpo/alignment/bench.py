"""One split and seed on which language models are trained side by side, each once for all methods that need it.

A finished training is a directory with an adapter and ``training.json``, and is never run again; an unfinished one goes
on from its last checkpoint. All models share the base's weights in memory.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback

from hyperdpo import hashing
from hyperdpo.alignment.arguments import HyperDPOConfig, training_arguments
from hyperdpo.alignment.collation import TokenGroup, padding_token, tokenize_groups
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import RowScores, group_scores, row_logps
from hyperdpo.alignment.logit_mixing import LogitMixture
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.reference import base_print, kept_base_scores
from hyperdpo.alignment.reporting import report_steps
from hyperdpo.alignment.run import fingerprint, last_checkpoint
from hyperdpo.alignment.soup import soup
from hyperdpo.alignment.trainer import HyperDPOTrainer, longest_text
from hyperdpo.alignment.variants import PLAIN, VARIANTS
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json
from hyperdpo.methods import METHODS, Conditioned, Job, Margin, Recipe, jobs_of
from hyperdpo.objectives import Objective
from hyperdpo.options import parse_method
from hyperdpo.progress import on_terminal

#: A finished training.
TRAINING = "training.json"
#: Settings of a training that models for one w do not have: how w is drawn.
CONDITIONED_ONLY = ("alpha", "weights_per", "vertex_share", "stratified", "penalty", "conditioning_learning_rate")


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: its name in tables and plots.
        method: of :data:`~hyperdpo.methods.METHODS`.
        overrides: ``conditioning`` and ``training`` settings that differ from the comparison's own; ``soup``, how
            adapters are averaged.
    """

    label: str
    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def one_shot(self) -> bool:
        """One training answers for every w."""
        return self.method == "hyperdpo"


def parse_entry(text: str) -> Entry:
    """An entry from ``METHOD`` or ``METHOD:VARIANT``, of :data:`~hyperdpo.alignment.variants.VARIANTS`.

    Raises:
        InputError: no such method or variant.
    """
    method, overrides = parse_method(text, VARIANTS)
    return Entry(text, method, overrides)


@dataclass(frozen=True)
class Settings:
    """What all trainings of a comparison share.

    Attributes:
        model: name or path of the base, for messages and file names.
        objectives: with targets and temperatures, fitted on the training groups.
        training: arguments of :class:`~hyperdpo.alignment.trainer.HyperDPOConfig`; epochs of models for one w.
        conditioning: of conditioned models; the rest of it (prompt, LoRA) is everybody's.
        sampling_factor: conditioned models have so many times the epochs.
        learning_rate_factor: and so many times the learning rate.
        seed: of initialisation, order and sampled weights.
    """

    model: str
    objectives: tuple[Objective, ...]
    training: Mapping[str, Any]
    conditioning: Mapping[str, Any]
    sampling_factor: float
    learning_rate_factor: float
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.objectives)

    @property
    def betas(self) -> tuple[float, ...]:
        return tuple(o.beta for o in self.objectives)


@dataclass(frozen=True)
class Trained:
    """A finished job."""

    model: ConditionedLM
    seconds: float
    epochs: float
    name: str


@dataclass(frozen=True)
class Speaker:
    """What answers at one w."""

    row_scores: RowScores
    generate: Callable[..., Tensor]


@dataclass(frozen=True)
class Model:
    """How an entry answers at any w, once its jobs are done."""

    at: Callable[[np.ndarray], Speaker]
    models: int
    parameters: int
    seconds: float
    epochs: float
    trainings: tuple[str, ...]
    """Their directories' names, which tell their settings apart."""


class Bench:
    """One repeat: groups, the base and its scores, and the trainings done so far.

    Args:
        base: a transformers causal LM; it is frozen, its weights are shared by all models.
        train, test: preferences.
        directory: of the trainings.
        cpu: do not use a GPU.
        show: progress bars, or lines where there is no terminal.
    """

    def __init__(
        self,
        settings: Settings,
        base: Any,
        tokenizer: PreTrainedTokenizerBase,
        train: Preferences,
        test: Preferences,
        directory: Path,
        *,
        cpu: bool = False,
        show: bool = True,
    ):
        self.settings, self.base, self.tokenizer, self.directory = settings, base, tokenizer, directory
        self.train, self.test, self.cpu, self.show = train, test, cpu, show
        self.pad = padding_token(tokenizer)
        self._trained: dict[str, Trained] = {}
        args = self._arguments(settings.training, directory)
        self.device = args.device
        #: For what a training compares itself with; everything else is measured in the model's own precision.
        self._accelerator = Accelerator(mixed_precision=args.mixed_precision, cpu=args.use_cpu)
        base.requires_grad_(False).to(self.device)
        self._base_print = base_print(base)
        probe = ConditionedLM.create(shared_copy(base), ConditioningConfig(settings.names, **_plain(settings)))
        self.probe = probe
        limits: dict[str, Any] = {
            "max_prompt_length": args.max_prompt_length,
            "max_length": longest_text(probe, args.max_length),
            "truncate": args.truncate,
        }
        if args.skip_invalid:
            limits["skip_invalid"] = True
        self.limits = limits

        def tokenized(data: Preferences) -> list[TokenGroup]:
            return tokenize_groups(data, to_targets(data, settings.objectives), tokenizer, **limits)

        self.train_groups, self.test_groups = tokenized(train), tokenized(test)
        self.train_base, self.test_base = (
            kept_base_scores(
                probe,
                groups,
                self.pad,
                self.device,
                path=directory / f"base-{name}.safetensors",
                accelerator=accelerator,
            )
            for name, groups, accelerator in (
                ("train", self.train_groups, self._accelerator),
                ("test", self.test_groups, None),
            )
        )

    @property
    def fingerprint(self) -> str:
        """Of all that a measurement depends on besides the trainings, whose names tell their settings."""
        objectives = [asdict(o) for o in self.settings.objectives]
        data = [fingerprint(self.train), fingerprint(self.test), self.limits]
        told = [objectives, self.settings.seed, *data, self._base_print]
        return hashing.fingerprint(told, 64)

    def model(self, entry: Entry, grid: np.ndarray) -> Model:
        """Train what an entry needs to answer at the (P, m) grid."""
        jobs = jobs_of(METHODS[entry.method](grid))
        trained = {job: self.trained(job, entry) for job in jobs}
        return Model(
            at=lambda w: self._speaker(entry, w),
            models=len(jobs),
            parameters=sum(one.model.num_parameters() for one in trained.values()),
            seconds=sum(one.seconds for one in trained.values()),
            epochs=max(one.epochs for one in trained.values()),
            trainings=tuple(one.name for one in trained.values()),
        )

    def base_speaker(self) -> Speaker:
        """The base itself."""

        def generate(*args: Any, **settings: Any) -> Tensor:
            with self.probe.base_only():
                found: Tensor = self.probe.generate(*args, **settings)
                return found

        def score(batch: dict[str, Tensor]) -> Tensor:
            with self.probe.base_only():
                return row_logps(self.probe, batch)

        return Speaker(score, generate)

    def scores(self, speaker: Speaker) -> list[np.ndarray]:
        """(n,) of each test group."""
        return group_scores(speaker.row_scores, self.test_groups, self.pad, self.device)

    # --- trainings

    def trained(self, job: Job, entry: Entry) -> Trained:
        """The result of a job: from memory, from its directory, or by training it now."""
        conditioned = isinstance(job, Conditioned)
        overrides = entry.overrides if conditioned else {}
        conditioning, training, objectives = self._described(job, overrides)
        told = {
            "job": job.name,
            "conditioning": conditioning.to_dict(),
            "training": {k: v for k, v in training.items() if k != "output_dir"},
            "objectives": [asdict(o) for o in objectives],
            "data": fingerprint(self.train),
            "base": self._base_print,
        }
        name = f"{job.name}-{hashing.fingerprint(told, 64)[:12]}"
        if name in self._trained:
            return self._trained[name]
        path = self.directory / "models" / name
        if (path / TRAINING).exists():
            done = read_json(path / TRAINING)
            model = ConditionedLM.from_pretrained(path, shared_copy(self.base)).to(self.device)
            if not isinstance(done, dict) or not {"seconds", "epochs"} <= set(done):
                raise InputError(f"{path / TRAINING}: not a finished training; expected seconds and epochs")
            result = Trained(model.eval(), float(done["seconds"]), float(done["epochs"]), name)
        else:
            result = self._train(job, entry, conditioning, training, objectives, path)
            result.model.save_pretrained(path)
            write_json(path / TRAINING, {"seconds": result.seconds, "epochs": result.epochs, **told})
            shutil.rmtree(_unfinished(path), ignore_errors=True)
        self._trained[name] = result
        return result

    def _described(
        self, job: Job, overrides: Mapping[str, Any]
    ) -> tuple[ConditioningConfig, dict[str, Any], tuple[Objective, ...]]:
        """Adapter, training arguments and objectives of a job."""
        settings = self.settings
        training = {**settings.training, "seed": settings.seed, **overrides.get("training", {})}
        objectives = settings.objectives
        if isinstance(job, Conditioned):
            training["num_train_epochs"] = training.get("num_train_epochs", 3) * settings.sampling_factor
            rate = overrides.get("training", {}).get("learning_rate_factor", settings.learning_rate_factor)
            training["learning_rate"] = training.get("learning_rate", HyperDPOConfig.learning_rate) * rate
            training.pop("learning_rate_factor", None)
            chosen = {**settings.conditioning, **overrides.get("conditioning", {})}
            return ConditioningConfig(settings.names, **chosen), training, objectives
        training = {k: v for k, v in training.items() if k not in CONDITIONED_ONLY}
        if isinstance(job, Margin):
            one = objectives[job.objective]
            objectives = (replace(one, beta=one.beta / job.weights[job.objective]),)
            training["weights"] = [1.0]
        else:
            training["weights"] = list(job.weights)
        return ConditioningConfig(tuple(o.name for o in objectives), **_plain(settings)), training, objectives

    def _train(
        self,
        job: Job,
        entry: Entry,
        conditioning: ConditioningConfig,
        training: dict[str, Any],
        objectives: tuple[Objective, ...],
        path: Path,
    ) -> Trained:
        unfinished = _unfinished(path)
        args = self._arguments(training, unfinished)
        trainer = HyperDPOTrainer(
            ConditionedLM.create(shared_copy(self.base), conditioning, seed=args.seed),
            args,
            self.train,
            processing_class=self.tokenizer,
            objectives=objectives,
        )
        known = self._margin(job, entry) if isinstance(job, Margin) else self.train_base
        trainer.train_groups[:] = [
            replace(group, reference_logps=scores) for group, scores in zip(trainer.train_groups, known, strict=True)
        ]
        report_steps(trainer, f"train {job.name}", show=self.show)
        clock = _Clock()
        trainer.add_callback(clock)
        last = last_checkpoint(unfinished)
        clock.start(last)
        trainer.train(resume_from_checkpoint=last)
        return Trained(trainer.own_model.eval(), clock.seconds, float(args.num_train_epochs), path.name)

    def _margin(self, job: Margin, entry: Entry) -> list[np.ndarray]:
        """The base scores of the training groups with the margin of Eq. (18) in them.

            beta_i r = (beta_i / w_i) (s - [s_base + sum_{j != i} w_j (s_j - s_base)])

        so (18) is a single-objective fine-tuning from another base, at temperature beta_i / w_i.
        """
        found = [scores.astype(np.float64) for scores in self.train_base]
        for j, one in enumerate(job.experts):
            if j != job.objective and job.weights[j] > 0:
                model = self.trained(one, entry).model
                with self._accelerator.autocast():
                    expert = group_scores(partial(row_logps, model), self.train_groups, self.pad, self.device)
                found = [
                    scores + job.weights[j] * (own.astype(np.float64) - base)
                    for scores, own, base in zip(found, expert, self.train_base, strict=True)
                ]
        return [scores.astype(np.float32) for scores in found]

    def _arguments(self, training: Mapping[str, Any], directory: Path) -> HyperDPOConfig:
        fixed: dict[str, Any] = {
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "report_to": [],
            "eval_strategy": "no",
        }
        quiet = {"disable_tqdm": not (self.show and on_terminal()), "use_cpu": self.cpu, "logging_strategy": "no"}
        return training_arguments(directory, {**quiet, **training, **fixed})

    # --- answers

    def _speaker(self, entry: Entry, w: np.ndarray) -> Speaker:
        (answer,) = METHODS[entry.method](w[None])
        models = [self.trained(job, entry).model for job in answer.jobs]
        if answer.average == "predictions":
            mixture = LogitMixture(models, answer.shares)
            return Speaker(mixture.row_logps, mixture.generate)
        weights: Tensor | None = None
        if answer.jobs == (Conditioned(),):
            model, weights = models[0], torch.as_tensor(w, dtype=torch.float32, device=self.device)
        else:
            model = models[0] if len(models) == 1 else self._averaged(entry, answer, models)

        def generate(*args: Any, **settings: Any) -> Tensor:
            found: Tensor = model.generate(*args, weights=weights, **settings)
            return found

        return Speaker(lambda batch: row_logps(model, batch, weights), generate)

    def _averaged(self, entry: Entry, answer: Recipe, models: list[ConditionedLM]) -> ConditionedLM:
        definition = entry.overrides.get("soup", "exact")
        return soup(models, answer.shares, definition, shared_copy(self.base)).to(self.device).eval()


class _Clock(TrainerCallback):
    """Seconds of a training, those before an interruption included: they are kept beside each checkpoint."""

    NAME = "seconds.json"

    def __init__(self) -> None:
        self._before = 0.0
        self._started = 0.0
        self._ended: float | None = None

    def start(self, checkpoint: str | None) -> None:
        if checkpoint is not None and (Path(checkpoint) / self.NAME).exists():
            self._before = float(read_json(Path(checkpoint) / self.NAME))

    @property
    def seconds(self) -> float:
        return self._before + (time.monotonic() if self._ended is None else self._ended) - self._started

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if directory.is_dir():
            write_json(directory / self.NAME, self.seconds)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._ended = time.monotonic()


def shared_copy(base: Any) -> Any:
    """A copy of a model that has the same parameters: adapters can be put into each."""
    return copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})


def _plain(settings: Settings) -> dict[str, Any]:
    """Prompt and LoRA of the comparison, not conditioned."""
    return {**settings.conditioning, **PLAIN["conditioning"]}


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
