"""Places of rows that were read before."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from hyperdpo.data.cache import read_table
from hyperdpo.data.places import place_of_row
from hyperdpo.errors import InputError


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_lines_of_letor_text_are_counted_with_comments_and_blanks(ending: str, tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf# head\r\n1 qid:1 1:0\r\n\r\n \t# c\r\n1 qid:2 1:1 # d\r\n1 qid:1 1:2"
    path = tmp_path / f"data.txt{ending}"
    path.write_bytes(gzip.compress(text) if ending else text)
    assert [place_of_row(path, row) for row in range(3)] == [f"{path}:{line}" for line in (2, 5, 6)]
    table = read_table(path, sort=True, cache_dir=tmp_path / "cache")
    lines = [int(place_of_row(path, row, table).rsplit(":", 1)[1]) for row in range(3)]
    assert lines == [2, 6, 5]
    assert table.column("1").tolist() == [0, 2, 1]
    with pytest.raises(InputError, match="no row 3"):
        place_of_row(path, 3)


def test_lines_of_csv_and_rows_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,relevance,a\n\n1,0,2\n2,0,3\n\n1,0,4\n")
    table = read_table(path, sort=True, cache_dir=tmp_path / "cache")
    assert [place_of_row(path, row, table) for row in range(3)] == [f"{path}:{line}" for line in (3, 6, 4)]
    other = tmp_path / "data.parquet"
    pl.DataFrame({"qid": [1, 2, 1], "relevance": [0, 0, 0], "a": [2, 3, 4]}).write_parquet(other)
    table = read_table(other, sort=True, cache_dir=tmp_path / "cache")
    assert [place_of_row(other, row, table) for row in range(3)] == [f"{other}:row {row}" for row in (1, 3, 2)]
