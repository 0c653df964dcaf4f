"""A finished alignment run on disk: the adapter, the tokenizer, and what is needed to measure and to generate.

``run.json`` (written last: a directory with one is complete), ``metrics.json``, ``adapter.safetensors``,
``hyperdpo_config.json`` and the tokenizer's files. ``run.json`` has a checksum of each, and of itself. The base model
is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import (
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_DIR,
    CHAT_TEMPLATE_FILE,
    FULL_TOKENIZER_FILE,
    SPECIAL_TOKENS_MAP_FILE,
    TOKENIZER_CONFIG_FILE,
)

from hyperdpo._version import __version__
from hyperdpo.alignment.adapters import CONFIG, TENSORS
from hyperdpo.alignment.bases import tokenizer_of
from hyperdpo.alignment.collation import padding_token, tokenize_groups
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences, read_splits
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import AlignmentFront, base_scores, conditioned_scores, front_of_scores
from hyperdpo.alignment.gguf_models import base_note, origin_of
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.alignment.sampling import new_texts
from hyperdpo.alignment.special_tokens import prompt_ids
from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError, brief
from hyperdpo.files import write_json, written_into
from hyperdpo.objectives import Objective
from hyperdpo.runs import METRICS, RUN, read_metrics, read_run, write_run
from hyperdpo.validation import parsed

#: Version of run.json; another one is refused. 1 has no checksums.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, FORMAT_VERSION)
#: Files that a tokenizer of any kind may have.
TOKENIZER_FILES = (
    TOKENIZER_CONFIG_FILE,
    FULL_TOKENIZER_FILE,
    SPECIAL_TOKENS_MAP_FILE,
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
)


@dataclass
class AlignRun:
    """A conditioned language model with its objectives."""

    model: ConditionedLM
    tokenizer: PreTrainedTokenizerBase
    objectives: tuple[Objective, ...]
    """Fitted on the training groups."""
    data: dict[str, Any]
    """Source, fingerprint, groups of each split, fractions and seed of the split, how it was read (``reading``)."""
    settings: dict[str, Any]
    """The settings of the training, as they were resolved."""
    limits: dict[str, Any]
    """Limits of the text: ``max_length``, ``max_prompt_length``, ``truncate``."""
    metrics: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the m objectives, in the order of w."""
        return tuple(o.name for o in self.objectives)

    @property
    def base_note(self) -> str:
        """What tables say of a base from a GGUF file; see :func:`~hyperdpo.alignment.gguf_models.base_note`."""
        return base_note(origin_of(self.model))

    def read(
        self,
        source: Any,
        *,
        format: str = "auto",
        prompt_column: str | None = None,
        ignore_columns: Sequence[str] | None = None,
        skip_invalid: bool = False,
    ) -> Preferences:
        """Preferences with the labels that this run was trained on; of a directory in parts, its test part.

        Options that are not given are those of the training: prompt column, ignored columns, and whether unusable rows
        are left out. For a source of the same name the format is, too.

        Args:
            source, format, prompt_column, ignore_columns, skip_invalid: as of
                :func:`~hyperdpo.alignment.data.preferences.read_preferences`; or a directory.

        Raises:
            InputError: as there; a directory without a part to test on.
        """
        columns = list(dict.fromkeys(o.column for o in self.objectives))
        recorded = self.data.get("reading", {"version": 1})
        options: dict[str, Any] = {"format": "auto", "prompt_column": None, "ignore_columns": (), **recorded}
        named = Path(source).name == self.data.get("source") if isinstance(source, str | Path) else False
        if format != "auto" or not named:
            options["format"] = format
        if prompt_column is not None:
            options["prompt_column"] = prompt_column
        if ignore_columns is not None:
            options["ignore_columns"] = ignore_columns
        options["skip_invalid"] = skip_invalid or options.get("skip_invalid", False)
        if not isinstance(source, str | Path) or not Path(source).is_dir():
            return read_preferences(source, objectives=columns, **options)
        parts = read_splits(source, objectives=columns, **options)
        held_out = parts.get("test") or parts.get("validation")
        if held_out is None:
            raise InputError(f"{source}: has only training groups; expected a test file in it, or a file")
        return held_out

    def part(self, preferences: Preferences, split: str = "auto") -> tuple[str, Preferences]:
        """The groups to measure on, and what they are called.

        Args:
            split: ``auto``: the test groups of the run's own data, all groups of other data.

        Raises:
            InputError: a split of data that is not the run's own, or its own data with nothing held out.
        """
        if split == "all":
            return "all", preferences
        own = fingerprint(preferences) == self.data["fingerprint"]
        if not own and split == "auto":
            return "all", preferences
        if not own:
            raise InputError(
                f"--split {split}: {preferences.source} is not the data of this run; expected that, or all"
            )
        wanted = "test" if split == "auto" else split
        if "fractions" not in self.data:  # data that came in parts
            raise InputError(
                f"{preferences.source}: this run was trained on all of it; expected the test file that lies beside it, "
                "or --split all"
            )
        version = self.data.get("reading", {}).get("version", 1)
        parts = preferences.split(tuple(self.data["fractions"]), self.data["split_seed"], version=version)
        if wanted not in parts or not len(parts[wanted]):
            raise InputError(
                f"{preferences.source}: none of it was held out as {wanted}; expected other data, or --split"
            )
        return wanted, parts[wanted]

    def front(
        self,
        preferences: Preferences,
        weights: np.ndarray,
        scales: Sequence[float] = (1.0,),
        *,
        device: str = "cpu",
        show: bool = False,
    ) -> AlignmentFront:
        """Losses at every pair of weights (P, m) and scale."""
        grid = np.atleast_2d(check_weights(weights, len(self.objectives)))
        groups = tokenize_groups(preferences, to_targets(preferences, self.objectives), self.tokenizer, **self.limits)
        pad = padding_token(self.tokenizer)
        self.model.to(device)
        base = base_scores(self.model, groups, pad, device)
        scores = conditioned_scores(self.model, groups, grid, pad, device, name="front" if show else "")
        return front_of_scores(self.names, groups, scores, base, grid, [o.beta for o in self.objectives], scales)

    def generate(
        self,
        prompts: Sequence[str],
        weights: np.ndarray,
        scale: float | Sequence[float] = 1.0,
        *,
        seed: int = 0,
        **settings: Any,
    ) -> list[str]:
        """A continuation of each prompt. Special tokens are as in training (:mod:`~hyperdpo.alignment.special_tokens`).

        Args:
            prompts: B texts; the tokenizer's chat template is put around them where it has one, unless the run was
                trained on plain texts.
            weights: (m,), or (B, m) for weights of each prompt's own.
            scale: c of :func:`~hyperdpo.core.control.linear_transformation`, applied token by token.
            seed: of the sampling; the caller's random state is left alone.
            settings: of ``generate``: ``max_new_tokens``, ``do_sample``, ``temperature``, ...

        Raises:
            InputError: no prompts, weights or scales that do not fit.
        """
        if not prompts:
            raise InputError("prompts: found none; expected at least one text")
        w = check_weights(weights, len(self.objectives))
        tokenizer, pad = self.tokenizer, padding_token(self.tokenizer)
        turns = self.speaks_in_turns
        asked = [[{"role": "user", "content": prompt}] if turns else prompt for prompt in prompts]
        rows = prompt_ids(tokenizer, asked)
        for number, row in enumerate(rows, 1):
            if not row:
                raise InputError(f"prompt {number} has no tokens; expected a text")
        longest = max(map(len, rows))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = self.model.generate(rows, weights=w, scale=scale, pad_token_id=pad, **settings)
        return new_texts(
            tokenizer, rows, [row[longest - len(start) :] for start, row in zip(rows, found.tolist(), strict=True)]
        )

    @property
    def speaks_in_turns(self) -> bool:
        """Whether prompts go through the chat template: as in training, where they were conversations or not."""
        conversations = bool(self.data.get("conversations", True))
        return conversations and bool(getattr(self.tokenizer, "chat_template", None))

    def save(self, path: Path) -> None:
        """Write the run directory; ``run.json`` goes first and comes last."""
        (path / RUN).unlink(missing_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(path)
        with written_into(path) as temporary:
            self.tokenizer.save_pretrained(temporary)
        write_json(path / METRICS, self.metrics)
        write_run(
            path,
            "align",
            FORMAT_VERSION,
            [TENSORS, CONFIG, METRICS, *tokenizer_files(path, self.tokenizer)],
            {
                "versions": versions(),
                "objectives": [asdict(o) for o in self.objectives],
                "data": self.data,
                "settings": self.settings,
                "limits": self.limits,
            },
        )

    @staticmethod
    def load(path: str | Path, base_model: Any = None) -> AlignRun:
        """Read a run directory.

        Args:
            base_model: instead of the one whose name was saved.

        Raises:
            InputError: no run, one of another version or of a ranker, or files that are damaged or do not agree.
        """
        path = Path(path)
        run = read_run(path, "align", READABLE_VERSIONS, checked_from=FORMAT_VERSION)
        for name, expected in (("objectives", list), ("data", dict), ("settings", dict), ("limits", dict)):
            if not isinstance(run.get(name), expected):
                raise InputError(f"{path / RUN}: {name} is {brief(run.get(name))}; expected what the fit wrote")
        objectives = parse_objectives(run["objectives"], str(path / RUN))
        told = parsed(ModelSettings, run["settings"].get("model_settings", {}), str(path / RUN), "model_settings.")
        model = ConditionedLM.from_pretrained(path, base_model, **told.arguments())
        if model.conditioning.objectives != tuple(o.name for o in objectives):
            raise InputError(f"{path}: its files do not belong together (objectives of run.json and of the adapter)")
        tokenizer, metrics = tokenizer_of(str(path)), read_metrics(path)
        return AlignRun(model, tokenizer, objectives, run["data"], run["settings"], run["limits"], metrics)


def tokenizer_files(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Names of the files in a directory that transformers reads a tokenizer of this kind from."""
    read = {*tokenizer.vocab_files_names.values(), *TOKENIZER_FILES}
    templates = (file.relative_to(path).as_posix() for file in (path / CHAT_TEMPLATE_DIR).glob("*"))
    return [*sorted(name for name in read if (path / name).is_file()), *templates]


def parse_objectives(values: Sequence[Mapping[str, Any]], where: str) -> tuple[Objective, ...]:
    """Objectives from plain values.

    Raises:
        InputError: an unknown setting, or a value out of range.
    """
    return tuple(parsed(Objective, one, where, f"objectives.{place}.") for place, one in enumerate(values))


def fingerprint(preferences: Preferences) -> str:
    """A hash of prompts, completions and labels."""
    digest = xxhash.xxh3_128()
    for group in preferences.groups:
        digest.update(json.dumps([group.prompt, group.completions, group.labels], sort_keys=True).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions that a figure depends on."""
    return {"hyperdpo": __version__, **{n: version(n) for n in ("torch", "transformers", "peft", "numpy")}}
