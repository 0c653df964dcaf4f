"""The layouts of common preference sets: which columns hold what, and what is said of the others."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from helpers import is_one_line

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.errors import InputError
from hyperdpo.options import PREFERENCE_FORMATS


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


LABELS = {"completions": ["yes", "no"], "labels": {"a": [1, 0]}}
SIDES = {"chosen": "yes", "rejected": "no"}
TURNS = {"chosen": [assistant("yes")], "rejected": [assistant("no")]}
WHOLE = {"chosen": [user("Why?"), assistant("yes")], "rejected": [user("Why?"), assistant("no")]}


def refused(rows: Any, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as error:
        read_preferences(rows, **options)
    assert is_one_line(error.value, *words), str(error.value)


def only(rows: Any, **options: Any) -> Any:
    (group,) = read_preferences(rows if isinstance(rows, list) else [rows], **options).groups
    return group


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Why?", **LABELS}, "Why?"),
        ({"question": "Why?", **LABELS}, "Why?"),
        ({"query": "Why?", **SIDES}, "Why?"),
        ({"instruction": "Add.", "input": "1 + 1", **SIDES}, "Add.\n1 + 1"),
        ({"instruction": "Add.", "input": "", **SIDES}, "Add."),
        ({"instruction": "Add.", "input": None, **LABELS}, "Add."),
        ({"instruction": None, "input": "Why?", **LABELS}, "Why?"),
        ({"instruction": "", "input": "Why?", **SIDES}, "Why?"),
        ({"system": "Be nice.", "question": "Why?", **SIDES}, "Be nice.\n\nWhy?"),
        ({"system": "", "question": "Why?", **SIDES}, "Why?"),
        ({"system": "Be nice.", "question": "Why?", **TURNS}, [system("Be nice."), user("Why?")]),
        ({"system": "Be nice.", **WHOLE}, [system("Be nice."), user("Why?")]),
        ({"system": "Be nice.", "prompt": [system("Be nice."), user("Why?")], **TURNS},
         [system("Be nice."), user("Why?")]),
        ({"prompt": "Why?", **TURNS}, [user("Why?")]),
        ({"prompt": "Why?", "chosen": assistant("yes"), "rejected": assistant("no")}, [user("Why?")]),
        ({"prompt": "Why?", **WHOLE}, [user("Why?")]),
        ({"prompt": [system("Be nice."), user("Why?")], **WHOLE}, [system("Be nice."), user("Why?")]),
        (WHOLE, [user("Why?")]),
        ({"prompt": "Why?", "chosen": "\n\nHuman: Why?\n\nAssistant: yes",
          "rejected": "\n\nHuman: Why?\n\nAssistant: no"}, "\n\nHuman: Why?\n\nAssistant:"),
        ({"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "yes"},
          "rejected": {"from": "gpt", "value": "no"}}, [user("Why?")]),
    ],
)  # fmt: skip
def test_the_prompt_is_found_wherever_it_stands(row, prompt):
    group = only(row, prompt_column="conversations" if "conversations" in row else None)
    assert group.prompt == prompt
    assert tuple(text.strip() for text in group.completions) == ("yes", "no")
    assert group.question in ("Why?", "Add.", "Add. 1 + 1"), "the first user turn, without the system message"


def test_another_column_can_be_the_prompt():
    assert only({"topic": "Why?", **LABELS}, prompt_column="topic").prompt == "Why?"
    refused([{"topic": "Why?", **LABELS}], "topic", "--prompt-column")
    refused([{"topic": "Why?", **LABELS}], "no column 'tropic'", prompt_column="tropic")
    refused([{"prompt": "Why?", **SIDES}], "chosen", "another column", prompt_column="chosen")


def test_two_prompts_in_a_row_are_never_chosen_between():
    refused([{"prompt": "Why?", "question": "How?", **SIDES}], "column 'question'", "--ignore-columns question")
    assert only({"prompt": "Why?", "question": "How?", **SIDES}, ignore_columns=["question"]).prompt == "Why?"
    assert only({"prompt": "Why?", "question": " Why?", **SIDES}).prompt == "Why?", "both say the same"
    refused([{"system": "Be nice.", "prompt": [system("Be rude."), user("Why?")], **TURNS}], "another system message")
    refused(
        [{"prompt": "How do I do this?", **WHOLE}], "row 1", "not part of the conversation", "--ignore-columns prompt"
    )
    assert only({"prompt": "How do I do this?", **WHOLE}, ignore_columns=["prompt"]).prompt == [user("Why?")]


@pytest.mark.parametrize("empty", ["", " \n", None, [], [user(" ")], [system("Be nice."), user("")]])
@pytest.mark.parametrize("name", ["prompt", "question", "topic"])
@pytest.mark.parametrize(
    "more",
    [
        {"chosen": "I like cats", "rejected": "I like dogs"},
        {"chosen": "Human: Why? Assistant: yes", "rejected": "Human: Why? Assistant: no"},
        {"system": "Be nice.", **SIDES},
        WHOLE,
        TURNS,
        LABELS,
        {"response_0": "a", "response_1": "b", "better_response_id": 0},
    ],
)
def test_an_empty_prompt_is_refused_and_never_guessed(empty, name, more):
    options = {"prompt_column": name if name == "topic" else None}
    rows = [
        {name: "Is it so?" if isinstance(empty, str | None) else [user("Is it so?")], **more},
        {name: empty, **more},
    ]
    if more is WHOLE:
        rows[0][name] = "Why?"
    refused(rows, "row 2", f"the prompt is empty (column {name!r})", "expected a text", **options)
    refused(rows[::-1], "row 1", "the prompt is empty", f"{name!r}", **options)
    with pytest.warns(UserWarning, match="left out 1 of 2 rows: an empty prompt"):
        assert len(read_preferences(rows, skip_invalid=True, **options)) == 1


def test_a_row_without_the_column_of_the_prompt_is_refused():
    rows = [{"q2": "Why?", "chosen": "I like cats", "rejected": "I like dogs"}, {"chosen": "I am", "rejected": "I do"}]
    refused(rows, "row 2", "no column 'q2'", prompt_column="q2")
    with pytest.warns(UserWarning, match="left out 1 of 2 rows: no column 'q2'"):
        assert only(rows, prompt_column="q2", skip_invalid=True).prompt == "Why?"
    rows = [{"prompt": "", "chosen": "I like cats", "rejected": "I like dogs"}]
    assert only(rows, ignore_columns=["prompt"]).prompt == "I like", "asked for: the common beginning"


# UltraFeedback --------------------------------------------------------------------------------------------------------


def ultra(*ratings: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row of openbmb/UltraFeedback."""
    completions = [
        {
            "model": f"m{k}", "principle": "honesty", "custom_system_prompt": "Be honest, whatever it costs you.",
            "response": f"answer {k}", "overall_score": 7.5, "fine-grained_score": 3.0, "critique": "Good, but long.",
            "annotations": {name: {"Rating": value, "Rationale": "because"} for name, value in one.items()},
        }
        for k, one in enumerate(ratings)
    ]  # fmt: skip
    row = {"source": "evol", "instruction": "Why?", "models": ["m0", "m1"], "completions": completions}
    return {**row, "correct_answers": ["None"], "incorrect_answers": ["None"], **more}


