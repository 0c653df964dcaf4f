"""Averaged adapters: weights and prompts of a soup are the averages of its models' own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PLAIN, texts, tiny_base, tiny_model

from hyperdpo.alignment.conditioned_lora import lora_layers, weight_change
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.comparison.soup import soup
from hyperdpo.errors import InputError


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def logits(model: ConditionedLM, row: torch.Tensor, weights: Any) -> torch.Tensor:
    return model(row[None], None, weights).logits[0]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_soup_is_the_average_of_effective_weights_and_prompts(kind: str) -> None:
    models = [tiny_model(kind, seed=s, **PLAIN) for s in (1, 2)]
    mixed = soup(models, [0.3, 0.7])
    for name, layer in lora_layers(mixed.base).items():
        parts = [weight_change(lora_layers(model.base)[name]) for model in models]
        torch.testing.assert_close(weight_change(layer), 0.3 * parts[0] + 0.7 * parts[1])
    prefixes = [model.adapter_state()["prompt.prefix"] for model in models]
    torch.testing.assert_close(mixed.adapter_state()["prompt.prefix"], 0.3 * prefixes[0] + 0.7 * prefixes[1])
    # And as a whole: the plain model whose weights and prompt are the averages of the merged ones.
    merged, row = [model.merge() for model in models], texts()[0]
    plain, average = copy.deepcopy(merged[0][0]), 0.3 * prefixes[0] + 0.7 * prefixes[1]
    for target, one, other in zip(plain.parameters(), *(m[0].parameters() for m in merged), strict=True):
        target.copy_(0.3 * one + 0.7 * other)
    embedded = torch.cat((average[None], plain.get_input_embeddings()(row[None])), 1)
    expected = plain(inputs_embeds=embedded).logits[0, 3:]
    torch.testing.assert_close(logits(mixed, row, None), expected, atol=1e-4, rtol=1e-4)


def test_soups_at_the_ends_are_the_models_and_a_soup_of_soups_is_a_soup(tmp_path: Path) -> None:
    models, row = [tiny_model(seed=s, **PLAIN) for s in (1, 2)], texts()[0]
    for shares, model in (([1, 0], models[0]), ([0, 1], models[1])):
        torch.testing.assert_close(
            logits(soup(models, shares), row, None), logits(model, row, None), atol=1e-5, rtol=1e-5
        )
    mixed = soup(models, [0.5, 0.5])
    mixed.save_pretrained(tmp_path)
    loaded = ConditionedLM.from_pretrained(tmp_path, tiny_base())
    assert torch.equal(logits(loaded, row, None), logits(mixed, row, None))


@pytest.mark.parametrize("definition", ["exact", "linear", "svd"])
def test_a_soup_of_prompts_alone_is_the_average_of_the_prompts(definition: str) -> None:
    models = [tiny_model(seed=s, lora_rank=0, **PLAIN) for s in (1, 2)]
    mixed = soup(models, [0.3, 0.7], definition)
    first, second = (model.adapter_state()["prompt.prefix"] for model in models)
    assert set(mixed.adapter_state()) == {"prompt.prefix"}
    torch.testing.assert_close(mixed.adapter_state()["prompt.prefix"], 0.3 * first + 0.7 * second)
    assert mixed.conditioning == models[0].conditioning


def test_other_definitions_of_a_soup_have_names() -> None:
    models = [tiny_model(seed=s, **PLAIN) for s in (1, 2, 3)]
    shares = [0.2, 0.3, 0.5]
    exact, svd, linear = (soup(models, shares, name) for name in ("exact", "svd", "linear"))
    assert [model.conditioning.lora_rank for model in (exact, svd, linear)] == [12, 8, 4]
    for name, layer in lora_layers(exact.base).items():
        whole, cut = weight_change(layer), weight_change(lora_layers(svd.base)[name])
        lost = torch.linalg.svdvals(whole)[8:].square().sum()
        torch.testing.assert_close((whole - cut).square().sum(), lost, atol=1e-5, rtol=1e-3)
        assert (whole - weight_change(lora_layers(linear.base)[name])).norm() > 0.1 * whole.norm()
    with pytest.raises(InputError, match="soup definition 'cat', expected one of exact, linear, svd"):
        soup(models, shares, "cat")


def test_a_soup_of_models_that_know_w_or_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="model 1 is conditioned on w"):
        soup([tiny_model(**PLAIN), tiny_model()], [0.5, 0.5])
    with pytest.raises(InputError, match="model 1 has another prompt or other LoRA layers"):
        soup([tiny_model(**PLAIN), tiny_model(lora_rank=2, **PLAIN)], [0.5, 0.5])
    with pytest.raises(InputError, match="weights"):
        soup([tiny_model(**PLAIN)] * 2, [0.5, 0.6])
