"""What rows of preference data look like, and what is said of rows that cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import is_one_line

from hyperdpo.alignment.data.file_rows import file_rows, source_rows
from hyperdpo.alignment.data.formats import FORMATS, detect_format, from_groups, from_pku, from_scores
from hyperdpo.alignment.data.pairs import from_pair
from hyperdpo.alignment.data.parts import Columns
from hyperdpo.errors import InputError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


GROUPS = {"prompt": "Hi", "completions": ["a", "b", "c"], "labels": {"fun": [1.0, 0.5, -2.0], "safe": None}}
SCORES = {"prompt": "Hi", "responses": ["a", "b"], "scores": {"fun": [3, 4]}}
PKU = {"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}
PAIR = {"prompt": "Hi", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(("name", "row"), [("groups", GROUPS), ("scores", SCORES), ("pku", PKU), ("pairs", PAIR)])
def test_a_format_is_known_by_its_columns_whatever_stands_beside_them(name, row):
    assert detect_format(row) == name
    assert detect_format({"id": 7, **row, "source": "x"}) == name


def test_pku_needs_one_of_its_two_preferences_only():
    assert detect_format({k: v for k, v in PKU.items() if k != "safer_response_id"}) == "pku"
    with pytest.raises(InputError) as error:
        detect_format({k: PKU[k] for k in ("prompt", "response_0", "response_1")})
    assert is_one_line(
        error.value, "prompt, response_0, response_1", "better_response_id or safer_response_id", *FORMATS
    )


def test_groups_have_one_list_of_labels_per_objective_and_null_for_none():
    parts = from_groups(GROUPS)
    assert parts[:3] == ("Hi", ("a", "b", "c"), {"fun": (1.0, 0.5, -2.0), "safe": None})
    nan = from_groups({**GROUPS, "labels": {"fun": [1, 2, 3], "safe": float("nan")}})  # as pandas writes null
    assert nan.labels["safe"] is None


def test_arrays_and_conversations_are_taken_as_lists_and_texts():
    row = {
        "prompt": np.array([user("Hi")], dtype=object),
        "completions": [[assistant("a")], "b"],
        "labels": {"fun": np.array([True, False])},
    }
    assert from_groups(row)[:3] == ([user("Hi")], ("a", "b"), {"fun": (1.0, 0.0)})


def test_scores_read_as_groups():
    assert from_scores(SCORES)[:3] == ("Hi", ("a", "b"), {"fun": (3.0, 4.0)})


@pytest.mark.parametrize("one", [1, np.int64(1), 1.0])
def test_the_preferred_response_of_pku_has_label_1(one):
    assert from_pku({**PKU, "better_response_id": one}).labels == {"helpful": (0.0, 1.0), "harmless": (1.0, 0.0)}


def test_pku_without_a_preference_says_nothing():
    assert from_pku({**PKU, "safer_response_id": None}).labels == {"helpful": (0.0, 1.0), "harmless": None}
    assert set(from_pku({k: v for k, v in PKU.items() if k != "better_response_id"}).labels) == {"harmless"}


@pytest.mark.parametrize("bad", [2, -1, "1", True, [1]])
def test_pku_ids_are_0_or_1(bad):
    with pytest.raises(InputError) as error:
        from_pku({**PKU, "better_response_id": bad})
    assert is_one_line(error.value, "better_response_id", "expected 0 or 1")


PAIRS = [
    ("texts", PAIR, ("Hi", ("a", "b"))),
    ("prompt inside texts", {"chosen": "Sky is blue", "rejected": "Sky is green"}, ("Sky is", (" blue", " green"))),
    (
        "conversations",
        {"prompt": [user("Hi")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        ([user("Hi")], ("a", "b")),
    ),
    (
        "prompt inside conversations",
        {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]},
        ([user("Hi")], ("a", "b")),
    ),
    (
        "prompt inside and outside",
        {
            "prompt": [user("Hi")],
            "chosen": [user("Hi"), assistant("a")],
            "rejected": [user("Hi"), assistant("b")],
        },
        ([user("Hi")], ("a", "b")),
    ),
    (
        "prompt as text beside conversations",
        {"prompt": "Hi", "chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]},
        ([user("Hi")], ("a", "b")),
    ),
    ("conversation, answered by texts", {**PAIR, "prompt": [user("Hi")]}, ([user("Hi")], ("a", "b"))),
    (
        "nulls that Arrow fills in",
        {
            "prompt": [{**user("Hi"), "name": None}],
            "chosen": [assistant("a", tool_calls=None)],
            "rejected": [assistant("b")],
        },
        ([user("Hi")], ("a", "b")),
    ),
]


@pytest.mark.parametrize(("row", "expected"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_pairs_in_every_form(row, expected):
    parts = from_pair(row, Columns("prompt" if "prompt" in row else None, objectives=("polite",)))
    assert (parts.prompt, parts.completions) == expected
    assert parts.labels == {"polite": (1.0, 0.0)}


IMPLICIT = [
    {"chosen": "Sky is blue", "rejected": "Sky is green"},
    {"chosen": "a: b", "rejected": "a: c"},
    {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]},
    {
        "chosen": [user("Hi"), assistant("x"), user("So?"), assistant("a")],
        "rejected": [user("Hi"), assistant("x"), user("So?"), assistant("b")],
    },
]


@pytest.mark.parametrize("row", IMPLICIT)
def test_the_common_beginning_is_the_one_that_trl_finds(row):
    trl = pytest.importorskip("trl")
    theirs = trl.extract_prompt(row)
    parts = from_pair(row)
    assert parts.prompt == theirs["prompt"]
    texts = tuple(x if isinstance(x, str) else x[0]["content"] for x in (theirs["chosen"], theirs["rejected"]))
    assert parts.completions == texts


BAD_ROWS = [
    (from_groups, {**GROUPS, "prompt": 3}, ["'prompt'", "3", "text or a list of messages"]),
    (from_groups, {**GROUPS, "prompt": [{"role": "user"}]}, ["message 1", "role and content"]),
    (from_groups, {**GROUPS, "prompt": ["Hi"]}, ["message 1", "'Hi'"]),
    (from_groups, {**GROUPS, "completions": "abc"}, ["'completions'", "list of texts"]),
    (from_groups, {**GROUPS, "completions": ["a", None]}, ["completions[1]", "None"]),
    (from_groups, {**GROUPS, "completions": ["a", [user("b")]]}, ["completions[1]", "user", "assistant"]),
    (from_groups, {**GROUPS, "labels": [1, 2, 3]}, ["'labels'", "object of objectives"]),
    (from_groups, {**GROUPS, "labels": {"fun": 1}}, ["'labels.fun'", "list of numbers"]),
    (from_groups, {**GROUPS, "labels": {"fun": [1, "2", 3]}}, ["'labels.fun'", "value 2", "'2'"]),
    (from_scores, {"prompt": "Hi", "responses": ["a", "b"]}, ["no column 'scores'", "prompt, responses"]),
    (from_pku, {**PKU, "response_1": None}, ["'response_1'", "None"]),
    (from_pku, {k: PKU[k] for k in ("prompt", "response_0", "response_1")}, ["no column 'better_response_id'"]),
    (from_pair, {"chosen": "a"}, ["no column 'rejected'"]),
    (from_pair, {"chosen": "a", "rejected": "b"}, ["no column 'prompt'", "do not begin alike"]),
    (from_pair, {"chosen": "same", "rejected": "same"}, ["chosen and rejected are the same"]),
    (from_pair, {"chosen": "Sky", "rejected": "Sky is"}, ["no column 'prompt'", "is the beginning of the other"]),
    (from_pair, {"chosen": [user("Hi"), assistant("a")], "rejected": "b"}, ["the same form"]),
    (from_pair, {**PAIR, "chosen": [assistant("a"), user("b")], "prompt": [user("Hi")]}, ["assistant, user"]),
    (from_pair, {**PAIR, "chosen": [assistant("a", reasoning_content="hm")], "prompt": [user("Hi")]}, ["reasoning_"]),
]


@pytest.mark.parametrize(("convert", "row", "words"), BAD_ROWS)
def test_a_row_that_cannot_be_used_is_described_in_one_line(convert, row, words):
    with pytest.raises(InputError) as error:
        convert(row)
    assert is_one_line(error.value, *words)


# Rows -----------------------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_a_file_of_every_kind_has_the_same_rows(tmp_path, name):
    rows = [SCORES, {**SCORES, "prompt": "Ho: «é»"}]
    path = write(tmp_path / name, rows)
    found = list(file_rows(path))
    assert [row for _, row in found] == rows
    assert found[1][0] == (f"{path}:2" if "jsonl" in name else f"{path}:row 2")


def test_lines_of_json_may_be_called_json_and_blank_lines_are_nothing(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f"\n{json.dumps(SCORES)}\n\n{json.dumps(SCORES)}\n")
    assert list(file_rows(path)) == [(f"{path}:2", SCORES), (f"{path}:4", SCORES)]


BAD_FILES = [
    ("a.jsonl", b'{"a": 1}\n{"a": \n', ":2: ", "expected JSON"),
    ("a.jsonl", b'{"a": 1}\n[1]\n', ":2: ", "one JSON object per line"),
    ("a.jsonl", b'{"a": "\xff"}\n', ":1: ", "UTF-8"),
    ("a.json", b'[{"a": 1}, 3]', ":row 2 ", "named columns"),
    ("a.json", b'[{"a": 1}', ": ", "expected JSON"),
    ("a.parquet", b"no parquet", ": ", "Parquet"),
    ("a.jsonl.gz", b"no gzip", ": ", "gzip"),
    ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], ": ", "gzip"),
    ("a.txt", b"", ": ", ".jsonl"),
]


@pytest.mark.parametrize(("name", "content", "place", "expected"), BAD_FILES)
def test_a_file_that_cannot_be_read_is_named_with_the_place(tmp_path, name, content, place, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(file_rows(path))
    assert is_one_line(error.value, expected)
    assert str(error.value).startswith(f"{path}{place}")


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_path_without_a_file_is_refused(tmp_path, name):
    with pytest.raises(InputError) as error:
        source_rows(tmp_path / name)
    assert is_one_line(error.value, str(tmp_path))


@pytest.mark.parametrize("source", [3, {"train": []}])
def test_objects_that_are_no_rows_are_refused(source):
    with pytest.raises(InputError) as error:
        source_rows(source)
    assert is_one_line(error.value, "preferences", "expected")
    with pytest.raises(InputError, match="rows: row 2 is 5"):
        list(source_rows([SCORES, 5])[1])


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "datasets", "tensors", "list"])
def test_objects_have_the_same_rows_as_files(kind):
    rows: Any = [GROUPS, {**GROUPS, "prompt": "Ho"}]
    if kind in ("pandas", "polars"):
        source: Any = pytest.importorskip(kind).DataFrame(rows)
    elif kind == "pyarrow":
        source = pa.Table.from_pylist(rows)
    elif kind == "list":
        source = rows
    else:
        source = pytest.importorskip("datasets").Dataset.from_list(rows)
        source = source.with_format("torch") if kind == "tensors" else source
    name, found = source_rows(source)
    found = list(found)
    assert [from_groups(row) for _, row in found] == [from_groups(row) for row in rows]
    assert found[1][0] == f"{name}: row 2"
