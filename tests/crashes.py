"""Long commands that are killed at random moments: a table of them, and what must be equal afterwards.

``tests/test_crashes.py`` kills each a few times, ``benchmarks/bench_crashes.py`` more often. A new command is a row.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import CLICKS, read, start
from toy_preferences import toy_place

from hyperdpo.cli import main
from hyperdpo.files import read_tensors

#: Loaded once, for all processes of the commands.
PRELOAD = ("hyperdpo.alignment.commands", "hyperdpo.serving.export.language_model", "lightgbm")

MSLR = ["--preset", "mslr", "--cpu", "--objectives", ",".join(CLICKS)]
SMALL = ["--set=scorer.width=8", "--set=base_scorer.width=8", "--set=mixture.members=1"]
OFTEN = ["--set=training.checkpoint_seconds=0", "--set=base_training.checkpoint_seconds=0"]
FEW = ["--set=training.epochs=6", "--set=base_training.epochs=4", *SMALL, *OFTEN]
TREES = ["--set=gbdt.trees=20", "--set=gbdt.leaves=4", "--set=gbdt.threads=1"]
SCORERS = ["--scorer", "toy_scorers:low", "--scorer", "toy_scorers:high"]
TEXTS = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2"]
TEXTS += ["--set", "conditioning.gate_hidden=4"]


@dataclass(frozen=True)
class Command:
    """A long command.

    Attributes:
        arguments: of the command line, from the directory with the inputs; ``--out`` follows.
        result: what must be equal, from the output's path.
        out: the option before the output; None: the output is an argument.
        ending: of the output's name.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    result: Callable[[Path], Mapping[str, Any]]
    out: str | None = "--out"
    ending: str = ""

    def line(self, place: Path, out: Path) -> list[str]:
        first = [str(one) for one in self.arguments(place)]
        return [*first, str(out)] if self.out is None else [*first, self.out, str(out)]


def content(path: Path) -> Mapping[str, Any]:
    """A file, or all files of a directory, to the bit."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in files}


def ranker(run: Path) -> Mapping[str, Any]:
    """The weights and trees of a run to the bit, and what was measured, without times."""
    found = {one: data for one, data in content(run).items() if one.startswith(("model", "trees/", "base_scores/"))}
    return found | {"metrics": timeless(read(run / "metrics.json"))}


def adapter(run: Path) -> Mapping[str, Any]:
    """The adapter and the tokenizer of a run to the bit."""
    return {one: data for one, data in content(run).items() if one in ("adapter.safetensors", "tokenizer.json")} | {
        "front": timeless(read(run / "metrics.json")["test_front"])
    }


def rounds(out: Path) -> Mapping[str, Any]:
    """Answers and adapters of all rounds to the bit."""
    names = ("answers.jsonl", "adapter.safetensors", "base.safetensors", "texts.json")
    return {name: data for name, data in content(out).items() if name.rpartition("/")[2] in names}


def comparison(out: Path) -> Mapping[str, Any]:
    """Kept models to the bit, and all figures, without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("models/*.safetensors")):
        found[path.name] = {name: tensor.numpy().tobytes() for name, tensor in read_tensors(path)[0].items()}
    for path in sorted(out.rglob("models/**/*.txt")):
        found[path.name] = path.read_bytes()
    return found | {"figures": timeless(read(out / "compare.json"))}


def timeless(value: Any) -> Any:
    """Values of JSON without those that measure time."""
    if isinstance(value, Mapping):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and "per_second" not in k}
    return [timeless(one) for one in value] if isinstance(value, list) else value


COMMANDS = [
    Command("rank fit", lambda p: ["rank", "fit", p / "data.txt", *MSLR, *FEW], ranker),
    Command(
        "rank fit, trees",
        lambda p: ["rank", "fit", p / "data.txt", *MSLR, *FEW, *TREES, "--set=scorer.kind=blend"],
        ranker,
    ),
    Command(
        "rank compare",
        lambda p: [
            *("rank", "compare", p / "data.txt", *MSLR, *FEW, *TREES, "--methods", "hyperdpo,dpo-ls,lightgbm-ls"),
            *("--points", 2, "--seeds", 1, "--main-levels", 0, "--set=training.epochs=3"),
        ],
        comparison,
    ),
    Command(
        "align fit",
        lambda p: ["align", "fit", p / "data.jsonl", "--model", p / "model", *TEXTS, "--epochs", 4],
        adapter,
    ),
    Command(
        "align improve",
        lambda p: [
            *("align", "improve", p / "lm", "--prompts-file", p / "prompts.txt", "--rounds", 2, "--points", 3, "--cpu"),
            *("--held-out", 0.3, "--samples", 1, "--max-new-tokens", 6, "--batch-size", 8, *SCORERS),
        ],
        rounds,
    ),
    Command(
        "align sample",
        lambda p: [
            *("align", "sample", p / "model", "--prompts-file", p / "prompts.txt", "--cpu", "--overwrite"),
            *("--max-new-tokens", 6, "--batch-size", 8, *SCORERS),
        ],
        content,
        ending=".jsonl",
    ),
    Command("data generate", lambda p: ["data", "generate", "--queries", 400, "--seed", 5], content, out=None),
    Command("rank score", lambda p: ["rank", "score", p / "run", p / "data.txt", "--weights", ".3,.7"], content),
    Command(
        "export",
        lambda p: ["export", p / "lm", "--overwrite", "--weights", ".3,.7", "--model", p / "model"],
        content,
    ),
]  # fmt: skip


