"""What ``dial.json`` claims, as far as a running server can be compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.errors import InputError, brief
from hyperdpo.serving.export.dial import DIAL, read_dial
from hyperdpo.serving.export.recorded import TABLE_TOLERANCE

#: Weightings whose numbers differ by no more are the same.
SAME = 1e-6


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Objective(_Part):
    """One of w's objectives."""

    name: str
    column: str | None = None
    direction: str = "maximize"


class Adapter(_Part):
    """A file, and its number in requests."""

    id: int = Field(ge=0)
    path: str


class Base(_Part):
    """The base model; of a file that was written elsewhere, nothing may be known."""

    fingerprint: str | None = None
    gguf_origin: dict[str, Any] | None = None


class RecordedPrompt(_Part):
    """A prompt, and the tokens that the model saw."""

    prompt: str | list[dict[str, Any]]
    ids: tuple[int, ...] = Field(min_length=1)


class RecordedAnswer(_Part):
    """A greedy answer of the run, with the log-probabilities of its tokens and of the likeliest other ones."""

    prompt: int = Field(ge=0)
    weights: tuple[float, ...]
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    second: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> RecordedAnswer:
        if not len(self.ids) == len(self.logprobs) == len(self.second):
            raise PydanticCustomError("lengths", "ids, logprobs and second differ in length")
        return self


class Recorded(_Part):
    """Answers to every prompt at every weighting, at scale 1."""

    max_new_tokens: int = Field(ge=1)
    tie: float = Field(ge=0)
    tolerance: float = Field(default=TABLE_TOLERANCE, ge=0)  # of files that were written before it was recorded
    prompts: list[RecordedPrompt] = Field(min_length=1)
    answers: list[RecordedAnswer] = Field(min_length=1)


class Scores(_Part):
    """Mean scores of the recorded answers at each weighting, by objective."""

    scorer: str
    means: list[dict[str, Any]]


class _Dial(_Part):
    objectives: list[Objective] = Field(min_length=1)
    adapters: list[Adapter]
    base: Base
    recorded: Recorded | None
    scores: Scores | None


@dataclass(frozen=True)
class Claims:
    """What a server is compared with. P weightings, m objectives, N prompts.

    Attributes:
        weights: (P, m), in the order of the file.
        answers: N rows of P answers.
        means: (P, m) mean scores of the recorded answers; None: none are recorded.
        tokenizer: the directory of the run's tokenizer, beside ``dial.json``; it may be missing.
    """

    path: Path
    objectives: tuple[Objective, ...]
    adapters: tuple[Adapter, ...]
    base: Base
    recorded: Recorded
    weights: np.ndarray
    answers: tuple[tuple[RecordedAnswer, ...], ...]
    scorer: str | None
    means: np.ndarray | None
    tokenizer: Path

    @property
    def names(self) -> tuple[str, ...]:
        """The m objectives, in the order of the weights."""
        return tuple(one.name for one in self.objectives)

    @property
    def columns(self) -> tuple[str, ...]:
        """What scorers call them."""
        return tuple(one.column or one.name for one in self.objectives)

    @property
    def signs(self) -> np.ndarray:
        """(m,): -1 for an objective that is minimised, else 1."""
        return np.array([-1.0 if one.direction == "minimize" else 1.0 for one in self.objectives])

    @property
    def prompts(self) -> list[Prompt]:
        """The N prompts."""
        return [one.prompt for one in self.recorded.prompts]

    def place_of(self, weights: Sequence[float] | np.ndarray) -> int | None:
        """The weighting's place among the recorded ones; None if it is not one of them."""
        near = np.flatnonzero(np.abs(self.weights - np.asarray(weights)).max(1) <= SAME)
        return int(near[0]) if len(near) else None


def read_claims(path: Path) -> Claims:
    """The claims of a ``dial.json``, or of the one in a directory.

    Raises:
        InputError: it is damaged, no dial, of another version, or records no answers.
    """
    content = read_dial(path)
    place = path / DIAL if path.is_dir() else path
    again = "export the run again"
    try:
        dial = _Dial.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{place}: {where}: {first['msg']}; found {brief(first['input'])}; {again}") from None
    if dial.recorded is None:
        raise InputError(f"{place}: no answers are recorded; export the run again with --prompt TEXT")
    if len(dial.adapters) != len(dial.objectives):
        raise InputError(f"{place}: adapters: found {len(dial.adapters)}; expected {len(dial.objectives)}; {again}")
    found: dict[tuple[float, ...], dict[int, RecordedAnswer]] = {}
    for answer in dial.recorded.answers:
        found.setdefault(answer.weights, {})[answer.prompt] = answer
    numbers, m = range(len(dial.recorded.prompts)), len(dial.objectives)
    for w, of_prompts in found.items():
        if len(w) != m or sorted(of_prompts) != list(numbers):
            raise InputError(
                f"{place}: recorded.answers at weights {brief(w)}; expected {m} weights, and an answer to each of "
                f"{len(numbers)} prompts; {again}"
            )
    means = None if dial.scores is None else _means(dial.scores, [o.name for o in dial.objectives], list(found), place)
    return Claims(
        path=place,
        objectives=tuple(dial.objectives),
        adapters=tuple(dial.adapters),
        base=dial.base,
        recorded=dial.recorded,
        weights=np.array(list(found)),
        answers=tuple(tuple(found[w][n] for w in found) for n in numbers),
        scorer=None if dial.scores is None else dial.scores.scorer,
        means=means,
        tokenizer=place.parent / "tokenizer",
    )


def _means(scores: Scores, names: list[str], weights: list[tuple[float, ...]], place: Path) -> np.ndarray:
    """(P, m), in the order of the weights."""
    try:
        rows = {tuple(row["weights"]): [float(row[name]) for name in names] for row in scores.means}
        return np.array([rows[w] for w in weights])
    except (KeyError, TypeError, ValueError):
        what = "expected a mean of every objective at every recorded weighting"
        raise InputError(f"{place}: scores.means; {what}; export the run again") from None
