"""Preferences without annotators: a language model's own beginnings and continuations, scored by measures of the text.

Prompts are beginnings that the model itself writes; each gets n different continuations at temperature 1, so the
responses come from the reference model itself. The labels are :mod:`hyperdpo.scorers.text_measures`.

The random numbers are drawn in a fork of torch's global generator: the caller's is left as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperdpo.alignment.answers import Sampling, sample_answers
from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.sampling import BROKEN, continue_rows, has_ended, sampling, whole_words
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
#: How often missing prompts (empty ones, doubles) are sampled before giving up.
MAX_ROUNDS = 20
#: How often each response of a prompt is sampled, until it can be used. Of a model that was trained for 30 steps
#: only, 1 in 8 can: the others have broken bytes. After 20 attempts 5 of 18 prompts lacked one, after 80 none did.
MAX_ATTEMPTS = 80

#: Key of the random stream of prompts.
_PROMPTS = 1


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

    They are drawn one after the other from one stream, which the batch size belongs to.

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
    enough: int | None = None,
    progress: bool = True,
) -> list[tuple[str, ...]]:
    """``responses`` continuations of each prompt at temperature 1: texts that follow the prompt's text directly.

    They are those of :func:`~hyperdpo.alignment.answers.sample_answers`: each prompt has random numbers of its own, and
    what cannot serve as training data is sampled again.

    Args:
        enough: leave prompts with fewer responses if so many have all of theirs; None: all prompts must.

    Raises:
        InputError: a number out of range, a prompt without tokens or too long for the model, or a prompt with fewer
            than ``responses`` usable responses after :data:`MAX_ATTEMPTS` attempts at each.
    """
    enough = len(prompts) if enough is None else enough
    _at_least(1, responses=responses, response_tokens=tokens)
    _at_least(responses, batch_size=batch_size)
    how = Sampling(responses, tokens, seed=seed, batch_size=batch_size, attempts=MAX_ATTEMPTS - 1)
    with progress_bar("responses", len(prompts), "prompts", show=progress) as update:
        found = sample_answers(model, tokenizer, prompts, how, done=update)
    missing = [i for i, answers in enumerate(found) if len(answers) < responses]
    if len(prompts) - len(missing) < enough:
        worst = missing[0]
        raise InputError(
            f"prompt {worst + 1} ({prompts[worst]!r:.60}): {len(found[worst])} different responses in {MAX_ATTEMPTS} "
            f"attempts at each; expected {responses} (train the model for longer, or ask for fewer or shorter ones)"
        )
    return [tuple(answer.text for answer in answers) for answers in found]


def _context(model: Any) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def _at_least(smallest: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < smallest:
            raise InputError(f"{name} is {number}; expected at least {smallest}")
