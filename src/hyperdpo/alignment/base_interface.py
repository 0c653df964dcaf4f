"""What trainers ask of a transformers model, answered by the base model inside a wrapper."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hyperdpo.alignment.conditioned_lora import recomputation_contexts


class BaseInterface(nn.Module):
    """A module around a transformers model, its :attr:`base`, that trainers and ``generate`` take for one."""

    base: Any

    @property
    def config(self) -> Any:
        """The base model's configuration."""
        return self.base.config

    @property
    def generation_config(self) -> Any:
        """The base model's settings of generation."""
        return self.base.generation_config

    @property
    def device(self) -> torch.device:
        """Where token ids are to be."""
        device: torch.device = self.base.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The base model's type of numbers; what is trained is float32."""
        dtype: torch.dtype = self.base.dtype
        return dtype

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        # Its old name warns from transformers 5.23 on.
        new = getattr(self.base, "is_activation_checkpointing", None)
        return bool(self.base.is_gradient_checkpointing if new is None else new)

    def get_input_embeddings(self) -> nn.Module:
        """The base model's."""
        module: nn.Module = self.base.get_input_embeddings()
        return module

    def get_output_embeddings(self) -> nn.Module:
        """The base model's."""
        module: nn.Module = self.base.get_output_embeddings()
        return module

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        """Keep no activations inside layers; compute them again, at the same w, in the backward pass.

        Args:
            gradient_checkpointing_kwargs: for ``torch.utils.checkpoint``; ``use_reentrant`` is always False, as the
                gates reach the layers from outside.
            settings: for the base model's method.
        """
        chosen = {**(gradient_checkpointing_kwargs or {}), "use_reentrant": False, "context_fn": recomputation_contexts}
        enable = getattr(self.base, "activation_checkpointing_enable", self.base.gradient_checkpointing_enable)
        enable(chosen, **settings)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        """The name that transformers gives :meth:`gradient_checkpointing_enable` from 5.23 on."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, **settings)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        getattr(self.base, "activation_checkpointing_disable", self.base.gradient_checkpointing_disable)()

    activation_checkpointing_disable = gradient_checkpointing_disable