def test_ultrafeedback_has_an_objective_for_each_aspect_and_a_missing_rating_is_of_one_response():
    found = read_preferences(
        [ultra({"honesty": "5", "helpfulness": "4"}, {"honesty": "N/A", "helpfulness": 2}, {"helpfulness": "3"})]
    )
    assert found.objectives == ("honesty", "helpfulness")
    (group,) = found.groups
    assert group.labels["helpfulness"] == (4.0, 2.0, 3.0)
    assert group.labels["honesty"][0] == 5.0
    assert [math.isnan(value) for value in group.labels["honesty"]] == [False, True, True]
    assert (group.prompt, group.completions) == ("Why?", ("answer 0", "answer 1", "answer 2"))


def test_ultrafeedback_reads_alike_from_arrow_and_null_annotations_are_missing():
    rows = [ultra({"honesty": "5"}, {"honesty": "1"}), ultra({"honesty": "2"}, {"honesty": "N/A"}, {"honesty": "3"})]
    rows[1]["completions"][1]["annotations"] = None
    for source in (rows, pa.Table.from_pylist(rows)):
        found = read_preferences(source)
        assert [list(map(str, g.labels["honesty"])) for g in found.groups] == [["5.0", "1.0"], ["2.0", "nan", "3.0"]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ultra({"honesty": "good"}, {"honesty": "1"}), ["completions[0], honesty", "'good'", "number or N/A"]),
        (ultra({"honesty": "5"}), ["1 response;"]),
        ({**ultra({"honesty": "5"}), "completions": ["a", "b"]}, ["'completions'", "response and annotations"]),
    ],
)
def test_a_row_of_ultrafeedback_that_cannot_be_used_is_refused(row, words):
    refused([row], "row 1", *words)


