"""On-policy rounds: a run answers prompts itself, at all weightings, learns from the scored answers, and answers again.

A round is a directory ``round-K`` with ``answers.jsonl`` (the groups), ``base.safetensors`` (the base's scores of
them), a run (``run.json`` and the adapter) and ``texts.json`` (what its texts on held-out prompts score). Each is
written whole, and what is there is not made again. So a call that was stopped anywhere gives the same files.

Why answers of the model serve as well as those of the base: the optimum of (10) for a list of answers is
softmax(β (s - s_base)) = E[t | list]. For one objective with a softmax target it is the same function of an answer,
whatever its list: s - s_base = z / (τ β) + a constant of the prompt, for a transformed score z and a target's
temperature τ. Who wrote the answers decides where the loss is looked at, not where its minimum is. So there are no
importance weights, and s_base stays the score of the frozen base. Between the vertices the target is a mean of several
softmaxes, which no score fits in all lists at once. The minimum is then an average over lists, and on-policy rounds
weight the lists that the model itself writes.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hyperdpo.alignment.adapters import TENSORS
from hyperdpo.alignment.answer_sets import asked, partial_of, remove_partial, sample_groups, write_answers
from hyperdpo.alignment.answers import Sampling
from hyperdpo.alignment.bases import attending_by
from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.reference import kept_base_scores
from hyperdpo.alignment.reporting import announce, report_steps
from hyperdpo.alignment.run import RUN, AlignRun, versions
from hyperdpo.alignment.sampling import computing_in
from hyperdpo.alignment.text_fronts import BASE_TEXTS, TEXTS, TextFront, kept_front
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig, training_arguments
from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.core.sampling import WeightSampler
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, read_tensors, write_json
from hyperdpo.scorers.scorer import NamedScorer, scores_of

#: Files of a round.
ANSWERS, BASE, CHECKPOINTS = "answers.jsonl", "base.safetensors", "checkpoints"
#: Key of the random streams.
_ROUNDS = 11


@dataclass(frozen=True)
class Rounds:
    """What all rounds share.

    Attributes:
        scorer: with a column for each objective of the run.
        training, testing: prompts; answers are trained on, or only measured.
        how: answers of each prompt, their length, temperature and seed.
        points: weightings at which texts are measured.
        samples: texts of each held-out prompt at each of them.
        weights_per: every answer has a w of its own, or the answers of a prompt share one.
        source: who answers: the model, at these w, or its base.
        arguments: of :class:`~hyperdpo.alignment.training_config.HyperDPOConfig`.
        data: groups to train on beside the answers.
        precision: see :func:`~hyperdpo.alignment.sampling.computing_in`, of sampled answers and measured texts.
    """

    scorer: NamedScorer
    training: Sequence[Prompt]
    testing: Sequence[Prompt]
    how: Sampling
    points: int
    samples: int
    weights_per: Literal["answer", "prompt"]
    source: Literal["model", "base"]
    arguments: dict[str, Any]
    data: Preferences | None = None
    precision: str = "no"


class Improvement:
    """The rounds of one run, in a directory.

    Args:
        run: where they start; its model is trained in place.
        start: the directory of that run.
        out: of the rounds.
    """

    def __init__(self, run: AlignRun, start: Path, out: Path, rounds: Rounds, device: str):
        self.run, self.start, self.out, self.rounds, self.device = run, start, out, rounds, device
        run.model.to(device)
        self.grid = weight_grid(len(run.names), max(rounds.points, len(run.names)))

    def directory(self, number: int) -> Path:
        """Of a round; 0 is the run before the first one."""
        return self.out / f"round-{number}"

    def args(self, number: int) -> HyperDPOConfig:
        """Settings of a round's training: each draws its own w and order."""
        arguments = dict(self.rounds.arguments)
        arguments["seed"] = int(arguments["seed"]) + number
        return training_arguments(self.directory(number) / CHECKPOINTS, arguments)

    def load(self, number: int) -> None:
        """Make the model the one that a round ended with, as it is on disk."""
        path = (self.directory(number) if number else self.start) / TENSORS
        self.run.model.load_adapter_state(read_tensors(path)[0])

    # --- answers

    def answers(self, number: int) -> None:
        """Sample and score the answers of a round, with the model of the round before."""
        path = self.directory(number) / ANSWERS
        if path.exists():
            remove_partial(path)
            return
        self.load(number - 1)
        rounds, started = self.rounds, time.monotonic()
        how = replace(rounds.how, seed=self._seed(number))
        told = {"round": number, "source": rounds.source}
        groups = self._sampled(
            rounds.training, how, partial_of(path), told, None if rounds.source == "base" else self.weights(number)
        )
        about = {
            "round": number,
            "sampled_from": rounds.source,
            "precision": rounds.precision,
            "sampling": asdict(how),
            "scorers": rounds.scorer.name,
            "versions": versions(),
        }
        write_answers(groups, rounds.scorer, path, about)
        remove_partial(path)
        self._took(number, "sampling", started)

    def weights(self, number: int) -> np.ndarray:
        """(P, n, m): what the answers of a round are sampled at, drawn as in training."""
        args, m = self.args(number), len(self.run.names)
        count, n = len(self.rounds.training), self.rounds.how.answers
        sampler = WeightSampler(args.alphas(m), "group", args.vertex_share, args.stratified)
        each = self.rounds.weights_per == "answer"
        drawn = sampler.draw(count * n if each else count, stream(self.rounds.how.seed, _ROUNDS, number))
        return drawn.reshape(count, n, m) if each else np.repeat(drawn[:, None], n, axis=1)

    def _seed(self, number: int) -> int:
        return int(stream(self.rounds.how.seed, _ROUNDS, number, 1).integers(2**31))

    def _sampled(
        self, prompts: Sequence[Prompt], how: Sampling, partial: Path, told: dict[str, Any], weights: np.ndarray | None
    ) -> list[Any]:
        """Groups of answers; without weights the base's own."""
        model = self.run.model
        speaker = model.base_only() if weights is None else contextlib.nullcontext()
        with speaker, computing_in(self.rounds.precision, model):
            return sample_groups(model, self.run.tokenizer, prompts, how, partial, told, weights=weights)

    # --- training

    def train(self, number: int) -> None:
        """Go on with the adapter of the round before, on the answers of all rounds so far."""
        directory = self.directory(number)
        if (directory / RUN).exists():
            shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
            return
        self.load(number - 1)
        started = time.monotonic()
        run, args = self.run, self.args(number)
        parts = [] if self.rounds.data is None else [self.rounds.data]
        columns = [one.column for one in run.objectives]
        parts += [read_preferences(self.directory(k) / ANSWERS, objectives=columns) for k in range(1, number + 1)]
        both = tuple(group for part in parts for group in part.groups)
        pool = Preferences(both, tuple(columns), str(directory / ANSWERS))
        trainer = HyperDPOTrainer(run.model, args, pool, processing_class=run.tokenizer, objectives=run.objectives)
        with attending_by(run.settings.get("model_settings", {}).get("training_attention"), run.model.base):
            self._know_base(trainer, parts)
            report_steps(trainer, f"round {number}")
            last = last_checkpoint(directory / CHECKPOINTS)
            announce(trainer)
            trainer.check_space()
            trainer.train(resume_from_checkpoint=last)
        seconds = time.monotonic() - started
        self._took(number, "training", started)
        done = AlignRun(
            model=trainer.own_model,
            tokenizer=run.tokenizer,
            objectives=run.objectives,
            data=run.data,
            settings=run.settings | {"training": dict(self.rounds.arguments), "seed": args.seed, "round": number},
            limits=run.limits,
            metrics={
                "parameters": trainer.own_model.num_parameters(),
                "train_seconds": seconds,
                "groups": len(trainer.train_groups),
                "history": [entry for entry in trainer.state.log_history if "loss" in entry],
            },
        )
        done.save(directory)
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)

    def _know_base(self, trainer: HyperDPOTrainer, parts: Sequence[Preferences]) -> None:
        """Give the trainer the base's scores: each answer is scored once, in the round that it came from."""
        bounds = np.cumsum([0, *(len(part) for part in parts)])
        first_round = 0 if self.rounds.data is not None else 1
        found = []
        for place in range(len(parts)):
            low, high = bounds[place], bounds[place + 1]
            groups = [group for group in trainer.train_groups if low <= group.index < high]
            number = place + first_round
            path = self.directory(number) / BASE if number else self.out / f"data-{BASE}"
            scores = kept_base_scores(
                trainer.own_model,
                groups,
                trainer.pad_token_id,
                trainer.args.device,
                path=path,
                accelerator=trainer.accelerator,
                ld_alpha=trainer.options.ld_alpha,
            )
            found += [replace(group, reference_logps=one) for group, one in zip(groups, scores, strict=True)]
        trainer.train_groups[:] = found

    # --- measuring

    def measure(self, number: int) -> TextFront:
        """What the texts of a round's model score on held-out prompts, at every weighting with the same numbers."""
        self._keep_texts(self.out / BASE_TEXTS / TEXTS, None)
        path = self.directory(number) / TEXTS
        if not path.exists():
            self.load(number)
            started = time.monotonic()
            self._keep_texts(path, self.grid)
            self._took(number, "measuring", started)
        _remove_partials(path)
        front = kept_front(self.directory(number), self.run.objectives)
        assert front is not None  # both files are there
        return front

    def _keep_texts(self, path: Path, grid: np.ndarray | None) -> None:
        """Sample and score texts at each of P weightings, or the base's: (P, T, S, m) or (1, T, S, m) scores."""
        if path.exists():
            _remove_partials(path)
            return
        rounds, m = self.rounds, len(self.run.names)
        shape = (len(rounds.testing), rounds.samples, m)
        how = replace(rounds.how, answers=rounds.samples, seed=self._seed(0), selected=False)
        scores, texts = [], []
        for place, w in enumerate([None] if grid is None else grid):
            partial = path.with_suffix(f".{place}.partial")
            weights = None if w is None else np.broadcast_to(w, shape)
            groups = self._sampled(rounds.testing, how, partial, {"measured": place}, weights)
            rows = [(asked(group.prompt), answer.text) for group in groups for answer in group.answers]
            found = scores_of(rounds.scorer, self.run.names, [prompt for prompt, _ in rows], [text for _, text in rows])
            scores.append(found.reshape(shape).tolist())
            texts.append([[answer.text for answer in group.answers] for group in groups])
        write_json(
            path, {"weights": None if grid is None else grid.tolist(), "scores": scores, "texts": texts}, sealed=True
        )
        _remove_partials(path)

    # --- seconds

    def _took(self, number: int, what: str, started: float) -> None:
        """Note how long a part of a round took; of an interrupted one, the last try."""
        path = self.directory(number) / "seconds.json"
        before = read_json(path) if path.exists() else {}
        write_json(path, {**before, what: time.monotonic() - started}, sealed=True)

    def seconds(self, number: int) -> dict[str, float]:
        """By part of a round."""
        path = self.directory(number) / "seconds.json"
        found: dict[str, float] = read_json(path) if path.exists() else {}
        return found


def _remove_partials(path: Path) -> None:
    """Remove what was kept of texts that are all there."""
    for partial in path.parent.glob(f"{path.stem}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def check_rounds(run: AlignRun) -> None:
    """Refuse a run that cannot be improved at all weightings.

    Raises:
        InputError: nothing in it depends on w.
    """
    if not run.model.conditioning.is_conditioned or run.settings["training"].get("weights") is not None:
        raise InputError("the run was trained for one w; expected a run for all weightings, which rounds sample at")
