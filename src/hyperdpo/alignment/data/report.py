"""What preference data hold and what a training would make of them, said without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import part_sources, read_part
from hyperdpo.alignment.data.reading import ReadArguments, ReadOptions
from hyperdpo.alignment.data.targets import LabelCounts, default_objectives, fit_objectives, label_counts, to_targets
from hyperdpo.errors import InputError, counted
from hyperdpo.objectives import Label, Objective
from hyperdpo.validation import parsed


@dataclass(frozen=True)
class PreferenceReport:
    """What :func:`describe_preferences` found.

    Attributes:
        source: its name.
        layout: of the rows, a name in :data:`~hyperdpo.alignment.data.formats.FORMATS`.
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
        undecided: pairs of which neither response is preferred, which have no label.
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
    undecided: int
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
        if self.undecided:
            found.append(f"pairs without a label, because neither response is preferred: {self.undecided:,}")
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
    source: Any, *, objectives: Sequence[str] | None = None, **options: Unpack[ReadArguments]
) -> PreferenceReport:
    """What a source holds: layout, groups, labels with a signal, and what would be left out or refused.

    Rows that cannot be used are all counted, also where a training would refuse the first of them (``refusal``).

    Args:
        source, objectives, options: as for :func:`~hyperdpo.alignment.data.preferences.read_preferences`.

    Raises:
        InputError: nothing can be said: a file that cannot be read, an unknown layout, no row that can be used, a
            column that could be part of the prompt.
    """
    report, found = _described(source, objectives, parsed(ReadOptions, options, "describe_preferences"))
    if report.refusal is not None:
        return report
    try:
        to_targets(found, fit_objectives(found, default_objectives(found)))
    except InputError as error:
        return replace(report, refusal=str(error))
    return report


def describe_parts(
    source: Path, objectives: Sequence[str] | None, labels: Sequence[Label] | None, options: ReadOptions
) -> dict[str, PreferenceReport]:
    """What a file (under ``all``) or each part of a directory holds; refusals are about rows only.

    Args:
        objectives: columns to read; None: all.
        labels: those of a configuration; None: as they are in the data.

    Raises:
        InputError: as :func:`describe_preferences`; a directory without a training part.
    """
    sources = part_sources(source) if source.is_dir() else {"all": source}
    reports = {}
    for name, one in sources.items():
        reports[name], found = _described(one, objectives, options, labels)
        objectives = found.objectives  # all parts have the training part's
    return reports


def _described(
    source: Any, objectives: Sequence[str] | None, options: ReadOptions, labels: Sequence[Label] | None = None
) -> tuple[PreferenceReport, Preferences]:
    """A report without what the labels are refused for, and the groups that can be used."""
    found = read_part(source, objectives, replace(options, skip_invalid=True))
    reading = found.reading
    assert reading is not None
    refusal = None
    if reading.invalid and not options.skip_invalid:
        try:
            read_part(source, objectives, options)
        except InputError as error:
            refusal = str(error)
    counted = {name: label_counts(found, name) for name in found.objectives}
    if labels is not None:
        counted = {label.name: label_counts(found, label) for label in labels}
    report = PreferenceReport(
        source=found.source,
        layout=reading.layout,
        rows=reading.rows,
        groups=len(found),
        questions=len(set(found.questions())),
        conversations=sum(not isinstance(group.prompt, str) for group in found.groups),
        responses=dict(Counter(len(group.completions) for group in found.groups)),
        labels=counted,
        unused=reading.unused,
        invalid=reading.invalid,
        single=reading.single[0],
        repeated=reading.repeated,
        undecided=reading.undecided,
        refusal=refusal,
    )
    return report, found


def label_lines(preferences: Preferences, objectives: Sequence[Objective]) -> list[str]:
    """In how many groups the label of each objective varies, a line each."""
    return [_label_line(o.name, label_counts(preferences, o), len(preferences)) for o in objectives]


def _label_line(name: str, counts: LabelCounts, groups: int) -> str:
    line = f"objective {name}: the label varies in {counts.varying:,} of {groups:,} groups"
    if counts.labelled < groups:
        line += f", {counts.labelled:,} have labels"
    return line + (f", {counts.missing:,} responses have none" if counts.missing else "")
