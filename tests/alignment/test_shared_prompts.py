"""A prompt computed once for its responses gives what whole rows give: values and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import KINDS, PLAIN, tiny_model
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.collation import Collator, TokenGroup, tokenize_groups, worth_sharing
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.evaluation import base_scores, row_logps
from hyperdpo.alignment.trainer import HyperDPOConfig, HyperDPOTrainer
from hyperdpo.errors import InputError


def groups() -> Any:
    """Prompts of different lengths, and 2 to 3 responses."""
    found = rows(5)
    found[1]["completions"], found[1]["labels"] = (
        found[1]["completions"][:2],
        {name: values[:2] for name, values in found[1]["labels"].items()},
    )
    data = read_preferences(found)
    return tokenize_groups(data, to_targets(data, fit_objectives(data, default_objectives(data))), words_tokenizer())


PARTS: dict[str, dict[str, Any]] = {
    "both": {},
    "prompt": {"lora_conditioned": False},
    "no prompt": {"prompt_tokens": 0},
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_whole_rows(kind: str, part: str) -> None:
    some, found = groups(), {}
    weights = torch.tensor([[0.1 * g, 1 - 0.1 * g] for g in range(5)])
    for share in (False, True):
        model = tiny_model(kind, **PARTS[part])
        batch = Collator(0, share_prompts=share)(some)
        owner = torch.repeat_interleave(torch.tensor([len(group.completion_ids) for group in some]))
        logps = row_logps(model, batch, weights[owner])
        (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
        found[share] = logps.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-5, atol=1e-5)
    for name, grad in found[False][1].items():
        error = float((found[True][1][name] - grad).abs().max() / grad.abs().max())
        assert error < 1e-4, (name, error)


def test_plain_models_and_the_base_are_scored_alike() -> None:
    model, some = tiny_model(**PLAIN), groups()
    whole, shared = (Collator(0, share_prompts=share)(some) for share in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(row_logps(model, shared), row_logps(model, whole), rtol=1e-5, atol=1e-5)
        with model.base_only():
            base = row_logps(model, shared)
    torch.testing.assert_close(
        base, torch.cat([torch.as_tensor(s) for s in base_scores(model, some, 0)]), rtol=1e-5, atol=1e-5
    )


def test_training_with_shared_prompts_reaches_the_adapter_of_training_without(tmp_path: Path) -> None:
    adapters = []
    for share in (False, True):
        args = HyperDPOConfig(
            str(tmp_path / str(share)), share_prompts=share, num_train_epochs=2, per_device_train_batch_size=4,
            report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", learning_rate=1e-2,
        )  # fmt: skip
        job = HyperDPOTrainer(tiny_model(trained=False), args, with_objectives(rows(12)), None, words_tokenizer())
        job.train()
        adapters.append(job.own_model.adapter_state())
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], tensor, rtol=1e-2, atol=2e-3, msg=name)


def test_prompts_are_shared_where_that_leaves_out_a_fifth_of_the_tokens() -> None:
    target, signal = np.ones((1, 3)) / 3, np.ones(1, dtype=bool)
    # whole: 3 (p + 4); apart: p + 12
    assert worth_sharing([TokenGroup([3] * 3, [[4] * 4] * 3, target, signal, 0)])  # 21, 15
    assert not worth_sharing([TokenGroup([3], [[4] * 4] * 3, target, signal, 0)])  # 15, 13


def test_sharing_and_gradient_checkpointing_exclude_each_other(tmp_path: Path) -> None:
    args = HyperDPOConfig(str(tmp_path), share_prompts=True, gradient_checkpointing=True, use_cpu=True, report_to=[])
    with pytest.raises(InputError, match="share_prompts: not with gradient checkpointing"):
        HyperDPOTrainer(tiny_model(), args, with_objectives(rows(4)), None, words_tokenizer())


def with_objectives(found: Any) -> Any:
    """The toy's labels under the names of the tiny model's objectives."""
    for row in found:
        row["labels"] = dict(zip(("a", "b"), row["labels"].values(), strict=True))
    return found
