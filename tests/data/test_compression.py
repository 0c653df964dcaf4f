"""Compressed files: their bytes, and what a damaged one is told."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from hyperdpo.data.compression import DamagedDataError, open_source, plain_name

TEXT = b"".join(b"%d,%d,%d\n" % (i % 3, i // 7, i * i) for i in range(300_000))


def zstd(text: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    return bytes(sink.getvalue().to_pybytes())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
}
KINDS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}


def read(path: Path, size: int = 100_001) -> tuple[bytes, str | None]:
    """What can be read, and the message at its end."""
    got = b""
    with open_source(path) as source:
        try:
            while piece := source.read(size):
                got += piece
                assert source.position() <= source.total == path.stat().st_size
        except DamagedDataError as error:
            return got, str(error)
    return got, None


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_gives_its_bytes(ending: str, tmp_path: Path) -> None:
    compress = COMPRESS[ending]
    contents = {
        "whole": (compress(TEXT), TEXT),
        "parts": (compress(TEXT[:999]) + compress(TEXT[999:]), TEXT),
        "nothing": (compress(b""), b""),
        "empty": (b"", b""),
    }
    for name, (content, expected) in contents.items():
        path = tmp_path / f"{name}{ending.upper()}"
        path.write_bytes(content)
        assert read(path) == (expected, None), name
    table = pa.csv.open_csv(open_source(tmp_path / f"whole{ending.upper()}")).read_all()
    assert table.num_rows == 299_999
    lines = list(io.BufferedReader(open_source(tmp_path / f"whole{ending.upper()}")))
    assert lines == TEXT.splitlines(keepends=True)


@pytest.mark.parametrize("ending", KINDS)
def test_damaged_data_give_what_comes_before_the_damage(ending: str, tmp_path: Path) -> None:
    whole = COMPRESS[ending](TEXT)
    middle = len(whole) // 2
    contents = {
        "end too early": (whole[:middle], 1 << 20),
        "end too early ": (whole[:-1], 1 << 20),
        " end too early": (whole[:4], 0),
        "damaged": (whole + b"rubbish behind the data", len(TEXT)),
        "no ": (TEXT, 0),
        "damaged or": (whole[:middle] + bytes(100) + whole[middle + 100 :], 0),
    }
    for name, (content, least) in contents.items():
        path = tmp_path / f"data{ending}"
        path.write_bytes(content)
        got, message = read(path)
        assert message is not None, name
        assert name.strip() in message
        assert f"{KINDS[ending]} data" in message
        assert len(message.splitlines()) == 1
        assert len(got) >= min(least, len(TEXT) // 4), name
        if "early" in name or name == "damaged":
            assert TEXT.startswith(got), name


@pytest.mark.parametrize("ending", KINDS)
def test_the_message_comes_again_and_never_bytes_behind_the_damage(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{ending}"
    path.write_bytes(COMPRESS[ending](TEXT) + b"rubbish")
    with open_source(path) as source:
        assert len(source.read(2 * len(TEXT))) == len(TEXT)
        for _ in range(3):
            with pytest.raises(DamagedDataError):
                source.read(10)


def test_the_name_without_the_compression() -> None:
    names = {"A.CSV.GZ": "a.csv", "b.tsv.zst": "b.tsv", "c.txt.bz2": "c.txt", "d.parquet": "d.parquet", "e.gz": "e"}
    assert {name: plain_name(Path("x.gz") / name) for name in names} == names
