"""The conditioned model: rows of a batch are independent, and what was added can be left out, saved, merged."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import change_json
from tiny_models import KINDS, MIXED, PLAIN, padded, randomise, texts, tiny_base, tiny_model, trainable

from hyperdpo.alignment.conditioned_lora import RankGates, lora_layers
from hyperdpo.alignment.conditioning import ConditioningConfig, centred
from hyperdpo.alignment.model import ConditionedLM, Responses
from hyperdpo.errors import InputError

PARTS: dict[str, dict[str, Any]] = {
    "both": {},
    "prompt alone": {"lora_rank": 0},
    "prompt conditioned, LoRA plain": {"lora_conditioned": False},
    "LoRA alone": {"prompt_tokens": 0},
    "neither conditioned": PLAIN,
}


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def logits(model: ConditionedLM, row: torch.Tensor, weights: Any) -> torch.Tensor:
    return model(row[None], None, weights).logits[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_equals_its_rows_one_by_one(kind: str, side: str) -> None:
    model, rows = tiny_model(kind), texts()
    ids, mask = padded(rows, side)
    together = model(ids, mask, MIXED).logits
    assert together.shape == (*ids.shape, model.config.vocab_size)
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i][mask[i].bool()], logits(model, row, MIXED[i]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_weights_of_a_row_change_that_row_unless_nothing_is_conditioned(part: str) -> None:
    model, (row, *_) = tiny_model(**PARTS[part]), texts()
    distance = (logits(model, row, [1.0, 0.0]) - logits(model, row, [0.0, 1.0])).abs().max()
    assert distance == 0 if part == "neither conditioned" else distance > 1e-2


def test_a_model_without_conditioning_needs_no_weights_and_one_with_it_says_that_they_are_missing() -> None:
    ids = texts()[0][None]
    assert tiny_model(**PLAIN)(ids).logits.isfinite().all()
    with pytest.raises(InputError, match="weights are missing; the model needs 2"):
        tiny_model()(ids)


@pytest.mark.parametrize(
    "weights", [[0.5, 0.6], [0.2, 0.3, 0.5], [[0.5, 0.5]] * 2, np.array([-0.5, 1.5]), torch.ones(2)]
)
def test_weights_off_the_simplex_or_of_another_shape_are_refused(weights: Any) -> None:
    with pytest.raises(InputError, match="weights"):
        tiny_model()(padded(texts(), "right")[0], None, weights)


@pytest.mark.parametrize(
    "weights", [[0.25, 0.75], np.array([0.25, 0.75]), [[0.25, 0.75]] * 3, torch.tensor([[0.25, 0.75]] * 3)]
)
def test_weights_may_be_lists_arrays_or_tensors_for_all_rows_or_for_each(weights: Any) -> None:
    model, (ids, mask) = tiny_model(), padded(texts(), "right")
    expected = model(ids, mask, torch.tensor([0.25, 0.75])).logits
    torch.testing.assert_close(model(ids, mask, weights).logits, expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_base_only_equals_the_untouched_model_bit_for_bit(kind: str, side: str) -> None:
    untouched, model = tiny_base(kind), tiny_model(kind)
    ids, mask = padded(texts(), side)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    expected = untouched(ids, attention_mask=mask, position_ids=positions).logits
    with model.base_only():
        assert torch.equal(model(ids, mask).logits, expected)
        assert torch.equal(model(ids).logits, untouched(ids).logits)
    assert not torch.allclose(model(ids, mask, MIXED).logits, expected)


def test_base_only_is_left_after_an_error_and_keeps_what_is_trainable() -> None:
    model, row = tiny_model(), texts()[0]
    before, named = logits(model, row, [0.5, 0.5]), [id(p) for p in trainable(model)]
    with pytest.raises(KeyError), model.base_only():
        raise KeyError
    assert torch.equal(logits(model, row, [0.5, 0.5]), before)
    assert [id(p) for p in trainable(model)] == named
    with pytest.raises(InputError, match="merge inside base_only"), model.base_only():
        model.merge([0.5, 0.5])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_merge_equals_the_live_model_at_w(kind: str, part: str) -> None:
    model, row, w = tiny_model(kind, **PARTS[part]), texts()[0], torch.tensor([0.3, 0.7])
    live = logits(model, row, w)
    plain, prefix = model.merge(w)
    assert not lora_layers(plain)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    embedded, k = plain.get_input_embeddings()(row[None]), 0
    if prefix is not None:
        k, embedded = len(prefix), torch.cat((prefix[None], embedded), 1)
    torch.testing.assert_close(plain(inputs_embeds=embedded).logits[0, k:], live, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model, row, w), live)


def test_a_merged_model_may_be_trained_without_changing_the_live_one() -> None:
    model, row = tiny_model(), texts()[0]
    before = logits(model, row, [0.5, 0.5])
    for parameter in model.merge([0.5, 0.5])[0].parameters():
        parameter.zero_()
    assert torch.equal(logits(model, row, [0.5, 0.5]), before)


def test_a_plain_copy_of_the_base_shares_its_weights_and_takes_an_adapter_of_its_own() -> None:
    model, row = tiny_model(), texts()[0]
    before = logits(model, row, [0.5, 0.5])
    other = tiny_model(base=model.plain_base(), seed=5)
    assert {p.data_ptr() for p in tiny_parameters(other)} == {p.data_ptr() for p in tiny_parameters(model)}
    assert torch.equal(logits(model, row, [0.5, 0.5]), before)
    assert not torch.allclose(logits(other, row, [0.5, 0.5]), before)


def tiny_parameters(model: ConditionedLM) -> list[torch.Tensor]:
    return [p for p in model.base.parameters() if not p.requires_grad]


def test_trainable_parameters_are_ours_alone() -> None:
    untouched, model = tiny_base(), tiny_model()
    ours = sum(tensor.numel() for tensor in model.adapter_state().values())
    assert model.num_parameters() == ours
    assert model.num_parameters(only_trainable=False) == ours + sum(p.numel() for p in untouched.parameters())
    assert sum(p.numel() for part in model.parts().values() for p in part) == ours
    assert set(model.parts()) == {"prefix", "mask", "lora", "gates"}
    assert all(p.dtype == torch.float32 for p in trainable(model))


def test_in_half_precision_the_adapter_is_float32_and_a_mixed_batch_still_works() -> None:
    model = tiny_model(base=tiny_base().to(torch.bfloat16))
    ids, mask = padded(texts(), "left")
    assert {p.dtype for p in trainable(model)} == {torch.float32}
    out = model(ids, mask, MIXED).logits
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradient_checkpointing_gives_the_same_gradients(kind: str) -> None:
    ids, mask = padded(texts(), "right")
    completion = mask.clone()
    completion[:, :2] = 0

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = tiny_model(kind, base=tiny_base(kind, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
            assert model.is_gradient_checkpointing
        with torch.enable_grad():
            # Two passes at different w before one backward pass: layers must be computed again with their own gates.
            first = model(ids, mask, MIXED, completion_mask=completion).logps
            second = model(ids, mask, MIXED.flip(0), completion_mask=completion).logps
            with model.base_only(), torch.no_grad():
                model(ids, mask)
            (first.sum() - 2 * second.square().mean()).backward()
        return [p.grad for p in trainable(model) if p.grad is not None]

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) == len(trainable(tiny_model(kind)))
    assert all(grad.abs().max() > 0 for grad in plain)
    for one, other in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_two_threads_do_not_see_each_others_gates() -> None:
    model, row = tiny_model(), texts((40,))[0]
    expected = {j: logits(model, row, torch.eye(2)[j]) for j in (0, 1)}
    wrong: list[int] = []

    def work(j: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                if not torch.allclose(logits(model, row, torch.eye(2)[j]), expected[j], atol=1e-5):
                    wrong.append(j)

    threads = [threading.Thread(target=work, args=(j,)) for j in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_copy_of_the_model_is_independent() -> None:
    model, row = tiny_model(), texts()[0]
    before, other = logits(model, row, [0.5, 0.5]), copy.deepcopy(model)
    randomise(other, 9)
    assert torch.equal(logits(model, row, [0.5, 0.5]), before)
    assert not torch.equal(logits(other, row, [0.5, 0.5]), before)


# How w is heard when training starts


@pytest.mark.parametrize("mask_start", ["one", "random"])
@pytest.mark.parametrize("objectives", [2, 5])
def test_the_mask_starts_with_the_spread_that_was_asked_for(objectives: int, mask_start: str) -> None:
    names = tuple("abcde"[:objectives])
    config = ConditioningConfig(names, prompt_tokens=8, mask_start=mask_start, mask_spread=0.7, lora_rank=0)
    prompt = ConditionedLM.create(tiny_base(), config).prompt
    assert prompt is not None
    masks = prompt.mask(torch.eye(objectives))
    assert float(masks.var(0, correction=0).mean().sqrt()) == pytest.approx(0.7, rel=1e-4)
    assert abs(float(masks.mean()) - (mask_start == "one")) < 0.3


@pytest.mark.parametrize("gate_hidden", [0, 64])
@pytest.mark.parametrize("gate_start", ["objective", "random"])
def test_gates_start_at_one_on_average_with_the_spread_that_was_asked_for(gate_start: str, gate_hidden: int) -> None:
    config = ConditioningConfig(
        ("a", "b"), lora_rank=3, gate_start=gate_start, gate_spread=0.4, gate_hidden=gate_hidden
    )
    gates = RankGates(config, 3)(torch.cat((torch.eye(2), torch.tensor([[0.5, 0.5]]))))
    assert gates.shape == (3, 3, 6)
    torch.testing.assert_close(gates[:, 2], torch.ones(3, 6))
    assert float(gates[:, :2].var(1, correction=0).mean().sqrt()) == pytest.approx(0.4, rel=1e-4)
    if gate_start == "objective":
        torch.testing.assert_close(gates[0, 0], torch.tensor([1.4, 0.6] * 3))


@pytest.mark.parametrize(
    ("components", "conditioned", "rank"), [("objective", True, 6), ("shared", True, 2), ("objective", False, 2)]
)
def test_each_objective_has_components_of_its_own_that_count_less_where_another_has_all_weight(
    components: str, conditioned: bool, rank: int
) -> None:
    names = ("a", "b", "c")
    config = ConditioningConfig(names, lora_rank=2, lora_components=components, lora_conditioned=conditioned)
    model = ConditionedLM.create(tiny_base(), config)
    (layer, *_) = lora_layers(model.base).values()
    assert layer.lora_A["hyperdpo"].weight.shape[0] == config.rank == rank
    assert layer.scaling["hyperdpo"] == config.lora_alpha / config.lora_rank
    if model.gates is not None and components == "objective":
        gates = model.gates(torch.eye(3))[0]  # (3, 6) of the first layer
        own = torch.tensor([[c % 3 == j for c in range(6)] for j in range(3)])
        torch.testing.assert_close(gates[own], torch.full((6,), 1 + 2**0.5))
        torch.testing.assert_close(gates[~own], torch.full((12,), 1 - 0.5**0.5))


def test_the_spread_of_the_gates_does_not_change_where_training_starts_but_where_its_first_step_goes() -> None:
    row = texts()[0]
    model = tiny_model(prompt_tokens=0, trained=False)
    torch.testing.assert_close(logits(model, row, [1.0, 0.0]), tiny_base()(row[None]).logits[0])

    def slope(spread: float, weights: list[float]) -> torch.Tensor:
        model = tiny_model(prompt_tokens=0, trained=False, gate_spread=spread)
        with torch.enable_grad():
            logits(model, row, weights).logsumexp(-1).sum().backward()
        (layer, *_) = lora_layers(model.base).values()
        grad: torch.Tensor = layer.lora_B["hyperdpo"].weight.grad
        return grad

    assert torch.equal(slope(0.0, [1.0, 0.0]), slope(0.0, [0.0, 1.0]))
    one, other = slope(0.5, [1.0, 0.0]), slope(0.5, [0.0, 1.0])
    torch.testing.assert_close(one[:, 0], other[:, 0] * (1.5 / 0.5), rtol=1e-4, atol=1e-5)


def test_the_starting_influence_of_w_grows_with_the_masks_spread() -> None:
    ids, mask = padded(texts(), "right")

    def influence(model: ConditionedLM) -> float:
        """The mean distance between the tokens' log-probabilities at the two vertices."""
        with torch.no_grad():
            first, second = (model(ids, mask, w).logits.log_softmax(-1)[mask.bool()] for w in torch.eye(2))
        return float((first - second).abs().mean())

    found = [influence(tiny_model(mask_spread=s, trained=False)) for s in (0.05, 0.3, 1.0)]
    assert 0 < found[0] < found[1] < found[2]
    assert influence(tiny_model(**PLAIN)) == 0


