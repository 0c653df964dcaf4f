"""A portable run as m plain LoRA adapters, one per objective: the model at w is the base plus w_j times each of them.

    ΔW(w) = (alpha / r) B diag(g(w)) A = Σ_j w_j (alpha / r) B diag(g(e_j)) A,   because g is linear in w.

Adapter j is LoRA of rank m r with the factors A and B diag(g(e_j)), which is what stock PEFT loads.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.serving.export.peft import write_peft

#: PEFT's name of the sum of adapters that an export tries.
_SUM = "hyperdpo_sum"


def adapter_names(objectives: Sequence[str]) -> list[str]:
    """Names of the adapters, and of their directories or files: ``0-helpful``; only letters, digits, _ and -.

    PEFT allows no dot in an adapter's name.
    """
    return [
        f"{j}-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "objective")
        for j, name in enumerate(objectives)
    ]


def check_portable(config: ConditioningConfig, format: str) -> None:
    """Refuse a run whose adapter at w is not a sum of one LoRA per objective.

    Raises:
        InputError: it is not, with the setting that it comes from.
    """
    reason = config.not_portable
    if reason is not None:
        raise InputError(
            f"--format {format}: the run's adapter is no sum of one LoRA per objective ({reason}); expected a run of "
            "`hyperdpo align fit --portable`, or --format merged or peft at one point"
        )


def write_vertices(model: ConditionedLM, out: Path) -> list[Path]:
    """Write one directory per objective, each a LoRA adapter that ``PeftModel.from_pretrained`` loads."""
    places = [out / name for name in adapter_names(model.conditioning.objectives)]
    for place, vertex in zip(places, np.eye(len(places)), strict=True):
        write_peft(model, None, vertex.tolist(), place)
    return places


def weighted_model(model: ConditionedLM, places: Sequence[Path], weights: Sequence[float]) -> Any:
    """The base with adapters read from their directories, summed at these weights by PEFT."""
    from peft import PeftModel

    names = [place.name for place in places]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, to PEFT
        loaded = PeftModel.from_pretrained(model.plain_base(), str(places[0]), adapter_name=names[0])
        for name, place in zip(names[1:], places[1:], strict=True):
            loaded.load_adapter(str(place), adapter_name=name)
        loaded.add_weighted_adapter(names, [float(w) for w in weights], adapter_name=_SUM, combination_type="cat")
    loaded.set_adapter(_SUM)
    return loaded.eval()
