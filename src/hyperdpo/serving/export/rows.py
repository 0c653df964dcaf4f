"""Rows of the embeddings and of the output head for virtual tokens: they are read as the prompt, and never written.

Shapes: B texts, T tokens, N places of texts, V vocabulary, d width, k virtual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Texts whose hidden states are looked at: rows and tokens.
TEXTS = (8, 32)

#: Each round draws the texts' tokens anew from what the model says after those before: from random tokens in the first
#: round, they become texts of its own. The first rounds choose a row of the head, others try it.
CHOOSING, TRYING = 5, 3

#: At which temperatures they are drawn, in turn.
TEMPERATURES = (1.0, 2.0)

#: How far a virtual token's logit has to be below the least of all others, at least.
MARGIN = 10.0

#: And by how much more than that its row is multiplied, for texts that were not seen.
RESERVE = 3.0

#: Of the least squares, as a part of the hidden states' mean square.
RIDGE = 1e-2


@torch.no_grad()
def add_rows(plain: Any, prefix: Tensor, ids: Sequence[int]) -> float | None:
    """Give the virtual tokens their rows, in place, and see to it that they are not generated.

    Their rows of the input embeddings are the prompt. The head is untied from the embeddings, where such a row would
    give the token any logit. A hidden state h has the logit r h there. If a v has v h > 0 for all h by some margin,
    r = -K v puts the logit below all others, for K large enough. The trained models that were examined have such a v.
    Behind a LayerNorm with gains g and biases b, v = 1 / g has the same product with all h, the sum of b / g.

    Where no such v is found (the weights are random, say), r is that of the token which the model finds least likely.
    ``generate`` suppresses virtual tokens in any case.

    Args:
        plain: a transformers model.
        prefix: (k, d).
        ids: k of them; beyond the vocabulary, or of rows that no token of the tokenizer has.

    Returns:
        How far the virtual tokens' logits are below the least of all others on texts that were not used to choose r;
        None if no v was found.
    """
    before = plain.get_input_embeddings().weight.shape[0]
    _untie(plain)
    size = max(before, max(ids) + 1)
    if size > before:
        plain.resize_token_embeddings(size, mean_resizing=False)
    words: Any = plain.get_input_embeddings()
    place = torch.tensor(ids, device=words.weight.device)
    # Some models (Gemma 3) multiply what they look up.
    factor = torch.as_tensor(getattr(words, "embed_scale", 1.0)).to(prefix)
    words.weight[place] = (prefix / factor).to(words.weight)
    unused = torch.cat((place, torch.arange(before, size, device=place.device))).unique()
    known = plain.generation_config.suppress_tokens or []
    plain.generation_config.suppress_tokens = sorted({*known, *ids})

    head: Any = plain.get_output_embeddings()
    bias = getattr(head, "bias", None)
    hidden, least, _, rare = _look(plain, ids, unused, CHOOSING, seed=0)
    row = low_row(hidden, least)
    if row is not None:
        head.weight[unused] = row.to(head.weight)
        if bias is not None:
            bias[unused] = 0
        _, least, virtual, _ = _look(plain, ids, unused, TRYING, seed=1)
        margin = float((least - virtual).min())
        if margin >= MARGIN:
            return margin
    head.weight[unused] = head.weight[rare].clone()
    if bias is not None:
        bias[unused] = bias[rare].clone()
    return None


def _untie(plain: Any) -> None:
    """Give the head weights of its own, where it shares those of the embeddings."""
    head: Any = plain.get_output_embeddings()
    if head.weight is plain.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        plain.config.tie_word_embeddings = False
        plain.config.get_text_config().tie_word_embeddings = False
        plain.tie_weights()


def low_row(hidden: Tensor, least: Tensor) -> Tensor | None:
    """A row r of the head whose logit is below the least one by at least :data:`MARGIN` at all places.

    v h = 1 by least squares, and r = -K v.

    Args:
        hidden: (N, d).
        least: (N,).

    Returns:
        (d,), or None if v h is not positive at all places.
    """
    products = hidden @ hidden.T
    products.diagonal().add_(RIDGE * products.diagonal().mean())
    v = hidden.T @ torch.linalg.solve(products, torch.ones_like(least))
    heights = hidden @ v
    if not heights.min() > 0:
        return None
    needed = ((MARGIN - least) / heights).max().clamp_min(1.0)
    return -RESERVE * needed * v


def _look(plain: Any, ids: Sequence[int], unused: Tensor, rounds: int, seed: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """What the head gets and makes at N places of texts behind the virtual tokens.

    Args:
        unused: rows of the head that no token of a text has.

    Returns:
        hidden states (N, d); the least logit of all tokens but the virtual ones (N,); the largest of theirs (N,), all
        float64 on the CPU; and the token whose highest probability at any place is the lowest.
    """
    head: Any = plain.get_output_embeddings()
    device = head.weight.device
    generator = torch.Generator().manual_seed(seed)
    count, length = TEXTS
    longest = getattr(plain.config, "max_position_embeddings", None)
    if isinstance(longest, int):
        length = max(1, min(length, longest - len(ids)))
    prefix = torch.tensor(ids, device=device).expand(count, -1)
    allowed = torch.ones(len(head.weight), device=device).index_fill(0, unused, 0).cpu()
    texts = torch.multinomial(allowed, count * length, replacement=True, generator=generator).view(count, length)
    likely = torch.full((len(head.weight),), -torch.inf, device=device)
    caught: list[Tensor] = []
    hidden, least, virtual = [], [], []
    hook = head.register_forward_hook(lambda _, given, made: caught.extend((given[0], made)))
    try:
        for number in range(rounds):
            caught.clear()
            plain(input_ids=torch.cat((prefix, texts.to(device)), 1), use_cache=False)
            states, logits = (tensor[:, len(ids) - 1 :].float() for tensor in caught)  # from where a text begins
            hidden.append(states.flatten(0, 1))
            least.append(logits.index_fill(-1, unused, torch.inf).amin(-1).flatten())
            virtual.append(logits[..., unused].amax(-1).flatten())
            words = logits.index_fill(-1, unused, -torch.inf)
            likely = torch.maximum(likely, torch.log_softmax(words, -1).amax((0, 1)))
            chances = torch.softmax(words[:, :-1] / TEMPERATURES[number % 2], -1).flatten(0, 1).cpu()
            texts = torch.multinomial(chances, 1, generator=generator).view(count, length)
    finally:
        hook.remove()
    rare = int(likely.index_fill(0, unused, torch.inf).argmin())
    seen = [torch.cat(parts).double().cpu() for parts in (hidden, least, virtual)]
    return seen[0], seen[1], seen[2], rare
