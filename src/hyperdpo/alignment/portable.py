"""The settings of ``--portable``. Imports nothing heavy: the help of the command line needs them."""

from __future__ import annotations

from typing import Any

#: Sections of a configuration. No virtual tokens, and gates that are linear in w: the adapter at w is then the sum over
#: the objectives j of w_j times a plain LoRA.
PORTABLE: dict[str, dict[str, Any]] = {"conditioning": {"prompt_tokens": 0, "gate_hidden": 0}}
#: Settings of ``conditioning`` unless they are set: at rank 8, half the scale α / r of the default, it overfits less.
UNLESS_SET: dict[str, Any] = {"lora_rank": 8}
