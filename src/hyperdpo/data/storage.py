"""A grouped table as files in a directory: values, blocks, offsets and qids (.npy), meta.json; order.npy if rows were
sorted.

`TableWriter` streams rows into it without knowing their number or their width beforehand; `open_stored` maps it
into memory without reading the values, which are checked in blocks as they are first read. Readers of text, CSV and
Parquet share both, and `GroupIndex`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import xxhash

from hyperdpo.data.blocks import BlockHashes, CheckedValues
from hyperdpo.data.groups import GroupedTable
from hyperdpo.errors import one_line
from hyperdpo.files import read_json, write_json

#: Raised whenever what stands in the files, or how text is read, changes: older caches are then built again.
FORMAT_VERSION = 5

_VALUES, _BLOCKS, _OFFSETS, _QIDS = "values.npy", "blocks.npy", "offsets.npy", "qids.npy"
_ORDER, META = "order.npy", "meta.json"
_HEADER_BYTES = 128
_FINGERPRINT = re.compile("[0-9a-f]{32}")
#: Sorting: bytes of rows that are copied at a time, and of a bucket that is sorted in memory.
COPY_BYTES, BUCKET_BYTES = 4 << 20, 32 << 20


class DamagedTableError(Exception):
    """The directory does not hold a whole table of this version."""


class GroupIndex:
    """Collects where groups begin, and finds one that stands in two places.

    Rows arrive in order, in chunks; a chunk may carry on the last group of the one before.
    """

    def __init__(self) -> None:
        self._names: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._count = 0
        self._checked = 0

    def append(self, names: np.ndarray, starts: np.ndarray, places: np.ndarray) -> None:
        """Add the groups of a chunk.

        Args:
            names: (k,) int64, uint64 or str, each different from its predecessor. Chunks may differ in kind: as soon
                as one holds texts, all names are texts.
            starts: (k,) int64, the row each one begins at.
            places: (k,) int64, the line (or row) to name in a message.
        """
        if len(names) and self._names and str(self._names[-1][-1]) == str(names[0]):
            names, starts, places = names[1:], starts[1:], places[1:]
        if len(names):
            # Copies: a view would keep the parser's whole (reused) buffer.
            self._names.append(names.copy())
            self._starts.append(starts.copy())
            self._places.append(places.copy())
            self._count += len(names)

    def due(self) -> bool:
        """Whether twice as many groups have come as at the last `split`: checking then costs O(G log G) in all."""
        return self._count >= max(1024, 2 * self._checked)

    def split(self) -> tuple[Any, int, int] | None:
        """(name, place where it begins again, place where it first began) of the first group found twice, or None."""
        names, places = self.names(), self._joined(self._places)
        self._checked = self._count
        order = np.argsort(names, kind="stable")
        again = order[1:][names[order[1:]] == names[order[:-1]]]
        if not len(again):
            return None
        second = int(again.min())
        first = int(np.flatnonzero(names == names[second])[0])
        return names[second].item(), int(places[second]), int(places[first])

    def sort(self, num_rows: int) -> np.ndarray | None:
        """Bring the parts of every group together, groups in the order in which they first appear.

        Returns:
            (N,) int64, the present row of each row in the new order; None if nothing has to move.
        """
        names, starts = self.names(), self.offsets(num_rows)
        _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        if len(first) == len(names):
            return None
        position = np.empty(len(first), dtype=np.int64)
        position[np.argsort(first)] = np.arange(len(first))
        group = position[inverse]  # of each part
        parts = np.argsort(group, kind="stable")
        sizes = np.diff(starts)[parts]
        begins = np.cumsum(sizes) - sizes
        whole = np.flatnonzero(np.diff(group[parts], prepend=-1))
        firsts = np.sort(first)
        places = self._joined(self._places)
        self._names, self._starts, self._places = [names[firsts]], [begins[whole]], [places[firsts]]
        self._count = len(firsts)
        return np.arange(num_rows) + np.repeat(starts[:-1][parts] - begins, sizes)

    def rename(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace all names (G,) by as many others."""
        self._names = [change(self.names())]

    def names(self) -> np.ndarray:
        """(G,) int64, uint64 or str."""
        return self._joined(self._names)

    def offsets(self, num_rows: int) -> np.ndarray:
        """(G + 1,) int64."""
        return np.append(self._joined(self._starts), np.int64(num_rows))

    @staticmethod
    def _joined(parts: list[np.ndarray]) -> np.ndarray:
        if len(parts) > 1:
            parts[:] = [np.concatenate(_alike(parts))]
        return parts[0] if parts else np.zeros(0, dtype=np.int64)


