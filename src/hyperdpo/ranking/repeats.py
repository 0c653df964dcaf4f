"""From a data source to the repeats of a comparison: seeds, folds, and the base they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_files, split_groups
from hyperdpo.errors import InputError, counted
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.bench import Repeat
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.oracle import check_oracle
from hyperdpo.ranking.sources import base_of, read, read_alike

#: Directories of a data set that comes in folds, as MSLR and LETOR do.
FOLDS = ("Fold1", "Fold2", "Fold3", "Fold4", "Fold5")
#: A base that is trained in each repeat: LambdaMART on the main label.
LIGHTGBM = "lightgbm"


def read_repeats(
    source: Path,
    config: RankConfig,
    *,
    seeds: int = 3,
    folds: int = 0,
    base: str | None = None,
    oracle: Path | None = None,
    show: bool = True,
) -> list[Repeat]:
    """The repeats of a comparison: seeds ``config.seed`` and up.

    A file is split once, for all seeds, with ``config.split``; with ``folds`` K its groups are cut into K parts, and
    repeat r tests on part r, validates on part r + 1 and trains on the others (r modulo K). A directory with
    train, vali and test files is one split; of a directory of Fold1 to Fold5, repeat r takes fold r.

    Args:
        source: a data file, or a directory.
        seeds: number of repeats.
        base: None: a base is trained on the main label in each repeat; ``lightgbm``: a LambdaMART on the main label is;
            otherwise a column of the data, or a file with one score per row.
        oracle: expected labels of a generated file.
        show: draw progress bars.

    Raises:
        InputError: nothing to read, no test groups, too few groups for the folds, base scores that do not fit or need
            a main label that is not there, an oracle of other data.
    """
    check_repeats(config, seeds=seeds, folds=folds, base=base)
    truth = None if oracle is None else read_table(oracle)
    splits = _splits(source, config, folds, show)
    if truth is not None:
        tables = {id(part.table): part.table for parts in splits for part in parts.values()}
        if len(tables) > 1:
            raise InputError(
                f"--oracle: {source} is more than one file; expected the one file that the oracle belongs to"
            )
        (table,) = tables.values()
        check_oracle(truth, table, config.objectives)
    repeats = []
    for number in range(seeds):
        parts = splits[number % len(splits)]
        if "test" not in parts:
            raise InputError(f"{source}: there are no test groups; expected a test file, or a part of the split")
        base_source, given = (BaseSource("given"), None) if base == LIGHTGBM else base_of(base, parts)
        name = f"seed-{config.seed + number}" + (f"-fold-{number % len(splits) + 1}" if len(splits) > 1 else "")
        repeats.append(Repeat(name, config.seed + number, parts, base_source, given, truth))
    return repeats


def check_repeats(config: RankConfig, *, seeds: int = 3, folds: int = 0, base: str | None = None) -> None:
    """What :func:`read_repeats` refuses before there is anything to read.

    Raises:
        InputError: numbers out of range, or no main label for a base that is to be trained on one.
    """
    if seeds < 1:
        raise InputError(f"--seeds: found {seeds}; expected at least 1")
    if folds == 1 or folds == 2 or folds < 0:
        raise InputError(f"--folds: found {folds}; expected 0 for one split, or at least 3")
    if base == LIGHTGBM and config.main is None:
        raise InputError("--base-scores lightgbm: there is no main label to train a base on; expected one")


def natural_seeds(source: Path, folds: int) -> int:
    """Repeats where none are asked for: one for each fold, 3 of one split."""
    found = sum((source / name).is_dir() for name in FOLDS) if source.is_dir() else folds
    return found or 3


def _splits(source: Path, config: RankConfig, folds: int, show: bool) -> list[dict[str, Part]]:
    """One split, or one for each fold."""
    if source.is_dir():
        directories = [source / name for name in FOLDS if (source / name).is_dir()]
        if folds and folds != len(directories):
            raise InputError(f"--folds: {source} is a directory of {len(directories) or 1}; expected --folds left out")
        return [
            {name: Part.whole(table) for name, table in read_alike(split_files(directory), config, show=show).items()}
            for directory in directories or [source]
        ]
    table = read(source, config, show=show)
    split = config.split
    if not folds:
        groups = split_groups(table.num_groups, (split.train, split.validation, split.test), split.seed)
        return [_parts(table, groups)]
    if table.num_groups < folds:
        raise InputError(f"--folds: {source} has {counted(table.num_groups, 'group')}; expected at least {folds}")
    order = stream(split.seed, 1).permutation(table.num_groups)
    pieces = [np.sort(piece) for piece in np.array_split(order, folds)]
    result = []
    for r in range(folds):
        others = [piece for k, piece in enumerate(pieces) if k not in (r, (r + 1) % folds)]
        groups = {"train": np.sort(np.concatenate(others)), "validation": pieces[(r + 1) % folds], "test": pieces[r]}
        result.append(_parts(table, groups))
    return result


def _parts(table: GroupedTable, groups: Mapping[str, np.ndarray]) -> dict[str, Part]:
    return {name: Part(table, chosen) for name, chosen in groups.items() if len(chosen)}
