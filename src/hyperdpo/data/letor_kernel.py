# ruff: noqa: SIM109 - in compiled code `byte in (a, b)` builds a tuple
"""The machine code of the LETOR reader: numba functions that turn a block of text into float32 rows.

Importing this module imports numba and loads (or builds, once) the compiled functions, which takes about a second:
`hyperdpo.data.letor` imports it when it reads, not before. The functions only say THAT a line is bad;
`hyperdpo.data.letor_errors` says why. All stand in this one file, since numba's cache of machine code is renewed when
the file of a function changes, not when one of a function that it calls does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from hyperdpo.data.letor_errors import MAX_ID

#: What `parse_block` stopped at.
DONE, FULL, WIDER, BAD = 0, 1, 2, 3

#: What `parse_block` met: a value of 2^24 or more (whole numbers from there on do not all fit into float32), a value so
#: large that it counts as missing, nan.
LARGE, OVERSIZED, NAN = 1, 2, 4

# What `_number` found.
_FINE, _WRONG, _UNDECIDED, _OVERSIZED, _NAN = 0, 1, 2, 3, 4

#: Bytes that may be read, never used, behind the last byte of a block.
PADDING = 16

#: A call stops before the next row once it has met so many values that cannot be rounded without arbitrary
#: precision (see `_number`); Python rounds them afterwards.
MAX_UNDECIDED = 256

# Powers of ten, each the double nearest to it. Index 0 is 10^_LOWEST.
_LOWEST, _HIGHEST = -80, 60
POWERS = np.array([float(f"1e{e}") for e in range(_LOWEST, _HIGHEST + 1)])

# 1, 10, ..., 10^7, -1, -10, ..., -10^7: dividing by the second half makes a value negative (0 becomes -0).
_SIGNED_SCALES = np.array([sign * 10.0**e for sign in (1, -1) for e in range(8)])

# uint64 throughout: a signed index makes numba add code for negative indices, and uint64 + int64 is a float64.
_0, _1, _2, _3, _4, _7, _8, _10, _16, _32 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 7, 8, 10, 16, 32))
_LARGE_FLAG, _OVERSIZED_FLAG, _NAN_FLAG = np.uint64(LARGE), np.uint64(OVERSIZED), np.uint64(NAN)
_LONGEST_ID = np.uint64(MAX_ID)
_ZEROS = np.uint64(0x3030303030303030)
_ABOVE_NINE = np.uint64(0x7676767676767676)
_BELOW_33 = np.uint64(0x2121212121212121)
_HIGH_BITS = np.uint64(0x8080808080808080)
_EVERY_FOURTH = np.uint64(0x000000FF000000FF)
_PAIRS_1 = np.uint64(100 + (1_000_000 << 32))
_PAIRS_2 = np.uint64(1 + (10_000 << 32))
_ASCII_ZERO = np.uint64(48)
_QID = np.uint64(int.from_bytes(b"qid:", "little"))
_QID_MASK = np.uint64(0xFFFFFFFF)
_TAB, _NEWLINE, _RETURN, _SPACE, _HASH = np.uint8(9), np.uint8(10), np.uint8(13), np.uint8(32), np.uint8(35)
_PLUS, _MINUS, _DOT, _COLON = np.uint8(43), np.uint8(45), np.uint8(46), np.uint8(58)
_ZERO_DIGIT = np.uint8(48)
_E, _LOWER_E, _NUL = np.uint8(69), np.uint8(101), np.uint8(0)
_NAN_TEXT = np.uint64(int.from_bytes(b"nan", "little"))
_LOWER_CASE = np.uint64(0x202020)
_THREE_BYTES = np.uint64(0xFFFFFF)
_MAX_INT64 = np.uint64(2**63 - 1)
_MAX_MANTISSA = np.uint64(10**18)  # one more digit still fits into uint64
_SURELY_EXACT = np.uint64(15)  # so many digits are a whole number below 2^53
_EXACT_DOUBLE = np.uint64(2**53)


def _compiled(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile now, for one signature, without Python's lock; keep the machine code on disk where that is possible.

    numba keeps it beside this file, else in the user's cache directory, and gives up if it may write to neither.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:
            return njit(signature, nogil=True, error_model="numpy")(function)

    return decorate


@intrinsic
def _load8(typing_context, buffer, position):  # type: ignore[no-untyped-def]
    """The eight bytes at ``buffer[position:]`` as one uint64, first byte lowest, at any alignment."""
    signature = types.uint64(buffer, types.uint64)

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        word = builder.load(address)
        word.align = 1
        return builder.bswap(word) if sys.byteorder == "big" else word

    return signature, codegen


@intrinsic
def _trailing_zeros(typing_context, value):  # type: ignore[no-untyped-def]
    """Zero bits below the lowest set bit; 64 for 0."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
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
def _count_digits(word):  # type: ignore[no-untyped-def]
    """How many of the eight characters are digits before the first that is not. `word` is XORed with ``00000000``."""
    return _trailing_zeros(((word + _ABOVE_NINE) | word) & _HIGH_BITS) >> _3  # type: ignore[call-arg]


