"""The training loop: what it chooses, what it repeats, and what it refuses. Resuming: test_resuming.py."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from helpers import (
    CLICKS,
    cpu,
    fit_toy,
    is_one_line,
    launch,
    model_of,
    read,
    same_tensors,
    start,
    timeless,
    toy_config,
    toy_table,
    vertex_metrics,
    weights_of,
)
from hypothesis import given, settings

from hyperdpo.core.preferences import stream
from hyperdpo.data.batching import GroupBatch, shuffled_batches
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import TrainingConfig, merged
from hyperdpo.ranking.draws import Draw, dirichlet_weights, with_temperatures
from hyperdpo.ranking.evaluation import Front
from hyperdpo.ranking.examples import Examples, Features, build_examples
from hyperdpo.ranking.fitting import split_table
from hyperdpo.ranking.new_rankers import conditioned_ranker
from hyperdpo.ranking.parametrizations import Ranker
from hyperdpo.ranking.training import ORDER, Training, learning_rate, quality, share_of_process, train

pytestmark = pytest.mark.filterwarnings("ignore:.*resumed after epoch:UserWarning")


def toy_job(**overrides: Any) -> Training:
    """A training of a conditioned ranker on toy data, without a base, by itself."""
    config = toy_config(**overrides)
    columns = tuple(f"f{i}" for i in range(6))
    parts = split_table(toy_table(), config)
    transform = FeatureTransform.fit(parts["train"], columns)
    labels = tuple(o.fitted(parts["train"].table.column(o.column)) for o in config.objectives)

    def examples(part: Part) -> Examples:
        return build_examples(part, labels, config.main, features=Features(part, transform, 1e9))

    torch.manual_seed(0)
    return Training(
        name="ranker",
        ranker=Ranker(config.scorer, 6, 2),
        train=examples(parts["train"]),
        validation=examples(parts["validation"]),
        sampler=dirichlet_weights(config.training, 2, config.seed),
        betas=(1.0, 1.0),
        config=config.training,
        metric=config.metric,
        seed=config.seed,
    )


# --- several processes


class Place(SimpleNamespace):
    """One of several processes, as accelerate names them."""

    process_index: int
    num_processes: int


@given(groups=st.integers(1, 12), world=st.integers(1, 5), per_group=st.booleans())
@settings(max_examples=60, deadline=None)
def test_processes_share_a_batch_by_whole_groups_and_no_group_counts_twice(groups, world, per_group):
    batch = GroupBatch(np.arange(groups) + 100, 7)
    weights = np.random.default_rng(0).dirichlet(np.ones(2), groups if per_group else 1)
    weights = weights if per_group else weights[0]
    seen: list[int] = []
    for rank in range(world):
        share, draw, idle = share_of_process(batch, Draw(weights), Place(process_index=rank, num_processes=world))
        assert len(share.groups) >= 1, "every process takes part in the exchange of gradients"
        assert share.length == batch.length
        expected = weights[share.groups - 100] if per_group else weights
        np.testing.assert_array_equal(draw.weights, expected)
        assert idle == (rank >= groups)
        if not idle:
            seen.extend(share.groups.tolist())
    assert sorted(seen) == batch.groups.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("per", "processes"), [("group", 2), ("batch", 3)])
def test_several_processes_reach_the_losses_of_one(generated, tmp_path, per, processes):
    def arguments(out: Path) -> list[str]:
        every = {
            "scorer.width": 8,
            "base_scorer.width": 8,
            "training.epochs": 4,
            "base_training.epochs": 2,
            "training.batch_items": 200,  # few groups in a batch, sometimes fewer than processes
            "training.weights_per": per,
            "training.penalty": 0.5,
            "parametrization": "scratch",
        }
        options = [f"--set={key}={value}" for key, value in every.items()]
        data = ["rank", "fit", str(generated[0]), "--preset", "mslr", "--objectives", ",".join(CLICKS)]
        return [*data, "--out", str(out), "--cpu", *options]

    alone = start(arguments(tmp_path / "one"))
    done = launch(processes, arguments(tmp_path / "many"))
    alone.join()
    assert (alone.exitcode, done.code) == (0, 0), done.err[-2000:]
    one, many = (read(tmp_path / name / "metrics.json") for name in ("one", "many"))
    assert (one["processes"], many["processes"]) == (1, processes)
    for stage in ("base", "ranker"):
        # Rounding grows where a ReLU switches or Adam divides a gradient of almost 0 by itself; and NDCG jumps where
        # two scores that are equal up to rounding change places, on 8 groups by up to a percent; the validation number
        # is a hypervolume, a product of three of them.
        for what, tolerance in (("losses", 5e-4), ("validation", 4e-2), ("main", 2e-2)):
            first, second = (m["history"][stage][what] for m in (one, many))
            if any(v is not None for v in first):
                np.testing.assert_allclose(first, second, rtol=tolerance, err_msg=f"{stage} {what}")
    for name, tensor in model_of(tmp_path / "one").items():
        if not name.endswith("scorer.norm.bias"):  # a shift of all scores: its gradient is nothing but rounding
            # Where a gradient is nothing but rounding, a step of Adam is the learning rate (4e-3) either way.
            torch.testing.assert_close(model_of(tmp_path / "many")[name], tensor, rtol=1e-2, atol=1.2e-2, msg=name)
    assert done.out.count("run: ") == 1, "one process reports"


# --- sampled weights


@pytest.mark.parametrize(
    ("per", "draws", "shape"), [("batch", 1, (3,)), ("batch", 4, (3,)), ("group", 1, (7, 3)), ("group", 4, (4, 7, 3))]
)
def test_weights_are_drawn_once_per_batch_or_some_times_per_group(per, draws, shape):
    draw = dirichlet_weights(TrainingConfig(weights_per=per, draws=draws), 3, 0)(2, 5, 7).weights
    assert draw.shape == shape
    np.testing.assert_allclose(draw.sum(-1), 1)
    assert len(np.unique(draw[..., 0])) == np.prod(shape[:-1], dtype=int), "all different"


def test_the_share_of_vertices_and_the_even_cover_reach_the_draws():
    vertices = dirichlet_weights(TrainingConfig(vertex_share=1.0, draws=2), 3, 0)(1, 0, 50).weights
    assert np.array_equal(np.sort(vertices.reshape(-1, 3)), np.tile([0.0, 0.0, 1.0], (100, 1)))
    # Of a Latin hypercube over 200 quantiles, the mean is far nearer to its expectation than of 200 independent draws.
    config = TrainingConfig(draws=1, alpha=1.0)
    errors = [
        [abs(dirichlet_weights(one, 2, seed)(1, 0, 200).weights[:, 0].mean() - 0.5) for seed in range(20)]
        for one in (replace(config, stratified=True), config)
    ]
    assert np.mean(errors[0]) < 0.2 * np.mean(errors[1])


@pytest.mark.parametrize("conditioning", ["input", "head"])
def test_an_epoch_of_the_temperature_hypernetwork_has_the_loss_of_equation_20(conditioning):
    """One w and one β ~ D(β) of each group and draw; the loss at them, written out, of a model that stays as it is."""
    low, high, draws = (0.5, 1.0), (2.0, 4.0), 2
    sampling = {"draws": draws, "epochs": 1, "min_batches": 3, "learning_rate": 1e-30}
    config = toy_config(
        parametrization="temperature",
        temperatures={"low": low, "high": high, "parametrization": "scratch"},
        scorer={"conditioning": conditioning},
        training=sampling,
    )
    torch.manual_seed(0)
    job = replace(
        toy_job(training=sampling),
        ranker=conditioned_ranker(config, 6),
        sampler=with_temperatures(dirichlet_weights(config.training, 2, 0), low, high, 0),
    )
    largest = max(job.train.num_items // 3, int(job.train.sizes.max()))
    expected, with_signal = 0.0, np.asarray(job.train.signal).sum(0)
    for step, group_batch in enumerate(shuffled_batches(job.train.sizes, largest, stream(job.seed, ORDER, 1))):
        draw = job.sampler(1, step, len(group_batch.groups))
        assert draw.temperatures is not None
        assert draw.weights.shape == draw.temperatures.shape == (draws, len(group_batch.groups), 2)
        assert (draw.temperatures >= low).all()
        assert (draw.temperatures <= high).all()
        assert len(group_batch.groups) < 3 or np.ptp(draw.temperatures, axis=(0, 1)).min() > 0.3, "they are drawn"
        w, betas = (torch.from_numpy(x).float() for x in (draw.weights, draw.temperatures))
        batch = job.train.batch(group_batch)
        with torch.no_grad():
            scores = job.ranker(batch, w, betas)
        for k, (g, mask), j in product(range(draws), enumerate(batch.mask), range(2)):
            if batch.signal[g, j]:
                distance = betas[k, g, j] * (scores[k, g] - batch.base_scores[g])[mask]
                cross_entropy = -(batch.targets[g, j][mask] * distance.log_softmax(-1)).sum()
                expected += float(w[k, g, j] * cross_entropy) / (draws * with_signal[j])
    assert train(job, cpu()).losses == pytest.approx([expected], rel=1e-5)


def test_a_draw_depends_on_seed_epoch_and_step_alone():
    config = TrainingConfig()

    def sample(epoch: int, step: int, seed: int = 3) -> np.ndarray:
        return dirichlet_weights(config, 2, seed=seed)(epoch, step, 6).weights

    expected = sample(4, 2)
    for other in [(1, 0), (4, 1), (5, 2)]:
        assert not np.array_equal(sample(*other), expected)
    np.random.seed(1)  # noqa: NPY002 - nothing global matters
    np.testing.assert_array_equal(sample(4, 2), expected)
    assert not np.array_equal(sample(4, 2, seed=4), expected)


@pytest.mark.parametrize("per", ["batch", "group"])
def test_a_run_records_how_its_weights_were_drawn(per):
    assert fit_toy(training={"weights_per": per}).metrics["weights_per"] == per


def test_a_vector_alpha_favours_the_objective_with_the_larger_number():
    sample = dirichlet_weights(TrainingConfig(alpha=(4.0, 1.0), draws=1), 2, 0)
    assert sample(0, 0, 4000).weights.mean(0) == pytest.approx([0.8, 0.2], abs=0.02)


# --- the learning rate


def test_the_learning_rate_rises_linearly_then_falls_as_a_cosine_to_nothing():
    config = TrainingConfig(epochs=100, warmup=0.1, learning_rate=2.0)
    assert learning_rate(config, 5) == pytest.approx(1.0)
    assert learning_rate(config, 10) == pytest.approx(2.0)
    assert learning_rate(config, 55) == pytest.approx(1.0)
    assert learning_rate(config, 10 + 90 / 3) == pytest.approx(1 + math.cos(math.pi / 3))
    assert learning_rate(config, 100) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(config, 0) > 0, "the first step is not lost"


def test_without_warm_up_the_learning_rate_starts_at_its_top():
    assert learning_rate(TrainingConfig(epochs=10, warmup=0, learning_rate=0.3), 0) == pytest.approx(0.3)


def test_every_step_runs_at_the_scheduled_learning_rate(rates):
    job = toy_job(training={"epochs": 3})
    train(job, cpu())
    steps = len(rates) // 3
    assert steps > 1
    assert rates == [learning_rate(job.config, step / steps) for step in range(3 * steps)]


# --- the choice of the model


def judged(values: list[float], **settings: Any) -> tuple[Training, list[dict[str, torch.Tensor]], list[float]]:
    """A job whose epochs are judged by these numbers; the weights and the main metric at each evaluation."""
    states: list[dict[str, torch.Tensor]] = []
    mains: list[float] = []

    def choice(front: Front) -> float:
        states.append({k: v.clone() for k, v in job.ranker.state_dict().items()})
        mains.append(float(np.nanmean(front.main)))
        return values[len(states) - 1]

    job = replace(toy_job(training=settings), choice=choice)
    return job, states, mains


def test_the_chosen_weights_are_those_of_the_best_validation_front():
    job, states, mains = judged([0.1, 0.4, 0.2, 0.3], epochs=4, evaluations=4, patience=0)
    history = train(job, cpu())
    assert history.validation == [0.1, 0.4, 0.2, 0.3]
    assert history.best == 1
    assert history.main == pytest.approx(mains)
    assert same_tensors(job.ranker.state_dict(), states[1])
    assert not same_tensors(states[1], states[3])


def test_without_a_main_label_the_choice_goes_by_the_objectives_alone():
    assert quality(SimpleNamespace(hypervolume=0.3, hypervolume_with_main=None)) == 0.3
    assert quality(SimpleNamespace(hypervolume=0.3, hypervolume_with_main=0.2)) == 0.2


def test_of_equal_fronts_the_first_is_chosen():
    job, states, _ = judged([0.4, 0.4, 0.4], epochs=3, evaluations=3, patience=0)
    assert train(job, cpu()).best == 0
    assert same_tensors(job.ranker.state_dict(), states[0])


@pytest.mark.parametrize(("patience", "evaluations"), [(1, 3), (2, 4), (0, 8)])
def test_patience_ends_a_training_that_many_evaluations_after_the_best(patience, evaluations):
    job, states, _ = judged([0.1, 0.4, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], epochs=8, evaluations=8, patience=patience)
    history = train(job, cpu())
    assert history.epochs == list(range(1, evaluations + 1))
    assert same_tensors(job.ranker.state_dict(), states[1])


def test_evaluations_are_spread_over_the_epochs_and_the_last_epoch_has_one():
    history = train(toy_job(training={"epochs": 9, "evaluations": 3, "patience": 0}), cpu())
    assert history.epochs == [3, 6, 9]


def test_without_validation_groups_the_last_epoch_is_chosen():
    job = replace(toy_job(training={"epochs": 3, "evaluations": 3}), validation=None)
    history = train(job, cpu())
    assert (history.validation, history.best) == ([None] * 3, 2)


# --- failures


def test_a_loss_that_is_not_finite_ends_in_one_line_that_names_the_learning_rate():
    with pytest.raises(InputError) as error:
        train(toy_job(training={"learning_rate": 1e30}), cpu())
    assert is_one_line(error.value, "ranker", "epoch 1", "learning_rate", "1e+30")


# --- what repeats, and what stays untouched


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (fit_toy(seed=seed) for seed in (5, 5, 6))
    assert same_tensors(weights_of(first), weights_of(again))
    assert not same_tensors(weights_of(first), weights_of(other))
    assert same_tensors(first.base.state_dict(), again.base.state_dict())


def test_a_fit_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fit_toy()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_features_streamed_from_the_table_train_the_same_weights_as_those_in_memory(monkeypatch):
    resident: list[bool] = []
    real = Examples.batch
    monkeypatch.setattr(
        Examples, "batch", lambda self, *a: (resident.append(self.features.resident), real(self, *a))[1]
    )
    in_memory = fit_toy()
    assert all(resident)
    resident.clear()
    streamed = fit_toy(resident_gib=0)
    assert resident
    assert not any(resident)
    assert same_tensors(weights_of(in_memory), weights_of(streamed))
    assert timeless(in_memory.metrics) == timeless(streamed.metrics)


@pytest.mark.parametrize(("batch", "most"), [({"min_batches": 10}, None), ({"batch_items": 15}, 15)])
def test_the_batch_is_small_where_the_data_is_small(rates, batch, most):
    """At least ``min_batches`` batches in an epoch, unless single groups are larger than that."""
    job = toy_job(training={"epochs": 1, **batch})
    train(job, cpu())
    sizes = job.train.sizes
    most = most or max(job.train.num_items // 10, int(sizes.max()))
    assert len(rates) == len(shuffled_batches(sizes, most, np.random.default_rng(0)))


# --- what is learned


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"parametrization": "mixture"},
        {"parametrization": "augmentation"},
        {"parametrization": "temperature"},
        {"scorer": {"kind": "mlp", "width": 16}},
        {"scorer": {"conditioning": "head"}},
        {"training": {"penalty": 0.3}},
    ],
    ids=["scratch", "mixture", "augmentation", "temperature", "mlp", "head", "penalty"],
)
def test_more_weight_on_an_objective_makes_it_better_on_held_out_groups(settings):
    table = toy_table(120)
    budget = {
        "parametrization": "scratch",
        "scorer": {"width": 16},
        "training": {"epochs": 40, "sampling_factor": 1, "learning_rate": 5e-3, "min_batches": 8},
        "base_training": {"epochs": 10},
    }
    run = fit_toy(table, **merged(budget, settings))
    at_a, at_b = vertex_metrics(run, table)
    assert at_a[0] > at_b[0] + 0.02, "NDCG of a"
    assert at_b[1] > at_a[1] + 0.02, "NDCG of b"
