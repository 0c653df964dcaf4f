"""Virtual tokens as tokens of a tokenizer, which puts them before every text and every conversation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json

#: How the k tokens are called.
TOKEN = "<|hyperdpo_{}|>"


def virtual_tokens(tokenizer: Any, count: int) -> tuple[Any, list[str], list[int]]:
    """A copy of a tokenizer that puts ``count`` new special tokens before every text and every conversation.

    Returns:
        The copy, the tokens and their ids.

    Raises:
        InputError: the tokenizer is None or not one of the tokenizers library, or what it puts around a text is no
            template.
    """
    from tokenizers import AddedToken, Tokenizer

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
    state = json.loads(made.backend_tokenizer.to_str())
    state["post_processor"] = _with_prefix(state["post_processor"], names, ids)
    made._tokenizer = Tokenizer.from_str(json.dumps(state))
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
        InputError: it does not keep the virtual tokens.
    """
    wanted.save_pretrained(out)
    text = "Why is the sky blue?"
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] == wanted(text)["input_ids"]:
        return
    path = out / "tokenizer_config.json"
    write_json(path, {**read_json(path), "tokenizer_class": "PreTrainedTokenizerFast"})
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] != wanted(text)["input_ids"]:
        raise InputError("tokenizer: does not keep the virtual tokens when it is saved; expected a run without them")
