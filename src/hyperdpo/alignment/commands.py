"""What the ``hyperdpo align`` commands do: files in, files and a table out."""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from hyperdpo.alignment.bases import attending_by, load_base, tokenizer_of
from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.alignment.collation import tokenize_groups
from hyperdpo.alignment.data.report import label_lines
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import AlignmentFront
from hyperdpo.alignment.gguf_models import origin_of
from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.alignment.reporting import announce, report_steps
from hyperdpo.alignment.run import METRICS, RUN, AlignRun
from hyperdpo.alignment.settings import TRAINING, settings_of
from hyperdpo.alignment.sources import base_of, prepared, reading_of, refuse_other_settings
from hyperdpo.alignment.tables import print_front
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import training_arguments
from hyperdpo.core.point import parse_weights
from hyperdpo.core.preferences import weight_grid
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import check_writable, write_json
from hyperdpo.locks import writes_to
from hyperdpo.plots import by_scale, plot_fronts
from hyperdpo.progress import note, on_terminal
from hyperdpo.threads import use_free_cores

#: What an unfinished training is of, beside its checkpoints.
FIT = "fit.json"


@writes_to("out")
def fit_command(
    source: Path,
    model: str | None,
    out: Path,
    *,
    objectives: Sequence[str] | None = None,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] | None = None,
    skip_invalid: bool = False,
    portable: bool = False,
    cpu: bool = False,
    overwrite: bool = False,
) -> AlignRun:
    """``hyperdpo align fit``.

    Args:
        portable: the adapter is :meth:`~hyperdpo.alignment.settings.ConditioningConfig.portable`.
    """
    disable_progress_bars_without_tty()
    # Checkpoints less than a second apart are in order by their number, too, which is all that this would say.
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    settings = settings_of(config_file, overrides or {})
    if (out / RUN).exists() and not overwrite:
        raise InputError(f"{out}: there is a finished run; expected another directory, or --overwrite")
    check_writable(out)
    model = base_of(settings, model)
    reading = reading_of(settings, format, prompt_column, ignore_columns, skip_invalid)
    parts, described, chosen, _ = prepared(source, settings, objectives, reading)
    train, test = parts["train"], parts.get("test")
    arguments = TRAINING | settings.training
    if reading["skip_invalid"]:
        arguments["skip_invalid"] = True
    if cpu:
        arguments["use_cpu"] = True
    checkpoints = out / "checkpoints"
    args = training_arguments(checkpoints, {"disable_tqdm": not on_terminal(), **arguments})
    names = tuple(o.name for o in chosen)
    conditioning = settings.portable(names) if portable else settings.conditioned(names)
    held_out = parts.get("validation") or test
    if args.eval_strategy == "no":
        held_out = None  # it is measured once, at the end
    base = load_base(model, **settings.model_settings.arguments())
    attention = settings.model_settings.training_attention
    with attending_by(attention, base):  # refused now, not after the base's scores
        pass
    trainer = HyperDPOTrainer(
        base,
        args,
        train,
        held_out,
        tokenizer_of(model),
        conditioning=conditioning,
        objectives=chosen,
    )
    if test:  # measured at the end: refused here, before anything is written
        with warnings.catch_warnings():  # said when it is measured
            warnings.simplefilter("ignore")
            targets = to_targets(test, trainer.objectives)
            tokenize_groups(test, targets, cast(Any, trainer.processing_class), **trainer.limits)
    if trainer.is_world_process_zero():
        for line in label_lines(train, trainer.objectives):
            click.echo(line)
    report_steps(trainer, "train")
    told = {
        "training": {k: v for k, v in arguments.items() if k not in ("use_cpu", "disable_tqdm")},
        "conditioning": conditioning.to_dict(),
        "objectives": [asdict(o) for o in chosen],
        "data": described["fingerprint"],
        "model": [model, asdict(settings.model_settings)] if settings.model_settings != ModelSettings() else model,
    }
    if trainer.is_world_process_zero():
        if overwrite:
            (out / RUN).unlink(missing_ok=True)
            shutil.rmtree(checkpoints, ignore_errors=True)
        refuse_other_settings(checkpoints / FIT, told)
        (out / METRICS).unlink(missing_ok=True)
        write_json(checkpoints / FIT, told)
    trainer.accelerator.wait_for_everyone()
    use_free_cores()
    started = time.monotonic()
    last = last_checkpoint(checkpoints)
    if trainer.is_world_process_zero():
        announce(trainer)
    if last is not None and trainer.is_world_process_zero():
        note(f"resumed from {last}")
    trainer.check_space()
    with attending_by(attention, base):
        trainer.train(resume_from_checkpoint=last)
    seconds = time.monotonic() - started
    run = AlignRun(
        model=trainer.own_model,
        tokenizer=trainer.processing_class,  # type: ignore[arg-type]
        objectives=trainer.objectives,
        data=described,
        settings={
            "training": arguments,
            "base_model": model,
            "gguf_origin": origin_of(trainer.own_model),
            "seed": args.seed,
            "model_settings": asdict(settings.model_settings),
        },
        limits=trainer.limits,
        metrics={
            "parameters": trainer.own_model.num_parameters(),
            "train_seconds": seconds,
            "weights_per": args.weights_per,
            "history": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
        },
    )
    if trainer.is_world_process_zero():
        if test is not None and len(test):
            grid = weight_grid(len(names), max(5, len(names)))
            front = run.front(test, grid, device=str(trainer.args.device), show=True)
            run.metrics["test_front"] = front.to_dict()
            print_front(front, f"{counted(len(test), 'held-out group')}{run.base_note}")
        run.save(out)
        click.echo(f"run: {out}; {run.metrics['parameters']:,} parameters, trained in {seconds:.1f} s{run.base_note}")
    return run


