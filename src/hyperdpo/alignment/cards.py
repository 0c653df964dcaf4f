"""The model card of an adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hyperdpo.alignment.bases import HUB_NAME
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.objectives import Objective

TAGS = ("hyperdpo", "dpo", "multi-objective", "lora")


def model_card(
    model: ConditionedLM,
    objectives: Sequence[Objective],
    name: str | None = None,
    tags: str | Sequence[str] | None = None,
    *,
    place: str | None = None,
    **metadata: Any,
) -> str:
    """Markdown for the hub. A base that is a directory of this machine is not named.

    Args:
        name: the title; None: made of the base's name.
        tags: beside those of every adapter.
        place: the adapter's name on the hub.
        metadata: of the head, such as ``license`` or ``base_model``; None leaves it out.
    """
    names = ", ".join(o.name for o in objectives)
    base = str(metadata.pop("base_model", None) or getattr(model.config, "_name_or_path", "") or "")
    known = bool(HUB_NAME.fullmatch(base)) and not Path(base).exists()
    shown = base if known else "a local model"
    more = [tags] if isinstance(tags, str) else list(tags or ())
    head = ModelCardData(
        base_model=base if known else None,
        library_name="hyperdpo",
        tags=list(dict.fromkeys((*TAGS, *more))),
        **metadata,
    )
    title = f"{shown.rpartition('/')[2]}, aligned to {names} at any weighting" if name is None else name
    source = json.dumps(place or "path") + ("" if known else ", base_model=...")
    equal = ", ".join(["..."] * len(objectives))
    lines = [f"| {o.name} | {o.target} | {o.beta:g} |" for o in objectives]
    return "\n".join(
        [
            "---",
            head.to_yaml(),
            "---",
            "",
            f"# {title}",
            "",
            f"One adapter of {shown} for every trade-off of {names}, trained with HyperDPO (arXiv:2410.08316).",
            "",
            "| objective | target | β |",
            "|---|---|---|",
            *lines,
            "",
            "```python",
            "from hyperdpo.alignment.model import ConditionedLM",
            "",
            f"model = ConditionedLM.from_pretrained({source})",
            f"model.generate(**inputs, weights=[{equal}], max_new_tokens=64)  # weights of {names}",
            "```",
            "",
        ]
    )