def _alike(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays of one kind; numbers become texts where a part holds texts, or where no 64-bit kind holds them all."""
    kinds = {part.dtype.kind for part in parts}
    if kinds == {"i", "u"} and all(part.min(initial=0) >= 0 for part in parts):
        return [part.astype(np.uint64) for part in parts]
    return parts if len(kinds) == 1 else [part.astype(str) for part in parts]


class TableWriter:
    """Writes a table whose number of rows and columns turn out at the end.

    Ordinary writes rather than a writable map: a map's dirty pages count as this process's memory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = open(directory / _VALUES, "wb")  # noqa: SIM115 - closed by __exit__
        self._file.write(b"\0" * _HEADER_BYTES)
        self._segments: list[list[int]] = []  # [rows, width] of consecutive rows of one width
        self._hash = xxhash.xxh3_128()
        self._blocks = BlockHashes()
        self.num_rows = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Add rows: (n, C) float32, C-contiguous. C may differ from call to call: short rows end in zeros."""
        count, width = rows.shape
        if count == 0:
            return
        if self._segments and self._segments[-1][1] == width:
            self._segments[-1][0] += count
        else:
            self._segments.append([count, width])
        data = rows.data.cast("B")
        self._hash.update(data)
        self._blocks.update(data)
        self._file.write(data)
        self.num_rows += count

    def finish(
        self,
        columns: list[str],
        groups: GroupIndex,
        *,
        left_out: Mapping[str, str] | None = None,
        doubtful: Mapping[str, str] | None = None,
        numbering: Sequence[str] = (),
        origins: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
        sort: bool = False,
    ) -> str:
        """Complete the files and return the content's fingerprint (32 hexadecimal digits).

        Args:
            columns: as many names as the widest row has values.
            groups: where the groups begin, and their names.
            left_out, doubtful, numbering, origins, notes: see :class:`~hyperdpo.data.groups.GroupedTable`.
            sort: bring the rows of each group together, with a note of how many that were not. Without it, the groups
                must be whole: see :meth:`GroupIndex.split`.
        """
        self._widen()
        stored = [_BLOCKS, _OFFSETS, _QIDS]
        order = groups.sort(self.num_rows) if sort else None
        if order is not None:
            self._permute(order)
            np.save(self.directory / _ORDER, order, allow_pickle=False)
            stored.append(_ORDER)
            moved = int((order != np.arange(len(order))).sum())
            notes = [*notes, f"sorted by query: {moved:,} of {len(order):,} rows moved"]
        self._file.seek(0)
        # numpy pads the header of any number of rows to the same size.
        described = {"descr": "<f4", "fortran_order": False, "shape": (self.num_rows, self.width)}
        np.lib.format.write_array_header_1_0(self._file, described)
        assert self._file.tell() == _HEADER_BYTES
        self._file.close()

        qids, offsets = _narrow(groups.names()), groups.offsets(self.num_rows)
        np.save(self.directory / _QIDS, qids, allow_pickle=False)
        np.save(self.directory / _OFFSETS, offsets, allow_pickle=False)
        np.save(self.directory / _BLOCKS, self._blocks.hashes(), allow_pickle=False)

        identity = [columns, qids.dtype.str, *([sorted(origins.items())] if origins else [])]
        whole = xxhash.xxh3_128(json.dumps(identity).encode())
        whole.update(np.ascontiguousarray(qids).view(np.uint8).data)
        whole.update(offsets.data.cast("B"))
        whole.update(self._hash.digest())
        fingerprint = whole.hexdigest()
        meta = {
            "version": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "columns": columns,
            "left_out": dict(left_out or {}),
            "doubtful": dict(doubtful or {}),
            "numbering": list(numbering),
            "origins": dict(origins or {}),
            "notes": list(notes),
            "bytes": {name: (self.directory / name).stat().st_size for name in (_VALUES, *stored)},
            # Of the values only the header: the blocks have hashes of their own.
            "checksums": {name: _checksum(self.directory / name) for name in (_VALUES, *stored)},
        }
        write_json(self.directory / META, meta, sealed=True)
        return fingerprint

    @property
    def width(self) -> int:
        """Columns of the widest row so far."""
        return max((width for _, width in self._segments), default=0)

    def head(self, most: int) -> np.ndarray:
        """(n, C) float32, the first rows; no more of them than `most`."""
        self._widen()
        self._file.flush()
        count = min(most, self.num_rows)
        with open(self.directory / _VALUES, "rb") as file:
            file.seek(_HEADER_BYTES)
            return np.fromfile(file, np.float32, count * self.width).reshape(count, self.width)

    def extremes(self) -> np.ndarray:
        """(2, C) float32, the lowest and the highest value of each column; NaN where none is there."""
        self._widen()
        self._file.flush()
        found = np.full((2, self.width), np.nan, dtype=np.float32)
        with open(self.directory / _VALUES, "rb") as file:
            file.seek(_HEADER_BYTES)
            for _, rows in _chunks(file, self.num_rows, self.width):
                found[0] = np.fmin(found[0], np.fmin.reduce(rows, axis=0))
                found[1] = np.fmax(found[1], np.fmax.reduce(rows, axis=0))
        return found

    def rewrite(self, change: Callable[[int, np.ndarray], None]) -> None:
        """Change the values of all rows.

        Args:
            change: called with the first row of a chunk and its values (n, C) float32, which it changes.
        """
        self._widen()
        with self._anew() as (old, [(count, width)]):
            for first, rows in _chunks(old, count, width):
                change(first, rows)
                self.append(rows)

    def _widen(self) -> None:
        """Copy the values, unless all rows are of one width: zeros fill up those that are shorter."""
        if len(self._segments) < 2:
            return
        width = self.width
        with self._anew() as (old, segments):
            for count, old_width in segments:
                for _, rows in _chunks(old, count, old_width):
                    self.append(np.pad(rows, ((0, 0), (0, width - old_width))))

    def _permute(self, order: np.ndarray) -> None:
        """Put row ``order[i]`` into row i. On disk, in two passes: into buckets, and each bucket into its order."""
        width, count = self.width, len(order)
        bucket_rows = max(1, BUCKET_BYTES // (4 * width))
        bucket = np.empty(count, dtype=np.int64)
        bucket[order] = np.arange(count) // bucket_rows
        filled = np.arange(0, count, bucket_rows)  # the next free row of each bucket
        scattered = self.directory / "buckets.tmp"
        with self._anew() as (old, _), open(scattered, "w+b") as buckets:
            for first, rows in _chunks(old, count, width):
                wanted = bucket[first : first + len(rows)]
                by_bucket = np.argsort(wanted, kind="stable")
                ends = np.cumsum(np.bincount(wanted, minlength=len(filled)))
                for k in np.unique(wanted):
                    piece = by_bucket[ends[k - 1] if k else 0 : ends[k]]
                    buckets.seek(4 * width * int(filled[k]))
                    buckets.write(rows[piece].data.cast("B"))
                    filled[k] += len(piece)
            buckets.seek(0)
            for first in range(0, count, bucket_rows):
                sources = order[first : first + bucket_rows]
                rows = np.fromfile(buckets, np.float32, len(sources) * width).reshape(-1, width)
                self.append(rows[np.searchsorted(np.sort(sources), sources)])
        scattered.unlink()

    @contextlib.contextmanager
    def _anew(self) -> Iterator[tuple[BinaryIO, list[list[int]]]]:
        """Begin with no rows again: the file with the present ones, at the first, and its segments."""
        self._file.close()
        old = self.directory / "old.tmp"
        (self.directory / _VALUES).rename(old)
        self._file = open(self.directory / _VALUES, "wb")  # noqa: SIM115 - closed by __exit__
        self._file.write(b"\0" * _HEADER_BYTES)
        segments, self._segments = self._segments, []
        self._hash.reset()
        self._blocks = BlockHashes()
        self.num_rows = 0
        with open(old, "rb") as source:
            source.seek(_HEADER_BYTES)
            yield source, segments
        old.unlink()


def _chunks(file: BinaryIO, count: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """The next `count` rows of a file, a few at a time: the first one's position and (n, width) float32."""
    most = max(1, COPY_BYTES // (4 * width))
    for first in range(0, count, most):
        n = min(most, count - first)
        yield first, np.fromfile(file, np.float32, n * width).reshape(n, width)


def _narrow(names: np.ndarray) -> np.ndarray:
    """Texts in a type that is as wide as the longest: the same names give the same bytes, whatever came between."""
    if names.dtype.kind != "U":
        return names
    return names.astype(f"<U{max(1, int(np.strings.str_len(names).max(initial=1)))}")


def _checksum(path: Path) -> str:
    """A hash of a file; of the values' file, of its header."""
    with open(path, "rb") as file:
        return xxhash.xxh3_128_hexdigest(file.read(_HEADER_BYTES if path.name == _VALUES else -1))


def open_stored(directory: Path, source: str) -> GroupedTable:
    """Map a directory that `TableWriter` wrote. Reads no values: no time passes at any size.

    All other files are compared with their checksums; blocks of values are when they are first taken.

    Raises:
        DamagedTableError: a file is missing, damaged, or does not fit the others.
    """
    try:
        meta = read_json(directory / META, sealed=True)
        if meta["version"] != FORMAT_VERSION:
            raise DamagedTableError(f"version {meta['version']}")
        stored = [_VALUES, _BLOCKS, _OFFSETS, _QIDS, *([_ORDER] if _ORDER in meta["bytes"] else [])]
        for name in stored:
            if (directory / name).stat().st_size != meta["bytes"][name]:
                raise DamagedTableError(f"{name} has another size")
            if _checksum(directory / name) != meta["checksums"][name]:
                raise DamagedTableError(f"{name} has another checksum")
        # It becomes a part of file names: nothing else than what was written here.
        if not _FINGERPRINT.fullmatch(meta["fingerprint"]):
            raise DamagedTableError("the fingerprint is no hash")
        values, blocks, offsets, qids, *orders = (
            # A plain view: numpy's memmap class would stick to everything computed from it.
            # open_memmap, unlike load, takes nothing but .npy: no archive, no pickle.
            np.asarray(np.lib.format.open_memmap(directory / name, mode="r"))
            for name in stored
        )
        table = GroupedTable(
            values=values,
            columns=tuple(meta["columns"]),
            qids=qids,
            offsets=offsets,
            source=source,
            fingerprint=meta["fingerprint"],
            left_out=dict(meta["left_out"]),
            doubtful=dict(meta["doubtful"]),
            numbering=tuple(meta["numbering"]),
            origins={str(name): float(value) for name, value in meta["origins"].items()},
            notes=tuple(map(str, meta["notes"])),
            order=orders[0] if orders else None,
            checked=CheckedValues(values, blocks, str(directory / _VALUES)),
        )
        whole = values.shape == (int(offsets[-1]), len(table.columns)) and len(qids) == len(offsets) - 1
    except OSError as error:
        raise DamagedTableError(f"{Path(str(error.filename)).name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, IndexError) as error:
        raise DamagedTableError(one_line(error)) from error
    whole &= all(order.dtype == np.int64 and order.shape == (len(values),) for order in orders)
    if not whole or values.dtype != np.float32 or offsets.dtype != np.int64:
        raise DamagedTableError("the arrays do not fit each other")
    return table
