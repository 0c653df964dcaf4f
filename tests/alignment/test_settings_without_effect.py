"""Settings that the trainer does not act on are refused by name, and those that it acts on are not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers import is_one_line
from tiny_models import tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import WITHOUT_EFFECT, HyperDPOConfig, training_arguments
from hyperdpo.errors import InputError

OTHER: dict[str, Any] = {
    "label_smoothing_factor": 0.45, "per_device_eval_batch_size": 2, "eval_accumulation_steps": 1,
    "eval_do_concat_batches": False, "include_for_metrics": ["loss"], "label_names": ["x"],
    "length_column_name": "n", "average_tokens_across_devices": False, "optim_target_modules": ["q_proj"],
    "liger_kernel_config": {"rope": True}, "resume_from_checkpoint": "somewhere",
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_setting_without_effect_is_refused_by_name(tmp_path, name):
    if name not in {one.name for one in fields(HyperDPOConfig)}:
        pytest.skip(f"this version of transformers has no {name}")
    value = OTHER.get(name, True)
    with pytest.raises(InputError) as error:
        training_arguments(tmp_path, {name: value})
    assert is_one_line(error.value, f"training.{name} is {value!r}", "no effect")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_sampling_strategy": "group_by_length"}, ["train_sampling_strategy", "random or sequential"]),
        ({"optim_args": "a=1"}, ["optim_args"]),
        ({"weights": [0.5, 0.5], "vertex_share": 0.5}, ["vertex_share", "weights"]),
        ({"weights": [0.5, 0.5], "alpha": 2.0}, ["alpha", "weights"]),
        ({"stratified": True, "weights_per": "batch"}, ["stratified", "weights_per"]),
    ],
)
def test_a_setting_that_another_one_makes_idle_is_refused(tmp_path, settings, words):
    with pytest.raises(InputError) as error:
        training_arguments(tmp_path, settings)
    assert is_one_line(error.value, *words)


def last_loss(out: Path, **settings: Any) -> float:
    args = HyperDPOConfig(
        str(out), use_cpu=True, max_steps=4, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
        learning_rate=0.05, per_device_train_batch_size=4, **settings,
    )  # fmt: skip
    trainer = HyperDPOTrainer(tiny_base(), args, rows(14), processing_class=words_tokenizer())
    trainer.train()
    return float([entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1])


def test_what_is_not_refused_has_an_effect(tmp_path):
    plain = last_loss(tmp_path)
    acting: list[dict[str, Any]] = [
        {"neftune_noise_alpha": 50.0}, {"optim": "adafactor"}, {"weight_decay": 1.0}, {"data_seed": 3},
        {"train_sampling_strategy": "sequential"}, {"max_grad_norm": 0.01}, {"dataloader_drop_last": True},
        {"lr_scheduler_type": "constant"}, {"penalty": 1.0}, {"weights_per": "batch"}, {"alpha": 5.0},
    ]  # fmt: skip
    assert plain == last_loss(tmp_path)
    for settings in acting:
        assert last_loss(tmp_path, **settings) != plain, settings
