"""Files that a ``rank`` command is given: how they are read, and base scores in their order."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import fit_toy, is_one_line, toy_config

from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.ranking.sources import base_of, given_base, read, read_data, read_parts


def scattered(path: Path, rows: int = 12) -> Path:
    path.write_text("".join(f"{i % 2} qid:{i % 4} 0:{i} 2:{i % 3}\n" for i in range(rows)))
    return path


def test_rows_are_sorted_and_numbered_as_the_configuration_says(tmp_path: Path) -> None:
    path = scattered(tmp_path / "data.txt")
    config = toy_config(sort=True, features_from_zero=True)
    with pytest.warns(UserWarning, match="sorted by query: 10 of 12 rows moved") as shown:
        table = read(path, config, show=False)
    assert [str(w.message).startswith(f"{path}: ") for w in shown] == [True]
    assert table.columns == ("relevance", "0", "1", "2")
    with pytest.raises(InputError) as error:
        read(path, toy_config(features_from_zero=True), show=False)
    assert is_one_line(error.value, f"{path}:5", "--sort")
    with pytest.raises(InputError) as error:
        read(path, toy_config(sort=True), show=False)
    assert is_one_line(error.value, f"{path}:1", "--features-from-zero")


def test_a_run_whose_letor_text_counts_from_zero_reads_csv_too(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,relevance,a\n1,0,2\n1,1,3\n")
    config = toy_config(features_from_zero=True)
    assert read(path, config, show=False).columns == ("relevance", "a")
    with pytest.raises(InputError) as error:
        read_parts(path, None, None, config, show=False)
    assert is_one_line(error.value, "features_from_zero", "LETOR text")


@pytest.mark.filterwarnings("ignore:.*sorted by query")
def test_a_file_of_base_scores_is_in_the_order_of_the_data_files(tmp_path: Path) -> None:
    config = toy_config(sort=True, features_from_zero=True)
    paths = [scattered(tmp_path / "a.txt", 12), scattered(tmp_path / "b.txt", 9)]
    tables = [read(path, config, show=False) for path in paths]
    scores = np.arange(21, dtype=np.float32)
    np.save(tmp_path / "base.npy", scores)
    parts = {name: Part.whole(table) for name, table in zip(("train", "validation"), tables, strict=True)}
    source, given = base_of(str(tmp_path / "base.npy"), parts)
    assert source.kind == "given"
    assert given is not None
    np.testing.assert_array_equal(given["train"], tables[0].column("0"))
    np.testing.assert_array_equal(given["validation"], 12 + tables[1].column("0"))
    np.save(tmp_path / "one.npy", scores[:12])
    run = fit_toy()
    own = given_base(str(tmp_path / "one.npy"), run, tables[0])
    assert own is not None
    np.testing.assert_array_equal(own, tables[0].column("0"))
    column = given_base("0", run, tables[0])
    assert column is not None
    np.testing.assert_array_equal(column, tables[0].column("0"))


def test_a_plain_file_gives_no_note(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1 qid:1 1:5\n0 qid:1 2:7\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, toy_config(), show=False)
        assert read_data(path, fit_toy(), "auto")[0].num_rows == 2
