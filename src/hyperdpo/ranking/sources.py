"""From what a ``rank`` command is given to tables, splits and base scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hyperdpo.data.cache import read_table, table_kind
from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.splits import Part, split_files, split_groups
from hyperdpo.errors import InputError, counted
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.base_scores import BaseSource, base_column, read_scores
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.fitting import split_table
from hyperdpo.ranking.labels import all_labels
from hyperdpo.ranking.run import RankRun


def read(
    path: Path, config: RankConfig, *, origins: Mapping[str, float] | None = None, show: bool = True
) -> GroupedTable:
    """A file as a table; what a user should know of how it was read is given as warnings.

    `origins` are those of the run, or of the training file, that the table is read for. `features_from_zero` says how
    LETOR text is numbered, and nothing about other files: a run may meet both.
    """
    size = path.stat().st_size if path.is_file() else 0
    with progress_bar(f"read {path.name}", size / 1e6, "MB", show=show) as update:
        table = read_table(
            path,
            qid_column=config.qid_column,
            progress=lambda done, _: update(done / 1e6, ""),
            sort=config.sort,
            origins=origins,
            features_from_zero=config.features_from_zero and table_kind(path) == "letor",
        )
    note_reading(table)
    return table


def note_reading(table: GroupedTable) -> None:
    """Warn of what a user should know of how a table was read."""
    for note in table.notes:
        warnings.warn(f"{table.source}: {note}", stacklevel=2)


def note_other_columns(table: GroupedTable, run: RankRun, base_scores: str | None = None) -> None:
    """Say which features of the run a LETOR file does not reach, and which columns the run was not trained with.

    The former count as 0, as all that is absent in LETOR text does. The run's labels and the base scores are not named.

    Args:
        base_scores: the column of the base scores, or their file.

    Raises:
        InputError: a feature of the run is missing.
    """
    names = run.transform.columns
    beyond = table.features_beyond(names)
    if beyond:
        warnings.warn(
            f"{table.source}: no feature above {table.columns[-1]}; {len(beyond)} of the run's {len(names)} features "
            f"({beyond[0]} to {beyond[-1]}) count as 0",
            stacklevel=2,
        )
    others = run.data.get("features_left_out")  # a run of an older version does not say
    if others is None:
        return
    known = {*names, *others, *(label.column for label in all_labels(run.config)), base_scores}
    if extra := [name for name in table.columns if name not in known]:
        warnings.warn(
            f"{table.source}: columns that the run was not trained with, and does not use: {abridged(extra)}",
            stacklevel=2,
        )


def read_parts(
    source: Path, validation: Path | None, test: Path | None, config: RankConfig, *, show: bool
) -> dict[str, Part]:
    """The splits: files of a directory, files given, or parts of one file."""
    files = split_files(source) if source.is_dir() else {"train": source}
    files |= {name: path for name, path in (("validation", validation), ("test", test)) if path is not None}
    _check_numbering(files.values(), config)
    tables = read_alike(files, config, show=show)
    if "validation" in tables:
        return {name: Part.whole(table) for name, table in tables.items()}
    if "test" not in tables:
        return split_table(tables["train"], config)
    # A test file, but no validation file: validation groups come out of the training file.
    split = config.split
    share = split.validation / (split.train + split.validation)
    groups = split_groups(tables["train"].num_groups, (1 - share, share, 0.0), split.seed)
    parts = {name: Part(tables["train"], groups[name]) for name in ("train", "validation") if len(groups[name])}
    return parts | {"test": Part.whole(tables["test"])}


def read_alike(files: Mapping[str, Path], config: RankConfig, *, show: bool = True) -> dict[str, GroupedTable]:
    """The files of a data set that comes in several, the others with the origins of ``train``.

    Raises:
        InputError: validation or test files that hold the training rows.
    """
    train = read(files["train"], config, show=show)
    others = {n: read(path, config, origins=train.origins, show=show) for n, path in files.items() if n != "train"}
    for name, table in others.items():
        if table.fingerprint == train.fingerprint:
            raise InputError(f"{table.source}: the {name} file holds the rows of the training file; expected others")
    return {"train": train, **others}


def _check_numbering(files: Iterable[Path], config: RankConfig) -> None:
    """Refuse a setting that none of the files heeds."""
    if config.features_from_zero and not any(table_kind(path) == "letor" for path in files):
        raise InputError(
            "features_from_zero (--features-from-zero) is for LETOR text, whose features have numbers for names; "
            "leave it out for Parquet and CSV"
        )


def read_data(source: Path, run: RankRun, split: str) -> tuple[GroupedTable, str | None]:
    """The table that a run is measured on, and of a directory the split whose file it is (None for a file)."""
    if not source.is_dir():
        return read(source, run.config, origins=run.origins), None
    files = split_files(source)
    wanted = "test" if split == "auto" else split
    if wanted not in files:
        raise InputError(
            f"{source}: no file for {wanted!r}; found {', '.join(files)}: name one of them (--split or DATA)"
        )
    return read(files[wanted], run.config, origins=run.origins), wanted


def base_of(
    argument: str | None, parts: Mapping[str, Part], qid_column: str = "qid"
) -> tuple[BaseSource, dict[str, np.ndarray] | None]:
    """Where base scores come from, and the given ones: a file holds those of all tables, one after the other."""
    if argument is None:
        return BaseSource("trained"), None
    tables = list({id(part.table): part.table for part in parts.values()}.values())
    if argument in tables[0].columns or argument in tables[0].left_out:
        for table in tables:
            base_column(table, argument, qid_column)
        return BaseSource("column", argument), None
    scores = _scores_for(argument, tables)
    ends = np.cumsum([table.num_rows for table in tables])
    by_table = {
        id(table): table.own_order(scores[end - table.num_rows : end]) for table, end in zip(tables, ends, strict=True)
    }
    return BaseSource("given"), {name: by_table[id(part.table)] for name, part in parts.items()}


def given_base(argument: str | None, run: RankRun, table: GroupedTable) -> np.ndarray | None:
    """(N,) base scores of a column, or of a file with one per row of the table's source, in the source's order."""
    if argument is None:
        return None
    if argument in table.columns or argument in table.left_out:
        return base_column(table, argument, run.config.qid_column)
    return table.own_order(_scores_for(argument, [table]))


def _scores_for(argument: str, tables: Sequence[GroupedTable]) -> np.ndarray:
    if not Path(argument).exists():
        raise InputError(f"--base-scores: {argument!r} is neither a column of {tables[0].source} nor a file")
    scores = read_scores(argument)
    rows = sum(table.num_rows for table in tables)
    if len(scores) != rows:
        names = ", ".join(table.source for table in tables)
        raise InputError(f"{argument}: found {counted(len(scores), 'score')}; expected {rows}, one per row of {names}")
    return scores
