"""A response without a label: it has no part in that objective, and keeps its part in the others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_base
from toy_preferences import words_tokenizer

from hyperdpo.alignment.collation import Collator, tokenize_groups
from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.alignment.data.targets import fit_objectives, label_counts, to_targets
from hyperdpo.alignment.evaluation import PaddedGroups, front_of_scores, reference_point
from hyperdpo.alignment.trainer import HyperDPOConfig, HyperDPOTrainer
from hyperdpo.alignment.training_metrics import reward_sums
from hyperdpo.core.losses import listnet_dpo_loss
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective

PROMPT = "w3 w4"
TEXTS = [" w5 w6", " w7", " w8 w9 w10"]
#: Three responses of which the second lacks a label of b, and the same without the second.
THREE = {"prompt": PROMPT, "completions": TEXTS, "labels": {"a": [1, 2, 4], "b": [3, None, 1]}}
TWO = {"prompt": PROMPT, "completions": [TEXTS[0], TEXTS[2]], "labels": {"a": [1, 4], "b": [3, 1]}}
OBJECTIVES = tuple(Objective(name=name, transform="none", beta=beta) for name, beta in (("a", 0.5), ("b", 2.0)))


def groups(*rows: dict[str, Any]) -> list[Any]:
    data = read_preferences(list(rows))
    return tokenize_groups(data, to_targets(data, OBJECTIVES), words_tokenizer())


def test_targets_are_computed_over_the_labelled_responses():
    ((targets, signal, labelled),) = to_targets(read_preferences([THREE]), OBJECTIVES)
    e = np.exp([3.0, 1.0]) / np.exp([3.0, 1.0]).sum()
    np.testing.assert_allclose(targets[1], [e[0], 0, e[1]], rtol=1e-6)
    assert signal.tolist() == [True, True]
    assert labelled is not None
    assert labelled.tolist() == [[True] * 3, [True, False, True]]


def test_fewer_than_two_labels_are_no_signal_and_none_at_all_is_as_if_the_objective_were_absent():
    rows = [{**THREE, "labels": {"a": [1, 2, 4], "b": values}} for values in ([None, 2, None], [None] * 3, None)]
    found = to_targets(read_preferences([*rows, THREE]), OBJECTIVES)
    assert [signal.tolist() for _, signal, _ in found] == [[True, False]] * 3 + [[True, True]]
    assert not any(targets[1].any() for targets, _, _ in found[:3])
    assert [labelled is None for _, _, labelled in found] == [False, True, True, False]


def test_transforms_are_fitted_to_the_labels_that_are_there():
    data = read_preferences([THREE, {**THREE, "labels": {"a": [0, 0, 0], "b": [None, 5, 3]}}])
    (fitted,) = fit_objectives(data, [Objective(name="b")])
    assert fitted.center == pytest.approx(np.mean([3, 1, 5, 3]))
    assert fitted.spread == pytest.approx(np.std([3, 1, 5, 3]))
    assert fit_objectives(data, [Objective(name="b", direction="minimize")])[0].flip_at == 5


@pytest.mark.parametrize("betas", [(0.5, 0.5), (0.5, 2.0)])
def test_the_loss_and_its_gradient_are_those_of_the_group_without_the_response(betas):
    three, two = Collator(0)(groups(THREE)), Collator(0)(groups(TWO))
    assert "labelled" not in two
    scores = torch.tensor([[-1.0, 3.0, 0.5]], requires_grad=True)
    base = torch.tensor([[-0.5, -2.0, 0.25]])
    loss = listnet_dpo_loss(scores, base, three["targets"], three["labelled"], betas)
    kept = torch.tensor([[-1.0, 0.5]], requires_grad=True)
    expected = listnet_dpo_loss(kept, base[:, [0, 2]], two["targets"], two["mask"], betas)
    # by hand: t = softmax(3, 1), distances -0.5 and 0.25
    t = np.exp([3, 1]) / np.exp([3, 1]).sum()
    z = betas[1] * np.array([-0.5, 0.25])
    assert float(loss[0, 1]) == pytest.approx(-(t * (z - np.log(np.exp(z).sum()))).sum(), rel=1e-5)
    torch.testing.assert_close(loss[:, 1], expected[:, 1])
    (gradient,) = torch.autograd.grad(loss[0, 1], scores)
    (of_two,) = torch.autograd.grad(expected[0, 1], kept)
    torch.testing.assert_close(gradient[:, [0, 2]], of_two)
    assert float(gradient[0, 1]) == 0, "the response without a label is not pushed"


def trained(tmp_path: Path, rows: list[dict[str, Any]], weights: list[float]) -> dict[str, torch.Tensor]:
    args = HyperDPOConfig(
        str(tmp_path), use_cpu=True, max_steps=3, report_to=[], save_strategy="no", weights=weights, learning_rate=0.01,
        disable_tqdm=True, share_prompts=False, per_device_train_batch_size=1,
    )  # fmt: skip
    trainer = HyperDPOTrainer(tiny_base(), args, rows, processing_class=words_tokenizer(), objectives=list(OBJECTIVES))
    trainer.train()
    return {k: v.clone() for k, v in trainer.own_model.state_dict().items() if "lora" in k or "prompt" in k}


def test_three_responses_with_one_missing_label_train_as_the_two_for_that_objective(tmp_path):
    of_three = trained(tmp_path / "three", [THREE], [0.0, 1.0])
    of_two = trained(tmp_path / "two", [TWO], [0.0, 1.0])
    untrained = trained(tmp_path / "one", [{**THREE, "labels": {**THREE["labels"], "a": [4, 2, 1]}}], [1.0, 0.0])
    for name, tensor in of_three.items():
        torch.testing.assert_close(tensor, of_two[name], rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(tensor, untrained[name], atol=1e-4) for name, tensor in of_three.items())


def test_fronts_and_reference_points_count_labelled_responses_only():
    found = groups(THREE)
    np.testing.assert_allclose(reference_point(found), 1.1 / math.log(2) * np.log([3, 2]))
    base = [np.array([-0.5, -2.0, 0.25])]
    front = front_of_scores(["a", "b"], found, [base], base, np.array([[0.5, 0.5]]), (0.5, 2.0))
    np.testing.assert_allclose(front.losses, [[math.log(3), math.log(2)]])
    # b orders one pair only (the first is better); a all three.
    scores = [np.array([1.0, 5.0, 0.0]) + base[0]]
    front = front_of_scores(["a", "b"], found, [scores], base, np.array([[0.5, 0.5]]), (0.5, 2.0))
    np.testing.assert_allclose(front.accuracies, [[1 / 3, 1.0]])
    assert PaddedGroups(groups(TWO), [base[0][[0, 2]]]).labelled is None


def test_rewards_are_logged_of_labelled_responses():
    batch = Collator(0)(groups(THREE))
    scores, base = torch.tensor([[1.0, 9.0, 3.0]]), torch.zeros(1, 3)
    weights = torch.tensor([[0.5, 0.5]])
    found = reward_sums(
        OBJECTIVES, scores, base, batch["targets"], batch["signal"], batch["mask"], weights, batch["labelled"]
    )
    assert found["rewards/b/margins"].tolist() == [2.0 * (1 - 3), 1.0]
    assert found["rewards/b/accuracies"].tolist() == [0.0, 1.0]
    assert found["logps/chosen"].tolist()[0] in (1.0, 3.0), "the best of those that no objective lacks"


def test_a_missing_label_is_written_as_null_and_read_again(tmp_path):
    data = read_preferences([THREE])
    write_preferences(data, tmp_path / "a.jsonl")
    assert "[3.0, null, 1.0]" in (tmp_path / "a.jsonl").read_text()
    again = read_preferences(tmp_path / "a.jsonl").groups[0].labels["b"]
    assert (again[0], math.isnan(again[1]), again[2]) == (3.0, True, 1.0)


def test_a_label_that_is_the_same_within_every_group_is_refused():
    rows = [{**THREE, "labels": {"a": [1, 2, 3], "b": [k, k, None]}} for k in (1, 2)]
    with pytest.raises(InputError, match=r"objective 'b' cannot teach anything: .* each of the 2 training groups"):
        fit_objectives(read_preferences(rows), OBJECTIVES)


@pytest.mark.parametrize("target", ["l1", "softmax", None])
def test_a_value_that_says_not_judged_is_a_missing_label(target):
    """The labels of b are those of THREE, with -1 where they are null."""
    marked = {**THREE, "labels": {"a": [1, 2, 4], "b": [3, -1, 1]}}
    only = {**THREE, "labels": {"a": [1, 2, 4], "b": [-1, -1, 5]}}
    a = Objective(name="a", transform="none")
    found, expected = (
        to_targets(data, fit_objectives(data, (a, Objective(name="b", target=target, unjudged=unjudged))))
        for data, unjudged in (
            (read_preferences([marked, only]), -1.0),
            (read_preferences([THREE, {**only, "labels": {"a": [1, 2, 4], "b": [None, None, 5]}}]), None),
        )
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.signal, other.signal)
        assert one.labelled is not None
        np.testing.assert_array_equal(one.labelled, other.labelled)
    assert [one.signal.tolist() for one in found] == [[True, True], [True, False]]


def test_what_is_not_judged_counts_as_missing_and_cannot_teach():
    rows = [{**THREE, "labels": {"b": values}} for values in ([3, -1, 1], [2, 2, -1], [-1, -1, -1], [-1, 4, -1])]
    data, b = read_preferences(rows), Objective(name="b", unjudged=-1.0)
    assert label_counts(data, b) == (2, 1, 7)
    assert label_counts(data, "b") == (4, 3, 0)
    with pytest.raises(InputError, match="'b' cannot teach anything"):
        fit_objectives(data.select([1, 2, 3]), [b])
    with pytest.raises(InputError, match="no training group has a label for objective 'b'"):
        fit_objectives(data.select([2]), [b])


def test_a_fit_takes_a_configuration_with_such_a_value(command, tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"w{3 + i} w4", "completions": TEXTS, "labels": {"a": [1, 0, -1], "b": rng.normal(size=3).tolist()}}
        for i in range(20)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.yaml").write_text("objectives: [{name: a, target: l1, unjudged: -1}, {name: b}]\n")
    tiny_base().save_pretrained(tmp_path / "model")
    words_tokenizer().save_pretrained(tmp_path / "model")
    done = command(
        "align", "fit", tmp_path / "data.jsonl", "--model", tmp_path / "model", "--out", tmp_path / "run", "--cpu",
        "--config", tmp_path / "c.yaml", "--set", "training.max_steps=2", "--set", "conditioning.prompt_tokens=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "objective a: the label varies in 16 of 16 groups, 16 responses have none" in done.out
