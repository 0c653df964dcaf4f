"""The trainer: TRL's loss where TRL has one, one w per row, logs, resuming, and a run from the command line."""

from __future__ import annotations

import json
import math
import warnings
from concurrent.futures import Future
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import is_one_line, launch, raise_at, read, run_python
from tiny_models import PLAIN, randomise, tiny_base
from toy_preferences import rows, words_tokenizer
from trl_losses import arguments, assert_losses_and_gradients_are_trls

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.alignment.evaluation import (
    control_spans,
    front_of_scores,
    ordered_pairs,
    reference_point,
)
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig, training_arguments
from hyperdpo.alignment.training_metrics import best_and_worst, group_of_rows
from hyperdpo.errors import InputError

SIZES: dict[str, Any] = {"prompt_tokens": 3, "prompt_hidden": 8, "gate_hidden": 4, "lora_rank": 4}


def trainer(
    out: Path,
    data: Any = None,
    *,
    model: Any = None,
    conditioning: dict[str, Any] | None = None,
    held_out: Any = "some",
    **settings: Any,
):
    """A trainer on toy preferences."""
    chosen = ConditioningConfig(("low", "high"), **{**SIZES, **(conditioning or {})})
    return HyperDPOTrainer(
        tiny_base() if model is None else model,
        arguments(out, **settings),
        rows() if data is None else data,
        rows(6, seed=1) if isinstance(held_out, str) else held_out,
        words_tokenizer(),
        conditioning=None if isinstance(model, ConditionedLM) else chosen,
    )


# --- the loss


