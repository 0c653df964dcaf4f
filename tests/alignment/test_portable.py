"""The portable adapter: at any w it is the sum over the objectives of w_j times one plain LoRA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import is_one_line
from tiny_models import MIXED, padded, texts, tiny_base, tiny_model
from toy_preferences import rows

from hyperdpo.alignment.conditioned_lora import lora_layers, weight_change
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.settings import settings_of
from hyperdpo.alignment.sources import kept_prompts
from hyperdpo.comparison.entries import ALIGN_VARIANTS
from hyperdpo.errors import InputError

QUICK = ("--cpu", "--epochs", "1", "--set", "training.per_device_train_batch_size=16")


def portable_model(objectives: tuple[str, ...] = ("a", "b", "c"), **settings: Any) -> ConditionedLM:
    """Random gates and factors, as after a training."""
    model = ConditionedLM.create(tiny_base(), ConditioningConfig.portable(objectives, **settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def changes(model: ConditionedLM, weights: list[float]) -> list[torch.Tensor]:
    """ΔW of every layer."""
    gates = model.condition(weights, 1).gates
    assert gates is not None
    return [weight_change(layer, gates[i, 0]).detach() for i, layer in enumerate(lora_layers(model.base).values())]


@pytest.mark.parametrize("weights", [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
def test_the_change_of_the_weights_is_the_sum_of_the_vertices_changes_times_w(weights: list[float]) -> None:
    model = portable_model()
    vertices = [changes(model, row) for row in torch.eye(3).tolist()]
    for layer, found in enumerate(changes(model, weights)):
        wanted = sum(w * one[layer] for w, one in zip(weights, vertices, strict=True))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        assert found.abs().max() > 0.01


def test_each_vertex_is_lora_of_rank_m_r_on_the_same_inputs() -> None:
    model = portable_model(lora_rank=2)
    ids, mask = padded(texts(), "left")
    assert {layer.lora_A["hyperdpo"].weight.shape[0] for layer in lora_layers(model.base).values()} == {6}
    assert model.prompt is None
    weights = torch.tensor([[0.2, 0.5, 0.3], [0, 1, 0], [1, 0, 0]], dtype=torch.float32)
    together = model(ids, mask, weights=weights).logits
    apart = torch.cat([model(ids[i : i + 1], mask[i : i + 1], weights=weights[i]).logits for i in range(3)])
    torch.testing.assert_close(together[mask == 1], apart[mask == 1], atol=1e-5, rtol=1e-4)


def test_gates_that_are_a_network_of_w_are_no_such_sum() -> None:
    model = tiny_model(prompt_tokens=0, gate_hidden=8)  # its network of w has values
    halves = [0.5 * (a + b) for a, b in zip(changes(model, [1, 0]), changes(model, [0, 1]), strict=True)]
    middle = changes(model, [0.5, 0.5])
    assert max(float((a - b).abs().max()) for a, b in zip(halves, middle, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt_tokens": 8}, "conditioning.prompt_tokens=8"),
        ({"gate_hidden": 64}, "conditioning.gate_hidden=64"),
        ({"lora_conditioned": False}, "conditioning.lora_conditioned=false"),
        ({"lora_rank": 0, "prompt_tokens": 2}, "conditioning.lora_rank=0"),
    ],
)
def test_a_setting_that_makes_it_no_sum_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    config = ConditioningConfig.portable(("a", "b"))
    assert config.not_portable is None
    assert str(replace(config, **change).not_portable).startswith(reason)
    with pytest.raises(InputError) as error:
        ConditioningConfig.portable(("a", "b"), **change)
    assert is_one_line(error.value, reason, "leave it out")
    with pytest.raises(InputError) as error:
        settings_of(None, {"conditioning": change}).portable(("a", "b"))
    assert is_one_line(error.value, "--portable", reason)


def test_other_settings_are_kept() -> None:
    found = settings_of(None, {"conditioning": {"lora_rank": 3, "gate_spread": 0.5}}).portable(("a", "b"))
    assert (found.lora_rank, found.gate_spread, found.gate_hidden, found.prompt_tokens) == (3, 0.5, 0, 0)


def test_the_variant_of_a_comparison_is_portable() -> None:
    variant = ALIGN_VARIANTS["hyperdpo"]["portable"]
    found = ConditioningConfig(("a", "b"), **{"prompt_tokens": 8, "gate_hidden": 64, **variant["conditioning"]})
    assert found == ConditioningConfig.portable(("a", "b"))
    assert (found.not_portable, found.lora_rank) == (None, 8)


def test_the_default_is_portable() -> None:
    found = ConditioningConfig(("a", "b"))
    assert found == ConditioningConfig.portable(("a", "b"))
    assert (found.prompt_tokens, found.gate_hidden, found.lora_rank, found.lora_alpha) == (0, 0, 8, 8)


def test_align_fit_portable_and_the_prompts_that_a_run_keeps(command, place, tmp_path) -> None:
    fit = ("align", "fit", place / "data.jsonl", "--model", place / "model", *QUICK)
    assert command(*fit, "--portable", "--out", tmp_path / "run").code == 0
    run = AlignRun.load(tmp_path / "run")
    assert run.model.conditioning == ConditioningConfig.portable(
        run.names, target_modules=run.model.conditioning.target_modules
    )
    held_out = run.part(read_preferences(place / "data.jsonl"))[1]
    assert run.data["prompts"] == [group.prompt for group in held_out.groups[:4]]
    done = command(*fit, "--portable", "--set", "conditioning.prompt_tokens=2", "--out", tmp_path / "other")
    assert done.refused("--portable", "prompt_tokens=2", "leave it out")
    assert not (tmp_path / "other").exists()


def test_kept_prompts_are_held_out_ones_of_moderate_length() -> None:
    data = rows(6)
    data[0]["prompt"] = " ".join(["w3"] * 400)
    held_out, train = read_preferences(data), read_preferences(rows(6, seed=1))
    wanted = [row["prompt"] for row in data[1:5]]
    assert kept_prompts({"train": train, "validation": held_out, "test": train}) == wanted
    assert kept_prompts({"train": train, "test": held_out}) == wanted
    assert kept_prompts({"train": held_out}) == wanted


def test_rows_of_a_batch_have_weights_of_their_own_while_generating() -> None:
    model = portable_model(("a", "b"))
    ids, mask = padded(texts((5, 5, 5)), "left")
    rows_of = model.generate(ids, mask, weights=MIXED, max_new_tokens=6, do_sample=False, eos_token_id=None)
    for row, w in enumerate(MIXED):
        alone = model.generate(
            ids[row : row + 1], mask[row : row + 1], weights=w, max_new_tokens=6, do_sample=False, eos_token_id=None
        )
        assert torch.equal(rows_of[row], alone[0])
