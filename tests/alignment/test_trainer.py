"""The trainer: TRL's loss where TRL has one, one w per row, logs, resuming, and a run from the command line."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import is_one_line, launch, read, run_python
from tiny_models import PLAIN, randomise, tiny_base
from toy_preferences import rows, text, words_tokenizer

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data import read_preferences
from hyperdpo.alignment.evaluation import (
    control_spans,
    front_of_scores,
    pair_accuracy,
    reference_point,
)
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.trainer import HyperDPOConfig, HyperDPOTrainer, best_and_worst, group_of_rows
from hyperdpo.errors import InputError


def arguments(out: Path, **settings: Any) -> HyperDPOConfig:
    defaults: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "save_strategy": "no",
    }
    return HyperDPOConfig(str(out), **{**defaults, **settings})


def trainer(
    out: Path, data: Any = None, *, model: Any = None, conditioning: dict[str, Any] | None = None, **settings: Any
):
    """A trainer on toy preferences."""
    names = ("low", "high")
    chosen = ConditioningConfig(
        names, **{"prompt_tokens": 3, "prompt_hidden": 8, "gate_hidden": 4, **(conditioning or {})}
    )
    data = rows() if data is None else data
    return HyperDPOTrainer(
        tiny_base() if model is None else model,
        arguments(out, **settings),
        data,
        rows(6, seed=1),
        words_tokenizer(),
        conditioning=chosen,
    )


# --- the loss


def test_with_one_objective_and_pairs_loss_and_gradients_are_trls(tmp_path):
    """The same LoRA in TRL's DPOTrainer on the same pairs; its reference is the model without the adapter."""
    trl, peft, datasets = (pytest.importorskip(name) for name in ("trl", "peft", "datasets"))
    rng = np.random.default_rng(3)
    pairs = [
        {"prompt": text(rng, 2, 5), "chosen": " " + text(rng, 2, 7), "rejected": " " + text(rng, 2, 7)}
        for _ in range(6)
    ]
    plain = ConditioningConfig(
        ("preferred",), prompt_tokens=0, lora_conditioned=False, target_modules=("q_proj", "v_proj")
    )
    model = ConditionedLM.create(tiny_base(), plain)
    randomise(model)
    ours = HyperDPOTrainer(
        model, arguments(tmp_path, beta=0.3, per_device_train_batch_size=6), pairs, None, words_tokenizer()
    )
    ours.score_base()
    loss = ours.compute_loss(ours.model, ours.data_collator(ours.train_groups))
    loss.backward()

    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(tiny_base(), lora)
    theirs = trl.DPOTrainer(
        model=wrapped,
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "trl"), beta=0.3, report_to=[], use_cpu=True, bf16=False, max_length=None,
            gradient_checkpointing=False, per_device_train_batch_size=6,
        ),
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=words_tokenizer(),
    )  # fmt: skip
    # Only now: the trainer takes what the adapter is at the start for its reference.
    state = {}
    for name, layer in lora_layers(model.base).items():
        for part in ("lora_A", "lora_B"):
            state[f"base_model.model.{name}.{part}.weight"] = getattr(layer, part)[ADAPTER].weight.detach()
    peft.set_peft_model_state_dict(theirs.model, state)
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(len(pairs))])
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    found = dict(theirs.model.named_parameters())
    for name, layer in lora_layers(model.base).items():
        for part in ("lora_A", "lora_B"):
            own = getattr(layer, part)[ADAPTER].weight.grad
            other = found[f"base_model.model.{name}.{part}.default.weight"].grad
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
            assert float(own.abs().max()) > 0


