"""Generated text: every row as if it were alone, and Eq. (14) token by token as a written-out loop of two models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import KINDS, MIXED, PLAIN, padded, texts, tiny_base, tiny_model

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


def loop(model: ConditionedLM, prompt: torch.Tensor, w: Any, c: float, tokens: int = 8) -> list[int]:
    """Greedy decoding without cache: two whole models a token, mixed by (14)."""
    base, ids = model.plain_base(), prompt[None]
    with torch.no_grad():
        for _ in range(tokens):
            tuned = model(ids, None, w).logits[0, -1].log_softmax(-1)
            plain = base(ids).logits[0, -1].log_softmax(-1)
            ids = torch.cat((ids, ((1 - 1 / c) * plain + tuned / c).argmax().view(1, 1)), 1)
    return ids[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_of_greedy_text_equals_its_rows_one_by_one(kind: str) -> None:
    model, rows = tiny_model(kind), texts()
    ids, mask = padded(rows, "left")
    together = model.generate(ids, mask, weights=MIXED, **GREEDY)
    for i, row in enumerate(rows):
        alone = model.generate(row[None], weights=MIXED[i], **GREEDY)
        assert together[i, -8 - len(row) :].tolist() == alone[0].tolist() == loop(model, row, MIXED[i], 1.0)


@pytest.mark.parametrize("config", [{}, {"lora_conditioned": False}, {"prompt_tokens": 0}, {"lora_rank": 0}, PLAIN])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_scale_equals_a_written_out_loop_of_two_models(kind: str, config: dict[str, Any]) -> None:
    model, rows = tiny_model(kind, **config), texts()
    ids, mask = padded(rows, "left")
    scales = [0.5, 1.0, 3.0]
    found = model.generate(ids, mask, weights=MIXED, scale=scales, **GREEDY)
    for i, row in enumerate(rows):
        assert found[i, -8 - len(row) :].tolist() == loop(model, row, MIXED[i], scales[i])


def test_the_mixed_distribution_is_the_formula_to_rounding() -> None:
    model, (row, *_) = tiny_model(), texts()
    out = model.generate(
        row[None], weights=[0.3, 0.7], scale=2.5, output_logits=True, return_dict_in_generate=True, **GREEDY
    )
    with torch.no_grad():
        tuned = model(out.sequences, None, [0.3, 0.7]).logits[0, len(row) - 1 : -1].log_softmax(-1)
        plain = model.plain_base()(out.sequences).logits[0, len(row) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(torch.cat(out.logits), 0.6 * plain + 0.4 * tuned, atol=1e-5, rtol=1e-5)


def test_a_very_large_scale_is_the_base_model() -> None:
    model, rows = tiny_model(), texts()
    ids, mask = padded(rows, "left")
    expected = tiny_base().generate(ids, attention_mask=mask, **GREEDY)
    assert torch.equal(model.generate(ids, mask, weights=MIXED, scale=1e9, **GREEDY), expected)


def test_at_scale_one_a_token_takes_one_pass_of_b_rows_and_else_one_of_the_rows_that_need_the_base_too() -> None:
    model = tiny_model()
    ids, mask = padded(texts(), "left")
    seen: list[tuple[int, ...]] = []
    handle = model.base.base_model.layers[0].register_forward_hook(lambda m, a, out: seen.append(tuple(out.shape[:2])))
    model.generate(ids, mask, weights=MIXED, **GREEDY)
    assert seen == [(3, 3 + 7)] + [(3, 1)] * 7
    seen.clear()
    model.generate(ids, mask, weights=MIXED, scale=[1.0, 2.0, 1.0], **GREEDY)
    assert seen == [(4, 3 + 7)] + [(4, 1)] * 7
    handle.remove()


def test_the_cache_changes_nothing() -> None:
    model = tiny_model()
    ids, mask = padded(texts(), "left")
    for scale in (1.0, 2.0):
        found = [model.generate(ids, mask, weights=MIXED, scale=scale, use_cache=u, **GREEDY) for u in (True, False)]
        assert torch.equal(*found)


def test_lists_of_token_ids_are_padded_here() -> None:
    model, rows = tiny_model(), texts()
    expected = model.generate(*padded(rows, "left"), weights=MIXED, **GREEDY)
    assert torch.equal(model.generate([row.tolist() for row in rows], weights=MIXED, **GREEDY), expected)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_several_texts_of_a_prompt_share_its_weights(scale: float) -> None:
    model, rows = tiny_model(), texts()
    ids, mask = padded(rows, "left")
    settings = {"max_new_tokens": 5, "eos_token_id": None, "do_sample": True, "num_return_sequences": 2, "seed": 3}
    # Sampling from the single most probable token: greedy, but through the rows of sampling.
    found = model.generate(ids, mask, weights=MIXED, scale=scale, top_k=1, **settings)
    expected = model.generate(ids, mask, weights=MIXED, scale=scale, **{**GREEDY, "max_new_tokens": 5})
    assert torch.equal(found, expected.repeat_interleave(2, 0))


def test_beams_of_a_mixed_batch_equal_those_of_its_rows() -> None:
    model, rows = tiny_model(), texts()
    ids, mask = padded(rows, "left")
    together = model.generate(ids, mask, weights=MIXED, num_beams=3, **GREEDY)
    for i, row in enumerate(rows):
        alone = model.generate(row[None], weights=MIXED[i], num_beams=3, **GREEDY)
        assert together[i, -8 - len(row) :].tolist() == alone[0].tolist()
    with pytest.raises(InputError, match="num_beams"):
        model.generate(ids, mask, weights=MIXED, scale=2.0, num_beams=3, **GREEDY)


def test_a_seed_gives_the_same_text_and_leaves_the_callers_random_state_alone() -> None:
    model, row = tiny_model(), texts()[0]
    settings = {"weights": [0.5, 0.5], "max_new_tokens": 12, "do_sample": True, "eos_token_id": None}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, other = (model.generate(row[None], seed=5, **settings) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, other)
    assert not torch.equal(one, model.generate(row[None], seed=6, **settings))


def test_text_may_end_early_and_generating_does_not_change_the_model() -> None:
    model = tiny_model().train()
    ids, mask = padded(texts(), "left")
    free = model.generate(ids, mask, weights=MIXED, **GREEDY)
    last = int(free[0, -5])
    ended = model.generate(ids, mask, weights=MIXED, scale=1.0, **{**GREEDY, "eos_token_id": last})
    row = ended[0, 7:].tolist()
    assert row[: row.index(last)] == free[0, 7 : 7 + row.index(last)].tolist()
    assert set(row[row.index(last) + 1 :]) <= {0}
    assert model.training
    assert "forward" not in vars(model.base)


def test_base_model_generation_is_untouched_inside_base_only() -> None:
    model = tiny_model()
    ids, mask = padded(texts(), "left")
    expected = tiny_base().generate(ids, attention_mask=mask, **GREEDY)
    with model.base_only():
        assert torch.equal(model.generate(ids, mask, **GREEDY), expected)


def test_prompts_that_cannot_be_continued_are_refused() -> None:
    model, rows = tiny_model(), texts()
    with pytest.raises(InputError, match="prompt 1 is padded on the right; expected padding on the left"):
        model.generate(*padded(rows, "right"), weights=MIXED, **GREEDY)
    with pytest.raises(InputError, match="attention_mask is missing; the prompts contain padding"):
        model.generate(padded(rows, "left")[0], weights=MIXED, **GREEDY)
    with pytest.raises(InputError, match="prompt 1 is empty"):
        model.generate([[3, 4], []], weights=[0.5, 0.5], **GREEDY)
    with pytest.raises(InputError, match="weights are missing"):
        model.generate(rows[0][None], **GREEDY)
    with pytest.raises(InputError, match="assistant_model is not supported"):
        model.generate(rows[0][None], weights=[0.5, 0.5], assistant_model=tiny_base(), **GREEDY)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0], "two"])
def test_a_scale_out_of_range_is_refused(scale: Any) -> None:
    with pytest.raises(InputError, match="scale"):
        tiny_model().generate(*padded(texts(), "left"), weights=MIXED, scale=scale, **GREEDY)


def test_text_beyond_learned_positions_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InputError, match="a text of 66 tokens and 3 virtual tokens: the model has 64 positions"):
        tiny_model("gpt2").generate(texts((6,))[0][None], weights=[0.5, 0.5], **{**GREEDY, "max_new_tokens": 60})


def test_a_real_model_tells_a_story_at_any_weights() -> None:
    import transformers

    root = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = root.parent / "models" / "stories260k"
    if not path.exists():
        pytest.skip(f"{path} is absent; HYPERDPO_DATA names another place (models/ lies beside it)")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = tiny_model(base=transformers.AutoModelForCausalLM.from_pretrained(path), trained=False, mask_spread=1.0)
    prompts = tokenizer(["Once upon a time", "The dog"])["input_ids"]
    found = model.generate(prompts, weights=[[1, 0], [0, 1]], scale=[1.0, 1e9], max_new_tokens=12, do_sample=False)
    expected = model.plain_base().generate(torch.tensor([prompts[1]]), max_new_tokens=12, do_sample=False)
    assert found[1, -expected.shape[1] :].tolist() == expected[0].tolist()
