"""The values of a table on disk in blocks, each with a checksum that is compared when the block is first read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xxhash

from hyperdpo.errors import InputError

#: Bytes of a block: one row somewhere costs the reading of so many.
BLOCK_BYTES = 256 << 10


class BlockHashes:
    """Hashes of consecutive blocks of bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._done: list[int] = []
        self._open = xxhash.xxh3_64()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Add bytes."""
        while len(data):
            piece = data[: BLOCK_BYTES - self._filled]
            self._open.update(piece)
            self._filled += len(piece)
            data = data[len(piece) :]
            if self._filled == BLOCK_BYTES:
                self._done.append(self._open.intdigest())
                self._open.reset()
                self._filled = 0

    def hashes(self) -> np.ndarray:
        """(B,) uint64; the last block may be shorter."""
        last = [self._open.intdigest()] if self._filled else []
        return np.array(self._done + last, dtype=np.uint64)


class CheckedValues:
    """The mapped values of a table; blocks that were never read before are checked first.

    Args:
        values: (N, C) float32, mapped from a file.
        hashes: (B,) uint64 of :class:`BlockHashes`.
        name: of the file, for messages.
    """

    def __init__(self, values: np.ndarray, hashes: np.ndarray, name: str):
        self._mapped, self._values, self._hashes, self._name = values, values, hashes, name
        self._unread = np.ones(len(hashes), dtype=bool)
        self._all_read = not len(hashes)
        #: Makes the values anew, of the same content; None: damage is refused.
        self.repair: Callable[[], CheckedValues] | None = None

    def holding(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The array to read some rows from: ``values``, or the ones that were made anew where a block is damaged.

        Args:
            rows: (n,) positions.
            values: of the table; others than those that are checked here are returned as they are.

        Raises:
            InputError: a block is damaged and cannot be made anew.
        """
        if values is not self._mapped:
            return values
        if not self._all_read and not self._intact(rows):
            if self.repair is None:
                raise InputError(f"{self._name}: damaged since it was written (its checksum differs)")
            new = self.repair()
            self._values, self._hashes, self._name, self.repair = new._values, new._hashes, new._name, None
            self._unread = np.ones(len(self._hashes), dtype=bool)
            return self.holding(rows, values)
        return self._values

    def all_intact(self) -> bool:
        """Whether all blocks are what was written."""
        return self._intact(np.arange(len(self._values)))

    def _intact(self, rows: np.ndarray) -> bool:
        """Check the blocks that hold some rows."""
        data = self._values.reshape(-1).view(np.uint8).data
        row_bytes = self._values.strides[0]
        first, last = rows * row_bytes // BLOCK_BYTES, ((rows + 1) * row_bytes - 1) // BLOCK_BYTES
        # A row may lie in several blocks: +1 where one begins, -1 behind its end.
        begun, ended = (np.bincount(places, minlength=len(self._hashes) + 1) for places in (first, last + 1))
        touched = (begun - ended).cumsum()[: len(self._hashes)] > 0
        for block in np.flatnonzero(touched & self._unread).tolist():
            piece = data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            if xxhash.xxh3_64_intdigest(piece) != int(self._hashes[block]):
                return False
            self._unread[block] = False
        self._all_read = not self._unread.any()
        return True
