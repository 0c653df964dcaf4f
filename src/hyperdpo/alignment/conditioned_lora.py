"""LoRA whose components are switched by the weights w, row by row of a batch.

A layer computes x W + (alpha / r) B (g(w) * A x): g(w) are r numbers per layer, the gates. PEFT's layers compute the
rest; a forward hook on A multiplies its output by the gates of the call that is under way.

Shapes: B rows, T tokens, m objectives, L layers with an adapter, r rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar, Token
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hyperdpo.alignment.conditioning import ConditioningConfig, centred
from hyperdpo.errors import InputError

#: PEFT's name of the adapter. Not "default", which TRL renames where it finds it in a parameter's name.
ADAPTER = "hyperdpo"

# A context variable, not an attribute of the model: rows of two requests that are served by two threads at a time do
# not see each other's gates, and autograd's threads, which recompute checkpointed layers, have theirs.
_GATES: ContextVar[tuple[Tensor, ...] | None] = ContextVar("gates", default=None)


class RankGates(nn.Module):
    """The gates of all layers at w: 1 + a linear function of w + a small network of w that starts at 0.

    Args:
        config: rank, objectives, and how the gates start.
        layers: L.
    """

    def __init__(self, config: ConditioningConfig, layers: int):
        super().__init__()
        self.config, self.layers = config, layers
        m, outputs = len(config.objectives), layers * config.rank
        self.linear = nn.Parameter(torch.zeros(m, outputs))
        self.network: nn.Sequential | None = None
        if config.gate_hidden:
            self.network = nn.Sequential(
                nn.Linear(m, config.gate_hidden), nn.Tanh(), nn.Linear(config.gate_hidden, outputs)
            )
            last = self.network[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            if config.gate_start == "objective":
                components = torch.arange(outputs) % config.rank
                self.linear[components % m, torch.arange(outputs)] = 1.0
            else:
                self.linear.normal_()
            spread = (centred(torch.eye(m)) @ self.linear).var(0, correction=0).mean().sqrt()
            self.linear.mul_(config.gate_spread / spread if spread > 0 else 0.0)

    def forward(self, weights: Tensor) -> Tensor:
        """(B, m) -> (L, B, r)."""
        seen = centred(weights)
        gates = 1 + seen @ self.linear
        if self.network is not None:
            gates = gates + self.network(seen)
        return gates.view(len(weights), self.layers, self.config.rank).transpose(0, 1)


class use_gates:
    """Multiply the components of every layer by these gates, in this thread. May be entered again after it was left.

    Args:
        gates: (L, B, r), or (L, 1, r) for all rows alike; None for gates of 1. Or what :func:`gates_in_use` gave.
    """

    def __init__(self, gates: Tensor | tuple[Tensor, ...] | None):
        # L times (B, 1, r)
        self._gates = tuple(gates.unsqueeze(2).unbind(0)) if isinstance(gates, Tensor) else gates
        self._token: Token[tuple[Tensor, ...] | None] | None = None

    def __enter__(self) -> None:
        self._token = _GATES.set(self._gates)

    def __exit__(self, *error: object) -> None:
        assert self._token is not None
        _GATES.reset(self._token)


def gates_in_use() -> tuple[Tensor, ...] | None:
    """The gates that :func:`use_gates` set in this thread, to be set again in another one."""
    return _GATES.get()


def recomputation_contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """``context_fn`` of ``torch.utils.checkpoint``: a layer is computed again with the gates it was computed with."""
    return contextlib.nullcontext(), use_gates(gates_in_use())


def inject_lora(base: Any, config: ConditioningConfig) -> tuple[str, ...] | str:
    """Put LoRA with hooks for gates into a transformers model, in place. PEFT draws from torch's global generator.

    Returns:
        The names of target modules that were used.

    Raises:
        InputError: the model has LoRA layers already, none of the modules is there, or one of them is no linear layer
            or makes the logits.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    from transformers.pytorch_utils import Conv1D

    if lora_layers(base, adapter=None):
        raise InputError("the base model has LoRA layers already; merge them first (merge_and_unload in PEFT)")
    targets = config.target_modules
    if targets is None:
        model_type = getattr(getattr(base, "config", None), "model_type", "")
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type)
        targets = known if isinstance(known, str) else tuple(known) if known else "all-linear"
    lora_config = LoraConfig(
        r=config.rank,
        lora_alpha=config.lora_alpha * config.rank / config.lora_rank,  # type: ignore[arg-type]  # annotated as an integer, used as a number
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),
        task_type="CAUSAL_LM",
    )
    head = base.get_output_embeddings()
    try:
        inject_adapter_in_model(lora_config, base, adapter_name=ADAPTER)
    except ValueError as error:
        shown = targets if isinstance(targets, str) else ", ".join(targets)
        raise InputError(f"target_modules {shown}: {str(error).splitlines()[0]}") from None
    if hasattr(base, "peft_config"):
        del base.peft_config  # the wrapper owns the adapter; transformers' own adapter methods must not find it
    for number, (name, layer) in enumerate(lora_layers(base).items()):
        if ADAPTER not in layer.lora_A or layer.get_base_layer() is head:
            raise InputError(f"target_modules: {name} is no linear layer inside the model, which gates need")
        layer.lora_A[ADAPTER].register_forward_hook(partial(_multiply, number))
    return targets


