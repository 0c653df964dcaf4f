# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated, assignment, operator"
# ruff: noqa: SIM109 - in compiled code `byte in (a, b)` builds a tuple
"""The machine code of the LETOR reader: numba functions that turn a block of text into rows of numbers.

Importing this module imports numba; the functions are built at their first call and kept on disk. They only say THAT a
line is bad: `hyperdpo.data.letor_errors` says why. Numbers that need arbitrary precision are left to Python's float().
All functions stand in this one file: numba builds kept code again only when the file of the called function changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from hyperdpo.data.letor_errors import MAX_FEATURE, MAX_ID, MAX_LINE

#: Where `parse_block` stopped: at the end; before a row that has no room; before a row with a feature above the width;
#: before a bad line.
DONE, FULL, WIDER, BAD = 0, 1, 2, 3

#: What `parse_block` met, as bits: nan; values so large that they count as missing; values of 2^24 or more (float32
#: does not hold all whole numbers from there on).
NAN, OVERSIZED, LARGE = 1, 2, 4

# What `_number` found: the nearest double; a double that rounds to the nearest float32; a number that only float() can
# round; no number. Besides NAN and OVERSIZED.
_EXACT, _ROUNDED, _HARD, _WRONG = 0, 8, 16, 32

#: Bytes that may be read, never used, behind the last byte of a block.
PADDING = 16

# Powers of ten, each the double nearest to it. Index 0 is 10^_LOWEST, which is 0.
_LOWEST, _HIGHEST = -330, 308
POWERS = np.array([float(f"1e{e}") for e in range(_LOWEST, _HIGHEST + 1)])

# 1, 10, ..., 10^7, -1, -10, ..., -10^7: dividing by the second half makes a value negative (0 becomes -0).
_SIGNED_SCALES = np.array([sign * 10.0**e for sign in (1, -1) for e in range(8)])

# uint64 throughout: a signed index makes numba add code for negative indices, and uint64 + int64 is a float64.
_0, _1, _3, _4, _7, _8, _10, _16, _32 = (np.uint64(i) for i in (0, 1, 3, 4, 7, 8, 10, 16, 32))
_LONGEST_ID, _LONGEST_LINE, _LAST_FEATURE = np.uint64(MAX_ID), np.uint64(MAX_LINE), np.uint64(MAX_FEATURE)
_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_BELOW_33 = np.uint64(0x2121212121212121)
_HIGH_BITS = np.uint64(0x8080808080808080)
_EVERY_FOURTH = np.uint64(0x000000FF000000FF)
_PAIRS_1 = np.uint64(100 + (1_000_000 << 32))
_PAIRS_2 = np.uint64(1 + (10_000 << 32))
_ASCII_ZERO = np.uint64(48)
_QID, _QID_MASK = np.uint64(int.from_bytes(b"qid:", "little")), np.uint64(0xFFFFFFFF)
_NAN_TEXT, _NAN_MASK = np.uint64(int.from_bytes(b"nan", "little")), np.uint64(0xFFFFFF)
_LOWER_CASE = np.uint64(0x202020)
_NUL, _TAB, _NEWLINE, _RETURN, _SPACE, _HASH = (np.uint8(c) for c in b"\0\t\n\r #")
_PLUS, _MINUS, _DOT, _COLON, _E, _LOWER_E = (np.uint8(c) for c in b"+-.:Ee")
_MAX_MANTISSA = np.uint64(10**18)  # one more digit still fits into uint64
_EXACT_DOUBLE = np.uint64(2**53)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, without Python's lock; keep the machine code on disk where that is possible.

    numba keeps it beside this file, else in the user's cache directory, and gives up if it may write to neither.
    """
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)


@intrinsic
def _load8(typing_context, buffer, position):
    """The eight bytes at ``buffer[position:]`` as one uint64, first byte lowest, at any alignment."""
    signature = types.uint64(buffer, types.uint64)

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        word = builder.load(address)
        word.align = 1
        return builder.bswap(word) if sys.byteorder == "big" else word

    return signature, codegen


