"""``hyperdpo data check`` of preferences: what fit would make of them, and the same refusals."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import is_one_line
from tiny_models import tiny_base
from toy_preferences import words_tokenizer


def preferences(groups: int = 10, **labels: list[float | None]) -> list[dict[str, object]]:
    """Groups of two responses, all with the same labels."""
    return [
        {"prompt": f"w{3 + i} w4", "completions": ["w5 w6", "w7"], "labels": labels or {"good": [1, 0]}}
        for i in range(groups)
    ]


def written(path, found) -> object:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_base().save_pretrained(path)
    words_tokenizer().save_pretrained(path)
    return path


NEGATIVE = preferences(good=[1, 0], bad=[-1, 0])
REFUSED = [
    (preferences(main=[1, 0]), "", "objective 'main'"),
    (NEGATIVE, "objectives: [{name: good}, {name: bad, target: l1}]", "label -1 of objective 'bad'"),
    (preferences(good=[1, 0], bad=[None, None]), "", "'bad' has no label"),
    (
        preferences(good=[1, 0], bad=[-1, -1]),
        "objectives: [{name: bad, unjudged: -1}]",
        "no training group has a label",
    ),
    (preferences(good=[1, 1]), "", "cannot teach anything"),
    (preferences(1), "", "groups of the same prompt count once"),
    (preferences(), "objectives: [{name: better}]", "no objective 'better'"),
    (preferences(), "split: {train: 0.9}", "sum to 1"),
    (preferences(), "split: {train: 2}", "split.train is 2; expected a number above 0 and at most 1"),
    (preferences(), "conditioning: {prompt_token: 2}", "not a setting; did you mean conditioning.prompt_tokens?"),
    (preferences(), "compare: {sampling_factor: 0}", "compare.sampling_factor is 0; expected a number above 0"),
    (preferences(), "training: {beta: low}", "training.beta is 'low'; expected a number above 0"),
    (preferences(), "texts: {token: 3}", "texts.token is not a setting; did you mean texts.tokens?"),
    (
        [*preferences(), {"prompt": "", "completions": ["a", "b"], "labels": {"good": [1, 0]}}],
        "",
        "the prompt is empty",
    ),
]


@pytest.mark.parametrize(("found", "config", "words"), REFUSED)
def test_it_refuses_the_preferences_that_fit_refuses(command, model, tmp_path, found, config, words):
    data = written(tmp_path / "data.jsonl", found)
    (tmp_path / "c.yaml").write_text(config or "{}")
    checked = command("data", "check", data, "--config", tmp_path / "c.yaml")
    done = command("align", "fit", data, "--model", model, "--out", tmp_path / "run", "--config", tmp_path / "c.yaml")
    assert (checked.code, done.code) == (2, 2)
    assert words in checked.err
    assert checked.err.splitlines()[-1] == done.err.splitlines()[-1]
    assert is_one_line(checked.err.strip())


@pytest.mark.parametrize("kind", ["jsonl", "json", "shards", "parquet"])
def test_each_part_of_a_directory_is_described(command, tmp_path, kind):
    train, test = preferences(6), preferences(3, good=[0, 1])
    (tmp_path / "d").mkdir()
    for name, part in (("train", train), ("test", test)):
        if kind in ("jsonl", "json"):
            written(tmp_path / "d" / f"{name}.{kind}", part)
        elif kind == "parquet":
            pq.write_table(pa.Table.from_pylist(part), tmp_path / "d" / f"{name}.parquet")
        else:
            for k in range(2):
                pq.write_table(pa.Table.from_pylist(part[k::2]), tmp_path / "d" / f"{name}-0000{k}-of-00002.parquet")
    for more in ([], ["--objectives", "good"]):
        checked = command("data", "check", tmp_path / "d", *more)
        assert checked.code == 0, checked.err
        assert "train: " in checked.out
        assert "layout groups, 6 rows, 6 groups of 6 different questions" in checked.out
        assert "layout groups, 3 rows, 3 groups of 3 different questions" in checked.out
        assert "objective good: the label varies in 6 of 6 groups" in checked.out
        assert "3 of 3 test groups ask what training groups ask" in checked.out
    (tmp_path / "d" / "test.jsonl").unlink(missing_ok=True)
    (tmp_path / "e").mkdir()
    written(tmp_path / "e" / "test.jsonl", test)
    assert command("data", "check", tmp_path / "e").refused("expected train")


def test_a_part_that_cannot_be_used_is_refused_by_name(command, tmp_path):
    written(tmp_path / "d" / "train.jsonl", preferences())
    written(tmp_path / "d" / "test.jsonl", [*preferences(2), {"prompt": "p", "completions": ["a", ""], "labels": {}}])
    checked = command("data", "check", tmp_path / "d")
    assert checked.refused("test.jsonl:3", "response 2 is empty")
    assert command("data", "check", tmp_path / "d", "--skip-invalid").code == 0


def test_it_prints_what_fit_prints_of_the_labels(command, model, tmp_path):
    data = written(
        tmp_path / "data.jsonl", [*preferences(good=[1, 0], fun=[-1, 3]), *preferences(good=[0, 1], fun=[2, 3])]
    )
    (tmp_path / "c.yaml").write_text("objectives: [{name: good}, {name: fun, unjudged: -1}]")
    checked = command("data", "check", data, "--config", tmp_path / "c.yaml")
    assert checked.code == 0, checked.err
    done = command(
        "align", "fit", data, "--model", model, "--out", tmp_path / "run", "--cpu", "--config", tmp_path / "c.yaml",
        "--set", "training.max_steps=1", "--set", "conditioning.prompt_tokens=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    said = [line for line in done.out.splitlines() if line.startswith("objective ")]
    assert len(said) == 2
    assert "have none" in said[1]
    for line in said:
        assert f"training groups, {line}" in checked.out
    assert "objective fun: the label varies in 10 of 20 groups, 10 have labels, 10 responses have none" in checked.out


def test_a_table_is_told_from_preferences_by_its_columns(command, tmp_path):
    pq.write_table(
        pa.table({"qid": [1, 1, 2, 2], "x": [0.1, 0.2, 0.3, 0.7], "y": [3.5, 1.5, 2.5, 0.5]}),
        tmp_path / "table.parquet",
    )
    checked = command("data", "check", tmp_path / "table.parquet")
    assert "layout" not in checked.out
    assert checked.code == 0, checked.err
    pq.write_table(pa.Table.from_pylist(preferences()), tmp_path / "texts.parquet")
    checked = command("data", "check", tmp_path / "texts.parquet", "--objectives", "good")
    assert "layout groups" in checked.out
    assert checked.code == 0, checked.err
