"""A conditioned language model at one point of the simplex, as an adapter that stock PEFT loads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.model import Condition, ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.serving.export.rows import add_rows
from hyperdpo.serving.export.tokens import save_tokenizer, virtual_tokens

#: PEFT's own name of an adapter.
DEFAULT = "default"


def write_peft(
    model: ConditionedLM, tokenizer: Any, weights: Sequence[float] | None, out: Path
) -> tuple[dict[str, Any], Any, list[int]]:
    """Write an adapter: LoRA, prompt tuning, or LoRA with virtual tokens as k new tokens of the vocabulary.

    Returns:
        Its details, the model as it is read back, and the ids of the new tokens.

    Raises:
        InputError: there are virtual tokens and LoRA, and the tokenizer or the head is of a kind that cannot take them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, to PEFT
        return _write(model, tokenizer, weights, out)


def _write(
    model: ConditionedLM, tokenizer: Any, weights: Sequence[float] | None, out: Path
) -> tuple[dict[str, Any], Any, list[int]]:
    from peft import PeftModel

    with torch.no_grad():
        condition = model.condition(weights, 1)
    bare = model.plain_base()
    ids: list[int] = []
    if condition.prefix is not None and not model.lora_names:
        tuned, details = _prompt_tuning(bare, condition.prefix[0])
    elif condition.prefix is not None:
        tokenizer, names, ids = virtual_tokens(tokenizer, condition.prefix.shape[1])
        _check_head(bare, tokenizer, ids)
        full, prefix = model.merge(weights)
        assert prefix is not None
        margin = add_rows(full, prefix, ids)
        known = bare.get_input_embeddings().weight.shape[0]
        _grow(bare, tokenizer)
        tuned = _lora(bare, model, condition, _token_rows(bare, full, ids, known))
        details = {
            "rank": model.conditioning.rank,
            "virtual_tokens": names,
            "virtual_token_ids": ids,
            "virtual_token_margin": margin,
        }
        full.generation_config.save_pretrained(out)
    else:
        tuned, details = _lora(bare, model, condition), {"rank": model.conditioning.rank}
    tuned.peft_config[DEFAULT].base_model_name_or_path = str(getattr(model.config, "_name_or_path", "") or "")
    tuned.save_pretrained(str(out), save_embedding_layers=False)
    again = model.plain_base()
    if tokenizer is not None:
        save_tokenizer(out, tokenizer)
    if ids:
        _grow(again, tokenizer)
    return details, PeftModel.from_pretrained(again, out).eval(), ids


def _grow(bare: Any, tokenizer: Any) -> None:
    """Give a base rows for all tokens of the tokenizer, as ``AutoPeftModelForCausalLM`` does.

    Only the base: transformers changes parameters in place, and those of a copy are the model's own.
    """
    words, head = bare.get_input_embeddings(), bare.get_output_embeddings()
    if len(tokenizer) <= len(words.weight):
        return
    tied = head.weight is words.weight
    words.weight = nn.Parameter(words.weight.detach().clone(), requires_grad=False)
    head.weight = words.weight if tied else nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    bare.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def _check_head(bare: Any, tokenizer: Any, ids: list[int]) -> None:
    """Raise where PEFT does not compute the head with single rows replaced, or has no such rows."""
    if getattr(bare.get_output_embeddings(), "bias", None) is not None:
        raise InputError(
            "--format peft: the model's output head has a bias, which PEFT leaves out where an adapter holds rows of "
            "it; expected --format merged, or a run with conditioning.prompt_tokens=0"
        )
    if max(ids) >= max(len(tokenizer), bare.get_input_embeddings().weight.shape[0]):
        raise InputError(
            f"--format peft: the tokenizer gives a new token the id {max(ids)} and says that it has {len(tokenizer)}; "
            "expected --format merged, or a run with conditioning.prompt_tokens=0"
        )


def _prompt_tuning(bare: Any, prefix: Tensor) -> tuple[Any, dict[str, Any]]:
    from peft import PromptTuningConfig, get_peft_model

    tuned = get_peft_model(bare, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(prefix)))
    embedding: Any = tuned.prompt_encoder[DEFAULT].embedding
    embedding.weight.data.copy_(prefix)
    return tuned, {"num_virtual_tokens": len(prefix)}


def _lora(
    bare: Any, model: ConditionedLM, condition: Condition, rows: dict[str, dict[int, Tensor]] | None = None
) -> Any:
    """LoRA with the gates folded in, and rows of the embeddings and of the head."""
    from peft import LoraConfig, get_peft_model

    ours = lora_layers(model.base)
    first = next(iter(ours.values()))
    config = LoraConfig(
        r=model.conditioning.rank,
        lora_alpha=first.scaling[ADAPTER] * model.conditioning.rank,
        target_modules=list(ours),
        fan_in_fan_out=bool(getattr(first, "fan_in_fan_out", False)),
        trainable_token_indices=None if rows is None else {name: list(found) for name, found in rows.items()},
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(bare, config)
    theirs = lora_layers(tuned.get_base_model(), DEFAULT)
    for number, (layer, mine) in enumerate(ours.items()):
        up = mine.lora_B[ADAPTER].weight.detach()
        if condition.gates is not None:
            up = up * condition.gates[number, 0].to(up)
        theirs[layer].lora_A[DEFAULT].weight.data.copy_(mine.lora_A[ADAPTER].weight.detach())
        theirs[layer].lora_B[DEFAULT].weight.data.copy_(up)
    for name, found in (rows or {}).items():
        wrapper: Any = tuned.get_base_model().get_submodule(name)
        wrapper.token_adapter.trainable_tokens_delta[DEFAULT].data.copy_(torch.stack(list(found.values())))
    return tuned


def _token_rows(bare: Any, full: Any, ids: list[int], known: int) -> dict[str, dict[int, Tensor]]:
    """Rows (d,) by layer and id: of the embeddings, for virtual tokens; of the head, for all that no text has.

    Where the head shares the embeddings' weights, PEFT takes the embeddings' rows for both, unless other ids are named
    for the head. So the head has one more id, of a token that keeps its row.

    Args:
        bare: the base with rows for them.
        full: the model after :func:`add_rows`.
        known: rows of the base before it had them.
    """
    words, head = full.get_input_embeddings().weight.detach(), full.get_output_embeddings().weight.detach()
    names = {id(module): name for name, module in bare.named_modules(remove_duplicate=False)}
    unused = sorted({*ids, *range(known, len(head))})
    kept = next(i for i in range(len(head)) if i not in unused)
    return {
        names[id(bare.get_input_embeddings())]: {i: words[i] for i in ids},
        names[id(bare.get_output_embeddings())]: {i: head[i] for i in (*unused, kept)},
    }
