"""How a base model is loaded: its numbers and its attention. Imports nothing heavy: the help shows the defaults."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from hyperdpo.errors import InputError
from hyperdpo.extras import is_installed
from hyperdpo.validation import settings

#: Arguments of ``from_pretrained`` that change how a model is loaded, not where it is looked for.
HOW = ("dtype", "attn_implementation", "quantization_config")


@settings()
class ModelSettings:
    """How the base model is loaded, by ``align fit`` and ``align compare``, and whenever a run is loaded again."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the base's numbers. Default: that of the checkpoint. The adapter is float32 in any case."""
    attn_implementation: str | None = None
    """``eager``, ``sdpa`` or ``flash_attention_2``, as in transformers. Default: transformers' choice."""
    training_attention: str | None = None
    """The attention while the adapter is trained. Default: ``attn_implementation``. On a CPU short texts are trained
    faster with ``eager`` and sampled faster with ``sdpa``."""
    load_in_4bit: bool = False
    """Quantise the base to 4 bits (NF4) with bitsandbytes, which has to be installed. Untried: no GPU was at hand."""

    def loading(self) -> dict[str, Any]:
        """What a model that is only sampled from or measured depends on: all but the attention of trainings."""
        return {name: value for name, value in asdict(self).items() if name != "training_attention"}

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained``; what is not set is left out.

        Raises:
            InputError: bitsandbytes is wanted and not installed.
        """
        found: dict[str, Any] = {}
        if self.dtype is not None:
            found["dtype"] = self.dtype
        if self.attn_implementation is not None:
            found["attn_implementation"] = self.attn_implementation
        if self.load_in_4bit:
            if not is_installed("bitsandbytes"):
                raise InputError(
                    "model_settings.load_in_4bit: bitsandbytes is not installed; run: pip install bitsandbytes"
                )
            import torch
            from transformers import BitsAndBytesConfig

            found["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=getattr(torch, self.dtype or "bfloat16"),
            )
        return found