@njit(inline="always")
def _eight_digits(word):  # type: ignore[no-untyped-def]
    """The number that eight digits spell (digit values 0..9, the first one lowest): three multiplications."""
    word = word * _10 + (word >> _8)
    return ((word & _EVERY_FOURTH) * _PAIRS_1 + ((word >> _16) & _EVERY_FOURTH) * _PAIRS_2) >> _32


@_compiled("Tuple((int64, float64, uint64))(uint8[::1], uint64, float64[::1])")
def _number(buffer, position, powers):  # type: ignore[no-untyped-def]
    """Any decimal number: (state, value, position behind it).

    States: fine; wrong (no number, or too large for float32); undecided (see below); oversized (1e308 or more, which
    stands for "missing" in some files); nan.

    ``float32(value)`` is ``float32(float(text))``. Up to 2^53 and 10^+-22 one operation rounds correctly. Beyond,
    the product is off by less than 2^-50 of itself; it is used if both ends of that interval round to the
    same float32, which fails about once in 2^25 times. Then the value is undecided.
    """
    p = position
    negative = buffer[p] == _MINUS
    if negative or buffer[p] == _PLUS:
        p += _1
    mantissa = _0
    exponent = 0
    digits = 0
    in_fraction = False
    while True:
        c = np.uint64(buffer[p]) - _ASCII_ZERO  # wraps round below '0'
        if c < _10:
            digits += 1
            if mantissa < _MAX_MANTISSA:
                mantissa = mantissa * _10 + c
                if in_fraction:
                    exponent -= 1
            elif not in_fraction:
                exponent += 1
        elif buffer[p] == _DOT and not in_fraction:
            in_fraction = True
        else:
            break
        p += _1
    if digits == 0:
        if not in_fraction and (_load8(buffer, p) | _LOWER_CASE) & _THREE_BYTES == _NAN_TEXT:  # type: ignore[call-arg]
            return _NAN, np.nan, p + _3
        return _WRONG, 0.0, p
    if buffer[p] == _E or buffer[p] == _LOWER_E:
        p += _1
        lower = buffer[p] == _MINUS
        if lower or buffer[p] == _PLUS:
            p += _1
        shift = 0
        digits = 0
        while True:
            c = np.uint64(buffer[p]) - _ASCII_ZERO
            if c >= _10:
                break
            digits += 1
            if shift < 100_000_000:
                shift = shift * 10 + np.int64(c)  # type: ignore[assignment]
            p += _1
        if digits == 0:
            return _WRONG, 0.0, p
        exponent += -shift if lower else shift
    state = _FINE
    if mantissa == _0 or exponent < _LOWEST:  # below 10^-60: zero in float32
        value = 0.0
    elif exponent > _HIGHEST:
        value = np.inf
        rest = mantissa
        while rest >= _10:
            rest //= _10
            exponent += 1
        if exponent >= 308:
            return _OVERSIZED, np.nan, p
    elif mantissa <= _EXACT_DOUBLE and -22 <= exponent <= 22:
        value = np.float64(mantissa)
        if exponent < 0:
            value /= powers[np.uint64(-exponent - _LOWEST)]
        else:
            value *= powers[np.uint64(exponent - _LOWEST)]
    else:
        value = np.float64(mantissa) * powers[np.uint64(exponent - _LOWEST)]
        if np.float32(value * (1.0 - 2.0**-50)) != np.float32(value * (1.0 + 2.0**-50)):
            state = _UNDECIDED
    if state == _FINE and np.isinf(np.float32(value)):
        state = _WRONG
    return state, -value if negative else value, p


