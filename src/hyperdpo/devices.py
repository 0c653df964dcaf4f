"""Where to compute."""

from __future__ import annotations


def best_device(cpu: bool = False) -> str:
    """Where to score: a GPU where there is one, unless the CPU is asked for."""
    import torch

    return "cuda" if not cpu and torch.cuda.is_available() else "cpu"


def computes_bf16(cpu: bool = False) -> bool:
    """Whether that device has instructions for bf16, so that half precision is the faster one."""
    import torch

    if best_device(cpu) == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not torch's public answer, which is also yes where bf16 is emulated, and slower.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and bool(ask()) for ask in asked)