def test_networks_see_the_middle_of_the_simplex_as_zero_and_the_vertices_at_unit_size() -> None:
    assert torch.equal(centred(torch.full((4,), 0.25)), torch.zeros(4))
    for m in (2, 3, 7):
        assert float(centred(torch.eye(m)).square().mean()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_model_and_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, other = tiny_model(seed=4, trained=False).adapter_state(), tiny_model(seed=4, trained=False).adapter_state()
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)
    different = tiny_model(seed=5, trained=False).adapter_state()
    assert not torch.equal(one["prompt.prefix"], different["prompt.prefix"])


@pytest.mark.parametrize(("ids", "token"), [({}, 1), ({"bos_token_id": None}, 2), ({"eos_token_id": [5, 2]}, 1)])
def test_the_virtual_tokens_start_near_the_token_that_begins_texts_each_elsewhere(
    ids: dict[str, Any], token: int
) -> None:
    base = tiny_base(**ids)
    row = base.get_input_embeddings().weight[token]
    prompt = tiny_model(base=base).prompt
    assert prompt is not None
    noise = prompt.prefix.detach() - row
    assert 0.15 < float(noise.square().mean().sqrt() / row.square().mean().sqrt()) < 0.45
    assert len({tuple(one.tolist()) for one in noise}) == 3
    again = tiny_model(base=tiny_base(**ids)).prompt
    assert again is not None
    assert torch.equal(prompt.prefix, again.prefix)