def _multiply(number: int, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
    """(B, T, r) times the gates (B, 1, r) of the layer with this number, where there are gates."""
    gates = _GATES.get()
    return None if gates is None else output * gates[number].to(output.dtype)


def lora_layers(base: nn.Module, adapter: str | None = ADAPTER) -> dict[str, Any]:
    """The L layers with an adapter, by name, in the order of their gates; None for adapters of any name."""
    from peft.tuners.lora import LoraLayer

    def ours(module: LoraLayer) -> bool:
        return adapter is None or adapter in module.lora_A or adapter in module.lora_embedding_A

    return {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer) and ours(module)}


@contextlib.contextmanager
def without_lora(base: nn.Module) -> Iterator[None]:
    """Leave the adapters out; exactly the base model's arithmetic."""
    layers = lora_layers(base).values()
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            # Not layer.enable_adapters: it also freezes and unfreezes parameters.
            layer._disable_adapters = True
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            layer._disable_adapters = state


def weight_change(layer: Any, gates: Tensor | None = None) -> Tensor:
    """What the adapter adds to the layer's weight: (alpha / r) B diag(g) A.

    Args:
        layer: one of :func:`lora_layers`.
        gates: (r,), or None for gates of 1.

    Returns:
        Float32, shaped and oriented as ``layer.get_base_layer().weight``: (in, out) in GPT-2.
    """
    down, up = layer.lora_A[ADAPTER].weight.float(), layer.lora_B[ADAPTER].weight.float()
    if gates is not None:
        up = up * gates.float()
    change = layer.scaling[ADAPTER] * (up @ down)
    return change.T if getattr(layer, "fan_in_fan_out", False) else change


@torch.no_grad()
def remove_lora(base: nn.Module, *, gates: Tensor | None = None, fold: bool = False) -> None:
    """Put the plain layers back, in place; ``fold`` adds the adapters' changes to their weights first.

    A folded weight is a new parameter: others that share its old storage do not change.

    Args:
        base: a model from :func:`inject_lora`.
        gates: (L, r), or None for gates of 1.
        fold: see above.

    Raises:
        InputError: a weight is quantised and cannot be added to.
    """
    from peft.tuners.lora import Linear

    for number, (name, layer) in enumerate(lora_layers(base).items()):
        plain = layer.get_base_layer()
        if fold:
            if not isinstance(layer, Linear):
                raise InputError(
                    f"{name}: cannot merge into a {type(plain).__name__}; load the base without quantisation"
                )
            change = weight_change(layer, None if gates is None else gates[number])
            plain.weight = nn.Parameter((plain.weight.float() + change).to(plain.weight.dtype), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, plain)
