"""Preferences over responses, read from files or objects.

The layouts are in :mod:`hyperdpo.alignment.data.formats`, the groups in :mod:`hyperdpo.alignment.data.groups`, and
their targets in :mod:`hyperdpo.alignment.data.targets`.
"""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from hyperdpo.alignment.data.file_rows import SUFFIXES
from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.data.reading import ReadArguments, ReadOptions, merged, notes, read_source
from hyperdpo.data.splits import SPLIT_FILES
from hyperdpo.errors import InputError
from hyperdpo.files import written
from hyperdpo.validation import parsed


def read_preferences(
    source: Any, *, objectives: Sequence[str] | None = None, **options: Unpack[ReadArguments]
) -> Preferences:
    """One data set; warns of what was left out or is not used.

    Args:
        source: path of a ``.jsonl``, ``.jsonl.gz``, ``.json`` or ``.parquet`` file, a ``datasets`` object, a data
            frame, an Arrow table, or a list of mappings.
        objectives: which to keep, in this order; None: all, in the order in which they are met. Pairs carry no name:
            it names their one objective, ``preferred`` if left out.
        options: the attributes of :class:`~hyperdpo.alignment.data.reading.ReadOptions`.

    Raises:
        InputError: with the file and line or the row; a row that cannot be used, no rows, a column that is not used
            and could be part of the prompt, an objective that is unknown or has no label at all.
    """
    found = read_source_of(source, objectives, parsed(ReadOptions, options, "read_preferences"))
    for note in notes(found):
        warnings.warn(note, stacklevel=2)
    return found


def read_source_of(source: Any, objectives: Sequence[str] | None, options: ReadOptions) -> Preferences:
    """As :func:`read_preferences`, without warnings: what there would be to say is in ``reading``."""
    if objectives is not None and (
        isinstance(objectives, str) or not objectives or len(set(objectives)) < len(objectives)
    ):
        raise InputError(f"objectives {objectives!r}; expected a list of distinct names")
    return _with_objectives(read_source(source, objectives, options), objectives)


def read_splits(
    source: Any, *, objectives: Sequence[str] | None = None, **options: Unpack[ReadArguments]
) -> dict[str, Preferences]:
    """The parts of a data set that comes in parts: ``train`` and, if there, ``validation`` and ``test``.

    Warns as :func:`read_preferences`, and of questions that stand in the training part and in another one.

    Args:
        source: directory of files (``train.jsonl``, ``validation.parquet``, ..., or shards such as
            ``train-00000-of-00002.parquet``), directory that ``datasets`` saved, or mapping of names to data sets (a
            DatasetDict).
        objectives, options: as in :func:`read_preferences`; all parts have the training part's objectives.

    Raises:
        InputError: no training part, or a part that cannot be read.
    """
    found = part_sources(source)
    how = parsed(ReadOptions, options, "read_splits")
    train = read_part(found.pop("train"), objectives, how)
    names = objectives or train.objectives
    read = {"train": train, **{part: read_part(one, names, how) for part, one in found.items()}}
    told = [note for one in read.values() for note in notes(one)]
    told += shared_questions(read)
    for note in told:
        warnings.warn(note, stacklevel=2)
    return read


def part_sources(source: Any) -> dict[str, Any]:
    """The sources of the parts of a data set, as :func:`read_splits` takes it; a list of paths are shards.

    Raises:
        InputError: no directory or mapping, or no training part.
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
    return found


def shared_questions(parts: Mapping[str, Preferences]) -> list[str]:
    """Which parts ask what the training part asks, a line each."""
    questions, told = {group.question for group in parts["train"].groups}, []
    for name, part in parts.items():
        both = sum(group.question in questions for group in part.groups)
        if name != "train" and both:
            told.append(
                f"{part.source}: {both:,} of {len(part):,} {name} groups ask what training groups ask, so they are not "
                "held out"
            )
    return told


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
        InputError: another ending, or a place that cannot be written to.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: expected a name that ends in .jsonl or .jsonl.gz")
    with (
        written(path) as temporary,
        gzip.open(temporary, "wt", encoding="utf-8")
        if path.suffix == ".gz"
        else open(temporary, "w", encoding="utf-8") as file,
    ):
        for group in preferences.groups:
            labels = {
                name: [None if math.isnan(value) else value for value in group.labels[name]]
                for name in preferences.objectives
                if name in group.labels
            }
            row = {"prompt": group.prompt, "completions": list(group.completions), "labels": labels}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _with_objectives(preferences: Preferences, objectives: Sequence[str] | None) -> Preferences:
    """With these objectives only, each of which has a label."""
    known = preferences.objectives
    wanted = known if objectives is None else tuple(objectives)
    if not wanted:
        unused = preferences.reading.unused if preferences.reading is not None else ()
        left = f" (columns that are not used: {', '.join(unused)})" if unused else ""
        raise InputError(
            f"{preferences.source}: no objective in any of {len(preferences):,} groups{left}; expected at least one"
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


def read_part(source: Any, objectives: Sequence[str] | None, options: ReadOptions) -> Preferences:
    """One part, without warnings; a list of files are its shards."""
    if not isinstance(source, list) or not all(isinstance(one, Path) for one in source):
        return read_source_of(source, objectives, options)
    shards = [read_source_of(path, objectives, options) for path in source]
    if len(shards) == 1:
        return shards[0]
    groups = tuple(group for shard in shards for group in shard.groups)
    names = dict.fromkeys(name for shard in shards for name in shard.objectives)
    return Preferences(groups, tuple(names), shards[0].source, merged([s.reading for s in shards if s.reading]))


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
