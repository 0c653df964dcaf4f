"""Our loss of pairs beside the one that TRL's DPOTrainer computes with the same LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import randomise, tiny_base
from toy_preferences import text, words_tokenizer

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig


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


def random_pairs(count: int = 6) -> list[dict[str, str]]:
    """Prompts with a chosen and a rejected response of different lengths."""
    rng = np.random.default_rng(3)
    return [
        {"prompt": text(rng, 2, 5), "chosen": " " + text(rng, 2, 7), "rejected": " " + text(rng, 2, 7)}
        for _ in range(count)
    ]


def assert_losses_and_gradients_are_trls(
    out: Path, own: Mapping[str, Any], other: Mapping[str, Any], *, pairs: int = 6
) -> float:
    """The same LoRA and pairs in both trainers; TRL's reference is the model without the adapter.

    Args:
        own, other: settings of HyperDPOConfig and of trl.DPOConfig.
        pairs: in the one batch.

    Returns:
        The loss.
    """
    trl, peft, datasets = (pytest.importorskip(name) for name in ("trl", "peft", "datasets"))
    data = random_pairs(pairs)
    plain = ConditioningConfig(
        ("preferred",), prompt_tokens=0, lora_rank=4, lora_conditioned=False, target_modules=("q_proj", "v_proj")
    )
    model = ConditionedLM.create(tiny_base(), plain)
    randomise(model)
    settings = arguments(out, per_device_train_batch_size=pairs, **own)
    ours = HyperDPOTrainer(model, settings, data, None, words_tokenizer())
    ours.score_base()
    loss = ours.compute_loss(ours.model, ours.data_collator(ours.train_groups))
    loss.backward()

    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    theirs = trl.DPOTrainer(
        model=peft.get_peft_model(tiny_base(), lora),
        args=trl.DPOConfig(
            output_dir=str(out / "trl"), report_to=[], use_cpu=True, bf16=False, max_length=None,
            gradient_checkpointing=False, per_device_train_batch_size=pairs, **other,
        ),
        train_dataset=datasets.Dataset.from_list(data),
        processing_class=words_tokenizer(),
    )  # fmt: skip
    # Only now: the trainer takes what the adapter is at the start for its reference.
    state = {}
    for name, layer in lora_layers(model.base).items():
        for part in ("lora_A", "lora_B"):
            state[f"base_model.model.{name}.{part}.weight"] = getattr(layer, part)[ADAPTER].weight.detach()
    peft.set_peft_model_state_dict(theirs.model, state)
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(len(data))])
    expected = theirs.compute_loss(theirs.model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    found = dict(theirs.model.named_parameters())
    for name, layer in lora_layers(model.base).items():
        for part in ("lora_A", "lora_B"):
            mine = getattr(layer, part)[ADAPTER].weight.grad
            trls = found[f"base_model.model.{name}.{part}.default.weight"].grad
            torch.testing.assert_close(mine, trls, rtol=1e-4, atol=1e-6)
            assert float(mine.abs().max()) > 0
    return float(loss.detach())
