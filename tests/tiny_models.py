"""Random models of the supported shapes, small enough for tests, and conditioned models whose w is heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM

KINDS = ("gpt2", "llama", "qwen2", "qwen3")
VOCABULARY = 50
PLAIN: dict[str, Any] = {"prompt_conditioned": False, "lora_conditioned": False}


def tiny_base(kind: str = "llama", seed: int = 0, **settings: Any) -> Any:
    """A random causal LM with two layers; token 0 pads, 1 begins, 2 ends."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt2":
            sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
            config: Any = transformers.GPT2Config(**{"vocab_size": VOCABULARY, **sizes, **ids, **settings})
            return transformers.GPT2LMHeadModel(config).eval()
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "initializer_range": 0.3,
            "vocab_size": VOCABULARY,
            "tie_word_embeddings": kind == "qwen2",
        }
        if kind == "qwen3":
            sizes["head_dim"] = 8
        name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
        config = getattr(transformers, f"{name}Config")(**{**sizes, **ids, **settings})
        return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def tiny_model(
    kind: str = "llama", *, seed: int = 0, trained: bool = True, base: Any = None, **config: Any
) -> ConditionedLM:
    """Two objectives, virtual tokens and a network of gates.

    ``trained`` gives values to what starts at 0: LoRA's B, and the last layer of the gates.
    """
    sizes: dict[str, Any] = {"prompt_tokens": 3, "prompt_hidden": 8, "gate_hidden": 4, "lora_rank": 4}
    chosen = ConditioningConfig(("a", "b"), **sizes | config)
    model = ConditionedLM.create(tiny_base(kind) if base is None else base, chosen, seed=seed)
    if trained:
        randomise(model, seed)
    return model


def randomise(model: ConditionedLM, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(model.base).values():
            weight = layer.lora_B[ADAPTER].weight
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
        if model.gates is not None and model.gates.network is not None:
            last = model.gates.network[-1]
            last.weight.copy_(torch.randn(last.weight.shape, generator=generator) * 0.2)


def texts(lengths: tuple[int, ...] = (7, 4, 6), seed: int = 1, low: int = 3) -> list[torch.Tensor]:
    """Random token ids without special ones."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(low, VOCABULARY, (length,), generator=generator) for length in lengths]


def padded(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids and mask."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


#: Weights of three rows, all different.
MIXED = torch.tensor([[1.0, 0.0], [0.3, 0.7], [0.0, 1.0]])


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that require a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def attentions() -> Iterator[dict[bool, set[str]]]:
    """Whether gradients were wanted -> the attentions of the forward passes."""
    used: dict[bool, set[str]] = {True: set(), False: set()}

    def look(module: torch.nn.Module, inputs: Any) -> None:
        if type(module).__name__.endswith("Attention"):
            config: Any = module.config
            used[torch.is_grad_enabled()].add(config._attn_implementation)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield used
    finally:
        hook.remove()