def inputs(place: Path) -> Path:
    """A directory with all that the commands read."""
    place.mkdir(parents=True, exist_ok=True)
    toy_place(place)
    (place / "prompts.txt").write_text("".join(f"w{k % 50} w{k * 7 % 50}\n" for k in range(3, 21)))
    texts = [place / "data.jsonl", "--model", place / "model", *TEXTS]
    lines: list[list[object]] = [
        ["data", "generate", place / "data.txt", "--queries", 40, "--seed", 3],
        ["rank", "fit", place / "data.txt", *MSLR, *FEW, "--out", place / "run"],
        ["align", "fit", *texts, "--epochs", 1, "--out", place / "lm"],
    ]
    for line in lines:
        assert main([str(one) for one in line]) == 0, line
    return place


@dataclass
class Outcome:
    """What became of a command that was killed again and again.

    Attributes:
        kills: how often it was killed while it ran.
        ends: how often it ran to its end.
        differing: names of results that are not those of the command that nobody killed.
        left: names of temporary files and locks that were left at an end.
        refused: exit codes of a resumed command that are neither 0 nor those of a finished run.
        printed: by the commands of the first chain whose end was not right.
    """

    kills: int = 0
    ends: int = 0
    differing: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    refused: tuple[int, ...] = ()
    printed: str = field(default="", repr=False)

    @property
    def is_equal(self) -> bool:
        return self.ends > 0 and not self.wrong

    @property
    def wrong(self) -> tuple[object, ...]:
        """What is not as it should be."""
        return (*self.differing, *self.left, *self.refused)


def crash(command: Command, place: Path, directory: Path, kills: int, *, seed: int = 0, chain: int = 3) -> Outcome:
    """Kill a command at random moments, start it again, and compare its end with that of one that nobody killed.

    Args:
        place: of :func:`inputs`.
        directory: for the outputs.
        kills: while it runs; each is followed by the same command.
        chain: the most kills before it may run to its end.
    """
    dice, outcome = random.Random(f"{command.name}-{seed}"), Outcome()
    whole = directory / "whole" / f"out{command.ending}"
    whole.parent.mkdir(parents=True)
    log = directory / "printed.txt"
    _run(["--version"], log)  # loads what all processes share
    code, seconds = _run(command.line(place, whole), log)
    assert code == 0, f"{command.name}: {log.read_text()}"
    expected = command.result(whole)
    for round_ in range(5 * kills):
        if outcome.kills >= kills:
            break
        out = directory / f"killed-{round_}" / f"out{command.ending}"
        out.parent.mkdir()
        log.write_text("")
        finished, wrong = False, outcome.wrong
        for _ in range(min(chain, kills - outcome.kills)):
            code, taken = _run(command.line(place, out), log, kill_after=dice.uniform(0, seconds))
            outcome.kills += code == -9
            if code != -9:  # its end came first
                seconds, finished = min(seconds, taken), True
                break
        if not finished:
            code, _ = _run(command.line(place, out), log)
        # A run that was killed after its last file was there is finished, and says so.
        if code != 0 and not (code == 2 and (out / "run.json").is_file()):
            outcome.refused += (code,)
            outcome.printed = outcome.printed or log.read_text()
            continue
        outcome.ends += 1
        found = command.result(out)
        outcome.differing += tuple(k for k in {**expected, **found} if expected.get(k) != found.get(k))
        outcome.left += tuple(one.name for one in out.parent.rglob("*") if is_left(one.name))
        if outcome.wrong != wrong:
            outcome.printed = outcome.printed or log.read_text()
        shutil.rmtree(out.parent)
    return outcome


def is_left(name: str) -> bool:
    """Whether a name is that of a file that no ended command leaves."""
    return name.endswith((".tmp", ".old", ".lock", ".partial", ".unfinished"))


def _run(line: list[str], log: Path, *, kill_after: float | None = None) -> tuple[int, float]:
    """The exit code of a command, -9 if it was killed, and the seconds that it ran. What it prints goes to a file."""
    started = time.monotonic()
    process = start(line, *PRELOAD, output=log)
    process.join(kill_after)
    seconds = time.monotonic() - started
    process.kill()
    process.join()
    return int(process.exitcode), seconds
