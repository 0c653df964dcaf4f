"""The methods of a comparison of language models and their variants, by the names of the command line. Imports nothing
heavy: the help shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The paper's baselines: prompt tuning and LoRA that do not know w.
PLAIN: dict[str, Any] = {"conditioning": {"prompt_conditioned": False, "lora_conditioned": False}}

#: Method, variant: the settings that differ from the comparison's own.
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "hyperdpo": {
        # Its LoRA works at every w, as that of a model for one w does: the same learning rate.
        "prompt": {"conditioning": {"lora_conditioned": False}, "training": {"learning_rate_factor": 1.0}},
        "lora": {"conditioning": {"prompt_conditioned": False}},
        # As printed: the mask starts at A(w) B(w), the networks as PyTorch makes them, one w ~ Dirichlet per batch.
        "paper": {
            "conditioning": {
                "lora_conditioned": False,
                "mask_start": "random",
                "mask_spread": None,
                "prompt_start": "vocabulary",
            },
            "training": {"weights_per": "batch", "vertex_share": 0.0, "learning_rate_factor": 1.0},
        },
    },
    "dpo-ls": {},
    # How adapters are averaged; "exact", the average of their weight changes, is the default.
    "dpo-soup": {"linear": {"soup": "linear"}, "svd": {"soup": "svd"}},
    "mo-dpo": {},
    "logit-mixing": {},
}
