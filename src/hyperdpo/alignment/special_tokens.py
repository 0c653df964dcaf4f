"""Beginning and end of a text in tokens. There is one beginning-of-sequence token (BOS) where the model wants one, and
one end-of-sequence token (EOS) after a response. Tokens that a tokenizer itself puts at the end are removed.

Everything that turns prompts and responses into tokens goes through here: training, measuring, generation, the server.
A text is tokenised without the tokenizer's own additions; what the tokenizer puts before a text is put before it here,
unless the text begins with it already.

One rule for tokens that a text writes out: at the ends, with white space around them, they are the tokens that are put
there anyway. In the middle of a prompt they are kept, since they separate turns; in the middle of a response they are
refused, since a response ends once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperdpo.alignment.data.cells import SHOWN, Prompt, RowError
from hyperdpo.errors import InputError, one_line, shown

#: Any text that every tokenizer knows.
_PROBE = "a"


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, nothing added."""
    if not texts:
        return []
    # verbose: no warning about lengths, which are checked elsewhere
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [[int(i) for i in ids] for ids in found]


def beginning(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text, with a BOS at most once; most often its BOS or nothing."""
    plain = plain_ids(tokenizer, [_PROBE])[0]
    whole = [int(i) for i in tokenizer(_PROBE, verbose=False)["input_ids"]]
    for start in range(len(whole) - len(plain) + 1 if plain else 0):
        if whole[start : start + len(plain)] == plain:
            return _once(whole[:start], tokenizer.bos_token_id)
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and whole[:1] == [bos] else []


def _once(ids: list[int], token: int | None) -> list[int]:
    """Without repetitions of a token."""
    kept: list[int] = []
    for one in ids:
        if one != token or one not in kept:
            kept.append(one)
    return kept


def begun(tokenizer: Any, rows: list[list[int]], start: list[int]) -> list[list[int]]:
    """Rows of ids with exactly one beginning.

    Args:
        start: of :func:`beginning`.
    """
    bos = tokenizer.bos_token_id
    found = []
    for ids in rows:
        if start and ids[: len(start)] == start:
            ids, before = ids[len(start) :], start
        else:
            before = start
        written = 0
        while bos is not None and ids[written : written + 1] == [bos]:
            written += 1
        if written and bos not in before:
            before = [bos, *before]
        found.append([*before, *ids[written:]])
    return found


def prompt_ids(tokenizer: Any, prompts: Sequence[Prompt], template: Mapping[str, Any] | None = None) -> list[list[int]]:
    """Token ids of prompts that are to be answered: texts, or conversations through the chat template.

    Args:
        template: settings of the chat template.

    Raises:
        InputError: the chat template refuses a conversation.
    """
    settings = {**(template or {}), "add_generation_prompt": True}
    texts = [
        without_end(tokenizer, one) if isinstance(one, str) else _opened(tokenizer, one, settings) for one in prompts
    ]
    return _begun_ids(tokenizer, texts)


def answered_ids(
    tokenizer: Any, prompts: Sequence[Prompt], responses: Sequence[str], template: Mapping[str, Any] | None = None
) -> list[list[int]]:
    """Token ids of prompts with a response each, which ends with one EOS.

    A response to a conversation ends as the chat template has it: with an EOS or another special token; with an EOS
    if there is none.

    Raises:
        InputError: the chat template refuses a conversation; no EOS to put behind a text; a response with a BOS or EOS
            in the middle.
    """
    eos, settings = tokenizer.eos_token, {**(template or {}), "add_generation_prompt": False}
    texts, chats = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        response = bare_response(tokenizer, response)
        chats.append(not isinstance(prompt, str))
        if isinstance(prompt, str):
            if eos is None:
                raise InputError(
                    "the tokenizer has no end-of-sequence token, with which responses end; "
                    "expected one, such as tokenizer.eos_token = '<|endoftext|>'"
                )
            texts.append(without_end(tokenizer, prompt) + response + eos)
        else:
            whole = [*prompt, {"role": "assistant", "content": response}]
            texts.append(chat_text(tokenizer, whole, settings))
    rows = _begun_ids(tokenizer, texts)
    return [_ended(tokenizer, ids, chat) for ids, chat in zip(rows, chats, strict=True)]


def _begun_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts with exactly one beginning, also where white space stands before a BOS."""
    written = []
    for text in texts:
        bare = without_beginning(tokenizer, text)
        written.append(text if bare == text else f"{tokenizer.bos_token}{bare}")
    return begun(tokenizer, plain_ids(tokenizer, written), beginning(tokenizer))


def without_end(tokenizer: Any, text: str) -> str:
    """A text without the EOS that it ends with, if it does."""
    eos = tokenizer.eos_token
    while eos and (bare := text.rstrip()).endswith(eos):
        text = bare[: -len(eos)]
    return text


def without_beginning(tokenizer: Any, text: str) -> str:
    """A text without the BOS that it begins with, if it does."""
    bos = tokenizer.bos_token
    while bos and (bare := text.lstrip()).startswith(bos):
        text = bare[len(bos) :]
    return text


def bare_response(tokenizer: Any, response: str) -> str:
    """A response without BOS and EOS at its ends.

    Raises:
        InputError: it has one in the middle.
    """
    response = without_beginning(tokenizer, without_end(tokenizer, response))
    for name in ("eos", "bos"):
        token, number = getattr(tokenizer, f"{name}_token"), getattr(tokenizer, f"{name}_token_id")
        if token and token in response and number in plain_ids(tokenizer, [response])[0]:
            raise RowError(
                f"a response has {token!r}, the tokenizer's {name} token, in the middle ({shown(response, SHOWN)}); "
                "remove it, or write it in another way",
                f"a response with {token!r} in the middle",
            )
    return response


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    """A conversation as the chat template writes it.

    Raises:
        InputError: there is no template, or it refuses the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("a conversation, and the tokenizer has no chat template; expected one with it")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
    except Exception as error:  # templates raise what they like
        why = one_line(error) or type(error).__name__
        raise RowError(
            f"the chat template refuses the conversation ({why}); expected roles and an order that it takes",
            f"the chat template refuses it ({why})",
        ) from None


def _opened(tokenizer: Any, messages: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    """A conversation up to where its answer begins; some templates end every conversation with an EOS."""
    text = chat_text(tokenizer, messages, settings)
    bare = without_end(tokenizer, text)
    if bare != text:
        whole = [*messages, {"role": "assistant", "content": _PROBE}]
        closes_turn = chat_text(tokenizer, whole, {**settings, "add_generation_prompt": False}).startswith(
            text.rstrip()
        )
        return text if closes_turn else bare
    return text


def _ended(tokenizer: Any, ids: list[int], chat: bool) -> list[int]:
    """Ids with one EOS at their end; a chat template may have white space behind it, or an end of its own."""
    eos = tokenizer.eos_token_id
    if eos is None:
        return ids
    while len(ids) > 1 and ids[-1] == eos and ids[-2] == eos:
        ids = ids[:-1]
    if ids[-1:] == [eos]:
        return ids
    if chat:
        last = len(ids)
        while last and not tokenizer.decode(ids[last - 1 : last]).strip():
            last -= 1
        if last and (ids[last - 1] == eos or ids[last - 1] in _special(tokenizer)):
            return ids
    return [*ids, eos]


def _special(tokenizer: Any) -> set[int]:
    """Ids of special tokens that may end a turn, also of those that are only added to the vocabulary as such."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {int(i) for i, token in added.items() if getattr(token, "special", False)}
    return (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id, tokenizer.bos_token_id}
