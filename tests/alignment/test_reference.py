"""The base's scores on disk: used again for the same base and data, and for nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PLAIN, tiny_base, tiny_model
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment import reference
from hyperdpo.alignment.collation import tokenize_groups
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.evaluation import base_scores


def groups_of(seed: int) -> Any:
    data = read_preferences(rows(5, seed=seed))
    return tokenize_groups(data, to_targets(data, fit_objectives(data, default_objectives(data))), words_tokenizer())


def never(*_: Any, **__: Any) -> Any:
    pytest.fail("scored again")


def test_what_was_scored_is_read_again(tmp_path: Path) -> None:
    model, groups, path = tiny_model(**PLAIN), groups_of(0), tmp_path / "base.safetensors"
    first = reference.kept_base_scores(model, groups, 0, path=path)
    for own, expected in zip(first, base_scores(model, groups, 0), strict=True):
        np.testing.assert_array_equal(own, expected)
    other_adapter = tiny_model(seed=9, **PLAIN)
    for part in other_adapter.modules():
        part.register_forward_pre_hook(never)
    for own, again in zip(first, reference.kept_base_scores(other_adapter, groups, 0, path=path), strict=True):
        np.testing.assert_array_equal(own, again)


@pytest.mark.parametrize("change", ["base", "data", "damaged"])
def test_scores_of_another_base_or_data_and_damaged_ones_are_replaced(tmp_path: Path, change: str) -> None:
    path = tmp_path / "base.safetensors"
    reference.kept_base_scores(tiny_model(**PLAIN), groups_of(0), 0, path=path)
    model = tiny_model(base=tiny_base(seed=5), **PLAIN) if change == "base" else tiny_model(**PLAIN)
    groups = groups_of(1) if change == "data" else groups_of(0)
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    found = reference.kept_base_scores(model, groups, 0, path=path)
    again = reference.kept_base_scores(model, groups, 0, path=path)
    for own, kept, expected in zip(found, again, base_scores(model, groups, 0), strict=True):
        np.testing.assert_array_equal(own, expected)
        np.testing.assert_array_equal(kept, expected)


def test_a_process_that_is_not_to_write_does_not(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    reference.kept_base_scores(tiny_model(**PLAIN), groups_of(0), 0, path=path, write=False)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_is_known_by_every_weight_and_not_by_the_adapter_in_it(kind: str, dtype: torch.dtype) -> None:
    expected = reference.base_print(tiny_base(kind).to(dtype))
    assert reference.base_print(tiny_model(kind, base=tiny_base(kind).to(dtype)).base) == expected
    for name in ("self_attn.q_proj.weight", "norm.weight") if kind == "llama" else ("c_attn.bias", "ln_f.weight"):
        other = tiny_base(kind).to(dtype)
        tensor = next(p for n, p in other.named_parameters() if n.endswith(name))
        with torch.no_grad():
            tensor.view(-1)[0] += 0.5
        assert reference.base_print(other) != expected, name


def test_the_print_tells_precisions_of_the_weights_apart() -> None:
    assert reference.base_print(tiny_base()) != reference.base_print(tiny_base().to(torch.bfloat16))


def test_a_base_with_other_layers_under_the_same_embeddings_is_scored_anew(tmp_path: Path) -> None:
    path, other = tmp_path / "base.safetensors", tiny_base()
    first = reference.kept_base_scores(tiny_model(**PLAIN), groups_of(0), 0, path=path)
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.mul_(-1)
    found = reference.kept_base_scores(tiny_model(base=other, **PLAIN), groups_of(0), 0, path=path)
    assert np.abs(np.concatenate(found) - np.concatenate(first)).max() > 1e-3


def test_scores_of_another_precision_are_replaced(tmp_path: Path) -> None:
    model, path = tiny_model(**PLAIN), tmp_path / "base.safetensors"
    half: Any = SimpleNamespace(mixed_precision="bf16", autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    plain = np.concatenate(reference.kept_base_scores(model, groups_of(0), 0, path=path))
    rounded = np.concatenate(reference.kept_base_scores(model, groups_of(0), 0, path=path, accelerator=half))
    assert 0 < np.abs(rounded - plain).max() < 1
    again = np.concatenate(reference.kept_base_scores(model, groups_of(0), 0, path=path))
    np.testing.assert_array_equal(again, plain)
