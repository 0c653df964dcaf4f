"""A causal language model conditioned on the weights w: a frozen base, with LoRA and virtual tokens that depend on w.

One wrapper owns them all, so that leaving them out, saving, loading, merging and gradient checkpointing treat them as
one. Shapes: B rows, T tokens, V vocabulary, m objectives, k virtual tokens, L layers with LoRA, r rank, d width.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.utils import ModelOutput

from hyperdpo.alignment.adapters import TENSORS, adapter_directory, load_adapter, save_adapter
from hyperdpo.alignment.base_interface import BaseInterface
from hyperdpo.alignment.bases import first_token, load_base, position_limit, special_tokens
from hyperdpo.alignment.conditioned_lora import (
    ADAPTER,
    RankGates,
    inject_lora,
    lora_layers,
    remove_lora,
    use_gates,
    without_lora,
)
from hyperdpo.alignment.conditioning import ConditioningConfig, Weights, weight_rows
from hyperdpo.alignment.generation import generate
from hyperdpo.alignment.logps import OutputHead, logps_and_tails
from hyperdpo.alignment.prompt import HyperPrompt, beginning_prefix, vocabulary_prefix
from hyperdpo.errors import InputError

__all__ = ["Condition", "ConditionedLM", "ConditioningConfig", "LogpsOutput", "Responses"]


@dataclass(frozen=True)
class Condition:
    """What w has become: all that a forward pass needs to know of it.

    Attributes:
        prefix: (B, k, d) or (1, k, d), the virtual tokens; None if the model has none.
        gates: (L, B, r) or (L, 1, r); None for gates of 1.
    """

    prefix: Tensor | None
    gates: Tensor | None

    @property
    def prompt_tokens(self) -> int:
        """k."""
        return 0 if self.prefix is None else self.prefix.shape[1]


@dataclass(frozen=True)
class Responses:
    """Responses apart from their prompts.

    Attributes:
        ids: (B, T), padded on the right.
        mask: (B, T), 1 on tokens.
        owner: (B,), the prompt of each.
    """

    ids: Tensor
    mask: Tensor
    owner: Tensor


@dataclass
class LogpsOutput(ModelOutput):
    """The output for a ``completion_mask``: ``logps`` (B,) float32, and ``tail_logps`` for ``shared_tokens``."""

    logps: Tensor | None = None
    tail_logps: Tensor | None = None


class ConditionedLM(BaseInterface):
    """A frozen transformers model with LoRA, virtual tokens or both, as functions of w. Made by :meth:`create`.

    ``model(input_ids, attention_mask, weights)`` gives the base model's output, aligned with the input: the positions
    of the virtual tokens are cut away. Each row may have weights of its own.

    Attributes:
        base: the transformers model, with LoRA injected. Called by itself it runs plain LoRA without prompt: use the
            wrapper, or :meth:`base_only`.
        conditioning: its :class:`ConditioningConfig`; target modules are those that were found.
        prompt, gates: the two functions of w, or None.
        lora_names: the L layers with LoRA, in the order of the gates.
        head: last hidden states (..., d) -> logits (..., V).
    """

    def __init__(self, base: Any, config: ConditioningConfig, prompt: HyperPrompt | None, gates: RankGates | None):
        super().__init__()
        self.base, self.conditioning, self.prompt, self.gates = base, config, prompt, gates
        self.lora_names = tuple(lora_layers(base))
        self.head = OutputHead(base)
        self._base_only = 0
        self._positions = position_limit(base)

    @classmethod
    def create(cls, base_model: Any, config: ConditioningConfig, seed: int = 0, **model_settings: Any) -> ConditionedLM:
        """Put a new adapter around a model.

        Args:
            base_model: a transformers causal language model, which is changed in place and frozen; or a hub name or
                a directory that ``AutoModelForCausalLM.from_pretrained`` reads.
            config: what is conditioned, and how it starts.
            seed: of all starting values; the caller's random state is left alone.
            model_settings: for ``from_pretrained``: dtype, device_map, ...

        Raises:
            InputError: no such model, no such target modules, or it has LoRA layers already.
        """
        base = load_base(base_model, **model_settings)
        embedding = base.get_input_embeddings()
        device = embedding.weight.device
        base.requires_grad_(False)
        prompt = gates = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if config.prompt_tokens:
                special = frozenset(special_tokens(base))
                generator = torch.Generator().manual_seed(seed)
                first = first_token(base) if config.prompt_start == "bos" else None
                if first is None:
                    prefix = vocabulary_prefix(embedding, config.prompt_tokens, generator, special).cpu()
                else:
                    prefix = beginning_prefix(embedding, config.prompt_tokens, generator, first)
                prompt = HyperPrompt(config, prefix).to(device)
            if config.lora_rank:
                config = replace(config, target_modules=inject_lora(base, config))
                for layer in lora_layers(base).values():
                    for part in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
                        # Steps of Adam are lost in half precision; PEFT's own models keep adapters in float32 too.
                        part.float()
                if config.lora_conditioned:
                    gates = RankGates(config, len(lora_layers(base))).to(device)
        return cls(base, config, prompt, gates).eval()

    @classmethod
    def from_pretrained(cls, directory: str | Path, base_model: Any = None, **model_settings: Any) -> ConditionedLM:
        """Load what :meth:`save_pretrained` wrote.

        Args:
            directory: it holds ``adapter.safetensors`` and ``hyperdpo_config.json``; or, as text, a name on the hub
                such as ``somebody/adapter``.
            base_model: as for :meth:`create`; None for the one whose name was saved.
            model_settings: as for :meth:`create`.

        Raises:
            InputError: a file is missing, truncated or of another version, the base model is not there, or the adapter
                does not fit it.
        """
        place = adapter_directory(directory)
        base, config, state = load_adapter(place, base_model, **model_settings)
        model = cls.create(base, config)
        try:
            model.load_adapter_state(state)
        except InputError as error:
            raise InputError(f"{place / TENSORS}: {error}") from None
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``adapter.safetensors`` and ``hyperdpo_config.json``, each whole or not at all; not the base model.

        Raises:
            InputError: the place cannot be written to.
        """
        save_adapter(Path(directory), self.conditioning, self.adapter_state(), self.base)

    # The forward pass

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        weights: Weights | None = None,
        position_ids: Tensor | None = None,
        completion_mask: Tensor | None = None,
        responses: Responses | None = None,
        shared_tokens: Tensor | None = None,
        **settings: Any,
    ) -> Any:
        """The model's output at the weights of each row.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 on padding, left or right; None for no padding.
            weights: (m,) for all rows, or (B, m). Not needed if nothing is conditioned, or in :meth:`base_only`.
            position_ids: (B, T), counted from 0 as if there were no prompt; None to count from the mask.
            completion_mask: (B, T), 1 on responses. If it is given, the output is a
                :class:`LogpsOutput`: the responses' log-probabilities, made without a whole batch's logits.
            responses: of prompts ``input_ids`` (G, T), padded on the right, each with its own weights; then the output
                is a :class:`LogpsOutput`, and a prompt is computed once for all its responses.
            shared_tokens: as of :func:`~hyperdpo.alignment.logps.logps_and_tails`.
            settings: for the base model's forward; ``labels`` (B, T) and ``logits_to_keep`` count without the prompt.

        Returns:
            As the base model: logits (B, T, V), aligned with ``input_ids``.

        Raises:
            InputError: weights are missing or wrong, or the text and the prompt are longer than learned positions.
        """
        if settings.get("past_key_values") is not None:
            raise InputError("past_key_values: the prompt takes places in the cache; decode with model.generate")
        settings.setdefault("use_cache", False)
        condition = self.condition(weights, len(input_ids))
        k = condition.prompt_tokens
        inputs = self._inputs(condition, input_ids, attention_mask, position_ids)
        labels = settings.pop("labels", None)
        if labels is not None:
            # Without the first token, which no token of the text predicts.
            settings["labels"] = nn.functional.pad(labels[:, 1:], (k + 1, 0), value=-100)
        kept = settings.get("logits_to_keep", 0)
        if isinstance(kept, Tensor):
            settings["logits_to_keep"] = kept + k
        if responses is not None:
            return LogpsOutput(**self._response_logps(condition, inputs, responses, shared_tokens))
        with use_gates(condition.gates):
            if completion_mask is not None:
                hidden = self.base.base_model(**inputs, **settings).last_hidden_state[:, k:]
                # Nothing else: accelerate turns all that comes out into float32.
                read = (hidden, input_ids, completion_mask, self.head)
                return LogpsOutput(**logps_and_tails(*read, shared_tokens=shared_tokens))
            outputs = self.base(**inputs, **settings)
        if not isinstance(kept, Tensor):
            outputs.logits = outputs.logits[:, -min(kept, input_ids.shape[1]) :] if kept else outputs.logits[:, k:]
        if k and getattr(outputs, "hidden_states", None) is not None:
            outputs.hidden_states = tuple(states[:, k:] for states in outputs.hidden_states)
        return outputs

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, weights: Weights | None = None
    ) -> Tensor:
        """(B, T, d), the last hidden states, aligned with the input: what :attr:`head` makes logits of.

        Arguments and errors as of :meth:`forward`.
        """
        condition = self.condition(weights, len(input_ids))
        k = condition.prompt_tokens
        inputs = self._inputs(condition, input_ids, attention_mask, None)
        with use_gates(condition.gates):
            hidden: Tensor = self.base.base_model(**inputs, use_cache=False).last_hidden_state[:, k:]
        return hidden

    def _response_logps(
        self,
        condition: Condition,
        inputs: dict[str, Tensor | None],
        responses: Responses,
        shared_tokens: Tensor | None,
    ) -> dict[str, Tensor]:
        """(B,) log-probabilities of responses that go on from the cache of their prompts."""
        owner, length = responses.owner, responses.ids.shape[1]
        mask, positions = inputs["attention_mask"], inputs["position_ids"]
        assert mask is not None
        assert positions is not None
        ends = mask.long().sum(-1) - 1  # (G,) of the last real token, the virtual ones counted
        k = condition.prompt_tokens
        if int(ends.min()) < k:
            raise InputError(f"prompt {int(ends.argmin())}: no tokens; expected a prompt of at least one token")
        cache = DynamicCache(config=self.base.config)
        with use_gates(condition.gates):
            hidden = self.base.base_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
        self.check_length(int(ends.max()) + 1 - k + length, k)
        cache.batch_select_indices(owner)
        gates = condition.gates
        if gates is not None and gates.shape[1] > 1:
            gates = gates[:, owner]
        later = ends[owner, None] + 1 + torch.arange(length, device=owner.device)
        with use_gates(gates):
            states = self.base.base_model(
                input_ids=responses.ids,
                attention_mask=torch.cat((mask[owner], responses.mask.to(mask.dtype)), 1),
                position_ids=later,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=ends.device), ends]  # it predicts the first token
        states = torch.cat((last[owner, None], states[:, :-1]), 1)
        ids = nn.functional.pad(responses.ids, (1, 0))
        counted = nn.functional.pad(responses.mask.long(), (1, 0))
        states = torch.cat((states, states[:, -1:]), 1)  # what stands last predicts nothing
        return logps_and_tails(states, ids, counted, self.head, shared_tokens=shared_tokens)

    def condition(self, weights: Weights | None, rows: int) -> Condition:
        """The virtual tokens and the gates at these weights; nothing in :meth:`base_only`.

        Args:
            weights: (m,) or (B, m); not needed if nothing is conditioned.
            rows: B.

        Raises:
            InputError: weights are missing or wrong.
        """
        if self._base_only:
            return Condition(None, None)
        given = None
        if self.conditioning.is_conditioned:
            given = weight_rows(weights, len(self.conditioning.objectives), rows, self.device)
        prefix = None if self.prompt is None else self.prompt(given)
        return Condition(prefix, None if self.gates is None else self.gates(given))

    def _inputs(
        self, condition: Condition, input_ids: Tensor, mask: Tensor | None, positions: Tensor | None
    ) -> dict[str, Tensor | None]:
        """Arguments of the base model: the virtual tokens stand first, padding on the left comes after them."""
        if positions is None and mask is not None:
            positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
        k = condition.prompt_tokens
        if self._positions is not None and input_ids.shape[1] + k > self._positions:
            # Padding needs no position of its own.
            self.check_length(input_ids.shape[1] if mask is None else int(mask.sum(-1).max()), k)
        if condition.prefix is None:
            return {"input_ids": input_ids, "attention_mask": mask, "position_ids": positions}
        rows, length = input_ids.shape
        embedded = self.base.get_input_embeddings()(input_ids)
        prefix = condition.prefix.expand(rows, -1, -1).to(embedded.dtype)
        if positions is None:
            positions = torch.arange(length, device=input_ids.device)[None]
        first = torch.arange(k, device=input_ids.device)
        return {
            "inputs_embeds": torch.cat((prefix, embedded), 1),
            "attention_mask": None if mask is None else torch.cat((mask.new_ones(rows, k), mask), 1),
            "position_ids": torch.cat((first.expand(rows, k), positions.expand(rows, length) + k), 1),
        }

    def check_length(self, tokens: int, prompt_tokens: int | None = None) -> None:
        """Raise unless there is a position for each token of a text and of the prompt, where positions are learned.

        Args:
            tokens: of the longest text, without padding.
            prompt_tokens: k; None for this model's.

        Raises:
            InputError: there is not.
        """
        k = self.conditioning.prompt_tokens if prompt_tokens is None else prompt_tokens
        if self._positions is not None and tokens + k > self._positions:
            raise InputError(
                f"a text of {tokens} tokens and {k} virtual tokens: the model has {self._positions} positions, "
                f"expected at most {self._positions - k} tokens"
            )

    @contextlib.contextmanager
    def base_only(self) -> Iterator[None]:
        """Leave everything out that was added: inside, this is the untouched base model, to the last bit."""
        with without_lora(self.base):
            self._base_only += 1
            try:
                yield
            finally:
                self._base_only -= 1

    def generate(self, input_ids: Any, attention_mask: Tensor | None = None, **settings: Any) -> Any:
        """Generate text, see :func:`hyperdpo.alignment.generation.generate`."""
        return generate(self, input_ids, attention_mask, **settings)

    # Models without w

    def merge(self, weights: Weights | None = None, *, share_weights: bool = False) -> tuple[Any, Tensor | None]:
        """The model at one w, as a plain transformers model and a prompt.

        The gates are folded into LoRA, and LoRA into the weights. With the prompt's embeddings before those of the
        text, it computes what this model computes at w, up to rounding.

        Args:
            weights: (m,); None if nothing is conditioned.
            share_weights: do not copy weights that LoRA does not change. Good for a model that is only used; training
                it would change this one.

        Returns:
            The model, and the prompt (k, d), or None if there is none.

        Raises:
            InputError: weights are missing or wrong, more than one row of them, the base is quantised, or everything
                is left out at the moment (:meth:`base_only`).
        """
        if self._base_only:
            raise InputError("merge inside base_only would merge nothing; call it outside")
        with torch.no_grad():
            condition = self.condition(weights, 1)
        plain = self.plain_base(share_weights=share_weights, fold=True, gates=condition.gates)
        if not share_weights:
            plain.requires_grad_(True)
        return plain, None if condition.prefix is None else condition.prefix[0].detach().clone()

    def plain_base(self, *, share_weights: bool = True, fold: bool = False, gates: Tensor | None = None) -> Any:
        """A copy of the base model without LoRA. With shared weights it costs no memory: several adapters, one base.

        Args:
            share_weights: the copy has this model's own (frozen) parameters.
            fold: add LoRA to the weights it belongs to.
            gates: (L, 1, r), to fold with; None for gates of 1.
        """
        tensors = (*self.base.parameters(), *self.base.buffers()) if share_weights else ()
        plain = copy.deepcopy(self.base, {id(tensor): tensor for tensor in tensors})
        remove_lora(plain, gates=None if gates is None else gates[:, 0], fold=fold)
        return plain

    # Parameters

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The trainable parameters by what they are, for learning rates of their own: prefix, mask, lora, gates."""
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = name.partition(".")[0]
                part = {"base": "lora", "prompt": "prefix" if name == "prompt.prefix" else "mask"}.get(part, part)
                found.setdefault(part, []).append(parameter)
        return found

    def num_parameters(self, only_trainable: bool = True) -> int:
        """How many numbers there are to train, or in all."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def adapter_state(self) -> dict[str, Tensor]:
        """All that was added, by name: ``prompt.*``, ``gates.*``, ``lora.LAYER.A`` (r, in) and ``.B`` (out, r)."""
        found: dict[str, Tensor] = {}
        for part, module in (("prompt", self.prompt), ("gates", self.gates)):
            if module is not None:
                found |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        for name, layer in lora_layers(self.base).items():
            found[f"lora.{name}.A"] = layer.lora_A[ADAPTER].weight.detach()
            found[f"lora.{name}.B"] = layer.lora_B[ADAPTER].weight.detach()
        return found

    @torch.no_grad()
    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`adapter_state` gave.

        Raises:
            InputError: a tensor is missing, too much, or of another shape; then nothing is changed.
        """
        mine = self.adapter_state()
        for name in (*mine, *state):
            found = tuple(state[name].shape) if name in state else "nothing"
            expected = tuple(mine[name].shape) if name in mine else "nothing"
            if found != expected:
                raise InputError(f"the adapter does not fit the model: {name}: found {found}, expected {expected}")
        for name, tensor in mine.items():  # they share storage with the parameters
            tensor.copy_(state[name])