@pytest.mark.parametrize("share", [False, True])
def test_every_row_is_scored_at_the_weights_of_its_group(tmp_path, monkeypatch, share):
    job = trainer(tmp_path, share_prompts=share)
    job.score_base()
    batch = job.data_collator(job.train_groups[:3])
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        job.model,
        "forward",
        lambda **k: (seen.append(k["weights"]), {"logps": torch.zeros(len(batch["input_ids"]))})[1],
    )
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    monkeypatch.setattr(job, "_draw", lambda groups: weights)
    job.compute_loss(job.model, batch)
    if share:  # a prompt for each group, and its responses follow it
        assert torch.equal(seen[0], weights)
        return
    owner = group_of_rows(batch["rows"], batch["mask"])
    for g in range(3):
        for i in range(3):
            assert owner[batch["rows"][g, i]] == g
            assert torch.equal(seen[0][batch["rows"][g, i]], weights[g])


@pytest.mark.parametrize("per", ["group", "batch"])
def test_draws_depend_on_seed_step_and_micro_batch_alone(tmp_path, per):
    first, again, other = (trainer(tmp_path, weights_per=per, seed=s) for s in (5, 5, 6))
    drawn = [[job._draw(4) for _ in range(2)] for job in (first, again, other)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1]), "micro-batches of one step"
    assert not torch.equal(drawn[0][0], drawn[2][0])
    assert drawn[0][0].shape == ((4, 2) if per == "group" else (2,))
    first.state.global_step += 1
    assert not torch.equal(first._draw(4), drawn[0][0])


def test_groups_of_different_sizes_and_missing_labels_train(tmp_path):
    data = rows(8, 3)
    data[0]["completions"], data[0]["labels"] = data[0]["completions"][:2], {"low": data[0]["labels"]["low"][:2]}
    data[1]["labels"].pop("low")
    job = trainer(tmp_path, data)
    job.train()
    assert np.isfinite([entry["loss"] for entry in job.state.log_history if "loss" in entry]).all()


# --- training


def test_the_two_ends_of_the_front_come_apart_and_only_the_adapter_moves(tmp_path):
    base = tiny_base()
    before = {name: p.clone() for name, p in base.named_parameters()}
    job = trainer(tmp_path, rows(48), model=base, num_train_epochs=12, per_device_train_batch_size=8, beta=1.0)
    job.train()
    spans = job.front(rows(48), points=2).control_span
    assert min(spans.values()) > 0.02, spans
    after = dict(job.own_model.base.named_parameters())
    for name, value in before.items():
        inside = name.replace(".weight", ".base_layer.weight")
        assert torch.equal(value, after[name if name in after else inside])


def test_logs_have_trls_keys_and_one_set_for_each_objective(tmp_path):
    job = trainer(tmp_path, num_train_epochs=1, eval_strategy="epoch")
    job.train()
    logged = {key for entry in job.state.log_history for key in entry}
    expected = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    for name in ("low", "high"):
        expected |= {f"loss/{name}", f"rewards/{name}/margins", f"rewards/{name}/accuracies"}
        expected |= {f"eval_loss/{name}", f"eval_control_span/{name}"}
    assert expected | {"eval_loss", "eval_hypervolume"} <= logged


