"""Greedy answers of a run that a dial records, so that another engine can be compared with them; and how far plain
adapters, counted 1/c times, are from the run's own scores at the scale c.

Shapes: N texts, T tokens, V vocabulary, m objectives, L layers with LoRA, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.collation import padding_token
from hyperdpo.alignment.conditioned_lora import use_gates
from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.sampling import end_tokens, new_texts
from hyperdpo.alignment.special_tokens import prompt_ids
from hyperdpo.core.control import linear_transformation
from hyperdpo.errors import InputError

#: Tokens of a recorded answer.
TOKENS = 24
#: Where the two best tokens' log-probabilities are closer than this, another engine may take the other one.
TIE = 1e-3
#: How much another engine's log-probability may differ: four times what was seen of SmolLM2. llama.cpp takes GPT-2's
#: GELU from a table in half precision; twice what was seen of it.
TOLERANCE, TABLE_TOLERANCE = 1e-3, 5e-3
#: Scales at which the approximation by plain adapters is measured.
SCALES = (0.5, 2.0, 4.0)
#: Rows that are computed at once.
BATCH_SIZE = 32
#: Greedy decoding, whatever the model's generation config says.
_GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


def record(
    model: ConditionedLM, tokenizer: Any, prompts: Sequence[Prompt], weights: np.ndarray, tokens: int = TOKENS
) -> dict[str, Any]:
    """Greedy answers to every prompt at every one of (P, m) weights, at scale 1.

    Args:
        prompts: texts or conversations.

    Returns:
        ``max_new_tokens``, ``decoding``, ``tie``, ``tolerance``;
        ``prompts``: ``prompt`` and its ``ids``, special tokens included;
        ``answers``: ``prompt`` (its place), ``weights``, ``ids``, ``text``, ``logprobs`` (of each token) and ``second``
        (the log-probability of the likeliest other token).

    Raises:
        InputError: a prompt without tokens, or one that the chat template or the model's positions refuse.
    """
    encoded = prompt_ids(tokenizer, prompts)
    for number, ids in enumerate(encoded, 1):
        if not ids:
            raise InputError(f"prompt {number} has no tokens; expected a text")
    rows = [(number, w) for number in range(len(prompts)) for w in weights]
    answers: list[dict[str, Any]] = []
    for first in range(0, len(rows), BATCH_SIZE):
        some = rows[first : first + BATCH_SIZE]
        starts = [encoded[number] for number, _ in some]
        found = _greedy(model, tokenizer, starts, np.array([w for _, w in some]), tokens)
        texts = new_texts(tokenizer, starts, [start + one["ids"] for start, one in zip(starts, found, strict=True)])
        for (number, w), one, text in zip(some, found, texts, strict=True):
            answers.append({"prompt": number, "weights": [float(x) for x in w], "text": text, **one})
    return {
        "max_new_tokens": tokens,
        "decoding": "greedy",
        "tie": TIE,
        "tolerance": TABLE_TOLERANCE if model.config.model_type == "gpt2" else TOLERANCE,
        "prompts": [{"prompt": prompt, "ids": ids} for prompt, ids in zip(prompts, encoded, strict=True)],
        "answers": answers,
    }


def _greedy(
    model: ConditionedLM, tokenizer: Any, rows: list[list[int]], weights: np.ndarray, tokens: int
) -> list[dict[str, Any]]:
    """Ids, log-probabilities and those of the likeliest other tokens, of each row's answer; its end token included."""
    out = model.generate(
        rows,
        weights=weights,
        max_new_tokens=tokens,
        pad_token_id=padding_token(tokenizer),
        return_dict_in_generate=True,
        output_logits=True,
        **_GREEDY,
    )
    logps = torch.stack(out.logits, 1).float().log_softmax(-1)  # (B, new, V)
    new = out.sequences[:, -logps.shape[1] :]
    taken = logps.gather(-1, new[..., None])[..., 0]
    others = logps.scatter(-1, new[..., None], -torch.inf).amax(-1)
    ends = end_tokens(model.base, tokenizer)
    found = []
    for ids, own, other in zip(new.tolist(), taken.tolist(), others.tolist(), strict=True):
        length = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
        found.append({"ids": ids[:length], "logprobs": own[:length], "second": other[:length]})
    return found


