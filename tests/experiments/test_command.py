"""``hyperdpo experiment`` as its users type it."""

from __future__ import annotations

from helpers import read

from hyperdpo.experiments import EXPERIMENTS


def test_without_a_name_the_experiments_are_listed(command):
    for arguments in ([], ["list"]):
        found = command("experiment", *arguments)
        assert found.code == 0
        assert [line.split()[0] for line in found.out.splitlines()] == list(EXPERIMENTS)


def test_the_help_tells_real_models_apart(command):
    said = " ".join(command("experiment", "--help").out.split())
    for words in (
        "real* read a file below HYPERDPO_DATA",
        "real* need one",
        "[default: 3, or one for each fold; of real 2, of the other real* 1]",
        "real*: at most so many prompts of the file",
    ):
        assert words in said, said


def test_a_tiny_experiment_on_own_data_leaves_a_page_and_its_figures(command, generated, tmp_path):
    options = ["--data", generated[0], "--oracle", generated[1], "--small", "--seeds", "1", "--cpu"]
    found = command("experiment", "figure10a", *options, "--out", tmp_path / "reports")
    assert found.code == 0, found.err
    assert (tmp_path / "reports" / "figure10a.html").stat().st_size > 10_000
    assert read(tmp_path / "reports" / "figure10a.json")["data"]["source"] == generated[0].name


def test_mistakes_get_one_line(command, tmp_path):
    assert command("experiment", "figure99").refused("no experiment 'figure99'", "figure2a")
    missing = command("experiment", "figure2a", "--data", tmp_path / "none.txt", "--out", tmp_path / "r")
    assert missing.refused("none.txt", "no such file")
    for wrong in (["--seeds", "0"], ["--folds", "2"]):
        assert command("experiment", "figure2a", *wrong, "--small", "--out", tmp_path / "r").refused(wrong[0])
    assert not (tmp_path / "r").exists()


def test_what_is_not_installed_is_said_before_anything_is_trained(command, generated, tmp_path, monkeypatch):
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None)
    assert command("experiment", "figure2a", "--small", "--out", tmp_path / "r").refused(
        "plotly", "hyperdpo[experiments]"
    )
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--out", tmp_path / "c", "--cpu"]
    found = command(*arguments, "--methods", "hyperdpo,lightgbm-ls")
    assert found.refused("lightgbm", "hyperdpo[gbdt]")
