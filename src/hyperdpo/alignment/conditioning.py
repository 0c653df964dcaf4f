"""What of a language model depends on the weights w, as a configuration; and w itself, checked, as a tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError

Weights = Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class ConditioningConfig:
    """A prompt of virtual tokens and a low-rank adapter (LoRA), each of them a function of w or not.

    The paper's Hyper Prompt Tuning is ``prompt_conditioned`` with ``lora_conditioned=False``, and as printed it has
    ``mask_start="random"``. Plain prompt tuning on top of LoRA, as for the paper's baselines, has both False.

    Attributes:
        objectives: names of the m objectives, in the order of w.
        prompt_tokens: k virtual tokens before the text; 0 for none. The paper has 8.
        prompt_start: "bos", the virtual tokens start near the embedding of the token that begins a text, which hardly
            changes what the model says; or "vocabulary", from k different tokens, as PEFT's prompt tuning does.
        prompt_rank: r of the mask, the product of a (k, r) and an (r, d) matrix. The paper has 4.
        prompt_hidden: width of the two small networks that make them.
        prompt_conditioned: the virtual tokens are multiplied by the mask; False for plain prompt tuning.
        mask_start: "one", the mask is 1 + A(w) B(w); or "random", A(w) B(w) as in the paper.
        mask_spread: standard deviation, over the vertices of the simplex, of the mask's entries when training starts:
            how loudly w is heard through the prompt from the start. None leaves the networks as PyTorch makes them.
        lora_rank: r of the adapter, for each objective if it is conditioned by objective; 0 for none. The paper has 4.
        lora_alpha: the adapter counts lora_alpha / lora_rank times. The paper has 8.
        lora_dropout: probability that an input of the adapter is dropped.
        target_modules: names of the linear layers with an adapter, or "all-linear"; None for PEFT's choice for the
            type of model, or all linear layers where it has none. A saved adapter holds the names found.
        lora_conditioned: each of the adapter's r components is multiplied by a number, its gate, that is a function of
            w; False for plain LoRA.
        lora_components: "objective", a conditioned adapter has r components for each objective, m r in all, as many as
            m models for one objective each have together; or "shared", r in all. See :attr:`rank`.
        gate_hidden: width of the network that makes the gates, beside their linear part; 0 for a linear part only.
        gate_start: "objective", component i starts with more or less of w_(i mod m) in it; or "random", a random
            linear function of w.
        gate_spread: standard deviation, over the vertices, of the gates when training starts. They are 1 on average:
            with 1 and two objectives, an objective's components count twice at its vertex and not at all at the other.
            The second factor of LoRA starts at 0, and so does the influence of w through the gates; but the
            gradients of the components differ by w as much as the gates do, from the first step on.
    """

    objectives: tuple[str, ...]
    prompt_tokens: int = 8
    prompt_start: str = "bos"
    prompt_rank: int = 4
    prompt_hidden: int = 64
    prompt_conditioned: bool = True
    mask_start: str = "one"
    mask_spread: float | None = 1.0
    lora_rank: int = 4
    lora_alpha: float = 8.0
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | str | None = None
    lora_conditioned: bool = True
    lora_components: str = "objective"
    gate_hidden: int = 64
    gate_start: str = "objective"
    gate_spread: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        if self.target_modules is not None and not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"objectives {list(self.objectives)}, expected at least one, all different")
        for name, least in (("prompt_tokens", 0), ("lora_rank", 0), ("gate_hidden", 0)):
            self._check(name, isinstance(getattr(self, name), int) and getattr(self, name) >= least, "an integer >= 0")
        for name in ("prompt_rank", "prompt_hidden"):
            self._check(name, isinstance(getattr(self, name), int) and getattr(self, name) >= 1, "an integer >= 1")
        if self.prompt_tokens == 0 and self.lora_rank == 0:
            raise InputError("prompt_tokens and lora_rank are both 0; expected one of them to be positive")
        self._check("prompt_start", self.prompt_start in ("bos", "vocabulary"), "bos or vocabulary")
        self._check("mask_start", self.mask_start in ("one", "random"), "one or random")
        self._check("lora_components", self.lora_components in ("objective", "shared"), "objective or shared")
        self._check("gate_start", self.gate_start in ("objective", "random"), "objective or random")
        spread = self.mask_spread
        self._check("mask_spread", spread is None or 0 < spread < math.inf, "a finite number > 0, or null")
        self._check("gate_spread", 0 <= self.gate_spread < math.inf, "a finite number >= 0")
        self._check("lora_alpha", 0 < self.lora_alpha < math.inf, "a finite number > 0")
        self._check("lora_dropout", 0 <= self.lora_dropout < 1, "a number from 0 to below 1")

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def rank(self) -> int:
        """Components of the adapter in all."""
        many = self.lora_conditioned and self.lora_components == "objective"
        return self.lora_rank * (len(self.objectives) if many else 1)

    @property
    def is_conditioned(self) -> bool:
        """Whether anything is a function of w."""
        prompt = self.prompt_tokens > 0 and self.prompt_conditioned
        return prompt or (self.lora_rank > 0 and self.lora_conditioned)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConditioningConfig:
        """What :meth:`to_dict` gave.

        Raises:
            InputError: an unknown setting, no objectives, or a value out of its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"unknown setting {name!r} of the conditioning, expected one of {', '.join(known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"settings of the conditioning: {error}") from None

    @classmethod
    def from_lora_config(cls, lora_config: Any, objectives: Sequence[str], **settings: Any) -> ConditioningConfig:
        """Take the adapter's settings from a ``peft.LoraConfig``.

        Args:
            lora_config: r, lora_alpha, lora_dropout and target_modules are used.
            objectives: as the attribute.
            settings: other attributes.

        Raises:
            InputError: the configuration asks for what gates, merging or an exact average cannot be had with: rsLoRA,
                DoRA, biases, trained copies of modules, ranks by layer, or another start.
        """
        refused = {
            "use_rslora": False,
            "use_dora": False,
            "bias": "none",
            "lora_bias": False,
            "modules_to_save": None,
            "rank_pattern": {},
            "alpha_pattern": {},
            "layers_to_transform": None,
            "layers_pattern": None,
            "exclude_modules": None,
            "trainable_token_indices": None,
            "target_parameters": None,
            "init_lora_weights": True,
        }
        for name, plain in refused.items():
            value = getattr(lora_config, name, plain)
            if value != plain and value:
                raise InputError(f"peft_config: {name} is {value!r}; conditioned LoRA supports {plain!r} only")
        modules = lora_config.target_modules
        found = modules if modules is None or isinstance(modules, str) else tuple(sorted(modules))
        return cls(
            objectives=tuple(objectives),
            lora_rank=lora_config.r,
            lora_alpha=float(lora_config.lora_alpha),
            lora_dropout=float(lora_config.lora_dropout),
            target_modules=found,
            **settings,
        )


