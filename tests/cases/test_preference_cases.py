"""Small preference files that went wrong once: what is read, what is refused and why.

The files are those of ``cases/preferences``; the same kinds are made inside tests of ``tests/alignment``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import is_one_line, read

from hyperdpo.alignment.collation import tokenize_groups
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.errors import InputError

SHARED = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data").parent
CASES, MODEL = SHARED / "cases" / "preferences", SHARED / "models" / "stories260k"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir() or not MODEL.is_dir(), reason=f"{CASES} or {MODEL} is absent; HYPERDPO_DATA names another place"
)

TINY = ["--cpu", "--set", "conditioning.prompt_tokens=2", "--set", "training.max_steps=2"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def tokenized(name: str, tokenizer: Any, **options: Any) -> list[Any]:
    data = read_preferences(CASES / name)
    return tokenize_groups(data, to_targets(data, fit_objectives(data, default_objectives(data))), tokenizer, **options)


@pytest.fixture
def fit(command, tmp_path) -> Any:
    """``hyperdpo align fit FILE`` with a tiny setting."""

    def run(name: str, *more: str, model: Path = MODEL) -> Any:
        return command("align", "fit", CASES / name, "--model", model, "--out", tmp_path / "run", *TINY, *more)

    return run


def test_ultrafeedback_is_trained_with_an_objective_for_each_aspect(fit, tmp_path):
    done = fit("ultrafeedback.jsonl")
    assert done.code == 0, done.err
    data = read_preferences(CASES / "ultrafeedback.jsonl")
    assert data.objectives == ("helpfulness", "honesty", "instruction_following", "truthfulness")
    missing = [v for g in data.groups for values in g.labels.values() for v in values if v != v]
    assert missing, "the file has ratings that are N/A"
    assert all(set(g.labels) == set(data.objectives) for g in data.groups), "they are missing of one response only"
    assert "responses have none" in done.out
    assert [o["name"] for o in read(tmp_path / "run" / "run.json")["objectives"]] == list(data.objectives)


def test_helpsteer_rows_with_the_same_prompt_are_groups(fit):
    done = fit("helpsteer.jsonl", "--objectives", "helpfulness,verbosity")
    assert done.code == 0, done.err
    assert "objective verbosity: the label varies in" in done.out
    data = read_preferences(CASES / "helpsteer.jsonl")
    assert (len(data), {len(g.completions) for g in data.groups}) == (40, {2})
    assert data.objectives == ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def test_text_parts_are_one_text():
    first = json.loads((CASES / "parts.jsonl").read_text().splitlines()[0])["prompt"][0]["content"][0]["text"]
    assert read_preferences(CASES / "parts.jsonl").groups[0].prompt == [{"role": "user", "content": first}]


def test_a_prompt_that_is_a_text_beside_the_assistants_messages_is_the_users_turn():
    row = json.loads((CASES / "prompt_text_assistant_only.jsonl").read_text().splitlines()[0])
    group = read_preferences(CASES / "prompt_text_assistant_only.jsonl").groups[0]
    assert group.prompt == [{"role": "user", "content": row["prompt"]}]
    assert group.completions == (row["chosen"][0]["content"], row["rejected"][0]["content"])


def test_a_repeated_prompt_is_taken_off_and_counted(fit):
    done = fit("text_repeats_prompt.jsonl")
    assert done.code == 0, done.err
    assert "the responses of 40 of 40 groups begin with the prompt, which was taken off" in done.err
    with pytest.warns(UserWarning, match="taken off"):
        data = read_preferences(CASES / "text_repeats_prompt.jsonl")
    assert not any(text.startswith(group.prompt) for group in data.groups for text in group.completions)


def test_a_byte_order_mark_is_read():
    assert len(read_preferences(CASES / "bom.json")) == 40


def test_a_template_that_refuses_a_role_is_refused_with_the_row(fit, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    shutil.copy(CASES / "chat_template_refuses_system.jinja", model / "chat_template.jinja")
    done = fit("system.jsonl", model=model)
    assert done.refused("system.jsonl:", "the chat template refuses", "System role not supported"), done.err
    assert not (tmp_path / "run" / "run.json").exists()
    done = fit("system.jsonl", "--skip-invalid", model=model)
    assert done.refused("no group remains", "System role not supported"), done.err


REFUSED = [
    ("surrogate.jsonl", "surrogate", "half of a surrogate pair"),
    ("huge.jsonl", "expected a finite number", "too large"),
    ("binarized_same.jsonl", "chosen and rejected are the same", "chosen equals rejected"),
    ("hh_same.jsonl", "chosen and rejected are the same", "chosen equals rejected"),
    ("hh_empty.jsonl", "response 2 is empty", "an empty response"),
    ("empty.jsonl", "response 2 is empty", "an empty response"),
]


@pytest.mark.parametrize(("name", "words", "reason"), REFUSED)
def test_a_row_that_cannot_be_used_is_refused_or_counted(name, words, reason):
    rows = len((CASES / name).read_text().splitlines())
    with pytest.raises(InputError) as error:
        read_preferences(CASES / name)
    assert is_one_line(error.value, f"{name}:", words)
    with pytest.warns(UserWarning, match=f"left out 1 of {rows} rows: .*{reason}"):
        assert len(read_preferences(CASES / name, skip_invalid=True)) == rows - 1


def test_the_command_refuses_such_a_row_or_leaves_it_out(fit, command, tmp_path):
    done = fit("hh_same.jsonl")
    assert done.refused("hh_same.jsonl:6", "the same"), done.err
    done = fit("hh_same.jsonl", "--skip-invalid")
    assert done.code == 0, done.err
    assert done.err.count("left out 1 of 40 rows: chosen equals rejected") == 1
    run = tmp_path / "run"
    told = read(run / "run.json")["data"]
    assert told["reading"]["skip_invalid"] is True
    assert told["read"]["all"]["left_out"] == {"chosen equals rejected": 1}
    front = command("align", "front", run, CASES / "hh_same.jsonl", "--points", "2", "--cpu", "--out", run / "f.json")
    assert front.code == 0, front.err
    assert read(run / "f.json")["groups"]["split"] == "test", "read as the training read it"


def test_one_response_may_be_the_beginning_of_the_other():
    data = read_preferences(CASES / "hh_prefix.jsonl")
    assert len(data) == 40
    assert any(b.startswith(a) or a.startswith(b) for a, b in (group.completions for group in data.groups))


def test_pairs_that_are_equal_after_truncation_are_refused_if_none_remains(fit):
    cut = ["--set", "training.truncate=true", "--set", "training.max_length=60"]
    done = fit("truncated_alike.jsonl", *cut)
    assert done.refused("no group remains", "the same tokens once they are cut to 60 tokens"), done.err
    assert "train longer" not in done.err
    assert fit("truncated_alike.jsonl").code == 0, "whole, they differ"


def test_a_text_that_brings_its_own_beginning_and_end_has_them_once(tokenizer):
    for group in tokenized("pretemplated.jsonl", tokenizer):
        assert group.prompt_ids.count(tokenizer.bos_token_id) == 1
        assert group.prompt_ids[0] == tokenizer.bos_token_id
        for ids in group.completion_ids:
            assert ids.count(tokenizer.eos_token_id) == 1
            assert ids[-1] == tokenizer.eos_token_id


def test_a_setting_without_effect_is_refused(fit, tmp_path):
    done = fit("plain.jsonl", "--set", "training.label_smoothing_factor=0.45")
    assert done.refused("training.label_smoothing_factor is 0.45", "no effect"), done.err
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
    assert fit("plain.jsonl").code == 0