# HelpSteer ------------------------------------------------------------------------------------------------------------


def steer(prompt: str, response: str, **labels: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **labels}


def test_rows_of_helpsteer_with_the_same_prompt_are_a_group_wherever_they_stand():
    rows = [
        steer("p", "a", helpfulness=4, verbosity=1),
        steer("q", "b", helpfulness=3, verbosity=2),
        steer("p", "c", helpfulness=1, verbosity=None),
        steer("alone", "d", helpfulness=1, verbosity=1),
        steer("q", "e", helpfulness=0, verbosity=3),
    ]
    with pytest.warns(UserWarning, match=r"left out 1 prompts with one response only \(first: rows: row 4\)"):
        found = read_preferences(rows)
    assert found.objectives == ("helpfulness", "verbosity")
    assert [(g.prompt, g.completions, g.place) for g in found.groups] == [
        ("p", ("a", "c"), "rows: row 1"),
        ("q", ("b", "e"), "rows: row 2"),
    ]
    assert found.groups[0].labels["helpfulness"] == (4.0, 1.0)
    assert math.isnan(found.groups[0].labels["verbosity"][1])
    refused([steer("p", "a", helpfulness=1), steer("q", "b", helpfulness=2)], "2 prompts with one response only")


def test_what_only_numbers_the_rows_is_no_objective():
    rows = [steer(f"p{i // 2}", f"a{i}", helpfulness=i % 3, id=7 * i, number=9 - i) for i in range(10)]
    with pytest.warns(UserWarning, match="not used: id, number"):
        assert read_preferences(rows).objectives == ("helpfulness",)
    with pytest.warns(UserWarning, match="not used: id"):
        assert read_preferences(rows, objectives=["number"]).objectives == ("number",)


@pytest.mark.parametrize("write", [str, float, lambda value: f" {value}.0 "])
def test_ratings_may_be_written_as_texts(write):
    rows = [steer(f"p{i // 2}", f"a{i}", helpfulness=write(i % 3), fun=write(i % 5)) for i in range(10)]
    rows[3]["fun"] = "N/A"
    found = read_preferences(rows)
    assert found.objectives == ("helpfulness", "fun")
    assert [g.labels["helpfulness"] for g in found.groups] == [(0, 1), (2, 0), (1, 2), (0, 1), (2, 0)]
    assert [math.isnan(value) for value in found.groups[1].labels["fun"]] == [False, True]


@pytest.mark.parametrize("write", [str, float])
def test_a_cell_that_is_no_number_in_a_column_of_numbers_is_refused_with_its_row(write):
    rows = [steer(f"p{i // 2}", f"a{i}", helpfulness=write(i % 3), fun=write(i % 4)) for i in range(20)]
    rows[6]["helpfulness"] = rows[9]["helpfulness"] = "2,5"
    refused(rows, "rows: row 7", "'helpfulness'", "'2,5', and 18 of its 20 values are numbers", "a number or null")
    with pytest.warns(UserWarning, match="left out 2 of 20 rows: column 'helpfulness' is no number"):
        assert len(read_preferences(rows, skip_invalid=True)) == 8
    rows[0]["helpfulness"] = "good"
    with pytest.warns(UserWarning, match="columns that are not used: helpfulness"):
        assert read_preferences(rows).objectives == ("fun",)
    refused(rows, "rows: row 1", "'helpfulness'", "'good'", objectives=["helpfulness"])
    rows = [{name: value for name, value in row.items() if name != "fun"} for row in rows]
    refused(rows, "no objective", "not used: helpfulness")


