"""A run and its data: what it was trained on is found again, answers are whole, an unfinished checkpoint is no end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import is_one_line, read

from hyperdpo.alignment.run import AlignRun, last_checkpoint
from hyperdpo.alignment.sampling import new_texts
from hyperdpo.errors import InputError

QUICK = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2", "--epochs", "1"]
CONFIG = """
objectives:
  - {name: few, column: low, target: softmax}
training: {max_steps: 2, per_device_train_batch_size: 4}
"""


@pytest.fixture(scope="module")
def renamed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one of the two labels, under another name."""
    from hyperdpo.cli import main

    out = tmp_path_factory.mktemp("renamed")
    (out / "config.yaml").write_text(CONFIG)
    arguments = [
        place / "data.jsonl",
        "--model",
        place / "model",
        "--out",
        out / "run",
        "--config",
        out / "config.yaml",
    ]
    assert main(["align", "fit", *map(str, arguments), "--cpu"]) == 0
    return out / "run"


def test_a_front_is_measured_on_what_was_held_out_whatever_labels_were_taken(renamed, place, tmp_path, command):
    for split in ([], ["--split", "test"]):
        done = command("align", "front", renamed, place / "data.jsonl", "--out", tmp_path / "f.json", "--cpu", *split)
        assert done.code == 0, done.err
        front = read(tmp_path / "f.json")
        assert front["objectives"] == ["few"]
        assert front["groups"] == {"split": "test", "count": 4}
    done = command("choose", renamed, place / "data.jsonl", "--minimize", "few", "--points", "1", "--cpu")
    assert done.code == 0, done.err
    assert "4" in done.out


def test_a_run_on_a_directory_is_measured_on_its_test_part(place, tmp_path, command):
    lines = (place / "data.jsonl").read_text().splitlines(keepends=True)
    data = tmp_path / "parts"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(lines[:15]))
    (data / "test.jsonl").write_text("".join(lines[15:]))
    run = tmp_path / "run"
    assert command("align", "fit", data, "--model", place / "model", "--out", run, *QUICK).code == 0
    assert command("align", "front", run, data, "--points", "2", "--out", tmp_path / "f.json", "--cpu").code == 0
    assert read(tmp_path / "f.json")["groups"]["count"] == 5
    refused = command("align", "front", run, data / "train.jsonl", "--points", "2", "--cpu")
    assert refused.refused("trained on all of it", "test file", "--split all"), refused.err
    assert command("align", "front", run, data / "train.jsonl", "--split", "all", "--points", "2", "--cpu").code == 0


def test_a_front_at_another_scale_alone_has_no_control_span_and_is_written(renamed, place, tmp_path, command):
    arguments = ["align", "front", renamed, place / "data.jsonl", "--scales", "2", "--out", tmp_path / "f.json"]
    done = command(*arguments, "--cpu")
    assert done.code == 0, done.err
    assert read(tmp_path / "f.json")["control_span"] == {}


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(place, tmp_path, command, monkeypatch):
    start = [
        "align",
        "fit",
        place / "data.jsonl",
        "--model",
        place / "model",
        "--out",
        tmp_path / "run",
        *QUICK[:-1],
        "2",
    ]
    start += ["--set", "training.save_total_limit=2"]
    with monkeypatch.context() as patch:
        patch.setattr(AlignRun, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command(*start).code == 130
    checkpoints = tmp_path / "run" / "checkpoints"
    newest = Path(str(last_checkpoint(checkpoints)))
    (newest / "trainer_state.json").unlink()
    older = last_checkpoint(checkpoints)
    assert older is not None
    assert older != str(newest)
    done = command(*start)
    assert done.code == 0, done.err
    assert older in done.err
    assert last_checkpoint(tmp_path / "nowhere") is None


class Dropping:
    """A tokenizer whose decoder drops the space before the first word, as SentencePiece's does."""

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        return ["".join({1: " The", 2: " cat", 3: " sat"}[t] for t in row).lstrip() for row in rows]


def test_an_answer_keeps_the_space_before_its_first_word():
    assert new_texts(Dropping(), [[1, 2], [1]], [[1, 2, 3], [1, 2, 3]]) == [" sat", " cat sat"]


@pytest.mark.parametrize("conversations", [False, True])
def test_prompts_are_put_into_the_chat_template_where_training_did(renamed, conversations):
    run = AlignRun.load(renamed)
    assert run.data["conversations"] is False
    run.data["conversations"] = conversations
    run.tokenizer.chat_template = "{% for m in messages %}w3 w4 {{ m['content'] }} w5{% endfor %}"
    seen = []
    original = run.model.generate

    def spy(ids: Any, mask: Any, **settings: Any) -> Any:
        seen.append(ids[0].tolist())
        return original(ids, mask, **settings)

    run.model.generate = spy  # type: ignore[method-assign]
    run.generate(["w7 w8"], np.ones(1), max_new_tokens=1)
    plain = run.tokenizer("w7 w8")["input_ids"]
    assert seen[0] == (
        run.tokenizer("w3 w4 w7 w8 w5", add_special_tokens=False)["input_ids"] if conversations else plain
    )


def test_conversations_are_remembered(place, tmp_path, command):
    rows = [json.loads(line) for line in (place / "data.jsonl").read_text().splitlines()]
    for row in rows:
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        row["completions"] = [[{"role": "assistant", "content": text}] for text in row["completions"]]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    AutoTokenizer.from_pretrained(place / "model").save_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    from tiny_models import tiny_base

    tiny_base().save_pretrained(model)
    tokenizer.save_pretrained(model)
    done = command("align", "fit", tmp_path / "chat.jsonl", "--model", model, "--out", tmp_path / "run", *QUICK)
    assert done.code == 0, done.err
    assert read(tmp_path / "run" / "run.json")["data"]["conversations"] is True


def test_a_rankers_run_is_called_one(tmp_path):
    (tmp_path / "run.json").write_text('{"kind": "rank", "format_version": 2}')
    with pytest.raises(InputError) as error:
        AlignRun.load(tmp_path)
    assert is_one_line(error.value, "`hyperdpo rank`", "a ranker", "`hyperdpo align fit`")
