"""Files that may be compressed: ``.gz``, ``.bz2`` and ``.zst``, told by the end of their names."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from hyperdpo.errors import one_line

#: Name ending -> what the data are called in messages.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}

_PIECE_BYTES = 1 << 18


class DamagedDataError(Exception):
    """Compressed data that cannot be read to their end. The message is one line without the file's name."""


def compression_of(path: Path) -> str | None:
    """The compression's name ending (``.gz``, ``.bz2``, ``.zst``) in lower case, or None."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSIONS else None


def plain_name(path: Path) -> str:
    """The file's name in lower case, without the ending of a compression: ``A.csv.gz`` gives ``a.csv``."""
    return path.name.lower().removesuffix(compression_of(path) or "")


def open_source(path: Path) -> Source:
    """Open a file for reading once from its beginning, decompressed if its name says that it is compressed.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - Source.close closes it
    try:
        return Source(file, compression_of(path))
    except BaseException:
        file.close()
        raise


class Source(io.RawIOBase):
    """A readable binary object that gives the plain bytes.

    Reading fills the buffer unless the data end, so that blocks have equal sizes. Damaged data give the bytes before
    the damage (of zstd, up to a megabyte less); the next reading raises `DamagedDataError`.
    """

    def __init__(self, file: BinaryIO, compression: str | None) -> None:
        self._file = file
        self._compression = compression
        self._text = _decompressor(file, compression)
        self._error: DamagedDataError | None = None
        self.total = os.fstat(file.fileno()).st_size
        """Bytes of the file as it is stored."""

    def readable(self) -> bool:
        return True

    def position(self) -> int:
        """How many bytes of the stored file have been read; any thread may ask."""
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are data; 0 at their end.

        Raises:
            DamagedDataError: the data are damaged from here on.
        """
        view = memoryview(buffer).cast("B")
        if self._compression is None:
            return self._file.readinto(view)  # type: ignore[attr-defined]
        filled = 0
        while filled < len(view) and self._error is None:
            piece = self._piece(min(len(view) - filled, _PIECE_BYTES))
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled == 0 and self._error is not None:
            raise self._error
        return filled

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()

    def _piece(self, most: int) -> bytes:
        try:
            return self._text.read(most)
        except (OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self._error = self._explained(error)
        return b""

    def _explained(self, error: Exception) -> DamagedDataError:
        assert self._compression is not None
        kind = COMPRESSIONS[self._compression]
        text = one_line(error, 60)
        if isinstance(error, EOFError):
            return DamagedDataError(f"the {kind} data end too early")
        return DamagedDataError(f"damaged or no {kind} data ({text!r})")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _decompressor(file: BinaryIO, compression: str | None) -> _Readable:
    """Something whose ``read(n)`` gives up to n bytes, and raises only when it has no bytes left to give."""
    if compression == ".gz":
        return _Gzip(file)
    if compression == ".bz2":
        return _Bzip2(file)
    if compression == ".zst":
        return _Zstd(file)
    return file


class _Gzip:
    def __init__(self, file: BinaryIO) -> None:
        self._text = gzip.GzipFile(fileobj=file, mode="rb")

    def read(self, size: int, /) -> bytes:
        return self._text.read1(size)


class _Bzip2:
    """The bz2 module's own file drops bytes behind the last stream in silence; here they are damage."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = bz2.BZ2Decompressor()
        self._fresh = True  # nothing of the stream has been read

    def read(self, size: int, /) -> bytes:
        while True:
            if self._stream.eof:
                rest, self._stream, self._fresh = self._stream.unused_data, bz2.BZ2Decompressor(), True
            else:
                rest = b""
            if self._stream.needs_input and not rest:
                rest = self._file.read(_PIECE_BYTES)
                if not rest:
                    if self._fresh:
                        return b""
                    raise EOFError
            self._fresh = False
            piece = self._stream.decompress(rest, size)
            if piece:
                return piece


class _Zstd:
    """By way of pyarrow. It says "truncated" in place of the last bytes: they are read once more, one by one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._given = 0
        self._singly = False
        self._error: Exception | None = None
        self._stream = self._opened()

    def _opened(self) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), "zstd")

    def read(self, size: int, /) -> bytes:
        if self._singly:
            return self._read_singly(size)
        try:
            piece: bytes = self._stream.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            self._again()
            return self._read_singly(size)
        self._given += len(piece)
        return piece

    def _again(self) -> None:
        """Go back to the bytes given so far, in a new stream."""
        self._singly = True
        self._file.seek(0)
        self._first = self._stream  # kept: a stream closes the file below it when it is gone
        self._stream = self._opened()
        left = self._given
        while left:
            left -= len(self._stream.read(min(left, _PIECE_BYTES)))

    def _read_singly(self, size: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size and self._error is None:
            try:
                piece = self._stream.read(1)
            except OSError as error:  # a stream that failed once must not be read again
                self._error = EOFError() if "runcated" in str(error) else error
                break
            if not piece:
                break
            pieces += piece
        if not pieces and self._error is not None:
            raise self._error
        return bytes(pieces)