def preference(strength: Any, **more: Any) -> dict[str, Any]:
    """A row of HelpSteer2's preferences."""
    row = {"split": "train", "prompt": f"Why {strength}?", "response_1": "a", "response_2": "b"}
    statement = f"@Response 2 is better than @Response 1 by {strength} points."
    return {**row, "preference_strength": strength, "preference_statement": statement, **more}


def test_helpsteer_2_has_a_preference_for_pairs_too():
    rows = [preference(value, preference_elaboration=f"{LONG[0]} {value}") for value in (-3, 2, "1", 0, None)]
    with pytest.warns(UserWarning, match="2 of 5 pairs have no label: no response is preferred") as told:
        found = read_preferences(rows)
    assert len(told) == 1
    assert found.objectives == ("preference_strength",)
    assert [g.labels.get("preference_strength") for g in found.groups] == [(1, 0), (0, 1), (0, 1), None, None]
    assert found.groups[0].completions == ("a", "b")
    refused([preference(4)], "row 1", "'preference_strength' is 4", "-3 to 3")
    refused([preference("much")], "row 1", "'preference_strength' is 'much'", "a number")


def test_ratings_beside_a_preference_are_named_as_not_used():
    rows = [preference(value, helpfulness_1=3, helpfulness_2=4) for value in (-1, 1)]
    with pytest.warns(UserWarning, match="columns that are not used: helpfulness_1, helpfulness_2"):
        assert read_preferences(rows).objectives == ("preference_strength",)


def test_helpsteer_2_may_have_several_turns_in_its_prompt():
    many = "What is red?<extra_id_1>Assistant\nA colour.<extra_id_1>User\nAnd blue?"
    group = only([steer(many, "a", helpfulness=1), steer(many, "b", helpfulness=2)])
    assert (group.prompt, group.question) == (many, "What is red?")


def test_helpsteer_3_has_a_preference_for_pairs_and_0_is_none():
    rows = [
        {"domain": "code", "language": "english", "context": [user("Why?")], "response1": "a", "response2": "b",
         "overall_preference": value, "individual_preference": [{"score": value, "reasoning": "It is a longer text."}]}
        for value in (-3, 2, 0)
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="1 of 3 pairs have no label"):
        found = read_preferences(rows)
    assert found.objectives == ("overall_preference",)
    assert [g.labels for g in found.groups] == [{"overall_preference": (1, 0)}, {"overall_preference": (0, 1)}, {}]
    assert found.groups[0].prompt == [user("Why?")]
    refused([{**rows[0], "overall_preference": 4}], "row 1", "'overall_preference' is 4", "-3 to 3")


# Transcripts ----------------------------------------------------------------------------------------------------------


def transcript(*turns: str) -> str:
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[k % 2]}: {turn}" for k, turn in enumerate(turns))


