"""Preferences over responses: groups (a prompt with n responses), their labels, and what is trained on, their targets.

Read from files or objects (:mod:`hyperdpo.alignment.formats` says in which forms). A group may lack labels for some of
the objectives: it then says nothing about them, and still counts for the others.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperdpo.alignment import formats
from hyperdpo.alignment.formats import FORMATS, PAIR_OBJECTIVE, SUFFIXES, Parts, Prompt, Row
from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.data.splits import SPLIT_FILES, split_groups
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective


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
    """Objective -> n values; an objective that is absent says nothing about this group."""
    place: str = field(default="", compare=False)
    """Where it came from (file and line, or row), for messages."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("the prompt is empty; expected a text or a conversation")
        n = len(self.completions)
        if n < 2:
            raise InputError(f"found {n} response{'s' * (n != 1)}; expected at least 2")
        for position, text in enumerate(self.completions, 1):
            if not text:
                raise InputError(f"response {position} is empty; expected a text")
        for name, values in self.labels.items():
            if len(values) != n:
                raise InputError(
                    f"objective {name!r} has {len(values)} labels for {n} responses; expected one for each"
                )
            for position, value in enumerate(values, 1):
                if not math.isfinite(value):
                    raise InputError(
                        f"objective {name!r}, response {position}: label {value}; expected a finite number"
                    )

    @property
    def prompt_key(self) -> str:
        """Equal for equal prompts only."""
        if isinstance(self.prompt, str):
            return f"text {self.prompt}"
        return f"messages {json.dumps(self.prompt, sort_keys=True)}"


@dataclass(frozen=True)
class Preferences:
    """A data set, or a part of one."""

    groups: tuple[PreferenceGroup, ...]
    objectives: tuple[str, ...]
    source: str
    """Where it came from, for messages."""

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, indices: Iterable[int]) -> Preferences:
        """The groups at some positions, in that order."""
        return replace(self, groups=tuple(self.groups[int(i)] for i in indices))

    def split(self, fractions: tuple[float, float, float], seed: int) -> dict[str, Preferences]:
        """``train``, ``validation`` and ``test``, drawn with the seed; groups with the same prompt stay together.

        Raises:
            InputError: fewer prompts than parts.
        """
        numbers: dict[str, int] = {}
        of_group = np.array(
            [numbers.setdefault(group.prompt_key, len(numbers)) for group in self.groups], dtype=np.int64
        )
        try:
            parts = split_groups(len(numbers), fractions, seed)
        except InputError as error:
            raise InputError(f"{self.source}: {error} (groups of the same prompt count once)") from None
        return {name: self.select(np.flatnonzero(np.isin(of_group, part))) for name, part in parts.items()}

    def place(self, index: int) -> str:
        """Where group ``index`` came from, for messages."""
        return self.groups[index].place or f"{self.source}: group {index + 1}"


# Reading --------------------------------------------------------------------------------------------------------------


def read_preferences(source: Any, *, objectives: Sequence[str] | None = None, format: str = "auto") -> Preferences:
    """One data set.

    Args:
        source: path of a ``.jsonl``, ``.jsonl.gz``, ``.json`` or ``.parquet`` file, a ``datasets`` object, a data
            frame, or a list of mappings.
        objectives: which to keep, in this order; None: all, in the order in which they are met. Pairs carry no name:
            it names their one objective, ``preferred`` if left out.
        format: a name in :data:`hyperdpo.alignment.formats.FORMATS`, or ``auto``: by the first row's columns.

    Raises:
        InputError: with the file and line or the row; a row that cannot be used, no rows, an objective that is unknown
            or has no label at all.
    """
    if format not in ("auto", *FORMATS):
        raise InputError(f"format {format!r}; expected auto, {', '.join(FORMATS)}")
    if objectives is not None and (
        isinstance(objectives, str) or not objectives or len(set(objectives)) < len(objectives)
    ):
        raise InputError(f"objectives {objectives!r}; expected a list of distinct names")
    name, rows = formats.source_rows(source)
    convert = None if format == "auto" else _converter(format, objectives)
    groups: list[PreferenceGroup] = []
    met: dict[str, None] = {}
    for place, row in rows:
        try:
            if convert is None:
                convert = _converter(formats.detect_format(row), objectives)
            parts = convert(row)
            labels = {objective: values for objective, values in parts.labels.items() if values is not None}
            group = PreferenceGroup(parts.prompt, parts.completions, labels, place)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        met.update(dict.fromkeys(parts.labels))
        groups.append(group)
    if not groups:
        raise InputError(f"{name}: no rows; expected at least one")
    return _with_objectives(Preferences(tuple(groups), tuple(met), name), objectives)