@_compiled("uint64(uint8[::1], uint64, uint64, uint64)")
def widest_feature(buffer, start, stop, most):  # type: ignore[no-untyped-def]
    """The highest feature number, up to `most`, in the lines ``buffer[start:stop]``; 0 if there is none.

    A guess that needs no valid lines: the digits between a blank and a colon, outside comments.
    """
    widest = _0
    number = _0
    in_comment = False
    behind_blank = False
    for p in range(start, stop):
        byte = buffer[p]
        digit = np.uint64(byte) - _ASCII_ZERO
        if digit < _10:
            number = number * _10 + digit if number <= most else number
        else:
            if byte == _COLON and behind_blank and not in_comment and widest < number <= most:
                widest = number
            behind_blank = byte == _SPACE or byte == _TAB
            in_comment = byte == _HASH or (in_comment and byte != _NEWLINE)
            number = _0
    return widest


@njit(inline="always")
def _ends_field(byte):  # type: ignore[no-untyped-def]
    """Whether a field may end here. A carriage return is checked where the line ends: a newline has to follow."""
    return byte == _SPACE or byte == _NEWLINE or byte == _TAB or byte == _HASH or byte == _RETURN


@njit(inline="always")
def _flags_of(state, value):  # type: ignore[no-untyped-def]
    """What a value adds to the flags of a block."""
    if state == _OVERSIZED:
        return _OVERSIZED_FLAG
    if state == _NAN:
        return _NAN_FLAG
    return _LARGE_FLAG if abs(value) >= 16_777_216.0 else _0


@_compiled(
    "Tuple((int64, uint64, int64, uint64))(uint8[::1], uint64, float32[::1], uint64, uint64, uint64, int64[::1], int64,"
    " int64[:, ::1], int64, float64[::1], uint64)"
)
def _unsorted_row(  # type: ignore[no-untyped-def]
    buffer, position, values, base, width, shift, seen, row, undecided, num_undecided, powers, max_feature
):
    """The features of a row in any order. Arguments as for `parse_block`.

    Returns:
        state (DONE, WIDER or BAD), position behind them, number of undecided values, flags.
    """
    flags = _0
    for absent in range(_1, width + _1):
        values[base + absent] = np.float32(0)
    p = position
    while True:
        while buffer[p] == _SPACE or buffer[p] == _TAB:
            p += _1
        if buffer[p] == _NEWLINE or buffer[p] == _HASH or buffer[p] == _RETURN:
            return DONE, p, num_undecided, flags
        number = _0
        q = p
        while True:
            digit = np.uint64(buffer[p]) - _ASCII_ZERO
            if digit >= _10 or number > max_feature:
                break
            number = number * _10 + digit
            p += _1
        index = number + shift
        if p == q or buffer[p] != _COLON or index == _0 or number > max_feature:
            return BAD, p, num_undecided, flags
        if index > width:
            return WIDER, p, num_undecided, flags
        if seen[index] == row:
            return BAD, p, num_undecided, flags
        seen[index] = row
        p += _1
        state, value, q = _number(buffer, p, powers)
        if state == _WRONG or not _ends_field(buffer[q]):
            return BAD, p, num_undecided, flags
        values[base + index] = np.float32(value)
        flags |= _flags_of(state, value)
        if state == _UNDECIDED:
            undecided[num_undecided, 0] = row
            undecided[num_undecided, 1] = np.int64(index)
            undecided[num_undecided, 2] = np.int64(p)
            num_undecided += 1
        p = q


