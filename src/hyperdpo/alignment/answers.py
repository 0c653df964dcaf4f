"""Answers that a model samples itself: n different ones to each prompt, each prompt with random numbers of its own.

The random numbers of an answer depend on the seed, on its prompt, and on which of the prompt's answers it is; not on
other prompts, nor on the batch. Sums of floating-point numbers may differ in their last digit from batch to batch, so
the texts are those of any other batch except where two tokens meet in that digit.

Shapes: P prompts, n answers of each, N rows that are decoded together, T tokens, V vocabulary, m objectives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.data.groups import prompt_key
from hyperdpo.alignment.sampling import BROKEN, end_tokens, evaluation_mode, new_texts, pad_token, whole_words
from hyperdpo.alignment.special_tokens import bare_response, prompt_ids
from hyperdpo.core.preferences import stream
from hyperdpo.errors import InputError, shown

#: Tokens of an answer at most.
ANSWER_TOKENS = 128
#: Rows that are decoded at once.
BATCH_SIZE = 64
#: How often a row whose answer cannot be used is sampled again.
ATTEMPTS = 8

#: Key of the random streams.
_ANSWERS = 3

#: Which prompts' rows are at which weights: (P, n, m).
AnswerWeights = np.ndarray


@dataclass(frozen=True)
class Answer:
    """A text that the model wrote.

    Attributes:
        text: without special tokens; one that was cut ends with its last whole word.
        truncated: whether it ran into the limit of tokens instead of ending.
        tokens: how many the model wrote, the end of the text included.
        place: which of the prompt's n answers it is.
    """

    text: str
    truncated: bool
    tokens: int
    place: int


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        answers: n, of each prompt.
        max_new_tokens: the most tokens of an answer.
        temperature: above 0; 1 is the model's own distribution.
        seed: of all random numbers.
        batch_size: rows that are decoded at once.
        attempts: how often a row is sampled again whose answer is empty, broken, or one that the prompt has already.
        selected: False keeps every answer as it was sampled, at the first attempt.

    Raises:
        InputError: a number out of range.
    """

    answers: int = 4
    max_new_tokens: int = ANSWER_TOKENS
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = BATCH_SIZE
    attempts: int = ATTEMPTS
    selected: bool = True

    def __post_init__(self) -> None:
        least = {"answers": 1, "max_new_tokens": 1, "batch_size": 1, "attempts": 0, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {smallest}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature:g}; expected a number above 0")


def sample_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    how: Sampling | None = None,
    *,
    weights: AnswerWeights | None = None,
    done: Callable[[int], None] | None = None,
) -> list[tuple[Answer, ...]]:
    """Up to n different answers to each prompt, in order; fewer where the model does not write n.

    Args:
        model: a transformers causal LM, or a :class:`~hyperdpo.alignment.model.ConditionedLM`. Its training mode and
            the caller's random state are left as they were.
        prompts: P texts, which answers continue, or conversations, which go through the tokenizer's chat template.
        how: None for the defaults.
        weights: (P, n, m): for a ConditionedLM, the weights of every answer.
        done: called after each batch with the number of prompts that are done.

    Raises:
        InputError: a prompt without tokens or too long for the model, a conversation that the chat template refuses,
            weights of another shape, or none for a model that needs them.
    """
    how = how or Sampling()
    found: list[tuple[Answer, ...]] = [()] * len(prompts)
    finished = 0
    for _, places, answers in answer_batches(model, tokenizer, prompts, how, weights=weights):
        for place, some in zip(places, answers, strict=True):
            found[place] = some
        finished += len(places)
        if done is not None:
            done(finished)
    return found


def answer_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    how: Sampling,
    *,
    weights: AnswerWeights | None = None,
    skipped: Callable[[int], bool] = lambda number: False,
) -> Iterator[tuple[int, list[int], list[tuple[Answer, ...]]]]:
    """As :func:`sample_answers`, batch by batch: its number from 0 on, the places of its prompts, and their answers.

    Args:
        skipped: whether the batch of a number is passed over. The batches depend on the prompts and the batch size
            only.
    """
    encoded = prompt_ids(tokenizer, list(prompts))
    check_prompts(prompts, encoded, how.max_new_tokens, model)
    if weights is not None and np.shape(weights)[:2] != (len(prompts), how.answers):
        raise InputError(f"weights of shape {np.shape(weights)}; expected ({len(prompts)}, {how.answers}, m)")
    for number, places in enumerate(batches(encoded, how)):
        if skipped(number):
            continue
        own = None if weights is None else np.asarray(weights)[places]
        with torch.no_grad(), evaluation_mode(model):
            batch = _Batch(model, tokenizer, [prompts[i] for i in places], [encoded[i] for i in places], how, own)
            yield number, places, batch.sampled()


