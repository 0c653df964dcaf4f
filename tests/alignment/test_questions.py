"""Groups that share a question are on one side of a split, however the prompt was written or cut."""

from __future__ import annotations

from typing import Any

import pytest

from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences, read_splits
from hyperdpo.alignment.data.questions import question_of

LABELS = {"completions": ["x one", "y two"], "labels": {"a": [1, 0]}}

WRITTEN = [
    "Why is the sky blue?",
    "  Why is\tthe\nsky  blue? ",
    "\n\nHuman: Why is the sky blue?\n\nAssistant:",
    "Human: Why is the sky blue? Assistant:",
    "\n\nHuman: Why is the sky blue?\n\nAssistant: It is air.\n\nHuman: And red?\n\nAssistant:",
    "<s>User: Why is the sky blue?\nBot: ",
    "System: Be nice.\n\nUser: Why is the sky blue?\n\nAssistant:",
    "<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "<s>[INST] Why is the sky blue? [/INST]",
    "<|user|>\nWhy is the sky blue?</s>\n<|assistant|>\n",
    "### Instruction:\nWhy is the sky blue?\n\n### Response:\n",
    "Why is the sky blue?<extra_id_1>Assistant\nAir.<extra_id_1>User\nAnd red?",
    [{"role": "user", "content": "Why is the sky blue?"}],
    [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "Why is  the sky blue?\n"}],
    [{"role": "user", "content": "Why is the sky blue?"}, {"role": "assistant", "content": "Air."},
     {"role": "user", "content": "And red?"}],
]  # fmt: skip


@pytest.mark.parametrize("prompt", WRITTEN)
def test_the_question_is_the_first_user_turn(prompt):
    assert question_of(prompt) == "Why is the sky blue?"


@pytest.mark.parametrize(
    "text",
    [
        "What does the AI: Artificial Intelligence say",
        "Tell the user\nwhat the model\nsays",
        "Is a response: needed?",
        "The assistant: who is it?",
    ],
)
def test_a_text_that_only_mentions_speakers_is_the_question(text):
    assert question_of(text) == " ".join(text.split())


def many(shared: list[Any]) -> Preferences:
    rows = [{"prompt": one, **LABELS} for one in shared] + [{"prompt": f"Another {i}?", **LABELS} for i in range(20)]
    return read_preferences(rows)


@pytest.mark.parametrize("seed", range(5))
def test_a_question_is_never_on_two_sides(seed):
    data = many(WRITTEN)
    parts = data.split((0.6, 0.2, 0.2), seed)
    places = [{g.question for g in part.groups} for part in parts.values()]
    assert sum(len(one) for one in places) == 21
    assert len(set.union(*places)) == 21
    assert sorted(map(len, data.split((0.6, 0.2, 0.2), seed, version=1).values())) != sorted(map(len, parts.values()))


def test_distinct_prompts_are_split_as_they_were_before_there_were_versions():
    data = many([])
    assert data.split((0.6, 0.2, 0.2), 3) == data.split((0.6, 0.2, 0.2), 3, version=1)


def test_a_system_column_does_not_part_a_question():
    rows = [
        {"system": one, "question": "Why is the sky blue?", "chosen": "a", "rejected": "b"} for one in ("Be nice", "")
    ]
    assert read_preferences(rows).questions() == [0, 0]


def test_a_prompt_that_is_cut_into_the_responses_keeps_its_question():
    """Two texts that both go on with "It is", two that both go on otherwise."""
    answers = [(" It is air.", " It is so."), (" Because.", " No."), (" I know. It scatters.", " I know. It does not.")]
    rows = [{"chosen": f"Why is the sky blue?{a}", "rejected": f"Why is the sky blue?{b}"} for a, b in answers]
    rows.append({"chosen": "Why is the grass green? Yes.", "rejected": "Why is the grass green? No."})
    found = read_preferences(rows)
    assert found.questions() == [0, 0, 0, 1]
    assert found.groups[2].prompt == "Why is the sky blue? I know. It"


def test_parts_that_share_questions_are_named():
    rows = [{"prompt": one, **LABELS} for one in WRITTEN[:2]]
    with pytest.warns(UserWarning, match="1 of 1 test groups ask what training groups ask"):
        read_splits({"train": rows[:1], "test": rows[1:]})