@_compiled(
    "Tuple((int64, uint64, int64, int64, int64, int64, uint64))(uint8[::1], uint64, uint64, float32[::1], uint64,"
    " uint64, uint64, int64[:, ::1], int64[:, ::1], int64[::1], uint64[:, ::1], float64[::1], uint64, uint64)"
)
def parse_block(  # type: ignore[no-untyped-def]
    buffer,
    start,
    stop,
    values,
    width,
    shift,
    max_rows,
    groups,
    undecided,
    seen,
    patterns,
    powers,
    max_line,
    max_feature,
):
    """Parse the lines ``buffer[start:stop]``; the last byte is a newline and `PADDING` bytes follow it.

    Args:
        buffer: uint8 text.
        values: (max_rows * (1 + width),) float32, filled row by row: label, then `width` features.
        width: features of a row.
        shift: 0 if the first one is feature 1, 1 if it is feature 0.
        groups: (rows, 4) int64, filled with (qid, row, line, 0) where the qid differs from the row before. An id that
            is no int64 in its shortest form is given by its text: (its position, row, line, its length).
        undecided: (MAX_UNDECIDED + width + 1, 3) int64, filled with (row, column, position of the text).
        seen: (width + 1,) int64, for the function's own use.
        patterns: `feature_patterns(width, shift)`.
        powers: `POWERS` (an argument, since a global array would be copied into each compiled function).
        max_line: longest line, in bytes, without its newline.
        max_feature: highest feature number allowed.

    Returns:
        state, position, lines, rows, number of groups, number of undecided values, flags. The lines before
        `position` are done. state is DONE; FULL (no room for the line at `position`); WIDER (that line has a
        feature above `width`); BAD (that line is malformed). flags are LARGE, OVERSIZED and NAN.
    """
    num_rows = 0
    num_lines = 0
    num_groups = 0
    num_undecided = 0
    last_qid = np.int64(0)
    last_length = _0
    last_text = _0
    flags = _0
    digits_seen = _0
    unsorted = False
    stride = width + _1
    base = _0  # where the current row starts in `values`
    p = start
    while p < stop:
        line_start = p
        while buffer[p] == _SPACE or buffer[p] == _TAB:
            p += _1
        if buffer[p] != _NEWLINE and buffer[p] != _HASH and buffer[p] != _RETURN:
            if np.uint64(num_rows) >= max_rows or num_undecided >= MAX_UNDECIDED:
                return FULL, line_start, num_lines, num_rows, num_groups, num_undecided, flags

            # LABEL
            state, label, q = _number(buffer, p, powers)
            if state == _WRONG or state >= _OVERSIZED or (buffer[q] != _SPACE and buffer[q] != _TAB):
                return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
            if state == _UNDECIDED:
                undecided[num_undecided, 0] = num_rows
                undecided[num_undecided, 1] = 0
                undecided[num_undecided, 2] = np.int64(p)
                num_undecided += 1
            values[base] = np.float32(label)
            p = q

            # qid:ID
            while buffer[p] == _SPACE or buffer[p] == _TAB:
                p += _1
            if _load8(buffer, p) & _QID_MASK != _QID:  # type: ignore[call-arg]
                return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
            p += _4
            id_start = p
            negative = buffer[p] == _MINUS
            if negative:
                p += _1
            q = p
            qid = _0
            while True:
                digit = np.uint64(buffer[p]) - _ASCII_ZERO
                if digit >= _10 or qid > _MAX_INT64 // _10:
                    break
                qid = qid * _10 + digit
                p += _1
            id_length = _0
            if (
                p == q or qid > _MAX_INT64 or not _ends_field(buffer[p])
                or (buffer[q] == _ZERO_DIGIT and (negative or p - q > _1))
            ):  # fmt: skip
                p = id_start
                while buffer[p] > _SPACE and buffer[p] != _HASH:
                    p += _1
                id_length = p - id_start
                if id_length == _0 or id_length > _LONGEST_ID or not _ends_field(buffer[p]):
                    return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
            signed_qid = -np.int64(qid) if negative else np.int64(qid)
            begins_group = num_rows == 0 or id_length != last_length
            if id_length == _0:
                begins_group |= signed_qid != last_qid
            elif not begins_group:
                for k in range(id_length):
                    if buffer[id_start + k] != buffer[last_text + k]:
                        begins_group = True
                        break

            # FEATURE:VALUE ...
            features_start = p
            sure_undecided = num_undecided
            feature = _0
            while True:
                expected = feature + _1
                if _load8(buffer, p) & patterns[expected, 1] == patterns[expected, 0]:
                    p += patterns[expected, 2]
                    feature = expected
                else:
                    byte = buffer[p]
                    while byte == _SPACE or byte == _TAB:
                        p += _1
                        byte = buffer[p]
                    if byte == _NEWLINE or byte == _HASH or byte == _RETURN:
                        break
                    number = _0
                    q = p
                    while True:
                        digit = np.uint64(buffer[p]) - _ASCII_ZERO
                        if digit >= _10 or number > max_feature:
                            break
                        number = number * _10 + digit
                        p += _1
                    index = number + shift
                    if p == q or buffer[p] != _COLON or index == _0 or number > max_feature:
                        return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
                    if index > width:
                        return WIDER, line_start, num_lines, num_rows, num_groups, num_undecided, flags
                    if index <= feature:
                        if not unsorted:
                            seen[: width + _1] = -1
                            unsorted = True
                        state, p, num_undecided, met = _unsorted_row(
                            buffer, features_start, values, base, width, shift, seen, num_rows, undecided,
                            sure_undecided, powers, max_feature,
                        )  # fmt: skip
                        if state != DONE:
                            return state, line_start, num_lines, num_rows, num_groups, sure_undecided, flags
                        flags |= met
                        feature = width
                        break
                    for absent in range(expected, index):
                        values[base + absent] = np.float32(0)
                    feature = index
                    p += _1

                # At most 8 digits with a dot among them, without a branch on where it is. The next value waits for
                # nothing but the distance to the next space or control character; all else is checked beside it.
                word = _load8(buffer, p)
                length = _trailing_zeros((word - _BELOW_33) & ~word & _HIGH_BITS) >> _3
                word = _load8(buffer, p + _8)
                second = _trailing_zeros((word - _BELOW_33) & ~word & _HIGH_BITS) >> _3
                end = p + (length if length < _8 else _8 + second)

                negative = np.uint64(buffer[p] == _MINUS)
                q = p + negative
                whole = _load8(buffer, q) ^ _ZEROS
                whole_digits = _count_digits(whole)
                q += whole_digits
                dot = np.uint64(buffer[q] == _DOT)
                q += dot
                fraction = _load8(buffer, q) ^ _ZEROS
                fraction_digits = _count_digits(fraction) * dot
                if q + fraction_digits == end and whole_digits != _0 and whole_digits + fraction_digits <= _8:
                    whole = whole << ((_8 - whole_digits) << _3)  # 8 bytes, the digits last, zeros before
                    fraction = (fraction << ((_7 - fraction_digits) << _3)) << _8
                    value = np.float64(np.int64(_eight_digits((whole >> (fraction_digits << _3)) | fraction)))
                    values[base + feature] = np.float32(value / _SIGNED_SCALES[fraction_digits + (negative << _3)])
                    digits_seen |= whole_digits
                    p = end
                else:
                    state, value, q = _number(buffer, p, powers)
                    if state == _WRONG or not _ends_field(buffer[q]):
                        return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
                    values[base + feature] = np.float32(value)
                    flags |= _flags_of(state, value)
                    if state == _UNDECIDED:
                        undecided[num_undecided, 0] = num_rows
                        undecided[num_undecided, 1] = np.int64(feature)
                        undecided[num_undecided, 2] = np.int64(p)
                        num_undecided += 1
                    p = q
            for absent in range(feature + _1, stride):
                values[base + absent] = np.float32(0)
            if begins_group:  # only now: a row that is refused half way has not begun one
                groups[num_groups, 0] = signed_qid if id_length == _0 else np.int64(id_start)
                groups[num_groups, 1] = num_rows
                groups[num_groups, 2] = num_lines
                groups[num_groups, 3] = np.int64(id_length)
                num_groups += 1
                last_qid = signed_qid
                last_length = id_length
                last_text = id_start
            base += stride
            num_rows += 1
            if digits_seen & _8:  # a value of eight whole digits
                flags |= _LARGE_FLAG

        while buffer[p] != _NEWLINE:  # a comment
            if (buffer[p] == _RETURN and buffer[p + _1] != _NEWLINE) or buffer[p] == _NUL:
                return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
            p += _1
        if p - line_start > max_line:
            return BAD, line_start, num_lines, num_rows, num_groups, num_undecided, flags
        p += _1
        num_lines += 1
    return DONE, p, num_lines, num_rows, num_groups, num_undecided, flags