def test_without_such_a_token_they_start_as_tokens_of_the_vocabulary() -> None:
    base = tiny_base(bos_token_id=None, eos_token_id=None)
    words, prompt = base.get_input_embeddings().weight, tiny_model(base=base).prompt
    assert prompt is not None
    assert all((words == row).all(-1).any() for row in prompt.prefix)


def test_the_virtual_tokens_start_as_tokens_of_the_vocabulary_that_are_not_special() -> None:
    base = tiny_base()
    words = base.get_input_embeddings().weight
    prompt = tiny_model(base=base, prompt_start="vocabulary").prompt
    assert prompt is not None
    found = {int((words == row).all(-1).nonzero()) for row in prompt.prefix}
    assert len(found) == 3
    assert not found & {0, 1, 2}


# Files


@pytest.mark.parametrize("part", PARTS)
def test_save_and_load_give_the_same_model(part: str, tmp_path: Path) -> None:
    model, row = tiny_model(**PARTS[part]), texts()[0]
    tiny_base().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = ConditionedLM.from_pretrained(tmp_path / "adapter", tmp_path / "base")
    assert loaded.conditioning == model.conditioning
    assert torch.equal(logits(loaded, row, [0.3, 0.7]), logits(model, row, [0.3, 0.7]))
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter.safetensors",
        "hyperdpo_config.json",
    ]


