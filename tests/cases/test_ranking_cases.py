"""Small CSV and Parquet files that went wrong once: what is read, what is refused and why.

The files are those of ``cases/ranking``; the same kinds are made inside tests of ``tests/data`` and ``tests/ranking``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY_OPTIONS, is_one_line, read

SHARED = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
CASES = SHARED.parent / "cases" / "ranking"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"{CASES} is absent; HYPERDPO_DATA names the directory that stands beside cases/"
)


@pytest.fixture
def fit(command, tmp_path) -> Any:
    """``hyperdpo rank fit FILE`` with a tiny setting; the outcome and the run's directory."""

    def run(name: str, *more: str) -> Any:
        labels = "letor_labels.yaml" if name.startswith("letor") else "labels.yaml"
        out = tmp_path / name
        arguments = ["--config", CASES / labels, "--out", out, "--cpu", *TINY_OPTIONS, *more]
        return command("rank", "fit", CASES / name, *arguments), out

    return run


def scores(command: Any, run: Path, name: str, tmp_path: Path, *more: str) -> np.ndarray:
    done = command(
        "rank", "score", run, CASES / name, "--weights", ".5,.5", "--cpu", "--out", tmp_path / "s.txt", *more
    )
    assert done.code == 0, done.err
    return np.loadtxt(tmp_path / "s.txt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cell.csv", "cell.csv:102: column 'bm25' is '1,234.5', and 479 of its 480 values are numbers"),
        ("dash.csv", "dash.csv:102: column 'bm25' is '-', and 479 of its 480 values are numbers"),
        ("comma.csv", "comma.csv:2: column 'bm25' is '0,1257', a number with a comma"),
        ("querylabel.csv", "label 'clicks' (column clicks) is the same on all rows of each training group"),
        ("shuffled.csv", "shuffled.csv:7: query id 17 begins again, first seen in line 4"),
        ("letor_shuffled.txt", "(--sort brings them together)"),
        ("letor_unjudged.txt", "letor_unjudged.txt:2: label 'relevance' (column relevance) has the value -1"),
    ],
)
def test_what_cannot_be_right_is_refused_by_fit_and_by_the_check(fit, command, name, words):
    done, out = fit(name)
    assert done.code == 2
    assert words in done.err
    assert is_one_line(done.err.strip())
    assert not out.exists()
    labels = "letor_labels.yaml" if name.startswith("letor") else "labels.yaml"
    checked = command("data", "check", CASES / name, "--config", CASES / labels)
    assert (checked.code, checked.err) == (2, done.err)


def test_a_clean_file_is_read_whole_and_says_so(fit):
    done, out = fit("fixed.csv")
    assert done.code == 0, done.err
    assert "features (2): bm25, noise" in done.out
    assert read(out / "run.json")["features"] == ["bm25", "noise"]


def test_a_column_that_is_named_as_excluded_may_hold_anything(fit):
    done, out = fit("dash.csv", "--set=excluded_columns=[bm25]")
    assert done.code == 0, done.err
    assert "bm25 (in excluded_columns)" in done.out
    assert read(out / "run.json")["data"]["features_left_out"]["bm25"] == "in excluded_columns"


@pytest.mark.parametrize("name", ["date.csv", "unix.csv"])
def test_dates_as_numbers_rank_as_well_as_the_day_does(command, name, tmp_path):
    """The label is made of the day alone; at the usual settings, not tiny ones."""
    fronts = {}
    for file in (name, "day.csv"):
        run = tmp_path / file
        done = command("rank", "fit", CASES / file, "--config", CASES / "labels.yaml", "--out", run, "--cpu")
        assert done.code == 0, done.err
        assert "constant" not in done.out
        done = command("rank", "front", run, CASES / file, "--out", tmp_path / "front.json", "--cpu")
        assert done.code == 0, done.err
        fronts[file] = read(tmp_path / "front.json")["hypervolume"]
    assert fronts[name] == pytest.approx(fronts["day.csv"], abs=0.03)
    assert "stored as distances from their lowest value (1): " in command("data", "check", CASES / name).out


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("list.parquet", ["position", *(f"features[{i}]" for i in range(4))]),
        ("onlylist.parquet", [f"features[{i}]" for i in range(4)]),
        ("d.tsv", ["f1", "f2"]),
        ("semi.csv", ["f1", "f2"]),
        ("floatqid.parquet", ["f1", "f2"]),
        ("missing.csv", ["f1", "f2"]),
        ("letor_crlf.txt", ["1", "2", "3", "4"]),
        ("letor_bom.txt", ["1", "2", "3", "4"]),
        ("letor_strqid.txt", ["1", "2", "3", "4"]),
        ("letor_hash.txt", ["1", "2", "3", "4"]),
        ("letor_unsorted_feat.txt", ["1", "2", "3", "4"]),
        ("letor_istella.txt", ["1", "2", "3", "4"]),
        ("letor_plain.txt.bz2", ["1", "2", "3", "4"]),
    ],
)
def test_what_people_write_is_trained_on_and_scored(fit, command, name, features, tmp_path):
    done, out = fit(name)
    assert done.code == 0, done.err
    assert read(out / "run.json")["features"] == features
    assert f"features ({len(features)}): {', '.join(features)}" in done.out
    if name in ("d.tsv", "semi.csv", "missing.csv", "floatqid.parquet"):
        assert "title (text)" in done.out
    assert len(set(scores(command, out, name, tmp_path))) > 100


def test_missing_features_are_told_by_a_column_of_their_own(fit):
    done, out = fit("missing.csv")
    assert "with missing values (1; the mean and one more column each): f2" in done.out
    assert read(out / "run.json")["data"]["features_with_missing_values"] == ["f2"]


def test_the_largest_double_counts_as_missing_with_a_note(fit):
    done, _ = fit("letor_istella.txt")
    assert re.search(r"letor_istella\.txt: .*missing", done.err)
    assert "with missing values (1; the mean and one more column each): 2" in done.out


@pytest.mark.parametrize("name", ["shuffled.csv", "letor_shuffled.txt"])
def test_scattered_rows_are_sorted_on_demand_and_scored_in_their_own_order(fit, command, name, tmp_path):
    done, out = fit(name, "--sort")
    assert done.code == 0, done.err
    assert "sorted by query" in done.err
    found = scores(command, out, name, tmp_path)
    text = (CASES / name).read_text().splitlines()
    head, rows = (text[:1], text[1:]) if name.endswith(".csv") else ([], text)
    groups = [line.split(",")[0] if head else line.split()[1] for line in rows]
    order = sorted(range(len(rows)), key=lambda i: (groups.index(groups[i]), i))
    (tmp_path / f"sorted-{name}").write_text("\n".join([*head, *(rows[i] for i in order)]) + "\n")
    again = command(
        "rank", "score", out, tmp_path / f"sorted-{name}", "--weights", ".5,.5", "--cpu", "--out", tmp_path / "t.txt"
    )
    assert again.code == 0, again.err
    np.testing.assert_allclose(found[order], np.loadtxt(tmp_path / "t.txt"), rtol=1e-5)


def test_minus_one_is_not_judged_if_the_configuration_says_so(fit):
    done, out = fit("letor_unjudged.txt", "--set=main.unjudged=-1")
    assert done.code == 0, done.err
    assert "rows not judged" in done.out
    assert read(out / "config.json")["main"]["unjudged"] == -1
