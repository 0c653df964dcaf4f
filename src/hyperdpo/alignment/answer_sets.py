"""Preference sets of a model's own answers: a file of prompts in, a file of scored groups out.

What is sampled is kept beside the output, batch by batch, until the output is there. So the command can be stopped at
any time, and gives the same file when it is started again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyperdpo import hashing
from hyperdpo.alignment.answers import Answer, Sampling, answer_batches
from hyperdpo.alignment.data.cells import Prompt, Row, RowError
from hyperdpo.alignment.data.file_rows import file_rows, refuse
from hyperdpo.alignment.data.groups import prompt_key
from hyperdpo.alignment.data.parts import PROMPTS, SYSTEM, Columns
from hyperdpo.errors import InputError, counted
from hyperdpo.files import read_json, write_json, written
from hyperdpo.progress import note, progress_bar
from hyperdpo.scorers.scorer import NamedScorer, scores_of

#: Beside the output, until it is there: what is sampled, and every batch that was.
PARTIAL, SETTINGS = ".partial", "sampling.json"
#: Beside the output, afterwards: how it was sampled and scored.
ABOUT = ".about.json"
#: Of both.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class AnswerGroup:
    """A prompt with the answers that a model gave; they may be fewer than were wanted."""

    prompt: Prompt
    answers: tuple[Answer, ...]


def read_prompts(path: Path, *, prompt_column: str | None = None) -> list[Prompt]:
    """The different prompts of a file, in order.

    Args:
        path: JSONL (also .gz), JSON or Parquet with a column for the prompt, a text or messages; or .txt with one
            prompt per line.
        prompt_column: None: the first of ``prompt``, ``question``, ``instruction`` (with ``input``) and ``query``.

    Raises:
        InputError: with file and line: a row without a prompt, or no rows.
    """
    found: dict[str, Prompt] = {}
    count = 0
    for place, row in _prompt_rows(path):
        count += 1
        name = prompt_column or next((name for name in PROMPTS if name in row), PROMPTS[0])
        columns = Columns(prompt=name)
        try:
            prompt = columns.with_system(row, columns.required(row))
        except RowError as error:
            refuse(place, error)
        found.setdefault(prompt_key(prompt), prompt)
    if not found:
        raise InputError(f"{path}: no prompts; expected at least one")
    if len(found) < count:
        note(f"{path}: {counted(count - len(found), 'prompt')} stand in it before; each prompt is answered once")
    return list(found.values())


def _prompt_rows(path: Path) -> Iterator[tuple[str, Row]]:
    if path.suffix.lower() != ".txt":
        yield from file_rows(path)
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason}); expected a text with one prompt per line") from None
    yield from ((f"{path}:{number}", {"prompt": line}) for number, line in enumerate(lines, 1) if line.strip())


def conversations(prompts: Sequence[Prompt], tokenizer: Any, system: str | None = None) -> list[Prompt]:
    """Prompts that are texts as conversations, where the tokenizer has a chat template.

    Args:
        system: an instruction to the assistant: a system message of conversations that have none, or a paragraph before
            a text.
    """
    chats = bool(getattr(tokenizer, "chat_template", None))
    found: list[Prompt] = []
    for prompt in prompts:
        asked: Prompt = [{"role": "user", "content": prompt}] if chats and isinstance(prompt, str) else prompt
        has_own = not isinstance(asked, str) and asked[0].get("role") == "system"
        found.append(asked if has_own else Columns().with_system({SYSTEM: system}, asked))
    return found


def asked(prompt: Prompt) -> str:
    """What scorers see of a prompt: a text, or the last turn of the user."""
    if isinstance(prompt, str):
        return prompt
    turns = [message["content"] for message in prompt if message.get("role") == "user"] or [prompt[-1]["content"]]
    return turns[-1]


def sample_groups(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    how: Sampling,
    partial: Path,
    told: dict[str, Any],
    *,
    weights: Any = None,
) -> list[AnswerGroup]:
    """Answers to all prompts; what a stopped call with the same arguments sampled is not sampled again.

    Args:
        prompts, weights: as of :func:`~hyperdpo.alignment.answers.sample_answers`.
        partial: directory in which finished batches are kept; the caller removes it.
        told: what else the answers depend on, such as the model's name, as plain values.

    Raises:
        InputError: as of :func:`~hyperdpo.alignment.answers.sample_answers`; the directory holds answers that were
            sampled otherwise.
    """
    of_prompts = hashing.fingerprint(list(prompts))
    settings = {"format_version": FORMAT_VERSION, **told, **asdict(how), "prompts": of_prompts}
    if weights is not None:
        settings["weights"] = hashing.digest(weights)
    _refuse_other(partial, settings)
    found: list[AnswerGroup | None] = [None] * len(prompts)

    def take(places: Sequence[int], answers: Sequence[Sequence[Answer]]) -> None:
        for place, some in zip(places, answers, strict=True):
            found[place] = AnswerGroup(prompts[place], tuple(some))

    def kept(number: int) -> bool:
        path = _batch_file(partial, number)
        if path.exists():
            read = read_json(path, remedy="delete it to sample these again")
            take(read["places"], [[Answer(**one) for one in some] for some in read["answers"]])
        return path.exists()

    with progress_bar("answers", len(prompts), "prompts") as update:
        for number, places, answers in answer_batches(model, tokenizer, prompts, how, weights=weights, skipped=kept):
            some = {"places": places, "answers": [[asdict(one) for one in each] for each in answers]}
            write_json(_batch_file(partial, number), some, sealed=True)
            take(places, answers)
            update(sum(one is not None for one in found))
    return [one for one in found if one is not None]


def _batch_file(partial: Path, number: int) -> Path:
    return partial / f"batch-{number:05d}.json"


def _refuse_other(partial: Path, settings: dict[str, Any]) -> None:
    """Note what is sampled, or refuse to go on with something else."""
    path, now = partial / SETTINGS, json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, now)
        return
    before = read_json(path)
    if before != now:
        both = before if isinstance(before, dict) else {}
        names = [name for name in now if both.get(name) != now[name]] or sorted(set(both) - set(now)) or ["format"]
        raise InputError(
            f"{partial}: holds answers that were sampled with another {names[0]}; expected the same command, another "
            "file, or --overwrite"
        )


def write_answers(
    groups: Sequence[AnswerGroup], scorer: NamedScorer, out: Path, about: dict[str, Any]
) -> dict[str, int]:
    """Score the groups and write them, in the layout ``groups``; beside them a file that says how they came about.

    A group is a line: ``prompt``, ``completions``, ``labels`` {objective: n numbers} and ``truncated``, n times whether
    an answer was cut at the limit. Prompts with fewer than two answers are left out.

    Returns:
        Counts: ``groups``, ``answers``, ``truncated``, ``missing`` answers, and ``left_out`` prompts.

    Raises:
        InputError: no group that is complete, a scorer that gives something else, a place that cannot be written to.
    """
    usable = [group for group in groups if len(group.answers) > 1]
    if not usable:
        raise InputError(f"{out}: no prompt has two different answers; nothing was written (a higher --temperature?)")
    rows = [(asked(group.prompt), answer) for group in usable for answer in group.answers]
    scores = scores_of(scorer, scorer.objectives, [prompt for prompt, _ in rows], [answer.text for _, answer in rows])
    columns = iter(scores.tolist())
    wanted = int(about["sampling"]["answers"])
    counts = {
        "groups": len(usable),
        "answers": len(rows),
        "truncated": sum(answer.truncated for _, answer in rows),
        "missing": sum(wanted - len(group.answers) for group in usable),
        "left_out": len(groups) - len(usable),
    }
    with written(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for group in usable:
            values = [next(columns) for _ in group.answers]
            row = {
                "prompt": group.prompt,
                "completions": [answer.text for answer in group.answers],
                "labels": labels_of(scorer, values),
                "truncated": [answer.truncated for answer in group.answers],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    write_json(out.with_name(out.name + ABOUT), {**about, "counts": counts})
    return counts


def labels_of(scorer: NamedScorer, scores: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Objective -> the scores of a group's n answers, from n rows of m scores."""
    return {name: [one[j] for one in scores] for j, name in enumerate(scorer.objectives)}


def partial_of(out: Path) -> Path:
    """Where batches are kept until the output is there."""
    return out.with_name(out.name + PARTIAL)


def remove_partial(out: Path) -> None:
    """Remove what was kept of an output."""
    shutil.rmtree(partial_of(out), ignore_errors=True)
