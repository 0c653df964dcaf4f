"""Base models: where they are (a directory, a GGUF file or a name on the hub), and what is known of their tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hyperdpo.alignment.gguf_models import gguf_file, load_gguf_model, load_gguf_tokenizer, origin_of_file
from hyperdpo.alignment.model_settings import HOW
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What a name on the hub looks like; anything else is a path.
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
#: Timeout for the hub, in seconds.
HUB_SECONDS = 10


def check_base(base_model: str | PathLike[str]) -> None:
    """Say at once what could be seen at once: a path that is not there, a hub that cannot be reached.

    transformers takes a path that is not there for a name on the hub, and asks for a name for a minute where there is
    no connection.

    Raises:
        InputError: neither a directory, nor a name that is known here or that the hub may know.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError
    from transformers import CONFIG_NAME

    name = str(base_model)
    if Path(name).exists():
        return
    if isinstance(base_model, PathLike) or not HUB_NAME.fullmatch(name):
        raise InputError(
            f"base model {name}: no such directory; expected a local checkpoint, a GGUF file or a hub name"
        )
    if isinstance(try_to_load_from_cache(name, CONFIG_NAME), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, CONFIG_NAME), timeout=HUB_SECONDS)
    except (HfHubHTTPError, ValueError):
        return  # it has an answer; what it is, transformers says
    except Exception as error:  # of the connection; they have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"base model {name}: no such directory, and the hub cannot be asked for it ({reason}); expected a local "
            "checkpoint, or a connection"
        ) from None


def load_base(base_model: Any, **model_settings: Any) -> Any:
    """A transformers causal language model from its name, directory or GGUF file; a model is returned as it is.

    Args:
        base_model: also ``{"gguf_file": PATH}``, see :mod:`hyperdpo.alignment.gguf_models`.

    Raises:
        InputError: there is none.
    """
    if isinstance(base_model, nn.Module):
        return base_model
    file = gguf_file(base_model)
    if file is not None:
        return load_gguf_model(file, **model_settings)
    from transformers import AutoModelForCausalLM

    if set(model_settings) <= set(HOW):  # revision or cache_dir: where to look is then another question
        check_base(base_model)
    try:
        return AutoModelForCausalLM.from_pretrained(str(base_model), **model_settings)
    except Exception as error:  # hub, file and format errors have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"base model {base_model}: cannot be loaded ({reason})") from None


@contextmanager
def attending_by(implementation: str | None, base: Any) -> Iterator[None]:
    """A context in which a base has another attention, see ``model_settings.training_attention``.

    Args:
        implementation: None leaves the base's own.

    Raises:
        InputError: the base does not have it, or its attention cannot be changed once it is loaded.
    """
    own = base.config._attn_implementation
    if implementation in (None, own):
        yield
        return
    reason = f"this model keeps {own}"
    try:
        base.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:200]
    if base.config._attn_implementation == own:  # transformers only warns of a model that cannot change it
        raise InputError(
            f"model_settings.training_attention is {implementation!r}; expected an attention that the model has, such "
            f"as eager or sdpa ({reason})"
        )
    try:
        yield
    finally:
        base.set_attn_implementation(own)


def model_type_of(base_model: str | PathLike[str]) -> str:
    """The architecture of a base, as transformers names it, from its name, directory or GGUF file.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoConfig

    file = gguf_file(base_model)
    try:
        if file is not None:
            origin_of_file(file)
            return str(AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name).model_type)
        check_base(base_model)
        return str(AutoConfig.from_pretrained(str(base_model)).model_type)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"base model {base_model}: no configuration there ({reason}); expected one") from None


def tokenizer_of(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, or of its name, directory or GGUF file.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    named = isinstance(model, str | PathLike | Mapping)
    name = model if named else model.config._name_or_path
    file = gguf_file(name)
    if file is not None:
        found: PreTrainedTokenizerBase = load_gguf_tokenizer(file)
        return found
    if named:
        check_base(name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # those of the tokenizers library have no class of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: no tokenizer that can be read there ({reason}); expected one") from None
    return tokenizer


def first_token(base: Any) -> int | None:
    """The id that begins a text, or ends the one before it; None if the configuration has neither."""
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(base.config.get_text_config(), name, None)
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        if value is not None and 0 <= value < base.get_input_embeddings().weight.shape[0]:
            return int(value)
    return None


def special_tokens(base: Any) -> Iterator[int]:
    """Ids that begin, end or pad a text."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(base.config, name, None)
        yield from value if isinstance(value, (list, tuple)) else [] if value is None else [value]


def position_limit(base: Any) -> int | None:
    """How many positions have a learned embedding; None if positions are computed, as in Llama."""
    limit = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    words = base.get_input_embeddings()
    tables = (one for one in base.modules() if isinstance(one, nn.Embedding) and one is not words)
    # OPT's table has two entries more.
    return int(limit) if limit and any(0 <= table.num_embeddings - limit <= 2 for table in tables) else None


def longest_text(model: Any, wanted: int | None) -> int | None:
    """How many tokens a prompt and its response may have: what is asked for, if there are positions for it.

    Args:
        model: a :class:`~hyperdpo.alignment.model.ConditionedLM`.
        wanted: None for as many as there are positions.

    Raises:
        InputError: there are not enough positions.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return wanted
    limit = int(positions) - model.conditioning.prompt_tokens
    if wanted is not None and wanted > limit:
        raise InputError(
            f"max_length is {wanted}; the model has {positions} positions and {model.conditioning.prompt_tokens} "
            f"virtual tokens, expected at most {limit}"
        )
    return limit if wanted is None else wanted
