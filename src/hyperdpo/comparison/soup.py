"""Soup of models that do not know w: the average of what was added to one base, as in DPO Soup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError

DEFINITIONS = ("exact", "linear", "svd")


@torch.no_grad()
def soup(
    models: Sequence[ConditionedLM], shares: Any, definition: str = "exact", base_model: Any = None
) -> ConditionedLM:
    """The model whose changes to the base, ΔW and the prompt, are the average of the models' changes.

    Models without LoRA, which have a prompt alone, have the average of the prompts.

    Args:
        models: not conditioned, on one base, with adapters at the same layers and of the same rank.
        shares: (number of models,), a point of the simplex.
        definition: "exact", the average of ΔW, by adapters beside each other (rank: the sum of theirs); "svd", its best
            approximation of rank 2 r; "linear", the average of A and of B, whose product is not the average of ΔW.
        base_model: where the soup goes; by default a copy of the first model's base that shares its weights.

    Returns:
        A new model, not conditioned.

    Raises:
        InputError: another definition, a conditioned model, models that do not fit each other, or wrong shares.
    """
    if definition not in DEFINITIONS:
        raise InputError(f"soup definition {definition!r}, expected one of {', '.join(DEFINITIONS)}")
    if not models:
        raise InputError("no models, expected at least one")
    portions = [float(share) for share in check_weights(shares, len(models))]
    first = models[0].conditioning
    for number, model in enumerate(models):
        config = model.conditioning
        if config.is_conditioned:
            raise InputError(f"model {number} is conditioned on w; average models that are trained for one w each")
        same = (config.prompt_tokens, config.lora_rank) == (first.prompt_tokens, first.lora_rank)
        if not same or model.lora_names != models[0].lora_names:
            raise InputError(
                f"model {number} has another prompt or other LoRA layers than model 0; they cannot be averaged"
            )
    rank = {"exact": len(models) * first.lora_rank, "svd": 2 * first.lora_rank, "linear": first.lora_rank}[definition]
    # alpha / r stays: 1 would do as well, but this is what a reader of the configuration expects.
    alpha = first.lora_alpha * rank / first.lora_rank if rank else first.lora_alpha
    config = replace(first, lora_rank=rank, lora_alpha=alpha, lora_dropout=0.0)
    result = ConditionedLM.create(models[0].plain_base() if base_model is None else base_model, config)
    if result.prompt is not None:
        prefixes = [model.prompt.prefix for model in models if model.prompt is not None]
        result.prompt.prefix.copy_(_average(prefixes, portions))
    layers = [lora_layers(model.base) for model in models]
    for name, target in lora_layers(result.base).items():
        downs = [found[name].lora_A[ADAPTER].weight for found in layers]
        scales = [found[name].scaling[ADAPTER] / target.scaling[ADAPTER] for found in layers]
        ups = [found[name].lora_B[ADAPTER].weight * scale for found, scale in zip(layers, scales, strict=True)]
        if definition == "linear":
            down, up = _average(downs, portions), _average(ups, portions)
        else:
            down = torch.cat(downs)  # (models * r, in)
            up = torch.cat(
                [matrix * share for matrix, share in zip(ups, portions, strict=True)], 1
            )  # (out, models * r)
        if definition == "svd":
            down, up = _truncated(down, up, rank)
        target.lora_A[ADAPTER].weight.copy_(down)
        target.lora_B[ADAPTER].weight.copy_(up)
    return result


def _average(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([tensor * share for tensor, share in zip(tensors, shares, strict=True)]).sum(0)


def _truncated(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors (rank, in), (out, rank) of up @ down; zeros where it has less than that rank."""
    left, values, right = torch.linalg.svd(up @ down, full_matrices=False)
    roots = values[:rank].sqrt()
    new_down, new_up = down.new_zeros(rank, down.shape[1]), up.new_zeros(up.shape[0], rank)
    new_down[: len(roots)] = roots[:, None] * right[:rank]
    new_up[:, : len(roots)] = left[:, :rank] * roots
    return new_down, new_up
