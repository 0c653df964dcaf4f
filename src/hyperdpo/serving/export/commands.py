"""What ``hyperdpo export`` does: it looks at what RUN is, and hands it on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hyperdpo.core.point import parse_weights
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.locks import writes_to
from hyperdpo.runs import run_kind

#: What tells an adapter's directory (no run) from others.
ADAPTER_FILE = "hyperdpo_config.json"

RANKER_FORMATS, LM_FORMATS = ("onnx", "torch", "lightgbm"), ("merged", "peft")


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
    from hyperdpo.alignment.adapters import read_config
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.alignment.conditioning import ConditioningConfig
    from hyperdpo.serving.export.language_model import check_directory, export_lm, load_source

    check_directory(out, overwrite=overwrite)
    disable_progress_bars_without_tty()
    with warnings.catch_warnings():  # said when the model is read
        warnings.simplefilter("ignore")
        saved = read_config(path)
    # Before the base model is read, which takes a while.
    conditioning = ConditioningConfig.from_dict(saved["conditioning"])
    names, point = conditioning.objectives, None
    if weights is not None:
        point = parse_weights(weights, names, range(len(names))).tolist()
    elif conditioning.is_conditioned:
        raise InputError(f"--weights: missing; expected one per objective, for {', '.join(names)}")
    source, tokenizer = load_source(path, model)
    written = export_lm(source, tokenizer, point, out, format, overwrite=overwrite)
    tokens = _about_tokens(written.metadata)
    click.echo(f"{out}: {format}{tokens}; logits within {written.difference:.1g} of the run's on random texts")


def _about_tokens(metadata: dict[str, Any]) -> str:
    """What is to be known about virtual tokens."""
    tokens = metadata.get("virtual_tokens")
    if not tokens:
        return ""
    margin = metadata["virtual_token_margin"]
    far = "as unlikely as the least likely one" if margin is None else f"logits {margin:.0f} below any other"
    return f", {len(tokens)} new tokens before every text ({far})"
