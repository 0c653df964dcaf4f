"""Preferences without annotators: a language model's own beginnings and continuations, scored by measures of the text.

Prompts are beginnings that the model itself writes; each gets n different continuations at temperature 1, so the
responses come from the reference model, as (10) requires. The labels are :mod:`hyperdpo.scorers.text_measures`.

The random numbers are drawn in a fork of torch's global generator: the caller's is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.sampling import BROKEN, continuation_texts, continue_rows, has_ended, sampling, whole_words
from hyperdpo.alignment.special_tokens import prompt_ids
from hyperdpo.errors import InputError
from hyperdpo.progress import progress_bar
from hyperdpo.scorers.text_measures import measure_texts

#: Measured on stories260k (480 prompts, 4 responses of 48 tokens): all four responses tie in 5% and 0% of the groups,
#: and the correlation within groups is -0.05. A model trained for one is 0.28 and 0.31 nats worse in the other's
#: cross-entropy than a model trained for that one (β = 0.1). ``dialogue`` would tie in 66% of the groups.
DEFAULT_OBJECTIVES = ("positive_words", "sentence_length")
PROMPT_TOKENS, RESPONSE_TOKENS = 24, 48
#: Rows that are sampled at once. Small models pay per step, not per row.
BATCH_SIZE = 480
#: How often missing texts (doubles, words that go on across the boundary) are sampled again before giving up.
MAX_ROUNDS = 20

#: Keys of the random streams.
_PROMPTS, _RESPONSES = 1, 2


def sample_preferences(
    model: Any,
    tokenizer: Any,
    *,
    prompts: int,
    responses: int = 4,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    prompt_tokens: int = PROMPT_TOKENS,
    response_tokens: int = RESPONSE_TOKENS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Preferences:
    """A data set of ``prompts`` different groups of ``responses`` different completions each.

    Args:
        model: a transformers causal LM; its training mode is left as it was.
        objectives: names of text measures.
        prompt_tokens: length of a beginning before it is cut back to a whole word.
        response_tokens: length of a response before it is cut back to a whole word.
        seed: the same model, settings and seed give the same data; the batch size is one of these settings.
        progress: whether a terminal sees a bar.

    Raises:
        InputError: a number out of range, an unknown measure, a model or tokenizer that cannot be used, a model that
            does not write enough different texts.
    """
    # Wrong settings are refused before the model runs.
    measure_texts([], objectives)
    _at_least(2, responses=responses)
    _at_least(responses, batch_size=batch_size)
    _at_least(1, prompts=prompts)
    how: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": progress}
    # A few more: after an odd beginning ("The at") nearly every response continues the last word.
    beginnings = sample_prompts(model, tokenizer, prompts + 2 + prompts // 20, tokens=prompt_tokens, **how)
    completions = sample_responses(
        model, tokenizer, beginnings, responses=responses, tokens=response_tokens, enough=prompts, **how
    )
    complete = [
        (prompt, texts) for prompt, texts in zip(beginnings, completions, strict=True) if len(texts) == responses
    ]
    groups = [PreferenceGroup(prompt, texts, measure_texts(texts, objectives)) for prompt, texts in complete[:prompts]]
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Preferences(tuple(groups), tuple(objectives), f"sampled from {name}, seed {seed}")


def sample_prompts(
    model: Any,
    tokenizer: Any,
    count: int,
    *,
    tokens: int = PROMPT_TOKENS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> tuple[str, ...]:
    """``count`` different beginnings that the model writes after its BOS token, cut back to a whole word.

    Raises:
        InputError: a number out of range, no BOS token, or fewer than ``count`` different beginnings in
            :data:`MAX_ROUNDS` rounds.
    """
    _at_least(1, prompts=count, prompt_tokens=tokens, batch_size=batch_size)
    limit = _context(model)
    if limit is not None and tokens >= limit:
        raise InputError(f"prompt_tokens is {tokens}; expected less than {limit}, the model's context")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise InputError("tokenizer: it has neither a BOS nor an EOS token; expected one of them to start a text with")
    found: dict[str, None] = {}
    with sampling(model, seed, _PROMPTS), progress_bar("prompts", count, "prompts", show=progress) as update:
        for _ in range(MAX_ROUNDS):
            for _ in range(0, count - len(found), batch_size):
                rows = min(batch_size, count - len(found))
                new = continue_rows(model, tokenizer, [[start]] * rows, tokens)
                texts = tokenizer.batch_decode(new, skip_special_tokens=True)
                # A text that has ended is no beginning.
                ended = has_ended(model, tokenizer, new)
                kept = (whole_words(text).strip() for text, over in zip(texts, ended, strict=True) if not over)
                found.update(dict.fromkeys(text for text in kept if text and BROKEN not in text))
                update(len(found))
            if len(found) >= count:
                return tuple(found)[:count]
    raise InputError(
        f"prompts: the model wrote {len(found)} different beginnings of {tokens} tokens in {MAX_ROUNDS} rounds; "
        f"expected {count} (longer beginnings differ more)"
    )


def sample_responses(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    responses: int = 4,
    tokens: int = RESPONSE_TOKENS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    selected: bool = True,
    enough: int | None = None,
    generate: Callable[..., Tensor] | None = None,
    progress: bool = True,
) -> list[tuple[str, ...]]:
    """``responses`` continuations of each prompt at temperature 1: texts that follow the prompt's text directly.

    The prompt is tokenized as training will see it. A response that ran into the limit is cut back to its last whole
    word.

    Args:
        selected: sample again what cannot serve as training data: an empty response, broken bytes, one that the prompt
            has already, and one that continues the prompt's last word. (:func:`sample_prompts` cuts off after a word.
            Such a response would be tokenized differently together with the prompt and alone.) False keeps all as
            sampled, in one round, to measure a model's own distribution.
        enough: stop once so many prompts have all their responses, and leave the others with fewer; None: all prompts.
        generate: used instead of ``model.generate``, for example with weights: ``partial(model.generate,
            weights=(0.3, 0.7))``.

    Raises:
        InputError: a number out of range, a prompt without tokens or too long for the model, or, where selected, a
            prompt with fewer than ``responses`` usable responses after :data:`MAX_ROUNDS` rounds.
    """
    enough = len(prompts) if enough is None else enough
    _at_least(1, responses=responses, response_tokens=tokens)
    _at_least(responses, batch_size=batch_size)
    encoded = prompt_ids(tokenizer, list(prompts))
    _check_prompts(prompts, encoded, tokens, model)
    found: list[list[str]] = [[] for _ in prompts]
    # Neighbours of one length need no padding.
    missing = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    per_batch, total = batch_size // responses, len(prompts) * responses
    with sampling(model, seed, _RESPONSES), progress_bar("responses", total, "responses", show=progress) as update:
        for _ in range(MAX_ROUNDS):
            for first in range(0, len(missing), per_batch):
                batch = missing[first : first + per_batch]
                rows = [i for i in batch for _ in range(responses)]
                new = continue_rows(model, tokenizer, [encoded[i] for i in rows], tokens, generate)
                texts = continuation_texts(model, tokenizer, [encoded[i] for i in rows], new)
                if selected:
                    texts = _usable(tokenizer, [prompts[i] for i in rows], [encoded[i] for i in rows], texts)
                for i, text in zip(rows, texts, strict=True):
                    if not selected or (text and text not in found[i] and len(found[i]) < responses):
                        found[i].append(text)
                update(sum(map(len, found)))
            missing = [i for i in missing if len(found[i]) < responses]
            if len(prompts) - len(missing) >= enough:
                return [tuple(texts) for texts in found]
    worst = min(missing)
    raise InputError(
        f"prompt {worst + 1} ({prompts[worst]!r:.60}): {len(found[worst])} different responses in {MAX_ROUNDS} rounds; "
        f"expected {responses}"
    )


def _usable(tokenizer: Any, prompts: list[str], encoded: list[list[int]], texts: list[str]) -> list[str]:
    """The responses; "" for one that continues its prompt's last word, changes its prompt's tokens or is no text."""
    together = prompt_ids(tokenizer, [prompt + text for prompt, text in zip(prompts, texts, strict=True)])
    usable = []
    for prompt, start, text, ids in zip(prompts, encoded, texts, together, strict=True):
        goes_on = prompt[-1:].isalnum() and text[:1].isalnum()
        good = list(ids[: len(start)]) == start and not goes_on and BROKEN not in text
        usable.append(text if good else "")
    return usable


def _context(model: Any) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def _check_prompts(prompts: Sequence[str], encoded: list[list[int]], tokens: int, model: Any) -> None:
    limit = _context(model)
    for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True), 1):
        if not ids:
            raise InputError(f"prompt {number} ({prompt!r}): no tokens; expected a text")
        if limit is not None and len(ids) + tokens > limit:
            raise InputError(
                f"prompt {number} ({prompt!r:.60}): {len(ids)} tokens and {tokens} for the response; "
                f"expected at most {limit} together, the model's context"
            )


def _at_least(smallest: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < smallest:
            raise InputError(f"{name} is {number}; expected at least {smallest}")