def test_with_one_objective_and_pairs_loss_and_gradients_are_trls(tmp_path):
    """The same LoRA in TRL's DPOTrainer on the same pairs; its reference is the model without the adapter."""
    assert_losses_and_gradients_are_trls(tmp_path, {"beta": 0.3}, {"beta": 0.3})


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
    weights = trainer(tmp_path, share_prompts=share).draw_weights(3).float()  # the same seed and step
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
def test_draws_depend_on_seed_and_step_and_those_of_groups_on_the_batch(tmp_path, per):
    first, again, other = (trainer(tmp_path, weights_per=per, seed=s) for s in (5, 5, 6))
    drawn = [[job.draw_weights(4) for _ in range(2)] for job in (first, again, other)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    # Algorithm 1 has one w for a step, however many batches it accumulates.
    assert torch.equal(drawn[0][0], drawn[0][1]) == (per == "batch")
    assert not torch.equal(drawn[0][0], drawn[2][0])
    assert drawn[0][0].shape == ((4, 2) if per == "group" else (2,))
    first.state.global_step += 1
    assert not torch.equal(first.draw_weights(4), drawn[0][0])


def test_groups_of_different_sizes_and_missing_labels_train(tmp_path):
    data = rows(8, 3)
    data[0]["completions"], data[0]["labels"] = data[0]["completions"][:2], {"low": data[0]["labels"]["low"][:2]}
    data[1]["labels"].pop("low")
    job = trainer(tmp_path, data, num_train_epochs=8, learning_rate=0.05)
    before = job.evaluate(data)
    job.train()
    after = job.evaluate(data)
    for name in ("low", "high"):
        assert after[f"eval_loss/{name}"] < before[f"eval_loss/{name}"] - 0.01


def test_in_half_precision_an_untrained_adapter_is_the_base_whose_loss_is_ln_n(tmp_path):
    """Policy and base in the same arithmetic; a base in float32 would be further away."""
    job = trainer(tmp_path, bf16=True, beta=1.0, max_steps=1, conditioning={"prompt_tokens": 0})
    job.train()
    first = next(entry for entry in job.state.log_history if "loss" in entry)
    for name in ("low", "high"):
        assert first[f"loss/{name}"] == pytest.approx(math.log(3), abs=1e-3)
        assert first[f"rewards/{name}/margins"] == pytest.approx(0, abs=2e-3)
    assert first["rewards/chosen"] == pytest.approx(0, abs=2e-3)
    group = job.train_groups[0]
    whole = torch.tensor([group.prompt_ids + ids for ids in group.completion_ids[:1]])
    with torch.no_grad():
        logps = tiny_base()(whole).logits[0, :-1].log_softmax(-1).gather(-1, whole[0, 1:, None])
    exact = float(logps[len(group.prompt_ids) - 1 :].sum())
    assert 1e-3 < abs(float(group.reference_logps[0]) - exact) < 1, "the base was scored in half precision too"


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
    expected |= {"logps/chosen", "logps/rejected"}
    for name in ("low", "high"):
        expected |= {f"loss/{name}", f"rewards/{name}/margins", f"rewards/{name}/accuracies"}
    expected |= {f"eval_{name}" for name in expected}
    expected |= {"eval_control_span/low", "eval_control_span/high", "eval_loss", "eval_hypervolume"}
    assert expected <= logged


def test_rewards_and_logps_are_those_of_the_best_and_the_worst_response(tmp_path):
    """Written out for each group, at each weighting of the evaluation."""
    job = trainer(tmp_path, model=None, beta=0.5)
    randomise(job.model)
    metrics = job.evaluate()
    groups, points = job.eval_sets[""], 5
    found: dict[str, list[float]] = {key: [] for key in ("chosen", "rejected", "right", "best", "worst")}
    for w in np.linspace(0, 1, points):
        weights = torch.tensor([1 - w, w], dtype=torch.float32)
        for group in groups:
            scores, base = [], []
            for ids in group.completion_ids:
                whole = torch.tensor([group.prompt_ids + ids])
                for logits, kept in (
                    (job.own_model(whole, None, weights).logits, scores),
                    (tiny_base()(whole).logits, base),
                ):
                    logps = logits[0, :-1].log_softmax(-1).gather(-1, whole[0, 1:, None])
                    kept.append(float(logps[len(group.prompt_ids) - 1 :].detach().sum()))
            targets = (group.targets * weights.numpy()[:, None]).sum(0)
            best, worst = int(targets.argmax()), int(targets.argmin())
            if np.ptp(targets) < 1e-6:  # in the middle these targets are alike
                continue
            found["chosen"].append(0.5 * (scores[best] - base[best]))
            found["rejected"].append(0.5 * (scores[worst] - base[worst]))
            found["right"].append(found["chosen"][-1] > found["rejected"][-1])
            found["best"].append(scores[best])
            found["worst"].append(scores[worst])
    means = {key: float(np.mean(values)) for key, values in found.items()}
    assert len(found["best"]) == points * len(groups)
    assert metrics["eval_rewards/chosen"] == pytest.approx(means["chosen"], abs=1e-4)
    assert metrics["eval_rewards/rejected"] == pytest.approx(means["rejected"], abs=1e-4)
    assert metrics["eval_rewards/accuracies"] == pytest.approx(means["right"])
    assert metrics["eval_logps/chosen"] == pytest.approx(means["best"], abs=1e-3)
    assert metrics["eval_logps/rejected"] == pytest.approx(means["worst"], abs=1e-3)


def test_several_evaluation_sets_are_measured_one_by_one(tmp_path):
    sets = {"near": rows(6, seed=1), "far": rows(5, seed=2)}
    job = trainer(
        tmp_path, held_out=sets, eval_strategy="epoch", save_strategy="epoch", num_train_epochs=2,
        load_best_model_at_end=True, metric_for_best_model="eval_far_loss",
    )  # fmt: skip
    job.train()
    logged = {key for entry in job.state.log_history for key in entry}
    assert {"eval_near_loss", "eval_far_loss", "eval_far_rewards/chosen", "eval_near_hypervolume"} <= logged
    assert "eval_loss" not in logged
    assert job.state.best_model_checkpoint is not None
    both = job.evaluate()
    for name, data in sets.items():
        alone = job.evaluate(data, metric_key_prefix="own")
        assert both[f"eval_{name}_loss"] == pytest.approx(alone["own_loss"], rel=1e-5)
        assert job.evaluate(name)["eval_loss"] == pytest.approx(alone["own_loss"], rel=1e-5)
    assert both["eval_near_loss"] != both["eval_far_loss"]
    job.state.best_model_checkpoint = str(tmp_path.parent / "elsewhere")  # as an edited trainer_state.json could say
    with pytest.raises(InputError, match=rf"{tmp_path}.*elsewhere.*no such file"):
        job._load_best_model()
    job.state.best_model_checkpoint = "a/.."
    with pytest.raises(InputError, match=r"trainer_state\.json: names a file '\.\.'"):
        job._load_best_model()


def test_a_peft_config_reaches_the_adapter(tmp_path):
    from peft import LoraConfig

    lora = LoraConfig(r=3, lora_alpha=12, target_modules=["o_proj", "up_proj"])
    own = SIZES | PLAIN | {"lora_rank": 7, "target_modules": ("q_proj",)}
    plain = ConditioningConfig(("low", "high"), **own)
    job = HyperDPOTrainer(
        tiny_base(), arguments(tmp_path), rows(), None, words_tokenizer(), peft_config=lora, conditioning=plain
    )
    layers = lora_layers(job.own_model.base)
    assert {name.rpartition(".")[2] for name in layers} == {"o_proj", "up_proj"}
    assert len(layers) == 4
    for layer in layers.values():
        assert layer.lora_A[ADAPTER].weight.shape[0] == 3
        assert layer.scaling[ADAPTER] == 4
    assert job.own_model.conditioning.prompt_tokens == 3, "what peft_config does not say is that of conditioning"


def test_training_goes_on_from_a_saved_adapter(tmp_path):
    first = trainer(tmp_path / "first")
    first.train()
    first.save_model(str(tmp_path / "saved"))
    saved = {name: tensor.clone() for name, tensor in first.own_model.adapter_state().items()}
    loaded = ConditionedLM.from_pretrained(tmp_path / "saved", tiny_base())
    job = trainer(tmp_path / "second", model=loaded, max_steps=1)
    for name, tensor in job.own_model.adapter_state().items():
        assert torch.equal(tensor, saved[name]), name
    before = job.front(points=2).losses
    np.testing.assert_allclose(before, first.front(points=2).losses, rtol=1e-5)
    job.train()
    assert any(not torch.equal(tensor, saved[name]) for name, tensor in job.own_model.adapter_state().items())


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
    assert torch.equal(job.draw_weights(4), torch.tensor([0.3, 0.7], dtype=torch.float64))
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
    groups = job.tokenized(read_preferences(rows(2, 3)), words_tokenizer())
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
    pairs = job.tokenized(read_preferences(rows(2, 2)), words_tokenizer())
    np.testing.assert_allclose(reference_point(pairs), 1.1)


def test_ordered_pairs_are_those_of_real_responses():
    rewards = torch.tensor([[3.0, 2.0, 1.0], [0.0, 5.0, 9.0]])
    targets = torch.tensor([[[0.5, 0.3, 0.2]], [[0.9, 0.1, 0.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    signal = torch.ones(2, 1, dtype=torch.bool)
    right, counted = ordered_pairs(rewards, targets, mask, signal)
    assert (right.tolist(), counted.tolist()) == ([[3], [0]], [[3], [1]])
    best, worst, margin = best_and_worst(targets[:, 0], rewards, mask)
    assert (best.tolist(), worst.tolist(), margin.tolist()) == ([3.0, 0.0], [1.0, 5.0], [2.0, -5.0])


def test_a_span_is_the_own_vertex_minus_the_mean_of_the_others():
    weights = np.eye(3)
    metrics = np.array([[1.0, 0.2, 0.1], [0.4, 2.0, 0.3], [0.6, 0.0, 3.0]])
    np.testing.assert_allclose(control_spans(weights, metrics), [1 - 0.5, 2 - 0.1, 3 - 0.2])
    with pytest.raises(InputError, match="vertices"):
        control_spans(weights[:2], metrics[:2])


# --- mistakes


@pytest.mark.parametrize("given", ["conditioning", "peft_config"])
def test_settings_of_an_adapter_beside_one_are_refused(tmp_path, given):
    from peft import LoraConfig

    names = ("low", "high")
    settings = {"conditioning": ConditioningConfig(names), "peft_config": LoraConfig(r=2)}
    ready = ConditionedLM.create(tiny_base(), ConditioningConfig(names, **SIZES))
    with pytest.raises(InputError) as error:
        HyperDPOTrainer(ready, arguments(tmp_path), rows(), None, words_tokenizer(), **{given: settings[given]})
    assert is_one_line(error.value, given, "ConditionedLM")


def test_an_evaluation_strategy_without_data_is_refused(tmp_path):
    for nothing in (None, {}):
        with pytest.raises(InputError) as error:
            trainer(tmp_path, held_out=nothing, eval_strategy="epoch")
        assert is_one_line(error.value, "eval_strategy is epoch", "eval_dataset")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("alpha", "abc", "expected a number above 0"),
        ("alpha", 0, "expected a number above 0"),
        ("alpha", [], "expected a number above 0"),
        ("max_length", "abc", "expected an integer"),
        ("max_length", 1, "of at least 2"),
        ("max_length", 10.5, "expected an integer"),
        ("max_prompt_length", 0, "of at least 1"),
        ("num_train_epochs", "abc", "expected a number"),
        ("num_train_epochs", -1, "of at least 0"),
        ("per_device_train_batch_size", 0, "of at least 1"),
        ("per_device_train_batch_size", "four", "expected an integer"),
        ("gradient_accumulation_steps", 0, "of at least 1"),
        ("eval_points", 0, "of at least 1"),
        ("learning_rate", "fast", "expected a number"),
        ("learning_rate", math.nan, "expected a number"),
        ("learning_rate", -1.0, "expected a number above 0"),
        ("seed", True, "expected an integer"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name_in_one_line(tmp_path, name, value, expected):
    with pytest.raises(InputError) as error:
        HyperDPOConfig(str(tmp_path), use_cpu=True, **{name: value})
    assert is_one_line(error.value, f"{name} is", expected)
    assert str(error.value).startswith(name)
    with pytest.raises(InputError) as error:
        training_arguments(tmp_path, {"use_cpu": True, name: value})
    assert is_one_line(error.value, f"training.{name} is", expected)


def test_numbers_may_be_written_as_text(tmp_path):
    """YAML reads 1e-4 as such."""
    args = HyperDPOConfig(
        str(tmp_path), use_cpu=True, learning_rate="1e-4", max_length="32", max_steps=1e2, alpha="0.3, 0.7"
    )
    assert (args.learning_rate, args.max_length, args.max_steps) == (1e-4, 32, 100)
    assert args.alphas(2) == (0.3, 0.7)
    assert HyperDPOConfig(str(tmp_path), use_cpu=True, alpha=np.array([1.0, 2.0])).alphas(2) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("given", "alphas"), [([], (0.5, 0.5)), (["--alpha", "0.3"], (0.3, 0.3)), (["--alpha", "0.3", "1"], (0.3, 1.0))]
)
def test_transformers_parser_reads_the_settings(tmp_path, given, alphas):
    parser = transformers.HfArgumentParser(HyperDPOConfig)
    weights = [] if given else ["--weights", "0.2", "0.8"]  # beside which alpha would have no effect
    line = ["--output_dir", str(tmp_path), "--use_cpu", "--max_length", "40", *weights, *given]
    (args,) = parser.parse_args_into_dataclasses(line, look_for_args_file=False)
    assert args.alphas(2) == alphas
    assert (args.max_length, args.weights, args.share_prompts) == (40, None if given else [0.2, 0.8], None)


# --- the hub


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been pushed: names of files and the card, at the time of the call."""
    found: list[dict[str, Any]] = []

    def upload(self: Any, *, folder_path: Any, ignore_patterns: Any = (), run_as_future: bool = False, **told: Any):
        folder = Path(folder_path)
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        kept = {name for name in names if not any(fnmatch(name, pattern) for pattern in ignore_patterns)}
        found.append({**told, "files": kept, "card": (folder / "README.md").read_text()})
        done: Future[str] = Future()
        done.set_result("done")
        return done if run_as_future else "done"

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_repo", lambda self, name, **_: SimpleNamespace(repo_id=f"me/{Path(name).name}")
    )
    return found


def test_pushes_hold_the_adapter_and_no_pickle(tmp_path, pushed):
    job = trainer(tmp_path, push_to_hub=True, hub_model_id="me/adapter", save_strategy="epoch", hub_always_push=True)
    job.train()
    assert len(pushed) >= 2
    job.push_to_hub(tags="stories", license="mit", model_name="Any trade-off")
    for one in pushed:
        assert one["repo_id"] == "me/adapter"
        assert {"adapter.safetensors", "hyperdpo_config.json", "tokenizer.json", "README.md"} <= one["files"]
        assert not [name for name in one["files"] if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
        assert not [name for name in one["files"] if "base" in name or "checkpoint" in name]
        assert 'ConditionedLM.from_pretrained("me/adapter"' in one["card"]
    assert "step 3" in pushed[0]["commit_message"]
    card = pushed[-1]["card"]
    assert "# Any trade-off\n" in card
    assert "license: mit\n" in card
    assert "- stories\n" in card
    assert "- hyperdpo\n" in card


def test_a_card_names_a_base_of_the_hub_and_no_directory_of_this_machine(tmp_path):
    from huggingface_hub import ModelCard

    tiny_base().save_pretrained(tmp_path / "secret")
    for name, known in ((str(tmp_path / "secret"), False), ("some/model-1.5B", True), ("", False)):
        job = trainer(tmp_path / "out")
        job.model.config.name_or_path = name
        job.create_model_card(tags=["one", "dpo"])
        text = (tmp_path / "out" / "README.md").read_text()
        data = ModelCard(text).data
        assert data.base_model == ("some/model-1.5B" if known else None)
        assert "secret" not in text
        assert str(tmp_path) not in text
        assert ("# model-1.5B, aligned to" in text) == known
        assert sorted(data.tags) == ["dpo", "hyperdpo", "lora", "multi-objective", "one"]
        assert data.license is None


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
        (["fit", "PARTS", "--model", "MODEL", "--out", "NEW"], ["objective 'high'", "none of the 4 groups"]),
        (["fit", "NAMED", "--model", "MODEL", "--out", "NEW"], ["objective 'main'", "main label", "another name"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "conditioning.depth=9"], ["depth"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "speed=9"], ["speed is not a setting"]),
        (["fit", "DATA", "--model", "MODEL", "--out", "NEW", "--set", "training.beta=x"], ["training.beta", "'x'"]),
    ],
)
def test_mistakes_get_one_line(place, run_path, tmp_path, command, arguments, words):
    names = {"RUN": run_path, "DATA": place / "data.jsonl", "MODEL": place / "model", "NEW": tmp_path / "new"}
    names["ABSENT"] = tmp_path / "nowhere"  # a path: a name would be looked for on the hub
    names["NAMED"] = tmp_path / "named.jsonl"
    named = [{**row, "labels": {"low": row["labels"]["low"], "main": row["labels"]["high"]}} for row in rows()]
    write_preferences(read_preferences(named), names["NAMED"])
    names["PARTS"] = tmp_path / "parts"
    names["PARTS"].mkdir()
    for part, count, high in (("train", 12, [1.0, 0.0, 0.0]), ("test", 4, [0.0, 0.0, 0.0])):
        known = [{**row, "labels": {"low": row["labels"]["low"], "high": high}} for row in rows(count)]
        write_preferences(read_preferences(known), names["PARTS"] / f"{part}.jsonl")
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
        ("epochs=9", ["training.epochs is not a setting", "did you mean training.num_train_epochs?"]),
        ("learning_rat=9", ["did you mean training.learning_rate?"]),
        ("output_dir=x", ["training.output_dir is not a setting"]),
        ("eval_strategy=x", ["training: x is not a valid"]),
        ("alpha=abc", ["training.alpha is 'abc'"]),
        ("max_length=abc", ["training.max_length is 'abc'"]),
        ("num_train_epochs=abc", ["num_train_epochs is 'abc'"]),
        ("per_device_train_batch_size=0", ["training.per_device_train_batch_size is 0"]),
        ("gradient_accumulation_steps=0", ["training.gradient_accumulation_steps is 0"]),
    ],
)
def test_a_mistaken_training_setting_gets_one_line(place, tmp_path, command, setting, words):
    arguments = [place / "data.jsonl", "--model", place / "model", "--out", tmp_path / "new", "--cpu"]
    assert command("align", "fit", *arguments, "--set", f"training.{setting}").refused(*words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [["fit", "d", "--model", "m", "--out", "o"], ["front", "r", "d"]])
def test_a_missing_extra_gets_one_line(monkeypatch, command, arguments):
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None)
    assert command("align", *arguments).refused("transformers is not installed; run: pip install 'hyperdpo[align]'")


QUICK = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.gate_hidden=4"]
QUICK += ["--set", "conditioning.prompt_tokens=2", "--epochs", "1"]


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
    start += ["--set", "training.save_strategy=steps", "--set", "training.save_steps=1"]
    with monkeypatch.context() as patch:
        raise_at(patch, transformers.Trainer, "training_step", 2, KeyboardInterrupt)
        assert command(*start).code == 130
    refused = command(*start, "--set", "training.learning_rate=0.02")
    assert refused.refused("unfinished training", "training.learning_rate", "--overwrite"), refused.err
    assert command(*start, "--set", "conditioning.lora_rank=2").refused("conditioning.lora_rank")
    done = command(*start)
    assert done.code == 0
    assert "resumed from" in done.err


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_trains_and_log_its_losses(place, tmp_path):
    """At a fixed w, so that draws do not depend on the process: four groups at once, or one by one in two
    batches of two processes. Some groups have no label of one objective."""
    data = rows(20)
    for row in data[::3]:
        row["labels"].pop("high")
    write_preferences(read_preferences(data), tmp_path / "data.jsonl")

    def fitted(processes: int, batch: int) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        out = tmp_path / f"run{processes}"
        settings = [
            "training.weights=[0.3,0.7]", "training.num_train_epochs=1", "training.logging_steps=1",
            f"training.per_device_train_batch_size={batch}",
            f"training.gradient_accumulation_steps={4 // (batch * processes)}",
            "conditioning.prompt_tokens=2", "training.learning_rate=0.01", "training.disable_tqdm=true",
            "conditioning.lora_conditioned=false", "conditioning.prompt_conditioned=false",
        ]  # fmt: skip
        options = [option for setting in settings for option in ("--set", setting)]
        where = [str(tmp_path / "data.jsonl"), "--model", str(place / "model"), "--out", str(out), "--cpu"]
        arguments = ["align", "fit", *where, *options]
        done = launch(processes, arguments) if processes > 1 else run_python("-m", "hyperdpo", *arguments)
        assert done.code == 0, done.err[-2000:]
        return AlignRun.load(out).model.adapter_state(), read(out / "metrics.json")["history"]

    (one, losses), (two, others) = fitted(1, 4), fitted(2, 1)
    start = ConditionedLM.create(
        tiny_base(), AlignRun.load(tmp_path / "run1").model.conditioning, seed=42
    ).adapter_state()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)
    assert any(float((one[name] - start[name]).abs().max()) > 0.01 for name in one)
    assert len(losses) == len(others) > 2
    for expected, found in zip(losses, others, strict=True):
        assert 0 < expected["loss"] < 2 * math.log(3)
        names = {name for name in expected if name.startswith(("loss", "rewards", "logps")) and "acc" not in name}
        assert names == {name for name in found if name.startswith(("loss", "rewards", "logps")) and "acc" not in name}
        for name in names:
            assert found[name] == pytest.approx(expected[name], rel=2e-3, abs=1e-3), name
