"""A run and its data: what it was trained on is found again, answers are whole, an unfinished checkpoint is no end."""

from __future__ import annotations

import json
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import change_json, is_one_line, raise_when, read, without_checksums

from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.sampling import new_texts
from hyperdpo.errors import InputError

QUICK = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.gate_hidden=4"]
QUICK += ["--set", "conditioning.prompt_tokens=2", "--epochs", "1"]
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
        "3",
    ]
    start += ["--set", "training.save_total_limit=2"]
    with monkeypatch.context() as patch:
        checkpoints = tmp_path / "run" / "checkpoints"
        raise_when(
            patch,
            transformers.Trainer,
            "training_step",
            lambda: len(list(checkpoints.glob("checkpoint-*"))) == 2,
            KeyboardInterrupt,
        )
        assert command(*start).code == 130
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

    def spy(rows: list[list[int]], **settings: Any) -> Any:
        seen.append(rows[0])
        return original(rows, **settings)

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


# How a file was read -------------------------------------------------------------------------------------------------


def pairs_file(path: Path, **more: Any) -> Path:
    rows = [{"topic": f"w3 w{i + 3}", "chosen": " w5 w6", "rejected": f" w7 w{i + 4}", **more} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_remembers_how_its_file_was_read(place, tmp_path, command):
    data = pairs_file(tmp_path / "data.jsonl", context="w9 w9 w9")
    fit = ["align", "fit", data, "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    assert command(*fit, "--prompt-column", "topic").refused("column 'context'", "--ignore-columns context")
    told = ["--prompt-column", "topic", "--ignore-columns", "context"]
    done = command(*fit, *told)
    assert done.code == 0, done.err
    expected = {"format": "auto", "prompt_column": "topic", "ignore_columns": ["context"], "skip_invalid": False}
    assert read(tmp_path / "run" / "run.json")["data"]["reading"] == {**expected, "version": 2}
    front = ["align", "front", tmp_path / "run", data, "--points", "2", "--cpu", "--out", tmp_path / "f.json"]
    done = command(*front)
    assert done.code == 0, done.err
    assert read(tmp_path / "f.json")["groups"] == {"split": "test", "count": 4}
    other = pairs_file(tmp_path / "other.jsonl", query="w4 w5")
    assert command(*front[:3], other, *front[4:]).refused("no column 'context'")
    done = command(*front[:3], other, *front[4:], "--ignore-columns", "query")
    assert done.code == 0, done.err
    done = command("choose", tmp_path / "run", data, "--minimize", "preferred", "--points", "1", "--cpu")
    assert done.code == 0, done.err


def older(run: Path) -> None:
    """As runs were written before there were versions of reading."""
    told = read(run / "run.json")
    del told["data"]["reading"]
    change_json(run / "run.json", data=told["data"])
    without_checksums(run, 1)


def test_an_older_run_finds_its_own_held_out_groups(place, tmp_path, command, monkeypatch):
    """Prompts that differ in white space only, and transcripts, were told apart and cut otherwise then."""
    asked = [f"Human: w{i // 2 + 3}{'  ' * (i % 2)}\n\nAssistant: w5 w6" for i in range(20)]
    rows = [{"chosen": f"{text} w7", "rejected": f"{text} w8"} for text in asked]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit = ["align", "fit", data, "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    with monkeypatch.context() as patch:
        for module in ("data.reading", "data.groups", "sources"):
            patch.setattr(f"hyperdpo.alignment.{module}.VERSION", 1)
        patch.setattr("hyperdpo.alignment.sources.read_preferences", partial(read_preferences, version=1))
        patch.setattr("hyperdpo.alignment.data.groups.Preferences.split", partialmethod(Preferences.split, version=1))
        done = command(*fit)
    assert done.code == 0, done.err
    older(tmp_path / "run")
    with pytest.warns(UserWarning, match="written without checksums; `hyperdpo check .*run` adds them"):
        run = AlignRun.load(tmp_path / "run")
    name, part = run.part(run.read(data))
    assert (name, len(part)) == ("test", 4)
    assert part.groups[0].prompt.endswith("Assistant: w5 w6 w"), "cut as it was then"
    expected = read_preferences(data, version=1).split((0.8, 0.0, 0.2), 0, version=1)["test"]
    assert part.groups == expected.groups
    assert len({group.question for group in part.groups}) > 2, "the old split told white space apart"


def test_constant_labels_are_refused_before_anything_is_written(place, tmp_path, command):
    rows = [json.loads(line) for line in (place / "data.jsonl").read_text().splitlines()]
    for row in rows:
        row["labels"]["low"] = [1] * len(row["completions"])
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["align", "fit", tmp_path / "flat.jsonl", "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    assert command(*arguments).refused("flat.jsonl", "'low'", "cannot teach anything")
    done = command(*arguments, "--objectives", "high")
    assert done.code == 0, done.err
    assert "objective high: the label varies in" in done.out


def test_prompts_are_generated_from_the_tokens_of_training(renamed, monkeypatch):
    """A tokenizer that puts an end behind every text, and a prompt that brings its own beginning."""
    from tokenizers import processors

    run = AlignRun.load(renamed)
    run.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    seen = []

    def spy(rows: list[list[int]], **settings: Any) -> Any:
        seen.extend(rows)
        return torch.tensor([[0] * (3 - len(row)) + row for row in rows])

    monkeypatch.setattr(run.model, "generate", spy)
    assert run.generate(["w7 w8", "<s> w7", "w9 </s>"], np.ones(1)) == ["", "", ""]
    assert seen == [[1, 7, 8], [1, 7], [1, 9]]
