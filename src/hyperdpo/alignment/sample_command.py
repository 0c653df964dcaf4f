"""What ``hyperdpo align sample`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hyperdpo.alignment.answer_sets import (
    FORMAT_VERSION,
    conversations,
    partial_of,
    read_prompts,
    remove_partial,
    sample_groups,
    write_answers,
)
from hyperdpo.alignment.answers import Sampling
from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.commands import disable_progress_bars_without_tty
from hyperdpo.alignment.gguf_models import described_origin, origin_of
from hyperdpo.alignment.run import versions
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import check_writable
from hyperdpo.scorers.registry import scorers_named
from hyperdpo.threads import use_free_cores


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
    overwrite: bool = False,
    cpu: bool = False,
) -> dict[str, int]:
    """``hyperdpo align sample``: a preference set of a model's own answers.

    Returns:
        The counts of :func:`~hyperdpo.alignment.answer_sets.write_answers`.
    """
    disable_progress_bars_without_tty()
    if not out.name.endswith(".jsonl"):
        raise InputError(f"{out}: expected a name that ends in .jsonl")
    if responses < 2:
        raise InputError(f"--responses is {responses}; expected at least 2, which training compares")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: there is a file already; expected another name, or --overwrite")
    check_writable(out.parent)
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
    groups = sample_groups(base, tokenizer, chosen, how, partial_of(out), {"model": str(model)})
    about: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": Path(model).name,
        "gguf_origin": origin,
        "prompts": {"file": prompts_file.name, "offset": offset, "limit": limit, "system": system},
        "sampling": asdict(how),
        "scorers": list(scorers),
        "versions": versions(),
    }
    counts = write_answers(groups, scorer, out, about)
    remove_partial(out)
    told = f" {described_origin(origin)}" if origin else ""
    click.echo(
        f"{out}: {counted(counts['groups'], 'prompt')}, {counted(counts['answers'], 'answer')} of "
        f"{Path(model).name}{',' if told else ''}{told}; {counts['truncated']:,} cut at {max_new_tokens} tokens"
    )
    if counts["missing"] or counts["left_out"]:
        click.echo(
            f"{counted(counts['missing'], 'answer')} missing, {counted(counts['left_out'], 'prompt')} left out: the "
            f"model wrote no other text that can be used in {how.attempts + 1} attempts"
        )
    return counts
