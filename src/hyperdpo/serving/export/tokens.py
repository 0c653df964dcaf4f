"""Virtual tokens as tokens of a tokenizer, which puts them before every text and every conversation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from hyperdpo.alignment.special_tokens import beginning, begun, plain_ids
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json

#: How the k tokens are called.
TOKEN = "<|hyperdpo_{}|>"
#: A text to try tokenizers on.
_TEXT = "Why is the sky blue?"


def prompting(tokenizer: Any) -> Any:
    """A tokenizer that alone makes the tokens of prompts that training and generation here make.

    It puts one beginning-of-sequence token before a text and before a conversation where the tokenizer given does
    before a text, and nothing behind. The tokenizer given is returned where it does so already.

    Raises:
        InputError: it adds something else, and is not one of the tokenizers library, so that it cannot be changed.
    """
    if tokenizer is None:
        return None
    start, (plain,) = beginning(tokenizer), plain_ids(tokenizer, [_TEXT])
    made = tokenizer
    if list(tokenizer(_TEXT)["input_ids"]) != start + plain:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise InputError(
                f"{type(tokenizer).__name__}: puts tokens of its own around a text, which an export cannot change; "
                "expected a fast tokenizer, or add_eos_token=false in its configuration"
            )
        made = copy.deepcopy(tokenizer)
        for name in ("add_bos_token", "add_eos_token"):  # what some classes make a post-processor from
            made.init_kwargs.pop(name, None)
        _set_processor(made, _alone(json.loads(made.backend_tokenizer.to_str())["post_processor"], tokenizer, start))
    template = getattr(tokenizer, "chat_template", None)
    before = _chat_ids(tokenizer)
    if start and template and before is not None and begun(tokenizer, [before], start) != [before]:
        made = copy.deepcopy(tokenizer) if made is tokenizer else made
        text = "".join(tokenizer.convert_ids_to_tokens(start))
        made.chat_template = (
            {name: text + one for name, one in template.items()} if isinstance(template, dict) else text + template
        )
    return made


def _alone(processor: Any, tokenizer: Any, start: list[int]) -> Any:
    """A post-processor, as JSON, that puts the tokens ``start`` before a text and nothing behind it."""
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(start)]
    parts = processor["processors"] if processor is not None and processor["type"] == "Sequence" else [processor]
    kept = [part for part in parts if part is not None and part["type"] == "ByteLevel"]
    bare = {"type": "Sequence", "processors": kept} if kept else None
    return _with_prefix(bare, names, start) if start else bare


def _set_processor(tokenizer: Any, processor: Any) -> None:
    """Give a fast tokenizer another post-processor, as JSON."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"] = processor
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def virtual_tokens(tokenizer: Any, count: int) -> tuple[Any, list[str], list[int]]:
    """A copy of a tokenizer that puts ``count`` new special tokens before every text and every conversation.

    Returns:
        The copy, the tokens and their ids.

    Raises:
        InputError: the tokenizer is None or not one of the tokenizers library, or what it puts around a text is no
            template.
    """
    from tokenizers import AddedToken

    if tokenizer is None:
        raise InputError("the adapter has virtual tokens, and there is no tokenizer beside it or its base model")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InputError(
            f"{type(tokenizer).__name__}: is no tokenizer of the tokenizers library, which virtual tokens "
            "need; expected a fast tokenizer, or a run with conditioning.prompt_tokens=0"
        )
    before = _chat_ids(tokenizer)
    made = copy.deepcopy(tokenizer)
    names = [TOKEN.format(k) for k in range(count)]
    made.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    ids = [int(i) for i in made.convert_tokens_to_ids(names)]
    processor = json.loads(made.backend_tokenizer.to_str())["post_processor"]
    _set_processor(made, _with_prefix(processor, names, ids))
    template = getattr(made, "chat_template", None)
    start = "".join(names)
    if isinstance(template, dict):
        made.chat_template = {name: start + text for name, text in template.items()}
    elif template:
        made.chat_template = start + template
    if before is not None and _chat_ids(made) != ids + before:
        raise InputError("chat_template: is read otherwise with virtual tokens before it; expected a run without them")
    return made, names, ids


def _with_prefix(processor: Any, names: list[str], ids: list[int]) -> Any:
    """A post-processor, as JSON, with the tokens before everything else."""
    pieces = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in zip(names, ids, strict=True)}
    if processor is None or processor["type"] == "ByteLevel":
        a, b = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
        template = {"type": "TemplateProcessing", "single": [*pieces, a], "pair": [*pieces, a, b]}
        template["special_tokens"] = tokens  # type: ignore[assignment]
        return template if processor is None else {"type": "Sequence", "processors": [processor, template]}
    if processor["type"] == "TemplateProcessing":
        return {
            **processor,
            "single": [*pieces, *processor["single"]],
            "pair": [*pieces, *processor["pair"]],
            "special_tokens": {**processor["special_tokens"], **tokens},
        }
    if processor["type"] == "Sequence":
        parts = list(processor["processors"])
        places = [i for i, part in enumerate(parts) if part["type"] == "TemplateProcessing"]
        if len(places) == 1:
            parts[places[0]] = _with_prefix(parts[places[0]], names, ids)
            return {**processor, "processors": parts}
        if not places and all(part["type"] == "ByteLevel" for part in parts):
            return {**processor, "processors": [*parts, _with_prefix(None, names, ids)]}
    raise InputError(
        f"tokenizer: its post-processor is a {processor['type']}, to which virtual tokens cannot be added; expected "
        "a TemplateProcessing, or a run with conditioning.prompt_tokens=0"
    )


def _chat_ids(tokenizer: Any) -> list[int] | None:
    """A short conversation; None without a chat template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": "Why?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def save_tokenizer(out: Path, wanted: Any) -> None:
    """Write a tokenizer's files, and see to it that what is read from them makes the same tokens.

    Some tokenizers' classes make a post-processor of their own as they load: then the class is the general one.

    Raises:
        InputError: it does not keep the tokens that are put before a text.
    """
    wanted.save_pretrained(out)
    text = _TEXT
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] == wanted(text)["input_ids"]:
        return
    path = out / "tokenizer_config.json"
    write_json(path, {**read_json(path), "tokenizer_class": "PreTrainedTokenizerFast"})
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] != wanted(text)["input_ids"]:
        raise InputError(
            "tokenizer: does not keep the tokens that it puts before a text when it is saved; expected a run without "
            "virtual tokens, on a tokenizer that adds none but its beginning-of-sequence token"
        )
