"""Which groups train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.data.compression import COMPRESSIONS
from hyperdpo.data.groups import GroupedTable
from hyperdpo.errors import InputError, counted

#: File names that a directory of split files may use, as MSLR's Fold1 does.
SPLIT_FILES = {
    "train": ("train",),
    "validation": ("vali", "valid", "validation"),
    "test": ("test",),
}
SUFFIXES = (
    *(f".txt{compressed}" for compressed in ("", *COMPRESSIONS)),
    ".parquet",
    *(f"{kind}{compressed}" for kind in (".csv", ".tsv") for compressed in ("", *COMPRESSIONS)),
)


@dataclass(frozen=True)
class Part:
    """Some groups of a table."""

    table: GroupedTable
    groups: np.ndarray
    """(g,) int64, positions in the table, ascending."""

    @staticmethod
    def whole(table: GroupedTable) -> Part:
        return Part(table, np.arange(table.num_groups))

    @property
    def sizes(self) -> np.ndarray:
        """(g,) items of each group."""
        return self.table.group_sizes[self.groups]

    @property
    def starts(self) -> np.ndarray:
        """(g,) first row of each group in the table."""
        return self.table.offsets[self.groups]

    def rows(self) -> np.ndarray:
        """(n,) rows of the table, group by group."""
        sizes = self.sizes
        ends = np.cumsum(sizes)
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.starts - (ends - sizes), sizes)


def split_groups(num_groups: int, fractions: tuple[float, float, float], seed: int) -> dict[str, np.ndarray]:
    """Positions of the groups of ``train``, ``validation`` and ``test``, each ascending.

    Every part with a fraction above 0 gets at least one group.

    Raises:
        InputError: fewer groups than parts.
    """
    wanted = sum(f > 0 for f in fractions)
    if num_groups < wanted:
        raise InputError(f"split: found {counted(num_groups, 'group')}; expected at least {wanted}, one for each part")
    order = stream(seed, 0).permutation(num_groups)
    counts = [max(round(f * num_groups), 1) if f > 0 else 0 for f in fractions]
    while sum(counts) != num_groups:  # rounding: the largest part gives or takes
        counts[int(np.argmax(counts))] += 1 if sum(counts) < num_groups else -1
    ends = np.cumsum(counts)
    parts = (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])
    return {name: np.sort(part) for name, part in zip(SPLIT_FILES, parts, strict=True)}


def split_files(directory: Path) -> dict[str, Path]:
    """The files of a directory such as MSLR's ``Fold1``: train, vali, test.

    Raises:
        InputError: no training or validation file.
    """
    found: dict[str, Path] = {}
    for part, names in SPLIT_FILES.items():
        for candidate in (directory / f"{name}{suffix}" for name in names for suffix in SUFFIXES):
            if candidate.is_file():
                found[part] = candidate
                break
    for part in ("train", "validation"):
        if part not in found:
            expected = ", ".join(f"{name}.txt" for name in SPLIT_FILES[part])
            raise InputError(
                f"{directory}: no {part} file; expected one of {expected} (or .parquet, .csv, .tsv; "
                "text may be .gz, .bz2 or .zst)"
            )
    return found
