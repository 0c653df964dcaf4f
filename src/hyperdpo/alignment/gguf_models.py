"""GGUF files as base models: llama.cpp's format, which transformers reads with dequantised weights.

A base that was read from such a file says so in its configuration (:data:`ORIGIN`), and so does everything that is
saved from it: a run, a merged export, a directory. Weights are rounded when a file is quantised, and dequantising does
not undo that: such a base is another model than the one that was quantised.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from hyperdpo.errors import InputError, counted, one_line
from hyperdpo.extras import require

#: The entry of a base's configuration that says which GGUF file it came from: ``file``, ``quantisation``,
#: ``dequantised``.
ORIGIN = "gguf_origin"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: GGUF's types of values -> how struct reads them.
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
#: More of anything than this is no count but noise.
_MOST = 1 << 32
#: Kinds of numbers that are not quantised.
_PLAIN = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class GGUFHeader:
    """What stands before a GGUF file's weights.

    Attributes:
        values: the metadata, without lists.
        tensors: name -> its shape, the number of its type, and where its data begin, after ``start``.
        start: where the data begin.
    """

    values: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, int]]
    start: int


def gguf_file(base_model: Any) -> Path | None:
    """The GGUF file that a base model's name means, or None.

    Args:
        base_model: a path of a file; or ``{"gguf_file": path}``, perhaps with ``directory``, in which it lies.

    Raises:
        InputError: a mapping with other names in it, or a file that is not there.
    """
    if isinstance(base_model, Mapping):
        if set(base_model) - {"gguf_file", "directory"} or not isinstance(base_model.get("gguf_file"), str | Path):
            raise InputError(f"model: found {dict(base_model)}; expected a name, a directory or {{gguf_file: PATH}}")
        path = Path(base_model.get("directory") or ".") / base_model["gguf_file"]
    elif isinstance(base_model, str | PathLike):
        path = Path(base_model)
        if not path.is_file() and path.suffix.lower() != ".gguf":
            return None
    else:
        return None
    if not path.is_file():
        raise InputError(f"base model {path}: no such file; expected a GGUF file")
    return path


def read_header(path: Path) -> GGUFHeader:
    """The metadata of a GGUF file, and where its tensors are; its weights are not read.

    Raises:
        InputError: it is no GGUF file, of another version, or ends too early.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != _MAGIC:
                raise InputError(f"base model {path}: not a GGUF file; expected a directory, a hub name or a GGUF file")
            version = _number(file, "<I")
            if version not in _VERSIONS:
                known = " or ".join(map(str, _VERSIONS))
                raise InputError(f"base model {path}: GGUF version {version}; expected version {known}")
            tensors, pairs = _number(file, "<Q"), _number(file, "<Q")
            values = {}
            for _ in range(pairs):
                name = _string(file)
                value = _value(file, _number(file, "<I"))
                if not isinstance(value, list):
                    values[name] = value
            places = {}
            for _ in range(tensors):
                name = _string(file)
                shape = tuple(_number(file, "<Q") for _ in range(_number(file, "<I")))
                places[name] = (shape, _number(file, "<I"), _number(file, "<Q"))
            alignment = int(values.get("general.alignment", 32))
            return GGUFHeader(values, places, -(-file.tell() // alignment) * alignment)
    except (struct.error, UnicodeDecodeError, KeyError, ZeroDivisionError, TypeError):
        raise InputError(f"base model {path}: the GGUF file is truncated or damaged; expected a whole one") from None
    except OSError as error:
        raise InputError(f"base model {path}: cannot be read ({error.strerror or error})") from None


def origin_of_file(path: Path) -> dict[str, Any]:
    """What a run says about a base from this file, after a check that transformers can read it.

    Raises:
        InputError: the package ``gguf`` is not installed; no GGUF file, a truncated one, or one of an architecture that
            transformers does not read.
    """
    header = read_header(path)
    require("gguf")
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    architecture = str(header.values.get("general.architecture"))
    known = {name.replace("-", "").replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES}
    if architecture.replace("-", "").replace("_", "") not in known:
        raise InputError(
            f"base model {path}: a GGUF file of architecture {architecture!r}, which transformers does not read; "
            f"expected one of {', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}"
        )
    entries: dict[str, int] = {}
    end = header.start
    for name, (shape, kind, offset) in header.tensors.items():
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise InputError(f"base model {path}: tensor {name!r} is of the unknown type {kind}; update gguf") from None
        type_name = GGMLQuantizationType(kind).name
        entries[type_name] = entries.get(type_name, 0) + prod(shape)
        end = max(end, header.start + offset + prod(shape) // block * size)
    found = path.stat().st_size
    if not entries or found < end:
        raise InputError(
            f"base model {path}: {counted(found, 'byte')}, and its {counted(len(header.tensors), 'tensor')} need "
            f"{end:,}; the file is truncated"
        )
    # A file of type Q4_1 keeps norms, and perhaps embeddings, more precisely: its name says how it was quantised.
    try:
        quantisation = LlamaFileType(header.values["general.file_type"]).name.removeprefix("MOSTLY_")
    except (KeyError, ValueError):
        quantisation = max(entries, key=lambda one: entries[one])
    quantisation = quantisation.removeprefix("ALL_")
    dequantised = any(one not in _PLAIN for one in entries)
    return {"file": path.name, "quantisation": quantisation, "dequantised": dequantised}


def load_gguf_model(path: Path, **model_settings: Any) -> Any:
    """A transformers causal language model from a GGUF file, its weights dequantised.

    It can be saved: what transformers notes of the file's quantisation is removed, and :data:`ORIGIN` put in its place.

    Raises:
        InputError: as of :func:`origin_of_file`, or transformers cannot read it.
    """
    origin = origin_of_file(path)
    from transformers import AutoModelForCausalLM, modeling_gguf_pytorch_utils
    from transformers.utils.logging import tqdm

    # The reader uses tqdm's own class, which transformers' switch for progress bars has no effect on. So put
    # transformers' class in its place.
    modeling_gguf_pytorch_utils.tqdm = tqdm
    try:
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, **model_settings)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:  # of a file that is not what it says
        raise InputError(f"base model {path}: transformers cannot read it ({one_line(error)})") from None
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        vars(model).pop(name, None)
    for name in ("quantization_config", "_model_name_or_path"):
        vars(model.config).pop(name, None)
    setattr(model.config, ORIGIN, origin)
    model.config._name_or_path = str(path)
    return model


def load_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer of a GGUF file, with its chat template.

    Raises:
        InputError: as of :func:`origin_of_file`, or there is none in it.
    """
    origin_of_file(path)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"base model {path}: no tokenizer in the GGUF file ({one_line(error)}); expected one"
        ) from None


def origin_of(model: Any) -> dict[str, Any] | None:
    """What the configuration of a base says about the GGUF file it came from; None for any other base."""
    found = getattr(getattr(model, "config", model), ORIGIN, None)
    return dict(found) if isinstance(found, Mapping) else None


def described_origin(origin: Mapping[str, Any] | None) -> str:
    """A few words for tables, such as ``dequantised from model.gguf (Q4_1)``; "" for a base of another origin."""
    if origin is None:
        return ""
    start = "dequantised from" if origin.get("dequantised") else "read from"
    return f"{start} {origin.get('file')} ({origin.get('quantisation')})"


def base_note(origin: Mapping[str, Any] | None) -> str:
    """How the titles of tables end: ``; base dequantised from model.gguf (Q4_1)``, or "" for another base."""
    described = described_origin(origin)
    return f"; base {described}" if described else ""


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > _MOST or len(found := file.read(length)) < length:
        raise struct.error("a string that ends too early")
    return found.decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _NUMBERS[kind])
    inner, length = _number(file, "<I"), _number(file, "<Q")
    if length > _MOST:
        raise struct.error("a list of too many entries")
    if inner in _NUMBERS:  # passed over: nothing here needs lists
        skipped = struct.calcsize(_NUMBERS[inner]) * length
        if len(file.read(skipped)) < skipped:
            raise struct.error("a list that ends too early")
        return []
    return [None for _ in range(length) if _value(file, inner) is None]
