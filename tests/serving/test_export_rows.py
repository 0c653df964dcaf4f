"""Virtual tokens in a merged model: rows of the head that no hidden state of a text makes likely."""

from __future__ import annotations

import pytest
import torch
from exported_models import WEIGHTS, leaning_base
from tiny_models import tiny_base, tiny_model
from torch import nn

from hyperdpo.serving.export.rows import MARGIN, add_rows, low_row

NEW = [50, 51, 52]
SHAPES = [(kind, tied) for kind in ("gpt2", "llama", "qwen2") for tied in (True, False)]


@pytest.mark.parametrize(("kind", "tied"), SHAPES)
def test_virtual_tokens_are_below_all_others_on_texts_of_any_kind(kind, tied):
    plain, prefix = tiny_model(kind, base=leaning_base(kind, tied=tied)).merge(WEIGHTS)
    assert add_rows(plain, prefix, NEW) > MARGIN
    generator = torch.Generator().manual_seed(7)
    texts = torch.randint(50, (16, 40), generator=generator)
    texts[0] = 7  # one word again and again
    with torch.no_grad():
        logits = plain(torch.cat((torch.tensor(NEW).expand(16, -1), texts), 1)).logits[:, 2:]
    assert (logits[..., 50:].amax(-1) < logits[..., :50].amin(-1) - MARGIN).all()


@pytest.mark.parametrize(("kind", "tied"), SHAPES)
def test_nothing_has_to_keep_a_sampler_from_virtual_tokens(kind, tied):
    plain, prefix = tiny_model(kind, base=leaning_base(kind, tied=tied)).merge(WEIGHTS)
    add_rows(plain, prefix, NEW)
    assert plain.generation_config.suppress_tokens == NEW
    plain.generation_config.suppress_tokens = None
    begin = torch.tensor([[*NEW, 5]]).expand(8, -1)
    settings = {"max_new_tokens": 60, "eos_token_id": None, "top_k": 0, "attention_mask": torch.ones_like(begin)}
    greedy = plain.generate(begin, do_sample=False, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = plain.generate(begin, do_sample=True, temperature=2.0, **settings)
    assert greedy.shape == drawn.shape == (8, 64)
    assert max(int(greedy[:, 4:].max()), int(drawn[:, 4:].max())) < 50


def test_behind_a_layer_norm_one_logit_serves_all_hidden_states():
    generator = torch.Generator().manual_seed(0)
    states = 5 * torch.randn(400, 12, generator=generator, dtype=torch.float64)
    gain = 0.5 + torch.rand(12, generator=generator, dtype=torch.float64)
    hidden = nn.functional.layer_norm(states, (12,)) * gain + torch.linspace(0, 2, 12, dtype=torch.float64)
    # (h - b) / g sums to 0, so that sum(h / g) is sum(b / g), whatever h is
    always = (torch.linspace(0, 2, 12, dtype=torch.float64) / gain).sum()
    assert torch.allclose(hidden @ (1 / gain), always)
    row = low_row(hidden, torch.full((400,), -3.0, dtype=torch.float64))
    assert row is not None
    assert (hidden @ row).max() <= -3 - MARGIN
    assert (hidden @ row).std() < 0.05 * (hidden @ row).mean().abs()


def test_hidden_states_on_all_sides_have_no_such_row():
    hidden = torch.cat((torch.eye(4), -torch.eye(4))).double()
    assert low_row(hidden, torch.zeros(8).double()) is None


def test_a_random_model_has_the_row_of_its_least_likely_token():
    plain, prefix = tiny_model("llama", base=tiny_base("llama")).merge(WEIGHTS)
    before = plain.get_output_embeddings().weight.detach().clone()
    assert add_rows(plain, prefix, NEW) is None
    head = plain.get_output_embeddings().weight.detach()
    assert torch.equal(head[:50], before)
    (copied,) = [i for i in range(50) if torch.equal(head[50], head[i])]
    assert torch.equal(head[50:], head[copied].expand(3, -1))
    texts = torch.randint(50, (8, 30), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        chances = plain(torch.cat((torch.tensor(NEW).expand(8, -1), texts), 1)).logits[:, 2:, :50].softmax(-1)
    assert chances[..., copied].max() <= chances.amax((0, 1)).median()
    assert plain.generation_config.suppress_tokens == NEW
