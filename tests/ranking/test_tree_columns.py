"""Expected gains by LightGBM, alone and averaged with the heads of a network."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest
import torch
from helpers import is_one_line, toy_config, toy_table

from hyperdpo.checking import check
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.data.transform import FeatureTransform, column_values
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.examples import Features, build_examples
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.gain_ranker import TREE_WEIGHTS
from hyperdpo.ranking.gains import gain_examples
from hyperdpo.ranking.labels import fit_labels
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.ranking.tree_columns import train_tree_columns


def config(kind: str, **overrides: object) -> RankConfig:
    settings = {
        "scorer": {"kind": kind, "width": 8},
        "base_scorer": {"width": 8},
        "training": {"epochs": 2},
        "base_training": {"epochs": 1},
        "gbdt": {"trees": 6, "leaves": 7, "threads": 1},
        "mixture": {"form": "gain"},
    }
    names = ["query_url_clicks", "quality"]
    return build_config(preset="mslr", objectives=names, overrides={**settings, **overrides})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees") / "data.txt"
    generate(path, 40, seed=6)
    return path


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankRun]:
    found = {}
    for kind in ("gbdt", "blend"):
        settings = config(kind)
        out = tmp_path_factory.mktemp(kind)
        fit_run(settings, split_table(read_table(data), settings), make_accelerator("no", cpu=True), out=out)
        found[kind] = RankRun.load(out)
    return found


def columns(run: RankRun, part: Part) -> np.ndarray:
    """(n, m + 1) expected gains of a part with one group."""
    examples = run.examples(part)
    with torch.inference_mode():
        return run.ranker.eval().columns(examples.batch(examples.batches()[0]))[0].T.numpy()


def test_a_column_is_what_lightgbm_predicts_from_the_relative_gains(runs, data) -> None:
    run, table = runs["gbdt"], read_table(data)
    parts = split_table(table, run.config)
    examples = {
        name: gain_examples(run.examples(parts[name]), run.config.main, run.config.metric)
        for name in ("train", "validation")
    }
    names = run.transform.columns
    rows = {name: column_values(parts[name], names, run.transform.origins) for name in examples}
    settings = dict(objective="l2", num_leaves=7, learning_rate=0.1, min_data_in_leaf=20, verbosity=-1)
    settings |= dict(seed=0, deterministic=True, force_col_wise=True, num_threads=1)
    train = lightgbm.Dataset(rows["train"], examples["train"].targets[:, 0].copy(), params=settings)
    held_out = lightgbm.Dataset(rows["validation"], examples["validation"].targets[:, 0].copy(), reference=train)
    stop = lightgbm.early_stopping(30, verbose=False)
    model = lightgbm.train(settings, train, 6, valid_sets=[held_out], callbacks=[stop])
    part = Part(table, np.array([0]))
    raw = column_values(part, names, run.transform.origins)
    share = float(run.ranker.signal_shares[0])
    np.testing.assert_allclose(columns(run, part)[:, 0] * share, model.predict(raw).clip(0, 1), rtol=1e-5)


@pytest.mark.parametrize("validated", [True, False])
def test_trees_learn_nothing_of_items_that_are_not_judged(validated) -> None:
    """a is judged on every other item, b on all, after it: the weights of a must not stay."""
    table, names = toy_table(40), tuple(f"f{i}" for i in range(6))
    objectives = [{"name": "a", "target": "l1", "unjudged": -1}, {"name": "b", "target": "softmax"}]
    gbdt = {"trees": 8, "leaves": 4, "min_items_in_leaf": 5, "threads": 1, "patience": 2}
    settings = toy_config(objectives=objectives, mixture={"form": "gain"}, scorer={"kind": "gbdt"}, gbdt=gbdt)
    parts = split_table(table, settings)
    unjudged = np.arange(table.num_rows) % 2 == 1
    if not validated:
        unjudged[parts["validation"].rows()] = True
    table.values[unjudged, table.columns.index("a")] = -1
    labels = fit_labels(settings, {"train": parts["train"]}, main_is_trained=False)[0].objectives
    rows, found = {}, {}
    for name in ("train", "validation"):
        features = Features(parts[name], FeatureTransform.fit(parts[name], names), 1e9)
        made = build_examples(parts[name], labels, None, features=features)
        found[name] = gain_examples(made, None, settings.metric)
        rows[name] = column_values(parts[name], names)
    models = train_tree_columns(found["train"], found["validation"], names, config=settings.gbdt).models
    params = dict(objective=settings.gbdt.loss, num_leaves=4, learning_rate=settings.gbdt.learning_rate)
    params |= dict(min_data_in_leaf=5, seed=0, deterministic=True, force_col_wise=True, num_threads=1, verbosity=-1)
    for j in (0, 1):
        sets: list[lightgbm.Dataset] = []
        for name, examples in found.items():
            weight = None if j else (~unjudged[parts[name].rows()]).astype(np.float32)
            label, reference = examples.targets[:, j].copy(), sets[0] if sets else None
            sets.append(lightgbm.Dataset(rows[name], label, weight=weight, reference=reference, params=params))
        more = {}
        if validated or j:
            more = dict(valid_sets=sets[1:], callbacks=[lightgbm.early_stopping(2, verbose=False)])
        expected = lightgbm.train(params, sets[0], 8, **more).predict(rows["train"])
        np.testing.assert_allclose(models[j].part_scores(parts["train"]), expected, rtol=1e-5)


def test_a_blend_is_the_weighted_mean_of_heads_and_trees(runs, data) -> None:
    run, part = runs["blend"], Part(read_table(data), np.array([1]))
    chosen = run.ranker.chosen
    assert chosen["tree_weight"] in TREE_WEIGHTS
    try:
        found = {}
        for weight in (0.0, 0.25, 1.0):
            run.ranker.use(tree_weight=weight, learned_main=1.0)
            found[weight] = columns(run, part)
        np.testing.assert_allclose(found[0.25], 0.75 * found[0.0] + 0.25 * found[1.0], rtol=1e-5)
        assert not np.allclose(found[0.0], found[1.0])
    finally:
        run.ranker.use(**chosen)


@pytest.mark.parametrize("kind", ["gbdt", "blend"])
def test_a_saved_run_scores_as_before_and_its_trees_are_lightgbms_text(runs, data, tmp_path, kind) -> None:
    run, part = runs[kind], Part.whole(read_table(data))
    scores = run.score(part, [0.4, 0.6], main_share=0.2)
    run.save(tmp_path / "run")
    files = sorted(path.name for path in (tmp_path / "run" / "trees").iterdir())
    assert files == ["0-query_url_clicks.txt", "1-quality.txt", "2-relevance.txt"]
    assert lightgbm.Booster(model_file=str(tmp_path / "run" / "trees" / files[0])).num_trees() > 0
    again = RankRun.load(tmp_path / "run")
    np.testing.assert_array_equal(again.score(part, [0.4, 0.6], main_share=0.2), scores)


@pytest.mark.parametrize("kind", ["gbdt", "blend"])
def test_trees_that_were_changed_on_purpose_have_to_be_lightgbms(runs, tmp_path, kind) -> None:
    runs[kind].save(tmp_path / "run")
    (tmp_path / "run" / "trees" / "1-quality.txt").write_text("tree\n")
    with pytest.raises(InputError, match=r"1-quality\.txt: damaged"):
        RankRun.load(tmp_path / "run")
    check(tmp_path / "run", accept=True)
    with pytest.raises(InputError, match=r"1-quality\.txt: .* not a LightGBM model") as error:
        RankRun.load(tmp_path / "run")
    assert is_one_line(error.value, "may be truncated", "fit again")
    (tmp_path / "run" / "trees" / "1-quality.txt").unlink()
    with pytest.raises(InputError, match=r"1-quality\.txt: no such file"):
        RankRun.load(tmp_path / "run")
    check(tmp_path / "run", accept=True)
    with pytest.raises(InputError, match=r"1-quality\.txt: cannot be read"):
        RankRun.load(tmp_path / "run")


def test_an_interrupted_training_does_not_train_its_trees_again(data, tmp_path, monkeypatch) -> None:
    settings, accelerator = config("blend"), make_accelerator("no", cpu=True)
    parts = split_table(read_table(data), settings)
    whole = fit_run(settings, parts, accelerator, out=tmp_path / "whole")
    train = lightgbm.train
    boosted = []
    monkeypatch.setattr(lightgbm, "train", lambda *a, **k: (boosted.append(1), train(*a, **k))[1])
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    base = tmp_path / "part" / "checkpoints" / "base.safetensors"
    base.parent.mkdir(parents=True)
    base.write_bytes((tmp_path / "whole" / "checkpoints" / "base.safetensors").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        fit_run(settings, parts, accelerator, out=tmp_path / "part")
    assert len(boosted) == 3
    monkeypatch.undo()
    monkeypatch.setattr(lightgbm, "train", lambda *_, **__: pytest.fail("trained again"))
    resumed = fit_run(settings, parts, accelerator, out=tmp_path / "part")
    assert resumed.ranker.trees.texts == whole.ranker.trees.texts
    for name, tensor in whole.ranker.state_dict().items():
        torch.testing.assert_close(resumed.ranker.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": {"form": "product"}}, r"scorer\.kind is gbdt; it needs a mixture with mixture\.form gain"),
        ({"parametrization": "scratch"}, r"scorer\.kind is gbdt; it needs a mixture with mixture\.form gain"),
        ({"base_scorer": {"kind": "gbdt"}}, r"base_scorer\.kind is gbdt; expected a network"),
    ],
)
def test_trees_are_refused_where_they_predict_nothing(data, settings, message) -> None:
    chosen = config("gbdt", **settings)
    with pytest.raises(InputError, match=message):
        fit_run(chosen, split_table(read_table(data), chosen), make_accelerator("no", cpu=True))
