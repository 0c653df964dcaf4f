"""Says what is wrong with one line of LETOR text. Plain Python: it runs once, on the line that stops a reading."""

from __future__ import annotations

import re

import numpy as np

from hyperdpo.data.columns import MISSING_FROM

#: Highest feature number. Rows are stored dense: at this width a row takes 256 KiB.
MAX_FEATURE = 65_536

#: Longest line, in bytes.
MAX_LINE = 1 << 20

#: Longest query id, in bytes.
MAX_ID = 1024

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: The form of a line, for messages.
ROW_FORM = "LABEL qid:ID FEATURE:VALUE ..."

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAN = re.compile(rb"[+-]?nan", re.IGNORECASE)
_MAGIC = (
    (b"\x1f\x8b", "gzip data", "a name that ends in .gz"),
    (b"BZh", "bzip2 data", "a name that ends in .bz2"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "a name that ends in .zst"),
    (b"PAR1", "a Parquet file", "a name that ends in .parquet"),
    (b"\xff\xfe", "a UTF-16 byte order mark", "ASCII or UTF-8 text"),
    (b"\xfe\xff", "a UTF-16 byte order mark", "ASCII or UTF-8 text"),
)


def quoted(text: bytes, most: int = 40) -> str:
    """The text in quotes on one line: control characters escaped, cut to about `most` characters."""
    cut = text[:most].decode("utf-8", errors="backslashreplace")
    return repr(cut if len(text) <= most else cut + "...")


def diagnose(line: bytes, first: bool, from_zero: bool = False) -> str:
    """``what was found; expected ...`` for a line that the parser refuses.

    Args:
        line: without its newline.
        first: whether it is the file's first line, where signs of another file format show.
        from_zero: whether there may be a feature 0.
    """
    if first:
        for magic, what, expected in _MAGIC:
            if line.startswith(magic):
                return f"the file begins with {what}; expected {expected}"
    if len(line) > MAX_LINE:
        return too_long(line)
    if b"\0" in line:
        at = line.index(b"\0")
        return f"a NUL byte after {quoted(line[max(0, at - 20) : at])}; expected text, not binary data"
    line = line.removesuffix(b"\r")
    if b"\r" in line:
        at = line.index(b"\r")
        return (
            f"a lone carriage return (\\r) after {quoted(line[max(0, at - 20) : at])}; "
            "expected lines that end in \\n or \\r\\n"
        )
    return _diagnose_fields(line.split(b"#", 1)[0], from_zero)


def too_long(line: bytes) -> str:
    """For a line of which at least the beginning is at hand."""
    return f"a line of more than {MAX_LINE:,} bytes that begins with {quoted(line)}; expected {ROW_FORM}"


def _diagnose_fields(body: bytes, from_zero: bool) -> str:
    fields = re.split(rb"[ \t]+", body.strip(b" \t"))
    label = fields[0]
    if label.startswith(b"{"):
        return f"the line is JSON, {quoted(body)}; expected {ROW_FORM} (JSON lines are read by `hyperdpo align`)"
    if (problem := _number_problem(label)) is not None:
        return f"the label is {quoted(label)}{problem}; expected a finite number, as in {ROW_FORM}"
    if len(fields) == 1 or not fields[1].startswith(b"qid:"):
        found = quoted(fields[1]) if len(fields) > 1 else "the end of the line"
        return f"{found} after the label; expected qid:ID, as in {ROW_FORM}"
    qid = fields[1][4:]
    if not qid:
        return f"the query id is '' (empty); expected text or a number behind qid:, as in {ROW_FORM}"
    if len(qid) > MAX_ID:
        return f"the query id {quoted(qid)} has {len(qid):,} bytes; expected at most {MAX_ID:,}"
    if any(byte < 33 for byte in qid):
        return f"the query id is {quoted(qid)}, with a control character; expected text without one"
    try:
        qid.decode()
    except UnicodeDecodeError:
        return f"the query id is {quoted(qid)}; expected UTF-8 text"

    seen: set[int] = set()
    for field in fields[2:]:
        number, colon, value = field.partition(b":")
        if not colon:
            return f"{quoted(field)} has no colon; expected FEATURE:VALUE"
        if not re.fullmatch(rb"[0-9]+", number):
            return f"the feature number is {quoted(number)} in {quoted(field)}; expected a whole number"
        feature = int(number[:30])
        if feature == 0 and not from_zero:
            return (
                f"feature 0 in {quoted(field)}; expected feature numbers from 1 "
                "(--features-from-zero reads files that count from 0)"
            )
        if feature > MAX_FEATURE:
            return f"feature {quoted(number)}; expected at most {MAX_FEATURE}: rows are stored dense"
        if feature in seen:
            return f"feature {feature} a second time, as {quoted(field)}; expected each feature once"
        if not counts_as_missing(value) and (problem := _number_problem(value)) is not None:
            return f"the value of feature {feature} is {quoted(value)}{problem}; expected a finite number"
        seen.add(feature)
    return f"{quoted(body)} cannot be read; expected {ROW_FORM}"  # unreachable if parser and diagnosis agree (tested)


def counts_as_missing(text: bytes) -> bool:
    """Whether a feature's value is nan, or so large that it stands for "missing"."""
    if _NAN.fullmatch(text):
        return True
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) >= MISSING_FROM


def _number_problem(text: bytes) -> str | None:
    """What is wrong with a number, in addition to the text itself; None if nothing is."""
    if not text:
        return " (empty)"
    if not _NUMBER.fullmatch(text):  # NaN and infinity included, in any spelling
        return ""
    return None if fits_float32(float(text)) else " (overflows 32-bit floats)"


def fits_float32(value: float) -> bool:
    """Whether a number does not overflow 32-bit floats; nan does not either."""
    with np.errstate(over="ignore"):
        return not np.isinf(np.float32(value))