def test_a_response_may_be_the_beginning_of_the_other():
    group = only({"chosen": transcript("Why?", "so"), "rejected": transcript("Why?", "so it is")})
    assert group.completions == (" so", " so it is")
    assert only({"prompt": "p", "chosen": "so", "rejected": "so it is"}).completions == ("so", "so it is")
    turns = {"chosen": [user("p"), assistant("so")], "rejected": [user("p"), assistant("so it is")]}
    assert only(turns).completions == ("so", "so it is")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": transcript("p", "a"), "rejected": transcript("p", "a")}, ["are the same"]),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, ["are the same"]),
        ({"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("a")]}, ["are the same"]),
        ({"chosen": transcript("p", "a"), "rejected": transcript("p", "")}, ["response 2 is empty"]),
        ({"prompt": "p", "chosen": "a", "rejected": " "}, ["response 2 is empty"]),
        ({"chosen": "Sky", "rejected": "Sky is"}, ["the beginning of the other", "a column with the prompt"]),
        ({"chosen": [user("p"), assistant("a")], "rejected": [user("p")]}, ["continues the other"]),
        ({"prompt": [user("p"), {"role": "user", "content": [{"type": "image", "url": "x"}]}], **TURNS},
         ["message 2, part 1", "'image'", "text only"]),
        ({"prompt": "p\udc80", **SIDES}, ["the prompt", "surrogate"]),
        ({"prompt": "p", "completions": ["a", "b"], "labels": {"\ud83d": [1, 0]}}, ["objective", "surrogate"]),
        ({"prompt": "p", "completions": ["a", "b"], "labels": {"x": [1e400, 0]}}, ["'labels.x'", "inf", "finite"]),
    ],
)  # fmt: skip
def test_a_pair_that_cannot_be_used_is_refused_for_the_right_reason(row, words):
    refused([row], "rows: row 1", *words)


# Columns that are left over -------------------------------------------------------------------------------------------

LONG = ["The rain in Spain stays in the plain", "A quick brown fox jumps over it", "Lorem ipsum dolor sit amet x"]


def pairs(**columns: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{i}", "chosen": "a", "rejected": "b", **{name: values[i] for name, values in columns.items()}}
        for i in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("context", ["one", "two", "two"]),
        ("system_prompt", ["x", "x", "x"]),
        ("chatHistory", [[user("one")], [user("two")], None]),
        ("body", LONG),
        ("notes", [{"text": one} for one in LONG]),
        ("messages", [[user(one)] for one in LONG]),
    ],
)
def test_a_column_that_could_be_part_of_the_prompt_is_refused_by_name(name, values):
    refused(pairs(**{name: values}), f"column {name!r}", f"--prompt-column {name}", f"--ignore-columns {name}")
    assert len(read_preferences(pairs(**{name: values}), ignore_columns=[name])) == 3
    for source in (pa.Table.from_pylist(pairs(**{name: values})),):
        refused(source, f"column {name!r}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("prompt_source", ["web", "web", "book"]),
        ("split", ["train"] * 3),
        ("date", [20240101, 20240102, 20240103]),
        ("digest", [f"{i}a3f9c2b1e0d4567890abcdef12345678" for i in range(3)]),
        ("context", [None, "", None]),
        ("origin", [LONG[0]] * 3),
    ],
)
def test_other_columns_are_named_in_one_note(name, values):
    with pytest.warns(UserWarning, match=f"columns that are not used: {name}, more") as told:
        read_preferences(pairs(**{name: values}, more=[1, 2, 3]))
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["pandas", "nullable", "polars", "pyarrow", "datasets"])
def test_frames_are_read_by_the_same_rules(kind):
    rows: list[dict[str, Any]] = [
        {"question": "Why?", "response": "a", "fun": 1, "safe": 2, "id": 1, "system": None},
        {"question": "How?", "response": "b", "fun": 3, "safe": None, "id": 2, "system": "Be nice."},
        {"question": "Why?", "response": "c", "fun": 2, "safe": 1, "id": 3, "system": None},
        {"question": "How?", "response": "d", "fun": 0, "safe": 1, "id": 4, "system": "Be nice."},
    ]
    if kind == "pyarrow":
        source: Any = pa.Table.from_pylist(rows)
    elif kind == "datasets":
        source = pytest.importorskip("datasets").Dataset.from_list(rows)
    else:
        source = pytest.importorskip("polars" if kind == "polars" else "pandas").DataFrame(rows)
        source = source.convert_dtypes() if kind == "nullable" else source
    with pytest.warns(UserWarning, match="not used: id"):
        found = read_preferences(source)
    assert found.objectives == ("fun", "safe")
    assert [(g.prompt, g.completions) for g in found.groups] == [
        ("Why?", ("a", "c")),
        ("Be nice.\n\nHow?", ("b", "d")),
    ]
    assert found.groups[0].labels == {"fun": (1, 2), "safe": (2, 1)}
    assert [math.isnan(value) for value in found.groups[1].labels["safe"]] == [True, False]
    changed = source.rename_columns if kind == "pyarrow" else None
    if changed is not None:
        refused(changed(["question", "response", "fun", "safe", "id", "history"]), "column 'history'")


