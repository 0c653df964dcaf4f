"""rpo_alpha, ld_alpha and label_smoothing in a training: TRL's losses of pairs, arithmetic for lists, the command."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import read
from tiny_models import randomise, tiny_base
from toy_preferences import rows, words_tokenizer
from trl_losses import arguments, assert_losses_and_gradients_are_trls

from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.loss_options import best_lengths
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors

SFT: dict[str, Any] = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"rpo_alpha": 0.7}, SFT),
        ({"ld_alpha": 0.3}, {"ld_alpha": 0.3}),
        ({"ld_alpha": 0.0}, {"ld_alpha": 0.0}),
        ({"label_smoothing": 0.2}, {"loss_type": "robust", "label_smoothing": 0.2}),
        (
            {"rpo_alpha": 0.7, "ld_alpha": 0.3, "label_smoothing": 0.2},
            {**SFT, "loss_type": ["robust", "sft"], "ld_alpha": 0.3, "label_smoothing": 0.2},
        ),
        # share_prompts: prompts and responses in two passes.
        ({"rpo_alpha": 0.7, "ld_alpha": 0.3, "share_prompts": True}, {**SFT, "ld_alpha": 0.3}),
    ],
)
def test_losses_and_gradients_of_pairs_are_trls(tmp_path, own, other):
    loss = assert_losses_and_gradients_are_trls(tmp_path, {"beta": 0.3, **own}, {"beta": 0.3, **other})
    if own == {"ld_alpha": 0.3}:
        plain = assert_losses_and_gradients_are_trls(tmp_path / "plain", {"beta": 0.3}, {"beta": 0.3})
        assert abs(loss - plain) > 1e-3, "the option changes something here"


def test_a_conservatively_smoothed_pair_is_trls(tmp_path):
    """TRL smooths its loss ``aot`` this way. It sorts the pairs of a batch, which does nothing to one of them."""
    other = {"loss_type": "aot", "label_smoothing": 0.2, "beta": 0.3}
    own = {"beta": 0.3, "label_smoothing": 0.2, "smoothing": "conservative"}
    assert_losses_and_gradients_are_trls(tmp_path, own, other, pairs=1)


def job_of(out: Path, data: Any, *, trained: bool = True, **settings: Any) -> HyperDPOTrainer:
    """A trainer at w = (0.3, 0.7), whose adapter is not at its start."""
    plain = {"prompt_tokens": 0, "lora_conditioned": False}
    model = ConditionedLM.create(tiny_base(), ConditioningConfig(("low", "high"), **plain))
    if trained:
        randomise(model)
    args = arguments(out, weights=[0.3, 0.7], per_device_train_batch_size=len(data), **settings)
    return HyperDPOTrainer(model, args, data, None, words_tokenizer())


def token_logps(model: Any, prompt: list[int], response: list[int]) -> np.ndarray:
    """Of each token of a response, by the model's own logits."""
    ids = torch.tensor([prompt + response])
    logits = model(ids, weights=[0.3, 0.7]).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0].numpy()


@pytest.mark.parametrize("share", [False, True])
@torch.no_grad()
def test_the_loss_of_lists_is_what_arithmetic_says(tmp_path, share):
    """Five groups of up to four responses, one without a label, every option at once."""
    data = rows(5, 4)
    data[0]["labels"]["high"][1] = None
    for name in ("completions", *data[2]["labels"]):
        place = data[2] if name == "completions" else data[2]["labels"]
        place[name] = place[name][:3]
    beta, rpo, ld, rate = 0.4, 0.5, 0.25, 0.1
    job = job_of(
        tmp_path, data, beta=beta, rpo_alpha=rpo, ld_alpha=ld, label_smoothing=rate, share_prompts=share
    )  # fmt: skip
    job.score_base()
    found = float(job.compute_loss(job.model, job.data_collator(job.train_groups)))
    model = job.own_model
    nll: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    losses: dict[int, list[float]] = {0: [], 1: []}
    for group in job.train_groups:
        own = [token_logps(model, group.prompt_ids, ids) for ids in group.completion_ids]
        with model.base_only():
            base = [token_logps(model, group.prompt_ids, ids) for ids in group.completion_ids]
        shortest = min(map(len, own))

        def score(one: np.ndarray, shortest: int = shortest) -> float:
            return float(one[:shortest].sum() + ld * one[shortest:].sum())

        np.testing.assert_allclose(group.reference_logps, [score(one) for one in base], rtol=1e-4)
        for j in range(2):
            known = np.arange(len(own)) if group.labelled is None else np.flatnonzero(group.labelled[j])
            z = np.array([beta * (score(own[i]) - score(base[i])) for i in known])
            log_p = z - math.log(np.exp(z).sum())
            target = group.targets[j][known].astype(float)
            losses[j].append(-(((target - 2 * rate / len(known)) / (1 - 2 * rate)) * log_p).sum())
            best = known[target == target.max()]
            nll[j].append((-np.mean([own[i].sum() for i in best]), np.mean([len(own[i]) for i in best])))
    expected = 0.0
    for j, w in enumerate((0.3, 0.7)):
        anchor = sum(one for one, _ in nll[j]) / sum(length for _, length in nll[j])  # a mean over tokens
        expected += w * (np.mean(losses[j]) + rpo * anchor)
    assert found == pytest.approx(expected, rel=1e-5)
    lengths = [np.mean([length for _, length in nll[j]]) for j in range(2)]
    np.testing.assert_allclose(best_lengths(job.train_groups), lengths, rtol=1e-6)


