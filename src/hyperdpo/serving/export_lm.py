"""A conditioned language model at one point of the simplex, as files that are loaded without this package.

``merged``: a transformers checkpoint. LoRA is folded into the weights, and the k virtual tokens are k more tokens of
the vocabulary, which the tokenizer puts before every text and the chat template before every conversation. ``peft``: an
adapter that stock PEFT loads; it holds LoRA or virtual tokens, never both.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from hyperdpo._version import __version__
from hyperdpo.alignment.adapters import CONFIG
from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import RUN, AlignRun
from hyperdpo.errors import InputError
from hyperdpo.files import check_writable, read_json, write_json

FORMATS = ("merged", "peft")

#: What an export says about itself.
METADATA = "hyperdpo_export.json"

#: Of that file.
FORMAT_VERSION = 1

#: How the k tokens are called.
TOKEN = "<|hyperdpo_{}|>"

#: How far logits of what was written may be from the model's, as a part of the largest (at least 1): in single
#: precision, and where weights are rounded to fewer digits.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1

#: Random texts on which the least likely token is looked for, and what was written is tried: rows and tokens.
TRIAL = (8, 12)


@dataclass(frozen=True)
class LMExport:
    """What was written."""

    path: Path
    metadata: dict[str, Any]
    difference: float
    """The largest difference of a logit from the model's, as a part of the largest (at least 1)."""


def load_source(path: Path, base_model: Any = None) -> tuple[ConditionedLM, Any]:
    """The model and the tokenizer (None if there is none) of a run, or of an adapter's directory.

    Raises:
        InputError: neither is there, or its files do not agree.
    """
    if (path / RUN).is_file():
        run = AlignRun.load(path, base_model)
        return run.model, run.tokenizer
    model = ConditionedLM.from_pretrained(path, base_model)
    for place in (path, base_model or read_json(path / CONFIG).get("base_model")):
        if not isinstance(place, str | Path):
            continue
        try:
            return model, AutoTokenizer.from_pretrained(place)
        except Exception:  # no files of a tokenizer there; transformers has many exceptions for it
            continue
    return model, None