def front_command(
    run_path: Path,
    source: Path,
    *,
    points: int = 11,
    scales: Sequence[float] = (1.0,),
    out: Path | None = None,
    plot: Path | None = None,
    split: str = "auto",
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] | None = None,
    skip_invalid: bool = False,
    model: str | None = None,
    cpu: bool = False,
) -> AlignmentFront:
    """``hyperdpo align front``."""
    disable_progress_bars_without_tty()
    run = AlignRun.load(run_path, model)
    preferences = run.read(
        source,
        format=format,
        prompt_column=prompt_column,
        ignore_columns=ignore_columns,
        skip_invalid=skip_invalid,
    )
    if skip_invalid:
        run.limits["skip_invalid"] = True
    name, part = run.part(preferences, split)
    use_free_cores()
    front = run.front(part, weight_grid(len(run.names), points), scales, device=best_device(cpu), show=True)
    print_front(front, f"{counted(len(part), 'group')} ({name}){run.base_note}")
    if out is not None:
        result = front.to_dict() | {
            "parameters": run.metrics["parameters"],
            "train_seconds": run.metrics["train_seconds"],
            "groups": {"split": name, "count": len(part)},
        }
        write_json(out, result)
        click.echo(f"front: {out}")
    if plot is not None:
        found = front.to_dict()
        scales_apart = {f"c = {c:g}": found | {"points": some} for c, some in by_scale(found["points"]).items()}
        plot_fronts(scales_apart, plot, what="cross-entropy error")
        click.echo(f"plot: {plot}")
    return front


def generate_command(
    run_path: Path,
    *,
    prompts: Sequence[str],
    weights: Sequence[str],
    scale: float = 1.0,
    max_new_tokens: int = 64,
    sample: bool = False,
    temperature: float | None = None,
    seed: int | None = None,
    model: str | None = None,
    as_json: bool = False,
    cpu: bool = False,
) -> list[dict[str, Any]]:
    """``hyperdpo align generate``: every prompt at every weighting, in one batch.

    Args:
        weights: each as ``.3,.7`` or ``helpful=.3,harmless=.7``.
        temperature: of the sampling; None: 1.
        seed: of the sampling; None: 0.
    """
    if not sample:
        for option, value in (("--temperature", temperature), ("--seed", seed)):
            if value is not None:
                note(f"{option} has no effect without --sample")
    disable_progress_bars_without_tty()
    run = AlignRun.load(run_path, model)
    run.model.to(best_device(cpu))
    use_free_cores()
    grid = [parse_weights(text, run.names, range(len(run.names))) for text in weights]
    rows = [(prompt, w) for prompt in prompts for w in grid]
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": sample}
    if sample:
        settings |= {"temperature": 1.0 if temperature is None else temperature, "top_k": 0}
    texts = run.generate([p for p, _ in rows], np.array([w for _, w in rows]), scale, seed=seed or 0, **settings)
    answers = [
        {"prompt": prompt, "weights": dict(zip(run.names, map(float, w), strict=True)), "scale": scale, "text": text}
        for (prompt, w), text in zip(rows, texts, strict=True)
    ]
    for answer, (prompt, w) in zip(answers, rows, strict=True):
        if as_json:
            click.echo(json.dumps(answer, ensure_ascii=False))
        else:
            shown = ", ".join(f"{name} {value:g}" for name, value in zip(run.names, w, strict=True))
            click.echo(f"--- {shown}; scale {scale:g}\n{prompt}{answer['text']}")
    return answers


def disable_progress_bars_without_tty() -> None:
    """No progress bars of transformers' own where standard error is not a terminal."""
    if not on_terminal():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
