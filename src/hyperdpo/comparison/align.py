"""Language models in a comparison: how a job is trained, how adapters are averaged, and what answers at one w.

A finished training is a directory with an adapter and ``training.json``. All models share the base's weights in memory.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hyperdpo import hashing
from hyperdpo.alignment.bases import attending_by
from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.alignment.collation import TokenGroup, padding_token, tokenize_groups
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import RowScores, group_scores, row_logps
from hyperdpo.alignment.generation import ConditionedForward
from hyperdpo.alignment.model import Condition, ConditionedLM
from hyperdpo.alignment.reference import base_print, kept_base_scores
from hyperdpo.alignment.reporting import report_steps
from hyperdpo.alignment.run import fingerprint, versions
from hyperdpo.alignment.sampling import computing_in
from hyperdpo.alignment.trainer import HyperDPOTrainer, longest_text
from hyperdpo.alignment.training_config import HyperDPOConfig, training_arguments
from hyperdpo.comparison.clock import Clock
from hyperdpo.comparison.entries import PLAIN, Entry
from hyperdpo.comparison.logit_mixing import LogitMixture
from hyperdpo.comparison.methods import METHODS, Conditioned, Fixed, Job, Margin, NetworkJob, Trees
from hyperdpo.comparison.repeats import AlignRepeat
from hyperdpo.comparison.soup import soup
from hyperdpo.comparison.trainings import Trained, Training, Trainings, margin_beta, with_margin
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, read_tensors, write_json, write_tensors
from hyperdpo.objectives import Objective
from hyperdpo.progress import on_terminal

#: Adapter, training arguments and objectives of a job.
Described: TypeAlias = tuple[ConditioningConfig, dict[str, Any], tuple[Objective, ...]]
#: A finished training.
TRAINING = "training.json"
#: Settings of a training that models for one w do not have: how w is drawn.
CONDITIONED_ONLY = ("alpha", "weights_per", "vertex_share", "stratified", "penalty", "conditioning_learning_rate")


@dataclass(frozen=True)
class Settings:
    """What all trainings of a comparison share.

    Attributes:
        model: name or path of the base, for messages and file names.
        objectives: with targets and temperatures, fitted on the training groups.
        training: arguments of :class:`~hyperdpo.alignment.training_config.HyperDPOConfig`; epochs of models for one w.
        conditioning: of conditioned models; models for one w take its virtual tokens and LoRA.
        sampling_factor: conditioned models train for this many times the epochs.
        learning_rate_factor: conditioned models have this many times the learning rate.
        seed: of initialisation, order and sampled weights.
        training_attention: see :func:`~hyperdpo.alignment.bases.attending_by`; in trainings only.
        training_precision: measure and sample in the precision of the training, not in the model's own.
    """

    model: str
    objectives: tuple[Objective, ...]
    training: Mapping[str, Any]
    conditioning: Mapping[str, Any]
    sampling_factor: float
    learning_rate_factor: float
    seed: int
    training_precision: bool = False
    training_attention: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.objectives)

    @property
    def betas(self) -> tuple[float, ...]:
        return tuple(o.beta for o in self.objectives)


@dataclass(frozen=True)
class Speaker:
    """What answers at one w.

    Attributes:
        forward: the next logits, for :func:`~hyperdpo.alignment.answers.decoded`; all rows alike.
        told: what it is made of, by which its answers are kept: names of trainings, their shares, the weights of a
            conditioned model.
    """

    row_scores: RowScores
    forward: Callable[..., Any]
    told: Mapping[str, Any]


class AlignTrainings(Trainings[ConditionedLM]):
    """The trainings of one repeat, on one base; the groups, and the base's scores of them.

    Args:
        base: a transformers causal LM; it is frozen, its weights are shared by all models.
        directory: of the trainings.
        cpu: do not use a GPU.
        show: progress bars, or lines where there is no terminal.
    """

    def __init__(
        self,
        settings: Settings,
        base: Any,
        tokenizer: PreTrainedTokenizerBase,
        repeat: AlignRepeat,
        directory: Path,
        *,
        cpu: bool = False,
        show: bool = True,
    ):
        super().__init__()
        self.settings, self.base, self.tokenizer, self.directory = settings, base, tokenizer, directory
        self.repeat, self.cpu, self.show = repeat, cpu, show
        self.pad = padding_token(tokenizer)
        args = self.arguments(settings.training, directory)
        self.device = args.device
        #: For what a training compares itself with. Everything else is measured in the model's own precision, unless
        #: the settings say otherwise.
        self._accelerator = Accelerator(mixed_precision=args.mixed_precision, cpu=args.use_cpu)
        base.requires_grad_(False).to(self.device)
        self._base_print = base_print(base)
        self.probe = ConditionedLM.create(shared_copy(base), ConditioningConfig(settings.names, **_plain(settings)))
        self.ld_alpha = args.ld_alpha
        self.limits: dict[str, Any] = {
            "max_prompt_length": args.max_prompt_length,
            "max_length": longest_text(self.probe, args.max_length),
            "truncate": args.truncate,
        }
        if args.skip_invalid:
            self.limits["skip_invalid"] = True
        self.train_groups, self.test_groups = self._tokenized(repeat.train), self._tokenized(repeat.test)
        with attending_by(settings.training_attention, self.probe.base):
            self.train_base = self._base_scores("train", self.train_groups, self._accelerator)
        measured_in = self._accelerator if settings.training_precision else None
        self.test_base = self._base_scores("test", self.test_groups, measured_in)

    def _tokenized(self, data: Preferences) -> list[TokenGroup]:
        return tokenize_groups(data, to_targets(data, self.settings.objectives), self.tokenizer, **self.limits)

    def _base_scores(self, name: str, groups: list[TokenGroup], accelerator: Accelerator | None) -> list[np.ndarray]:
        return kept_base_scores(
            self.probe,
            groups,
            self.pad,
            self.device,
            path=self.directory / f"base-{name}.safetensors",
            accelerator=accelerator,
            ld_alpha=self.ld_alpha if name == "train" else None,  # measured as without it
        )

    def measuring(self) -> contextlib.AbstractContextManager[None]:
        """The precision in which models are measured and sampled from, without gradients."""
        precision = self._accelerator.mixed_precision if self.settings.training_precision else "no"
        return computing_in(precision, self.base)

    @property
    def fingerprint(self) -> str:
        """A hash of all that a measurement depends on besides the trainings, whose names tell their settings."""
        precision = {"precision": self._accelerator.mixed_precision} if self.settings.training_precision else {}
        return hashing.fingerprint(
            {
                "objectives": [asdict(o) for o in self.settings.objectives],
                "seed": self.settings.seed,
                "train": fingerprint(self.repeat.train),
                "test": fingerprint(self.repeat.test),
                "limits": self.limits,
                "base": self._base_print,
                **precision,
            },
            64,
        )

    # --- trainings

    def training(self, job: Job, entry: Entry) -> Training[ConditionedLM]:
        assert not isinstance(job, Trees)  # of rankers
        overrides = entry.overrides if isinstance(job, Conditioned) else entry.overrides.get("fixed", {})
        conditioning, training, objectives = self.described(job, overrides)
        told = {
            "job": job.name,
            "conditioning": conditioning.to_dict(),
            "training": {k: v for k, v in training.items() if k != "output_dir"},
            "objectives": [asdict(o) for o in objectives],
            "data": fingerprint(self.repeat.train),
            "base": self._base_print,
        }
        name = f"{job.name}-{hashing.fingerprint(told, 64)[:12]}"
        path = self.directory / "models" / name

        def trained(model: ConditionedLM, done: Mapping[str, Any]) -> Trained[ConditionedLM]:
            times = (float(done["seconds"]), float(done["epochs"]), None)
            return Trained(
                name, model.eval(), model.num_parameters(), *times, done.get("steps"), done.get("processor_seconds")
            )

        def load() -> Trained[ConditionedLM] | None:
            if not (path / TRAINING).exists():
                return None
            done = read_json(path / TRAINING, remedy=f"delete {path} to train again")
            model = ConditionedLM.from_pretrained(path, shared_copy(self.base)).to(self.device)
            if not isinstance(done, dict) or not {"seconds", "epochs"} <= set(done):
                raise InputError(f"{path / TRAINING}: not a finished training; expected seconds and epochs")
            return trained(model, done)

        def run() -> Trained[ConditionedLM]:
            unfinished = path.with_name(path.name + ".partial")
            args = self.arguments(training, unfinished)
            trainer = HyperDPOTrainer(
                ConditionedLM.create(shared_copy(self.base), conditioning, seed=args.seed),
                args,
                self.repeat.train,
                processing_class=self.tokenizer,
                objectives=objectives,
            )
            known = self.base_with_margin(job, entry) if isinstance(job, Margin) else self.train_base
            trainer.train_groups[:] = [
                replace(group, reference_logps=scores)
                for group, scores in zip(trainer.train_groups, known, strict=True)
            ]
            report_steps(trainer, f"train {job.name}", show=self.show)
            last = last_checkpoint(unfinished)
            clock = Clock(last)
            trainer.add_callback(clock)
            with attending_by(self.settings.training_attention, trainer.own_model.base):
                trainer.train(resume_from_checkpoint=last)
            done = {"epochs": float(args.num_train_epochs), "steps": trainer.state.global_step, **clock.told}
            trainer.own_model.save_pretrained(path)
            write_json(path / TRAINING, {**done, **told}, sealed=True)
            shutil.rmtree(unfinished, ignore_errors=True)
            return trained(trainer.own_model, done)

        return Training(name, load, run)

    def described(
        self, job: NetworkJob, overrides: Mapping[str, Any]
    ) -> tuple[ConditioningConfig, dict[str, Any], tuple[Objective, ...]]:
        """What a job is trained with, by the settings of the comparison and of an entry."""
        settings = self.settings
        training = {**settings.training, "seed": settings.seed, **overrides.get("training", {})}
        objectives = settings.objectives
        if isinstance(job, Conditioned):
            training["num_train_epochs"] = training.get("num_train_epochs", 3) * settings.sampling_factor
            rate = overrides.get("training", {}).get("learning_rate_factor", settings.learning_rate_factor)
            training["learning_rate"] = training.get("learning_rate", HyperDPOConfig.learning_rate) * rate
            training.pop("learning_rate_factor", None)
            unset = overrides.get("unless_set", {})
            chosen = {**unset, **settings.conditioning, **overrides.get("conditioning", {})}
            return ConditioningConfig(settings.names, **chosen), training, objectives
        training = {k: v for k, v in training.items() if k not in CONDITIONED_ONLY}
        if isinstance(job, Margin):
            objectives = (replace(objectives[job.objective], beta=margin_beta(job, settings.betas)),)
            training["weights"] = [1.0]
        else:
            training["weights"] = list(job.weights)
        plain = _plain(settings) | (_portable(settings) if overrides.get("portable") else {})
        return ConditioningConfig(tuple(o.name for o in objectives), **plain), training, objectives

    def base_with_margin(self, job: Margin, entry: Entry) -> list[np.ndarray]:
        """The base's scores of the training groups, with the experts' margin in them."""

        def scores(expert: Fixed) -> np.ndarray:
            with self._accelerator.autocast():
                own = partial(row_logps, self.trained(expert, entry).model, ld_alpha=self.ld_alpha)
                return np.concatenate(group_scores(own, self.train_groups, self.pad, self.device))

        whole = with_margin(job, np.concatenate(self.train_base), scores)
        return np.split(whole, np.cumsum([len(one) for one in self.train_base])[:-1])

    def arguments(self, training: Mapping[str, Any], directory: Path) -> HyperDPOConfig:
        """The arguments of a training."""
        fixed: dict[str, Any] = {
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "report_to": [],
            "eval_strategy": "no",
        }
        quiet = {"disable_tqdm": not (self.show and on_terminal()), "use_cpu": self.cpu, "logging_strategy": "no"}
        return training_arguments(directory, {**quiet, **training, **fixed})

    # --- answers

    def scores(self, speaker: Speaker) -> list[np.ndarray]:
        """(n,) of each test group, kept on disk."""
        sizes = [len(group.completion_ids) for group in self.test_groups]

        def scored() -> dict[str, np.ndarray]:
            return {"scores": np.concatenate(self.group_scores(speaker, self.test_groups))}

        found = self.kept("scores", speaker, {}, scored)["scores"]
        return np.split(found, np.cumsum(sizes)[:-1])

    def group_scores(self, speaker: Speaker, groups: Sequence[TokenGroup]) -> list[np.ndarray]:
        """(n,) log-probabilities of the responses of each group."""
        with self.measuring():
            return group_scores(speaker.row_scores, groups, self.pad, self.device)

    def kept(
        self, what: str, speaker: Speaker, told: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays that a speaker was found to have before, or has now.

        They depend on no measure, so that other measures of them need neither a pass of the model nor a sample.

        Args:
            what: the beginning of the file's name.
            told: what they depend on, besides the speaker and all that measurements of this repeat depend on.
        """
        header = {"speaker": dict(speaker.told), **told, "repeat": self.fingerprint, "versions": versions()}
        path = self.directory / "answers" / f"{what}-{hashing.fingerprint(header, 64)[:12]}.safetensors"
        if path.exists():
            kept, _ = read_tensors(path, remedy="delete it to make it again")
            return {name: tensor.numpy() for name, tensor in kept.items()}
        found = make()
        write_tensors(path, {name: torch.from_numpy(value) for name, value in found.items()}, header)
        return found

    def base_speaker(self) -> Speaker:
        """The base itself."""
        plain = ConditionedForward(self.probe, Condition(None, None), torch.ones(1))

        def forward(**inputs: Any) -> Any:
            with self.probe.base_only():
                return plain(**inputs)

        def score(batch: dict[str, Tensor]) -> Tensor:
            with self.probe.base_only():
                return row_logps(self.probe, batch)

        return Speaker(score, forward, {"base": True})

    def speaker(self, entry: Entry, w: np.ndarray) -> Speaker:
        """What an entry answers with at (m,) weights: of several models, their average."""
        (recipe,) = METHODS[entry.method](w[None])
        # At a vertex an average of experts is one of them.
        parts = [(self.trained(job, entry), share) for job, share in zip(recipe.jobs, recipe.shares, strict=True)]
        parts = [(trained, share) for trained, share in parts if share > 0]
        models, shares = [trained.model for trained, _ in parts], [share for _, share in parts]
        told: dict[str, Any] = {"trainings": [trained.name for trained, _ in parts], "shares": shares}
        if len(models) > 1:
            told["average"] = recipe.average
            if recipe.average == "predictions":
                mixture = LogitMixture(models, shares)
                return Speaker(mixture.row_logps, mixture.forward(), told)
        model, weights = models[0], None
        if recipe.jobs == (Conditioned(),):
            weights = torch.as_tensor(w, dtype=torch.float32, device=self.device)
            told["weights"] = w.tolist()
        elif len(models) > 1:
            definition = told["soup"] = entry.overrides.get("soup", "exact")
            model = soup(models, shares, definition, shared_copy(self.base)).to(self.device).eval()

        with torch.no_grad():
            forward = ConditionedForward(model, model.condition(weights, 1), torch.ones(1))
        return Speaker(lambda batch: row_logps(model, batch, weights), forward, told)


def shared_copy(base: Any) -> Any:
    """A copy of a model that has the same parameters: adapters can be put into each."""
    return copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})


def _plain(settings: Settings) -> dict[str, Any]:
    """The comparison's virtual tokens and LoRA, not conditioned."""
    return {**settings.conditioning, **PLAIN["conditioning"]}


def _portable(settings: Settings) -> dict[str, Any]:
    """The adapter of a model for one w that has the size of one of the m plain LoRAs of ``hyperdpo:portable``."""
    config, m = ConditioningConfig(settings.names, **settings.conditioning), len(settings.names)
    return {"prompt_tokens": 0, "lora_rank": m * config.lora_rank, "lora_alpha": m * config.lora_alpha}