def test_a_saved_adapter_knows_its_base_model(tmp_path: Path) -> None:
    tiny_base().save_pretrained(tmp_path / "base")
    config = ConditioningConfig(("a", "b"), prompt_tokens=8, gate_hidden=64)
    model = ConditionedLM.create(tmp_path / "base", config, seed=1)
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded, row = ConditionedLM.from_pretrained(tmp_path / "adapter"), texts()[0]
    assert torch.equal(logits(loaded, row, [0.3, 0.7]), logits(model, row, [0.3, 0.7]))
    assert loaded.conditioning.target_modules == ("q_proj", "v_proj")
    loaded.save_pretrained(tmp_path / "adapter")  # again, over the old one


def test_an_adapter_is_fetched_from_the_hub_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny_model(), []
    model.save_pretrained(tmp_path / "fetched")

    def fetch(name: str, **settings: Any) -> str:
        asked.append((name, settings["allow_patterns"]))
        return str(tmp_path / "fetched")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded, row = ConditionedLM.from_pretrained("someone/adapter", tiny_base()), texts()[0]
    assert asked == [("someone/adapter", ["adapter.safetensors", "hyperdpo_config.json"])]
    assert torch.equal(logits(loaded, row, [0.3, 0.7]), logits(model, row, [0.3, 0.7]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    (tmp_path / "fetched").rename(tmp_path / "someone" / "adapter")
    ConditionedLM.from_pretrained("someone/adapter", tiny_base())
    assert len(asked) == 1, "a directory is no name"


def test_an_adapter_that_the_hub_does_not_give_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **_: Any) -> str:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(InputError, match=r"adapter someone/adapter: no such directory.*no route to host") as error:
        ConditionedLM.from_pretrained("someone/adapter", tiny_base())
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"^nowhere.hyperdpo_config.json: cannot be read"):
        ConditionedLM.from_pretrained("nowhere", tiny_base())


