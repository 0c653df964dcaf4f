"""The hub: the model card of an adapter, and pushes while it is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, ModelCardData
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import PushInProgress

from hyperdpo.alignment.bases import HUB_NAME
from hyperdpo.alignment.gguf_models import described_origin, origin_of
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
    origin = described_origin(origin_of(model))
    shown = base if known else f"a model that was {origin}" if origin else "a local model"
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


def push_checkpoint(trainer: Any, checkpoint_folder: str) -> None:
    """Push the adapter during training, in the background, as ``hub_strategy`` says.

    Args:
        trainer: a :class:`~hyperdpo.alignment.trainer.HyperDPOTrainer`.
        checkpoint_folder: where the trainer has just written a checkpoint.
    """
    strategy, running = trainer.args.hub_strategy, cast(PushInProgress | None, trainer.push_in_progress)
    if running is not None and running.is_done():
        running = None
    if strategy == HubStrategy.END or (running is not None and not trainer.args.hub_always_push):
        return
    trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    out = str(trainer.args.output_dir)
    trainer._save(out)
    trainer.create_model_card(model_name=str(trainer.hub_model_id).rpartition("/")[2])
    told: dict[str, Any] = {
        "repo_id": trainer.hub_model_id,
        "token": trainer.args.hub_token,
        "revision": trainer.args.hub_revision,
    }
    message = f"Training in progress, step {trainer.state.global_step}"
    ignored = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*"]
    api = HfApi()
    jobs: Any = [
        api.upload_folder(folder_path=out, commit_message=message, run_as_future=True, ignore_patterns=ignored, **told)
    ]
    if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):  # asked for: all that resuming needs
        folder = Path(checkpoint_folder)
        place = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else folder.name
        told |= {"folder_path": folder, "path_in_repo": place, "commit_message": f"{message}, checkpoint"}
        jobs.append(api.upload_folder(run_as_future=True, **told))
    if running is None:
        trainer.push_in_progress = cast(Any, PushInProgress(jobs))
    else:
        running.jobs = [*cast(Any, running.jobs), *jobs]
