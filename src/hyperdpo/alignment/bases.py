"""Where base models and adapters come from: a directory, or a name on the hub."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from hyperdpo.errors import InputError

#: What a name on the hub looks like; anything else is a path.
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
#: Within which the hub has to answer.
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
        raise InputError(f"base model {name}: no such directory; expected a local checkpoint or a hub name")
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


def adapter_directory(name: str | Path) -> Path:
    """A directory, or where the files of an adapter on the hub are after they were fetched.

    Raises:
        InputError: the hub has no such adapter, or cannot be asked.
    """
    path = Path(name)
    if isinstance(name, Path) or path.exists() or name.count("/") != 1 or not HUB_NAME.fullmatch(name):
        return path
    import huggingface_hub

    from hyperdpo.alignment.adapters import CONFIG, TENSORS

    try:
        found = huggingface_hub.snapshot_download(name, allow_patterns=[TENSORS, CONFIG], etag_timeout=HUB_SECONDS)
    except Exception as error:  # of the connection or the hub; they have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"adapter {name}: no such directory, and the hub does not give it ({reason}); expected what "
            "save_pretrained wrote, or a name on the hub"
        ) from None
    return Path(found)


def load_base(base_model: Any, **model_settings: Any) -> Any:
    """A transformers causal language model from its name or directory; a model is returned as it is.

    Raises:
        InputError: there is none.
    """
    if isinstance(base_model, nn.Module):
        return base_model
    from transformers import AutoModelForCausalLM

    if not model_settings:  # such as revision or cache_dir: where to look is then another question
        check_base(base_model)
    try:
        return AutoModelForCausalLM.from_pretrained(str(base_model), **model_settings)
    except Exception as error:  # hub, file and format errors have no common class
        if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "SafetensorError":
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"base model {base_model}: cannot be loaded ({reason})") from None
