"""The language model of a server: its adapter, its tokenizer, and how prompts become tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.sampling import end_tokens
from hyperdpo.alignment.special_tokens import prompt_ids
from hyperdpo.errors import InputError


@dataclass(frozen=True)
class LanguageModel:
    """What answers.

    Attributes:
        name: as requests call it.
        context: tokens that a prompt and its answer have together; None for no limit.
        ends: ids that end a text.
    """

    name: str
    model: ConditionedLM
    tokenizer: Any
    context: int | None
    ends: frozenset[int]

    @classmethod
    def load(cls, path: Path, base_model: str | None = None, *, device: str = "cpu") -> LanguageModel:
        """A run of ``hyperdpo align fit``, or a directory that ``save_pretrained`` wrote.

        Raises:
            InputError: neither is there, its files do not agree, or there is no tokenizer.
        """
        from hyperdpo.serving.export.language_model import load_source

        model, tokenizer = load_source(path, base_model)
        if tokenizer is None:
            raise InputError(f"{path}: no tokenizer there, nor beside its base model; expected one")
        return cls.of(path.resolve().name, model.to(device), tokenizer)

    @classmethod
    def of(cls, name: str, model: ConditionedLM, tokenizer: Any) -> LanguageModel:
        """A model in memory."""
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        context = None if positions is None else int(positions) - model.conditioning.prompt_tokens
        return cls(name, model.eval(), tokenizer, context, frozenset(end_tokens(model, tokenizer)))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The m names, in the order of the weights."""
        return self.model.conditioning.objectives

    @property
    def vocabulary(self) -> int:
        """Tokens that the model has an embedding for."""
        weight: Any = self.model.get_input_embeddings().weight
        return int(weight.shape[0])

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.tokenizer.get_vocab()))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, up to where the answer begins.

        The tokenizer's chat template is used. Without one, the messages' contents stand under each other, without
        roles.

        Raises:
            InputError: the template does not take these messages.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            return self.text("\n".join(message["content"] for message in messages))
        try:
            return prompt_ids(self.tokenizer, [[dict(message) for message in messages]])[0]
        except InputError as error:
            raise InputError(f"messages: {error}") from None

    def text(self, prompt: str) -> list[int]:
        """The tokens of a text that is to be continued."""
        return prompt_ids(self.tokenizer, [prompt])[0]
