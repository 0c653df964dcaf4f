"""Parametrisations: mixture and temperature answer for any weights and temperatures, as the mathematics says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import cpu, fit_toy, is_one_line, read, same_tensors, toy_config, toy_table, vertex_metrics

from hyperdpo.core.control import linear_transformation
from hyperdpo.core.losses import listnet_dpo_loss, scalarise
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import MixtureConfig, ScorerConfig, merged
from hyperdpo.ranking.examples import LabelledBatch
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.parametrizations import MixtureRanker, Ranker, TemperatureRanker
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import CHOICE_POINTS, quality

G, N, F, M = 3, 6, 4, 2
CONFIG = ScorerConfig(width=8)
#: A third of a second, and enough to learn toy data.
LEARNS: dict[str, Any] = {"parametrization": "scratch", "training": {"epochs": 10, "learning_rate": 0.01}}


def batch(seed: int = 0) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(N) < torch.tensor([[6], [4], [2]])
    targets = torch.rand(G, M, N, generator=generator).masked_fill(~mask.unsqueeze(1), 0)
    return LabelledBatch(
        torch.randn(G, N, F, generator=generator),
        mask,
        torch.randn(G, N, generator=generator).masked_fill(~mask, 0),
        targets / targets.sum(-1, keepdim=True),
        torch.ones(G, M, dtype=torch.bool),
    )


def weights(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).unsqueeze(1).expand(-1, G, -1)


def centred(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores up to a shift per group, 0 on padding."""
    mean = (scores * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    return (scores - mean) * mask


def made(kind: str) -> Ranker:
    torch.manual_seed(3)
    if kind == "mixture":
        return MixtureRanker(CONFIG, F, M).eval()
    ranker = TemperatureRanker(CONFIG, F, M, augmentation=kind == "augmentation").eval()
    torch.nn.init.normal_(ranker.scorer.out.weight)
    return ranker


@pytest.mark.parametrize("kind", ["mixture", "augmentation", "scratch"])
@torch.no_grad()
def test_multiplying_all_temperatures_is_the_linear_transformation(kind):
    """Eq. (19) and the closed form agree with Eq. (14) to rounding: the model at c β is the model at β, scaled by c."""
    one, ranker = batch(), made(kind)
    w = weights([1.0, 0.0], [0.3, 0.7], [0.0, 1.0])
    for betas in ([1.0, 1.0], [0.5, 2.0]):
        for c in (0.5, 3.0):
            direct = ranker.scores(one, w, [c * beta for beta in betas])
            scaled = linear_transformation(ranker.scores(one, w, betas), one.base_scores, c)
            torch.testing.assert_close(centred(direct, one.mask), centred(scaled, one.mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["augmentation", "scratch"])
@torch.no_grad()
def test_the_temperature_network_sees_the_shape_of_the_temperatures(kind):
    one, ranker = batch(), made(kind)
    w = weights([0.5, 0.5])
    first, second = (ranker.scores(one, w, betas) for betas in ([0.5, 1.5], [1.5, 0.5]))
    assert not torch.allclose(centred(first, one.mask), centred(second, one.mask))


@torch.no_grad()
def test_a_temperature_ranker_by_augmentation_starts_at_the_base():
    one = batch()
    ranker = TemperatureRanker(CONFIG, F, M, augmentation=True)
    torch.testing.assert_close(ranker.scores(one, weights([0.2, 0.8]), [0.7, 1.9])[0], one.base_scores)


def test_a_heads_loss_is_the_cross_entropy_with_its_own_targets():
    one, ranker = batch(), made("mixture")
    heads = ranker(one)
    for g, items in enumerate([6, 4, 2]):
        for j in range(M):
            expected = -(one.targets[g, j, :items] * heads[g, j, :items].log_softmax(-1)).sum()
            torch.testing.assert_close(ranker.losses(heads, one, ())[g, j], expected)


def smoothed(smoothing: float, betas: list[float], spread: float = 3.0) -> MixtureRanker:
    torch.manual_seed(3)
    settings = MixtureConfig(distillation=0.5, smoothing=smoothing)
    return MixtureRanker(CONFIG, F, M, settings, betas, base_spread=spread).eval()


def test_the_head_of_the_base_adds_its_cross_entropy_with_the_scaled_base_to_every_loss():
    one, ranker = batch(), smoothed(0.5, [1.0, 1.0])
    output = ranker(one)
    assert output.shape == (G, M + 1, N)
    for g, items in enumerate([6, 4, 2]):
        base = (one.base_scores[g, :items] / 3).softmax(-1)
        expected = -(base * output[g, M, :items].log_softmax(-1)).sum()
        for j in range(M):
            own = -(one.targets[g, j, :items] * output[g, j, :items].log_softmax(-1)).sum()
            torch.testing.assert_close(ranker.losses(output, one, ())[g, j], own + 0.5 * expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@torch.no_grad()
def test_smoothed_scores_start_between_the_base_and_what_was_learned_of_it(smoothing):
    """At w = e_j and the temperatures of the training: s = (1 - γ) s_base + γ u_0 + u_j / β_j."""
    one, betas = batch(), [0.5, 2.0]
    ranker = smoothed(smoothing, betas)
    output = ranker(one)
    start = (1 - smoothing) * one.base_scores + smoothing * 3 * output[:, M]
    for j in range(M):
        w = [0.0, 0.0]
        w[j] = 1.0
        found = ranker.scores(one, weights(w), betas)[0]
        expected = start + output[:, j] / betas[j]
        torch.testing.assert_close(centred(found, one.mask), centred(expected, one.mask), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_smoothing_keeps_the_closed_form():
    """exp(s - s_base) at w is the mixture of those at the vertices, and (14) holds to rounding."""
    one, ranker = batch(), smoothed(0.5, [1.0, 1.0])
    ends, inside = (ranker.scores(one, weights(*rows), [1.0, 1.0]) for rows in ([[1.0, 0], [0, 1.0]], [[0.3, 0.7]]))
    masses = [((s - one.base_scores).exp() * one.mask) for s in (*ends, *inside)]
    torch.testing.assert_close(masses[2], 0.3 * masses[0] + 0.7 * masses[1], rtol=1e-4, atol=1e-6)
    w = weights([0.3, 0.7])
    scaled = linear_transformation(ranker.scores(one, w, [0.5, 2.0]), one.base_scores, 2.0)
    direct = ranker.scores(one, w, [1.0, 4.0])
    torch.testing.assert_close(centred(direct, one.mask), centred(scaled, one.mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("betas", [[1.0, 1.0], [0.5, 2.0]])
@torch.no_grad()
def test_no_other_scores_have_a_lower_loss_against_what_the_heads_expect(betas):
    """If the heads were the targets, the mixture would be the minimiser: any small change makes it worse."""
    one, ranker = batch(), made("mixture")
    expected = ranker(one).masked_fill(~one.mask.unsqueeze(1), -1e9).softmax(-1)
    for w in ([1.0, 0.0], [0.4, 0.6]):
        scores = ranker.scores(one, weights(w), betas)[0]

        def loss(s: torch.Tensor, w: list[float] = w) -> torch.Tensor:
            return scalarise(listnet_dpo_loss(s, one.base_scores, expected, one.mask, betas), torch.tensor(w))

        least = loss(scores)
        for seed in range(20):
            noise = 0.1 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed))
            assert (loss(scores + noise) >= least - 1e-6).all()


@torch.no_grad()
def test_several_draws_of_a_group_are_the_draws_one_by_one():
    one = batch()
    for conditioning in ("input", "modulation", "head"):
        torch.manual_seed(0)
        ranker = Ranker(ScorerConfig(width=8, conditioning=conditioning), F, M).eval()
        for parameter in ranker.parameters():
            torch.nn.init.normal_(parameter)
        w = weights([1.0, 0.0], [0.3, 0.7])
        together = ranker(one, w)
        assert together.shape == (2, G, N)
        for k in range(2):
            torch.testing.assert_close(together[k], ranker(one, w[k]), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(centred(together[0], one.mask), centred(together[1], one.mask))


# --- through a run


def test_what_is_to_be_chosen_is_what_the_validation_front_is_best_with(tmp_path):
    """The run answers with it, and so does the run that is read again; the configuration keeps what it was chosen
    from."""
    table = toy_table()
    run = fit_toy(table, out=tmp_path / "run", mixture={"smoothing": [0.0, 0.5, 1.0], "power": [0.5, 1.0]})
    examples, values = run.examples(run.part(table, "validation")[1]), {}
    chosen = run.ranker.chosen
    for candidate in run.ranker.candidates[0]:
        run.ranker.use(**candidate)
        values[tuple(candidate.values())] = quality(run.front(examples, weight_grid(2, CHOICE_POINTS)))
    assert set(values) == {(s, p) for s in (0.0, 0.5, 1.0) for p in (0.5, 1.0)}
    best = max(values, key=lambda one: values[one])
    run.ranker.use(**chosen)
    assert (run.ranker.smoothing, run.ranker.power) == best
    assert read(tmp_path / "run" / "run.json")["chosen"] == dict(zip(("smoothing", "power"), best, strict=True))
    loaded = RankRun.load(tmp_path / "run")
    assert (loaded.ranker.smoothing, loaded.ranker.power) == best
    assert (loaded.config.mixture.smoothing, loaded.config.mixture.power) == ((0.0, 0.5, 1.0), (0.5, 1.0))
    _, part = run.part(table)
    np.testing.assert_array_equal(loaded.score(part, [0.3, 0.7]), run.score(part, [0.3, 0.7]))


def test_a_run_can_be_repeated_from_its_directory(tmp_path):
    table = toy_table()
    first = fit_toy(table, out=tmp_path / "run", mixture={"power": [0.5, 1.0]})
    config = RankRun.load(tmp_path / "run").config
    again = fit_run(config, split_table(table, config), cpu())
    assert len(again.ranker.candidates[0]) == 6
    assert again.ranker.chosen == first.ranker.chosen
    assert same_tensors(again.ranker.state_dict(), first.ranker.state_dict())


@pytest.mark.parametrize("chosen", [None, 7, {"smoothing": "much"}, {"forward": 1.0}])
def test_a_choice_that_is_none_is_refused(chosen, tmp_path):
    fit_toy(out=tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    write_json(file, {**read_json(file), "chosen": chosen}, sealed=True)
    with pytest.raises(InputError) as error:
        RankRun.load(tmp_path / "run")
    assert is_one_line(error.value, "run", "do not belong together")


def fit_blindly(without: str, out: Path, **settings: Any) -> RankRun:
    """A run that lacks something which choices are made by."""
    table = toy_table()
    base = np.zeros(table.num_rows) if without == "spread" else np.random.default_rng(0).normal(size=table.num_rows)
    if without == "main":
        settings |= {"main": None, "excluded_columns": ["relevance"]}
    if without == "validation":
        settings |= {"split": {"train": 0.8, "validation": 0.0, "test": 0.2}}
    config = toy_config(**settings)
    parts = split_table(table, config)
    given = {name: base for name in parts}
    return fit_run(config, parts, cpu(), out=out, base_source=BaseSource("given"), given_base=given)


@pytest.mark.parametrize("without", ["main", "validation", "spread"])
def test_what_cannot_be_judged_is_not_smoothed(without, tmp_path):
    run = fit_blindly(without, tmp_path / "run")
    assert run.ranker.smoothing == 0
    assert RankRun.load(tmp_path / "run").ranker.smoothing == 0
    assert run.config.mixture.smoothing == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("without", ["main", "validation", "spread"])
def test_a_single_number_is_kept_though_it_cannot_be_judged(without, tmp_path):
    run = fit_blindly(without, tmp_path / "run", mixture={"smoothing": 0.5, "power": 0.25})
    assert run.ranker.chosen == RankRun.load(tmp_path / "run").ranker.chosen == {"smoothing": 0.5, "power": 0.25}


@pytest.mark.parametrize(("powers", "taken"), [([0.25, 0.5, 1.0], 1.0), ([0.25, 0.5], 0.25)])
def test_a_power_that_cannot_be_judged_is_1_or_the_first(powers, taken, tmp_path):
    assert fit_blindly("validation", tmp_path / "run", mixture={"power": powers}).ranker.power == taken


@pytest.mark.parametrize("parametrization", ["scratch", "augmentation", "mixture", "temperature"])
def test_a_run_answers_at_other_temperatures_or_says_that_it_cannot(parametrization, tmp_path):
    table = toy_table()
    run = fit_toy(table, out=tmp_path / "run", parametrization=parametrization)
    run = RankRun.load(tmp_path / "run")
    _, part = run.part(table)
    w = [0.3, 0.7]
    np.testing.assert_allclose(
        spread(run.score(part, w, temperatures=[2.0, 2.0]), part.sizes),
        spread(run.score(part, w, 2.0), part.sizes),
        rtol=1e-3,
        atol=1e-4,
    )
    if parametrization in ("mixture", "temperature"):
        assert not np.allclose(run.score(part, w, temperatures=[0.5, 2.0]), run.score(part, w))
    else:
        with pytest.raises(InputError) as error:
            run.score(part, w, temperatures=[0.5, 2.0])
        assert is_one_line(error.value, "0.5, 2", parametrization, "multiples of 1, 1")


def spread(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Scores minus their group's mean."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return scores - (np.bincount(groups, scores) / sizes)[groups]


@pytest.mark.parametrize(
    ("fixed", "sampling"),
    [
        ({"scorer": {"conditioning": "head"}}, {"training": {"draws": 3}}),
        ({}, {"training": {"vertex_share": 0.5}}),
        ({}, {"training": {"stratified": True}}),
        ({"parametrization": "temperature"}, {"temperatures": {"low": [0.5, 1.0], "high": 2.0}}),
    ],
)
def test_every_way_of_sampling_is_another_training_that_teaches_the_ranker_its_weights(fixed, sampling):
    """Each objective's NDCG is better where it has all the weight than where it has none."""
    table, settings = toy_table(), merged(LEARNS, fixed)
    run, without = fit_toy(table, **merged(settings, sampling)), fit_toy(table, **settings)
    assert not same_tensors(run.ranker.state_dict(), without.ranker.state_dict())
    at_vertices = vertex_metrics(run, table)
    for j in range(2):
        assert at_vertices[j, j] > at_vertices[1 - j, j] + 0.02, at_vertices
    losses = run.metrics["history"]["ranker"]["losses"]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperatures": {"low": 0.0}}, ["temperatures.low is 0.0", "a number above 0"]),
        ({"temperatures": {"low": 2.0}}, ["low is 2.0 and high 1.5", "0 < low <= high"]),
        ({"temperatures": {"low": [1.0, 1.0, 1.0]}}, ["expected 2 numbers"]),
        ({"mixture": {"smoothing": [0.5, 1.5]}}, ["mixture.smoothing", "1.5", "from 0 to 1"]),
        ({"mixture": {"smoothing": []}}, ["mixture: smoothing", "empty list"]),
        ({"mixture": {"power": -1.0}}, ["mixture.power is -1.0"]),
        ({"mixture": {"power": [1.0, 4.5]}}, ["mixture.power", "4.5", "from 0 to 4"]),
        ({"mixture": {"distillation": -1.0}}, ["distillation is -1.0"]),
        ({"parametrization": "mixture", "training": {"penalty": 0.1}}, ["penalty is 0.1", "mixture"]),
        ({"training": {"vertex_share": 1.5}}, ["vertex_share is 1.5"]),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, words):
    with pytest.raises(InputError) as error:
        fit_toy(**settings)
    assert is_one_line(error.value, *words)