def damaged(path: Path, name: str) -> str:
    """Damage an adapter in a named way; what the error says."""
    config, tensors = path / "hyperdpo_config.json", path / "adapter.safetensors"
    values = json.loads(config.read_text())
    if name == "truncated tensors":
        tensors.write_bytes(tensors.read_bytes()[:-100])
        return "adapter.safetensors: damaged, truncated or changed"
    if name == "truncated configuration":
        config.write_text(config.read_text()[:-20])
        return "hyperdpo_config.json: not valid JSON"
    if name == "no tensors":
        tensors.unlink()
        return "adapter.safetensors: no such file"
    if name == "no configuration":
        config.unlink()
        return "hyperdpo_config.json: cannot be read"
    if name == "another version":
        change_json(config, format_version=99)
        return "format_version is 99; hyperdpo .* reads 2 to 3"
    if name == "edited configuration":
        config.write_text(config.read_text().replace('"lora_rank": ', '"lora_rank": 1'))
        return "hyperdpo_config.json: damaged, truncated or changed"
    if name == "another configuration":
        change_json(config, conditioning={**values["conditioning"], "lora_rank": 2})
        return "written with another configuration"
    change_json(config, conditioning={**values["conditioning"], "colour": 1})
    return "conditioning.colour is not a setting"


@pytest.mark.parametrize(
    "name",
    [
        "truncated tensors",
        "truncated configuration",
        "no tensors",
        "no configuration",
        "another version",
        "edited configuration",
        "another configuration",
        "unknown setting",
    ],
)
def test_a_damaged_adapter_is_refused_in_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    expected = damaged(tmp_path, name)
    with pytest.raises(InputError, match=expected) as error:
        ConditionedLM.from_pretrained(tmp_path, tiny_base())
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_base_model_that_is_missing_or_another_one_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="had no name when this was saved; pass base_model"):
        ConditionedLM.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"base model .*/nowhere: no such directory") as error:
        ConditionedLM.from_pretrained(tmp_path, tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="made for a base model with hidden_size 16; found 32"):
        ConditionedLM.from_pretrained(tmp_path, tiny_base(hidden_size=32))
    with pytest.raises(InputError, match="made for a base model with model_type llama; found gpt2"):
        ConditionedLM.from_pretrained(tmp_path, tiny_base("gpt2"))


def test_a_failed_takeover_of_an_adapter_changes_nothing() -> None:
    model, other = tiny_model(), tiny_model(lora_rank=2, seed=8)
    before = {name: tensor.clone() for name, tensor in model.adapter_state().items()}
    with pytest.raises(InputError, match=r"does not fit the model: gates.linear: found \(2, 16\), expected \(2, 32\)"):
        model.load_adapter_state(other.adapter_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.adapter_state().items())


# Settings


