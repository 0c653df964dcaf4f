"""The base's scores of a data set, kept on disk: they depend on neither w nor the training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

from hyperdpo.alignment.base_identity import base_tensors
from hyperdpo.alignment.collation import TokenGroup
from hyperdpo.alignment.evaluation import base_scores
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator


def kept_base_scores(
    model: ConditionedLM,
    groups: Sequence[TokenGroup],
    pad_token_id: int,
    device: torch.device | str = "cpu",
    *,
    path: Path,
    write: bool = True,
    accelerator: Accelerator | None = None,
    ld_alpha: float | None = None,
) -> list[np.ndarray]:
    """(n,) scores of each group under the base: from a file, if it is of this base and these groups, or computed.

    Args:
        path: of the file; one that is damaged or of other data is replaced.
        write: False for the processes that leave this to another one.
        accelerator: of the training, in whose precision the base is scored; None: in the model's own.
        ld_alpha: as of :func:`~hyperdpo.alignment.evaluation.row_logps`.
    """
    told: dict[str, Any] = {
        "base": base_print(model.base),
        "groups": _print_of(groups),
        "precision": "no" if accelerator is None else str(accelerator.mixed_precision),
    }
    if ld_alpha is not None:
        told["ld_alpha"] = ld_alpha
    if path.exists():
        try:
            tensors, header = read_tensors(path)
        except InputError:
            tensors, header = {}, None
        if header == told:
            sizes = [len(group.completion_ids) for group in groups]
            return list(np.split(tensors["scores"].numpy(), np.cumsum(sizes)[:-1]))
    with contextlib.nullcontext() if accelerator is None else accelerator.autocast():
        found = base_scores(model, groups, pad_token_id, device, ld_alpha)
    if write:
        write_tensors(path, {"scores": torch.from_numpy(np.concatenate(found).astype(np.float32))}, told)
    return found


def base_print(base: torch.nn.Module) -> str:
    """A hash of a model's configuration, parameters and buffers, without an adapter that was put into it.

    Only what a checkpoint holds counts: other buffers, such as those of rotary positions, follow from the
    configuration. About a tenth of a second for each GB on a CPU.
    """
    shape = json.dumps(base.config.to_diff_dict(), sort_keys=True, default=str)  # type: ignore[union-attr,operator]
    digest = xxhash.xxh3_128(shape.encode())
    for name, tensor in base_tensors(base):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:  # put off to disk or another place: its name and shape have to do
            plain = tensor.detach().contiguous().cpu()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return str(digest.hexdigest())


def _print_of(groups: Sequence[TokenGroup]) -> str:
    digest = xxhash.xxh3_128()
    for group in groups:
        digest.update(json.dumps([group.prompt_ids, group.completion_ids]).encode())
    return str(digest.hexdigest())
