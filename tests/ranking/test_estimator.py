"""The estimator: the same ranker from every kind of input, as scikit-learn's users expect it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from helpers import TINY, is_one_line, read, toy_table
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import ndcg_score

from hyperdpo import HyperRanker
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective

OBJECTIVES = [{"name": "a", "target": "l1"}, "b"]
NAMES = [f"f{i}" for i in range(6)]


def parts(seed: int = 0) -> dict[str, Any]:
    """Toy data as arrays."""
    table = toy_table(seed=seed)
    return {
        "X": np.column_stack([table.column(name) for name in NAMES]),
        "y": table.column("relevance"),
        "qid": np.repeat(table.qids, table.group_sizes),
        "labels": {"a": table.column("a"), "b": table.column("b")},
    }


def ranker(**settings: Any) -> HyperRanker:
    return HyperRanker(objectives=OBJECTIVES, device="cpu", **{**TINY, **settings})


DATA = parts()
QID = {"qid": DATA["qid"]}
NEW = parts(seed=4)


@pytest.fixture(scope="module")
def fitted() -> HyperRanker:
    return ranker().fit(**DATA)


def refusal(action: Any) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert is_one_line(error.value)
    return str(error.value)


# --- kinds of input

KINDS = {
    "pandas": (lambda columns: pd.DataFrame(columns), pd.Series),
    "polars": (lambda columns: pl.DataFrame(columns), pl.Series),
    "arrow": (lambda columns: pa.table(columns), pa.array),
    "lists": (lambda columns: np.column_stack(list(columns.values())).tolist(), list),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_trains_and_scores_the_same(fitted, kind):
    frame, column = KINDS[kind]
    X = frame(dict(zip(NAMES, DATA["X"].T.copy(), strict=True)))
    labels = frame(DATA["labels"])
    other = ranker().fit(X, column(DATA["y"]), qid=column(DATA["qid"]), labels=labels)
    expected = fitted.predict(DATA["X"], **QID, weights=[0.3, 0.7], scale=2.0)
    found = other.predict(X, qid=column(DATA["qid"]), weights=[0.3, 0.7], scale=2.0)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (np.float32, (len(DATA["X"]),))


def test_names_of_groups_may_be_words(fitted):
    words = np.array([f"query {q}" for q in DATA["qid"]])
    np.testing.assert_array_equal(
        fitted.predict(DATA["X"], qid=words), fitted.predict(DATA["X"], qid=words.astype(object))
    )
    np.testing.assert_array_equal(fitted.predict(DATA["X"], qid=words), fitted.predict(DATA["X"], **QID))


def test_the_order_of_a_frames_columns_does_not_matter_at_predict():
    frame = pd.DataFrame(DATA["X"], columns=NAMES)
    model = ranker().fit(frame, DATA["y"], qid=DATA["qid"], labels=pd.DataFrame(DATA["labels"]))
    shuffled = frame[["f3", "f0", "f5", "f1", "f4", "f2"]]
    np.testing.assert_array_equal(model.predict(shuffled, **QID), model.predict(frame, **QID))
    np.testing.assert_array_equal(model.predict(DATA["X"], **QID), model.predict(frame, **QID))
    assert list(model.feature_names_in_) == NAMES


def test_the_order_of_the_labels_columns_does_not_matter(fitted):
    labels = {"b": DATA["labels"]["b"], "a": DATA["labels"]["a"]}
    other = ranker().fit(DATA["X"], DATA["y"], **QID, labels=labels)
    np.testing.assert_array_equal(other.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


def test_an_array_of_labels_has_the_order_of_the_objectives(fitted):
    labels = np.column_stack([DATA["labels"]["a"], DATA["labels"]["b"]])
    other = ranker().fit(DATA["X"], DATA["y"], **QID, labels=labels)
    assert other.objectives_ == ("a", "b")
    np.testing.assert_array_equal(other.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


@pytest.mark.parametrize("name", ["main", "base", "relevance", "a"])
def test_a_feature_may_have_any_name(fitted, name):
    """Also one that the estimator uses for itself: the model must be the same."""
    columns = [name, *NAMES[1:]]
    frame = pd.DataFrame(DATA["X"], columns=columns)
    other = ranker().fit(frame, DATA["y"], qid=DATA["qid"], labels=DATA["labels"])
    assert list(other.feature_names_in_) == columns
    np.testing.assert_array_equal(other.predict(frame, **QID), fitted.predict(DATA["X"], **QID))


def test_objectives_are_names_mappings_or_objects(fitted):
    objects = [Objective(name="a", target="l1"), Objective(name="b")]
    other = HyperRanker(objectives=objects, device="cpu", **TINY).fit(**DATA)
    np.testing.assert_array_equal(other.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


def test_without_objectives_every_label_is_one():
    model = HyperRanker(device="cpu", **TINY).fit(**DATA)
    assert model.objectives_ == ("a", "b")
    assert [o.target for o in model.run_.config.objectives] == ["l1", "softmax"]  # most of a is 0


# --- weights and scale


def test_weights_per_group_score_as_calls_of_their_own(fitted):
    groups = len(np.unique(NEW["qid"]))
    weights = np.random.default_rng(0).dirichlet([1, 1], groups)
    together = fitted.predict(NEW["X"], qid=NEW["qid"], weights=weights)
    for g in (0, 7, groups - 1):
        rows = NEW["qid"] == g
        alone = fitted.predict(NEW["X"][rows], qid=NEW["qid"][rows], weights=weights[g])
        np.testing.assert_allclose(together[rows], alone, rtol=1e-4, atol=1e-5)


def test_weights_may_be_a_mapping_where_others_are_nothing(fitted):
    by_name = fitted.predict(NEW["X"], qid=NEW["qid"], weights={"b": 1.0})
    np.testing.assert_array_equal(by_name, fitted.predict(NEW["X"], qid=NEW["qid"], weights=[0, 1]))


def test_left_out_weights_are_equal(fitted):
    rows = {"X": NEW["X"], "qid": NEW["qid"]}
    np.testing.assert_array_equal(fitted.predict(**rows), fitted.predict(**rows, weights=[0.5, 0.5]))


def test_rows_without_qid_are_refused_rather_than_scored_as_one_list(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    for model in (fitted, HyperRanker.load(tmp_path / "run")):
        message = refusal(lambda model=model: model.predict(NEW["X"]))
        assert message.startswith(f"qid: missing for {len(NEW['X'])} rows")
        assert "np.zeros" in message


def test_a_single_list_has_a_constant_qid_and_a_single_row_needs_none(fitted):
    X = NEW["X"][NEW["qid"] == 0]
    np.testing.assert_array_equal(fitted.predict(X, qid=np.zeros(len(X))), fitted.predict(X, qid=["q"] * len(X)))
    np.testing.assert_array_equal(fitted.predict(X[:1]), fitted.predict(X[:1], qid=[7]))


def test_a_ranker_fitted_on_one_list_takes_rows_without_qid():
    first = DATA["qid"] == DATA["qid"][0]
    labels = {name: values[first] for name, values in DATA["labels"].items()}
    X, y = DATA["X"][first], DATA["y"][first]
    model = ranker(validation_fraction=0.0).fit(X, y, qid=np.zeros(len(X)), labels=labels)
    np.testing.assert_array_equal(model.predict(X), model.predict(X, qid=np.zeros(len(X))))


def test_weights_and_scale_move_the_scores(fitted):
    def scores(**settings):
        return fitted.predict(NEW["X"], qid=NEW["qid"], **settings)

    assert not np.allclose(scores(weights=[1, 0]), scores(weights=[0, 1]))
    assert not np.allclose(scores(scale=1), scores(scale=3))


# --- scikit-learn


def test_parameters_are_got_set_and_cloned():
    model = ranker(seed=3, validation_fraction=0.3)
    assert model.get_params()["seed"] == 3
    assert set(model.get_params()) >= {"objectives", "parametrization", "scorer", "training", "base_scorer", "metric"}
    assert model.set_params(seed=4) is model
    twin = clone(model)
    assert twin is not model
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "run_")


def test_a_clone_of_a_fitted_ranker_is_not_fitted_and_fits_to_the_same(fitted):
    twin = clone(fitted)
    with pytest.raises(NotFittedError):
        twin.predict(DATA["X"])
    twin.fit(**DATA)
    np.testing.assert_array_equal(twin.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


def test_fit_returns_the_ranker_and_leaves_its_parameters_alone():
    model = ranker()
    before = repr(model.get_params())
    assert model.fit(**DATA) is model
    assert repr(model.get_params()) == before
    assert model.n_features_in_ == 6


@pytest.mark.parametrize("call", [lambda m: m.predict(DATA["X"]), lambda m: m.save("x"), lambda m: m.front(**DATA)])
def test_what_needs_a_fit_says_so(call):
    with pytest.raises(NotFittedError, match="fit"):
        call(ranker())


def test_another_seed_is_another_model(fitted):
    other = ranker(seed=1).fit(**DATA)
    assert not np.allclose(other.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


def test_wrong_parameters_are_refused_at_fit():
    assert "training.epochz" in refusal(lambda: ranker(training={"epochz": 3}).fit(**DATA))
    assert "parametrization" in refusal(lambda: ranker(parametrization="none").fit(**DATA))
    assert "split" in refusal(lambda: ranker(validation_fraction=1.5).fit(**DATA))


# --- saved and loaded


def test_a_loaded_ranker_predicts_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    other = HyperRanker.load(tmp_path / "run")
    settings = {"qid": NEW["qid"], "weights": [0.2, 0.8], "scale": 1.5}
    np.testing.assert_array_equal(other.predict(NEW["X"], **settings), fitted.predict(NEW["X"], **settings))
    assert other.objectives_ == fitted.objectives_
    assert read(tmp_path / "run" / "run.json")["kind"] == "rank"


def test_a_loaded_ranker_can_be_cloned_and_fitted_again(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    again = clone(HyperRanker.load(tmp_path / "run")).fit(**DATA)
    np.testing.assert_array_equal(again.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


@pytest.mark.parametrize(
    "settings",
    [
        {"mixture": {"power": [0.25, 1.0]}},
        {"parametrization": "temperature", "temperatures": {"low": [0.5, 0.8], "high": 2.0}},
    ],
)
def test_what_was_to_be_chosen_is_chosen_again_by_the_clone_of_a_loaded_ranker(settings, tmp_path):
    model = ranker(**settings).fit(**DATA)
    model.save(tmp_path / "run")
    loaded = HyperRanker.load(tmp_path / "run")
    again = clone(loaded).fit(**DATA)
    assert again.run_.config == loaded.run_.config == model.run_.config
    assert again.run_.ranker.candidates == model.run_.ranker.candidates
    for other in (loaded, again):
        np.testing.assert_array_equal(other.predict(DATA["X"], **QID), model.predict(DATA["X"], **QID))


def test_the_temperatures_of_a_hypernetwork_can_be_set():
    model = ranker(parametrization="temperature", temperatures={"low": 0.5, "high": 3.0}).fit(**DATA)
    assert model.run_.config.temperatures.box(2) == ((0.5, 0.5), (3.0, 3.0))
    assert "temperatures.lo " in refusal(lambda: ranker(temperatures={"lo": 1.0}).fit(**DATA))


def test_a_fit_with_a_directory_writes_the_run_there(tmp_path):
    model = ranker().fit(**DATA, out=tmp_path / "run")
    other = HyperRanker.load(tmp_path / "run")
    np.testing.assert_array_equal(other.predict(NEW["X"], qid=NEW["qid"]), model.predict(NEW["X"], qid=NEW["qid"]))


# --- bases and validation


def base_for(data: dict[str, Any]) -> np.ndarray:
    return data["X"][:, 1] * 2 - 1


@pytest.mark.parametrize("parametrization", ["scratch", "augmentation"])
def test_given_base_scores_are_the_base_of_the_scale(parametrization):
    model = ranker(parametrization=parametrization).fit(**DATA, base_scores=base_for(DATA))
    assert model.run_.base is None
    base = base_for(NEW)
    plain = model.predict(NEW["X"], qid=NEW["qid"], base_scores=base)
    scaled = model.predict(NEW["X"], qid=NEW["qid"], base_scores=base, scale=4.0)
    np.testing.assert_allclose(scaled, 0.75 * base + plain / 4, rtol=1e-5, atol=1e-6)


def test_base_scores_are_asked_for_only_where_they_count():
    scratch = ranker(parametrization="scratch").fit(**DATA, base_scores=base_for(DATA))
    scratch.predict(NEW["X"], qid=NEW["qid"])
    assert "base_scores" in refusal(lambda: scratch.predict(NEW["X"], qid=NEW["qid"], scale=2.0))
    for parametrization in ("augmentation", "mixture", "temperature"):
        other = ranker(parametrization=parametrization).fit(**DATA, base_scores=base_for(DATA))
        assert "base_scores" in refusal(lambda other=other: other.predict(NEW["X"], qid=NEW["qid"]))


def test_with_base_scores_the_main_label_may_be_missing():
    model = ranker().fit(DATA["X"], None, **QID, labels=DATA["labels"], base_scores=base_for(DATA))
    assert model.front(DATA["X"], **QID, labels=DATA["labels"], base_scores=base_for(DATA), points=3).main is None


def test_with_base_scores_the_main_label_may_be_the_same_everywhere():
    same = np.ones_like(DATA["y"])
    model = ranker().fit(DATA["X"], same, **QID, labels=DATA["labels"], base_scores=base_for(DATA))
    rows = {"X": NEW["X"], "qid": NEW["qid"], "base_scores": base_for(NEW)}
    np.testing.assert_allclose(model.predict(**rows, scale=1e6), rows["base_scores"], atol=1e-4)
    assert not np.allclose(model.predict(**rows, weights=[1, 0]), model.predict(**rows, weights=[0, 1]))
    assert "varies" in refusal(lambda: ranker().fit(DATA["X"], same, **QID, labels=DATA["labels"]))


def test_without_base_scores_the_main_label_is_asked_for():
    assert "main" in refusal(lambda: ranker().fit(DATA["X"], None, **QID, labels=DATA["labels"]))


def test_a_lightgbm_ranker_can_be_the_base():
    lightgbm = pytest.importorskip("lightgbm")
    sizes = np.unique(DATA["qid"], return_counts=True)[1]
    booster = lightgbm.LGBMRanker(n_estimators=5, num_leaves=4, min_child_samples=2, verbose=-1, n_jobs=1)
    booster.fit(DATA["X"], DATA["y"].astype(int), group=sizes)
    scores = {"old": booster.predict(DATA["X"]), "new": booster.predict(NEW["X"])}
    model = ranker(parametrization="augmentation").fit(**DATA, base_scores=scores["old"])
    far = model.predict(NEW["X"], qid=NEW["qid"], base_scores=scores["new"], scale=1e6)
    np.testing.assert_allclose(far, scores["new"], atol=1e-4)
    front = model.front(**NEW, base_scores=scores["new"], points=3)
    half = model.predict(NEW["X"], qid=NEW["qid"], base_scores=scores["new"], weights=[0.5, 0.5])
    groups = [NEW["qid"] == q for q in np.unique(NEW["qid"])]
    for j, gains in enumerate(NEW["labels"].values()):
        ndcg = [ndcg_score([gains[g]], [half[g]], k=10) for g in groups if gains[g].any()]
        assert front.metrics[1, j] == pytest.approx(np.mean(ndcg), abs=1e-6)


def test_an_eval_set_is_what_validates(fitted):
    evaluation = (NEW["X"], NEW["y"], NEW["qid"], NEW["labels"])
    model = ranker().fit(**DATA, eval_set=evaluation)
    assert model.run_.data["groups"] == {"train": 30, "validation": 30}
    assert model.run_.data["items"] == {"train": len(DATA["X"]), "validation": len(NEW["X"])}
    assert not np.allclose(model.predict(DATA["X"], **QID), fitted.predict(DATA["X"], **QID))


def test_an_eval_set_with_base_scores():
    evaluation = (NEW["X"], NEW["y"], NEW["qid"], NEW["labels"], base_for(NEW))
    model = ranker().fit(**DATA, base_scores=base_for(DATA), eval_set=evaluation)
    assert model.run_.data["groups"]["validation"] == 30


def test_an_eval_set_that_differs_is_refused():
    short = (NEW["X"], NEW["y"], NEW["qid"])
    assert "eval_set" in refusal(lambda: ranker().fit(**DATA, eval_set=short))
    narrow = (NEW["X"][:, :4], NEW["y"], NEW["qid"], NEW["labels"])
    assert "eval_set" in refusal(lambda: ranker().fit(**DATA, eval_set=narrow))
    without_base = (NEW["X"], NEW["y"], NEW["qid"], NEW["labels"])
    message = refusal(lambda: ranker().fit(**DATA, base_scores=base_for(DATA), eval_set=without_base))
    assert "eval_set" in message


def test_a_front_has_the_points_and_scales_asked_for(fitted):
    front = fitted.front(**NEW, points=4, scales=(1.0, 2.0))
    assert front.scales.tolist() == [1.0] * 4 + [2.0] * 4
    first, second = (fitted.front(**NEW, points=4, scales=[c]) for c in (1.0, 2.0))
    np.testing.assert_allclose(front.metrics, np.concatenate([first.metrics, second.metrics]), atol=1e-6)
    np.testing.assert_allclose(front.main, np.concatenate([first.main, second.main]), atol=1e-6)
    assert front.hypervolume >= max(first.hypervolume, second.hypervolume) > 0


def test_a_front_at_other_temperatures_is_that_of_the_scores_there():
    fitted = ranker(mixture={"form": "product"}).fit(**DATA)
    front = fitted.front(**NEW, points=3, temperatures=[0.5, 2.0])
    assert front.temperatures.tolist() == [[0.5, 2.0]] * 3
    assert not np.allclose(front.metrics, fitted.front(**NEW, points=3).metrics)
    np.testing.assert_allclose(
        fitted.front(**NEW, points=3, temperatures=[2.0, 2.0]).metrics,
        fitted.front(**NEW, points=3, scales=[2.0]).metrics,
        atol=1e-6,
    )


# --- what is refused

N = len(DATA["X"])


def changed(**what: Any) -> dict[str, Any]:
    return {**DATA, **what}


def with_nan(array: np.ndarray) -> np.ndarray:
    array = np.array(array, dtype=float)
    array[(3,) * array.ndim] = math.nan
    return array


def with_infinity(array: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(with_nan(array)), np.inf, array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(X=with_infinity(DATA["X"])), ["X", "row 3", "inf"]),
        (changed(X=DATA["X"][:-1]), ["rows"]),
        (changed(X=np.zeros((N, 2, 2))), ["X", "shape"]),
        (changed(y=with_nan(DATA["y"])), ["X: row 3: label 'relevance' is missing"]),
        (changed(y=DATA["y"][:-1]), ["rows", str(N)]),
        (changed(qid=DATA["qid"][:-1]), ["qid", str(N)]),
        (changed(qid=DATA["qid"][::-1] % 2), ["qid", "again"]),
        (changed(labels={"a": DATA["labels"]["a"]}), ["'b'", "labels"]),
        (changed(labels={**DATA["labels"], "b": with_nan(DATA["labels"]["b"])}), ["X: row 3: label 'b' is missing"]),
        (changed(labels={**DATA["labels"], "a": -DATA["labels"]["a"]}), ["'a'", "at least 0"]),
        (changed(labels={**DATA["labels"], "a": np.zeros(N)}), ["'a'", "varies"]),
        (changed(labels=np.zeros((N, 3))), ["labels", "3 columns"]),
        (changed(labels=DATA["labels"]["a"][: N - 2]), ["labels"]),
        (changed(y=np.zeros(N)), ["relevance", "varies"]),
        (changed(base_scores=with_nan(DATA["y"])), ["base_scores", "row 3"]),
        (changed(base_scores=np.zeros(3)), ["base", "3 rows"]),
    ],
    ids=[
        "infinity in X", "X too short", "X of three dimensions", "NaN in y", "y too short", "qid too short",
        "split group", "label missing", "NaN in a label", "negative label", "label without signal", "too many labels",
        "labels too short", "constant relevance", "NaN in base scores", "base scores too short",
    ],
)  # fmt: skip
def test_data_that_cannot_be_learned_from_is_refused(data, words):
    message = refusal(lambda: ranker().fit(**data))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"X": NEW["X"][:, :5]}, ["5 features", "expected 6"]),
        ({"X": with_infinity(NEW["X"])}, ["X", "row 3"]),
        ({"qid": NEW["qid"][:-2]}, ["qid"]),
        ({"qid": NEW["qid"] % 2}, ["qid", "again"]),
        ({"weights": [0.5, 0.6]}, ["weights", "sum"]),
        ({"weights": [np.float64(0.5), "half"]}, ["weights [0.5, 'half']"]),
        ({"weights": np.array([["a", "b"], ["c", "d"]])}, ["weights [['a', 'b'], ['c', 'd']]"]),
        ({"temperatures": [0.5, 1.0]}, ["temperatures", "expected gains"]),
        ({"scale": np.array(["one"])}, ["scale: found ['one']"]),
        ({"weights": [1.0]}, ["weights", "1 values", "expected 2"]),
        ({"weights": np.full((2, 2), 0.5)}, ["weights", "(2, 2)"]),
        ({"weights": {"c": 1.0}}, ["weights", "'c'", "a, b"]),
        ({"weights": {"a": 0.4}}, ["weights", "sum"]),
        ({"scale": 0}, ["scale"]),
        ({"scale": math.nan}, ["scale"]),
        ({"scale": [1.0, 2.0]}, ["scale"]),
        ({"base_scores": np.zeros(3), "scale": 2.0}, ["base scores"]),
    ],
)
def test_a_call_that_cannot_be_scored_is_refused(fitted, settings, words):
    arguments = {"X": NEW["X"], "qid": NEW["qid"], **settings}
    message = refusal(lambda: fitted.predict(**arguments))
    assert all(word in message for word in words), message


def test_a_frame_without_one_of_the_columns_is_refused():
    frame = pd.DataFrame(DATA["X"], columns=[f"feature {i}" for i in range(6)])
    model = ranker().fit(frame, DATA["y"], **QID, labels=DATA["labels"])
    renamed = frame.rename(columns={"feature 2": "feature two"})
    assert "'feature 2'" in refusal(lambda: model.predict(renamed, **QID))


def test_a_frame_without_names_of_its_own_is_taken_by_position(fitted):
    frame = pd.DataFrame(DATA["X"])
    model = ranker().fit(frame, pd.Series(DATA["y"]), **QID, labels=pd.DataFrame(DATA["labels"]))
    np.testing.assert_array_equal(model.predict(frame, **QID), fitted.predict(DATA["X"], **QID))


def test_a_feature_may_have_the_name_of_a_label():
    frame = pd.DataFrame(DATA["X"], columns=["a", "relevance", *NAMES[2:]])
    named = ranker().fit(frame, DATA["y"], **QID, labels=DATA["labels"])
    assert named.feature_names_in_.tolist() == list(frame.columns)
    plain = ranker().fit(DATA["X"], DATA["y"], **QID, labels=DATA["labels"])
    np.testing.assert_array_equal(named.predict(frame, **QID), plain.predict(DATA["X"], **QID))


def test_a_label_with_the_name_of_y_is_refused():
    labels = {"a": DATA["labels"]["a"], "relevance": DATA["labels"]["b"]}
    model = HyperRanker(["a", {"name": "b", "column": "relevance"}], device="cpu", **TINY)
    assert "'relevance' is that of y" in refusal(lambda: model.fit(DATA["X"], DATA["y"], **QID, labels=labels))


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame(DATA["X"], columns=["f0", "f0", *NAMES[2:]])
    assert "f0" in refusal(lambda: ranker().fit(frame, DATA["y"], **QID, labels=DATA["labels"]))


def test_another_fit_in_the_same_process_may_have_another_precision():
    scores = []
    for precision in ("no", "bf16", "no"):
        model = ranker(training={**TINY["training"], "precision": precision}).fit(**DATA)
        scores.append(model.predict(NEW["X"], qid=NEW["qid"]))
    first, half, again = scores
    np.testing.assert_array_equal(again, first)
    assert 0 < np.abs(half - first).max() < 0.1 * np.ptp(first)


def test_a_device_that_is_not_known_is_refused():
    assert "device" in refusal(lambda: ranker().set_params(device="gpuu").fit(**DATA))


def test_a_group_in_two_places_is_named_as_the_caller_wrote_it():
    assert "group 2 starts again" in refusal(lambda: ranker().fit(**changed(qid=np.r_[2, 3, np.full(N - 2, 2)])))
    words = ["q 2", "q 3", *["q 2"] * (N - 2)]
    assert "group 'q 2' starts again" in refusal(lambda: ranker().fit(**changed(qid=words)))


def test_a_group_without_a_name_is_refused():
    qid = np.array(DATA["qid"], dtype=object)
    qid[3] = None
    assert "row 3" in refusal(lambda: ranker().fit(**{**DATA, "qid": qid}))


def test_other_temperatures_are_an_argument_of_predict():
    model = ranker(mixture={"form": "product"}).fit(**DATA)
    assert "temperatures [0.5, 'one']" in refusal(
        lambda: model.predict(X=NEW["X"], qid=NEW["qid"], temperatures=[np.float64(0.5), "one"])
    )
    rows = {"X": DATA["X"], "qid": DATA["qid"], "weights": [0.5, 0.5]}
    assert not np.allclose(model.predict(**rows, temperatures=[0.5, 2.0]), model.predict(**rows))


# --- data as they come


def test_missing_features_are_read_and_a_column_says_which_they_are():
    rng = np.random.default_rng(0)
    X = np.where(rng.random(DATA["X"].shape) < 0.2, np.nan, DATA["X"])
    model = ranker().fit(**changed(X=X))
    assert model.run_.transform.width == 12
    scores = model.predict(X, **QID, weights=[0.5, 0.5])
    assert np.isfinite(scores).all()
    assert not np.allclose(scores, model.predict(np.nan_to_num(X), **QID, weights=[0.5, 0.5]))


def test_a_feature_that_was_never_missing_is_named_where_it_is(fitted):
    with pytest.warns(UserWarning, match="values of x0 are missing. No value of these columns was missing"):
        scores = fitted.predict(np.where(np.arange(6) == 0, np.nan, NEW["X"]), qid=NEW["qid"])
    mean = fitted.run_.transform.mean[0]  # of sign(x) log(1 + |x|) over the training rows
    typical = np.where(np.arange(6) == 0, np.sign(mean) * np.expm1(abs(mean)), NEW["X"])
    np.testing.assert_allclose(scores, fitted.predict(typical, qid=NEW["qid"]), atol=1e-4)


def test_columns_of_a_frame_that_are_no_features_are_named():
    frame = pd.DataFrame(DATA["X"], columns=[f"f{i}" for i in range(6)])
    frame = frame.sample(frac=1, random_state=0).reset_index().sort_values("index")  # numbers rows in another order
    frame["title"] = "word"
    with pytest.warns(UserWarning, match="'title': text; 'index': numbers the rows"):
        model = ranker().fit(**changed(X=frame))
    assert list(model.feature_names_in_) == [f"f{i}" for i in range(6)]
    assert model.run_.data["features_left_out"].keys() >= {"title", "index"}
    scores = model.predict(frame, **QID, weights=[0.5, 0.5])
    np.testing.assert_array_equal(scores, model.predict(frame[frame.columns[::-1]], **QID, weights=[0.5, 0.5]))
    with pytest.warns(UserWarning, match="'title'"):
        kept = ranker(keep_row_numbers=True).fit(**changed(X=frame))
    assert "index" in kept.feature_names_in_


def test_a_label_that_is_no_objective_is_no_feature():
    labels = {**DATA["labels"], "other": DATA["labels"]["b"]}
    model = HyperRanker(objectives=["a", "b"], device="cpu", **TINY).fit(**changed(labels=labels))
    assert model.n_features_in_ == 6


def test_time_stamps_are_told_apart_wherever_they_come_from():
    """Seconds since 1970 differ by less than 32-bit floats resolve."""
    seconds = np.arange(N) % 3600
    with_stamps = [np.column_stack([DATA["X"], start + seconds]) for start in (1_704_078_000.0, 0.0)]
    stamped, plain = (ranker().fit(**changed(X=X)) for X in with_stamps)
    assert stamped.run_.transform.origins[6] == 1_704_078_000
    assert not stamped.run_.transform.logs[6]
    found = stamped.run_.transform(np.column_stack([DATA["X"], seconds]).astype(np.float32))[:, 6]
    assert len(np.unique(found)) == len(np.unique(seconds))
    one = stamped.predict(with_stamps[0][:5], qid=np.zeros(5), weights=[0.5, 0.5])
    later = with_stamps[0][:5].copy()
    later[:, 6] += 1800
    assert not np.array_equal(one, stamped.predict(later, qid=np.zeros(5), weights=[0.5, 0.5]))
    assert plain.run_.transform.origins[6] == 0


def test_items_that_are_not_judged_take_no_part():
    """A label of -1, or none, on the last item of each list: the same losses and metrics as without those items."""
    objectives = [{"name": "a", "target": "l1", "unjudged": -1}, {"name": "b", "target": "softmax", "unjudged": -1}]
    labels = {name: np.array(values, dtype=float) for name, values in DATA["labels"].items()}
    for values, missing in zip(labels.values(), (-1, np.nan), strict=True):
        values[::4] = missing
    model = HyperRanker(objectives=objectives, device="cpu", **TINY).fit(**changed(labels=labels))
    reports = model.run_.data["labels"]
    assert [report["unjudged"] > 0 for report in reports] == [True, True, False]
    front = model.front(DATA["X"], DATA["y"], qid=DATA["qid"], labels=labels, points=2)
    scores = model.predict(DATA["X"], **QID, weights=front.weights[0])
    kept = np.arange(N) % 4 != 0
    expected = []
    for group in np.unique(DATA["qid"]):
        rows = (DATA["qid"] == group) & kept
        gains = labels["a"][rows]
        if gains.sum() > 0:
            expected.append(ndcg_score([gains], [scores[rows]], k=10) if rows.sum() > 1 else 1.0)
    assert front.metrics[0, 0] == pytest.approx(np.mean(expected), abs=1e-5)
