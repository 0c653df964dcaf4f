"""How a base is loaded (type of numbers, attention, 4 bits), and gradients with and without checkpointing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import raise_at, read
from tiny_models import MIXED, attentions, padded, randomise, texts, tiny_model

from hyperdpo.alignment.run import AlignRun

QUICK = ["--cpu", "--epochs", "1", "--set", "conditioning.prompt_tokens=2"]


@pytest.fixture(scope="module")
def half_run(place: Path) -> Path:
    """A run on a base in bfloat16 with attention written out, from a YAML file."""
    from hyperdpo.cli import main

    (place / "half.yaml").write_text("model_settings: {dtype: bfloat16, attn_implementation: eager}\n")
    where = [str(place / "data.jsonl"), "--model", str(place / "model"), "--out", str(place / "half")]
    assert main(["align", "fit", *where, "--config", str(place / "half.yaml"), *QUICK]) == 0
    return place / "half"


def test_a_run_is_loaded_as_it_was_trained_and_its_adapter_is_float32(place, half_run, tmp_path, command):
    run = AlignRun.load(half_run)
    assert run.model.dtype is torch.bfloat16
    assert run.model.config._attn_implementation == "eager"
    assert {p.dtype for name, p in run.model.named_parameters() if p.requires_grad} == {torch.float32}
    assert {t.dtype for t in run.model.adapter_state().values()} == {torch.float32}
    done = command("align", "front", half_run, place / "data.jsonl", "--points", "5", "--out", tmp_path / "f", "--cpu")
    assert done.code == 0, done.err
    front, trained = read(tmp_path / "f"), read(half_run / "metrics.json")["test_front"]
    for one, other in zip(front["points"], trained["points"], strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], abs=1e-6)


def test_a_training_has_an_attention_of_its_own(place, tmp_path, command):
    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    with attentions() as used:
        done = command(*start, "--set", "model_settings.training_attention=eager")
    assert done.code == 0, done.err
    assert used == {True: {"eager"}, False: {"eager", "sdpa"}}, "the base is scored within the training"
    run = AlignRun.load(tmp_path / "run")
    assert run.model.config._attn_implementation == "sdpa"
    (tmp_path / "prompts.txt").write_text("w1 w2\nw3 w4\nw5 w6\nw7 w8\n")
    where = [tmp_path / "run", "--prompts-file", tmp_path / "prompts.txt", "--out", tmp_path / "rounds", "--cpu"]
    scorers = ["--scorer", "toy_scorers:low", "--scorer", "toy_scorers:high"]
    small = ["--rounds", "1", "--responses", "2", "--samples", "1", "--max-new-tokens", "4", "--held-out", "0.5"]
    with attentions() as used:
        done = command("align", "improve", *where, *scorers, *small)
    assert done.code == 0, done.err
    assert used == {True: {"eager"}, False: {"eager", "sdpa"}}


def test_model_settings_are_checked_in_one_line(place, tmp_path, command, monkeypatch):
    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "new", *QUICK]
    assert command(*start, "--set", "model_settings.dtype=int8").refused("model_settings.dtype", "bfloat16")
    assert command(*start, "--set", "model_settings.attention=x").refused("model_settings.attention is not a setting")
    wrong = command(*start, "--set", "model_settings.attn_implementation=nothing")
    assert wrong.refused("cannot be loaded", "nothing"), wrong.err
    wrong = command(*start, "--set", "model_settings.training_attention=nothing")
    assert wrong.refused("model_settings.training_attention", "nothing", "sdpa"), wrong.err
    compare = ["align", "compare", *start[2 : -len(QUICK)], "--methods", "dpo-ls", "--cpu"]
    wrong = command(*compare, "--set", "model_settings.training_attention=nothing")
    assert wrong.refused("model_settings.training_attention", "nothing", "sdpa"), wrong.err
    with monkeypatch.context() as patch:
        patch.setattr("transformers.LlamaForCausalLM._can_set_attn_implementation", classmethod(lambda cls: False))
        wrong = command(*start, "--set", "model_settings.training_attention=eager")
    assert wrong.refused("model_settings.training_attention", "this model keeps sdpa"), wrong.err
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None if name == "bitsandbytes" else object())
    assert command(*start, "--set", "model_settings.load_in_4bit=true").refused("bitsandbytes is not installed")
    assert not (tmp_path / "new").exists()


def test_an_unfinished_training_does_not_go_on_with_other_numbers(place, tmp_path, command, monkeypatch):
    import transformers

    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    with monkeypatch.context() as patch:
        raise_at(patch, transformers.Trainer, "training_step", 2, KeyboardInterrupt)
        assert command(*start).code == 130
    refused = command(*start, "--set", "model_settings.dtype=bfloat16")
    assert refused.refused("unfinished training", "another model"), refused.err


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_with_checkpointing_are_those_without(kind, reentrant):
    """Each row at weights of its own: the layers are computed again at the same gates."""

    def gradients(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
        ids, mask = padded(texts(), "right")
        model.train()
        model.zero_grad()
        torch.manual_seed(0)  # of dropout, which GPT-2 has
        completion = mask.clone()
        completion[:, :2] = 0
        logps = model(ids, mask, MIXED, completion_mask=completion).logps
        (logps * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        return float(logps.detach().sum()), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}

    model = tiny_model(kind)
    randomise(model)
    layer = model.base.model.layers[0].self_attn if kind == "llama" else model.base.transformer.h[0].attn
    calls: list[int] = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    loss, plain = gradients(model)
    assert len(calls) == 1
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again, saving = gradients(model)
    assert len(calls) == 3, "the layer was computed again"
    assert again == pytest.approx(loss, rel=1e-6)
    assert plain.keys() == saving.keys()
    assert {name.partition(".")[0] for name in plain} == {"base", "prompt", "gates"}
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient, rtol=1e-5, atol=1e-7)
        assert float(gradient.abs().max()) > 0, name
