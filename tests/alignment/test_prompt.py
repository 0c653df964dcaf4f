"""Hyper Prompt Tuning: the virtual tokens at w, written out."""

from __future__ import annotations

import pytest
import torch

from hyperdpo.alignment.conditioning import ConditioningConfig, centred
from hyperdpo.alignment.prompt import HyperPrompt, vocabulary_prefix
from hyperdpo.errors import InputError

PREFIX = torch.arange(12.0).view(3, 4)


def test_the_mask_is_one_plus_a_product_of_two_networks_of_w() -> None:
    prompt = HyperPrompt(ConditioningConfig(("a", "b"), prompt_rank=2), PREFIX)
    w = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    found = prompt(w)
    assert found.shape == (2, 3, 4)
    assert prompt.tokens_network is not None
    assert prompt.width_network is not None
    for row, tokens in zip(w, found, strict=True):
        a = prompt.tokens_network(centred(row)).view(3, 2)
        b = prompt.width_network(centred(row)).view(2, 4)
        torch.testing.assert_close(tokens, (1 + a @ b) * PREFIX)


def test_as_printed_the_mask_is_the_product_alone() -> None:
    config = ConditioningConfig(("a", "b"), prompt_rank=1, mask_start="random", mask_spread=None)
    prompt = HyperPrompt(config, torch.ones(3, 4))
    (mask,) = prompt(torch.tensor([[0.5, 0.5]]))
    assert torch.linalg.matrix_rank(mask) == 1


def test_the_mask_moves_continuously_with_w_from_row_to_row() -> None:
    prompt = HyperPrompt(ConditioningConfig(("a", "b", "c")), PREFIX)
    w = torch.tensor([[0.2, 0.3, 0.5]])
    near = w + torch.tensor([[1e-4, -1e-4, 0.0]])
    assert 0 < (prompt(w) - prompt(near)).abs().max() < 1e-2
    torch.testing.assert_close(prompt(torch.cat((w, near)))[0], prompt(w)[0])


def test_plain_prompt_tuning_is_the_prefix_alone() -> None:
    prompt = HyperPrompt(ConditioningConfig(("a", "b"), prompt_conditioned=False), PREFIX)
    assert torch.equal(prompt(None)[0], PREFIX)
    assert [name for name, _ in prompt.named_parameters()] == ["prefix"]
    assert torch.equal(prompt.mask(torch.eye(2)), torch.ones(2, 3, 4))


def test_one_objective_needs_no_spread() -> None:
    """With one vertex there is no difference to scale: the setting has no effect."""
    found = []
    for spread in (0.1, None):
        torch.manual_seed(0)
        found.append(HyperPrompt(ConditioningConfig(("a",), mask_spread=spread), PREFIX)(torch.ones(1, 1)))
    assert torch.equal(*found)


def test_all_of_the_prompt_is_trained() -> None:
    prompt = HyperPrompt(ConditioningConfig(("a", "b")), PREFIX)
    prompt(torch.tensor([[0.3, 0.7]])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in prompt.parameters())


def test_the_start_is_made_of_different_allowed_tokens_and_depends_on_the_generator() -> None:
    embedding = torch.nn.Embedding(9, 4)
    allowed = {1, 3, 5, 7}
    excluded = frozenset(range(9)) - allowed
    prefix = vocabulary_prefix(embedding, 4, torch.Generator().manual_seed(0), excluded)
    assert {int((embedding.weight == row).all(-1).nonzero()) for row in prefix} == allowed
    again = vocabulary_prefix(embedding, 4, torch.Generator().manual_seed(0), excluded)
    assert torch.equal(prefix, again)
    with pytest.raises(InputError, match="prompt_tokens is 5; the vocabulary has only 4 tokens"):
        vocabulary_prefix(embedding, 5, torch.Generator(), excluded)
