"""An adapter knows its base by the base's tensors: another base in its place is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_models import PLAIN, randomise, tiny_base, tiny_model

from hyperdpo.alignment import base_identity as module
from hyperdpo.alignment.base_identity import base_identity
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError


@pytest.fixture
def saved(tmp_path):
    """An adapter of a base on disk."""
    tiny_base().save_pretrained(tmp_path / "base")
    model = ConditionedLM.create(tmp_path / "base", ConditioningConfig(("a", "b"), prompt_tokens=2), seed=1)
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path


def test_another_base_at_the_same_place_is_refused(saved):
    ConditionedLM.from_pretrained(saved / "adapter")
    shutil.rmtree(saved / "base")
    tiny_base(seed=1).save_pretrained(saved / "base")
    refusal = r"hyperdpo_config\.json: made for another base model than .*base: the tensors differ"
    with pytest.raises(InputError, match=refusal):
        ConditionedLM.from_pretrained(saved / "adapter")
    with pytest.raises(InputError, match=refusal):
        ConditionedLM.from_pretrained(saved / "adapter", saved / "base")


def test_one_bit_of_the_base_counts(saved):
    base = tiny_base()
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight.view(torch.int32)[3, 4] ^= 1
    with pytest.raises(InputError, match="the tensors differ"):
        ConditionedLM.from_pretrained(saved / "adapter", base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_is_known_in_another_precision(dtype, saved):
    ConditionedLM.from_pretrained(saved / "adapter", dtype=dtype)
    with pytest.raises(InputError, match="the tensors differ"):
        ConditionedLM.from_pretrained(saved / "adapter", tiny_base(seed=1).to(dtype))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_an_adapter_in_the_base_does_not_count(kind):
    before = base_identity(tiny_base(kind))
    assert before is not None
    assert base_identity(tiny_model(kind, base=tiny_base(kind)).base) == before
    assert base_identity(tiny_model(kind, base=tiny_base(kind), **PLAIN).base) == before
    assert base_identity(tiny_base(kind, seed=1)) != before


def test_a_base_is_hashed_again_only_where_it_was_changed(monkeypatch):
    base, hashed = tiny_base(), []
    real = module._identity
    monkeypatch.setattr(module, "_identity", lambda tensors: hashed.append(1) or real(tensors))
    first = base_identity(base)
    assert base_identity(base) == first
    assert len(hashed) == 1
    with torch.no_grad():
        base.lm_head.weight.add_(1)
    assert base_identity(base) != first
    assert len(hashed) == 2


def test_quantised_and_absent_weights_are_not_compared():
    base = tiny_base()
    base.lm_head.weight = torch.nn.Parameter(torch.zeros(50, 16, dtype=torch.uint8), requires_grad=False)
    assert base_identity(base) is None
    assert base_identity(tiny_base().to("meta")) is None
