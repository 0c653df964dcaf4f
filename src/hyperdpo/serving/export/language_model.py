"""A conditioned language model at one point of the simplex, as files that are loaded without this package.

``merged``: a transformers checkpoint, LoRA folded into the weights. ``peft``: an adapter that stock PEFT loads. In
both, the k virtual tokens of a run with LoRA are k more tokens of the vocabulary. The tokenizer puts them before every
text, and the chat template before every conversation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from hyperdpo._version import __version__
from hyperdpo.alignment.adapters import CONFIG
from hyperdpo.alignment.bases import tokenizer_of
from hyperdpo.alignment.gguf_models import origin_of
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import RUN, AlignRun
from hyperdpo.checksums import file_digests
from hyperdpo.errors import InputError
from hyperdpo.files import check_space, check_writable, read_json, write_json, written
from hyperdpo.runs import FILES
from hyperdpo.serving.export.peft import write_peft
from hyperdpo.serving.export.rows import MARGIN, add_rows
from hyperdpo.serving.export.tokens import prompting, save_tokenizer, virtual_tokens

FORMATS = ("merged", "peft")

#: What an export says about itself.
METADATA = "hyperdpo_export.json"

#: Of that file; 1 has no checksums.
FORMAT_VERSION = 2

#: How far logits of what was written may be from the model's, as a part of the largest (at least 1): in single
#: precision, and where weights are rounded to fewer digits.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1

#: Random texts on which what was written is tried: rows and tokens.
TRIAL = (8, 12)


class Difference(NamedTuple):
    """The largest difference of a logit from the model's."""

    relative: float
    """As a part of the largest logit (at least 1)."""
    absolute: float

    def __str__(self) -> str:
        return f"{self.absolute:.2g} of the run's on random texts ({self.relative:.2g} of the largest)"


@dataclass(frozen=True)
class LMExport:
    """What was written."""

    path: Path
    metadata: dict[str, Any]
    difference: Difference


def load_source(path: Path, base_model: Any = None) -> tuple[ConditionedLM, Any]:
    """The model and the tokenizer (None if there is none) of a run, or of an adapter's directory.

    Raises:
        InputError: neither is there, or its files do not agree.
    """
    if (path / RUN).is_file():
        run = AlignRun.load(path, base_model)
        return run.model, run.tokenizer
    model = ConditionedLM.from_pretrained(path, base_model)
    for place in (path, base_model or read_json(path / CONFIG).get("base_model")):
        if not isinstance(place, str | Path):
            continue
        try:
            return model, tokenizer_of(str(place))
        except Exception:  # no files of a tokenizer there; transformers has many exceptions for it
            continue
    return model, None


def export_lm(
    model: ConditionedLM,
    tokenizer: Any,
    weights: Sequence[float] | None,
    out: Path,
    format: str = "merged",
    *,
    overwrite: bool = False,
) -> LMExport:
    """Write the directory ``out``; it is there whole or not at all.

    Args:
        tokenizer: None if there is none, which serves without virtual tokens, and for ``peft`` without LoRA.
        weights: m numbers; None if nothing is conditioned.
        format: ``merged`` or ``peft``.

    Raises:
        InputError: the place is taken or cannot be written to, there is no such export of this model, or the logits of
            what was written are not the model's.
    """
    check_directory(out, overwrite=overwrite)
    stored = [one for one in model.parameters() if one.requires_grad == (format == "peft")]  # the adapter, or the base
    check_space(out, sum(one.nbytes for one in stored), "the export")
    with written(out, directory=True) as temporary:
        write = _write_merged if format == "merged" else write_peft
        details, loaded, tokens = write(model.eval(), prompting(tokenizer), weights, temporary)
        difference, margin = compared(model, loaded, weights, tokens)
        if details.get("virtual_token_margin") is not None:  # what the file itself shows, not just its rows
            least = min(details["virtual_token_margin"], margin)
            details["virtual_token_margin"] = least if least >= MARGIN else None
        other = "peft" if format == "merged" else "merged"
        check_difference(model, difference.relative, format, f"try --format {other}; `hyperdpo serve` needs no export")
        metadata = {
            "format_version": FORMAT_VERSION,
            "kind": "align",
            "format": format,
            "objectives": list(model.conditioning.objectives),
            "weights": None if weights is None else [float(w) for w in weights],
            "base_model": str(getattr(model.config, "_name_or_path", "") or ""),
            "gguf_origin": origin_of(model),
            "logit_difference": difference._asdict(),
            **details,
            "versions": {"hyperdpo": __version__, **{n: version(n) for n in ("torch", "transformers", "peft")}},
        }
        names = [file.relative_to(temporary).as_posix() for file in temporary.rglob("*") if file.is_file()]
        metadata[FILES] = file_digests(temporary, names)
        write_json(temporary / METADATA, metadata, sealed=True)
    return LMExport(out, metadata, difference)


