"""``hyperdpo data check``: what a fit would make of a file, and the same refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY_OPTIONS, is_one_line

from hyperdpo import HyperRanker

LABELS = "objectives: [{name: clicks}, {name: quality}]\nmain: {name: relevance, column: label}\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "labels.yaml").write_text(LABELS)
    return tmp_path / "labels.yaml"


def rows(count: int = 200, seed: int = 0) -> dict[str, list[object]]:
    """Columns of lists of 8."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    return {
        "qid": [f"q{i // 8}" for i in range(count)],
        "label": np.clip(np.round(1 + x + rng.normal(size=count)), 0, 4).astype(int).tolist(),
        "clicks": (rng.random(count) < 0.2).astype(int).tolist(),
        "quality": np.round(5 + x, 3).tolist(),
        "x": np.round(x, 4).tolist(),
        "same": [3] * count,
        "hour": (1_704_078_000 + rng.integers(0, 3600, count)).tolist(),
        "title": [f"title {i}" for i in range(count)],
    }


def write(path: Path, columns: dict[str, list[object]], separator: str = ",") -> Path:
    lines = [separator.join("" if v is None else str(v) for v in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([separator.join(columns), *lines]) + "\n")
    return path


def test_it_says_what_fit_says(command, labels, tmp_path):
    columns = rows()
    columns["x"][5] = None
    data = write(tmp_path / "data.csv", {"": list(range(200)), **columns})
    checked = command("data", "check", data, "--config", labels)
    assert (checked.code, checked.err) == (0, "")
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    for line in (
        "features (3): x, same, hour",
        "no features: clicks (label of clicks); quality (label of quality); label (main label); title (text); "
        "(no name) (numbers the rows (keep_row_numbers keeps it))",
        "constant on all training rows, so without effect (1): same",
        "with missing values (1; the mean and one more column each): x",
        "stored as distances from their lowest value (1): hour",
    ):
        assert line in checked.out
        assert line in done.out
    assert "label clicks (column clicks): target l1 (8" in done.out
    assert "label quality (column quality): target softmax (0% of the values are 0); varies in 15 of 15" in done.out
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["features"] == ["x", "same", "hour"]
    assert about["data"]["features_left_out"]["title"] == "text"
    assert about["data"]["constant_features"] == ["same"]
    assert [label["target"] for label in about["data"]["labels"]][:2] == ["l1", "softmax"]


def test_without_labels_it_describes_the_columns(command, tmp_path):
    checked = command("data", "check", write(tmp_path / "data.csv", rows()))
    assert checked.code == 0
    assert "features (6): label, clicks, quality, x, same, hour" in checked.out
    assert "name them with --config, --preset or --objectives" in checked.out
    assert "minus 1,704,07" in checked.out


def bad(column: str, row: int, value: object) -> dict[str, list[object]]:
    columns = rows()
    columns[column][row] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (bad("x", 7, "n/k"), "data.csv:9: column 'x' is 'n/k', and 199 of its 200 values are numbers"),
        ({**rows(), "copy": rows()["quality"]}, "data.csv: feature 'copy' is a copy of label 'quality'"),
        (bad("clicks", 7, None), "data.csv:9: label 'clicks' (column clicks) is missing"),
        (bad("clicks", 7, -1), "data.csv:9: label 'clicks' (column clicks) has the value -1"),
        (bad("qid", 7, "q9"), "query id q9 begins again, first seen in line 9"),
        ({**rows(), "clicks": [i // 8 for i in range(200)]}, "is the same on all rows of each training group"),
        ({k: v for k, v in rows().items() if k != "clicks"}, "no column 'clicks'"),
    ],
)
def test_it_refuses_what_fit_refuses(command, labels, tmp_path, columns, words):
    data = write(tmp_path / "data.csv", columns)
    checked = command("data", "check", data, "--config", labels)
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu")
    assert (checked.code, done.code) == (2, 2)
    assert words in checked.err
    assert checked.err == done.err
    assert is_one_line(checked.err.strip())
    assert not (tmp_path / "run").exists()


def test_scores_refuse_data_without_a_feature_and_name_one_too_many(command, labels, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    columns = rows(seed=1)
    lacking = write(tmp_path / "lacking.csv", {k: v for k, v in columns.items() if k != "hour"})
    more = write(tmp_path / "more.csv", {**columns, "price": list(range(200))})
    score = ("rank", "score", tmp_path / "run")
    refused = command(*score, lacking, "--weights", ".5,.5", "--cpu")
    assert refused.code == 2
    assert "lacking.csv: no column 'hour'" in refused.err
    noted = command(*score, more, "--weights", ".5,.5", "--cpu")
    assert noted.code == 0
    assert "columns that the run was not trained with, and does not use: price" in noted.err
    assert len(noted.out.splitlines()) == 200


@pytest.mark.parametrize(("scale", "far"), [(0.01, "narrower"), (1, None), (100, "wider")])
def test_base_scores_of_another_spread_are_pointed_out(command, labels, tmp_path, scale, far):
    np.savetxt(tmp_path / "scores.txt", scale * np.random.default_rng(0).normal(size=200))
    checked = command(
        "data", "check", write(tmp_path / "data.csv", rows()), "--config", labels,
        "--base-scores", tmp_path / "scores.txt",
    )  # fmt: skip
    assert checked.code == 0, checked.err
    assert "base scores: standard deviation within a group" in checked.out
    assert (f"much {far} than that of a base trained here" in checked.out) == (far is not None)
    assert ("raw margins" in checked.out) == (far is not None)


def test_preferences_are_checked_too(command, tmp_path):
    row = {"prompt": "p", "completions": ["a", "b"], "labels": {"good": [1, 0]}}
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({**row, "prompt": f"question {i}"}) for i in range(5)))
    checked = command("data", "check", data)
    assert checked.code == 0, checked.err
    assert "layout groups, 5 rows, 5 groups of 5 different questions" in checked.out
    assert "objective good: the label varies in 5 of 5 groups" in checked.out
    data.write_text(json.dumps(row) + "\n" + json.dumps({**row, "labels": {"good": [1]}}))
    refused = command("data", "check", data)
    assert refused.code == 2
    assert "data.jsonl:2" in refused.err


def test_options_of_the_other_kind_are_refused(command, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    assert "--skip-invalid" in command("data", "check", data, "--skip-invalid").err
    (tmp_path / "p.jsonl").write_text('{"prompt": "p", "completions": ["a", "b"], "labels": {"good": [1, 0]}}')
    refused = command("data", "check", tmp_path / "p.jsonl", "--sort")
    assert refused.code == 2
    assert "--sort" in refused.err


def test_a_front_refuses_what_fit_refuses_of_labels(command, labels, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    columns = rows(seed=1)
    columns["clicks"][7] = None
    other = write(tmp_path / "other.csv", columns)
    for arguments in (("rank", "front"), ("choose",)):
        more = ("--maximize", "clicks") if arguments == ("choose",) else ("--cpu",)
        refused = command(*arguments, tmp_path / "run", other, *more)
        assert refused.code == 2
        assert "other.csv:9: label 'clicks' (column clicks) is missing" in refused.err


def test_other_names_of_query_and_labels_come_from_the_configuration(command, labels, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    columns = rows(seed=1)
    columns["session"], columns["ctr"] = columns.pop("qid"), columns.pop("clicks")
    other = write(tmp_path / "other.csv", columns)
    assert "qid_column" in command("rank", "score", tmp_path / "run", other, "--weights", ".5,.5", "--cpu").err
    named = tmp_path / "named.yaml"
    named.write_text(
        "qid_column: session\nobjectives: [{name: clicks, column: ctr}, {name: quality}]\n"
        "main: {name: relevance, column: label}\n"
    )
    front = command("rank", "front", tmp_path / "run", other, "--config", named, "--out", tmp_path / "f.json", "--cpu")
    assert front.code == 0, front.err
    scored = command("rank", "score", tmp_path / "run", other, "--config", named, "--weights", ".5,.5", "--cpu")
    assert (scored.code, len(scored.out.splitlines())) == (0, 200)


def test_a_missing_base_score_is_refused_with_its_line(command, labels, tmp_path):
    columns = {**rows(), "score": [None if i == 7 else i % 5 for i in range(200)]}
    data = write(tmp_path / "data.csv", columns)
    for arguments in (("data", "check", data), ("rank", "fit", data, "--out", tmp_path / "run", "--cpu")):
        refused = command(*arguments, "--config", labels, "--base-scores", "score")
        assert refused.code == 2
        assert "data.csv:9: the base score (column 'score') is missing" in refused.err


def test_a_test_file_that_holds_the_training_rows_is_refused(command, labels, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    again = tmp_path / "again.csv"
    again.write_bytes(data.read_bytes())
    refused = command("data", "check", data, "--test", again, "--config", labels)
    assert refused.code == 2
    assert "again.csv: the test file holds the rows of the training file" in refused.err


def test_a_misspelt_excluded_column_is_pointed_out(command, labels, tmp_path):
    data = write(tmp_path / "data.csv", rows())
    checked = command("data", "check", data, "--config", labels, "--set=excluded_columns=[hours]")
    assert "excluded_columns has 'hours', which is no column; did you mean hour?" in checked.err


@pytest.mark.parametrize("constant", [True, False], ids=["one time stamp", "several"])
def test_a_list_by_itself_scores_as_in_company(command, labels, tmp_path, constant):
    """Its columns alone would not show that they need an origin: the run's are used."""
    data = write(tmp_path / "data.csv", rows())
    done = command("rank", "fit", data, "--config", labels, "--out", tmp_path / "run", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    columns = rows(16, seed=2)
    if constant:
        columns["hour"][:8] = [1_704_079_801] * 8
    both = write(tmp_path / "both.csv", columns)
    one = write(tmp_path / "one.csv", {name: values[:8] for name, values in columns.items()})
    score = ("rank", "score", tmp_path / "run")
    found = [command(*score, file, "--weights", ".5,.5", "--cpu").out.split()[:8] for file in (both, one)]
    np.testing.assert_allclose(*[np.array(values, dtype=float) for values in found], rtol=1e-5)
    frame = {name: np.array(columns[name][:8], dtype=float) for name in ("x", "same", "hour")}
    predicted = HyperRanker.load(tmp_path / "run").predict(frame, qid=np.zeros(8), weights=[0.5, 0.5])
    np.testing.assert_allclose(predicted, np.array(found[1], dtype=float), rtol=1e-5)
