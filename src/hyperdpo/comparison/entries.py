"""The rows of a comparison: methods and their variants, by the names of the command line. Imports nothing heavy: the
help shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperdpo.errors import InputError
from hyperdpo.ranking.paper import PAPER

#: Method, variant: the settings in which it differs from the comparison's own.
Variants = Mapping[str, Mapping[str, Mapping[str, Any]]]

#: Mixtures are trained without sampled weights, and so without the penalty on them.
GAIN: dict[str, Any] = {"parametrization": "mixture", "mixture": {"form": "gain"}, "training": {"penalty": 0.0}}
MIXTURE: dict[str, Any] = {"parametrization": "mixture", "mixture": {"form": "product"}, "training": {"penalty": 0.0}}
#: Models for one w take only the parametrisations that do not take w.
_FIXED: dict[str, Any] = {
    "scratch": {"parametrization": "scratch"},
    "augmentation": {"parametrization": "augmentation"},
}

#: Variants for ``rank compare``.
RANK_VARIANTS: Variants = {
    "hyperdpo": {
        "mixture": MIXTURE,
        "exact": {**MIXTURE, "mixture": {"form": "product", "smoothing": 0.0, "power": 1.0}},
        "power": {**MIXTURE, "mixture": {"form": "product", "power": (0.25, 0.5, 1.0)}},
        "gain": GAIN,
        "gbdt": {**GAIN, "scorer": {"kind": "gbdt"}},
        "blend": {**GAIN, "scorer": {"kind": "blend"}},
        "scratch": {"parametrization": "scratch"},
        "augmentation": {"parametrization": "augmentation"},
        "temperature": {"parametrization": "temperature"},
        "paper": PAPER,
    },
    "dpo-ls": _FIXED,
    "dpo-soup": _FIXED,
    "mo-dpo": {},
    # The base score as a feature; models per w, whose scores are averaged. Arguments of their own, no settings.
    "lightgbm-ls": {"base": {"with_base": True}, "mean": {"models": 2}},
}

#: Models for one w: LoRA, and virtual tokens where there are some, that are not conditioned on w.
PLAIN: dict[str, Any] = {"conditioning": {"prompt_conditioned": False, "lora_conditioned": False}}

#: Unless they are set: virtual tokens with the paper's LoRA beside them, and gates that are a network of w.
_PROMPT: dict[str, Any] = {"prompt_tokens": 8, "lora_rank": 4}
_GATES: dict[str, Any] = {"gate_hidden": 64, "lora_rank": 4}

#: The default adapter, for an entry in a comparison whose own settings have another one.
DEFAULT_ADAPTER: dict[str, Any] = {"conditioning": {"prompt_tokens": 0, "gate_hidden": 0, "lora_rank": 8}}

#: Variants for ``align compare``.
ALIGN_VARIANTS: Variants = {
    "hyperdpo": {
        # Its LoRA works at every w, as that of a model for one w does: the same learning rate.
        "prompt": {
            "conditioning": {"lora_conditioned": False},
            "training": {"learning_rate_factor": 1.0},
            "unless_set": _PROMPT,
        },
        # Gates that are a network of w, without a prompt and with one.
        "lora": {"conditioning": {"prompt_tokens": 0}, "unless_set": _GATES},
        "both": {"unless_set": _PROMPT | _GATES},
        # One plain LoRA per objective, summed with w: what `export --format vertices` and `gguf` write.
        "portable": {"conditioning": {"prompt_tokens": 0, "gate_hidden": 0}},
        # As printed: the mask starts at A(w) B(w), the networks as PyTorch makes them, one w ~ Dirichlet per batch.
        "paper": {
            "conditioning": {
                "lora_conditioned": False,
                "mask_start": "random",
                "mask_spread": None,
                "prompt_start": "vocabulary",
            },
            "training": {"weights_per": "batch", "vertex_share": 0.0, "learning_rate_factor": 1.0},
            "unless_set": _PROMPT,
        },
    },
    "dpo-ls": {},
    # How adapters are averaged; "exact", the average of their weight changes, is the default.
    "dpo-soup": {
        "linear": {"soup": "linear"},
        "svd": {"soup": "svd"},
        # Experts without virtual tokens and of rank m r: plain LoRAs, served as those of hyperdpo:portable are.
        "portable": {"fixed": {"portable": True}},
    },
    "mo-dpo": {},
    "logit-mixing": {},
}


#: Stands behind ``hyperdpo`` or a variant of it, for ``rank compare`` on click data: trained on clicks as they were
#: logged.
UNCORRECTED = ":uncorrected"


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: its name in tables and plots.
        method: one of :data:`~hyperdpo.comparison.methods.METHODS`.
        overrides: settings that differ from the comparison's own. Language models: sections ``conditioning`` and
            ``training``; ``soup``, how adapters are averaged; ``fixed``, what differs in models for one w;
            ``unless_set``, settings of ``conditioning`` that the comparison's own come before.
        temperatures: rankers: vectors β (m numbers each) at which the front is measured besides the configured one.
        scales: rankers: scales c at which the front is measured besides 1.
        dense: rankers: measure a conditioned method at 101 weightings, too.
        uncorrected: rankers: train on clicks as they were logged; see :data:`UNCORRECTED`.
        repeats: only on so many of the comparison's repeats, the first ones; None: on all.
    """

    label: str
    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    temperatures: tuple[tuple[float, ...], ...] = ()
    scales: tuple[float, ...] = (0.5, 2.0)
    dense: bool = True
    uncorrected: bool = False
    repeats: int | None = None

    @property
    def one_shot(self) -> bool:
        """Whether one training answers for every w."""
        return self.method == "hyperdpo"


def parse_entry(text: str, variants: Variants) -> Entry:
    """The entry that ``METHOD`` or ``METHOD:VARIANT`` stands for, where rankers have :data:`UNCORRECTED` behind it.

    Raises:
        InputError: no such method or variant.
    """
    method, _, variant = text.partition(":")
    uncorrected = variants is RANK_VARIANTS and method == "hyperdpo" and text.endswith(UNCORRECTED)
    if uncorrected:
        variant = text.removesuffix(UNCORRECTED).partition(":")[2]
    if method not in variants:
        raise InputError(f"--methods: no method {method!r}; expected some of {', '.join(variants)}")
    named = variants[method]
    if variant and variant not in named:
        expected = ", ".join(f"{method}:{one}" for one in named) or method
        raise InputError(f"--methods: no variant {text!r}; expected {expected}")
    return Entry(text, method, named[variant] if variant else {}, uncorrected=uncorrected)


def check_labels(entries: Sequence[Entry]) -> None:
    """Refuse two entries of one label.

    Raises:
        InputError: there are such.
    """
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--methods: {label!r} is named more than once")


def listed(variants: Variants) -> str:
    """All methods, each with its variants, in words."""
    return ", ".join(
        method + (f" ({', '.join(f':{variant}' for variant in named)})" if named else "")
        for method, named in variants.items()
    )


def kept_settings(own: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> list[str]:
    """Settings that a method keeps, whatever is given for all methods: ``training.alpha=0.5``."""
    kept = []
    for name, value in own.items():
        if name in given:
            if isinstance(value, Mapping) and isinstance(given[name], Mapping):
                kept += kept_settings(value, given[name], f"{where}{name}.")
            elif given[name] != value:
                kept.append(f"{where}{name}={value}")
    return kept