def test_columns_of_a_known_layout_are_never_left_over(recwarn):
    rows = [
        {"prompt": one, "prompt_id": f"{i}" * 64, "score_chosen": 8.0, "score_rejected": 5.0,
         "chosen": [user(one), assistant("yes")], "rejected": [user(one), assistant("no")],
         "messages": [user(one), assistant("yes")]}
        for i, one in enumerate(LONG)
    ]  # fmt: skip
    read_preferences(rows)
    read_preferences(pa.Table.from_pylist(rows))
    read_preferences([ultra({"a": 1}, {"a": 2})])
    assert not recwarn.list


def test_a_column_to_ignore_has_to_be_there():
    refused(pairs(), "no column 'contxt'", "--ignore-columns", ignore_columns=["contxt"])
    refused(pairs(), "both the prompt and ignored", prompt_column="prompt", ignore_columns=["prompt"])


# Rows that are left out -----------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path):
    good = {"prompt": "p", "completions": ["a", "b"], "labels": {"x": [1, 0]}}
    lines = [json.dumps(good), "{", "[1]", json.dumps({**good, "completions": ["a", ""]}), json.dumps(good)]
    lines += [json.dumps({**good, "completions": ["", "b"]}), json.dumps({**good, "completions": ["c", "c"]})]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines))
    refused(path, f"{path}:2:", "expected JSON")
    with pytest.warns(UserWarning, match="left out") as told:
        found = read_preferences(path, skip_invalid=True)
    assert len(found) == 2
    said = sorted(str(one.message).removeprefix(f"{path}: ") for one in told)
    assert said == [
        f"left out 1 of 7 rows: a line that is no JSON (first: {path}:2)",
        f"left out 1 of 7 rows: a line that is no object (first: {path}:3)",
        f"left out 1 of 7 rows: all responses are the same (first: {path}:7)",
        f"left out 2 of 7 rows: an empty response (first: {path}:4)",
    ]
    path.write_text("\n".join([lines[3]] * 2))
    refused(path, "no rows that can be used", "2 x an empty response", skip_invalid=True)


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    good = {"prompt": "p", "completions": ["a", "b"], "labels": {"x": [1, 0]}}
    for name, text in (("a.jsonl", json.dumps(good)), ("a.json", json.dumps([good])), ("b.json", json.dumps(good))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_preferences(tmp_path / name).groups == read_preferences([good]).groups


# A prompt that responses repeat ---------------------------------------------------------------------------------------


def test_a_prompt_that_the_responses_repeat_is_taken_off_and_counted():
    rows = [
        {"prompt": "Why is it so?", "chosen": "Why is it so? yes", "rejected": "Why is it so? no"},
        {"prompt": "q", **SIDES},
    ]
    with pytest.warns(UserWarning, match="responses of 1 of 2 groups begin with the prompt"):
        found = read_preferences(rows)
    assert [g.completions for g in found.groups] == [(" yes", " no"), ("yes", "no")]
    listwise = {"prompt": "Q: why\n", "completions": ["Q: why\nyes", "Q: why\nno"], "labels": {"a": [1, 0]}}
    with pytest.warns(UserWarning, match="1 of 1 groups"):
        assert only(listwise).completions == ("yes", "no")


def test_responses_that_only_begin_alike_keep_their_beginning(recwarn):
    rows = [
        {"prompt": "I", "chosen": "It is", "rejected": "I think"},
        {"prompt": "Why is it?", "chosen": "Why is it? a", "rejected": "b"},
    ]
    assert [g.completions for g in read_preferences(rows).groups] == [("It is", "I think"), ("Why is it? a", "b")]
    assert not recwarn.list


def test_the_command_offers_the_layouts_that_are_read():
    from hyperdpo.alignment.data.formats import FORMATS

    assert set(PREFERENCE_FORMATS) == {"auto", *FORMATS}