@torch.no_grad()
def scale_divergences(model: ConditionedLM, recorded: Mapping[str, Any]) -> list[dict[str, float]]:
    """How far the adapters counted w / c times are from the scale c, at the tokens of recorded answers.

    The scale c mixes next-token log-probabilities, token by token as the server and ``align generate`` do: see
    :func:`~hyperdpo.core.control.linear_transformation`. Counting the adapters w / c times divides their change of the
    weights by c instead.

    Returns:
        For each of :data:`SCALES`: ``scale``; ``mean`` and ``largest``, KL(mixed || adapters counted w / c times) in
        nats per token; and for comparison ``base`` and ``unscaled``, the mean KL(mixed || p) for the base model and for
        the adapters counted w times.
    """
    found: dict[float, list[Tensor]] = {scale: [] for scale in SCALES}
    answers = recorded["answers"]
    for first in range(0, len(answers), BATCH_SIZE):
        some = answers[first : first + BATCH_SIZE]
        starts = [recorded["prompts"][one["prompt"]]["ids"] for one in some]
        ids, mask, counted = _texts(starts, [one["ids"] for one in some], model.device)
        gates = model.condition([one["weights"] for one in some], len(some)).gates
        assert gates is not None  # the adapter is portable

        def logps(gates: Tensor, ids: Tensor = ids, mask: Tensor = mask, counted: Tensor = counted) -> Tensor:
            """(tokens, V)"""
            with use_gates(gates):
                outputs = model.base(input_ids=ids, attention_mask=mask, use_cache=False)
            return outputs.logits[:, :-1][counted].double().log_softmax(-1)

        base, own = logps(torch.zeros_like(gates)), logps(gates)
        for scale in SCALES:
            mixed = linear_transformation(own, base, scale).log_softmax(-1)
            compared = (logps(gates / scale), base, own)
            found[scale].append(torch.stack([(mixed.exp() * (mixed - one)).sum(-1) for one in compared]))
    result = []
    for scale, parts in found.items():
        plain, base, unscaled = torch.cat(parts, 1)
        means = {"mean": plain.mean(), "largest": plain.max(), "base": base.mean(), "unscaled": unscaled.mean()}
        result.append({"scale": scale, **{name: float(value) for name, value in means.items()}})
    return result


class Agreement(NamedTuple):
    """How another engine's greedy answer compares with a recorded one."""

    place: int | None
    """The first token that differs; None if there is none."""
    tied: bool
    """The two best tokens were so close there that either may be taken; what follows is not compared."""
    difference: float
    """The largest difference of a log-probability before that place; 0 where none were given."""


def agreement(
    answer: Mapping[str, Any], ids: Sequence[int], logprobs: Sequence[float] | None = None, tie: float = TIE
) -> Agreement:
    """Compare an engine's greedy answer with a recorded one.

    Args:
        answer: one of the recorded ``answers``.
        ids: the engine's tokens. They may end without the end token, which some engines leave out.
        logprobs: of these tokens.
        tie: see :data:`TIE`.
    """
    own = answer["ids"]
    compared = min(len(own), len(ids))
    place = next((i for i in range(compared) if own[i] != ids[i]), None)
    if place is None and len(ids) not in (len(own), len(own) - 1):
        place = compared
    equal = compared if place is None else place
    differences = [abs(a - b) for a, b in zip(answer["logprobs"][:equal], (logprobs or ())[:equal], strict=False)]
    tied = place is not None and place < len(own) and abs(answer["logprobs"][place] - answer["second"][place]) < tie
    return Agreement(place, tied, max(differences, default=0.0))


def _texts(
    starts: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, T) ids and mask, padded on the right, and (N, T - 1) whether the next token is one of the second part."""
    lengths = [len(start) + len(end) for start, end in zip(starts, ends, strict=True)]
    ids = torch.zeros(len(starts), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    counted = torch.zeros(len(starts), max(lengths) - 1, dtype=torch.bool)
    for row, (start, end, length) in enumerate(zip(starts, ends, lengths, strict=True)):
        ids[row, :length] = torch.tensor([*start, *end])
        mask[row, :length] = 1
        counted[row, len(start) - 1 : length - 1] = True
    return ids.to(device), mask.to(device), counted.to(device)
