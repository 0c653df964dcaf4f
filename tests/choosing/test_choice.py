"""Choosing a point under requirements: against brute force and closed forms, and from the command line."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from fronts import SCALES, chosen, sphere
from helpers import CLICKS, TINY, TINY_OPTIONS, fit_toy, is_one_line, read, toy_table
from sklearn.metrics import ndcg_score

import hyperdpo
from hyperdpo import HyperRanker, InputError
from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.choice import Sample, choose_point
from hyperdpo.choosing.cli import choose as choose_option
from hyperdpo.choosing.rankers import rank_sample, rank_space
from hyperdpo.choosing.requirements import Requirement, parse_requirement
from hyperdpo.choosing.scales import SCALE_ENDS
from hyperdpo.choosing.scales import SCALES as DEFAULT_SCALES
from hyperdpo.choosing.search import Effort, Space, grid, rounded, written_box
from hyperdpo.choosing.tables import print_choice
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.ranking.run import RankRun

# --- the optimum


def test_without_requirements_all_weight_lies_on_the_goal():
    found = chosen(sphere(3), goal="b")
    assert found.weights == {"a": 0, "b": 1, "c": 0}
    assert found.scale == 1
    assert found.met
    assert found.metrics["b"].value == pytest.approx(1)


@pytest.mark.parametrize("t", [0.3, 0.5, 0.8])
def test_two_objectives_meet_the_closed_form(t):
    """On the circle: the best a is sqrt(1 - t^2)."""
    found = chosen(sphere(2), f"b>={t}")
    assert found.metrics["b"].value >= t
    assert found.metrics["a"].value == pytest.approx(math.sqrt(1 - t**2), abs=1e-3)
    assert found.requirements[0].attainable == pytest.approx(1, abs=1e-3)


def test_three_objectives_meet_the_closed_form():
    found = chosen(sphere(3), "b>=0.3", "c>=0.6")
    assert found.metrics["a"].value == pytest.approx(math.sqrt(1 - 0.09 - 0.36), abs=5e-3)


def test_the_search_is_as_good_as_a_fine_grid():
    """On a front with steps, as those of rankings are."""

    def measure(points):
        w, c = points[:, :3], points[:, 3]
        steps = np.round(40 * np.sqrt(w) * np.exp(-(np.log(c / 1.5)[:, None] ** 2) / 9)) / 40
        main = np.round(40 * (1 - (w**2).sum(1) / (1 + np.log(c + 1)))) / 40
        return np.concatenate([steps, main[:, None]], axis=1)[:, :, None] * np.ones(4)

    names = ("a", "b", "c", "main")
    sample = Sample(names, (True,) * 4, np.ones((4, 4)), measure, np.zeros((4, 4)))
    requirements = [parse_requirement(r) for r in ("main>=0.7", "b>=0.3")]
    found = choose_point(sample, Space((1.0,) * 3, SCALES), names[:3], requirements, "a")
    weights = np.array([p for p in itertools.product(np.arange(0, 1.001, 0.02), repeat=2) if sum(p) <= 1 + 1e-9])
    weights = np.column_stack([weights, np.maximum(1 - weights.sum(1), 0)])
    points = np.concatenate(
        [
            np.column_stack([weights, np.full(len(weights), c), np.ones((len(weights), 3))])
            for c in np.geomspace(0.25, 4, 33)
        ]
    )
    values = measure(points)[:, :, 0]
    allowed = (values[:, 3] >= 0.7 - 1e-9) & (values[:, 1] >= 0.3 - 1e-9)
    assert found.met
    assert found.metrics["a"].value >= values[allowed, 0].max() - 1e-9
    assert found.points_measured < len(points) / 4


def test_temperatures_are_searched_where_they_may_be():
    """Best where the first temperature is 1.5 times its own, and the other less in proportion."""

    def measure(points):
        ratio = np.log(points[:, 3] / points[:, 4]) / 2
        return np.stack([1 - (ratio - math.log(1.5)) ** 2, points[:, 0]], axis=1)[:, :, None] * np.ones(3)

    sample = Sample(("a", "b"), (True, True), np.ones((2, 3)), measure, np.zeros((2, 3)))
    free = chosen(sample, "b>=0.5", space=Space((1.0, 1.0), SCALES, ((0.5, 2.0), (0.5, 2.0))))
    assert free.temperatures["a"] == pytest.approx(1.5, rel=0.02)
    assert free.temperatures["b"] == pytest.approx(1 / 1.5, rel=0.02)
    assert chosen(sample, space=Space((1.0, 1.0), SCALES)).temperatures == {"a": 1, "b": 1}


def test_an_error_is_minimised_under_upper_bounds():
    found = chosen(sphere(2, sign=-1.0), "b<=-0.6", maximize=False)
    assert found.metrics["a"].value == pytest.approx(-0.8, abs=1e-3)


def test_the_same_seed_gives_the_same_choice():
    noise = np.random.default_rng(0).normal(size=(2, 50)) * 0.1
    first, second, other = (chosen(sphere(2, noise), "b>=0.4", seed=s).to_dict() for s in (1, 1, 2))
    assert first == second
    assert first != other


def test_points_are_measured_in_blocks_that_fit():
    """In blocks of 7 points the choice is the same, and what differs in the scale alone comes together."""
    noise = np.random.default_rng(0).normal(size=(2, 50)) * 0.1
    whole = chosen(sphere(2, noise), "b>=0.4")
    sample, blocks = sphere(2, noise), []

    def measure(points):
        blocks.append(points)
        return sphere(2, noise).measure(points)

    effort = Effort(block_numbers=7 * sample.counts.size)
    assert chosen(replace(sample, measure=measure), "b>=0.4", effort=effort) == whole
    assert max(map(len, blocks)) == 7
    grid_weights = [tuple(row) for block in blocks[:15] for row in block[:, :2]]  # 21 weightings at 5 scales
    assert len(list(itertools.groupby(grid_weights))) == len(set(grid_weights)) == 21


# --- what cannot be met


def test_where_requirements_cannot_be_met_the_nearest_point_is_given():
    found = chosen(sphere(2), "b>=0.8", "a>=0.8", goal="a")
    assert not found.met
    assert found.metrics["a"].value == pytest.approx(math.sqrt(0.5), abs=0.01)  # as far from the one as from the other
    assert found.metrics["b"].value == pytest.approx(math.sqrt(0.5), abs=0.01)
    b, a = found.requirements
    assert b.price is None
    assert b.attainable == pytest.approx(0.6, abs=0.01)  # with a >= 0.8
    assert a.attainable == pytest.approx(0.6, abs=0.01)


def test_what_is_out_of_reach_of_all_points_is_said():
    (verdict,) = chosen(sphere(2), "b>=7").requirements
    assert verdict.attainable == pytest.approx(1)
    assert not verdict.holds


# --- what is reported


def test_a_choice_is_reported_on_the_groups_that_were_held_out():
    bad = np.zeros((2, 60))
    bad[1] = -0.2
    found = chosen(sphere(2), "b>=0.5", holdout=sphere(2, bad))
    assert found.met
    assert found.chosen_on["metrics"]["b"] == pytest.approx(0.5, abs=1e-3)
    assert found.metrics["b"].value == pytest.approx(0.3, abs=1e-3)
    assert not found.requirements[0].holds
    assert found.reported_on["groups"] == 60


def test_one_objective_has_a_scale_to_choose():
    def measure(points):
        c = points[:, 1]
        return np.stack([1 / (1 + c), 1 - np.exp(-c)], axis=1)[:, :, None] * np.ones(3)

    sample = Sample(("a", "main"), (True, True), np.ones((2, 3)), measure, np.zeros((2, 3)))
    requirement = [parse_requirement("main>=0.7")]
    found = choose_point(sample, Space((1.0,), SCALES), ("a",), requirement, "a")
    assert found.scale == pytest.approx(-math.log(0.3), abs=0.01)
    assert not found.scale_at_end
    assert choose_point(sample, Space((1.0,), SCALES), ("a",), [], "a").scale_at_end
    assert found.weights == {"a": 1}


# --- parts


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("main>=0.45", Requirement("main", ">=", 0.45)),
        (" quality <= 1e-1 ", Requirement("quality", "<=", 0.1)),
        ("accuracy:a>=b>=.5", Requirement("accuracy:a>=b", ">=", 0.5)),
    ],
)
def test_requirements_are_read(text, requirement):
    assert parse_requirement(text) == requirement


@pytest.mark.parametrize(
    "text", ["main", "main>0.4", "main=0.4", ">=0.4", "main>=", "main>=x", "main>=nan", "main>=inf", ""]
)
def test_malformed_requirements_are_refused(text):
    with pytest.raises(InputError) as error:
        parse_requirement(text)
    assert is_one_line(error.value, repr(text), "main>=0.45")


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_points_are_written_down_exactly(m):
    rng = np.random.default_rng(m)
    betas = tuple(round(b, 2) for b in rng.uniform(0.1, 2, m).tolist())
    space = Space(betas, (0.5, 16.0), written_box([b / 2 for b in betas], [b * 2 for b in betas]))
    points = np.column_stack(
        [rng.dirichlet(np.full(m, 0.3), 200), rng.uniform(0.4, 17, 200), rng.uniform(0.1, 3, (200, m))]
    )
    found = rounded(points, space)
    assert found[:, :m].sum(1) == pytest.approx(1, abs=1e-12)
    assert (found[:, :m] >= 0).all()
    assert np.abs(found[:, :m] - points[:, :m]).max() < 1e-4
    assert found[:, m].min() >= 0.5
    assert found[:, m].max() <= 16
    low, high = np.array(betas) / 2, np.array(betas) * 2
    assert ((found[:, m + 1 :] >= low - 1e-12) & (found[:, m + 1 :] <= high + 1e-12)).all() or m == 1
    assert (np.array([[float(f"{x:g}") for x in row] for row in found]) == found).all()
    assert (rounded(found, space) == found).all()
    assert (grid(space, m + 3)[0, m + 1 :] == space.betas).all()


@pytest.mark.parametrize(
    ("required", "settings", "words"),
    [
        (["z>=1"], {}, ["no metric 'z'", "a, b"]),
        ([], {"goal": "z"}, ["no metric 'z'"]),
        ([], {"maximize": False}, ["a", "maximize"]),
        ([], {"confidence": 1.0}, ["confidence", "1"]),
    ],
)
def test_what_does_not_fit_is_refused(required, settings, words):
    with pytest.raises(InputError) as error:
        chosen(sphere(2), *required, **settings)
    assert is_one_line(error.value, *words)


def test_a_metric_that_no_group_has_is_refused():
    sample = sphere(2)
    sample.counts[1] = 0
    with pytest.raises(InputError) as error:
        chosen(sample, "b>=0.1")
    assert is_one_line(error.value, "toy groups", "b", "labels")


# --- rankers


@pytest.mark.parametrize("parametrization", ["mixture", "scratch", "temperature"])
def test_a_rankers_points_have_the_metrics_of_its_front(parametrization):
    run = fit_toy(parametrization=parametrization)
    examples = run.examples(Part.whole(toy_table()))
    sample = rank_sample(run, examples)
    betas = [0.8, 1.3] if run.ranker.takes_temperatures else run.betas
    weights = np.array([[1, 0], [0.4, 0.6], [0, 1]])
    points = [[*w, c, *b] for b in (run.betas, betas) for c in (1.0, 2.5) for w in weights]
    found = Resamples(sample.counts).means(sample.measure(np.array(points)))
    for b, rows in zip((run.betas, betas), (found[:6], found[6:]), strict=True):
        front = run.front(examples, weights, [1.0, 2.5], temperatures=b)
        assert rows == pytest.approx(np.column_stack([front.metrics, front.main]), abs=1e-6)
    base = run.base_front(examples)
    assert Resamples(sample.counts).means(sample.base[None])[0] == pytest.approx([*base.metrics[0], base.main[0]])


@pytest.mark.parametrize("parametrization", ["scratch", "temperature"])
def test_what_does_not_depend_on_the_point_is_computed_once(parametrization):
    run = fit_toy(parametrization=parametrization)
    examples = run.examples(Part.whole(toy_table()))
    calls: list[int] = []
    run.ranker.scorer.features_in.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    points = np.array([[w, 1 - w, c, 1.0, b] for w in (0.0, 0.3, 1.0) for c in (1.0, 2.0) for b in (1.0, 1.1)])
    sample = rank_sample(run, examples)
    found = sample.measure(points)
    assert sample.measure(points[::-1])[::-1] == pytest.approx(found)
    assert sum(calls) == len(examples.sizes)
    calls.clear()
    forgetful = rank_sample(run, examples, kept_bytes=0)
    assert forgetful.measure(points) == pytest.approx(found)
    assert forgetful.measure(points) == pytest.approx(found)
    assert sum(calls) == 2 * len(examples.sizes)


def test_a_temperature_run_is_searched_where_it_was_trained(capsys):
    """The goal rises with b's temperature, without end; the run's own, 1, is below what was trained."""
    run = fit_toy(parametrization="temperature", temperatures={"low": [0.5, 1.2], "high": [1.5, 2.5]})
    space = rank_space(run, (1.0, 2.0))
    assert (space.box, space.trained) == (((0.5, 1.5), (1.2, 2.5)), True)
    seen = []

    def measure(points):
        seen.append(points)
        return np.stack([points[:, 4], points[:, 0]], axis=1)[:, :, None] * np.ones(30)

    sample = Sample(("a", "b"), (True, True), np.ones((2, 30)), measure, np.zeros((2, 30)))
    found = chosen(sample, "b>=0.5", space=space)
    points = np.concatenate(seen)
    assert len(points) > 100
    assert ((points[:, 3:] >= [0.5, 1.2]) & (points[:, 3:] <= [1.5, 2.5])).all()
    assert len(np.unique(points[:, 3])) > 3
    assert found.temperatures["b"] == 2.5
    assert "b" in found.temperatures_at_end
    print_choice(found)
    assert "temperature of b, 2.5, lies at an end of what the run was trained on: 1.2 to 2.5" in capsys.readouterr().out
    fixed = rank_space(run, (1.0,), fixed_temperatures=True)
    assert (fixed.box, fixed.betas) == (None, (1, 1))


def test_a_mixture_is_searched_up_to_a_factor_of_2():
    run = fit_toy(parametrization="mixture")
    space = rank_space(run, (1.0, 2.0))
    assert (space.box, space.trained) == (((0.5, 2.0), (0.5, 2.0)), False)
    assert rank_space(fit_toy(parametrization="scratch"), (1.0,)).box is None


@pytest.mark.parametrize(
    ("low", "high", "box"),
    [
        (0.67, 1.5, (0.67, 1.5)),
        (0.66666, 1.49999, (0.667, 1.49)),
        (9.996, 10.04, (10.0, 10.0)),
        (1.0001, 1.0002, (1.0001, 1.0002)),  # nothing that is written with three digits lies between
    ],
)
def test_the_ends_of_a_box_are_written_down_and_not_beyond_it(low, high, box):
    assert written_box([low], [high]) == (box,)


def test_choose_and_the_explorer_go_equally_far():
    point = pytest.importorskip("hyperdpo.explorer.point")
    assert point.CURVE_SCALES[-1] == SCALE_ENDS[1] == 16
    assert SCALE_ENDS[0] == DEFAULT_SCALES[0] == 0.5
    (option,) = [o for o in choose_option.params if o.name == "scales"]
    assert option.default == "0.5,0.7,1,1.4,2,4,8,16"
    assert [float(c) for c in option.default.split(",")] == list(DEFAULT_SCALES)


FAST = ["--points", 5, "--scales", "1,4", "--fixed-temperatures", "--cpu"]


def test_a_point_is_chosen_on_the_validation_groups(command, fitted, generated, tmp_path):
    required = ["--require", "main>=0.1", "--require", f"{CLICKS[0]}>=0.1", "--maximize", CLICKS[1]]
    done = command("choose", fitted, generated[0], *required, *FAST, "--out", tmp_path / "point.json")
    assert done.code == 0, done.err
    point = read(tmp_path / "point.json")
    assert point["met"]
    assert point["chosen_on"]["groups"] == 8
    assert "validation groups" in point["chosen_on"]["description"]
    assert set(point["metrics"]) == {*CLICKS, "main"}
    assert [r["requirement"] for r in point["requirements"]] == ["main>=0.1", f"{CLICKS[0]}>=0.1"]
    assert point["command"] in done.out
    assert point["python"] in done.out

    run = RankRun.load(fitted)
    table = hyperdpo.data.cache.read_table(generated[0])
    front = run.front(
        run.examples(run.part(table, "validation")[1]),
        list(point["weights"].values()),
        [point["scale"]],
        main_share=point["main_share"],
    )
    assert front.main[0] == pytest.approx(point["metrics"]["main"]["value"], abs=1e-6)
    arguments = [str(generated[0]) if a == "DATA" else a for a in point["command"].split()[1:]]
    assert command(*arguments, "--cpu").code == 0


def test_temperatures_of_a_mixture_are_part_of_the_command(command, product_run, generated, tmp_path):
    options = ["--maximize", CLICKS[1], "--points", 4, "--scales", "1", "--cpu", "--out", tmp_path / "p.json"]
    done = command("choose", product_run, generated[0], "--require", "main>=0.1", *options)
    assert done.code == 0, done.err
    point = read(tmp_path / "p.json")
    assert point["temperatures_searched"]
    assert point["scale"] == 1
    assert ("--beta" in point["command"]) == (point["temperature"] != [1.0, 1.0])


def test_requirements_that_cannot_be_met_end_with_exit_code_1_and_the_nearest_point(command, fitted, generated):
    done = command("choose", fitted, generated[0], "--require", "main>=1.5", "--maximize", CLICKS[0], *FAST)
    assert done.code == 1
    assert "nearest point" in done.out
    assert "main is at most" in done.out
    assert "hyperdpo rank score" in done.out


@pytest.mark.parametrize("holdout", ["test", "0.5"])
def test_groups_can_be_held_out(command, fitted, generated, tmp_path, holdout):
    options = ["--require", "main>=0.1", "--maximize", CLICKS[0], "--holdout", holdout, "--out", tmp_path / "p.json"]
    done = command("choose", fitted, generated[0], *options, *FAST)
    assert done.code == 0, done.err
    point = read(tmp_path / "p.json")
    assert point["chosen_on"]["groups"] + (0 if holdout == "test" else 4) == 8
    assert point["reported_on"]["groups"] == (8 if holdout == "test" else 4)
    assert "where chosen" in done.out


def test_a_run_and_its_groups_can_be_given_from_python(fitted, generated):
    run = RankRun.load(fitted)
    _, part = run.part(hyperdpo.data.cache.read_table(generated[0]), "validation")
    settings = {"maximize": CLICKS[0], "points": 5, "scales": [1.0], "fixed_temperatures": True, "cpu": True}
    choice = hyperdpo.choose(run, part, ["relevance>=0.1"], **settings)  # the main label by its own name
    assert choice.requirements[0].requirement.name == "main"
    again = hyperdpo.choose(fitted, generated[0], [Requirement("main", ">=", 0.1)], **settings)
    assert again.weights == choice.weights
    assert choice.to_dict()["python"].startswith("HyperRanker.load(")


def test_a_run_of_a_file_chooses_from_arrays_by_the_names_of_its_objectives(fitted, generated):
    """Its columns are those of the file; the labels of the arrays are called as the objectives are."""
    table, run = read_table(generated[0]), RankRun.load(fitted)
    labels = {o.name: table.column(o.column) for o in run.config.objectives}
    assert set(labels).isdisjoint(o.column for o in run.config.objectives)
    choice = HyperRanker.load(fitted).choose(
        table.values[:, table.column_indices(run.transform.columns)],
        table.column("relevance"),
        ["main>=0.1"],
        qid=np.repeat(table.qids, table.group_sizes),
        labels=labels,
        maximize=CLICKS[0],
        points=3,
        scales=[1.0],
        fixed_temperatures=True,
    )
    same = hyperdpo.choose(
        run, Part.whole(table), ["main>=0.1"], maximize=CLICKS[0], points=3, scales=[1.0], fixed_temperatures=True
    )
    assert choice.to_dict() == same.to_dict()


def test_what_is_printed_of_a_run_on_given_base_scores_asks_for_them(command, generated, tmp_path):
    table = read_table(generated[0])
    np.savetxt(tmp_path / "base.txt", table.column("1"))
    options = ["--preset", "mslr", "--objectives", ",".join(CLICKS), "--cpu", *TINY_OPTIONS]
    arguments = [
        "rank",
        "fit",
        generated[0],
        "--base-scores",
        tmp_path / "base.txt",
        "--out",
        tmp_path / "run",
        *options,
    ]
    assert command(*arguments).code == 0
    done = command(
        "choose", tmp_path / "run", generated[0], "--maximize", CLICKS[0], *FAST, "--out", tmp_path / "p.json"
    )
    assert done.code == 0, done.err
    point = read(tmp_path / "p.json")
    assert "--base-scores SCORES" in point["command"]
    assert point["python"].endswith(", base_scores=base_scores)")
    names = {"DATA": str(generated[0]), "SCORES": str(tmp_path / "base.txt")}
    printed = [names.get(word, word) for word in point["command"].split()[1:]]
    assert command(*printed, "--out", tmp_path / "s.txt").code == 0


def test_a_ranker_chooses_from_arrays(tmp_path):
    table = toy_table()
    X = table.values[:, 1:7]
    y, labels = table.column("relevance"), {"a": table.column("a"), "b": table.column("b")}
    qid = np.repeat(table.qids, table.group_sizes)
    ranker = HyperRanker(["a", "b"], device="cpu", **TINY).fit(X, y, qid=qid, labels=labels)
    settings = {"maximize": "a", "points": 5, "scales": [1.0, 2.0]}
    choice = ranker.choose(X, y, ["b>=0.3"], qid=qid, labels=labels, **settings)
    assert choice.met
    assert set(choice.metrics) == {"a", "b", "main"}
    scores = ranker.predict(X, qid=qid, weights=choice.weights, scale=choice.scale, main_share=choice.main_share)
    groups = [qid == q for q in table.qids]
    ndcg = [ndcg_score([labels["a"][g]], [scores[g]], k=10) for g in groups if labels["a"][g].any()]
    assert choice.metrics["a"].value == pytest.approx(np.mean(ndcg), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--maximize", "nothing"], ["no metric 'nothing'", "main"]),
        (["--maximize", "main", "--require", "nothing>=1"], ["no metric 'nothing'"]),
        (["--maximize", "main", "--require", "main>1"], ["'main>1'", "NAME>=NUMBER"]),
        ([], ["nothing to maximize", "--maximize"]),
        (["--maximize", "main", "--minimize", "main"], ["both"]),
        (["--minimize", "main"], ["larger values are better"]),
        (["--maximize", "main", "--scales", "0,1"], ["scales"]),
        (["--maximize", "main", "--holdout", "2"], ["holdout", "share"]),
        (["--maximize", "main", "--holdout", "nowhere"], ["--holdout", "nowhere"]),
        (["--maximize", "main", "--holdout", "validation"], ["holdout validation", "other groups"]),
        (["--maximize", "main", "--model", "x"], ["model", "ranker"]),
        (["--maximize", "main", "--confidence", "1.5"], ["--confidence"]),
    ],
)
def test_mistakes_get_one_line(command, fitted, generated, arguments, words):
    done = command("choose", fitted, generated[0], *arguments, "--cpu")
    assert done.refused(*words), (done.code, done.err)


def test_data_without_labels_are_refused(command, fitted, tmp_path):
    (tmp_path / "new.csv").write_text("qid,1\nq,1\nq,2\n")
    done = command("choose", fitted, tmp_path / "new.csv", "--maximize", "main", "--cpu")
    assert done.code == 2
    assert is_one_line(done.err[:-1])
    assert command("choose", tmp_path, tmp_path / "new.csv", "--maximize", "main").refused("no run there")


def test_effort_knows_how_many_weightings_suit_the_objectives():
    assert [Effort().grid_points(m) for m in (1, 2, 3, 5)] == [1, 21, 66, 126]
    assert Effort(points=2).grid_points(3) == 3
