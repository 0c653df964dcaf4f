"""What ``hyperdpo align improve`` does: on-policy rounds, their table, and ``rounds.json``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
from rich.table import Table

from hyperdpo import hashing
from hyperdpo.alignment.adapters import TENSORS
from hyperdpo.alignment.answer_sets import asked, conversations, read_prompts
from hyperdpo.alignment.answers import Sampling
from hyperdpo.alignment.commands import disable_progress_bars_without_tty
from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.questions import question_of, same_questions
from hyperdpo.alignment.gguf_models import origin_of
from hyperdpo.alignment.improving import Improvement, Rounds, check_rounds
from hyperdpo.alignment.run import AlignRun, fingerprint, versions
from hyperdpo.alignment.settings import SEED, TRAINING
from hyperdpo.alignment.sources import refuse_other_settings
from hyperdpo.alignment.text_fronts import TextFront
from hyperdpo.alignment.training_config import training_arguments
from hyperdpo.data.splits import split_groups
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import check_writable, write_json
from hyperdpo.locks import writes_to
from hyperdpo.printing import console, four_digits
from hyperdpo.progress import on_terminal
from hyperdpo.scorers.registry import scorer_of
from hyperdpo.scorers.scorer import scores_of
from hyperdpo.threads import use_free_cores

#: Passes over the answers of a round and of those before it.
EPOCHS = 2
#: Settings of a training that rounds do not change, and why.
KEPT = {"beta": "the objectives of the run keep theirs", "weights": "rounds sample and train at all weightings"}
#: The result, and what the rounds are of.
RESULT, SETTINGS = "rounds.json", Path("improve") / "settings.json"
FORMAT_VERSION = 1


@writes_to("out")
def improve_command(
    run_path: Path,
    prompts_file: Path,
    scorers: Sequence[str],
    out: Path,
    *,
    rounds: int = 2,
    responses: int = 4,
    held_out: float = 0.2,
    weights_per: Literal["answer", "prompt"] = "answer",
    sample_from: Literal["model", "base"] = "model",
    data: Path | None = None,
    system: str | None = None,
    prompt_column: str | None = None,
    limit: int | None = None,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    points: int = 5,
    samples: int = 4,
    overrides: Mapping[str, Any] | None = None,
    model: str | None = None,
    cpu: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """``hyperdpo align improve``.

    Returns:
        The content of ``rounds.json``.
    """
    disable_progress_bars_without_tty()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("align improve runs in one process; expected it without accelerate launch or torchrun")
    if responses < 2:
        raise InputError(f"--responses is {responses}; expected at least 2, which training compares")
    others = [name for name in overrides or {} if name != "training"]
    if others:
        raise InputError(f"--set {others[0]} has no effect on an adapter that is there already; expected training.*")
    for name, why in KEPT.items():
        if name in (overrides or {}).get("training", {}):
            raise InputError(f"--set training.{name} has no effect here: {why}; leave it out")
    check_writable(out)
    run = AlignRun.load(run_path, model)
    check_rounds(run)
    scorer = scorer_of(scorers, [one.column for one in run.objectives])
    if scorer is None:
        names = ", ".join(run.names)
        raise InputError(f"--scorer: found none; expected one for each objective of the run ({names})")
    arguments = _arguments(run, (overrides or {}).get("training", {}), cpu)
    precision = training_arguments(out, arguments).mixed_precision
    prompts = read_prompts(prompts_file, prompt_column=prompt_column)[:limit]
    training, testing = _parts(prompts, held_out, prompts_file)
    if run.data.get("conversations", True):
        training, testing = (conversations(some, run.tokenizer, system) for some in (training, testing))
    scores_of(scorer, run.names, [asked(training[0])], ["A text."])  # a scorer of another width is refused now
    kept = None if data is None else _data(run, data)
    started = Rounds(
        scorer=scorer,
        training=training,
        testing=testing,
        how=Sampling(responses, max_new_tokens, temperature, seed, batch_size),
        points=points,
        samples=samples,
        weights_per=weights_per,
        source=sample_from,
        arguments=arguments,
        data=kept,
        precision=precision,
    )
    told = {
        "run": hashing.fingerprint((run_path / TENSORS).read_bytes().hex()),
        "prompts": hashing.fingerprint([training, testing]),
        "data": None if kept is None else fingerprint(kept),
        "scorers": list(scorers),
        "sampling": {
            "responses": responses, "max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed,
            "batch_size": batch_size, "weights_per": weights_per, "from": sample_from,
            **({} if precision == "no" else {"precision": precision}),
        },
        "measuring": {"points": points, "samples": samples},
        "training": {k: v for k, v in arguments.items() if k not in ("use_cpu", "disable_tqdm")},
    }  # fmt: skip
    if overwrite:
        _remove(out)
    refuse_other_settings(out / SETTINGS, told)
    write_json(out / SETTINGS, told)
    use_free_cores()
    found = Improvement(run, run_path, out, started, best_device(cpu))
    fronts = []
    for number in range(rounds + 1):
        if number:
            found.answers(number)
            found.train(number)
        fronts.append(found.measure(number))
        click.echo(
            f"round {number}: mean inner product {four_digits(fronts[-1].mean_inner_product)}, hypervolume "
            f"{four_digits(fronts[-1].hypervolume)}, on {counted(len(testing), 'held-out prompt')}"
        )
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "objectives": list(run.names),
        "gguf_origin": origin_of(run.model),
        "directions": {one.name: one.direction for one in run.objectives},
        "prompts": {"training": len(training), "held_out": len(testing)},
        "settings": told,
        "versions": versions(),
        "rounds": [
            {"round": number, "seconds": found.seconds(number)} | front.to_dict() for number, front in enumerate(fronts)
        ],
    }
    write_json(out / RESULT, result)
    print_rounds(fronts, result["rounds"], run.base_note)
    best = max(range(len(fronts)), key=lambda number: fronts[number].mean_inner_product)
    click.echo(f"best: {found.directory(best) if best else run_path} (round {best}); all of it: {out / RESULT}")
    return result


def print_rounds(fronts: Sequence[TextFront], rounds: Sequence[Mapping[str, Any]], base_note: str = "") -> None:
    """One row for each round, round 0 being the run before them; the title ends in ``base_note``."""
    table = Table(title=f"texts on held-out prompts{base_note}", title_justify="left")
    names = fronts[0].objectives
    headings = ["round", "mean inner product", "hypervolume", *(f"{name} at its vertex" for name in names)]
    for heading in (*headings, "seconds: sampling", "training"):
        table.add_column(heading, justify="right", overflow="fold")
    base = fronts[0].base.mean((0, 1))
    table.add_row("base", "0", "", *(four_digits(score) for score in base), "", "")
    for front, one in zip(fronts, rounds, strict=True):
        ends = [front.scores[row].mean((0, 1)) for row in front.weights.argmax(0)]
        error = "" if front.error is None else f" ± {front.error:.2g}"
        seconds = one["seconds"]
        table.add_row(
            str(one["round"]),
            f"{front.mean_inner_product:.3f}{error}",
            four_digits(front.hypervolume),
            *(four_digits(ends[j][j]) for j in range(len(names))),
            *(f"{seconds[what]:.0f}" if what in seconds else "" for what in ("sampling", "training")),
        )
    console(140).print(table)


def _arguments(run: AlignRun, given: Mapping[str, Any], cpu: bool) -> dict[str, Any]:
    """Settings of the rounds' trainings: those of the run, but for epochs and files, under those that are given."""
    fixed = {
        "num_train_epochs": EPOCHS,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "skip_invalid": True,
        "disable_tqdm": not on_terminal(),
    }
    found = {**TRAINING, "seed": SEED, **run.settings["training"], **fixed, **given}
    return found | {"use_cpu": True} if cpu else found


