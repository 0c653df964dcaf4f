"""Log-probabilities of responses equal the log-softmax of all logits, gathered and summed."""

from __future__ import annotations

import pytest
import torch
from tiny_models import KINDS, MIXED, padded, texts, tiny_model, trainable
from torch import Tensor, nn

from hyperdpo.alignment.logps import OutputHead, sequence_logps
from hyperdpo.errors import InputError


def naive(logits: Tensor, ids: Tensor, completion: Tensor) -> Tensor:
    picked = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (picked * completion[:, 1:]).sum(-1)


def case(seed: int = 0) -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 8, 6, generator=generator)
    head = nn.Linear(6, 20)
    ids = torch.randint(0, 20, (3, 8), generator=generator)
    completion = torch.zeros(3, 8, dtype=torch.long)
    completion[0, 2:], completion[1, 5:7] = 1, 1  # and nothing in the last row
    return hidden, head, ids, completion


@pytest.mark.parametrize("chunk", [1, 4, 1000, None])
def test_values_and_gradients_equal_the_naive_ones(chunk: int | None) -> None:
    hidden, head, ids, completion = case()
    head.requires_grad_(False)
    scale = torch.tensor([1.0, -2.0, 3.0])
    results = []
    for compute in (
        lambda h: naive(head(h), ids, completion),
        lambda h: sequence_logps(h, ids, completion, head, chunk_tokens=chunk),
    ):
        leaf = hidden.clone().requires_grad_()
        values = compute(leaf)
        (values * scale).sum().backward()
        results.append([values.detach(), leaf.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert results[0][0][2] == 0


def test_without_gradients_and_without_responses() -> None:
    hidden, head, ids, completion = case()
    with torch.no_grad():
        torch.testing.assert_close(
            sequence_logps(hidden, ids, completion, head, chunk_tokens=3), naive(head(hidden), ids, completion)
        )
    leaf = hidden.clone().requires_grad_()
    head.requires_grad_(False)
    none = sequence_logps(leaf, ids, torch.zeros_like(completion), head)
    assert torch.equal(none, torch.zeros(3))
    none.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() == 0


def test_half_precision_states_give_float32_sums() -> None:
    hidden, head, ids, completion = case()
    found = sequence_logps(hidden.bfloat16(), ids, completion, head.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, naive(head.float()(hidden), ids, completion), atol=0.3, rtol=0.1)


def test_a_response_without_a_prompt_is_refused() -> None:
    hidden, head, ids, completion = case()
    completion[1, 0] = 1
    with pytest.raises(InputError, match="row 1: the first token is part of the response"):
        sequence_logps(hidden, ids, completion, head)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_models_logps_equal_those_of_its_logits(kind: str, side: str) -> None:
    model, rows = tiny_model(kind), texts()
    ids, mask = padded(rows, side)
    completion = mask * (mask.cumsum(-1) > 2)
    with torch.no_grad():
        found = model(ids, mask, MIXED, completion_mask=completion).logps
        torch.testing.assert_close(found, naive(model(ids, mask, MIXED).logits, ids, completion), atol=1e-4, rtol=1e-5)
        with model.base_only():
            base = model(ids, mask, completion_mask=completion)["logps"]
            torch.testing.assert_close(base, naive(model(ids, mask).logits, ids, completion), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_logps_have_the_gradients_of_its_logits(kind: str) -> None:
    model = tiny_model(kind)
    ids, mask = padded(texts(), "right")
    completion = mask * (mask.cumsum(-1) > 2)
    grads = []
    for fast in (True, False):
        model.zero_grad()
        if fast:
            values = model(ids, mask, MIXED, completion_mask=completion).logps
        else:
            values = naive(model(ids, mask, MIXED).logits, ids, completion)
        (values * torch.tensor([1.0, -0.5, 2.0])).sum().backward()
        grads.append([p.grad.clone() for p in trainable(model) if p.grad is not None])
    assert len(grads[0]) == len(trainable(model))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_head_scales_and_caps_logits_as_gemma_cohere_and_granite_do() -> None:
    import transformers

    sizes = {
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    ids = torch.tensor([[3, 4, 5]])
    for name, settings in (
        ("Gemma2", {"final_logit_softcapping": 0.5, "head_dim": 8, "num_key_value_heads": 1}),
        ("Cohere", {"logit_scale": 0.3}),
        ("Granite", {"logits_scaling": 5.0}),
    ):
        config = getattr(transformers, f"{name}Config")(
            **sizes, **settings, pad_token_id=0, bos_token_id=1, eos_token_id=2
        )
        base = getattr(transformers, f"{name}ForCausalLM")(config).eval()
        with torch.no_grad():
            hidden = base.base_model(ids).last_hidden_state
            torch.testing.assert_close(OutputHead(base)(hidden), base(ids).logits)


def test_under_autocast_values_and_gradients_are_close_to_those_of_full_precision() -> None:
    model = tiny_model()
    ids, mask = padded(texts(), "right")
    completion = mask * (mask.cumsum(-1) > 2)
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = model(ids, mask, MIXED, completion_mask=completion).logps
        values.mean().backward()
        grads = torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])
        found.append((values.detach(), grads))
        assert values.dtype == torch.float32
    torch.testing.assert_close(found[1][0], found[0][0], atol=0.5, rtol=0.05)
    assert torch.nn.functional.cosine_similarity(found[1][1], found[0][1], 0) > 0.98
