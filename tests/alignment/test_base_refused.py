"""Another base at the place of a run's own is refused in one line, by every command that loads the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import free_port
from tiny_models import tiny_base
from toy_preferences import portable_place, words_tokenizer

from hyperdpo.alignment.run import AlignRun


@pytest.fixture(scope="module")
def replaced(tmp_path_factory) -> Path:
    """``run`` of a base in ``model``, which is now another one."""
    place = portable_place(tmp_path_factory.mktemp("replaced"))
    size = AlignRun.load(place / "run").model.base.config.vocab_size
    shutil.rmtree(place / "model")
    tiny_base(seed=1, vocab_size=size).save_pretrained(place / "model")
    words_tokenizer().save_pretrained(place / "model")
    (place / "asked.jsonl").write_text('{"prompt": "low high"}\n')
    return place


@pytest.mark.parametrize(
    "arguments",
    [
        "align generate {run} --prompt low --weights .5,.5 --cpu",
        "align front {run} {place}/data.jsonl --cpu",
        "align improve {run} --prompts-file {place}/asked.jsonl --scorer length --rounds 1 --out {place}/better --cpu",
        "export {run} --format peft --weights .5,.5 --out {place}/exported",
        "export {run} --format vertices --out {place}/exported",
        "serve {run} --port {port} --cpu",
        "explore {run} {place}/data.jsonl --port {port} --cpu",
    ],
    ids=lambda text: " ".join(text.split()[:2] + [word for word in text.split() if word in ("peft", "vertices")]),
)
def test_every_command_refuses_another_base(arguments, replaced, command):
    filled = arguments.format(run=replaced / "run", place=replaced, port=free_port())
    told = command(*filled.split())
    assert told.refused("made for another base model than", "the tensors differ"), told
    assert not (replaced / "exported").exists()
    assert not (replaced / "better" / "hyperdpo_config.json").exists()
