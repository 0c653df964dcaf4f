"""``hyperdpo demo --align`` in small: everything is left behind, and the same seed gives the same texts."""

from __future__ import annotations

from typing import Any

from helpers import read

from hyperdpo.alignment.run import AlignRun
from hyperdpo.stories.demo import generated_side_by_side, run_align_demo

SMALL = {"training": {"num_train_epochs": 0.5, "use_cpu": True}, "conditioning": {"prompt_tokens": 2}}


def test_the_demo_leaves_model_data_run_front_picture_and_report(tmp_path: Any, capsys: Any) -> None:
    found = run_align_demo(tmp_path, prompts=16, steps=30, overrides=SMALL)
    assert {"lm", "data.jsonl", "run", "front.json", "front.png", "report.html"} <= {p.name for p in tmp_path.iterdir()}
    assert len(read(tmp_path / "front.json")["points"]) == 11
    assert [w[0] for w in found["weights"]] == [1, 0.75, 0.5, 0.25, 0]
    assert all(len(scores) == 2 for scores in found["scores"])
    page = (tmp_path / "report.html").read_text()
    shown = capsys.readouterr().out
    for prompt, texts in zip(found["prompts"], found["texts"], strict=True):
        assert len(texts) == 5
        assert prompt.split()[0] in page
        assert prompt.split()[0] in shown
    run = AlignRun.load(tmp_path / "run")
    again = generated_side_by_side(run, found["prompts"])
    assert again == generated_side_by_side(run, found["prompts"])
    assert again["texts"] != generated_side_by_side(run, found["prompts"], seed=1)["texts"]
