"""The base's scores of a data set, kept on disk: they depend on neither w nor the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from hyperdpo.alignment.batches import TokenGroup
from hyperdpo.alignment.evaluation import base_scores
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors


def kept_base_scores(
    model: ConditionedLM,
    groups: Sequence[TokenGroup],
    pad_token_id: int,
    device: torch.device | str = "cpu",
    *,
    path: Path,
    write: bool = True,
) -> list[np.ndarray]:
    """(n,) scores of each group under the base: from a file, if it is of this base and these groups, or computed.

    Args:
        path: of the file; one that is damaged or of other data is replaced.
        write: False for the processes that leave this to another one.
    """
    told = {"base": base_print(model.base), "groups": _print_of(groups)}
    if path.exists():
        try:
            tensors, header = read_tensors(path)
        except InputError:
            tensors, header = {}, None
        if header == told:
            sizes = [len(group.completion_ids) for group in groups]
            return list(np.split(tensors["scores"].numpy(), np.cumsum(sizes)[:-1]))
    found = base_scores(model, groups, pad_token_id, device)
    if write:
        write_tensors(path, {"scores": torch.from_numpy(np.concatenate(found).astype(np.float32))}, told)
    return found


def base_print(base: torch.nn.Module) -> str:
    """Of a model's shape and of its embeddings, which differ between checkpoints."""
    shape = json.dumps(base.config.to_diff_dict(), sort_keys=True, default=str)  # type: ignore[union-attr,operator]
    digest = xxhash.xxh3_128(shape.encode())
    weight = base.get_input_embeddings().weight  # type: ignore[operator]
    digest.update(weight.detach().float().cpu().numpy().tobytes())
    return str(digest.hexdigest())


def _print_of(groups: Sequence[TokenGroup]) -> str:
    digest = xxhash.xxh3_128()
    for group in groups:
        digest.update(json.dumps([group.prompt_ids, group.completion_ids]).encode())
    return str(digest.hexdigest())