@intrinsic
def _trailing_zeros(typing_context, value):
    """Zero bits below the lowest set bit; 64 for 0."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


def feature_patterns(width: int, shift: int = 0) -> np.ndarray:
    """How `` k:`` looks as a uint64, for all features of a row: a dense row is read by comparing, not by parsing.

    Args:
        width: features of a row.
        shift: 0 if the first one is feature 1, 1 if it is feature 0.

    Returns:
        (width + 2, 4) uint64: characters, mask, length, unused. The last entry matches nothing: it ends the row.
    """
    patterns = np.zeros((width + 2, 4), dtype=np.uint64)
    for k in range(1, width + 1):
        text = f" {k - shift}:".encode()
        patterns[k, :3] = int.from_bytes(text, "little"), (1 << (8 * len(text))) - 1, len(text)
    patterns[[0, width + 1], 0] = 1  # under a mask of 0 nothing equals 1
    return patterns


@njit(inline="always")
def _ends_line(byte):
    """Whether a line's fields may end here. A carriage return is checked later: a newline has to follow."""
    return byte == _NEWLINE or byte == _HASH or byte == _RETURN


@njit(inline="always")
def _ends_field(byte):
    return byte == _SPACE or byte == _TAB or _ends_line(byte)


@njit(inline="always")
def _digit(text, p):
    """The digit at `p`; 10 or more for any other character."""
    return np.uint64(text[p]) - _ASCII_ZERO  # wraps round below '0'


@njit(inline="always")
def _skip_blanks(text, p):
    while text[p] == _SPACE or text[p] == _TAB:
        p += _1
    return p


@njit(inline="always")
def _record(table, row, a, b, c, d):
    table[row, 0], table[row, 1], table[row, 2], table[row, 3] = a, b, c, d


@njit(inline="always")
def _count_digits(word):
    """How many of the eight characters are digits before the first that is not. `word` is XORed with ``00000000``."""
    return _trailing_zeros(((word + _ABOVE_NINE) | word) & _HIGH_BITS) >> _3


@njit(inline="always")
def _eight_digits(word):
    """The number that eight digits spell (digit values 0..9, the first one lowest): three multiplications."""
    word = word * _10 + (word >> _8)
    return ((word & _EVERY_FOURTH) * _PAIRS_1 + ((word >> _16) & _EVERY_FOURTH) * _PAIRS_2) >> _32


@njit(inline="always")
def _field_length(text, p):
    """Bytes up to the next space or control character, at most 8."""
    word = _load8(text, p)
    return _trailing_zeros((word - _BELOW_33) & ~word & _HIGH_BITS) >> _3


@njit(inline="always")
def _short_number(text, p):
    """At most 8 digits, perhaps with a sign and a dot: (whether it is one, value, position behind it).

    There is no branch on where the dot is. What follows depends on the end alone, which is found apart from the value.
    """
    length, more = _field_length(text, p), _field_length(text, p + _8)  # both: a branch would be hard to predict
    end = p + (length if length < _8 else _8 + more)

    negative = np.uint64(text[p] == _MINUS)
    q = p + negative
    whole = _load8(text, q) ^ _ZEROS
    whole_digits = _count_digits(whole)
    q += whole_digits
    dot = np.uint64(text[q] == _DOT)
    q += dot
    fraction = _load8(text, q) ^ _ZEROS
    fraction_digits = _count_digits(fraction) * dot
    is_short = q + fraction_digits == end and whole_digits != _0 and whole_digits + fraction_digits <= _8
    whole = whole << ((_8 - whole_digits) << _3)  # 8 bytes, the digits last, zeros before
    fraction = (fraction << ((_7 - fraction_digits) << _3)) << _8
    value = np.float64(np.int64(_eight_digits((whole >> (fraction_digits << _3)) | fraction)))
    return is_short, value / _SIGNED_SCALES[(fraction_digits & _7) + (negative << _3)], end


