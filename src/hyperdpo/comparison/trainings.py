"""The one place where a comparison finds a finished training or trains it: each job once, for all methods that need it.

A finished training is kept on disk and never run again; an unfinished one resumes from its checkpoint. What differs
between rankers and language models is in the subclasses of :class:`Trainings`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.methods import METHODS, Fixed, Job, Margin, Recipe, jobs_of

M = TypeVar("M", covariant=True)


@dataclass(frozen=True)
class Trained(Generic[M]):
    """A finished training.

    Attributes:
        name: of the training; it tells job, settings and data apart.
        model: ready to answer.
        parameters: how many the training changes.
        seconds: that the training took, interruptions left out.
        epochs: that it ran; None for trees.
        epochs_allowed: the most that it could have run.
        steps: of the optimiser, of a language model; None where they were not counted.
        processor_seconds: of all threads; None where they were not counted.
    """

    name: str
    model: M
    parameters: int
    seconds: float
    epochs: float | None = None
    epochs_allowed: float | None = None
    steps: int | None = None
    processor_seconds: float | None = None


@dataclass(frozen=True)
class Training(Generic[M]):
    """What the application supplies of one job.

    Attributes:
        name: tells job, settings and data apart; part of the name of its file.
        load: reads the finished training; None where there is none.
        train: trains it now, or resumes it if it was interrupted, and writes it.
    """

    name: str
    load: Callable[[], Trained[M] | None]
    train: Callable[[], Trained[M]]

    def result(self) -> Trained[M]:
        """The finished training, from its file or trained now."""
        return self.load() or self.train()


class Trainings(ABC, Generic[M]):
    """The trainings of one repeat: one seed on one split."""

    def __init__(self) -> None:
        self._finished: dict[str, Trained[M]] = {}

    @abstractmethod
    def training(self, job: Job, entry: Entry) -> Training[M]:
        """How a job is trained with the settings of an entry."""

    def trained(self, job: Job, entry: Entry) -> Trained[M]:
        """The result of a job: from memory, from its file, or by training it now."""
        training = self.training(job, entry)
        if training.name not in self._finished:
            self._finished[training.name] = training.result()
        return self._finished[training.name]

    def all_trained(self, entry: Entry, weights: np.ndarray) -> list[Trained[M]]:
        """Every training that an entry needs to answer at (P, m) weights."""
        return [self.trained(job, entry) for job in jobs_of(self.recipes(entry, weights))]

    def recipes(self, entry: Entry, weights: np.ndarray) -> list[Recipe]:
        """What answers at (P, m) weights."""
        return METHODS[entry.method](weights)


def cost(trained: Sequence[Trained[Any]]) -> dict[str, Any]:
    """What the trainings of an entry cost together."""
    return {
        "train_seconds": sum(one.seconds for one in trained),
        "models": len(trained),
        "parameters": sum(one.parameters for one in trained),
    }


def step_costs(trained: Sequence[Trained[Any]]) -> dict[str, Any]:
    """Steps of the optimiser, and what one takes: seconds, and those of the processor; None where one was not counted.

    Seconds of the processor do not depend on what else runs on the machine.
    """
    steps = _sum([one.steps for one in trained])
    processor = _sum([one.processor_seconds for one in trained])
    return {
        "steps": steps,
        "step_seconds": sum(one.seconds for one in trained) / steps if steps else None,
        "step_processor_seconds": processor / steps if steps and processor is not None else None,
    }


def _sum(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(value for value in values if value is not None)


def with_margin(job: Margin, base: np.ndarray, scores: Callable[[Fixed], np.ndarray]) -> np.ndarray:
    """(N,) base scores with the margin of Eq. (18) in them.

        beta_i r = (beta_i / w_i) (s - [s_base + sum_{j != i} w_j (s_j - s_base)])

    So it is a single-objective fine-tuning from the base in brackets, at temperature beta_i / w_i.

    Args:
        base: s_base, (N,).
        scores: s_j of an expert, (N,).
    """
    exact = base.astype(np.float64)
    margin = np.zeros_like(exact)
    for j, expert in enumerate(job.experts):
        if j != job.objective and job.weights[j] > 0:
            margin += job.weights[j] * (scores(expert) - exact)
    return (exact + margin).astype(np.float32)


def margin_beta(job: Margin, betas: Sequence[float]) -> float:
    """beta_i / w_i, the temperature that goes with :func:`with_margin`."""
    return betas[job.objective] / job.weights[job.objective]
