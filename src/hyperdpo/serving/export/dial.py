"""A portable run as a dial: m adapters that other engines load, and ``dial.json``, which says how w turns them.

``vertices``: plain LoRA directories for PEFT. ``gguf``: LoRA files for llama.cpp. In both, adapter j counts w_j / c
times. At c = 1 that is the run. At other scales it is an approximation, as the run's own decoding is, but another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo._version import __version__
from hyperdpo.alignment.answer_sets import asked, conversations
from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.gguf_models import origin_of
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.reference import base_print
from hyperdpo.alignment.run import RUN, AlignRun
from hyperdpo.alignment.text_fronts import kept_front
from hyperdpo.checksums import damaged, file_digest, file_digests
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_sealed, write_json, written
from hyperdpo.runs import FILES
from hyperdpo.scorers.registry import scorer_of
from hyperdpo.scorers.scorer import NamedScorer, scores_of
from hyperdpo.serving.export.dial_requests import SOME_PROMPT, requests_of
from hyperdpo.serving.export.gguf_lora import write_gguf
from hyperdpo.serving.export.language_model import (
    METADATA,
    Difference,
    check_difference,
    check_directory,
    compared,
    load_source,
)
from hyperdpo.serving.export.recorded import record, scale_divergences
from hyperdpo.serving.export.tokens import prompting, save_tokenizer
from hyperdpo.serving.export.vertices import check_portable, weighted_model, write_vertices

FORMATS = ("vertices", "gguf")

DIAL = "dial.json"

#: Version of ``dial.json``; another one is refused.
FORMAT_VERSION = 1

#: Files of a base model's weights.
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True)
class DialExport:
    """What was written."""

    path: Path
    dial: dict[str, Any]
    difference: Difference | None
    """The largest ones over the weightings; None for ``gguf``."""


@dataclass(frozen=True)
class DialSource:
    """A run, or an adapter's directory, of which less is known.

    Attributes:
        objectives: ``name``, ``column``, ``direction`` and ``beta`` of each, as far as they are known.
        front: as ``align fit`` measured it on held-out groups, or ``align improve`` on texts; None if neither did.
        prompts: some held-out prompts of its data, if it keeps them.
        speaks_in_turns: whether a prompt that is a text goes through the chat template.
    """

    model: ConditionedLM
    tokenizer: Any
    objectives: tuple[dict[str, Any], ...]
    front: dict[str, Any] | None
    prompts: tuple[Prompt, ...]
    speaks_in_turns: bool = False

    def asked(self, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
        """Prompts as the run was trained on them; without any, those that it keeps."""
        return tuple(conversations(prompts, self.tokenizer) if self.speaks_in_turns else prompts) or self.prompts


def load_dial_source(path: Path, base_model: Any = None) -> DialSource:
    """Read a run directory or an adapter's.

    Raises:
        InputError: neither is there, or its files do not agree.
    """
    if not (path / RUN).is_file():
        model, tokenizer = load_source(path, base_model)
        names = model.conditioning.objectives
        turns = bool(getattr(tokenizer, "chat_template", None))
        return DialSource(model, tokenizer, tuple({"name": name} for name in names), None, (), turns)
    run = AlignRun.load(path, base_model)
    known = ("name", "column", "direction", "beta")
    objectives = tuple({name: asdict(o)[name] for name in known} for o in run.objectives)
    texts = kept_front(path, run.objectives)  # of a round of `align improve`, which has no held-out groups
    front = run.metrics.get("test_front") or (None if texts is None else texts.to_dict())
    prompts = tuple(run.data.get("prompts", ()))
    return DialSource(run.model, run.tokenizer, objectives, front, prompts, run.speaks_in_turns)


def export_dial(
    source: DialSource,
    out: Path,
    format: str,
    *,
    prompts: Sequence[Prompt] = (),
    scorers: Sequence[str] = (),
    overwrite: bool = False,
) -> DialExport:
    """Write the directory ``out``; it is there whole or not at all.

    Args:
        format: one of :data:`FORMATS`.
        prompts: to record answers to; none: those that the run keeps.
        scorers: of the recorded answers, see :func:`~hyperdpo.scorers.registry.scorer_of`.

    Raises:
        InputError: the place is taken or cannot be written to, the run is not portable, its base is of a kind that the
            format has no name for, or what was written is not the model.
    """
    model = source.model.eval()
    check_directory(out, overwrite=overwrite)
    check_portable(model.conditioning, format)
    questions = source.asked(prompts)
    if questions and source.tokenizer is None:
        raise InputError("there is no tokenizer beside the adapter or its base, which --prompt needs; leave it out")
    scorer = scorer_of(scorers, _columns(source.objectives)) if questions else None
    grid = weight_grid(len(source.objectives), max(5, len(source.objectives) + 1))
    with written(out, directory=True) as temporary:
        difference = None
        if format == "vertices":
            paths = write_vertices(model, temporary)
            found = [compared(model, weighted_model(model, paths, w), w.tolist(), [])[0] for w in grid]
            difference = Difference(*np.max(found, axis=0).tolist())  # NaN if one is; Python's max may skip it
            check_difference(model, difference.relative, format, "`hyperdpo serve` needs no export")
        else:
            paths = write_gguf(model, temporary)
        if source.tokenizer is not None:
            save_tokenizer(temporary / "tokenizer", prompting(source.tokenizer))
        recorded = record(model, source.tokenizer, questions, grid) if questions else None
        names = [one["name"] for one in source.objectives]
        base = str(getattr(model.config, "_name_or_path", "") or "")
        origin = origin_of(model)
        dial = {
            "format_version": FORMAT_VERSION,
            "kind": "dial",
            "format": format,
            "objectives": list(source.objectives),
            "base": {
                "name": base,
                "gguf_origin": origin,
                "files": _hashes(base),
                "fingerprint": base_print(model.base),
            },
            "adapters": [
                {"objective": name, "id": j, "path": path.name, "rank": model.conditioning.rank, "files": _files(path)}
                for j, (name, path) in enumerate(zip(names, paths, strict=True))
            ],
            "weights": {"minimum": 0, "maximum": 1, "sum": 1},
            "scale": {
                "above": 0,
                "default": 1,
                "adapter_scales": "weight / scale",
                "exact_at": 1,
                "kl": None if recorded is None else scale_divergences(model, recorded),
            },
            "front": source.front,
            "requests": requests_of(
                format,
                base,
                names,
                [path.name for path in paths],
                [*questions, SOME_PROMPT][0],
                rank=model.conditioning.rank,
                from_gguf=origin is not None and Path(base).name == origin["file"],
            ),
            "recorded": recorded,
            "scores": None if scorer is None or recorded is None else _means(scorer, source.objectives, grid, recorded),
            "versions": {"hyperdpo": __version__, **{n: version(n) for n in ("torch", "transformers", "peft")}},
        }
        write_json(temporary / DIAL, dial, sealed=True)
        files = [one.relative_to(temporary).as_posix() for one in temporary.rglob("*") if one.is_file()]
        told = {
            "format_version": 2,
            "kind": "align",
            "format": format,
            "objectives": names,
            "gguf_origin": origin,
            "logit_difference": None if difference is None else difference._asdict(),
        }
        write_json(temporary / METADATA, told | {FILES: file_digests(temporary, files)}, sealed=True)
    return DialExport(out, dial, difference)


def read_dial(path: Path) -> dict[str, Any]:
    """What ``dial.json`` holds.

    Args:
        path: of the file, or of its directory.

    Raises:
        InputError: it is missing, no dial, or of another version.
    """
    place = path / DIAL if path.is_dir() else path
    found, intact = read_sealed(place)
    if not isinstance(found, dict) or found.get("kind") != "dial":
        raise InputError(f"{place}: no dial; expected the {DIAL} of `hyperdpo export --format vertices` or gguf")
    if found.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{place}: format_version is {found.get('format_version')!r}; hyperdpo {__version__} reads "
            f"{FORMAT_VERSION} only; export the run again"
        )
    if not intact:
        raise damaged(place, "export the run again")
    return found


def _means(
    scorer: NamedScorer, objectives: Sequence[dict[str, Any]], grid: np.ndarray, recorded: dict[str, Any]
) -> dict[str, Any]:
    """Mean scores of the recorded answers at each weighting."""
    names, means = [one["name"] for one in objectives], []
    for w in grid:
        answers = [one for one in recorded["answers"] if one["weights"] == w.tolist()]
        questions = [asked(recorded["prompts"][one["prompt"]]["prompt"]) for one in answers]
        scores = scores_of(scorer, _columns(objectives), questions, [one["text"] for one in answers])
        means.append({"weights": w.tolist(), **dict(zip(names, scores.mean(0).tolist(), strict=True))})
    return {"scorer": scorer.name, "means": means}


def _columns(objectives: Sequence[dict[str, Any]]) -> list[str]:
    return [str(one.get("column", one["name"])) for one in objectives]


def _hashes(base: str) -> dict[str, str]:
    """SHA-256 of the files with a base model's weights, by name; empty if it is no local file or directory."""
    place = Path(base) if base else None
    if place is None or not place.exists():
        return {}
    files = [place] if place.is_file() else [path for pattern in _WEIGHTS for path in place.glob(pattern)]
    return {path.name: file_digest(path) for path in sorted(files)}


def _files(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    return {one.name: file_digest(one) for one in files}
