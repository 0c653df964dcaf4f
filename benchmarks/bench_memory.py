"""Memory of one training step by its parts: base, adapter, optimiser, and the activations that are kept for the
backward pass, with and without gradient checkpointing.

The model has random weights of a given shape; nothing is downloaded.

    python benchmarks/bench_memory.py --rows 8 --tokens 128
"""

from __future__ import annotations

import argparse
import json
import time

import torch
import transformers

from hyperdpo.alignment import ConditionedLM, ConditioningConfig


def shaped(dtype: torch.dtype) -> transformers.PreTrainedModel:
    """SmolLM2-135M's shape."""
    config = transformers.LlamaConfig(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=49152, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def kept_bytes(model: ConditionedLM, rows: int, tokens: int) -> tuple[int, float]:
    """Bytes that the forward pass keeps for the backward pass, parameters and their views left out; seconds of both."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(3, 1000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    completion = mask.clone()
    completion[:, : tokens // 2] = 0
    weights = torch.rand(rows, 1, generator=torch.Generator().manual_seed(1))
    started = time.monotonic()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps = model(ids, mask, torch.cat((weights, 1 - weights), 1), completion_mask=completion).logps
    logps.sum().backward()
    return sum(seen.values()), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    asked = parser.parse_args()
    for dtype in (torch.float32, torch.bfloat16):
        model = ConditionedLM.create(shaped(dtype), ConditioningConfig(("a", "b"))).train()
        base = sum(p.numel() * p.element_size() for p in model.base.parameters() if not p.requires_grad)
        adapter = model.num_parameters()
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            kept, seconds = kept_bytes(model, asked.rows, asked.tokens)
            per = kept / (asked.rows * (asked.tokens + model.conditioning.prompt_tokens) * 30 * 576)
            found = {
                "dtype": str(dtype).removeprefix("torch."),
                "checkpointing": checkpointing,
                "base_mb": round(base / 1e6, 1),
                "adapter_and_adam_mb": round(adapter * 16 / 1e6, 1),
                "activations_mb": round(kept / 1e6, 1),
                "activation_bytes_per_token_layer_width": round(per, 2),
                "seconds": round(seconds, 1),
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