def read_splits(
    source: Any, *, objectives: Sequence[str] | None = None, format: str = "auto"
) -> dict[str, Preferences]:
    """The parts of a data set that comes in parts: ``train`` and, if there, ``validation`` and ``test``.

    Args:
        source: directory of files (``train.jsonl``, ``validation.parquet``, ..., or shards such as
            ``train-00000-of-00002.parquet``), directory that ``datasets`` saved, or mapping of names to data sets (a
            DatasetDict).
        objectives, format: as in :func:`read_preferences`; all parts have the training part's objectives.

    Raises:
        InputError: no training part, or a part that cannot be read.
    """
    if isinstance(source, str | Path):
        directory = Path(source)
        if not directory.is_dir():
            raise InputError(f"{directory}: not a directory; expected one with a train file")
        sources: Mapping[str, Any] = _part_files(directory)
        name = str(directory)
    elif isinstance(source, Mapping):
        sources, name = source, "splits"
    else:
        raise InputError(
            f"splits: found {type(source).__name__}; expected a directory or a mapping of names to data sets"
        )
    found = {part: sources[n] for part, names in SPLIT_FILES.items() for n in names if n in sources}
    if "train" not in found:
        parts = ", ".join(map(str, sources)) or "none"
        raise InputError(f"{name}: found the parts {parts}; expected train, and perhaps validation and test")
    train = _read_part(found.pop("train"), objectives, format)
    names = objectives or train.objectives
    return {"train": train, **{part: _read_part(one, names, format) for part, one in found.items()}}


def merge_pairs(sources: Mapping[str, Any]) -> Preferences:
    """TRL preference sets, one per objective, as one data set.

    The same prompt with the same two responses is one group, whatever the order and whoever prefers which. A pair that
    some objectives do not cover lacks their labels. A pair that one objective has twice is two groups.

    Args:
        sources: objective -> what :func:`read_preferences` takes, in the ``pairs`` form.

    Raises:
        InputError: as :func:`read_preferences`.
    """
    if not sources:
        raise InputError("merge_pairs: no data set; expected one per objective")
    groups: list[PreferenceGroup] = []
    places: dict[tuple[str, ...], list[int]] = {}
    names = []
    for objective, source in sources.items():
        read = read_preferences(source, objectives=[objective], format="pairs")
        names.append(read.source)
        for group in read.groups:
            positions = places.setdefault((group.prompt_key, *sorted(group.completions)), [])
            free = next((p for p in positions if objective not in groups[p].labels), None)
            if free is None:
                positions.append(len(groups))
                groups.append(group)
                continue
            there, values = groups[free], group.labels[objective]
            if there.completions != group.completions:
                values = values[::-1]
            groups[free] = replace(there, labels={**there.labels, objective: values})
    return Preferences(tuple(groups), tuple(sources), ", ".join(dict.fromkeys(names)))


def write_preferences(preferences: Preferences, path: Path) -> None:
    """One JSON object per line (``.jsonl`` or ``.jsonl.gz``), in the form ``groups``; complete or not at all.

    Raises:
        InputError: another ending.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: expected a name that ends in .jsonl or .jsonl.gz")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with gzip.open(temporary, "wt") if path.suffix == ".gz" else open(temporary, "w", encoding="utf-8") as file:
        for group in preferences.groups:
            labels = {name: list(group.labels[name]) for name in preferences.objectives if name in group.labels}
            row = {"prompt": group.prompt, "completions": list(group.completions), "labels": labels}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    temporary.replace(path)


def _converter(format: str, objectives: Sequence[str] | None) -> Callable[[Row], Parts]:
    if format == "pairs":
        if objectives is not None and len(objectives) > 1:
            raise InputError(
                f"pairs carry one objective, {len(objectives)} are asked for; "
                "expected one data set per objective (merge_pairs)"
            )
        return partial(formats.from_pair, objective=objectives[0] if objectives else PAIR_OBJECTIVE)
    return FORMATS[format].convert


def _with_objectives(preferences: Preferences, objectives: Sequence[str] | None) -> Preferences:
    """With these objectives only, each of which has a label."""
    known = preferences.objectives
    wanted = known if objectives is None else tuple(objectives)
    if not wanted:
        raise InputError(
            f"{preferences.source}: no objective in any of {len(preferences):,} groups; expected at least one"
        )
    for name in wanted:
        if name not in known:
            raise InputError(
                f"{preferences.source}: no objective {name!r}; the objectives are {', '.join(known) or 'none'}"
            )
        if not any(name in group.labels for group in preferences.groups):
            raise InputError(
                f"{preferences.source}: objective {name!r} has no label in any of {len(preferences):,} groups; "
                "expected some, or a list of objectives without it"
            )
    groups = preferences.groups
    if objectives is not None:
        groups = tuple(replace(g, labels={o: g.labels[o] for o in wanted if o in g.labels}) for g in groups)
    return replace(preferences, groups=groups, objectives=wanted)


def _read_part(source: Any, objectives: Sequence[str] | None, format: str) -> Preferences:
    """One part; a list of files are its shards."""
    if not isinstance(source, list) or not all(isinstance(one, Path) for one in source):
        return read_preferences(source, objectives=objectives, format=format)
    shards = [read_preferences(path, objectives=objectives, format=format) for path in source]
    groups = tuple(group for shard in shards for group in shard.groups)
    names = dict.fromkeys(name for shard in shards for name in shard.objectives)
    return Preferences(groups, tuple(names), shards[0].source)


def _part_files(directory: Path) -> Mapping[str, Any]:
    """Name of a part -> its files, or its data set."""
    if (directory / "dataset_dict.json").is_file() or (directory / "dataset_info.json").is_file():
        import datasets  # type: ignore[import-untyped]

        saved = datasets.load_from_disk(directory)
        return saved if isinstance(saved, Mapping) else {"train": saved}
    found: dict[str, Any] = {}
    for name in (name for names in SPLIT_FILES.values() for name in names):
        for suffix in SUFFIXES:
            files = [p for p in (directory / f"{name}{suffix}",) if p.is_file()]
            files = files or sorted(directory.glob(f"{name}-*-of-*{suffix}"))
            if files:
                found[name] = files
                break
    return found


# Targets --------------------------------------------------------------------------------------------------------------


def default_objectives(preferences: Preferences) -> tuple[Objective, ...]:
    """An objective per name: labels of 0 and 1 give l1 targets, others softmax targets of standardised values."""
    chosen = []
    for name in preferences.objectives:
        values = _values(preferences, name)[0]
        binary = bool(np.isin(values, (0.0, 1.0)).all())
        chosen.append(Objective(name=name, target="l1" if binary else "softmax"))
    return tuple(chosen)


def fit_objectives(preferences: Preferences, objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The objectives with their transforms fitted; ``preferences`` is the training part.

    Raises:
        InputError: an objective's column is not among the labels, or no group has a label of it.
    """
    fitted = []
    for objective in objectives:
        values = _values(preferences, objective.column)[0]
        if not len(values):
            raise InputError(
                f"{preferences.source}: no training group has a label for objective {objective.name!r}; "
                "expected at least one"
            )
        fitted.append(objective.fitted(values))
    return tuple(fitted)  # type: ignore[arg-type]