def export_lm(
    model: ConditionedLM,
    tokenizer: Any,
    weights: Sequence[float] | None,
    out: Path,
    format: str = "merged",
    *,
    overwrite: bool = False,
) -> LMExport:
    """Write the directory ``out``; it is there whole or not at all.

    Args:
        tokenizer: None if there is none, which serves for ``peft`` or without virtual tokens.
        weights: m numbers; None if nothing is conditioned.
        format: ``merged`` or ``peft``.

    Raises:
        InputError: the place is taken or cannot be written to, or there is no such export of this model.
    """
    check_directory(out, overwrite=overwrite)
    if format == "peft" and model.prompt is not None and model.lora_names:
        raise InputError(
            f"--format peft: the run has {model.conditioning.prompt_tokens} virtual tokens beside LoRA, and PEFT loads "
            "no adapter that holds both; expected --format merged, or a run with conditioning.prompt_tokens=0"
        )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write = _write_merged if format == "merged" else _write_peft
        details, loaded, tokens = write(model.eval(), tokenizer, weights, temporary)
        difference = _difference(model, loaded, weights, tokens)
        largest = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
        if not difference <= largest:
            raise RuntimeError(f"the exported model differs by {difference:.2g}; nothing was written")
        metadata = {
            "format_version": FORMAT_VERSION,
            "kind": "align",
            "format": format,
            "objectives": list(model.conditioning.objectives),
            "weights": None if weights is None else [float(w) for w in weights],
            "base_model": str(getattr(model.config, "_name_or_path", "") or ""),
            **details,
            "versions": {"hyperdpo": __version__, **{n: version(n) for n in ("torch", "transformers", "peft")}},
        }
        write_json(temporary / METADATA, metadata)
        _put(temporary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return LMExport(out, metadata, difference)


def check_directory(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken. Only an earlier export is ever replaced.

    Raises:
        InputError: it is taken, or cannot be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / METADATA).is_file():
            raise InputError(f"{out}: exists and is no export of `hyperdpo export`; expected a new directory")
        if not overwrite:
            raise InputError(f"{out}: holds an export; expected a new directory, or --overwrite")
    check_writable(out.parent)


def _put(made: Path, out: Path) -> None:
    """Rename a finished directory; what was there before goes once the new one is in its place."""
    old = None
    if out.exists():
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        os.replace(out, old)
    try:
        os.replace(made, out)
    except OSError:
        if old is not None:
            os.replace(old, out)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


# merged


def _write_merged(
    model: ConditionedLM, tokenizer: Any, weights: Sequence[float] | None, out: Path
) -> tuple[dict[str, Any], Any, list[int]]:
    """Write the checkpoint; its details, the model as it is read back, and the ids of the virtual tokens."""
    plain, prefix = model.merge(weights)
    ids: list[int] = []
    details: dict[str, Any] = {"virtual_tokens": [], "virtual_token_ids": []}
    if prefix is not None:
        if tokenizer is None:
            raise InputError("the adapter has virtual tokens, and there is no tokenizer beside it or its base model")
        tokenizer, names, ids = with_virtual_tokens(tokenizer, len(prefix))
        add_rows(plain, prefix, ids)
        details = {"virtual_tokens": names, "virtual_token_ids": ids}
    plain.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
        _check_tokenizer(out, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=plain.dtype).eval()
    return details, loaded, ids


def with_virtual_tokens(tokenizer: Any, count: int) -> tuple[Any, list[str], list[int]]:
    """A copy of a tokenizer that puts ``count`` new special tokens before every text and every conversation.

    Returns:
        The copy, the tokens and their ids.

    Raises:
        InputError: the tokenizer is not one of the tokenizers library, or what it puts around a text is no template.
    """
    from tokenizers import AddedToken, Tokenizer

    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InputError(
            f"{type(tokenizer).__name__}: is no tokenizer of the tokenizers library, which virtual tokens of a merged "
            "model need; expected a fast tokenizer, or a run with conditioning.prompt_tokens=0"
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


def _check_tokenizer(out: Path, wanted: Any) -> None:
    """Some tokenizers' classes make a post-processor of their own as they load: then the class is the general one."""
    text = "Why is the sky blue?"
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] == wanted(text)["input_ids"]:
        return
    path = out / "tokenizer_config.json"
    write_json(path, {**read_json(path), "tokenizer_class": "PreTrainedTokenizerFast"})
    if AutoTokenizer.from_pretrained(out)(text)["input_ids"] != wanted(text)["input_ids"]:
        raise InputError("tokenizer: does not keep the virtual tokens when it is saved; expected a run without them")


@torch.no_grad()
def add_rows(plain: Any, prefix: Tensor, ids: Sequence[int]) -> None:
    """Give the virtual tokens their rows of the input embeddings, in place, and see to it that they are not generated.

    The head is untied from the embeddings: a virtual token's own row would give it any logit. Its row of the head is
    that of the token which the model finds least likely, and ``generate`` suppresses it.

    Args:
        prefix: (k, d).
        ids: k of them; beyond the vocabulary, or of rows that no token of the tokenizer has.
    """
    head: Any = plain.get_output_embeddings()
    rows = plain.get_input_embeddings().weight.shape[0]
    rare = _least_likely(plain)
    if head.weight is plain.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        plain.config.tie_word_embeddings = False
        plain.config.get_text_config().tie_word_embeddings = False
        plain.tie_weights()
    size = max(rows, max(ids) + 1)
    if size > rows:
        plain.resize_token_embeddings(size, mean_resizing=False)
    words: Any = plain.get_input_embeddings()
    head = plain.get_output_embeddings()
    place = torch.tensor(ids, device=words.weight.device)
    # Some models (Gemma 3) multiply what they look up.
    factor = torch.as_tensor(getattr(words, "embed_scale", 1.0)).to(prefix)
    words.weight[place] = (prefix / factor).to(words.weight)
    unused = torch.cat((place, torch.arange(rows, size, device=place.device)))
    head.weight[unused] = head.weight[rare].clone()
    if getattr(head, "bias", None) is not None:
        head.bias[unused] = head.bias[rare].clone()
    known = plain.generation_config.suppress_tokens or []
    plain.generation_config.suppress_tokens = sorted({*known, *ids})


@torch.no_grad()
def _least_likely(plain: Any) -> int:
    """The token whose highest probability at any place of random texts is the lowest."""
    texts = _texts(plain.get_input_embeddings().weight)
    logits = plain(input_ids=texts, use_cache=False).logits.float()
    return int(torch.log_softmax(logits, -1).amax((0, 1)).argmin())


def _texts(weight: Tensor) -> Tensor:
    """(B, T) random token ids."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(len(weight), TRIAL, generator=generator).to(weight.device)


# PEFT


def _write_peft(
    model: ConditionedLM, tokenizer: Any, weights: Sequence[float] | None, out: Path
) -> tuple[dict[str, Any], Any, list[int]]:
    """Write the adapter; its details and the model as it is read back, which has its virtual tokens inside."""
    from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

    name = str(getattr(model.config, "_name_or_path", "") or "")
    with torch.no_grad():
        condition = model.condition(weights, 1)
    bare = model.plain_base()
    if condition.prefix is not None:
        k = condition.prefix.shape[1]
        tuned = get_peft_model(bare, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=k))
        embedding: Any = tuned.prompt_encoder["default"].embedding
        embedding.weight.data.copy_(condition.prefix[0])
        details = {"num_virtual_tokens": k}
    else:
        ours = lora_layers(model.base)
        first = next(iter(ours.values()))
        config = LoraConfig(
            r=model.conditioning.rank,
            lora_alpha=first.scaling[ADAPTER] * model.conditioning.rank,
            target_modules=list(ours),
            fan_in_fan_out=bool(getattr(first, "fan_in_fan_out", False)),
            task_type="CAUSAL_LM",
        )
        tuned = get_peft_model(bare, config)
        theirs = lora_layers(tuned.get_base_model(), "default")
        for number, (layer, mine) in enumerate(ours.items()):
            up = mine.lora_B[ADAPTER].weight.detach()
            if condition.gates is not None:
                up = up * condition.gates[number, 0].to(up)
            theirs[layer].lora_A["default"].weight.data.copy_(mine.lora_A[ADAPTER].weight.detach())
            theirs[layer].lora_B["default"].weight.data.copy_(up)
        details = {"rank": model.conditioning.rank}
    tuned.peft_config["default"].base_model_name_or_path = name
    tuned.save_pretrained(str(out))
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    return details, PeftModel.from_pretrained(model.plain_base(), out).eval(), []


@torch.no_grad()
def _difference(model: ConditionedLM, loaded: Any, weights: Sequence[float] | None, ids: list[int]) -> float:
    """How far the logits are from the model's, as a part of the largest (at least 1), on random texts."""
    words: Any = model.get_input_embeddings()
    texts = _texts(words.weight)
    taken = torch.isin(texts, torch.tensor(ids, dtype=torch.long, device=texts.device))
    texts = texts.masked_fill(taken, 0)  # rows that no token had are those of virtual tokens now
    loaded.to(texts.device)
    wanted = model(texts, weights=weights).logits.float()
    start = torch.tensor(ids, dtype=torch.long, device=texts.device).expand(len(texts), -1)
    found = loaded(input_ids=torch.cat((start, texts), 1), use_cache=False).logits.float()
    found = found[:, -texts.shape[1] :, : wanted.shape[-1]]
    kept = torch.ones(wanted.shape[-1], dtype=torch.bool, device=texts.device)
    kept[[i for i in ids if i < len(kept)]] = False
    return float((found - wanted)[..., kept].abs().max() / wanted.abs().max().clamp_min(1))
