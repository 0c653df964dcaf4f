"""Preferences over responses: groups (a prompt with n responses) and their labels.

A group may lack labels for some objectives, or for some of its responses; it then has no effect on them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hyperdpo.alignment.data.cells import Prompt, RowError
from hyperdpo.alignment.data.questions import question_of, same_questions
from hyperdpo.data.splits import split_groups
from hyperdpo.errors import InputError, counted

#: How a split tells prompts apart, and how files are read. 1: by the whole prompt, as runs without a version did; 2: by
#: the question.
VERSION = 2


@dataclass(frozen=True)
class PreferenceGroup:
    """A prompt with its responses.

    Raises:
        InputError: without a place; an empty text, fewer than 2 responses, another number of labels, an infinite label.
    """

    prompt: Prompt
    """A text, or the messages of a conversation."""
    completions: tuple[str, ...]
    """n >= 2 texts; for a conversation the assistant's."""
    labels: dict[str, tuple[float, ...]]
    """Objective -> n values, NaN for a response without a label; an objective may be absent."""
    place: str = field(default="", compare=False)
    """Where it came from (file and line, or row), for messages."""
    question: str = field(default="", compare=False)
    """The first user turn with single spaces: groups that share it are never on two sides of a split."""
    guessed: bool = field(default=False, compare=False)
    """Whether the prompt is the common beginning of two texts; it may then hold the first words of both responses."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RowError("the prompt is empty; expected a text or a conversation", "an empty prompt")
        n = len(self.completions)
        if n < 2:
            few = counted(n, "response")
            raise RowError(f"found {few}; expected at least 2", f"{few} only")
        for position, text in enumerate(self.completions, 1):
            if not text:
                raise RowError(f"response {position} is empty; expected a text", "an empty response")
        for name, values in self.labels.items():
            if len(values) != n:
                numbers = f"{counted(len(values), 'label')} for {counted(n, 'response')}"
                reason = "another number of labels than of responses"
                raise RowError(f"objective {name!r} has {numbers}; expected one for each", reason)
            for position, value in enumerate(values, 1):
                if math.isinf(value):
                    message = f"objective {name!r}, response {position}: label {value}; expected a finite number"
                    raise RowError(message, "a label that is too large or not finite")
        if not self.question:
            object.__setattr__(self, "question", question_of(self.prompt))

    @property
    def prompt_key(self) -> str:
        """A text that is equal for equal prompts only."""
        return prompt_key(self.prompt)


def prompt_key(prompt: Prompt) -> str:
    """A text that is equal for equal prompts only."""
    return f"text {prompt}" if isinstance(prompt, str) else f"messages {json.dumps(prompt, sort_keys=True)}"


@dataclass(frozen=True)
class Reading:
    """How a source was read, and what was left out.

    Attributes:
        layout: name of the layout of the rows.
        rows: rows of the source, usable or not.
        invalid: reason -> (number of rows that cannot be used for it, place of the first).
        single: number of prompts that were left out because they have one response only, and the place of the first.
        repeated: groups whose responses began with the prompt, which was taken off.
        unused: columns that are neither prompt, responses nor labels.
        undecided: pairs in which neither response is preferred; they have no label.
        refusal: the error of the first row that cannot be used; None: all can be.
    """

    layout: str
    rows: int
    invalid: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    single: tuple[int, str] = (0, "")
    repeated: int = 0
    unused: tuple[str, ...] = ()
    undecided: int = 0
    refusal: str | None = None


@dataclass(frozen=True)
class Preferences:
    """A data set, or a part of one."""

    groups: tuple[PreferenceGroup, ...]
    objectives: tuple[str, ...]
    source: str
    """Where it came from, for messages."""
    reading: Reading | None = field(default=None, compare=False)
    """How it was read; None for a data set that was made otherwise."""

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, indices: Iterable[int]) -> Preferences:
        """The groups at some positions, in that order."""
        return replace(self, groups=tuple(self.groups[int(i)] for i in indices))

    def split(
        self, fractions: tuple[float, float, float], seed: int, *, version: int = VERSION
    ) -> dict[str, Preferences]:
        """``train``, ``validation`` and ``test``, drawn with the seed; groups that share a question stay together.

        Args:
            version: 1 keeps only groups of the same prompt together, as runs without a version were split.

        Raises:
            InputError: fewer questions than parts.
        """
        numbers: dict[str, int] = {}
        first = [numbers.setdefault(group.prompt_key, len(numbers)) for group in self.groups] if version == 1 else None
        of_group = np.array(self.questions() if first is None else first, dtype=np.int64)
        try:
            parts = split_groups(int(of_group.max(initial=-1)) + 1, fractions, seed)
        except InputError as error:
            raise InputError(f"{self.source}: {error} (groups of the same prompt count once)") from None
        return {name: self.select(np.flatnonzero(np.isin(of_group, part))) for name, part in parts.items()}

    def questions(self) -> list[int]:
        """The number of each group's question, from 0 in the order of first appearance."""
        return same_questions([g.question for g in self.groups], [g.guessed for g in self.groups])

    def place(self, index: int) -> str:
        """Where group ``index`` came from, for messages."""
        return self.groups[index].place or f"{self.source}: group {index + 1}"
