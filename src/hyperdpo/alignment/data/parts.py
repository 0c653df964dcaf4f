"""One row of preference data as parts of a group, and which of its columns hold the prompt.

Errors have no place; the reader adds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hyperdpo.alignment.data.cells import SHOWN, Prompt, Row, RowError, column, is_blank, is_missing, text_of, turns
from hyperdpo.alignment.data.questions import question_of
from hyperdpo.errors import shown

#: What the one objective of a pair is called where nobody named it.
PAIR_OBJECTIVE = "preferred"
#: The columns that may hold the prompt, in the order in which they are looked for.
PROMPTS = ("prompt", "question", "instruction", "query")
#: The one of them that the column ``input`` continues, as in Alpaca's data.
INSTRUCTION, INPUT = "instruction", "input"
SYSTEM = "system"


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, in all rows of a source.

    Attributes:
        prompt: None where the responses begin with it.
        system: the column with an instruction to the assistant, if a row has one.
        ignored: columns that are not read.
        objectives: the requested ones: the name of the one objective of pairs, or columns of numbers; empty: all
            that are found.
        cut_turns: a text that names its speakers ends, as a prompt, where the last shared turn of the assistant
            begins; otherwise all that two texts begin with is the prompt, as TRL has it.
    """

    prompt: str | None = "prompt"
    system: str | None = SYSTEM
    ignored: frozenset[str] = frozenset()
    objectives: tuple[str, ...] = ()
    cut_turns: bool = True

    @property
    def objective(self) -> str | None:
        """The name of the one objective of pairs, if it was given."""
        return self.objectives[0] if self.objectives else None

    def taken(self) -> tuple[str, ...]:
        """The columns that are read for the prompt."""
        names = [self.prompt, self.system, INPUT if self.prompt == INSTRUCTION else None]
        return tuple(name for name in names if name is not None and name not in self.ignored)

    def read(self, row: Row) -> Prompt | None:
        """The prompt without its system message; None where the row has none.

        Raises:
            InputError: a cell of another form.
        """
        if self.prompt is None:
            return None
        found = None if is_missing(row.get(self.prompt)) else turns(row[self.prompt], self.prompt)
        more = row.get(INPUT) if self.prompt == INSTRUCTION and INPUT not in self.ignored else None
        if is_missing(more) or more == "" or isinstance(found, list):
            return found
        return f"{found}\n{text_of(row, INPUT)}" if found else text_of(row, INPUT)

    def required(self, row: Row) -> Prompt:
        """The prompt without its system message, of a row whose prompt is in a column.

        Raises:
            InputError: the row has no such column, it is empty or of another form.
        """
        name = self.prompt or PROMPTS[0]
        column(row, name)
        prompt = self.read(row)
        if not prompt or (self.cut_turns and is_blank(prompt)):
            message = f"the prompt is empty (column {name!r}); expected a text or a conversation"
            raise RowError(message, "an empty prompt")
        return prompt

    def with_system(self, row: Row, prompt: Prompt) -> Prompt:
        """The prompt, after the row's system message: as a message, or as a paragraph before a text.

        Raises:
            InputError: the conversation already has another one.
        """
        if self.system is None or self.system in self.ignored or is_missing(row.get(self.system)):
            return prompt
        text = text_of(row, self.system)
        if not text.strip():
            return prompt
        if isinstance(prompt, str):
            return f"{text}\n\n{prompt}"
        first = prompt[0] if prompt else {}
        if first.get("role") != "system":
            return [{"role": "system", "content": text}, *prompt]
        if first["content"].strip() != text.strip():
            raise RowError(
                f"column {self.system!r} is {shown(text, SHOWN)}, and the conversation begins with another system "
                "message; expected one of them",
                "two system messages",
            )
        return prompt


#: Columns of rows whose prompt is in ``prompt``.
PLAIN = Columns()
#: As files were read before reading had versions.
FIRST = Columns(system=None, cut_turns=False)


class Parts(NamedTuple):
    """One row, as :class:`hyperdpo.alignment.data.groups.PreferenceGroup` takes it."""

    prompt: Prompt
    completions: tuple[str, ...]
    labels: dict[str, tuple[float, ...] | None]
    """An objective that the row names without a label is None; a response without a label has NaN."""
    question: str = ""
    """The first user turn, without the system message."""
    guessed: bool = False
    """The prompt is only what two texts begin with."""


def parts_of(
    row: Row, columns: Columns, completions: tuple[str, ...], labels: dict[str, tuple[float, ...] | None]
) -> Parts:
    """The parts of a row that has a column for its prompt."""
    prompt = columns.required(row)
    return Parts(columns.with_system(row, prompt), completions, labels, question_of(prompt))
