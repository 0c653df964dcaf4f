"""Splits: whole groups, each in one part, the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import is_one_line, toy_table
from hypothesis import given

from hyperdpo.data.splits import Part, split_files, split_groups
from hyperdpo.errors import InputError

PAPER = (0.6, 0.2, 0.2)


@given(groups=st.integers(3, 200), seed=st.integers(0, 20))
def test_every_group_is_in_exactly_one_part_and_no_part_is_empty(groups, seed):
    parts = split_groups(groups, PAPER, seed)
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(groups))
    assert all(len(part) for part in parts.values())
    assert all((np.diff(part) > 0).all() for part in parts.values())


@pytest.mark.parametrize(("groups", "sizes"), [(100, [60, 20, 20]), (49, [29, 10, 10]), (3, [1, 1, 1]), (7, [4, 1, 2])])
def test_the_parts_have_the_sizes_asked_for(groups, sizes):
    found = [len(part) for part in split_groups(groups, PAPER, 0).values()]
    assert sum(found) == groups
    assert all(abs(a - b) <= 1 for a, b in zip(found, sizes, strict=True))


def test_a_seed_gives_the_same_split_again_and_another_seed_another():
    first, again, other = (split_groups(50, PAPER, seed)["test"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_are_drawn_and_not_cut_off_the_end():
    assert not np.array_equal(split_groups(100, PAPER, 0)["train"], np.arange(60))


def test_a_part_of_nothing_is_empty():
    parts = split_groups(10, (0.8, 0.2, 0.0), 0)
    assert [len(part) for part in parts.values()] == [8, 2, 0]


def test_fewer_groups_than_parts_are_refused():
    with pytest.raises(InputError) as error:
        split_groups(2, PAPER, 0)
    assert is_one_line(error.value, "2 groups", "at least 3")


def test_the_rows_of_a_part_are_those_of_its_groups():
    table = toy_table(10)
    part = Part(table, np.array([1, 4, 9]))
    expected = np.concatenate([np.arange(table.offsets[g], table.offsets[g + 1]) for g in (1, 4, 9)])
    np.testing.assert_array_equal(part.rows(), expected)
    np.testing.assert_array_equal(part.sizes, np.diff(table.offsets)[[1, 4, 9]])
    np.testing.assert_array_equal(Part.whole(table).rows(), np.arange(table.num_rows))
    assert len(Part(table, np.array([], dtype=np.int64)).rows()) == 0


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text("")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.txt", "vali.txt", "test.txt"], {"train": "train.txt", "validation": "vali.txt", "test": "test.txt"}),
        (["train.parquet", "valid.csv"], {"train": "train.parquet", "validation": "valid.csv"}),
        (
            ["train.txt.gz", "validation.csv.gz", "notes.md"],
            {"train": "train.txt.gz", "validation": "validation.csv.gz"},
        ),
        (["train.txt.bz2", "vali.tsv"], {"train": "train.txt.bz2", "validation": "vali.tsv"}),
        (["train.csv.zst", "vali.tsv.gz"], {"train": "train.csv.zst", "validation": "vali.tsv.gz"}),
    ],
)
def test_the_files_of_a_directory_are_found_by_name(tmp_path, names, expected):
    touch(tmp_path, *names)
    assert {part: path.name for part, path in split_files(tmp_path).items()} == expected


@pytest.mark.parametrize(
    ("names", "missing"), [(["vali.txt"], "train"), (["train.txt", "test.txt"], "validation"), ([], "train")]
)
def test_a_directory_without_training_or_validation_file_is_refused(tmp_path, names, missing):
    touch(tmp_path, *names)
    with pytest.raises(InputError) as error:
        split_files(tmp_path)
    assert is_one_line(error.value, str(tmp_path), f"no {missing} file")
