"""Where to compute."""

from __future__ import annotations


def best_device(cpu: bool = False) -> str:
    """Where to score: a GPU where there is one, unless the CPU is asked for."""
    import torch

    return "cuda" if not cpu and torch.cuda.is_available() else "cpu"
