"""Sampled continuations of tokenised prompts: the model's own distribution, as texts.

The random numbers are drawn in a fork of torch's global generator: the caller's is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hyperdpo.core.preferences import stream

#: What a decoder writes for bytes that are no character.
BROKEN = "\ufffd"
#: The model's own distribution, whatever its generation config says.
_UNTOUCHED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}


@contextmanager
def sampling(model: Any, seed: int, purpose: int) -> Iterator[None]:
    """Evaluation mode and a seeded generator; the caller's mode and generators afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), evaluation_mode(model):
        torch.manual_seed(int(stream(seed, purpose).integers(2**63)))
        yield


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """The model in evaluation mode, inside; afterwards in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def computing_in(precision: str, model: Any) -> Iterator[None]:
    """A context in which a model computes in a precision, without gradients. Its parameters keep their own.

    autocast caches the cast of a weight only if the weight requires gradients, and casts frozen weights anew for each
    token. So all weights require gradients inside. Do not change weights inside: their casts are cached.

    Args:
        precision: ``no``, the model's own; ``bf16`` or ``fp16``.
    """
    if precision == "no":
        yield
        return
    frozen = [one for one in model.parameters() if one.is_floating_point() and not one.requires_grad]
    for one in frozen:
        one.requires_grad_(True)
    try:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        with torch.no_grad(), torch.autocast(torch.device(model.device).type, dtype=half):
            yield
    finally:
        for one in frozen:
            one.requires_grad_(False)


def continue_rows(
    model: Any, tokenizer: Any, rows: list[list[int]], tokens: int, generate: Callable[..., Tensor] | None = None
) -> Tensor:
    """Sampled new tokens (B, at most ``tokens``) after each row, on the CPU; padding after a row's end."""
    pad = pad_token(model, tokenizer)
    longest = max(map(len, rows))
    padded = [[pad] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    out = (generate or model.generate)(
        torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=tokens,
        pad_token_id=pad,
        **_UNTOUCHED,
    )
    return out[:, longest:].cpu()


def continuation_texts(model: Any, tokenizer: Any, encoded: list[list[int]], new: Tensor) -> list[str]:
    """The text of each row's new tokens (B, T), cut back to a whole word where it did not end by itself."""
    texts = new_texts(tokenizer, encoded, [ids + more for ids, more in zip(encoded, new.tolist(), strict=True)])
    ended = has_ended(model, tokenizer, new)
    return [(text if over else whole_words(text)).rstrip() for text, over in zip(texts, ended, strict=True)]


def new_texts(tokenizer: Any, prompts: list[list[int]], rows: list[list[int]]) -> list[str]:
    """What rows of tokens that begin with their prompts add to them, a space at its beginning included.

    Decoded together with the prompt, because some tokenizers drop the space before a text's first word.
    """
    alone = tokenizer.batch_decode(prompts, skip_special_tokens=True)
    together = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [str(text)[len(start) :] for text, start in zip(together, alone, strict=True)]


def whole_words(text: str) -> str:
    """Without the last word if that may go on: it ends in a letter, digit, apostrophe, hyphen or half a character."""
    if not text or not (text[-1].isalnum() or text[-1] in "'’-" + BROKEN):
        return text
    kept = text.rstrip()
    while kept and not kept[-1].isspace():
        kept = kept[:-1]
    return kept.rstrip()


def has_ended(model: Any, tokenizer: Any, new: Tensor) -> list[bool]:
    """Per row of new tokens (B, T): whether it holds an end-of-text token."""
    return torch.isin(new, torch.tensor(sorted(end_tokens(model, tokenizer)), dtype=torch.long)).any(1).tolist()


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end a text; none if neither the model nor the tokenizer has one."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = configured if configured is not None else tokenizer.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list | tuple) else {int(ends)}


def pad_token(model: Any, tokenizer: Any) -> int:
    """Any token will do: the mask hides it."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return min(end_tokens(model, tokenizer), default=0)