def batches(encoded: Sequence[Sequence[int]], how: Sampling) -> list[list[int]]:
    """The places of the prompts that are decoded together: neighbours of one length need no padding."""
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    each = max(1, how.batch_size // how.answers)
    return [order[first : first + each] for first in range(0, len(order), each)]


def check_prompts(prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], tokens: int, model: Any) -> None:
    """Refuse prompts without tokens, and those that leave no room for an answer.

    Raises:
        InputError: there is one.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True), 1):
        if not ids:
            raise InputError(f"prompt {number} ({prompt!r}): no tokens; expected a text")
        if limit is not None and len(ids) + tokens > limit:
            raise InputError(
                f"prompt {number} ({shown(prompt, 60)}): {len(ids)} tokens and {tokens} for the response; "
                f"expected at most {limit} together, the model's context"
            )


class _Batch:
    """Prompts whose answers are decoded together, and again where an answer cannot be used."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Prompt],
        encoded: list[list[int]],
        how: Sampling,
        weights: np.ndarray | None,
    ):
        self.model, self.tokenizer, self.how, self.weights = model, tokenizer, how, weights
        self.prompts, self.encoded = prompts, encoded
        self.keys = [_number_of(prompt) for prompt in prompts]

    def sampled(self) -> list[tuple[Answer, ...]]:
        how = self.how
        found: list[dict[int, Answer]] = [{} for _ in self.prompts]
        missing = [(p, k) for p in range(len(self.prompts)) for k in range(how.answers)]
        for attempt in range(how.attempts + 1 if how.selected else 1):
            for (p, k), answer in zip(missing, self._answers(missing, attempt), strict=True):
                others = {one.text for one in found[p].values()}
                if not how.selected or (answer.text and answer.text not in others):
                    found[p][k] = answer
            missing = [(p, k) for p, k in missing if k not in found[p]]
            if not missing:
                break
        return [tuple(one[k] for k in sorted(one)) for one in found]

    def _answers(self, rows: list[tuple[int, int]], attempt: int) -> list[Answer]:
        """One answer for each (prompt, place); its text is empty where it cannot be used."""
        how = self.how
        randoms = np.stack(
            [stream(how.seed, _ANSWERS, self.keys[p], k, attempt).random(how.max_new_tokens) for p, k in rows]
        )
        ends, pad = end_tokens(self.model, self.tokenizer), pad_token(self.model, self.tokenizer)
        special = set(self.tokenizer.all_special_ids)
        if self.weights is None:  # a prompt is computed once for all its answers
            prompts = sorted({p for p, _ in rows})
            owner = [prompts.index(p) for p, _ in rows]
            weights = None
        else:
            prompts, owner = [p for p, _ in rows], list(range(len(rows)))
            weights = np.stack([self.weights[p, k] for p, k in rows])
        written = decoded(
            self.model, [self.encoded[p] for p in prompts], owner, randoms, ends, pad, how.temperature, weights
        )
        starts = [self.encoded[p] for p, _ in rows]
        texts = new_texts(self.tokenizer, starts, [s + ids for s, ids in zip(starts, written, strict=True)])
        answers = []
        for (_, k), ids, text in zip(rows, written, texts, strict=True):
            truncated = not (ids and ids[-1] in ends)
            text = (whole_words(text) if truncated else text).rstrip()
            if how.selected and not special.isdisjoint(ids if truncated else ids[:-1]):
                text = ""
            answers.append(Answer(text, truncated, len(ids), k))
        return answers if not how.selected else self._usable(rows, answers)

    def _usable(self, rows: list[tuple[int, int]], answers: list[Answer]) -> list[Answer]:
        """The answers; one that training could not use has an empty text.

        Such an answer has broken bytes or special tokens in it. After a prompt that is a text it may also continue the
        prompt's last word, or have other tokens together with the prompt than alone.
        """
        together = [
            prompt + a.text if isinstance(prompt := self.prompts[p], str) else ""
            for (p, _), a in zip(rows, answers, strict=True)
        ]
        ids = prompt_ids(self.tokenizer, together)
        usable = []
        for (p, k), answer, whole in zip(rows, answers, ids, strict=True):
            prompt, start, text = self.prompts[p], self.encoded[p], answer.text
            good = bool(text.strip()) and BROKEN not in text
            if good and isinstance(prompt, str):
                good = list(whole[: len(start)]) == start and not (prompt[-1:].isalnum() and text[:1].isalnum())
            if good:
                try:
                    good = bare_response(self.tokenizer, text) == text
                except InputError:
                    good = False
            usable.append(answer if good else Answer("", answer.truncated, answer.tokens, k))
        return usable


