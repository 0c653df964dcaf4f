"""What is said of preference data without training."""

from __future__ import annotations

import json

import pytest
from helpers import is_one_line

from hyperdpo.alignment.data.report import describe_preferences
from hyperdpo.errors import InputError


def row(prompt: str, *labels: float | None, **more: object) -> dict[str, object]:
    texts = [f"{k} text" for k in range(len(labels))]
    return {
        "prompt": prompt,
        "completions": texts,
        "labels": {"a": list(labels), "b": [1, 0] + [2] * (len(labels) - 2)},
        **more,
    }


def test_the_report_counts_groups_labels_and_what_is_left_out(tmp_path):
    rows = [
        row("p", 1, 0, None, id=1),
        row("q  ", 1, 1, id=2),
        row("q", 0, 1, id=3),
        {**row("r", 1, 0), "completions": ["", "x"]},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    report = describe_preferences(path)
    assert (report.layout, report.rows, report.groups, report.questions) == ("groups", 4, 3, 2)
    assert report.responses == {3: 1, 2: 2}
    assert report.labels["a"] == (3, 2, 1)
    assert report.unused == ("id",)
    assert report.invalid == {"an empty response": (1, f"{path}:4")}
    assert report.refusal == f"{path}:4: response 1 is empty; expected a text"
    assert describe_preferences(path, skip_invalid=True).refusal is None
    assert report.lines() == [
        f"{path}: layout groups, 4 rows, 3 groups of 2 different questions",
        "responses per group: 2 with 2, 1 with 3",
        "objective a: the label varies in 2 of 3 groups, 1 responses have none",
        "objective b: the label varies in 3 of 3 groups",
        "columns that are not used: id",
        f"rows that cannot be used: 1, an empty response (first: {path}:4)",
    ]


def test_a_report_says_what_a_training_would_refuse(recwarn):
    flat = [row("p", 1, 1), row("q", 0, 0)]
    assert is_one_line(str(describe_preferences(flat).refusal), "'a'", "cannot teach anything")
    assert describe_preferences(flat, objectives=["b"]).refusal is None
    assert not recwarn.list, "all of it is in the report"
    with pytest.raises(InputError, match="could be part of the prompt"):
        describe_preferences([row("p", 1, 0, context="x")])
