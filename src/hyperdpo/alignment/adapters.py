"""Adapters on disk and on the hub: what was added to a base model, without it."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from hyperdpo._version import __version__
from hyperdpo.alignment.base_identity import base_identity, check_same_base
from hyperdpo.alignment.bases import HUB_NAME, HUB_SECONDS, load_base
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.checksums import damaged
from hyperdpo.errors import InputError, brief
from hyperdpo.files import read_sealed, read_tensors, write_json, write_tensors
from hyperdpo.runs import RUN

TENSORS, CONFIG = "adapter.safetensors", "hyperdpo_config.json"

#: Version of the two files; another one is refused. 2 has no checksums.
FORMAT_VERSION = 3
READABLE_VERSIONS = (2, FORMAT_VERSION)


def adapter_directory(name: str | Path) -> Path:
    """A directory, or where the files of an adapter on the hub are after they were fetched.

    Raises:
        InputError: the hub has no such adapter, or cannot be asked.
    """
    path = Path(name)
    if isinstance(name, Path) or path.exists() or name.count("/") != 1 or not HUB_NAME.fullmatch(name):
        return path
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(name, allow_patterns=[TENSORS, CONFIG], etag_timeout=HUB_SECONDS)
    except Exception as error:  # of the connection or the hub; they have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"adapter {name}: no such directory, and the hub does not give it ({reason}); expected what "
            "save_pretrained wrote, or a name on the hub"
        ) from None
    return Path(found)


def save_adapter(directory: Path, config: ConditioningConfig, state: dict[str, Tensor], base: Any) -> None:
    """Write both files, each under a temporary name first, then renamed.

    Args:
        state: the tensors that were added, by name.
        base: the base model.

    Raises:
        InputError: the place cannot be written to.
    """
    name = str(getattr(base.config, "_name_or_path", "") or "")
    # The tensors' file repeats the configuration: two files of different runs are then noticed.
    head = {"format_version": FORMAT_VERSION, "conditioning": config.to_dict()}
    write_tensors(directory / TENSORS, state, head)
    write_json(
        directory / CONFIG,
        {
            "format_version": FORMAT_VERSION,
            "base_model": str(Path(name).resolve()) if name and Path(name).exists() else name,
            "base_shape": _shape(base.config),
            "base_fingerprint": base_identity(base),
            "conditioning": head["conditioning"],
            "versions": {"hyperdpo": __version__, **{n: version(n) for n in ("torch", "transformers", "peft")}},
        },
        sealed=True,
    )


def load_adapter(
    directory: Path, base_model: Any = None, **model_settings: Any
) -> tuple[Any, ConditioningConfig, dict[str, Tensor]]:
    """The base, the configuration and the tensors that :func:`save_adapter` wrote.

    Raises:
        InputError: as of :meth:`hyperdpo.alignment.model.ConditionedLM.from_pretrained`.
    """
    path = directory / CONFIG
    saved = read_config(directory)
    try:
        config = ConditioningConfig.from_dict(saved["conditioning"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    state, header = read_tensors(directory / TENSORS)
    if not isinstance(header, dict) or header.get("conditioning") != saved["conditioning"]:
        raise InputError(
            f"{directory / TENSORS}: written with another configuration than {CONFIG}; copy both from one save"
        )
    if base_model is None and not saved.get("base_model"):
        raise InputError(f"{path}: the base model had no name when this was saved; pass base_model")
    base = load_base(saved["base_model"] if base_model is None else base_model, **model_settings)
    found, expected = _shape(base.config), saved.get("base_shape", {})
    for name, value in expected.items():
        if found.get(name) != value:
            raise InputError(f"{path}: made for a base model with {name} {value}; found {found.get(name)}")
    check_same_base(base, saved.get("base_fingerprint"), str(path))
    return base, config, state


def read_config(directory: Path) -> dict[str, Any]:
    """The content of ``hyperdpo_config.json``, of a version that can be read and with a ``conditioning``.

    Raises:
        InputError: there is no such file, or it is damaged or of another kind.
    """
    path = directory / CONFIG
    saved, intact = read_sealed(path)
    if not isinstance(saved, dict) or "format_version" not in saved:
        raise InputError(f"{path}: no format_version; expected a file that save_pretrained wrote")
    if saved["format_version"] not in READABLE_VERSIONS:
        raise InputError(
            f"{path}: format_version is {brief(saved['format_version'])}; hyperdpo {__version__} reads "
            f"{READABLE_VERSIONS[0]} to {FORMAT_VERSION}"
        )
    if saved["format_version"] == FORMAT_VERSION and not intact:
        raise damaged(path)
    if not intact and not (directory / RUN).is_file():  # a run says it itself
        warnings.warn(f"{directory}: written without checksums; `hyperdpo check {directory}` adds them", stacklevel=2)
    if not isinstance(saved.get("conditioning"), dict):
        raise InputError(f"{path}: no conditioning, expected a file that save_pretrained wrote")
    return saved


def _shape(config: Any) -> dict[str, Any]:
    """What a base model must have in common with the one an adapter was trained on."""
    text = config.get_text_config()
    names = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    return {name: getattr(text, name, None) for name in names}
