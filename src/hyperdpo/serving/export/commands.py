"""What ``hyperdpo export`` does: it looks at what RUN is, and hands it on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperdpo.core.point import parse_weights
from hyperdpo.errors import InputError, counted
from hyperdpo.extras import require
from hyperdpo.locks import writes_to
from hyperdpo.progress import note
from hyperdpo.runs import run_kind

if TYPE_CHECKING:
    from hyperdpo.alignment.conditioning import ConditioningConfig

#: What tells an adapter's directory (no run) from others.
ADAPTER_FILE = "hyperdpo_config.json"

RANKER_FORMATS, LM_FORMATS = ("onnx", "torch", "lightgbm"), ("merged", "peft", "vertices", "gguf")
#: Formats that answer at any weights: those of a portable run.
DIAL_FORMATS = ("vertices", "gguf")


def kind_of(path: Path) -> str:
    """``rank`` or ``align``.

    Raises:
        InputError: neither a run nor an adapter's directory.
    """
    if (path / "run.json").is_file():
        kind = run_kind(path)
        if kind not in ("rank", "align"):
            raise InputError(f"{path / 'run.json'}: a run of kind {kind}; expected one of rank fit or align fit")
        return str(kind)
    if (path / ADAPTER_FILE).is_file():
        return "align"
    raise InputError(
        f"{path}: no run there; expected a directory that `hyperdpo rank fit` or `hyperdpo align fit` has completed"
    )


@writes_to("out", beside=True)
def export_command(
    run_path: Path,
    out: Path,
    *,
    format: str | None = None,
    weights: str | None = None,
    temperatures: Sequence[float] | None = None,
    main_share: float | None = None,
    model: str | None = None,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    scorers: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """``hyperdpo export``."""
    kind = kind_of(run_path)
    known = RANKER_FORMATS if kind == "rank" else LM_FORMATS
    what = "ranker" if kind == "rank" else "language model"
    chosen = known[0] if format is None else format
    if chosen not in known:
        raise InputError(f"--format: found {chosen!r}; {run_path} is a {what}, expected {' or '.join(known)}")
    rank_only = {"--beta": temperatures, "--main-share": main_share}
    foreign = {"--weights": weights, "--model": model} if kind == "rank" else rank_only
    for option, value in foreign.items():
        if value is not None:
            why = (
                "an exported ranker takes weights as inputs"
                if option == "--weights"
                else f"it has no meaning for a {what}"
            )
            raise InputError(f"{option}: {why}; leave it out")
    if chosen in DIAL_FORMATS:
        if weights is not None:
            raise InputError(f"--weights: --format {chosen} has all of them; leave it out, or use --format peft")
        _export_dial(run_path, out, chosen, model, prompts, prompts_file, scorers, overwrite)
        return
    for option, given in {"--prompt": prompts, "--prompts-file": prompts_file, "--scorer": scorers}.items():
        if given:
            raise InputError(f"{option}: --format {chosen} records no answers; expected --format vertices or gguf")
    if kind == "rank":
        _export_ranker(run_path, out, chosen, temperatures, main_share, overwrite)
    else:
        _export_lm(run_path, out, chosen, weights, model, overwrite)


def _export_ranker(
    path: Path,
    out: Path,
    format: str,
    temperatures: Sequence[float] | None,
    main_share: float | None,
    overwrite: bool,
) -> None:
    from hyperdpo.ranking.run import RankRun
    from hyperdpo.serving.export.ranker import export_ranker

    run = RankRun.load(path).use_share(main_share)
    if format == "lightgbm":
        if temperatures is not None:
            raise InputError("--beta: expected gains have no β; leave it out")
        from hyperdpo.serving.export.tree_files import DESCRIPTION, export_trees

        columns = export_trees(run, out, overwrite=overwrite)["columns"]
        listed = ", ".join(f"{column['name']} ({column['file'] or 'base scores'})" for column in columns)
        click.echo(f"{out}: {listed}; {DESCRIPTION} says how they make a ranking")
        return
    written = export_ranker(run, out, format, temperatures=temperatures, overwrite=overwrite)
    if written.difference is None:
        tried = "not tried: onnxruntime is not installed"
    else:
        tried = f"scores within {written.difference:.1g} of the run's on random lists"
    inputs, outputs = (
        ", ".join(f"{name} ({', '.join(map(str, axes))})" for name, axes in written.metadata[what].items())
        for what in ("inputs", "outputs")
    )
    click.echo(f"{written.path}, {written.metadata_path}: {inputs} -> {outputs}; {tried}")


def _export_lm(path: Path, out: Path, format: str, weights: str | None, model: str | None, overwrite: bool) -> None:
    require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.serving.export.language_model import check_directory, export_lm, load_source

    check_directory(out, overwrite=overwrite)
    disable_progress_bars_without_tty()
    conditioning = conditioning_of(path)  # before the base model is read, which takes a while
    names, point = conditioning.objectives, None
    if weights is not None:
        point = parse_weights(weights, names, range(len(names))).tolist()
    elif conditioning.is_conditioned:
        raise InputError(f"--weights: missing; expected one per objective, for {', '.join(names)}")
    source, tokenizer = load_source(path, model)
    written = export_lm(source, tokenizer, point, out, format, overwrite=overwrite)
    tokens = _about_tokens(written.metadata)
    click.echo(f"{out}: {format}{tokens}; logits within {written.difference}")


def _export_dial(
    path: Path,
    out: Path,
    format: str,
    model: str | None,
    prompts: Sequence[str],
    prompts_file: Path | None,
    scorers: Sequence[str],
    overwrite: bool,
) -> None:
    require("align")
    if format == "gguf":
        require("gguf")
    from hyperdpo.alignment.answer_sets import read_prompts
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.serving.export.dial import DIAL, export_dial, load_dial_source
    from hyperdpo.serving.export.language_model import check_directory
    from hyperdpo.serving.export.vertices import check_portable

    check_directory(out, overwrite=overwrite)
    disable_progress_bars_without_tty()
    check_portable(conditioning_of(path), format)  # before the base model is read, which takes a while
    asked = [*prompts, *([] if prompts_file is None else read_prompts(prompts_file))]
    source = load_dial_source(path, model)
    exported = export_dial(source, out, format, prompts=asked, scorers=scorers, overwrite=overwrite)
    adapters = ", ".join(f"{one['path']} ({one['objective']})" for one in exported.dial["adapters"])
    tried = ""
    if exported.difference is not None:
        tried = f"; their sums' logits are within {exported.difference}"
    click.echo(f"{out}: {adapters}; {DIAL} says how weights turn them{tried}")
    recorded = exported.dial["recorded"]
    if recorded is None:
        note("no answers are recorded: the run keeps no prompts (it is older, or no run); expected --prompt TEXT")
    else:
        click.echo(f"recorded: {counted(len(recorded['answers']), 'answer')} to compare another engine with")


def conditioning_of(path: Path) -> ConditioningConfig:
    """What of an adapter depends on w.

    Raises:
        InputError: the directory holds no adapter.
    """
    from hyperdpo.alignment.adapters import read_config
    from hyperdpo.alignment.conditioning import ConditioningConfig

    with warnings.catch_warnings():  # said when the model is read
        warnings.simplefilter("ignore")
        saved = read_config(path)
    return ConditioningConfig.from_dict(saved["conditioning"])


def _about_tokens(metadata: dict[str, Any]) -> str:
    """What is to be known about virtual tokens."""
    tokens = metadata.get("virtual_tokens")
    if not tokens:
        return ""
    margin = metadata["virtual_token_margin"]
    far = "as unlikely as the least likely one" if margin is None else f"logits {margin:.0f} below any other"
    return f", {len(tokens)} new tokens before every text ({far})"
