"""What preference data hold, and what a training would refuse, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from hyperdpo.alignment.data.groups import Preferences, Reading
from hyperdpo.alignment.data.preferences import part_sources, read_part
from hyperdpo.alignment.data.reading import ReadArguments, ReadOptions
from hyperdpo.alignment.data.targets import LabelCounts, default_objectives, fit_objectives, label_counts, to_targets
from hyperdpo.errors import InputError, counted
from hyperdpo.objectives import Label, Objective
from hyperdpo.validation import parsed


@dataclass(frozen=True, kw_only=True)
class PreferenceReport(Reading):
    """How a source was read, and what its groups hold.

    Attributes:
        source: its name.
        groups: number of groups that can be trained on.
        questions: number of different first user turns, which a split tells apart.
        conversations: number of groups whose prompt is a list of messages.
        responses: number of responses -> number of groups that have so many.
        labels: objective -> how many groups have labels, in how many they vary, how many responses lack one.
        refusal: why a training would refuse the data; None if it would not.
    """

    source: str
    groups: int
    questions: int
    conversations: int
    responses: Mapping[int, int]
    labels: Mapping[str, LabelCounts]

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
        if self.single[0]:
            found.append(f"prompts with one response only, left out: {self.single[0]:,}")
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
        InputError: a file that cannot be read, an unknown layout, no row that can be used, a column that could be part
            of the prompt.
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
    """The report of a file (under ``all``) or of each part of a directory; refusals are about rows only.

    Args:
        objectives: columns to read; None: all.
        labels: the labels of a configuration; None: all that the data have.

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
    """A report that does not judge the labels, and the groups that can be used."""
    found = read_part(source, objectives, replace(options, skip_invalid=True))
    reading = found.reading
    assert reading is not None
    if options.skip_invalid:
        reading = replace(reading, refusal=None)
    counts = [Label(name=name) for name in found.objectives] if labels is None else labels
    report = PreferenceReport(
        **vars(reading),
        source=found.source,
        groups=len(found),
        questions=len(set(found.questions())),
        conversations=sum(not isinstance(group.prompt, str) for group in found.groups),
        responses=dict(Counter(len(group.completions) for group in found.groups)),
        labels={label.name: label_counts(found, label) for label in counts},
    )
    return report, found


def label_lines(preferences: Preferences, objectives: Sequence[Objective]) -> list[str]:
    """For each objective a line that says in how many groups its label varies."""
    return [_label_line(o.name, label_counts(preferences, o), len(preferences)) for o in objectives]


def _label_line(name: str, counts: LabelCounts, groups: int) -> str:
    line = f"objective {name}: the label varies in {counts.varying:,} of {groups:,} groups"
    if counts.labelled < groups:
        line += f", {counts.labelled:,} have labels"
    return line + (f", {counts.missing:,} responses have none" if counts.missing else "")