def centred(weights: Tensor) -> Tensor:
    """w as networks see it: 0 at the middle of the simplex, entries of mean square 1 at each vertex.

    Args:
        weights: (..., m).

    Returns:
        (..., m), (m w - 1) / sqrt(m - 1).
    """
    m = weights.shape[-1]
    return (m * weights - 1) / math.sqrt(max(m - 1, 1))


def weight_rows(weights: Weights | None, num_objectives: int, rows: int, device: torch.device) -> Tensor:
    """The weights of each row of a batch.

    The values of a tensor on an accelerator are not checked: that would make it wait.

    Args:
        weights: (m,) for all rows alike, or (B, m); points of the simplex.
        num_objectives: m.
        rows: B.
        device: where the result is to be.

    Returns:
        (1, m) or (B, m), float32.

    Raises:
        InputError: none given, another shape, or not on the simplex.
    """
    if weights is None:
        raise InputError(f"weights are missing; the model needs {num_objectives}, one per objective")
    if isinstance(weights, Tensor):
        found = weights
        if weights.shape[-1:] != (num_objectives,) or weights.device.type == "cpu":
            check_weights(weights.detach().cpu().numpy(), num_objectives)
    else:
        if isinstance(weights, (list, tuple)) and any(isinstance(row, Tensor) for row in weights):
            weights = torch.stack([torch.as_tensor(row) for row in weights]).cpu().numpy()
        found = torch.from_numpy(check_weights(weights, num_objectives))
    if found.dim() == 1:
        found = found[None]
    if found.dim() != 2 or len(found) not in (1, rows):
        raise InputError(
            f"weights of shape {tuple(found.shape)} for {rows} rows, expected ({num_objectives},) or one row each"
        )
    return found.to(device=device, dtype=torch.float32)