def test_a_training_that_was_stopped_goes_on_to_the_same_adapter(tmp_path):
    whole = trainer(tmp_path / "whole", save_strategy="epoch", num_train_epochs=4)
    whole.train()
    first = trainer(tmp_path / "cut", save_strategy="epoch", num_train_epochs=4)

    class Stop(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.epoch >= 2

    first.add_callback(Stop())
    first.train()
    again = trainer(tmp_path / "cut", save_strategy="epoch", num_train_epochs=4)
    again.train(resume_from_checkpoint=True)
    for name, tensor in whole.own_model.adapter_state().items():
        torch.testing.assert_close(again.own_model.adapter_state()[name], tensor, rtol=1e-5, atol=1e-6)
    checkpoint = next((tmp_path / "whole").glob("checkpoint-*"))
    assert (checkpoint / "adapter.safetensors").is_file()
    assert (checkpoint / "training_args.json").is_file()
    assert not (checkpoint / "training_args.bin").exists(), "a pickle"


def test_a_model_for_one_w_hears_no_other(tmp_path):
    job = trainer(tmp_path, weights=[0.3, 0.7], conditioning=PLAIN)
    assert torch.equal(job._draw(4), torch.tensor([0.3, 0.7], dtype=torch.float64))
    job.train()
    front = job.front(points=2)
    np.testing.assert_allclose(front.losses[0], front.losses[1])


def test_gradient_checkpointing_trains_the_same_adapter(tmp_path):
    plain, saving = (trainer(tmp_path, gradient_checkpointing=on, num_train_epochs=1) for on in (False, True))
    plain.train()
    saving.train()
    for name, tensor in plain.own_model.adapter_state().items():
        torch.testing.assert_close(saving.own_model.adapter_state()[name], tensor, rtol=1e-4, atol=1e-5)


# --- measures


def test_losses_accuracies_and_room_are_what_arithmetic_says(tmp_path):
    job = trainer(tmp_path)
    groups = job._tokenized(read_preferences(rows(2, 3)), words_tokenizer())
    rng = np.random.default_rng(0)
    base = [rng.normal(size=3) for _ in groups]
    scores = [b + rng.normal(size=3) for b in base]
    front = front_of_scores(("low", "high"), groups, [scores], base, np.array([[0.5, 0.5]]), [0.7, 0.7], [1.0, 2.0])
    for k, c in enumerate((1.0, 2.0)):
        for j in range(2):
            expected = []
            for group, s, b in zip(groups, scores, base, strict=True):
                z = 0.7 * (s - b) / c
                log_p = z - math.log(np.exp(z).sum())
                expected.append(-(group.targets[j] * log_p).sum())
            assert front.losses[k, j] == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(reference_point(groups), 1.1 / math.log(2) * math.log(3))
    pairs = job._tokenized(read_preferences(rows(2, 2)), words_tokenizer())
    np.testing.assert_allclose(reference_point(pairs), 1.1)


def test_pair_accuracy_counts_ordered_pairs_of_real_responses():
    rewards = torch.tensor([[3.0, 2.0, 1.0], [0.0, 5.0, 9.0]])
    targets = torch.tensor([[[0.5, 0.3, 0.2]], [[0.9, 0.1, 0.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    signal = torch.ones(2, 1, dtype=torch.bool)
    assert pair_accuracy(rewards, targets, mask, signal).tolist() == [pytest.approx(3 / 4)]
    best, worst, margin = best_and_worst(targets[:, 0], rewards, mask)
    assert (best.tolist(), worst.tolist(), margin.tolist()) == ([3.0, 0.0], [1.0, 5.0], [2.0, -5.0])


def test_a_span_is_the_own_vertex_minus_the_mean_of_the_others():
    weights = np.eye(3)
    metrics = np.array([[1.0, 0.2, 0.1], [0.4, 2.0, 0.3], [0.6, 0.0, 3.0]])
    np.testing.assert_allclose(control_spans(weights, metrics), [1 - 0.5, 2 - 0.1, 3 - 0.2])
    with pytest.raises(InputError, match="vertices"):
        control_spans(weights[:2], metrics[:2])


# --- mistakes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": [0.5, 0.6]}, ["0.5, 0.6", "sum to 1"]),
        ({"weights": [1.0]}, ["1 values", "expected 2"]),
        ({"alpha": [0.5, 0.5, 0.5]}, ["alpha", "2 numbers"]),
        ({"beta": 0.0}, ["beta is 0.0"]),
        ({"max_length": 10_000}, ["max_length is 10000", "expected at most"]),
        ({"weights_per": "row"}, ["weights_per", "group or batch"]),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(tmp_path, settings, words):
    with pytest.raises(InputError) as error:
        trainer(tmp_path, **settings)
    assert is_one_line(error.value, *words), str(error.value)


# --- from the command line


@pytest.fixture(scope="module")
def run_path(place: Path) -> Path:
    from hyperdpo.cli import main

    options = ["--epochs", "1", "--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2"]
    done = main(
        [
            "align",
            "fit",
            str(place / "data.jsonl"),
            "--model",
            str(place / "model"),
            "--out",
            str(place / "run"),
            *options,
        ]
    )
    assert done == 0
    return place / "run"


@pytest.mark.parametrize("bar", [True, False])
def test_a_fit_says_what_it_has_to_say_once(place, tmp_path, command, recwarn, bar):
    arguments = [place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "run", "--epochs", "1", "--cpu"]
    for setting in ("training.logging_steps=1", f"training.disable_tqdm={not bar}", "conditioning.prompt_tokens=2"):
        arguments += ["--set", setting]
    done = command("align", "fit", *arguments)
    assert done.code == 0, done.err
    assert "{" not in done.out
    assert "run: " in done.out
    assert ("loss=" in done.err) == bar
    assert "pin_memory" not in done.err
    assert not [one for one in recwarn if "pin_memory" in str(one.message)]
    assert len(read(tmp_path / "run" / "metrics.json")["history"]) > 1


def test_a_front_is_measured_and_drawn(place, run_path, tmp_path, command):
    options = ["--points", "3", "--scales", "1,2", "--cpu"]
    done = command(
        "align",
        "front",
        run_path,
        place / "data.jsonl",
        *options,
        "--out",
        tmp_path / "f.json",
        "--plot",
        tmp_path / "f.png",
    )
    assert done.code == 0, done.err
    front = read(tmp_path / "f.json")
    assert {
        "objectives",
        "directions",
        "metric",
        "points",
        "hypervolume",
        "reference_point",
        "parameters",
        "train_seconds",
    } <= set(front)
    assert len(front["points"]) == 6
    assert front["groups"] == {"split": "test", "count": 4}
    assert set(front["control_span"]) == {"low", "high"}
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_every_weighting_of_a_call_gets_its_own_answer(run_path, command):
    weights = ["--weights", "1,0", "--weights", ".5,.5", "--weights", "0,1"]
    options = ["--prompt", "w5 w6", "--prompt", "w7", "--scale", "2", "--max-new-tokens", "4", "--cpu", "--json"]
    done = command("align", "generate", run_path, *weights, *options)
    assert done.code == 0, done.err
    answers = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    assert [a["weights"]["low"] for a in answers] == [1, 0.5, 0] * 2
    run = AlignRun.load(run_path)
    for answer in answers:
        alone = run.generate(
            [answer["prompt"]], np.array(list(answer["weights"].values())), 2.0, max_new_tokens=4, do_sample=False
        )
        assert alone == [answer["text"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["front", "RUN", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["front", "nowhere", "DATA"], ["nowhere", "align fit"]),
        (["generate", "RUN", "--weights", "1,1", "--prompt", "w5"], ["1, 1", "sum"]),
        (
            ["generate", "RUN", "--weights", "1,0", "--weights", "nothing=1", "--prompt", "w5"],
            ["no objective", "nothing"],
        ),
        (["fit", "DATA", "--model", "ABSENT", "--out", "NEW"], ["nowhere: no such directory", "a hub name"]),
        (["fit", "DATA", "--model", "./absent", "--out", "NEW"], ["./absent: no such directory"]),
        (["fit", "DATA", "--model", "not/a/name", "--out", "NEW"], ["not/a/name: no such directory"]),
        (["front", "RUN", "DATA", "--model", "~/absent"], ["~/absent: no such directory"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "RUN"], ["finished run"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--objectives", "low,medium"], ["medium"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "conditioning.depth=9"], ["depth"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "speed=9"], ["speed is not a setting"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "training.beta=x"], ["training.beta", "'x'"]),
    ],
)
def test_mistakes_get_one_line(place, run_path, tmp_path, command, arguments, words):
    names = {"RUN": run_path, "DATA": place / "data.jsonl", "MODEL": place / "model", "NEW": tmp_path / "new"}
    names["ABSENT"] = tmp_path / "nowhere"  # a path: a name would be looked for on the hub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = command("align", *(names.get(a, a) for a in arguments), *(["--cpu"]))
    assert done.refused(*words), (done.code, done.err)
    assert not (tmp_path / "new").exists()


def test_a_hub_that_cannot_be_reached_is_said_at_once(place, tmp_path, command, monkeypatch):
    asked = []

    def unreachable(url, **settings):
        asked.append(url)
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    arguments = [place / "data.jsonl", "--model", "some/model-1.5B", "--out", tmp_path / "new", "--cpu"]
    for name in ("fit", "compare"):
        assert command("align", name, *arguments).refused("some/model-1.5B", "no route to host", "local checkpoint")
    assert all("some/model-1.5B" in url for url in asked)
    assert len(asked) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("speed=9", ["training.speed is not a setting of HyperDPOConfig"]),
        ("learning_rat=9", ["did you mean training.learning_rate?"]),
        ("output_dir=x", ["training.output_dir is not a setting"]),
        ("eval_strategy=x", ["training: x is not a valid"]),
    ],
)
def test_a_mistaken_training_setting_gets_one_line(place, tmp_path, command, setting, words):
    arguments = [place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "new", "--cpu"]
    assert command("align", "fit", *arguments, "--set", f"training.{setting}").refused(*words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["fit", "d", "--model", "m", "--out", "o"], ["front", "r", "d"]])
def test_a_missing_extra_gets_one_line(monkeypatch, command, arguments):
    monkeypatch.setattr("hyperdpo.alignment.cli.find_spec", lambda name: None)
    assert command("align", *arguments).refused("transformers is not installed", "hyperdpo[align]")


QUICK = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2", "--epochs", "1"]


def test_overwrite_trains_anew_with_the_new_settings(place, tmp_path, command):
    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    assert command(*start).code == 0
    before = AlignRun.load(tmp_path / "run").model.adapter_state()
    assert command(*start, "--overwrite", "--seed", "7", "--set", "training.learning_rate=0.02").code == 0
    after = AlignRun.load(tmp_path / "run").model.adapter_state()
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert command(*start, "--overwrite").code == 0
    again = AlignRun.load(tmp_path / "run").model.adapter_state()
    assert all(torch.equal(before[name], tensor) for name, tensor in again.items())


def test_an_unfinished_training_goes_on_as_what_it_was_or_not_at_all(place, tmp_path, command, monkeypatch):
    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "run", *QUICK]
    monkeypatch.setattr(AlignRun, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command(*start).code == 130
    monkeypatch.undo()
    refused = command(*start, "--set", "training.learning_rate=0.02")
    assert refused.refused("unfinished training", "training.learning_rate", "--overwrite"), refused.err
    assert command(*start, "--set", "conditioning.lora_rank=2").refused("conditioning.lora_rank")
    done = command(*start)
    assert done.code == 0
    assert "resumed from" in done.err


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_trains(place, tmp_path):
    """At a fixed w, so that draws do not depend on the process: twice two groups a step, or four."""

    def fitted(processes: int, batch: int) -> dict[str, torch.Tensor]:
        out = tmp_path / f"run{processes}"
        settings = [
            "training.weights=[0.5,0.5]", "training.num_train_epochs=1",
            f"training.per_device_train_batch_size={batch}",
            "conditioning.prompt_tokens=2", "training.learning_rate=0.01", "training.disable_tqdm=true",
            "conditioning.lora_conditioned=false", "conditioning.prompt_conditioned=false",
        ]  # fmt: skip
        options = [option for setting in settings for option in ("--set", setting)]
        where = [str(place / "data.jsonl"), "--model", str(place / "model"), "--out", str(out), "--cpu"]
        arguments = ["align", "fit", *where, *options]
        done = launch(processes, arguments) if processes > 1 else run_python("-m", "hyperdpo", *arguments)
        assert done.code == 0, done.err[-2000:]
        return AlignRun.load(out).model.adapter_state()

    one, two = fitted(1, 4), fitted(2, 2)
    start = ConditionedLM.create(
        tiny_base(), AlignRun.load(tmp_path / "run1").model.conditioning, seed=42
    ).adapter_state()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)
    assert any(float((one[name] - start[name]).abs().max()) > 0.01 for name in one)
