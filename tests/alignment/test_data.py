"""Preference data: reading, merging, splitting, and targets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import is_one_line

from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.data.preferences import merge_pairs, read_preferences, read_splits, write_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective
from hyperdpo.ranking.examples import label_targets

ROOT = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data") / "preferences"


def real(name: str) -> Path:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; HYPERDPO_DATA names another place")
    return path


def row(prompt: Any = "p", n: int = 3, **labels: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completions": [f"{prompt} {k}" for k in range(n)], "labels": labels}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def refused(*words: str) -> Any:
    """Expects an error of one line with all the words."""

    class Refused:
        def __enter__(self) -> None: ...

        def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
            assert isinstance(error, InputError), f"expected an InputError, found {error!r}"
            assert is_one_line(error, *words), str(error)
            return True

    return Refused()


# Reading --------------------------------------------------------------------------------------------------------------


def test_the_objectives_are_those_met_and_a_group_may_lack_some():
    found = read_preferences([row("p", b=[1, 2, 3]), row("q", 2, a=[0, 1], b=None)])
    assert found.objectives == ("b", "a")
    assert [group.labels for group in found.groups] == [{"b": (1.0, 2.0, 3.0)}, {"a": (0.0, 1.0)}]
    assert [len(group.completions) for group in found.groups] == [3, 2]
    assert [found.place(i) for i in range(2)] == ["rows: row 1", "rows: row 2"]


def test_objectives_that_are_asked_for_come_in_that_order_and_others_go():
    found = read_preferences([row(a=[0, 1, 2], b=[1, 2, 3], c=[1, 1, 1])], objectives=["c", "a"])
    assert found.objectives == ("c", "a")
    assert found.groups[0].labels == {"c": (1.0, 1.0, 1.0), "a": (0.0, 1.0, 2.0)}


def test_a_group_without_labels_for_what_is_asked_for_is_kept():
    found = read_preferences([row("p", a=[0, 1, 2]), row("q", b=[0, 1, 2])], objectives=["a"])
    assert [group.labels for group in found.groups] == [{"a": (0.0, 1.0, 2.0)}, {}]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(a=[1, 2, 3]), row("", a=[1, 2, 3])], ["rows: row 2", "prompt is empty"]),
        ([row([], a=[1, 2, 3])], ["row 1", "prompt is empty"]),
        ([row(a=[1, 2, 3]), row(n=1, a=[1])], ["row 2", "1 response;", "at least 2"]),
        ([row(n=0, a=[])], ["row 1", "0 responses", "at least 2"]),
        ([{**row(a=[1, 2]), "completions": ["x", ""]}], ["row 1", "response 2 is empty"]),
        ([row(a=[1, 2])], ["row 1", "objective 'a' has 2 labels for 3 responses"]),
        ([row(a=[1, 2, float("-inf")])], ["row 1", "'labels.a', value 3", "-inf"]),
        ([row(a=[1, 2, 10**400])], ["row 1", "'labels.a', value 3", "at most 3.4e+38"]),
        ([row(a=[1, 2, 1e39])], ["row 1", "'labels.a', value 3", "at most 3.4e+38"]),
        ([row(a=[1, 2, None]), row(a=[None] * 3), row(a=[1, 2])], ["row 3", "2 labels for 3 responses"]),
        ([{**row(a=[1, 2]), "completions": ["x", " \n"]}], ["row 1", "response 2 is empty"]),
        ([{**row(a=[1, 2]), "completions": ["x", "x"]}], ["row 1", "all 2 responses are the same"]),
        ([{**row(a=[1, 2]), "completions": ["x", "\ud83d!"]}], ["row 1", "response 2", "\\ud83d", "surrogate"]),
        ([row(a=[1, 2, 3]), {"prompt": "p"}], ["row 2", "no column 'completions'"]),
        ([{"text": "p"}], ["row 1", "found the columns text", "groups: prompt, completions, labels"]),
        ([row(a=None), row(a=None)], ["objective 'a' has no label in any of 2 groups"]),
        ([row()], ["no objective in any of 1 groups"]),
        ([], ["no rows"]),
    ],
)
def test_bad_rows_are_refused_with_their_number(rows, words):
    with refused(*words):
        read_preferences(rows)


def test_bad_arguments_are_refused():
    rows = [row(a=[1, 2, 3], b=None)]
    with refused("no objective 'z'", "the objectives are a, b"):
        read_preferences(rows, objectives=["a", "z"])
    with refused("objective 'b' has no label"):
        read_preferences(rows, objectives=["a", "b"])
    layouts = "auto, groups, scores, pku, helpsteer3, helpsteer2, pairs, ultrafeedback or helpsteer"
    with refused(f"format is 'trl'; expected {layouts}"):
        read_preferences(rows, format="trl")
    with refused("fromat is not a setting; did you mean format?"):
        read_preferences(rows, fromat="pairs")
    with refused("ignore_columns is 3; expected a list of texts"):
        read_preferences(rows, ignore_columns=3)
    with refused("column 'prompt' is both the prompt and ignored"):
        read_preferences(rows, prompt_column="prompt", ignore_columns=["prompt"])
    with refused("row 1", "no column 'responses'"):
        read_preferences(rows, format="scores")
    for objectives in ([], ["a", "a"], "a"):
        with refused("distinct names"):
            read_preferences(rows, objectives=objectives)


def test_a_bad_line_of_a_file_is_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(f"{json.dumps(row(a=[1, 2, 3]))}\n\n{json.dumps(row(a=[1, 2]))}\n")
    with refused(f"{path}:3:", "2 labels for 3 responses"):
        read_preferences(path)


def test_what_is_written_reads_back(tmp_path):
    conversation = [{"role": "user", "content": "Grüße"}]
    rows = [row("p", a=[0.1, -2, 3], b=[0, 1, 0]), row(conversation, 2, a=None, b=[1, 0])]
    first = read_preferences(rows)
    for name in ("data.jsonl", "data.jsonl.gz"):
        write_preferences(first, tmp_path / name)
        again = read_preferences(str(tmp_path / name))
        assert (again.groups, again.objectives) == (first.groups, first.objectives)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl", "data.jsonl.gz"]
    with refused("data.json", ".jsonl"):
        write_preferences(first, tmp_path / "data.json")


def test_a_conversation_that_only_looks_like_a_text_is_another_prompt():
    text = PreferenceGroup('[{"role": "user", "content": "Hi"}]', ("a", "b"), {})
    messages = PreferenceGroup([{"content": "Hi", "role": "user"}], ("a", "b"), {})
    assert text.prompt_key != messages.prompt_key
    assert messages.prompt_key == PreferenceGroup([{"role": "user", "content": "Hi"}], ("c", "d"), {}).prompt_key


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_have_one_objective_with_a_name_that_can_be_chosen():
    rows = [pair("p", "a", "b")]
    assert read_preferences(rows).groups[0].labels == {"preferred": (1.0, 0.0)}
    assert read_preferences(rows, objectives=["polite"]).objectives == ("polite",)
    with refused("pairs carry one objective", "merge_pairs"):
        read_preferences(rows, objectives=["polite", "short"])


def test_merged_pairs_are_one_group_where_objectives_cover_the_same_pair():
    helpful = [pair("p", "a", "b"), pair("q", "a", "b")]
    harmless = [pair("p", "b", "a"), pair("r", "a", "b")]
    found = merge_pairs({"helpful": helpful, "harmless": harmless})
    assert found.objectives == ("helpful", "harmless")
    assert [(g.prompt, g.completions, g.labels) for g in found.groups] == [
        ("p", ("a", "b"), {"helpful": (1.0, 0.0), "harmless": (0.0, 1.0)}),
        ("q", ("a", "b"), {"helpful": (1.0, 0.0)}),
        ("r", ("a", "b"), {"harmless": (1.0, 0.0)}),
    ]


def test_a_pair_that_one_objective_has_twice_stays_two_groups():
    found = merge_pairs({"x": [pair("p", "a", "b"), pair("p", "b", "a")], "y": [pair("p", "a", "b")] * 3})
    assert [(g.completions, g.labels) for g in found.groups] == [
        (("a", "b"), {"x": (1.0, 0.0), "y": (1.0, 0.0)}),
        (("b", "a"), {"x": (1.0, 0.0), "y": (0.0, 1.0)}),
        (("a", "b"), {"y": (1.0, 0.0)}),
    ]


def test_pairs_of_other_responses_to_the_same_prompt_are_not_merged():
    assert len(merge_pairs({"x": [pair("p", "a", "b")], "y": [pair("p", "a", "c")]})) == 2


def test_merging_refuses_what_is_no_pair():
    with refused("row 1", "no column 'chosen'"):
        merge_pairs({"x": [row(a=[1, 2, 3])]})
    with refused("no data set"):
        merge_pairs({})


# Parts ----------------------------------------------------------------------------------------------------------------


def preferences(count: int, prompts: int | None = None) -> Preferences:
    return read_preferences(
        [row(f"p{i % (prompts or count)}", 2 + i % 3, a=list(range(2 + i % 3))) for i in range(count)]
    )


def test_a_split_holds_every_group_once_and_depends_on_the_seed():
    whole = preferences(50)
    parts = whole.split((0.6, 0.2, 0.2), seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 30, "validation": 10, "test": 10}
    assert sorted(g.place for part in parts.values() for g in part.groups) == sorted(g.place for g in whole.groups)
    assert parts == whole.split((0.6, 0.2, 0.2), seed=3) != whole.split((0.6, 0.2, 0.2), seed=4)
    assert parts["test"].objectives == whole.objectives


def test_groups_of_one_prompt_are_never_in_two_parts():
    parts = preferences(60, prompts=20).split((0.5, 0.25, 0.25), seed=0)
    prompts = [{g.prompt for g in part.groups} for part in parts.values()]
    assert [len(p) for p in prompts] == [10, 5, 5]
    assert len(set.union(*prompts)) == 20
    assert [len(part) for part in parts.values()] == [30, 15, 15]


def test_more_parts_than_prompts_are_refused():
    with refused("rows: split: found 2 groups", "the same prompt count once"):
        preferences(10, prompts=2).split((0.6, 0.2, 0.2), seed=0)


def test_select_keeps_the_order_that_is_asked_for():
    whole = preferences(5)
    chosen = whole.select(np.array([4, 0]))
    assert chosen.groups == (whole.groups[4], whole.groups[0])
    assert chosen.place(0) == "rows: row 5"


def test_a_directory_of_parts_is_read_by_name(tmp_path):
    write_preferences(preferences(6), tmp_path / "train.jsonl")
    write_preferences(preferences(3), tmp_path / "vali.jsonl.gz")
    (tmp_path / "README.md").write_text("")
    parts = read_splits(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 6, "validation": 3}
    with refused(str(tmp_path), "read_splits"):
        read_preferences(tmp_path)


def test_shards_are_one_part(tmp_path):
    for i in range(2):
        write_preferences(preferences(4), tmp_path / f"train-0000{i}-of-00002.jsonl")
    write_preferences(preferences(2), tmp_path / "test.jsonl")
    parts = read_splits(str(tmp_path))
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "test": 2}
    assert "train-00001-of-00002.jsonl:1" in parts["train"].place(4)


def test_a_mapping_of_data_sets_and_what_datasets_saved_are_parts_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [row("p", a=[1, 2, 3], b=None), row("q", a=[1, 2, 3], b=[0, 0, 1])]
    parts = datasets.DatasetDict(train=datasets.Dataset.from_list(rows), test=datasets.Dataset.from_list(rows[1:]))
    parts.save_to_disk(tmp_path)
    for source in (parts, tmp_path):
        found = read_splits(source, objectives=["b", "a"])
        assert {name: (len(part), part.objectives) for name, part in found.items()} == {
            "train": (2, ("b", "a")),
            "test": (1, ("b", "a")),
        }


def test_parts_without_a_training_part_are_refused(tmp_path):
    with refused(str(tmp_path), "the parts none", "expected train"):
        read_splits(tmp_path)
    with refused("the parts test"):
        read_splits({"test": [row(a=[1, 2, 3])]})
    with refused("not a directory"):
        read_splits(tmp_path / "absent")
    with refused("splits: found list"):
        read_splits([row(a=[1, 2, 3])])


# Targets --------------------------------------------------------------------------------------------------------------


def test_binary_labels_have_l1_targets_by_default_and_others_softmax_of_standardised_values():
    found = default_objectives(read_preferences([row(a=[0, 1, 0], b=[1, 5, 2])]))
    assert [(o.name, o.target, o.transform) for o in found] == [("a", "l1", "none"), ("b", "softmax", "standardize")]


def test_targets_of_a_group_are_written_out():
    data = read_preferences([row("p", a=[0, 1, 1], b=[1, 2, 4]), row("q", 2, b=[3, 0]), row("r", 2, a=[0, 0])])
    objectives = (Objective(name="a", target="l1"), Objective(name="b", transform="none", target_temperature=2.0))
    (first, signal, _), second, third = to_targets(data, objectives)
    e = np.exp(np.array([1.0, 2.0, 4.0]) / 2)
    np.testing.assert_allclose(first, [[0, 0.5, 0.5], e / e.sum()], rtol=1e-6)
    assert signal.tolist() == [True, True]
    e = np.exp(np.array([3.0, 0.0]) / 2)
    np.testing.assert_allclose(second[0], [[0, 0], e / e.sum()], rtol=1e-6)
    assert second[1].tolist() == [False, True]
    assert not third[0].any(), "an all-zero l1 label and an absent one both say nothing"
    assert third[1].tolist() == [False, False]
    assert (first.dtype, signal.dtype) == (np.float32, np.bool_)


def test_targets_are_those_of_ranking():
    rng = np.random.default_rng(0)
    rows = [
        row(f"p{i}", n, a=rng.integers(0, 3, n), b=rng.normal(size=n)) for i, n in enumerate(rng.integers(2, 6, 40))
    ]
    data = read_preferences(rows)
    objectives = fit_objectives(
        data,
        [
            Objective(name="x", column="a", target="l1", direction="minimize"),
            Objective(name="b", target_temperature=0.5),
        ],
    )
    sizes = np.array([len(r["completions"]) for r in rows])
    raw = [np.concatenate([r["labels"][c] for r in rows]).astype(np.float32) for c in ("a", "b")]
    gains = np.stack([o.gains(z) for o, z in zip(objectives, raw, strict=True)], axis=1)
    expected, expected_signal = label_targets(sizes, gains, objectives)
    found = to_targets(data, objectives)
    np.testing.assert_array_equal(np.concatenate([t.T for t, _, _ in found]), expected)
    np.testing.assert_array_equal(np.stack([s for _, s, _ in found]), expected_signal)


def test_transforms_are_fitted_on_the_training_groups_and_used_on_others():
    train = read_preferences([row("p", a=[0, 2, 4])])
    (fitted,) = fit_objectives(train, [Objective(name="a")])
    assert (fitted.center, fitted.spread) == (2.0, pytest.approx(np.sqrt(8 / 3)))
    ((targets, _, _),) = to_targets(read_preferences([row("q", 2, a=[10, 0])]), [fitted])
    assert targets[0, 0] == pytest.approx(1 / (1 + np.exp(-10 / np.sqrt(8 / 3))))


def test_negative_labels_serve_softmax_and_are_refused_for_l1_with_their_row():
    data = read_preferences([row("p", 2, a=[0, 1]), row("q", 2, b=[1, 1]), row("r", 2, a=[0, -1.5])], objectives=["a"])
    assert to_targets(data, fit_objectives(data, [Objective(name="a")]))[2][1].all()
    with refused("rows: row 3", "-1.5", "objective 'a'", "at least 0 for target l1"):
        to_targets(data, [Objective(name="a", target="l1")])
    with refused("rows: row 3", "at least 0 for transform log1p"):
        to_targets(data.select([1, 2]), [Objective(name="a", transform="log1p")])


def test_objectives_that_do_not_suit_the_data_are_refused():
    data = read_preferences([row("p", a=[0, 1, 2]), row("q", b=[0, 1, 2])])
    with refused("no objective 'c'", "a, b"):
        to_targets(data, [Objective(name="c")])
    with refused("not known before the label is fitted"):
        to_targets(data, [Objective(name="a")])
    with refused("no training group has a label for objective 'b'"):
        fit_objectives(data.select([0]), [Objective(name="b")])


# Real files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "groups", "largest"), [("sfhot.jsonl", 366, 10), ("sfres.jsonl", 542, 6)])
def test_real_listwise_scores(name, groups, largest):
    data = read_preferences(real(name))
    assert len(data) == groups
    assert data.objectives == ("informativeness", "naturalness", "quality")
    assert max(len(group.completions) for group in data.groups) == largest
    targets = to_targets(data, fit_objectives(data, default_objectives(data)))
    assert all(signal.all() for _, signal, _ in targets)
    np.testing.assert_allclose([t.sum(1) for t, _, _ in targets], 1, rtol=1e-5)


def test_real_pku_rows():
    data = read_preferences(real("pku_saferlhf_sample.jsonl"))
    assert data.objectives == ("helpful", "harmless")
    rows = [json.loads(line) for line in real("pku_saferlhf_sample.jsonl").read_text().splitlines()]
    for group, expected in zip(data.groups, rows, strict=True):
        assert (
            group.completions[int(np.argmax(group.labels["harmless"]))]
            == (expected[f"response_{expected['safer_response_id']}"])
        )
    assert [o.target for o in default_objectives(data)] == ["l1", "l1"]


def test_text_in_a_parquet_file_that_is_no_utf8_is_refused(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    prompts = pa.array([b"\xb3x"], pa.binary()).view(pa.string())
    table = pa.table({"prompt": prompts, "completions": [["a", "b"]], "labels": [{"low": [0.0, 1.0]}]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet: .*utf-8.*; expected a whole Parquet file"):
        read_preferences(tmp_path / "rows.parquet")