@_compiled(
    "Tuple((int64, int64))(uint8[::1], uint64, uint64, uint64, int64[::1], float64[:, ::1], int64[:, ::1],"
    " float64[::1])"
)
def column_values(buffer, start, stop, shift, wanted, values, inexact, powers):  # type: ignore[no-untyped-def]
    """Some features in double precision, of lines that `parse_block` accepts.

    Args:
        buffer, start, stop, shift, powers: as for `parse_block`.
        wanted: (K,) int64: at a feature's place in a row its column of `values`, or -1.
        values: (rows, k) float64, filled: NaN where a value is missing, 0 where it is absent.
        inexact: (rows * k, 4) int64, filled with (row, column, first and last position) of texts so long that the
            value may not be the double nearest to it.

    Returns:
        The number of rows and that of inexact values; -1 for a line that `parse_block` does not accept.
    """
    row = 0
    num_inexact = 0
    p = start
    while p < stop:
        while buffer[p] == _SPACE or buffer[p] == _TAB:
            p += _1
        if buffer[p] != _NEWLINE and buffer[p] != _HASH and buffer[p] != _RETURN:
            values[row] = 0.0
            for _ in range(2):  # label and query id
                while buffer[p] == _SPACE or buffer[p] == _TAB:
                    p += _1
                while not _ends_field(buffer[p]):
                    p += _1
            while True:
                while buffer[p] == _SPACE or buffer[p] == _TAB:
                    p += _1
                if buffer[p] == _NEWLINE or buffer[p] == _HASH or buffer[p] == _RETURN:
                    break
                number = _0
                while True:
                    digit = np.uint64(buffer[p]) - _ASCII_ZERO
                    if digit >= _10:
                        break
                    number = number * _10 + digit
                    p += _1
                if buffer[p] != _COLON:
                    return -1, 0
                p += _1
                index = number + shift
                column = wanted[index] if index < np.uint64(len(wanted)) else np.int64(-1)
                if column >= 0:
                    state, value, q = _number(buffer, p, powers)
                    values[row, column] = value
                    if q - p > _SURELY_EXACT and state < _OVERSIZED:
                        if num_inexact == len(inexact):
                            return -1, 0
                        inexact[num_inexact, 0] = row
                        inexact[num_inexact, 1] = column
                        inexact[num_inexact, 2] = np.int64(p)
                        inexact[num_inexact, 3] = np.int64(q)
                        num_inexact += 1
                while not _ends_field(buffer[p]):
                    p += _1
            row += 1
        while buffer[p] != _NEWLINE:
            p += _1
        p += _1
    return row, num_inexact
