"""``hyperdpo demo --align``: all steps for a language model, up to text at five weightings."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from hyperdpo.alignment.bases import load_base
from hyperdpo.alignment.commands import fit_command, front_command
from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.tables import print_generated
from hyperdpo.alignment.trainer import tokenizer_of
from hyperdpo.alignment.training_config import training_arguments
from hyperdpo.core.preferences import weight_grid
from hyperdpo.files import write_atomically
from hyperdpo.locks import writes_to
from hyperdpo.printing import page_of
from hyperdpo.scorers.text_measures import measure_texts
from hyperdpo.stories.language_model import STEPS, train_demo_lm
from hyperdpo.stories.preferences import DEFAULT_OBJECTIVES, sample_preferences
from hyperdpo.threads import use_free_cores

#: Weightings at which texts are shown side by side.
SHOWN = 5
#: Texts of each prompt that the mean scores are of.
SAMPLES, TOKENS = 8, 48
TRAINING: dict[str, Any] = {"num_train_epochs": 4, "learning_rate": 1e-2, "disable_tqdm": True}


@writes_to("out")
def run_align_demo(
    out: Path, *, prompts: int = 480, seed: int = 0, steps: int = STEPS, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Train a small language model, let it write stories, score them, fine-tune it for every weighting of two scores.

    Writes ``lm``, ``data.jsonl``, ``run``, ``front.json``, ``front.png`` and ``report.html`` into ``out``.

    Args:
        prompts: beginnings of stories, a fifth of them held out.
        seed: seed of all steps.
        steps: steps of the small language model's training.
        overrides: settings of the fit.

    Returns:
        ``weights``, ``scores`` (the mean of each objective's measure at each of them) and ``texts``.

    Raises:
        InputError: the directory cannot be used, or a setting does not exist.
    """
    training = {**TRAINING, "seed": seed, **(overrides or {}).get("training", {})}
    training_arguments(out / "run", training)  # a mistake is found before anything is trained
    lm, data, run = out / "lm", out / "data.jsonl", out / "run"
    click.echo(f"1. train a small language model on generated stories: {lm}")
    use_free_cores()
    train_demo_lm(lm, seed=seed, steps=steps)
    names = " and ".join(DEFAULT_OBJECTIVES)
    click.echo(f"2. let it write {prompts} beginnings and 4 continuations of each, scored by {names}: {data}")
    base, tokenizer = load_base(lm), tokenizer_of(str(lm))
    write_preferences(sample_preferences(base, tokenizer, prompts=prompts, seed=seed), data)
    click.echo("3. fine-tune one adapter for every weighting of the two")
    settings = {**(overrides or {}), "training": training}
    fitted = fit_command(data, str(lm), run, overrides=settings, overwrite=True)
    click.echo("4. its front on held-out prompts")
    front = front_command(run, data, out=out / "front.json", plot=out / "front.png")
    click.echo(
        f"5. text at {SHOWN} weightings: the mean scores of {SAMPLES} continuations of each prompt, and examples"
    )
    found = generated_side_by_side(AlignRun.load(run), _held_out(fitted, data), seed=seed)
    print_generated(found)
    page = _report(front.to_dict(), found, fitted.metrics, (out / "front.png").read_bytes())
    write_atomically(out / "report.html", page.encode())
    click.echo(f"{out / 'report.html'}, {out / 'front.png'}, {out / 'front.json'}")
    click.echo(f"try: hyperdpo align generate {run} --weights .3,.7 --scale 2 --prompt 'Once upon a time'")
    return found


def generated_side_by_side(run: AlignRun, prompts: list[str], *, seed: int = 0, shown: int = 2) -> dict[str, Any]:
    """Sampled texts at several weightings, with the same random numbers for all.

    Args:
        prompts: all of them are continued for the mean scores, ``shown`` of them are shown.

    Returns:
        ``objectives``, ``weights`` (P, m), ``scores`` (P, m), ``prompts`` and, for each of these, ``texts`` (P).
    """
    grid = weight_grid(len(run.names), SHOWN)
    scores, texts = [], []
    many = [prompt for prompt in prompts for _ in range(SAMPLES)]
    for w in grid:
        answers = run.generate(many, w, seed=seed, max_new_tokens=TOKENS, do_sample=True, top_k=0)
        measured = measure_texts(answers, run.names)
        scores.append([float(np.mean(measured[name])) for name in run.names])
        texts.append([answers[k * SAMPLES] for k in range(min(shown, len(prompts)))])
    return {
        "objectives": list(run.names),
        "weights": grid.tolist(),
        "scores": scores,
        "prompts": prompts[:shown],
        "texts": [list(one) for one in zip(*texts, strict=True)],
    }


def _held_out(run: AlignRun, data: Path) -> list[str]:
    _, part = run.part(read_preferences(data))
    return [group.prompt for group in part.groups if isinstance(group.prompt, str)]


def _report(front: Mapping[str, Any], found: Mapping[str, Any], metrics: Mapping[str, Any], picture: bytes) -> str:
    """One self-contained page."""
    image = base64.b64encode(picture).decode()
    return page_of("align_demo.html", front=front, found=found, metrics=metrics, image=image)
