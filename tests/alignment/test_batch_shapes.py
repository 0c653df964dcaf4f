"""What a step minimises does not depend on how its groups are divided into batches, also where labels are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import is_one_line
from tiny_models import randomise, tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig
from hyperdpo.alignment.training_metrics import means, reward_sums
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective

GROUPS = 20
SIZES: dict[str, Any] = {"prompt_tokens": 2, "prompt_hidden": 4, "gate_hidden": 4}
#: Groups of a batch, and batches of a step. The last step of an epoch is smaller; in some, its last batch, too.
SHAPES = [(8, 1), (1, 8), (4, 2), (3, 1), (3, 2), (20, 1), (32, 1)]


def preferences(coverage: float) -> list[dict[str, Any]]:
    """``high`` has labels for this part of the groups."""
    data = rows(GROUPS)
    kept = set(np.random.default_rng(1).permutation(GROUPS)[: round(coverage * GROUPS)].tolist())
    for g, row in enumerate(data):
        if g not in kept:
            row["labels"].pop("high")
    return data


class Steps(HyperDPOTrainer):
    """Notes what each optimiser step sees."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[int, list[tuple[int, float]]]] = []
        self.drawn: list[tuple[int, list[float]]] = []
        self.w_of_groups: list[float] | None = None
        """Of each group, instead of a draw."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        step = self.state.global_step
        if not self.seen or self.seen[-1][0] != step:
            self.seen.append((step, []))
        self.seen[-1][1].append((len(inputs["mask"]), float(loss.detach())))
        return loss

    def draw_weights(self, groups: int) -> torch.Tensor:
        if self.w_of_groups is not None:
            return torch.tensor([self.w_of_groups] * groups)
        found = super().draw_weights(groups)
        self.drawn.append((self.state.global_step, found.flatten().tolist()))
        return found

    def steps(self) -> list[tuple[int, float]]:
        """Groups and loss of each step: the trainer takes the mean over its batches."""
        return [(sum(n for n, _ in some), float(np.mean([one for _, one in some]))) for _, some in self.seen]


def job(out: Path, data: Any, batch: int = 4, accumulation: int = 1, **settings: Any) -> Steps:
    """A rate so small that the model stays what it is."""
    defaults: dict[str, Any] = {
        "num_train_epochs": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no",
        "learning_rate": 1e-30, "logging_steps": 1,
    }  # fmt: skip
    model = ConditionedLM.create(tiny_base(), ConditioningConfig(("low", "high"), **SIZES))
    randomise(model)
    shape = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    args = HyperDPOConfig(str(out), **{**defaults, **shape, **settings})
    return Steps(model, args, data, None, words_tokenizer())


@pytest.mark.parametrize("per", ["group", "batch"])
@pytest.mark.parametrize("coverage", [0.1, 0.5, 1.0])
def test_an_epoch_adds_up_to_the_loss_of_all_groups_whatever_the_batches(tmp_path, coverage, per):
    data = preferences(coverage)
    w = [0.5, 0.5]
    whole = job(tmp_path, data, weights=w)
    losses = whole.front(data, weights=np.array([w])).losses[0]  # means over the groups with signal
    expected = float(losses @ w)
    by_size: dict[int, list[tuple[int, float]]] = {}
    for batch, accumulation in SHAPES:
        one = job(tmp_path, data, batch, accumulation, weights=w)
        one.w_of_groups = w if per == "group" else None
        one.train()
        steps = one.steps()
        assert sum(n for n, _ in steps) == GROUPS
        assert sum(n * loss for n, loss in steps) / GROUPS == pytest.approx(expected, rel=1e-5), (batch, accumulation)
        # The same groups in a step: the same loss, however they are divided.
        known = by_size.setdefault(batch * accumulation, steps)
        assert [n for n, _ in steps] == [n for n, _ in known]
        np.testing.assert_allclose([x for _, x in steps], [x for _, x in known], rtol=1e-5)
        logged = [entry for entry in one.state.log_history if "loss" in entry]
        np.testing.assert_allclose([entry["loss"] for entry in logged], [x for _, x in steps], rtol=1e-5)


def test_a_batch_that_is_dropped_leaves_the_others_as_they_are(tmp_path):
    data = preferences(0.5)
    kept, dropped = (job(tmp_path, data, 8, weights=[0.5, 0.5], dataloader_drop_last=drop) for drop in (False, True))
    kept.train()
    dropped.train()
    assert [n for n, _ in dropped.steps()] == [8, 8]
    np.testing.assert_allclose(dropped.steps(), kept.steps()[:2], rtol=1e-6)


def test_an_evaluation_is_the_mean_over_the_groups_with_signal(tmp_path):
    data = preferences(0.1)
    one = job(tmp_path, rows(GROUPS))
    both = one.evaluate(data)
    alone = one.evaluate([row for row in data if "high" in row["labels"]])
    assert both["eval_loss/high"] == pytest.approx(alone["eval_loss/high"], rel=1e-5)
    assert both["eval_loss"] == pytest.approx((both["eval_loss/high"] + both["eval_loss/low"]) / 2, rel=0.2)


def test_an_evaluation_leaves_out_objectives_that_it_has_no_label_of(tmp_path):
    """As where each objective has an evaluation set of its own; a loss of 0 would be that of a perfect model."""
    data = [{**row, "labels": {"low": row["labels"]["low"], "high": [1.0, 0.0, 0.0]}} for row in rows(GROUPS)]
    low = [{**row, "labels": {"low": row["labels"]["low"], "high": [0.0, 0.0, 0.0]}} for row in data]
    one = job(tmp_path, data)
    found, whole = one.evaluate(low), one.evaluate(data)
    assert found["eval_loss/low"] == pytest.approx(whole["eval_loss/low"], rel=1e-5)
    assert "eval_loss/high" not in found
    assert "eval_hypervolume" not in found
    grid = np.linspace(0, 1, 5)[1:]  # at w = (0, 1) nothing is asked for
    losses = one.front(data, weights=np.stack([grid, 1 - grid], 1)).losses[:, 0]
    assert found["eval_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    with pytest.raises(InputError) as error:
        one.front(low)
    assert is_one_line(error.value, "objective 'high'", "none of the 20 groups")


def test_rewards_are_those_of_groups_that_the_weighted_labels_order():
    """A group without a label where the weight is has no best response: it is neither right nor wrong."""
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 5.0]])
    targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 0.0]]])
    signal, mask = targets.sum(-1) > 0, torch.ones(3, 2, dtype=torch.bool)
    objectives = [Objective(name="a"), Objective(name="b")]
    for w, best, margin in (([1.0, 0.0], 3.0, 2.0), ([0.0, 1.0], 2.0, 2.0)):
        weights = torch.tensor([w] * 3)
        found = means(reward_sums(objectives, scores, torch.zeros(3, 2), targets, signal, mask, weights))
        assert found["rewards/accuracies"] == 1
        assert found["rewards/margins"] == margin
        assert found["logps/chosen"] == best
        assert found["logps/mean"] == pytest.approx(scores.mean())


def test_a_w_of_the_batch_is_one_for_a_step_and_the_same_after_an_interruption(tmp_path):
    settings: dict[str, Any] = {"weights_per": "batch", "save_strategy": "steps", "save_steps": 1}
    whole = job(tmp_path / "whole", rows(GROUPS), 2, 3, num_train_epochs=2, **settings)
    whole.train()
    weights: dict[int, list[float]] = {}
    for step, w in whole.drawn:
        assert weights.setdefault(step, w) == w, "one w for all batches of a step"
    assert len(weights) == whole.state.global_step == 8
    assert len({tuple(w) for w in weights.values()}) > 4, "another step, another w"

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 3

    cut = job(tmp_path / "cut", rows(GROUPS), 2, 3, num_train_epochs=2, **settings)
    cut.add_callback(Stop())
    cut.train()
    again = job(tmp_path / "cut", rows(GROUPS), 2, 3, num_train_epochs=2, **settings)
    again.train(resume_from_checkpoint=True)
    assert cut.drawn + again.drawn == whole.drawn
