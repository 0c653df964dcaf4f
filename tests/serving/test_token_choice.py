"""Drawn tokens follow the distribution they are drawn from, and depend on nothing else in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyperdpo.serving.server.token_choice import TokenChoice, next_tokens


def drawn(logits: list[float], temperature: float, top_p: float, count: int = 4000) -> np.ndarray:
    """Frequencies of all tokens."""
    rng = np.random.default_rng(0)
    rows = torch.tensor(logits).expand(count, -1)
    tokens = next_tokens(rows, [TokenChoice(temperature, top_p, rng)] * count)
    return np.bincount(tokens, minlength=len(logits)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_from_the_softmax_at_a_temperature(temperature: float) -> None:
    logits = [0.3, -1.0, 2.0, 0.0]
    wanted = np.exp(np.array(logits) / temperature)
    np.testing.assert_allclose(drawn(logits, temperature, 1.0), wanted / wanted.sum(), atol=0.03)


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = np.log([0.1, 0.5, 0.25, 0.15]).tolist()
    np.testing.assert_allclose(drawn(logits, 1.0, 0.7), [0, 2 / 3, 1 / 3, 0], atol=0.03)
    np.testing.assert_allclose(drawn(logits, 1.0, 0.8), np.array([0, 0.5, 0.25, 0.15]) / 0.9, atol=0.03)
    np.testing.assert_array_equal(drawn(logits, 1.0, 1e-9, 50), [0, 1, 0, 0])


def test_no_temperature_and_a_tiny_one_take_the_most_likely() -> None:
    logits = torch.tensor([[1e4, 3e4, -1e4]])
    for temperature in (0.0, 1e-12):
        assert next_tokens(logits, [TokenChoice(temperature, 1.0, np.random.default_rng(0))]) == [1]


def test_a_row_draws_what_it_draws_alone() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    settings = [(0.0, 1.0), (1.0, 1.0), (0.7, 0.5), (1.3, 1.0), (1.0, 0.95), (0.0, 0.5)]

    def choices() -> list[TokenChoice]:
        return [TokenChoice(t, p, np.random.default_rng(i)) for i, (t, p) in enumerate(settings)]

    together = next_tokens(logits, choices())
    assert together == [next_tokens(logits[i : i + 1], [choices()[i]])[0] for i in range(6)]
