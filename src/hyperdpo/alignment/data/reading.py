"""Reading: the rows of one source become groups, and what is left out is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from hyperdpo.alignment.data.cells import SHOWN, Prompt, Row, RowError, is_blank, is_unrated, number_in, reason_of
from hyperdpo.alignment.data.columns import LeftOver
from hyperdpo.alignment.data.file_rows import at, refuse, source_rows
from hyperdpo.alignment.data.formats import FORMATS, UNDECIDED, Format, detect_format
from hyperdpo.alignment.data.groups import VERSION, PreferenceGroup, Preferences, Reading, prompt_key
from hyperdpo.alignment.data.parts import FIRST, Columns, Parts
from hyperdpo.alignment.settings import ReadingSettings
from hyperdpo.errors import InputError, shown
from hyperdpo.validation import settings

#: Layouts with one objective, which the user may name.
ONE_OBJECTIVE = ("pairs", "helpsteer3", "helpsteer2")
#: A prompt of so many words counts as repeated wherever all responses begin with it; a shorter one only where at least
#: half of a source's prompts are repeated.
_LONG_PROMPT = 3
#: So many consecutive integers, or more, count as the numbers of the rows.
_LEAST_NUMBERED = 5
#: A column is one of numbers if this share of its values are, as in tables of a ranker.
_MOSTLY = 0.9


@settings()
class ReadOptions(ReadingSettings):
    """How a source is read."""

    version: int = VERSION
    """Version of reading; 1 as before there were versions, for runs from then."""


class ReadArguments(TypedDict, total=False):
    """:class:`ReadOptions` as keyword arguments."""

    format: str
    prompt_column: str | None
    ignore_columns: Sequence[str]
    skip_invalid: bool
    version: int


@dataclass
class _Found:
    """A row, or rows with the same prompt, before they are a group."""

    place: str
    parts: Parts
    told: Prompt | None
    """The prompt as it stands in its column."""
    row: Row = field(default_factory=dict)
    """Kept only where its cells are needed again."""


def read_source(source: Any, objectives: Sequence[str] | None, options: ReadOptions) -> Preferences:
    """All groups of a source with all objectives, and what was left out.

    Args:
        objectives: the requested ones: the name of the one objective of pairs, and columns that are objectives
            whatever their names say.

    Raises:
        InputError: with the file and line or the row; a row that cannot be used, no rows, a column that could be part
            of the prompt.
    """
    return _Reader(objectives, options).read(source)


class _Reader:
    def __init__(self, objectives: Sequence[str] | None, options: ReadOptions):
        self.options, self.objectives = options, tuple(objectives or ())
        self.invalid: dict[str, tuple[int, str]] = {}
        self.refusal: str | None = None
        self.rows = 0
        self.columns: Columns = replace(
            FIRST if options.version == 1 else Columns(),
            ignored=frozenset(options.ignore_columns),
            objectives=self.objectives,
        )
        self.format: Format | None = None
        self.layout: str = options.format

    def read(self, source: Any) -> Preferences:
        name, rows = source_rows(source, self._invalid)
        found: list[_Found] = []
        met: dict[str, None] = {}
        seen: set[str] = set()
        left: LeftOver | None = None
        for place, row in rows:
            self.rows += 1
            seen.update(row)
            try:
                form = self._settle(row)
            except InputError as error:  # about all rows
                raise InputError(f"{place}: {error}") from None
            if left is None:
                known = (*form.columns, *form.one_of, *form.also, *self.columns.taken())
                left = LeftOver(known, self.options.ignore_columns)
            try:
                parts = form.convert(row, self.columns)
                left.see(row, parts.labels if form.by_prompt else (), parts.question)
                told = self.columns.read(row)
                if self.options.version > 1:
                    _check_texts(parts)
                if not form.by_prompt:
                    self._group(place, parts)
            except InputError as error:
                self._invalid(place, error, counted=True)
                continue
            met.update(dict.fromkeys(parts.labels))
            found.append(_Found(place, parts, told, row if form.by_prompt else {}))
        for column in self.options.ignore_columns:
            if self.rows and column not in seen:
                raise InputError(f"{name}: no column {column!r}, which --ignore-columns names")
        unused = left.names(name) if left is not None and self.options.version > 1 else ()
        single = (0, "")
        if self.format is not None and self.format.by_prompt:
            found, dropped = self._numeric(found, tuple(met))
            met = {one: None for one in met if one not in dropped}
            unused = tuple(one for one in dict.fromkeys((*unused, *dropped)) if one not in met)
            found, single = self._together(found, tuple(met))
        repeated = self._without_repeats(found) if self.options.version > 1 else 0
        groups = self._groups(found)
        if not groups:
            left_out = [f"{count:,} x {reason}, first: {place}" for reason, (count, place) in self.invalid.items()]
            left_out += [f"{single[0]:,} prompts with one response only"] if single[0] else []
            why = f"no rows that can be used ({'; '.join(left_out)})" if left_out else "no rows"
            raise InputError(f"{name}: {why}; expected at least one")
        undecided = sum(not group.labels for group in groups) if self.layout in UNDECIDED else 0
        reading = Reading(self.layout, self.rows, self.invalid, single, repeated, unused, undecided, self.refusal)
        return Preferences(tuple(groups), tuple(met), name, reading)

    def _invalid(self, place: str, error: InputError, counted: bool = False) -> None:
        if not self.options.skip_invalid:
            refuse(place, error)
        self.refusal = self.refusal or at(place, error)
        self.rows += not counted
        count, first = self.invalid.get(reason_of(error), (0, place))
        self.invalid[reason_of(error)] = (count + 1, first)

    def _settle(self, row: Row) -> Format:
        """The layout and the columns, by the first row."""
        if self.format is not None:
            return self.format
        options = self.options
        if self.layout == "auto":
            self.layout = detect_format(row, options.prompt_column, self.columns.ignored)
        form = FORMATS[self.layout]
        if self.layout in ONE_OBJECTIVE and len(self.objectives) > 1:
            raise InputError(
                f"{self.layout} carry one objective, {len(self.objectives)} are asked for; "
                "expected one data set per objective (merge_pairs)"
            )
        if options.version > 1:
            self.columns = form.resolved(row, self.columns, options.prompt_column)
        self.format = form
        return form

    def _numeric(self, found: list[_Found], names: tuple[str, ...]) -> tuple[list[_Found], tuple[str, ...]]:
        """Rows without wrong cells in the columns of numbers, and the columns that are no objectives after all.

        If at least :data:`_MOSTLY` of a column's values are numbers, or the column is asked for, other values make a
        row invalid. Otherwise the column is no objective; nor is one that only numbers the rows.
        """
        dropped = []
        bad: dict[int, RowError] = {}
        for name in names:
            cells = [one.row.get(name) for one in found]
            numbers = [value for value in map(number_in, cells) if value is not None]
            other = [k for k, cell in enumerate(cells) if number_in(cell) is None and not is_unrated(cell)]
            mostly = len(numbers) >= _MOSTLY * (len(numbers) + len(other))
            if name not in self.objectives and (not mostly or _numbers_rows(numbers)):
                dropped.append(name)
                continue
            for k in other:
                message = (
                    f"column {name!r} is {shown(cells[k], SHOWN)}, and {len(numbers):,} of its "
                    f"{len(numbers) + len(other):,} values are numbers; expected a number or null, or "
                    f"--ignore-columns {name}"
                )
                bad.setdefault(k, RowError(message, f"column {name!r} is no number"))
        for k, error in sorted(bad.items()):
            self._invalid(found[k].place, error, counted=True)
        return [one for k, one in enumerate(found) if k not in bad], tuple(dropped)

    def _together(self, found: list[_Found], names: tuple[str, ...]) -> tuple[list[_Found], tuple[int, str]]:
        """One group for each prompt, in the order of first appearance; prompts with one response are counted."""
        by_prompt: dict[str, list[_Found]] = {}
        for one in found:
            by_prompt.setdefault(prompt_key(one.parts.prompt), []).append(one)
        groups = []
        single, first = 0, ""
        for rows in by_prompt.values():
            if len(rows) == 1:
                single, first = single + 1, first or rows[0].place
                continue
            labels = {name: tuple((one.parts.labels.get(name) or (float("nan"),))[0] for one in rows) for name in names}
            texts = tuple(one.parts.completions[0] for one in rows)
            groups.append(replace(rows[0], parts=rows[0].parts._replace(completions=texts, labels=dict(labels))))
        return groups, (single, first)

    def _without_repeats(self, found: list[_Found]) -> int:
        """Remove the prompt from the beginning of responses that all repeat it; the number of such groups."""
        told = [one.told if isinstance(one.told, str) and isinstance(one.parts.prompt, str) else None for one in found]
        texts = [
            None if prompt is None else _unrepeated(prompt, one.parts.completions)
            for prompt, one in zip(told, found, strict=True)
        ]
        most = 2 * sum(text is not None for text in texts) >= sum(prompt is not None for prompt in told)
        repeated = 0
        for one, prompt, rest in zip(found, told, texts, strict=True):
            if rest is not None and (most or len(str(prompt).split()) >= _LONG_PROMPT):
                one.parts = one.parts._replace(completions=rest)
                repeated += 1
        return repeated

    def _groups(self, found: list[_Found]) -> list[PreferenceGroup]:
        groups = []
        for one in found:
            try:
                groups.append(self._group(one.place, one.parts))
            except InputError as error:
                self._invalid(one.place, error, counted=True)
        return groups

    def _group(self, place: str, parts: Parts) -> PreferenceGroup:
        n = len(parts.completions)
        if self.options.version > 1 and n > 1 and len(set(parts.completions)) == 1:
            message = f"all {n} responses are the same; expected different ones"
            raise RowError(message, "all responses are the same")
        labels = {name: values for name, values in parts.labels.items() if values is not None and _known(values)}
        return PreferenceGroup(parts.prompt, parts.completions, labels, place, parts.question, parts.guessed)


def _known(values: tuple[float, ...]) -> bool:
    """Whether there is a label. An empty list counts: its length is wrong, and it is refused later."""
    return not values or any(value == value for value in values)


def _check_texts(parts: Parts) -> None:
    """Refuse texts that cannot be encoded, and empty ones."""
    prompt = parts.prompt if isinstance(parts.prompt, str) else "".join(m["role"] + m["content"] for m in parts.prompt)
    texts = [("the prompt", prompt), *((f"response {k}", text) for k, text in enumerate(parts.completions, 1))]
    for name, text in [*texts, *(("an objective's name", name) for name in parts.labels)]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowError(
                f"{name} has the character {shown(text[error.start], SHOWN)}, half of a surrogate pair, which is no "
                "text; expected Unicode",
                "a text with half of a surrogate pair",
            ) from None
    if is_blank(parts.prompt):
        raise RowError("the prompt is empty; expected a text or a conversation", "an empty prompt")
    for position, text in enumerate(parts.completions, 1):
        if not text.strip():
            raise RowError(f"response {position} is empty; expected a text", "an empty response")


def _unrepeated(prompt: str, completions: tuple[str, ...]) -> tuple[str, ...] | None:
    """The responses without the prompt; None unless all begin with it and continue after it."""
    start = prompt if all(text.startswith(prompt) for text in completions) else prompt.rstrip()
    if not start.strip() or not all(text.startswith(start) for text in completions):
        return None
    rest = tuple(text[len(start) :] for text in completions)
    if any(start[-1].isalnum() and text[:1].isalnum() for text in rest) or not all(text.strip() for text in rest):
        return None
    return rest if start == prompt else tuple(text.lstrip() for text in rest)


def _numbers_rows(values: Sequence[Any]) -> bool:
    """Whether values are different consecutive integers, in any order."""
    if len(values) < _LEAST_NUMBERED or any(value != int(value) for value in values):
        return False
    return len(set(values)) == len(values) == max(values) - min(values) + 1


def notes(preferences: Preferences) -> list[str]:
    """Notes for the user on how a source was read, a line each."""
    reading = preferences.reading
    if reading is None:
        return []
    groups, (single, place) = f"{len(preferences):,}", reading.single
    found = [
        f"left out {count:,} of {reading.rows:,} rows: {reason} (first: {first})"
        for reason, (count, first) in reading.invalid.items()
    ]
    if single:
        found.append(f"left out {single:,} prompts with one response only (first: {place})")
    if reading.repeated:
        begin = f"the responses of {reading.repeated:,} of {groups} groups begin with the prompt"
        found.append(f"{begin}, which was taken off")
    if reading.undecided:
        found.append(f"{reading.undecided:,} of {groups} pairs have no label: no response is preferred")
    if reading.unused:
        found.append(f"columns that are not used: {', '.join(reading.unused)}")
    return [f"{preferences.source}: {one}" for one in found]


def merged(readings: Sequence[Reading]) -> Reading:
    """The readings of several files of one part, as one."""
    invalid: dict[str, tuple[int, str]] = {}
    for one in readings:
        for reason, (count, first) in one.invalid.items():
            before, place = invalid.get(reason, (0, first))
            invalid[reason] = (before + count, place)
    return Reading(
        readings[0].layout,
        sum(one.rows for one in readings),
        invalid,
        (sum(one.single[0] for one in readings), next((one.single[1] for one in readings if one.single[0]), "")),
        sum(one.repeated for one in readings),
        tuple(dict.fromkeys(name for one in readings for name in one.unused)),
        sum(one.undecided for one in readings),
        next((one.refusal for one in readings if one.refusal), None),
    )
