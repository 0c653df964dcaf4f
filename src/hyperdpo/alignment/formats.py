"""What preference data looks like from outside: rows of a file or an object, and what their columns mean.

A converter turns one row (a mapping of column names to values) into :class:`Parts`, and knows nothing of the other
rows. :data:`FORMATS` names them all; :func:`detect_format` chooses by the columns of the first row.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperdpo.data.groups import abridged
from hyperdpo.errors import InputError

Row = Mapping[str, Any]
#: A text, or the messages of a conversation (``role``, ``content``) that the response answers.
Prompt = str | list[dict[str, str]]

#: What the one objective of a pair is called where nobody named it.
PAIR_OBJECTIVE = "preferred"

#: Endings of the files that :func:`file_rows` reads.
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

_PARQUET_ROWS = 1024  # converted to Python objects at a time


class Parts(NamedTuple):
    """One row, as :class:`hyperdpo.alignment.data.PreferenceGroup` takes it."""

    prompt: Prompt
    completions: tuple[str, ...]
    labels: dict[str, tuple[float, ...] | None]
    """An objective that the row names without a label is None."""


# Converters -----------------------------------------------------------------------------------------------------------


def from_groups(row: Row) -> Parts:
    """This package's own form: ``prompt``, ``completions`` (n texts), ``labels`` {objective: n numbers, or null}.

    A completion of a conversation may also be a list of one assistant message.

    Raises:
        InputError: without a place; a column is missing or of another form.
    """
    return _listwise(row, "completions", "labels")


def from_scores(row: Row) -> Parts:
    """Listwise scores: ``prompt``, ``responses`` (n texts), ``scores`` {objective: n numbers, or null}.

    Raises:
        InputError: without a place; a column is missing or of another form.
    """
    return _listwise(row, "responses", "scores")


def from_pku(row: Row) -> Parts:
    """PKU-SafeRLHF: ``prompt``, ``response_0``, ``response_1``, ``better_response_id``, ``safer_response_id``.

    The objectives are ``helpful`` (the better response's label is 1, the other's 0) and ``harmless`` (likewise the
    safer one's). A data set may lack one of the two columns.

    Raises:
        InputError: without a place; a column is missing, or an id is neither 0 nor 1.
    """
    completions = (_text(row, "response_0"), _text(row, "response_1"))
    found = {name: column for name, column in PKU_COLUMNS.items() if column in row}
    if not found:
        _column(row, PKU_COLUMNS["helpful"])
    labels: dict[str, tuple[float, ...] | None] = {}
    for name, column in found.items():
        chosen = row[column]
        if is_missing(chosen):
            labels[name] = None
        elif isinstance(chosen, bool | np.bool_) or chosen not in (0, 1):
            raise InputError(f"column {column!r} is {_shown(chosen)}; expected 0 or 1, the response that is preferred")
        else:
            labels[name] = (float(chosen == 0), float(chosen == 1))
    return Parts(_prompt(_column(row, "prompt")), completions, labels)


#: Objective -> its column in PKU-SafeRLHF.
PKU_COLUMNS = {"helpful": "better_response_id", "harmless": "safer_response_id"}


def from_pair(row: Row, objective: str = PAIR_OBJECTIVE) -> Parts:
    """TRL's preference form, ``prompt``, ``chosen``, ``rejected``: one objective with the labels 1 and 0.

    Texts or conversations. The prompt may be left out and stand at the beginning of both; it is then their longest
    common beginning, as TRL has it. Conversations that begin with the messages of an explicit prompt lose them.

    Raises:
        InputError: without a place; a column is missing or of another form, no prompt, or more than one message
            behind the prompt.
    """
    chosen, rejected = (_prompt(_column(row, name), name) for name in ("chosen", "rejected"))
    prompt = None if is_missing(row.get("prompt")) else _prompt(row["prompt"])
    if isinstance(chosen, list) and isinstance(prompt, list):
        k = len(prompt)
        chosen, rejected = (side[k:] if side[:k] == prompt else side for side in (chosen, rejected))
    elif prompt is None or isinstance(chosen, list):
        # TRL's rule: the prompt column of a text beside whole conversations only repeats their first message.
        prompt, chosen, rejected = _without_common_beginning(chosen, rejected)
    completions = (_completion(chosen, "chosen"), _completion(rejected, "rejected"))
    return Parts(prompt, completions, {objective: (1.0, 0.0)})


class Format(NamedTuple):
    """A converter, and the columns by which its rows are known."""

    convert: Callable[[Row], Parts]
    columns: tuple[str, ...]
    one_of: tuple[str, ...] = ()
    """At least one of these, too."""

    def fits(self, row: Row) -> bool:
        return all(c in row for c in self.columns) and (not self.one_of or any(c in row for c in self.one_of))


#: In the order in which they are tried.
FORMATS: dict[str, Format] = {
    "groups": Format(from_groups, ("prompt", "completions", "labels")),
    "scores": Format(from_scores, ("prompt", "responses", "scores")),
    "pku": Format(from_pku, ("prompt", "response_0", "response_1"), tuple(PKU_COLUMNS.values())),
    "pairs": Format(from_pair, ("chosen", "rejected")),
}


def detect_format(row: Row) -> str:
    """The name of the first format that the columns of a row fit.

    Raises:
        InputError: without a place; none fits.
    """
    for name, form in FORMATS.items():
        if form.fits(row):
            return name
    expected = "; ".join(
        f"{name}: {', '.join(form.columns)}" + (f" and {' or '.join(form.one_of)}" if form.one_of else "")
        for name, form in FORMATS.items()
    )
    raise InputError(f"found the columns {abridged([str(c) for c in row])}; expected those of a format ({expected})")


# Rows -----------------------------------------------------------------------------------------------------------------


def source_rows(source: Any) -> tuple[str, Iterator[tuple[str, Row]]]:
    """The name of a source, for messages, and its rows with the place of each.

    Args:
        source: path of a file; ``datasets`` object; data frame (pandas, polars) or Arrow table; iterable of mappings.

    Raises:
        InputError: nothing of that kind; while the rows are drawn, a file that cannot be read.
    """
    if isinstance(source, str | Path):
        return str(source), file_rows(Path(source))
    if isinstance(source, Mapping):
        raise InputError(
            f"preferences: found a {type(source).__name__} of {abridged([str(k) for k in source])}; "
            "expected one data set (read_splits takes several parts, merge_pairs several objectives)"
        )
    import narwhals as nw

    frame = nw.from_native(source, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return "frame", _numbered("frame: ", frame.iter_rows(named=True))
    if hasattr(source, "with_format"):  # a datasets.Dataset: another format would give tensors
        return "dataset", _numbered("dataset: ", source.with_format(None))
    if isinstance(source, Iterable):
        return "rows", _numbered("rows: ", source)
    raise InputError(
        f"preferences: found {type(source).__name__}; expected a path, a dataset, a frame or a list of rows"
    )


def file_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows of ``.jsonl``, ``.jsonl.gz``, ``.json`` (a list, or one object per line) or ``.parquet``, with their places.

    Raises:
        InputError: the file is missing, of another kind, or damaged.
    """
    if path.is_dir():
        raise InputError(f"{path}: a directory; expected a file (read_splits reads a directory of parts)")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_lines(path)
    if name.endswith(".json"):
        return _json_rows(path)
    raise InputError(f"{path}: an unknown kind of file; expected a name that ends in {', '.join(SUFFIXES)}")


def _numbered(prefix: str, rows: Iterable[Any]) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(rows, 1):
        place = f"{prefix}row {number}"
        if not isinstance(row, Mapping):
            raise InputError(f"{place} is {_shown(row)}; expected an object with named columns")
        yield place, row


def _json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = _parsed(line, f"{path}:{number}")
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: found {_shown(row)}; expected one JSON object per line")
                yield f"{path}:{number}", row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: {error}; expected a whole gzip file") from None


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with open(path, "rb") as file:
        first = next((byte for byte in iter(lambda: file.read(1), b"") if not byte.isspace()), b"")
    if first != b"[":
        return _json_lines(path)
    return _numbered(f"{path}:", _parsed(path.read_bytes(), str(path)))


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        raise InputError(f"{place}: bytes that are not UTF-8; expected JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: {error.msg} at line {error.lineno}, character {error.colno}; expected JSON"
        ) from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=_PARQUET_ROWS)
            yield from _numbered(f"{path}:", itertools.chain.from_iterable(batch.to_pylist() for batch in batches))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())[:200]}; expected a whole Parquet file") from None


