"""Mixed log-probabilities against arithmetic that is written out, token by token and without a cache."""

from __future__ import annotations

import pytest
import torch
from helpers import is_one_line
from tiny_models import PLAIN, padded, texts, tiny_base, tiny_model

from hyperdpo.alignment.logps import CHUNK_LOGITS
from hyperdpo.comparison.align import shared_copy
from hyperdpo.comparison.logit_mixing import LogitMixture
from hyperdpo.errors import InputError

KINDS = ("llama", "gpt2")


def experts(kind: str):
    base = tiny_base(kind)
    return [tiny_model(base=shared_copy(base), seed=seed, **PLAIN) for seed in (1, 2)]


def mixed_by_hand(models, shares, ids):
    """(T, V) log-probabilities after each token of one text."""
    with torch.no_grad():
        parts = [share * m(ids[None]).logits[0].log_softmax(-1) for m, share in zip(models, shares, strict=True)]
    total = torch.stack(parts).sum(0)
    return total - torch.logsumexp(total, -1, keepdim=True)


@pytest.mark.parametrize("chunk", [CHUNK_LOGITS, 4 * 50], ids=["all at once", "two tokens of two experts"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_response_is_scored_with_the_normalised_average(kind, chunk):
    models, rows, prompt = experts(kind), texts(), 2
    ids, mask = padded(rows, "right")
    completion = mask.clone()
    completion[:, :prompt] = 0
    with torch.no_grad():
        found = LogitMixture(models, (0.3, 0.7), chunk_logits=chunk).row_logps(
            {"input_ids": ids, "attention_mask": mask, "completion_mask": completion}
        )
    for row, text in enumerate(rows):
        logps = mixed_by_hand(models, (0.3, 0.7), text)
        expected = sum(float(logps[t - 1, text[t]]) for t in range(prompt, len(text)))
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


def test_never_are_there_more_logits_than_a_chunk():
    models, made = experts("llama"), []
    for model in models:
        model.base.get_output_embeddings().register_forward_hook(lambda _, inputs, __: made.append(len(inputs[0])))
    ids, mask = padded(texts(), "right")
    completion = mask.clone()
    completion[:, :2] = 0
    with torch.no_grad():
        batch = {"input_ids": ids, "attention_mask": mask, "completion_mask": completion}
        mixture = LogitMixture(models, (0.3, 0.7), chunk_logits=4 * 50 * 2)
        mixture.row_logps(batch)
        assert sum(made) == 2 * int(completion.sum())
        assert max(made) == 4
        batch["completion_mask"] = mask
        with pytest.raises(InputError, match="row 0: the first token is part of the response"):
            mixture.row_logps(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_the_most_likely_of_the_average_with_padding(kind):
    models, rows = experts(kind), texts()
    ids, mask = padded(rows, "left")
    found = LogitMixture(models, (0.4, 0.6)).generate(
        ids, mask, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    for row, text in enumerate(rows):
        expected = text
        for _ in range(5):
            expected = torch.cat((expected, mixed_by_hand(models, (0.4, 0.6), expected)[-1].argmax()[None]))
        assert found[row, ids.shape[1] :].tolist() == expected[len(text) :].tolist()


def test_at_a_vertex_it_is_the_expert_and_the_other_is_not_asked():
    models = experts("llama")
    for part in models[0].modules():
        part.register_forward_pre_hook(lambda *_: pytest.fail("asked"))
    ids, mask = padded(texts(), "left")
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(
        LogitMixture(models, (0.0, 1.0)).generate(ids, mask, **settings), models[1].generate(ids, mask, **settings)
    )


@pytest.mark.parametrize(("shares", "words"), [((0.5, 0.6), ["sum to 1"]), ((1.0,), ["1 values"])])
def test_wrong_shares_are_refused(shares, words):
    with pytest.raises(InputError) as error:
        LogitMixture(experts("llama"), shares)
    assert is_one_line(error.value, *words), str(error.value)


def test_a_conditioned_model_is_refused():
    with pytest.raises(InputError, match="conditioned on w"):
        LogitMixture([tiny_model()], (1.0,))
