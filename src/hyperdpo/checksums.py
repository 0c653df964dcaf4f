"""Checksums of files that are read back: damage is refused by the file's name.

A *sealed* file holds its own checksum: the SHA-256 of its bytes, with 64 zeros in the checksum's place. JSON, tensors
and ONNX graphs can be sealed. Other files are listed, each with its SHA-256, in a sealed JSON file beside them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperdpo.errors import InputError, brief

#: Key of the checksum in a sealed JSON file, and in the values of a sealed file of tensors.
KEY = "sha256"

#: Where the checksum stands: at the end of a JSON file, ...
JSON_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n?\}\n?\Z')
#: ... at the beginning of the values in the header of tensors, ...
TENSORS_SEAL = re.compile(rb'"values":"\{\\"sha256\\": \\"([0-9a-f]{64})\\"')
#: ... in the metadata of an ONNX graph.
ONNX_SEAL = re.compile(rb"\n\x06sha256\x12@([0-9a-f]{64})")

#: What a checksum's place holds while it is computed.
ZEROS = "0" * 64

_PIECE_BYTES = 1 << 20
#: A file's name, or a directory's: neither hidden, nor ``..``.
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


def sealed(content: bytes, seal: re.Pattern[bytes], head: int | None = None) -> bytes:
    """The content with its checksum in the place of :data:`ZEROS`.

    Args:
        seal: where the checksum stands.
        head: look for it in the first so many bytes only.
    """
    found = seal.search(content, 0, len(content) if head is None else head)
    assert found is not None
    assert found[1] == ZEROS.encode()
    return content[: found.start(1)] + _digest(content, found).encode() + content[found.end(1) :]


def is_intact(content: bytes, seal: re.Pattern[bytes], head: int | None = None) -> bool | None:
    """Whether sealed content is what was written; None: it has no checksum.

    Args:
        seal, head: as for :func:`sealed`.
    """
    found = seal.search(content, 0, len(content) if head is None else head)
    return None if found is None else _digest(content, found).encode() == found[1]


def _digest(content: bytes, found: re.Match[bytes]) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[: found.start(1)])
    digest.update(ZEROS.encode())
    digest.update(view[found.end(1) :])
    return digest.hexdigest()


def is_nearly_key(name: Any) -> bool:
    """Whether a name is :data:`KEY`, or was before one character of it changed."""
    return isinstance(name, str) and len(name) == len(KEY) and sum(map(str.__ne__, name, KEY)) < 2


def damaged(path: Path | str, remedy: str = "") -> InputError:
    """The error for a file that is not what was written.

    Args:
        remedy: what to do about it.
    """
    remedy = remedy or "restore it from a copy, or delete it and make it again"
    return InputError(f"{path}: damaged, truncated or changed since it was written (its checksum differs); {remedy}")


def content_digest(content: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def file_digests(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> SHA-256 of files in a directory, in order of the names.

    Raises:
        InputError: one cannot be read.
    """
    return {name: file_digest(directory / name) for name in sorted(set(names))}


def check_files(directory: Path, digests: Mapping[str, str], where: Path, remedy: str = "") -> None:
    """Compare files with what :func:`file_digests` said of them.

    Args:
        where: the file that lists them, for messages.
        remedy: what to do about one that differs.

    Raises:
        InputError: one is missing or differs, or a name that leads out of the directory.
    """
    for name, digest in digests.items():
        path = named_inside(directory, name, where)
        if not path.is_file():
            raise InputError(f"{path}: no such file, but {where.name} lists it; {remedy or 'restore it from a copy'}")
        if file_digest(path) != digest:
            raise damaged(path, remedy)


def named_inside(directory: Path, name: Any, where: str | Path) -> Path:
    """The path of a file in a directory whose name a file gives, such as ``model.safetensors`` or ``trees/0-a.txt``.

    Args:
        where: the file that gives the name, for the message.

    Raises:
        InputError: not a plain name, or a place outside the directory.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(_PLAIN_NAME.fullmatch(part) for part in parts):
        raise InputError(f"{where}: names a file {brief(name)}; expected a plain name without .. or a leading /")
    return directory.joinpath(*parts)
