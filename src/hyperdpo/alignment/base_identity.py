"""Which base model an adapter was trained on: hashes of its tensors, so that another one in its place is refused."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import xxhash

from hyperdpo.alignment.conditioned_lora import ADAPTER
from hyperdpo.errors import InputError

#: Parameters of an adapter in a base.
_ADDED = re.compile(rf"\.lora_\w+\.{ADAPTER}(\.|$)")

#: Of weights that are packed.
_QUANTISED = (torch.int8, torch.uint8)


def base_tensors(base: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a base in order, as a checkpoint holds them, without an adapter that was put into it.

    Other buffers than a checkpoint's, such as those of rotary positions, follow from the configuration.
    """
    tensors = {k.replace(".base_layer.", "."): v for k, v in base.state_dict().items() if not _ADDED.search(k)}
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, torch.Tensor):  # some quantised layers keep other things beside them
            yield name, tensor


#: Identities by model, with the addresses and versions of the tensors that they are of.
_known: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, dict[str, str] | None]] = weakref.WeakKeyDictionary()


def base_identity(base: torch.nn.Module) -> dict[str, str] | None:
    """What tells a base from others: ``dtype``, and hashes of names, shapes and bytes of all tensors.

    ``tensors`` is of the tensors as they are, ``rounded`` of them in bfloat16, which is the same in whichever precision
    they were loaded. A few tenths of a second for each GB on a CPU. None for a base that is quantised or not in
    memory.
    """
    tensors = list(base_tensors(base))
    if any(tensor.is_inference() for _, tensor in tensors):  # which do not say when they are changed
        return _identity(tensors)
    state = [(name, tensor.data_ptr(), tensor._version) for name, tensor in tensors]
    if base not in _known or _known[base][0] != state:
        _known[base] = state, _identity(tensors)
    return _known[base][1]


def _identity(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str] | None:
    exact, rounded, kinds = xxhash.xxh3_128(), xxhash.xxh3_128(), set()
    for name, tensor in tensors:
        if tensor.is_meta or tensor.dtype in _QUANTISED:
            return None
        plain = tensor.detach().contiguous().cpu()
        short = plain
        if plain.is_floating_point():
            kinds.add(str(plain.dtype).removeprefix("torch."))
            short = plain.to(torch.bfloat16)
        for digest, values in ((exact, plain), (rounded, short)):
            digest.update(f"{name} {tuple(values.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return {"dtype": ", ".join(sorted(kinds)), "tensors": exact.hexdigest(), "rounded": rounded.hexdigest()}


def check_same_base(base: torch.nn.Module, saved: Any, where: str) -> None:
    """Refuse a base that is not the one an adapter was trained on.

    Args:
        saved: what :func:`base_identity` said of that one; None: an older adapter does not know it.
        where: the file that says it, for the message.

    Raises:
        InputError: it is another one.
    """
    if not isinstance(saved, Mapping):
        return
    found = base_identity(base)
    which = "tensors" if found and found["dtype"] == saved.get("dtype") else "rounded"
    if found is not None and found[which] != saved.get(which):
        name = str(getattr(base.config, "_name_or_path", "") or "this model")
        raise InputError(
            f"{where}: made for another base model than {name}: the tensors differ; restore the base it was trained "
            "on, or name its place with --model (in Python: base_model)"
        )
