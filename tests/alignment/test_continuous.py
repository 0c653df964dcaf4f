"""Rows that join and leave a decoding batch: each of them as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import KINDS, PLAIN, texts, tiny_model

from hyperdpo.alignment.continuous import ContinuousBatch
from hyperdpo.alignment.model import ConditionedLM

PROMPTS = [row.tolist() for row in texts((7, 1, 12, 4, 6, 9, 3, 5), seed=4)]
WEIGHTS = torch.tensor([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0], [0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 1.0]])
SCALES = [1.0, 3.0, 1.0, 0.5, 1.0, 1.0, 2.0, 1.0]
#: Which row joins before which token, and how many tokens it gets.
ARRIVALS = {0: [0], 1: [1, 2], 4: [3], 5: [4, 5, 6], 11: [7]}
LENGTHS = [9, 3, 14, 6, 1, 8, 10, 5]


def decoded(model: ConditionedLM, scales: list[float]) -> list[list[int]]:
    """Greedy tokens of all rows, which come and go."""
    batch, owners, last = ContinuousBatch(model, prefill_tokens=24), [], []
    found: list[list[int]] = [[] for _ in PROMPTS]
    for now in range(40):
        logits = [batch.step(last)] if owners else []
        if new := ARRIVALS.get(now, []):
            logits.append(batch.admit([PROMPTS[i] for i in new], WEIGHTS[new], [scales[i] for i in new]))
            owners += new
        if not owners:
            continue
        assert len(batch) == len(owners)
        last = torch.cat(logits).argmax(-1).tolist()
        for owner, token in zip(owners, last, strict=True):
            found[owner].append(token)
        kept = [i for i, owner in enumerate(owners) if len(found[owner]) < LENGTHS[owner]]
        batch.keep(kept)
        owners, last = [owners[i] for i in kept], [last[i] for i in kept]
    assert len(batch) == 0
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scales", [SCALES, [1.0] * 8], ids=["scales", "one"])
def test_rows_that_come_and_go_get_the_tokens_of_generate_alone(kind: str, scales: list[float]) -> None:
    check(tiny_model(kind), scales)


@pytest.mark.parametrize("config", [{"lora_conditioned": False}, {"prompt_tokens": 0}, {"lora_rank": 0}, PLAIN])
def test_so_they_do_whatever_is_conditioned(config: dict[str, Any]) -> None:
    check(tiny_model("gpt2", **config), SCALES)


def check(model: ConditionedLM, scales: list[float]) -> None:
    found = decoded(model, scales)
    for i, prompt in enumerate(PROMPTS):
        settings: dict[str, Any] = {"max_new_tokens": LENGTHS[i], "do_sample": False, "eos_token_id": None}
        alone = model.generate([prompt], weights=WEIGHTS[i], scale=scales[i], **settings)
        assert found[i] == alone[0, len(prompt) :].tolist(), i


def test_places_that_no_row_needs_any_more_are_given_back() -> None:
    """The rest is the prompt, the virtual tokens and the token that is read."""
    model, places = tiny_model(), []
    model.base.register_forward_pre_hook(
        lambda _, __, inputs: places.append(inputs["attention_mask"].shape[1]), with_kwargs=True
    )
    batch = ContinuousBatch(model)
    batch.admit([PROMPTS[2], PROMPTS[1]], WEIGHTS[:2], [1.0, 2.0])
    batch.step([5, 6])
    batch.keep([1])
    batch.step([7])
    k = model.conditioning.prompt_tokens
    assert places[-2:] == [len(PROMPTS[2]) + k + 1, len(PROMPTS[1]) + k + 2]
    assert len(batch) == 1
