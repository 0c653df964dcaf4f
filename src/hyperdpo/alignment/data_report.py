"""What preference data hold and what a training would make of them, said without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperdpo.alignment.data import ReadOptions, read_source_of
from hyperdpo.alignment.groups import Preferences
from hyperdpo.alignment.targets import LabelCounts, label_counts
from hyperdpo.errors import InputError, counted
from hyperdpo.objectives import Objective


@dataclass(frozen=True)
class PreferenceReport:
    """What :func:`describe_preferences` found.

    Attributes:
        source: its name.
        layout: of the rows, a name in :data:`~hyperdpo.alignment.formats.FORMATS`.
        rows: of the source.
        groups: that can be trained on.
        questions: different first user turns among them, which a split tells apart.
        conversations: groups whose prompt is a list of messages.
        responses: number of responses -> number of groups that have so many.
        labels: objective -> how many groups have labels, in how many they vary, how many responses lack one.
        unused: columns that are neither prompt, responses nor labels.
        invalid: reason -> (rows that cannot be used, the place of the first).
        single: prompts with one response only, which are left out.
        repeated: groups whose responses repeat the prompt, which is taken off.
        refusal: why a training would refuse the data; None if it would not.
    """

    source: str
    layout: str
    rows: int
    groups: int
    questions: int
    conversations: int
    responses: Mapping[int, int]
    labels: Mapping[str, LabelCounts]
    unused: tuple[str, ...]
    invalid: Mapping[str, tuple[int, str]]
    single: int
    repeated: int
    refusal: str | None

    def lines(self) -> list[str]:
        """The report, a line each; without the refusal."""
        sizes = ", ".join(f"{count:,} with {n}" for n, count in sorted(self.responses.items()))
        found = [
            f"{self.source}: layout {self.layout}, {counted(self.rows, 'row')}, {counted(self.groups, 'group')} of "
            f"{self.questions:,} different questions",
            f"responses per group: {sizes}",
        ]
        if self.conversations:
            found.append(f"conversations: {self.conversations:,} of {self.groups:,} groups")
        found += [_label_line(name, counts, self.groups) for name, counts in self.labels.items()]
        if self.unused:
            found.append(f"columns that are not used: {', '.join(self.unused)}")
        found += [
            f"rows that cannot be used: {n:,}, {why} (first: {place})" for why, (n, place) in self.invalid.items()
        ]
        if self.single:
            found.append(f"prompts with one response only, left out: {self.single:,}")
        if self.repeated:
            found.append(f"groups whose responses begin with the prompt, which is taken off: {self.repeated:,}")
        return found


def describe_preferences(
    source: Any,
    *,
    objectives: Sequence[str] | None = None,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] = (),
    skip_invalid: bool = False,
) -> PreferenceReport:
    """What a source holds: layout, groups, labels with a signal, and what would be left out or refused.

    Rows that cannot be used are all counted, also where a training would refuse the first of them (``refusal``).

    Args:
        source, objectives, format, prompt_column, ignore_columns, skip_invalid: as of
            :func:`~hyperdpo.alignment.data.read_preferences`.

    Raises:
        InputError: nothing can be said: a file that cannot be read, an unknown layout, no row that can be used, a
            column that could be part of the prompt.
    """
    options = ReadOptions(format, prompt_column, tuple(ignore_columns), skip_invalid=True)
    found = read_source_of(source, objectives, options)
    reading = found.reading
    assert reading is not None
    refusal = None
    if reading.invalid and not skip_invalid:
        try:
            read_source_of(source, objectives, ReadOptions(format, prompt_column, tuple(ignore_columns)))
        except InputError as error:
            refusal = str(error)
    labels = {name: label_counts(found, name) for name in found.objectives}
    if refusal is None:
        flat = next((name for name, counts in labels.items() if not counts.varying), None)
        if flat is not None:
            refusal = (
                f"{found.source}: objective {flat!r} cannot teach anything: its label is the same for all responses of "
                "every group; expected labels that differ within a group, or a list of objectives without it"
            )
    return PreferenceReport(
        source=found.source,
        layout=reading.layout,
        rows=reading.rows,
        groups=len(found),
        questions=len(set(found.questions())),
        conversations=sum(not isinstance(group.prompt, str) for group in found.groups),
        responses=dict(Counter(len(group.completions) for group in found.groups)),
        labels=labels,
        unused=reading.unused,
        invalid=reading.invalid,
        single=reading.single[0],
        repeated=reading.repeated,
        refusal=refusal,
    )


def label_lines(preferences: Preferences, objectives: Sequence[Objective]) -> list[str]:
    """In how many groups the label of each objective varies, a line each."""
    return [_label_line(o.name, label_counts(preferences, o.column), len(preferences)) for o in objectives]


def _label_line(name: str, counts: LabelCounts, groups: int) -> str:
    line = f"objective {name}: the label varies in {counts.varying:,} of {groups:,} groups"
    if counts.labelled < groups:
        line += f", {counts.labelled:,} have labels"
    return line + (f", {counts.missing:,} responses have none" if counts.missing else "")