# Values ---------------------------------------------------------------------------------------------------------------


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _column(row: Row, name: str) -> Any:
    if name not in row:
        raise InputError(f"no column {name!r}; the columns are {abridged([str(c) for c in row])}")
    return row[name]


def _text(row: Row, name: str) -> str:
    value = _column(row, name)
    if not isinstance(value, str):
        raise InputError(f"column {name!r} is {_shown(value)}; expected a text")
    return value


def _prompt(value: Any, name: str = "prompt") -> Prompt:
    """A text, or messages without the keys that Arrow fills up with null."""
    if isinstance(value, str):
        return value
    if not _is_list(value):
        raise InputError(f"column {name!r} is {_shown(value)}; expected a text or a list of messages")
    messages = []
    for number, message in enumerate(value, 1):
        kept = {k: v for k, v in message.items() if not is_missing(v)} if isinstance(message, Mapping) else {}
        if not all(isinstance(kept.get(key), str) for key in ("role", "content")):
            raise InputError(
                f"column {name!r}, message {number} is {_shown(message)}; "
                "expected an object with the texts role and content"
            )
        messages.append(kept)
    return messages


def _completion(value: Prompt, name: str) -> str:
    """A text, or the content of the one assistant message."""
    if isinstance(value, str):
        return value
    roles = [message["role"] for message in value]
    if roles != ["assistant"]:
        raise InputError(
            f"column {name!r} has the messages {', '.join(roles) or '(none)'} behind the prompt; "
            "expected one, of the assistant"
        )
    extra = sorted(set(value[0]) - {"role", "content"})
    if extra:
        raise InputError(f"column {name!r}: a message with {', '.join(extra)}; expected role and content only")
    return value[0]["content"]