def to_targets(preferences: Preferences, objectives: Sequence[Objective]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Targets t(z) of every group, as for ranking (:mod:`hyperdpo.core.targets`).

    Args:
        objectives: m fitted ones (:func:`fit_objectives`); ``column`` names the labels.

    Returns:
        Per group: targets (m, n) float32, which sum to 1 over the responses where there is a signal and are 0
        elsewhere; signal (m,) bool, False where the group says nothing about an objective.

    Raises:
        InputError: an unknown column, an objective that is not fitted, or (with its place) a negative label for l1 or
            log1p.
    """
    m = len(objectives)
    found = [(np.zeros((m, len(g.completions)), np.float32), np.zeros(m, bool)) for g in preferences.groups]
    for j, objective in enumerate(objectives):
        values, positions, sizes = _values(preferences, objective.column)
        gains = objective.gains(values)
        if objective.target == "l1" or objective.transform == "log1p":
            _reject_negative(preferences, objective, gains, np.repeat(positions, sizes))
        inputs = objective.target_inputs(gains)
        starts = np.cumsum(sizes) - sizes
        for n in np.unique(sizes):  # groups of one size are a block without padding
            which = np.flatnonzero(sizes == n)
            block = torch.from_numpy(inputs[starts[which][:, None] + np.arange(n)])
            everything = torch.ones_like(block, dtype=torch.bool)
            if objective.target == "l1":
                targets, signal = l1_targets(block, everything)
            else:
                targets, signal = softmax_targets(block, everything, objective.target_temperature)
            for position, t, s in zip(positions[which], targets.numpy(), signal.numpy(), strict=True):
                found[position][0][j], found[position][1][j] = t, s
    return found


def _values(preferences: Preferences, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,) float32 of the groups that have them, the positions (g,) of those groups, and their sizes (g,)."""
    if column not in preferences.objectives:
        raise InputError(
            f"{preferences.source}: no objective {column!r}; the objectives are {', '.join(preferences.objectives)}"
        )
    labelled = [(i, group.labels[column]) for i, group in enumerate(preferences.groups) if column in group.labels]
    values = np.array([value for _, labels in labelled for value in labels], dtype=np.float32)
    positions = np.array([i for i, _ in labelled], dtype=np.int64)
    return values, positions, np.array([len(labels) for _, labels in labelled], dtype=np.int64)


def _reject_negative(preferences: Preferences, objective: Objective, gains: np.ndarray, groups: np.ndarray) -> None:
    """For the first negative gain; ``groups`` (N,) are the positions of the groups."""
    bad = np.flatnonzero(gains < 0)
    if len(bad):
        what = "target l1" if objective.target == "l1" else "transform log1p"
        raise InputError(
            f"{preferences.place(int(groups[bad[0]]))}: label {gains[bad[0]]:g} of objective {objective.name!r}; "
            f"expected at least 0 for {what}"
        )