def test_the_base_is_scored_anew_for_another_ld_alpha_and_measured_without(tmp_path):
    kept = {}
    for name, ld in (("none", None), ("half", 0.5), ("again", 0.5), ("one", 1.0)):
        job = job_of(tmp_path, rows(4), ld_alpha=ld, trained=False)
        job.eval_sets = {"": job.tokenized(read_preferences(rows(4)), words_tokenizer())}
        job.score_base()
        kept[name] = np.concatenate([group.reference_logps for group in job.train_groups])
        measured = np.concatenate([group.reference_logps for group in job.eval_sets[""]])
        np.testing.assert_allclose(measured, kept["none"], rtol=1e-6)
        header = read_tensors(tmp_path / "_base-train.safetensors")[1]
        assert header.get("ld_alpha") == ld
    assert np.abs(kept["half"] - kept["none"]).max() > 0.1
    assert (kept["half"] == kept["again"]).all()
    np.testing.assert_allclose(kept["one"], kept["none"], rtol=1e-6)


def test_settings_are_off_by_default_and_out_of_range_refused(tmp_path):
    args = HyperDPOConfig(str(tmp_path))
    assert (args.rpo_alpha, args.ld_alpha, args.label_smoothing, args.smoothing) == (None, None, 0.0, None)
    for name, value in (("rpo_alpha", -1), ("ld_alpha", 1.5), ("label_smoothing", 0.5), ("smoothing", "hard")):
        with pytest.raises(InputError, match=f"{name} is "):
            HyperDPOConfig(str(tmp_path), **{name: value, **({"label_smoothing": 0.1} if name == "smoothing" else {})})
    with pytest.raises(InputError, match="no effect without label_smoothing"):
        HyperDPOConfig(str(tmp_path), smoothing="conservative")


def test_a_fit_with_all_options_logs_the_anchors_and_trains_another_adapter(place, tmp_path, command):
    start = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--epochs", "1", "--cpu"]
    start += ["--set", "conditioning.prompt_tokens=2", "--set", "training.logging_steps=1"]
    options = ["rpo_alpha=0.5", "ld_alpha=0.2", "label_smoothing=0.1", "smoothing=conservative"]
    assert command(*start, "--out", tmp_path / "plain").code == 0
    done = command(*start, "--out", tmp_path / "run", *(f"--set=training.{one}" for one in options))
    assert done.code == 0, done.err
    history = read(tmp_path / "run" / "metrics.json")["history"]
    first = history[0]
    plain = read(tmp_path / "plain" / "metrics.json")["history"][0]
    assert {"nll/low", "nll/high"} <= set(first)
    assert not {"nll/low", "nll/high"} & set(plain)
    assert first["loss/low"] > plain["loss/low"] + 0.3 * first["nll/low"], "the anchor is in the loss"
    assert read(tmp_path / "run" / "run.json")["settings"]["training"]["ld_alpha"] == 0.2
    adapters = [read_tensors(tmp_path / name / "adapter.safetensors")[0] for name in ("run", "plain")]
    assert any(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    refused = command(*start, "--out", tmp_path / "no", "--set", "training.label_smoothing=0.7")
    assert refused.refused("training.label_smoothing is 0.7", "below 0.5")
