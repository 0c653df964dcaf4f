"""The main label's share as one more dimension of the search, and scales only where they are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fronts import SCALES
from helpers import CLICKS, TINY, TINY_OPTIONS, fit_toy, read, toy_table

from hyperdpo import HyperRanker, InputError
from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.choice import Sample, choose_point
from hyperdpo.choosing.rankers import rank_sample, rank_space
from hyperdpo.choosing.requirements import parse_requirement
from hyperdpo.choosing.scales import SHARES
from hyperdpo.choosing.search import Space, grid, rounded
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.ranking.run import RankRun

GAIN = {"mixture": {"form": "gain"}}


def gain_sphere(m):
    """Metrics v_j / |v| of v = ((1 - λ) w, λ), main last; main^(1/c) at other scales."""

    def measure(points):
        w, c, share = points[:, :m], points[:, m], points[:, -1:]
        v = np.concatenate([(1 - share) * w, share], 1)
        values = v / np.linalg.norm(v, axis=1, keepdims=True)
        values[:, m] = values[:, m] ** (1 / c)
        return values[:, :, None] * np.ones(30)

    names = (*"abcd"[:m], "main")
    zeros = np.zeros((m + 1, 30))
    return Sample(names, (True,) * (m + 1), zeros + 1, measure, zeros, "a sphere")


def space(m, scales=SCALES, shares=SHARES):
    return Space((1.0,) * m, scales, shares=shares)


def best(sample, m, *required, **where):
    requirements = [parse_requirement(r) for r in required]
    return choose_point(sample, space(m, **where), sample.names[:m], requirements, "a")


@pytest.mark.parametrize(("m", "required", "a"), [(1, 0, 0.8), (2, 0, 0.8), (2, 0.5, 0.39**0.5), (4, 0.3, 0.55**0.5)])
def test_the_share_meets_the_closed_form(m, required, a):
    """main>=0.6 and b>=t leave sqrt(1 - 0.36 - t^2) for a."""
    found = best(gain_sphere(m), m, "main>=0.6", *([f"b>={required}"] if required else []))
    assert found.met
    assert found.metrics["a"].value == pytest.approx(a, abs=4e-3)
    assert found.scale == 1
    assert not found.scale_at_end
    v = {name: (1 - found.main_share) * w for name, w in found.weights.items()} | {"main": found.main_share}
    norm = np.linalg.norm(list(v.values()))
    assert found.to_dict()["main_share"] == found.main_share
    assert found.metrics["main"].value == pytest.approx(v["main"] / norm)


def test_other_scales_are_searched_only_where_a_requirement_is_unmet_at_1():
    sample, seen = gain_sphere(2), []

    def measure(points):
        seen.extend(points[:, 2])
        return sample.measure(points)

    watched = replace(sample, measure=measure)
    assert best(watched, 2, "main>=0.6").scale == 1
    assert set(seen) == {1.0}
    found = best(watched, 2, "main>=0.9", "a>=0.7")  # at scale 1 main is at most sqrt(0.51)
    assert found.met
    assert found.scale > 1
    assert found.metrics["a"].value >= 0.7
    only = best(watched, 2, "main>=0.6", scales=(2.0, 4.0))
    assert only.scale == 2  # the nearest to 1


def test_a_single_share_is_kept_as_it_is():
    found = best(gain_sphere(2), 2, "main>=0.1", shares=(0.123456,))
    assert found.main_share == 0.123456
    assert found.weights == {"a": 1, "b": 0}


def test_points_with_a_share_are_written_down_exactly():
    points = np.column_stack([np.random.default_rng(0).dirichlet([1, 1], 50), np.ones((50, 3)), np.linspace(-1, 2, 50)])
    found = rounded(points, space(2))
    assert (found[:, -1] == np.clip(points[:, -1].round(3), SHARES[0], SHARES[-1])).all()
    assert (rounded(found, space(2)) == found).all()
    assert grid(space(2).at_one_scale, 21).shape == (21 * len(SHARES), 6)
    assert grid(space(2), 21).shape == (5 * len(SHARES) * len(SCALES), 6)


# --- rankers


def test_points_of_expected_gains_have_the_metrics_of_the_front_and_columns_are_computed_once():
    run = fit_toy(**GAIN)
    examples = run.examples(Part.whole(toy_table()))
    calls = []
    run.ranker.scorer.features_in.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    sample, own = rank_sample(run, examples), run.ranker.chosen["main_share"]
    weights = np.array([[1, 0], [0.4, 0.6], [0, 1]])
    points = np.array([[*w, c, 1, 1, share] for share in (0, 0.3) for c in (1.0, 2.5) for w in weights])
    found = Resamples(sample.counts).means(sample.measure(points))
    assert (sample.measure(points[:, :-1]) == sample.measure(np.column_stack([points[:, :-1], np.full(12, own)]))).all()
    assert sum(calls) == len(examples.sizes)
    assert run.ranker.chosen["main_share"] == own
    for share, rows in ((0.0, found[:6]), (0.3, found[6:])):
        front = run.front(examples, weights, [1.0, 2.5], main_share=share)
        assert rows == pytest.approx(np.column_stack([front.metrics, front.main]), abs=1e-6)


def test_a_share_that_is_given_is_the_only_one():
    run = fit_toy(**GAIN)
    assert rank_space(run, (1.0, 2.0)).shares == SHARES
    assert rank_space(run, (1.0, 2.0), main_share=0.3).shares == (0.3,)
    with pytest.raises(InputError, match="main share 1"):
        rank_space(run, (1.0,), main_share=1.0)
    with pytest.raises(InputError, match="takes none"):
        rank_space(fit_toy(), (1.0,), main_share=0.3)
    assert rank_space(fit_toy(), (1.0,)).shares == ()


def test_a_share_is_found_from_the_command_line_and_repeated_by_what_is_printed(command, generated, tmp_path):
    run, out = tmp_path / "run", tmp_path / "point.json"
    options = ["--preset", "mslr", "--objectives", ",".join(CLICKS), "--cpu", *TINY_OPTIONS]
    assert command("rank", "fit", generated[0], "--out", run, "--set=mixture.form=gain", *options).code == 0
    asked = ["--require", "main>=0.5", "--maximize", CLICKS[1], "--points", 5, "--cpu"]
    done = command("choose", run, generated[0], *asked, "--out", out)
    assert done.code == 0, done.err
    point = read(out)
    assert point["best_of_all_weights"]
    assert "best of all weights in steps of 1/10,000 at this main share and scale" in done.out
    assert f"main share {point['main_share']:g}" in done.out
    assert f"--main-share {point['main_share']:g}" in point["command"]
    scores = tmp_path / "scores.txt"
    arguments = [str(generated[0]) if a == "DATA" else a for a in point["command"].split()[1:]]
    assert command(*arguments, "--cpu", "--out", scores).code == 0
    loaded, table = RankRun.load(run), read_table(generated[0])
    expected = loaded.score(
        Part.whole(table), list(point["weights"].values()), point["scale"], main_share=point["main_share"]
    )
    assert np.loadtxt(scores) == pytest.approx(table.source_order(expected), abs=1e-5)
    part = loaded.part(table, "validation")[1]
    front = loaded.front(
        loaded.examples(part), list(point["weights"].values()), [point["scale"]], main_share=point["main_share"]
    )
    assert front.main[0] == pytest.approx(point["metrics"]["main"]["value"], abs=1e-6)

    fixed = command("choose", run, generated[0], *asked, "--main-share", 0.3, "--out", out)
    assert fixed.code in (0, 1), fixed.err
    assert read(out)["main_share"] == 0.3


def test_a_ranker_of_expected_gains_chooses_from_arrays():
    table = toy_table()
    X, y, labels = table.values[:, 1:7], table.column("relevance"), {"a": table.column("a"), "b": table.column("b")}
    qid = np.repeat(table.qids, table.group_sizes)
    ranker = HyperRanker(["a", "b"], device="cpu", **TINY, **GAIN).fit(X, y, qid=qid, labels=labels)
    own = ranker.run_.ranker.chosen["main_share"]
    settings = {"maximize": "a", "points": 5, "qid": qid, "labels": labels}
    assert ranker.choose(X, y, ["b>=0.2"], main_share=0.6, **settings).main_share == 0.6
    choice = ranker.choose(X, y, ["b>=0.2", "main>=0.5"], **settings)
    assert ranker.run_.ranker.chosen["main_share"] == own
    call = choice.to_dict()["python"]
    assert f"main_share={choice.main_share:g}" in call
    scores = eval(call, {"ranker": ranker, "X": X, "qid": qid})
    at = {"scale": choice.scale, "main_share": choice.main_share}
    assert (scores == ranker.predict(X, qid=qid, weights=choice.weights, **at)).all()