def _parts(prompts: Sequence[Prompt], share: float, path: Path) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on and held-out ones; those that ask the same question are on one side."""
    questions = same_questions([question_of(prompt) for prompt in prompts], [False] * len(prompts))
    try:
        parts = split_groups(max(questions) + 1, (1 - share, 0.0, share), 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    train, _, test = (set(map(int, part)) for part in parts.values())
    sides = [[p for p, q in zip(prompts, questions, strict=True) if q in side] for side in (train, test)]
    if not all(sides):
        raise InputError(
            f"{path}: {counted(len(sides[0]), 'prompt')} to train on and {len(sides[1])} held out; expected at least "
            "one of each (another --held-out)"
        )
    return sides[0], sides[1]


def _data(run: AlignRun, path: Path) -> Preferences:
    """Groups to train on beside the answers: the training part of the run's own data, all of other data."""
    if path.is_dir():
        raise InputError(f"--data {path}: found a directory; expected a file of preferences, such as its training part")
    found = run.read(path)
    own = fingerprint(found) == run.data["fingerprint"]
    return run.part(found, "train")[1] if own and "fractions" in run.data else found


def _remove(out: Path) -> None:
    """Remove what earlier rounds wrote."""
    for path in (*out.glob("round-*"), out / "base", out / SETTINGS.parent):
        shutil.rmtree(path, ignore_errors=True)
    for file in (*out.glob("data-*.safetensors"), out / RESULT):
        file.unlink(missing_ok=True)