def _without_common_beginning(chosen: Prompt, rejected: Prompt) -> tuple[Prompt, Prompt, Prompt]:
    """(prompt, chosen, rejected), as ``trl.extract_prompt`` finds them."""
    if type(chosen) is not type(rejected):
        raise InputError("column 'chosen' or 'rejected' is a conversation and the other a text; expected the same form")
    pairs = zip(chosen, rejected, strict=False)
    cut = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    if isinstance(chosen, str) and cut > 0 and chosen[cut - 1] == " ":
        cut -= 1  # the space belongs to the response, so that its first word is tokenised as a word
    if cut in (0, len(chosen), len(rejected)):
        raise InputError(
            "no column 'prompt', and chosen and rejected do not begin alike and go on differently; "
            "expected a prompt that both begin with"
        )
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _listwise(row: Row, completions: str, labels: str) -> Parts:
    prompt = _prompt(_column(row, "prompt"))
    texts = _column(row, completions)
    if not _is_list(texts):
        raise InputError(f"column {completions!r} is {_shown(texts)}; expected a list of texts")
    named = [_prompt(text, f"{completions}[{k}]") for k, text in enumerate(texts)]
    values = _column(row, labels)
    if not isinstance(values, Mapping):
        raise InputError(f"column {labels!r} is {_shown(values)}; expected an object of objectives with one list each")
    return Parts(
        prompt,
        tuple(_completion(text, f"{completions}[{k}]") for k, text in enumerate(named)),
        {str(name): _numbers(value, f"{labels}.{name}") for name, value in values.items()},
    )


def _numbers(values: Any, name: str) -> tuple[float, ...] | None:
    if is_missing(values):
        return None
    if not _is_list(values):
        raise InputError(f"column {name!r} is {_shown(values)}; expected a list of numbers, one per response, or null")
    for k, value in enumerate(values):
        if not isinstance(value, int | float | np.number | np.bool_):
            raise InputError(f"column {name!r}, value {k + 1} is {_shown(value)}; expected a number")
    return tuple(float(value) for value in values)


def _is_list(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def _shown(value: Any, most: int = 40) -> str:
    """A value on one line, cut."""
    if isinstance(value, np.generic):
        value = value.item()
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
