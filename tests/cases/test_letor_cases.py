"""The small LETOR files of shared/cases: what each of them was refused or misread for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.errors import InputError

SHARED = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
CASES = SHARED.parent / "cases" / "ranking"


def read(name: str, cache: Path, **options: bool) -> tuple[GroupedTable, list[list[str]]]:
    """The table of a case, and the fields of its lines."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set HYPERDPO_DATA to the directory that stands beside cases/)")
    table = read_table(path, cache_dir=cache, **options)
    if path.suffix != ".txt":
        return table, []
    text = path.read_bytes().decode("utf-8-sig")
    return table, [line.split("#")[0].split() for line in text.splitlines() if line.split("#")[0].strip()]


def assert_holds(table: GroupedTable, lines: list[list[str]]) -> None:
    """Every row holds the label, the query id and the values of its line."""
    assert table.num_rows == len(lines) > 0
    qids = np.repeat(table.qids, table.group_sizes)
    order = np.arange(len(lines)) if table.order is None else table.order
    for i, (label, qid, *features) in enumerate(lines[k] for k in order):
        expected = dict.fromkeys(table.columns, 0.0) | {"relevance": float(label)}
        expected |= {name: float(value) for name, value in (field.split(":") for field in features)}
        values = np.array([np.nan if v > 1e308 else v for v in expected.values()], dtype=np.float32)
        np.testing.assert_array_equal(table.values[i], values)
        assert f"qid:{qids[i]}" == qid


@pytest.mark.parametrize("name", ["letor_crlf.txt", "letor_bom.txt", "letor_unsorted_feat.txt", "letor_unjudged.txt"])
def test_a_file_is_read_as_it_stands(name: str, tmp_path: Path) -> None:
    table, lines = read(name, tmp_path)
    assert_holds(table, lines)
    assert table.columns == ("relevance", *"123456")
    assert table.qids.dtype == np.int64
    assert table.notes == ()


def test_judgements_of_minus_one_are_read(tmp_path: Path) -> None:
    table, _ = read("letor_unjudged.txt", tmp_path)
    assert (table.column("relevance") == -1).any()


def test_query_ids_of_text(tmp_path: Path) -> None:
    table, lines = read("letor_strqid.txt", tmp_path)
    assert_holds(table, lines)
    assert table.qids[:2].tolist() == ["u0", "u1"]


def test_query_ids_of_64_unsigned_bits(tmp_path: Path) -> None:
    table, lines = read("letor_hash.txt", tmp_path)
    assert_holds(table, lines)
    assert table.qids.dtype == np.uint64
    assert table.qids.max() >= 2**63


def test_the_largest_double_counts_as_missing(tmp_path: Path) -> None:
    table, lines = read("letor_istella.txt", tmp_path)
    assert_holds(table, lines)
    found = int(np.isnan(table.column("2")).sum())
    assert found > 0
    assert table.notes == (f"values of 1e+308 and more count as missing: {found} in 2",)
    assert read("letor_istella.txt", tmp_path)[0].notes == table.notes, "a table from the cache lost its notes"


def test_scattered_rows_are_refused_and_sorted_on_demand(tmp_path: Path) -> None:
    table, lines = read("letor_shuffled.txt", tmp_path, sort=True)
    assert_holds(table, lines)
    assert len(set(table.qids.tolist())) == table.num_groups
    assert len(table.notes) == 1
    assert "sorted by query" in table.notes[0]
    with pytest.raises(InputError, match=r"letor_shuffled\.txt:\d+: query id \d+ begins again.*--sort"):
        read_table(CASES / "letor_shuffled.txt", cache_dir=tmp_path)


def test_bzip2_is_read_as_plain_text(tmp_path: Path) -> None:
    table, _ = read("letor_plain.txt.bz2", tmp_path)
    plain, _ = read("letor_crlf.txt", tmp_path)
    assert table.fingerprint == plain.fingerprint