@_compiled
def _number(text, position, powers):
    """Any decimal number, or nan: (what was found, value, position behind it).

    Up to 2^53 and 10^22 one division rounds to the nearest double. Beyond, the product is off by less than 2^-50 of
    itself. If both ends of that interval round to one float32, it is the nearest; one number in 2^25 is hard.
    """
    p = position
    negative = text[p] == _MINUS
    if negative or text[p] == _PLUS:
        p += _1
    first = p
    mantissa, exponent, dots = _0, 0, 0
    while True:
        digit = _digit(text, p)
        if digit < _10 and mantissa < _MAX_MANTISSA:
            mantissa = mantissa * _10 + digit
            exponent -= dots
        elif digit < _10:
            exponent += 1 - dots
        elif text[p] == _DOT and dots == 0:
            dots = 1
        else:
            break
        p += _1
    if p == first + np.uint64(dots):  # no digit
        if (_load8(text, first) | _LOWER_CASE) & _NAN_MASK == _NAN_TEXT:
            return NAN, np.nan, first + _3
        return _WRONG, 0.0, p
    if text[p] == _E or text[p] == _LOWER_E:
        p += _1
        sign = -1 if text[p] == _MINUS else 1
        if text[p] == _MINUS or text[p] == _PLUS:
            p += _1
        first = p
        power = 0
        while _digit(text, p) < _10:
            power = min(power * 10 + np.int64(_digit(text, p)), 100_000_000)
            p += _1
        if p == first:
            return _WRONG, 0.0, p
        exponent += sign * power
    kind = _ROUNDED
    if mantissa <= _EXACT_DOUBLE and -22 <= exponent <= 0:
        kind = _EXACT
        value = np.float64(mantissa) / powers[np.uint64(-exponent - _LOWEST)]
    else:
        value = np.float64(mantissa) * powers[np.uint64(min(max(exponent, _LOWEST), _HIGHEST) - _LOWEST)]
        above = np.float32(value * (1.0 + 2.0**-50))
        if value > 1.01e308:
            kind, value = OVERSIZED, np.nan
        elif np.isinf(above) or np.float32(value * (1.0 - 2.0**-50)) != above:
            kind = _HARD
    return kind, -value if negative else value, p


@_compiled
def _row(text, p, values, base, width, shift, row, seen, precise, hard, num_hard, patterns, powers):
    """Parse one line that is not blank. Arguments as for `parse_block`, and where the row begins in `values`.

    Returns:
        state (DONE, WIDER or BAD), position behind the fields, the first and the last position of the query id, number
        of hard numbers, flags.
    """
    flags = 0
    kind, value, end = _number(text, p, powers)
    if kind & (_WRONG | NAN | OVERSIZED) or (text[end] != _SPACE and text[end] != _TAB):
        return BAD, p, p, p, num_hard, flags
    if kind == _HARD:
        _record(hard, num_hard, row, _0, p, end)
        num_hard += 1
    values[base] = value

    id_start = _skip_blanks(text, end) + _4
    if _load8(text, id_start - _4) & _QID_MASK != _QID:
        return BAD, p, p, p, num_hard, flags
    id_stop = id_start
    while text[id_stop] > _SPACE and text[id_stop] != _HASH:
        id_stop += _1
    if id_stop == id_start or id_stop - id_start > _LONGEST_ID or not _ends_field(text[id_stop]):
        return BAD, p, p, p, num_hard, flags

    values[base + _1 : base + _1 + width] = 0
    p = id_stop
    feature = _0
    while True:
        feature += _1
        if _load8(text, p) & patterns[feature, 1] == patterns[feature, 0]:
            p += patterns[feature, 2]
        else:
            p = _skip_blanks(text, p)
            if _ends_line(text[p]):
                return DONE, p, id_start, id_stop, num_hard, flags
            first, number = p, _0
            while _digit(text, p) < _10 and number <= _LAST_FEATURE:
                number = number * _10 + _digit(text, p)
                p += _1
            feature = number + shift
            if p == first or text[p] != _COLON or feature == _0 or number > _LAST_FEATURE:
                return BAD, p, p, p, num_hard, flags
            if feature > width:
                return WIDER, p, p, p, num_hard, flags
            p += _1
        if seen[feature] == row:
            return BAD, p, p, p, num_hard, flags
        seen[feature] = row
        is_short, value, end = _short_number(text, p)
        if not is_short:
            kind, value, end = _number(text, p, powers)
            if kind == _WRONG or not _ends_field(text[end]):
                return BAD, p, p, p, num_hard, flags
            if kind == _HARD or (kind == _ROUNDED and precise[feature]):
                _record(hard, num_hard, row, feature, p, end)
                num_hard += 1
            flags |= kind
        values[base + feature] = value
        if abs(value) >= 16_777_216.0:
            flags |= LARGE
        p = end


