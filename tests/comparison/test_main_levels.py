"""Methods at equal main scores: every method is moved to each level by its own dial, chosen on validation groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_rank_comparison import cpu, parse_entry, repeats, toy_config

from hyperdpo.comparison.commands import with_main_share
from hyperdpo.comparison.main_levels import MainLevels, common_levels, level_differences
from hyperdpo.comparison.methods import Conditioned, Trees
from hyperdpo.comparison.rank import RankTrainings
from hyperdpo.comparison.rank_measures import check_entry, compare
from hyperdpo.comparison.rank_trees import tree_scores
from hyperdpo.comparison.tables import print_rankers
from hyperdpo.errors import InputError
from hyperdpo.printing import four_digits
from hyperdpo.ranking.config import with_overrides
from hyperdpo.ranking.evaluation import evaluate_front
from hyperdpo.ranking.metrics import NdcgSettings

METHODS = ["hyperdpo:gain", "hyperdpo:mixture", "dpo-soup"]
SPLIT = {"train": 0.5, "validation": 0.25, "test": 0.25}
SETTINGS = {"gbdt": {"trees": 20, "leaves": 4, "min_items_in_leaf": 2, "threads": 1}, "split": SPLIT}
#: The base's main column: what so few groups teach of the main label may fall as its share rises.
NETWORKS = SETTINGS | {"mixture": {"learned_main": 0.0}}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    entries = [parse_entry(method) for method in METHODS]
    out = tmp_path_factory.mktemp("levels")
    return compare(toy_config(**NETWORKS), repeats(1), entries, cpu(), out, points=3, main_levels=2)


def test_all_methods_have_the_same_targets_each_with_its_dial(result):
    levels = {name: one["seeds"][0]["main_levels"] for name, one in result["methods"].items()}
    targets = [[level["target_main"] for level in found] for found in levels.values()]
    assert len(targets[0]) == 2
    assert targets[0][0] < targets[0][1]
    assert all(found == targets[0] for found in targets)
    for name, found in levels.items():
        by_share = name == "hyperdpo:gain"
        for level in found:
            assert (level["main_share"] is not None, level["scale"] is not None) == (by_share, not by_share)
        dials = [level["main_share"] if by_share else level["scale"] for level in found]
        assert dials[0] <= dials[1], "more of the dial, more of the main label"
        for level in found:
            assert 0 <= level["hypervolume_with_main"] <= level["hypervolume"] <= 1


def test_a_network_is_at_the_target_on_validation_groups(result, tmp_path):
    entries = [parse_entry(method) for method in METHODS[:2]]
    trainings = RankTrainings(repeats(1)[0], toy_config(**NETWORKS), tmp_path, cpu(), entries[0])
    levels = MainLevels(trainings, entries, 3)
    assert len(levels.targets) == 3
    for entry in entries:
        for level in levels.measured(entry, np.eye(2), trainings.validation):
            dial = level["main_share"] if level["scale"] is None else level["scale"]
            step = max(0.02, 0.02 * dial)
            around = [levels.main(entry, value) for value in (max(dial - step, 0), dial + step)]
            assert around[0] - 0.02 <= level["target_main"] <= around[1] + 0.02


def test_lightgbm_gets_a_share_for_each_level(tmp_path):
    entries = [parse_entry("hyperdpo:gbdt"), parse_entry("lightgbm-ls")]
    trainings = RankTrainings(repeats(1)[0], toy_config(**SETTINGS), tmp_path, cpu(), entries[0])
    levels = MainLevels(trainings, entries, 1)
    low, high = (levels.main(entries[1], share) for share in (0.0, 0.95))
    assert low < levels.targets[0] < high
    (found,) = levels.measured(entries[1], np.eye(2), trainings.validation)
    assert 0 < found["main_share"] < 0.95
    assert levels.main(entries[1], found["main_share"]) > low
    models = [trainings.trained(Trees(w, found["main_share"]), entries[1]).model for w in ((1.0, 0.0), (0.0, 1.0))]
    front = evaluate_front(
        tree_scores(models, trainings.validation), trainings.validation, np.eye(2), [1.0], (1.0, 1.0), NdcgSettings()
    )
    assert found["hypervolume_with_main"] == pytest.approx(front.hypervolume_with_main)


def test_lightgbm_as_a_mean_averages_two_models_that_differ(tmp_path):
    entries = [parse_entry("hyperdpo:gbdt"), parse_entry("lightgbm-ls:mean")]
    trainings = RankTrainings(repeats(1)[0], toy_config(**SETTINGS), tmp_path, cpu(), entries[0])
    validation = trainings.validation
    jobs = [Trees((0.3, 0.7), 0.2, member) for member in (0, 1)]
    one, other = (trainings.trained(job, entries[1]).model.scores(validation) for job in jobs)
    assert not np.array_equal(one, other)
    score = trainings.score(entries[1], np.array([[0.3, 0.7]]), (1.0, 1.0), validation, main_share=0.2)
    group_batch = validation.batches()[0]
    rows, mask = validation.index(group_batch)
    found = score(group_batch, validation.batch(group_batch, "cpu"))[0].numpy()
    assert found[mask] == pytest.approx(((one + other) / 2)[rows[mask]], rel=1e-5)


def test_ends_are_each_objective_alone_where_the_main_label_counts_least(result, tmp_path):
    entry = parse_entry("hyperdpo:gain")
    trainings = RankTrainings(repeats(1)[0], toy_config(**NETWORKS), tmp_path, cpu(), entry)
    score = trainings.score(entry, np.eye(2), (1.0, 1.0), trainings.test(), main_share=0.0)
    front = evaluate_front(score, trainings.test(), np.eye(2), [1.0], (1.0, 1.0), NdcgSettings())
    ends = result["methods"]["hyperdpo:gain"]["ends"]
    assert list(ends.values()) == pytest.approx(np.diag(front.metrics), abs=1e-6)


def test_more_weightings_only_where_they_need_no_trainings(result):
    for name, one in result["methods"].items():
        for level in one["seeds"][0]["main_levels"]:
            assert level["dense"]["hypervolume"] >= level["hypervolume"] - 1e-9, name
    assert "dense" in one["main_levels"][0]


def test_levels_lie_strictly_inside_what_all_methods_reach():
    assert common_levels([(0.2, 0.9), (0.5, 0.8), (0.1, 0.6)], 3) == pytest.approx([0.525, 0.55, 0.575])
    assert common_levels([(0.2, 0.4), (0.5, 0.8)], 3) == []
    assert common_levels([(np.nan, np.nan)], 3) == []


def test_the_table_of_levels_has_the_test_main_and_the_dial_beside_the_target(result, capsys):
    print_rankers(result)
    printed = capsys.readouterr().out
    first, second = (printed.index(f"hypervolume with main {title}") for title in ("at equal mean", "over the best"))
    table = printed[first:second].splitlines()
    (heads,) = (line for line in table if "target main" in line)
    targets = [level["target_main"] for level in next(iter(result["methods"].values()))["main_levels"]]
    assert [cell.strip() for cell in heads.split("┃")[2:-1]] == [f"target main {target:.3f}" for target in targets]
    for name in METHODS:
        (row,) = (line for line in table if line.startswith(f"│ {name} "))
        cells = [cell.strip() for cell in row.split("│")[2:-1]]
        for cell, level in zip(cells, result["methods"][name]["main_levels"], strict=True):
            dial = f"c {level['scale']:.3g}" if level["main_share"] is None else f"λ {level['main_share']:.3g}"
            assert cell == f"{four_digits(level['hypervolume_with_main'])}, main {level['main']:.3f}, {dial}"


def test_each_level_is_compared_with_the_best_of_the_others_repeat_by_repeat(result, capsys):
    def method(one_shot, repeats, dense=None):
        seeds = [
            {"main_levels": [{"hypervolume_with_main": volume, "dense": dense and {"hypervolume_with_main": more}}]}
            for volume, more in zip(repeats, dense or repeats, strict=True)
        ]
        return {"one_shot": one_shot, "seeds": seeds, "main_levels": [{"target_main": 0.7}]}

    methods = {
        "own": method(True, [0.5, 0.6, 0.7], [0.6, 0.6, 0.9]),
        "two": method(False, [0.1, 0.9, 0.2]),
        "best": method(False, [0.4, 0.6, 0.5]),
        "soup": method(False, [0.2, 0.2, 0.2], [0.6, 0.6, 0.6]),
    }
    (found,) = level_differences(methods)
    assert (found["of"], found["to"], found["target_main"]) == ("own", "best", 0.7)
    assert found["ratio"] == pytest.approx(1.8 / 1.5)
    assert found["difference"] == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    assert found["error"] == pytest.approx(0.1 / np.sqrt(3))  # the standard deviation of 0.1, 0 and 0.2 is 0.1
    assert found["dense"]["to"] == "soup"  # the others have no more points than before
    assert found["dense"]["ratio"] == pytest.approx(2.1 / 1.8)
    assert found["dense"]["error"] == pytest.approx(0.1 * np.sqrt(3) / np.sqrt(3))
    assert level_differences({"own": methods["own"]}) == []

    measured = result["level_differences"]
    assert [one["of"] for one in measured] == ["hyperdpo:gain"] * 2 + ["hyperdpo:mixture"] * 2
    assert {one["error"] for one in measured} == {None}  # of one repeat
    print_rankers(result)
    printed = capsys.readouterr().out
    (row,) = (line for line in printed[printed.index("over the best") :].splitlines() if "hyperdpo:gain" in line)
    assert f"{measured[0]['ratio']:.3f} × dpo-soup, {measured[0]['difference']:+.4f}" in row


def test_a_beta_that_expected_gains_do_not_use_is_told():
    config = with_overrides(toy_config(**SETTINGS), {"mixture": {"form": "gain"}, "parametrization": "mixture"})
    objectives = tuple(replace(one, beta=0.5) for one in config.objectives)
    with pytest.warns(UserWarning, match="hyperdpo:gain: expected gains have no β"):
        check_entry(replace(config, objectives=objectives), "hyperdpo:gain")


def test_a_share_that_is_given_is_that_of_all_methods_that_take_one(tmp_path):
    config = toy_config(**NETWORKS)
    entries = [parse_entry(method) for method in ("hyperdpo:gain", "hyperdpo:mixture", "lightgbm-ls")]
    with pytest.warns(UserWarning, match="no effect on hyperdpo:mixture"):
        found = with_main_share(entries, config, 0.3)
    trainings = RankTrainings(repeats(1)[0], config, tmp_path, cpu(), found[0])
    assert trainings.share(found[2])["main_share"] == 0.3
    assert trainings.config(found[0]).mixture.main_share == 0.3
    assert trainings.trained(Conditioned(), found[0]).model.chosen["main_share"] == 0.3
    with pytest.raises(InputError, match="no method takes one"):
        with_main_share(entries[1:2], config, 0.3)
