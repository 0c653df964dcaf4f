"""What ``hyperdpo align sample`` and ``align score`` do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from hyperdpo.alignment.answer_sets import (
    FORMAT_VERSION,
    asked,
    conversations,
    labels_of,
    partial_of,
    read_prompts,
    remove_partial,
    sample_groups,
    write_answers,
)
from hyperdpo.alignment.answers import Sampling
from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.commands import disable_progress_bars_without_tty
from hyperdpo.alignment.data.file_rows import file_rows
from hyperdpo.alignment.data.preferences import read_source_of
from hyperdpo.alignment.data.reading import ReadOptions
from hyperdpo.alignment.gguf_models import described_origin, origin_of
from hyperdpo.alignment.run import versions
from hyperdpo.alignment.sampling import computing_in
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import check_writable, written
from hyperdpo.locks import writes_to
from hyperdpo.scorers.registry import scorers_named
from hyperdpo.scorers.scorer import scores_of
from hyperdpo.threads import use_free_cores


@writes_to("out", beside=True)
def sample_command(
    model: str,
    prompts_file: Path,
    scorers: Sequence[str],
    out: Path,
    *,
    responses: int = 4,
    system: str | None = None,
    prompt_column: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    precision: Literal["no", "bf16"] = "no",
    overwrite: bool = False,
    cpu: bool = False,
) -> dict[str, int]:
    """``hyperdpo align sample``: a preference set of a model's own answers.

    Returns:
        The counts of :func:`~hyperdpo.alignment.answer_sets.write_answers`.
    """
    disable_progress_bars_without_tty()
    refuse_existing(out, overwrite)
    if responses < 2:
        raise InputError(f"--responses is {responses}; expected at least 2, which training compares")
    # Wrong names and missing packages are refused before the model runs.
    scorer = scorers_named(scorers)
    how = Sampling(responses, max_new_tokens, temperature, seed, batch_size)
    prompts = read_prompts(prompts_file, prompt_column=prompt_column)
    chosen = prompts[offset : None if limit is None else offset + limit]
    if not chosen:
        raise InputError(f"{prompts_file}: {counted(len(prompts), 'prompt')}, none from --offset {offset} on")
    if overwrite:
        remove_partial(out)
    tokenizer = tokenizer_of(model)
    chosen = conversations(chosen, tokenizer, system)
    base = load_base(model).to(best_device(cpu))
    use_free_cores()
    origin = origin_of(base)
    told = {"model": str(model)} | ({} if precision == "no" else {"precision": precision})
    with computing_in(precision, base):
        groups = sample_groups(base, tokenizer, chosen, how, partial_of(out), told)
    about: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": Path(model).name,
        "gguf_origin": origin,
        "prompts": {"file": prompts_file.name, "offset": offset, "limit": limit, "system": system},
        "precision": precision,
        "sampling": asdict(how),
        "scorers": list(scorers),
        "versions": versions(),
    }
    counts = write_answers(groups, scorer, out, about)
    remove_partial(out)
    described = f", {described_origin(origin)}" if origin else ""
    click.echo(
        f"{out}: {counted(counts['groups'], 'prompt')}, {counted(counts['answers'], 'answer')} of "
        f"{Path(model).name}{described}; {counts['truncated']:,} cut at {max_new_tokens} tokens"
    )
    if counts["missing"] or counts["left_out"]:
        click.echo(
            f"{counted(counts['missing'], 'answer')} missing, {counted(counts['left_out'], 'prompt')} left out: the "
            f"model wrote no other text that can be used in {how.attempts + 1} attempts"
        )
    return counts


def score_command(source: Path, scorers: Sequence[str], out: Path, *, overwrite: bool = False) -> None:
    """``hyperdpo align score``: the rows of a file in the layout ``groups``, with labels of other scorers."""
    scorer = scorers_named(scorers)
    refuse_existing(out, overwrite)
    rows = list(file_rows(source))
    groups = read_source_of(source, None, ReadOptions(format="groups")).groups
    texts = [(asked(group.prompt), text) for group in groups for text in group.completions]
    scores = iter(scores_of(scorer, scorer.objectives, [one for one, _ in texts], [text for _, text in texts]).tolist())
    with written(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for (_, row), group in zip(rows, groups, strict=True):
            labels = labels_of(scorer, [next(scores) for _ in group.completions])
            file.write(json.dumps({**row, "labels": labels}, ensure_ascii=False) + "\n")
    names = ", ".join(scorer.objectives)
    click.echo(f"{out}: {counted(len(groups), 'prompt')}, {counted(len(texts), 'answer')}: {names}")


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Refuse a file of another kind, one that is there, and a place that cannot be written to.

    Raises:
        InputError: it is one of them.
    """
    if not out.name.endswith(".jsonl"):
        raise InputError(f"{out}: expected a name that ends in .jsonl")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: there is a file already; expected another name, or --overwrite")
    check_writable(out.parent)