@_compiled
def parse_block(text, start, stop, values, width, shift, seen, precise, hard, groups, patterns, powers):
    """Parse the lines ``text[start:stop]``; the last byte is a newline and `PADDING` bytes follow it.

    Args:
        text: uint8.
        values: (rows * (1 + width),) float32 or float64, filled row by row: label, then `width` features.
        width: features of a row.
        shift: 0 if the first one is feature 1, 1 if it is feature 0.
        seen: (width + 1,) int64, for the function's own use.
        precise: (width + 1,) bool: columns whose values have to be the nearest doubles, not only the nearest float32.
        hard: (k, 4) int64, filled with (row, column, first and last position) of numbers that only float() can round.
            At least as many as `text` has room for.
        groups: (rows, 4) int64, filled with (row, line, first and last position of the query id) where the query id
            differs from that of the row before.
        patterns: `feature_patterns(width, shift)`.
        powers: `POWERS` (an argument, since a global array would be copied into each compiled function).

    Returns:
        state, position, lines, rows, number of groups, number of hard numbers, flags. The lines before `position` are
        done. state is DONE, FULL, WIDER or BAD; flags are NAN, OVERSIZED and LARGE, among others.
    """
    p, stop, width, shift = np.uint64(start), np.uint64(stop), np.uint64(width), np.uint64(shift)
    stride = width + _1
    max_rows = min(len(values) // np.int64(stride), len(groups))
    num_lines, num_rows, num_groups, num_hard, flags = 0, 0, 0, 0, 0
    last_start, last_stop = _0, _0
    seen[: width + _1] = -1
    while p < stop:
        line_start = p
        p = _skip_blanks(text, p)
        if not _ends_line(text[p]):
            state, id_start, id_stop, most_hard = FULL, p, p, num_hard
            if num_rows < max_rows:
                base = np.uint64(num_rows) * stride
                state, p, id_start, id_stop, most_hard, found = _row(
                    text, p, values, base, width, shift, num_rows, seen, precise, hard, num_hard, patterns, powers
                )
            if state != DONE:
                return state, line_start, num_lines, num_rows, num_groups, num_hard, flags
            num_hard, flags = most_hard, flags | found
            begins_group = id_stop - id_start != last_stop - last_start
            for k in range(np.uint64(0) if begins_group else id_stop - id_start):
                begins_group |= text[id_start + k] != text[last_start + k]
            if begins_group:
                _record(groups, num_groups, num_rows, num_lines, id_start, id_stop)
                num_groups += 1
                last_start, last_stop = id_start, id_stop
            num_rows += 1
        while text[p] != _NEWLINE:  # a comment
            if (text[p] == _RETURN and text[p + _1] != _NEWLINE) or text[p] == _NUL:
                return BAD, line_start, num_lines, num_rows, num_groups, num_hard, flags
            p += _1
        if p - line_start > _LONGEST_LINE:
            return BAD, line_start, num_lines, num_rows, num_groups, num_hard, flags
        p += _1
        num_lines += 1
    return DONE, p, num_lines, num_rows, num_groups, num_hard, flags
