"""Hyper Prompt Tuning: virtual tokens before the text, multiplied by a mask that is a function of the weights w.

Shapes: B rows, m objectives, k virtual tokens, r rank of the mask, d width of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyperdpo.alignment.conditioning import ConditioningConfig, centred
from hyperdpo.errors import InputError

#: Size of the noise in :func:`beginning_prefix`.
BEGINNING_NOISE = 0.3


class HyperPrompt(nn.Module):
    """The k virtual tokens at w: prefix * (1 + A(w) B(w)), section 4.2 of the paper.

    The paper's mask is A(w) B(w) alone (``mask_start="random"``); in a trial, a prompt of that kind was trained and w
    ignored. A and B are small networks of w: one hidden layer of ``config.prompt_hidden`` units each.

    Args:
        config: k, r, the mask's start; ``prompt_conditioned=False`` makes it the prefix alone.
        prefix: (k, d), where the virtual tokens start, see :func:`vocabulary_prefix`.
    """

    def __init__(self, config: ConditioningConfig, prefix: Tensor):
        super().__init__()
        self.config = config
        self.prefix = nn.Parameter(prefix.detach().clone().to(torch.float32))
        self.tokens_network: nn.Sequential | None = None  # A: w -> (k, r)
        self.width_network: nn.Sequential | None = None  # B: w -> (r, d)
        if config.prompt_conditioned:
            tokens, width = prefix.shape
            self.tokens_network = self._network(tokens * config.prompt_rank)
            self.width_network = self._network(config.prompt_rank * width)
            self._set_spread()

    def forward(self, weights: Tensor | None) -> Tensor:
        """The virtual tokens.

        Args:
            weights: (B, m); not used, and may be None, for a prompt that does not know w.

        Returns:
            (B, k, d); (1, k, d) for a prompt that does not know w.
        """
        if self.tokens_network is None:
            return self.prefix[None]
        assert weights is not None
        return self.mask(weights) * self.prefix

    def mask(self, weights: Tensor) -> Tensor:
        """(B, m) -> (B, k, d); ones for a prompt that does not know w."""
        if self.tokens_network is None or self.width_network is None:
            return torch.ones_like(self.prefix).expand(len(weights), *self.prefix.shape)
        rows, rank, (tokens, width) = len(weights), self.config.prompt_rank, self.prefix.shape
        seen = centred(weights)
        product = self.tokens_network(seen).view(rows, tokens, rank) @ self.width_network(seen).view(rows, rank, width)
        return 1 + product if self.config.mask_start == "one" else product

    def _network(self, outputs: int) -> nn.Sequential:
        hidden = self.config.prompt_hidden
        return nn.Sequential(nn.Linear(len(self.config.objectives), hidden), nn.Tanh(), nn.Linear(hidden, outputs))

    @torch.no_grad()
    def _set_spread(self) -> None:
        """Scale both last layers so that the mask differs between the vertices as much as the configuration says."""
        assert self.tokens_network is not None
        assert self.width_network is not None
        spread, m = self.config.mask_spread, len(self.config.objectives)
        if spread is None or m == 1:
            return
        found = self.mask(torch.eye(m, device=self.prefix.device)).var(0, correction=0).mean().sqrt()
        for network in (self.tokens_network, self.width_network):
            last = network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_((spread / found) ** 0.5)
            last.bias.mul_((spread / found) ** 0.5)


def beginning_prefix(embedding: nn.Module, tokens: int, generator: torch.Generator, token: int) -> Tensor:
    """Start for k virtual tokens: the embedding of a token that begins texts, each with noise of its own.

    Models are used to it in front of everything: in a model of stories, k other tokens cost 0.6 nats per token of the
    text at first, these 0.03. The noise, :data:`BEGINNING_NOISE` of the embedding's root mean square, tells them
    apart.

    Args:
        embedding: the model's input embeddings.
        tokens: k.
        generator: on the CPU; draws the noise.
        token: its id.

    Returns:
        (k, d).
    """
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    row = weight[token].detach().float().cpu()
    noise = torch.randn(tokens, len(row), generator=generator) * row.square().mean().sqrt()
    return row + BEGINNING_NOISE * noise


def vocabulary_prefix(
    embedding: nn.Module, tokens: int, generator: torch.Generator, exclude: frozenset[int] = frozenset()
) -> Tensor:
    """Start for k virtual tokens: the embeddings of k different tokens of the vocabulary, as PEFT starts a prompt.

    Args:
        embedding: the model's input embeddings.
        tokens: k.
        generator: on the CPU; decides which.
        exclude: ids that are not taken, such as those of padding and of the end of a text.

    Returns:
        (k, d).

    Raises:
        InputError: the vocabulary has too few tokens.
    """
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    order = torch.randperm(len(weight), generator=generator).tolist()
    chosen = [token for token in order if token not in exclude][:tokens]
    if len(chosen) < tokens:
        raise InputError(f"prompt_tokens is {tokens}; the vocabulary has only {len(chosen)} tokens to start them from")
    return weight.detach()[torch.tensor(chosen, device=weight.device)]
