"""The repeats of a comparison: which seed and which split each has, for rankers and language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_files
from hyperdpo.errors import InputError, counted
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.fitting import split_table
from hyperdpo.ranking.oracle import check_oracle
from hyperdpo.ranking.sources import base_of, read, read_alike

if TYPE_CHECKING:
    from hyperdpo.alignment.data.groups import Preferences
    from hyperdpo.alignment.settings import AlignSettings

#: Directories of a data set that comes in folds, as MSLR and LETOR do.
FOLDS = ("Fold1", "Fold2", "Fold3", "Fold4", "Fold5")
#: The value of ``--base-scores``, and the kind of base, that is a LambdaMART on the main label.
LIGHTGBM = "lightgbm"
#: Why there is no such base.
NO_MAIN = "--base-scores lightgbm: there is no main label to train a base on; expected one"


@dataclass(frozen=True)
class Repeat:
    """One seed on one split."""

    name: str
    seed: int


@dataclass(frozen=True)
class RankRepeat(Repeat):
    """One seed on one split of a ranker's data."""

    parts: Mapping[str, Part]
    """``train``, ``validation`` and ``test``."""
    base_source: BaseSource = field(default_factory=lambda: BaseSource("trained"))
    given_base: Mapping[str, np.ndarray] | None = None
    """(N,) per split, where ``base_source`` is ``given``."""
    oracle: GroupedTable | None = None
    """Expected labels of generated data: the same rows as the test part's table."""

    @property
    def sizes(self) -> dict[str, dict[str, int]]:
        """Groups and items of each part."""
        return {
            "groups": {name: len(part.groups) for name, part in self.parts.items()},
            "items": {name: int(part.sizes.sum()) for name, part in self.parts.items()},
        }


@dataclass(frozen=True)
class AlignRepeat(Repeat):
    """One seed on one split of preferences."""

    train: Preferences
    test: Preferences

    @property
    def sizes(self) -> dict[str, dict[str, int]]:
        """Groups of each part."""
        return {"groups": {"train": len(self.train), "test": len(self.test)}}


def rank_repeats(
    source: Path,
    config: RankConfig,
    *,
    seeds: int = 3,
    folds: int = 0,
    base: str | None = None,
    oracle: Path | None = None,
    show: bool = True,
) -> list[RankRepeat]:
    """The repeats of a comparison: seeds ``config.seed`` and up.

    A file is split once, for all seeds, with ``config.split``. With ``folds`` K its groups are cut into K parts; repeat
    r tests on part r, validates on part r + 1 and trains on the others (r modulo K). A directory with train, vali and
    test files is one split; of a directory of Fold1 to Fold5, repeat r takes fold r.

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
        _check_test(source, parts)
        base_source, given = (BaseSource("lightgbm"), None) if base == LIGHTGBM else base_of(base, parts)
        name = f"seed-{config.seed + number}" + (f"-fold-{number % len(splits) + 1}" if len(splits) > 1 else "")
        repeats.append(RankRepeat(name, config.seed + number, parts, base_source, given, truth))
    return repeats


def check_repeats(config: RankConfig, *, seeds: int = 3, folds: int = 0, base: str | None = None) -> None:
    """What :func:`rank_repeats` refuses before there is anything to read.

    Raises:
        InputError: numbers out of range, or no main label for a base that is to be trained on one.
    """
    check_seeds(seeds)
    if folds == 1 or folds == 2 or folds < 0:
        raise InputError(f"--folds: found {folds}; expected 0 for one split, or at least 3")
    if base == LIGHTGBM and config.main is None:
        raise InputError(NO_MAIN)


def natural_seeds(source: Path, folds: int) -> int:
    """Repeats where none are asked for: one for each fold, 3 of one split."""
    found = sum((source / name).is_dir() for name in FOLDS) if source.is_dir() else folds
    return found or 3


def _splits(source: Path, config: RankConfig, folds: int, show: bool) -> list[dict[str, Part]]:
    """One split, or one for each fold."""
    if source.is_dir():
        directories = [source / name for name in FOLDS if (source / name).is_dir()]
        if folds and folds != len(directories):
            raise InputError(f"--folds: {source} is a directory of {len(directories) or 1}; leave out --folds")
        return [
            {name: Part.whole(table) for name, table in read_alike(split_files(directory), config, show=show).items()}
            for directory in directories or [source]
        ]
    table = read(source, config, show=show)
    if not folds:
        return [split_table(table, config)]
    if table.num_groups < folds:
        raise InputError(f"--folds: {source} has {counted(table.num_groups, 'group')}; expected at least {folds}")
    order = stream(config.split.seed, 1).permutation(table.num_groups)
    pieces = [np.sort(piece) for piece in np.array_split(order, folds)]
    result = []
    for r in range(folds):
        others = [piece for k, piece in enumerate(pieces) if k not in (r, (r + 1) % folds)]
        groups = {"train": np.sort(np.concatenate(others)), "validation": pieces[(r + 1) % folds], "test": pieces[r]}
        result.append({name: Part(table, chosen) for name, chosen in groups.items() if len(chosen)})
    return result


def align_repeats(
    source: Path,
    settings: AlignSettings,
    objectives: Sequence[str] | None,
    reading: Mapping[str, Any],
    *,
    seeds: int,
) -> list[AlignRepeat]:
    """The repeats of a comparison of language models: seeds ``settings.seed`` (or 0) and up.

    A file is split anew for each seed, with split seeds that count up, too. A directory of train and test files is one
    split, for all seeds.

    Args:
        objectives: names; None: all.
        reading: how the files are read.

    Raises:
        InputError: nothing to read, or no test groups.
    """
    from hyperdpo.alignment.sources import columns_of, parts_of

    first = settings.seed or 0
    split_seed = first if settings.split.seed is None else settings.split.seed
    repeats = []
    for number in range(seeds):
        split = replace(settings.split, seed=split_seed + number)
        parts, _ = parts_of(source, columns_of(settings, objectives), reading, split)
        _check_test(source, parts)
        repeats.append(AlignRepeat(f"seed-{first + number}", first + number, parts["train"], parts["test"]))
    return repeats


def check_seeds(seeds: int) -> None:
    """Refuse a comparison without a repeat.

    Raises:
        InputError: it is one.
    """
    if seeds < 1:
        raise InputError(f"--seeds: found {seeds}; expected at least 1")


def _check_test(source: Path, parts: Mapping[str, Any]) -> None:
    if not parts.get("test"):
        raise InputError(f"{source}: there are no test groups; expected a test file, or a part of the split")
