"""Preferences over responses: groups (a prompt with n responses) and their labels.

A group may lack labels for some of the objectives, or for some of its responses: it then has no effect on them.
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

#: How prompts are told apart in a split, and how files are read. 1: by the prompt as it is (runs made before there were
#: versions); 2: by the question.
VERSION = 2


@dataclass(frozen=True)
class PreferenceGroup:
    """A prompt with its responses.

    Raises:
        InputError: without a place; an empty text, fewer than 2 responses, labels of another number, not finite.
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
    """Whether the prompt is the common beginning of two texts, and may go on into what both responses begin with."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RowError("the prompt is empty; expected a text or a conversation", "an empty prompt")
        n = len(self.completions)
        if n < 2:
            raise RowError(
                f"found {n} response{'s' * (n != 1)}; expected at least 2", f"{n} response{'s' * (n != 1)} only"
            )
        for position, text in enumerate(self.completions, 1):
            if not text:
                raise RowError(f"response {position} is empty; expected a text", "an empty response")
        for name, values in self.labels.items():
            if len(values) != n:
                raise RowError(
                    f"objective {name!r} has {counted(len(values), 'label')} for {counted(n, 'response')}; "
                    "expected one for each",
                    "another number of labels than of responses",
                )
            for position, value in enumerate(values, 1):
                if math.isinf(value):
                    raise RowError(
                        f"objective {name!r}, response {position}: label {value}; expected a finite number",
                        "a label that is too large or not finite",
                    )
        if not self.question:
            object.__setattr__(self, "question", question_of(self.prompt))

    @property
    def prompt_key(self) -> str:
        """Equal for equal prompts only."""
        if isinstance(self.prompt, str):
            return f"text {self.prompt}"
        return f"messages {json.dumps(self.prompt, sort_keys=True)}"


@dataclass(frozen=True)
class Reading:
    """What a reader met on its way, beside the groups.

    Attributes:
        layout: name of the layout of the rows.
        rows: rows of the source, usable or not.
        invalid: reason -> (number of rows that were left out for it, place of the first).
        single: prompts that were left out because they have one response only, and the place of the first.
        repeated: groups whose responses repeated the prompt at their beginning, which was taken off.
        unused: columns that are neither prompt, responses nor labels.
        undecided: pairs of which neither response is preferred.
    """

    layout: str
    rows: int
    invalid: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    single: tuple[int, str] = (0, "")
    repeated: int = 0
    unused: tuple[str, ...] = ()
    undecided: int = 0


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
            version: 1 keeps groups of the same prompt together only, as runs without a version were split.

        Raises:
            InputError: fewer questions than parts.
        """
        if version == 1:
            numbers: dict[str, int] = {}
            keys = [numbers.setdefault(group.prompt_key, len(numbers)) for group in self.groups]
        else:
            keys = self.questions()
        of_group = np.array(keys, dtype=np.int64)
        try:
            parts = split_groups(max(keys, default=-1) + 1, fractions, seed)
        except InputError as error:
            raise InputError(f"{self.source}: {error} (groups of the same prompt count once)") from None
        return {name: self.select(np.flatnonzero(np.isin(of_group, part))) for name, part in parts.items()}

    def questions(self) -> list[int]:
        """For each group the number of its question, from 0 in the order of first appearance."""
        return same_questions([g.question for g in self.groups], [g.guessed for g in self.groups])

    def place(self, index: int) -> str:
        """Where group ``index`` came from, for messages."""
        return self.groups[index].place or f"{self.source}: group {index + 1}"