def decoded(
    model: Any,
    prompts: list[list[int]],
    owner: list[int],
    randoms: np.ndarray,
    ends: set[int],
    pad: int,
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
    *,
    forward: Callable[..., Any] | None = None,
) -> list[list[int]]:
    """Sampled tokens of N rows, each up to its end, which is included, or to the limit.

    Args:
        prompts: the token ids of P prompts.
        owner: (N,), the prompt of each row.
        randoms: (N, T) uniform numbers from 0 to 1: the t-th token of a row is the one whose stretch of the cumulated
            probabilities the t-th number hits.
        ends: tokens that end a text.
        pad: a token to fill up with; masks hide it.
        weights: (N, m), where ``owner`` is 0 ... N - 1 and the model is a ConditionedLM.
        forward: computes the next logits instead of the model, for all rows alike.
    """
    device, longest = model.device, max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
    own, settings = _forward(model, weights, len(prompts))
    forward = forward or own
    rows = torch.tensor(owner, device=device)
    numbers = torch.from_numpy(randoms).to(device)
    written: list[list[int]] = [[] for _ in owner]
    active = torch.arange(len(owner), device=device)
    cache: Any = None
    for step in range(randoms.shape[1]):
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        out = forward(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **settings,
        )
        cache, logits = out.past_key_values, out.logits[:, -1].float()
        if step == 0 and weights is None:
            cache.batch_select_indices(rows)
            logits, mask = logits[rows], mask[rows]
        elif step == 0:
            mask = mask[rows]
        tokens = drawn(logits / temperature, numbers[active, step])
        for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
            if not written[row] or written[row][-1] not in ends:  # it has not ended
                written[row].append(token)
        going = torch.tensor([written[row][-1] not in ends for row in active.tolist()], device=device)
        if not bool(going.any()):
            break
        # Rows that have ended are still computed, until they are half of them.
        if weights is None and int(going.sum()) * 2 <= len(active):
            kept = going.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            active, mask, tokens = active[kept], mask[kept], tokens[kept]
        ids, mask = tokens[:, None], torch.cat((mask, mask.new_ones(len(mask), 1)), 1)
    return written


def drawn(logits: Tensor, numbers: Tensor) -> Tensor:
    """The tokens (N,) that uniform numbers (N,) hit, by the distribution of logits (N, V)."""
    cumulated = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    aims = numbers[:, None].to(cumulated) * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, aims, right=True).squeeze(-1)
    return found.clamp_max(logits.shape[-1] - 1)


def _forward(model: Any, weights: np.ndarray | None, rows: int) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """What computes the next logits, and the settings that it is called with."""
    from hyperdpo.alignment.generation import ConditionedForward
    from hyperdpo.alignment.model import ConditionedLM

    if isinstance(model, ConditionedLM):
        base = model.base
        condition = model.condition(weights, rows)
        forward: Callable[..., Any] = ConditionedForward(model, condition, torch.ones(rows))
    else:
        base, forward = model, model
    keeps_last = hasattr(base, "_supports_logits_to_keep") and base._supports_logits_to_keep()
    return forward, {"logits_to_keep": 1} if keeps_last else {}


def _number_of(prompt: Prompt) -> int:
    """A number that two prompts hardly share: the key of its random stream."""
    return int.from_bytes(hashlib.sha256(prompt_key(prompt).encode()).digest()[:8], "big")