@pytest.mark.parametrize(
    ("setting", "value"), [("use_rslora", True), ("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"])]
)
def test_kinds_of_lora_that_gates_do_not_fit_are_refused(setting: str, value: Any) -> None:
    from peft import LoraConfig

    with pytest.raises(InputError, match=f"peft_config: {setting} is"):
        ConditioningConfig.from_lora_config(LoraConfig(**{setting: value}), ("a", "b"))
    plain = LoraConfig(r=5, lora_alpha=10, lora_dropout=0.1, target_modules=["v_proj", "q_proj"])
    config = ConditioningConfig.from_lora_config(plain, ("a", "b"), prompt_tokens=2)
    assert (config.lora_rank, config.lora_alpha, config.lora_dropout, config.prompt_tokens) == (5, 10, 0.1, 2)
    assert config.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objectives": ()}, "expected at least one"),
        ({"objectives": ("a", "a")}, "all different"),
        ({"prompt_tokens": 0, "lora_rank": 0}, "both 0"),
        ({"mask_start": "two"}, "mask_start is 'two'"),
        ({"mask_spread": -1.0}, "mask_spread is -1.0"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"prompt_tokens": 1.5}, "prompt_tokens is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        ConditioningConfig(**{"objectives": ("a", "b"), **settings})


def test_settings_survive_json() -> None:
    config = ConditioningConfig(("a", "b"), target_modules=("q_proj",), mask_spread=None)
    assert ConditioningConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("targets", [("nothing",), ("lm_head",), ("embed_tokens",)])
def test_modules_that_cannot_have_gates_are_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="target_modules"):
        tiny_model(target_modules=targets)


def test_all_linear_layers_may_have_gates_but_not_the_output_layer() -> None:
    model = tiny_model(target_modules="all-linear")
    assert len(model.lora_names) == 2 * 7
    assert not any("lm_head" in name for name in model.lora_names)


def test_a_base_with_lora_already_is_refused() -> None:
    with pytest.raises(InputError, match="has LoRA layers already"):
        tiny_model(base=tiny_model().base)


def test_text_and_prompt_beyond_learned_positions_are_refused_but_padding_is_not() -> None:
    model = tiny_model("gpt2")
    rows = texts((62, 3))
    with pytest.raises(
        InputError, match="62 tokens and 3 virtual tokens: the model has 64 positions, expected at most 61"
    ):
        model(*padded(rows, "right"), MIXED[:2])
    ids, mask = padded(texts((61, 3)), "left")
    wide = torch.nn.functional.pad(ids, (9, 0)), torch.nn.functional.pad(mask, (9, 0))
    expected = model(ids, mask, MIXED[:2]).logits
    torch.testing.assert_close(
        model(*wide, MIXED[:2]).logits[:, 9:][mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5
    )
    tiny_model("llama")(texts((80,))[0][None], None, [0.5, 0.5])  # computed positions: no such limit


def test_labels_and_logits_to_keep_count_without_the_prompt() -> None:
    model, row = tiny_model(), texts()[0]
    full = model(row[None], None, [0.5, 0.5])
    out = model(row[None], None, [0.5, 0.5], labels=row[None], output_hidden_states=True)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(full.logits[0, :-1], row[1:]))
    assert out.hidden_states[-1].shape[1] == len(row)
    for kept in (2, 100, torch.tensor([5, 6])):
        found = model(row[None], None, [0.5, 0.5], logits_to_keep=kept).logits
        expected = full.logits[:, kept] if isinstance(kept, torch.Tensor) else full.logits[:, -kept:]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("part", PARTS)
def test_hidden_states_are_what_the_head_makes_logits_of(part: str) -> None:
    model, (ids, mask) = tiny_model(**PARTS[part]), padded(texts(), "right")
    expected = model(ids, mask, MIXED).logits
    torch.testing.assert_close(model.head(model.hidden_states(ids, mask, MIXED)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["both", "LoRA alone"])
def test_a_shared_prompt_without_tokens_is_refused(part: str) -> None:
    model, (ids, mask) = tiny_model(**PARTS[part]), padded(texts((3, 2)), "right")
    mask[1] = 0
    responses = Responses(ids, torch.ones_like(ids), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="prompt 1: no tokens; expected a prompt of at least one token"):
        model(ids, mask, MIXED[:2], responses=responses)
    with pytest.raises(InputError, match="prompt 0: no tokens"), model.base_only():
        model(ids[:1, :0], mask[:1, :0], responses=Responses(ids[:1], torch.ones_like(ids[:1]), torch.tensor([0])))


def test_past_key_values_are_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"decode with model.generate"):
        tiny_model()(texts()[0][None], None, [0.5, 0.5], past_key_values=object())