def check_difference(model: ConditionedLM, difference: float, format: str, instead: str) -> None:
    """Refuse an export whose logits are not the run's.

    Args:
        difference: of :func:`compared`, as a part of the largest logit.
        instead: what to do.

    Raises:
        InputError: they are not.
    """
    largest = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if not difference <= largest:
        raise InputError(
            f"--format {format}: on random texts, the exported model's logits differ from the run's by "
            f"{difference:.2g} of the largest; expected at most {largest:g}; nothing was written ({instead})"
        )


def check_directory(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken. Only an earlier export is ever replaced.

    Raises:
        InputError: it is taken, or cannot be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / METADATA).is_file():
            raise InputError(f"{out}: exists and is no export of `hyperdpo export`; expected a new directory")
        if not overwrite:
            raise InputError(f"{out}: holds an export; expected a new directory, or --overwrite")
    check_writable(out.parent)


def _write_merged(
    model: ConditionedLM, tokenizer: Any, weights: Sequence[float] | None, out: Path
) -> tuple[dict[str, Any], Any, list[int]]:
    """Write the checkpoint; its details, the model as it is read back, and the ids of the virtual tokens."""
    plain, prefix = model.merge(weights)
    ids: list[int] = []
    details: dict[str, Any] = {"virtual_tokens": [], "virtual_token_ids": []}
    if prefix is not None:
        tokenizer, names, ids = virtual_tokens(tokenizer, len(prefix))
        margin = add_rows(plain, prefix, ids)
        details = {"virtual_tokens": names, "virtual_token_ids": ids, "virtual_token_margin": margin}
    plain.save_pretrained(out)
    if tokenizer is not None:
        save_tokenizer(out, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=plain.dtype).eval()
    return details, loaded, ids


@torch.no_grad()
def compared(
    model: ConditionedLM, loaded: Any, weights: Sequence[float] | None, ids: list[int]
) -> tuple[Difference, float]:
    """How far the logits are from the model's on random texts, and by how much those of virtual tokens lie below all
    others."""
    words: Any = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(len(words.weight), TRIAL, generator=generator).to(words.weight.device)
    taken = torch.isin(texts, torch.tensor(ids, dtype=torch.long, device=texts.device))
    texts = texts.masked_fill(taken, 0)  # rows that no token had are those of virtual tokens now
    loaded.to(texts.device)
    wanted = model(texts, weights=weights).logits.float()
    start = torch.tensor(ids, dtype=torch.long, device=texts.device).expand(len(texts), -1)
    found = loaded(input_ids=torch.cat((start, texts), 1), use_cache=False).logits.float()
    found = found[:, -texts.shape[1] :]
    virtual = torch.zeros(found.shape[-1], dtype=torch.bool, device=texts.device)
    virtual[ids] = True
    below = found[..., ~virtual].amin(-1) - found[..., virtual].amax(-1) if ids else torch.full((1,), math.inf)
    found = found[..., : wanted.shape[-1]]
    kept = torch.ones(wanted.shape[-1], dtype=torch.bool, device=texts.device)
    kept[[i for i in ids if i < len(kept)]] = False
    difference = (found - wanted)[..., kept].abs().max()
    relative = difference / wanted.abs().max().clamp_min(1)
    return Difference(float(relative), float(difference)), float(below.min())
