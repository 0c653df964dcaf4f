"""LETOR text: what a reader gets, and what a malformed file is told."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from hyperdpo.data import letor
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.letor import convert_letor
from hyperdpo.data.letor_errors import MAX_FEATURE, MAX_LINE
from hyperdpo.data.storage import open_stored
from hyperdpo.errors import InputError

DATA = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data") / "ranking"


def parse(text: bytes, tmp_path_factory: pytest.TempPathFactory, **options: int | bool) -> GroupedTable:
    directory = tmp_path_factory.mktemp("letor")
    path = directory / "data.txt"
    path.write_bytes(text)
    fingerprint = convert_letor(path, directory, **options)  # type: ignore[arg-type]
    table = open_stored(directory, str(path))
    assert table.fingerprint == fingerprint
    return table


def assert_same(a: GroupedTable, b: GroupedTable) -> None:
    np.testing.assert_array_equal(a.values.view(np.uint32), b.values.view(np.uint32))
    np.testing.assert_array_equal(a.qids, b.qids)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    assert a.columns == b.columns
    assert a.fingerprint == b.fingerprint


def assert_equals_sklearn(table: GroupedTable, path: Path) -> None:
    width = len(table.columns) - 1
    features, labels, qids = load_svmlight_file(str(path), query_id=True, zero_based=False, n_features=max(1, width))
    np.testing.assert_array_equal(table.values[:, 1:], features.toarray()[:, :width].astype(np.float32))
    np.testing.assert_array_equal(table.values[:, 0], labels.astype(np.float32))
    np.testing.assert_array_equal(np.repeat(table.qids, table.group_sizes), qids)
    assert table.columns == ("relevance", *map(str, range(1, len(table.columns))))
    assert table.offsets[0] == 0
    assert table.offsets[-1] == table.num_rows == len(labels)


def random_text(rng: np.random.Generator, rows: int, width: int, density: float) -> bytes:
    """Rows of every permitted form: comments, blanks, tabs, values of many shapes."""
    lines = []
    qid = 0
    forms = ("{:.6f}", "{:g}", "{:.0f}", "{:e}", "{:.3f}", "{:.16g}", "{:+.2f}", "{:.12f}")
    for _ in range(rows):
        if rng.random() < 0.2:
            qid += 1
        features = 1 + np.flatnonzero(rng.random(width) < density)
        fields = [str(rng.integers(-1, 5)), f"qid:{qid}"]
        for k in features:
            value = rng.normal() * 10.0 ** rng.integers(-8, 8)
            fields.append(f"{k}:{rng.choice(forms).format(value)}")
        separator = rng.choice([" ", " ", " ", "\t", "  "])
        line = separator.join(fields) + rng.choice(["", "", " ", "#c", " # docid = GX1:7 qid:9 3:4 é", "\t"])
        lines.append(line)
        if rng.random() < 0.1:
            lines.append(rng.choice(["", "   ", "# a comment 1:2", "\t#"]))
    text = "\n".join(lines)
    return (text + ("\n" if rng.random() < 0.5 else "")).encode()


@pytest.mark.parametrize("density", [1.0, 0.6, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_equals_sklearn(density: float, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = random_text(np.random.default_rng(seed), rows=80, width=[136, 7, 12, 300][seed], density=density)
    table = parse(text, tmp_path_factory, block_bytes=4096)
    path = tmp_path_factory.mktemp("same") / "data.txt"
    path.write_bytes(text)
    assert_equals_sklearn(table, path)


@pytest.mark.parametrize("name", ["mslr_web10k_49q.txt", "mq2008_156q.txt"])
def test_real_files_equal_sklearn(name: str, tmp_path: Path) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set HYPERDPO_DATA to the directory that holds ranking/)")
    shape, groups = {"mslr_web10k_49q.txt": ((4966, 137), 49), "mq2008_156q.txt": ((2874, 47), 156)}[name]
    table = read_table(path, cache_dir=tmp_path)
    assert table.values.shape == shape
    assert table.num_groups == groups
    assert_equals_sklearn(table, path)


def test_every_block_boundary_and_thread_count_gives_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = random_text(np.random.default_rng(7), rows=12, width=6, density=0.7)
    whole = parse(text, tmp_path_factory, threads=1)
    for block_bytes in [*range(1, 40), len(text) - 1, len(text), len(text) + 1]:
        assert_same(whole, parse(text, tmp_path_factory, block_bytes=block_bytes, threads=1 + block_bytes % 3))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_longer_file(threads: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = random_text(np.random.default_rng(8), rows=1000, width=20, density=0.8)
    assert_same(
        parse(text, tmp_path_factory, threads=1), parse(text, tmp_path_factory, threads=threads, block_bytes=3000)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 3))
def test_random_files_equal_sklearn(
    tmp_path_factory: pytest.TempPathFactory, seed: int, block_bytes: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    text = random_text(rng, int(rng.integers(1, 30)), int(rng.integers(1, 30)), float(rng.random()))
    path = tmp_path_factory.mktemp("same") / "data.txt"
    path.write_bytes(text)
    assert_equals_sklearn(parse(text, tmp_path_factory, block_bytes=block_bytes, threads=threads), path)


def test_wider_rows_later_widen_the_whole_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    widths = [1, 1, 5, 2, 40, 3, 41, 1, 300, 2]
    text = "".join(f"{i} qid:{i // 3} {w}:{w}.5\n" for i, w in enumerate(widths)).encode()
    expected = np.zeros((len(widths), 301), dtype=np.float32)
    expected[:, 0] = range(len(widths))
    expected[range(len(widths)), widths] = np.array(widths) + 0.5
    for block_bytes in (5, 16, 40, 1 << 20):
        table = parse(text, tmp_path_factory, block_bytes=block_bytes, threads=2)
        np.testing.assert_array_equal(table.values, expected)
        assert table.fingerprint == parse(text, tmp_path_factory).fingerprint


def test_wide_short_rows_pass_through_a_bounded_buffer(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = 40  # 16 rows fill the buffer
    text = f"1 qid:1 {MAX_FEATURE}:2\n".encode() * rows
    table = parse(text, tmp_path_factory)
    assert table.values.shape == (rows, 1 + MAX_FEATURE)
    assert table.offsets.tolist() == [0, rows]
    assert (table.values[:, MAX_FEATURE] == 2).all()
    assert table.values.sum() == 3 * rows


def test_rows_without_features_are_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    table = parse(b"1 qid:3\n0 qid:3 # none\n2 qid:-4", tmp_path_factory)
    np.testing.assert_array_equal(table.values, [[1], [0], [2]])
    assert table.columns == ("relevance",)
    assert table.qids.tolist() == [3, -4]
    assert table.offsets.tolist() == [0, 2, 3]


def test_a_group_goes_on_over_comments_and_blocks(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = b"1 qid:3 1:1\n# between\n\n0 qid:3 1:1\n" * 5
    table = parse(text, tmp_path_factory, block_bytes=12)
    assert table.offsets.tolist() == [0, 10]


def test_extreme_query_ids(tmp_path_factory: pytest.TempPathFactory) -> None:
    table = parse(b"1 qid:9223372036854775807\n1 qid:-9223372036854775808\n1 qid:0", tmp_path_factory)
    assert table.qids.dtype == np.int64
    assert table.qids.tolist() == [2**63 - 1, -(2**63), 0]


@pytest.mark.parametrize(
    ("texts", "kind", "expected"),
    [
        (["3", "-4", "0"], np.int64, [3, -4, 0]),
        (["3", "18446744073709551615"], np.uint64, [3, 2**64 - 1]),
        (["9223372036854775808", "7"], np.uint64, [2**63, 7]),
        (["18446744073709551616", "7"], np.str_, None),
        (["18446744073709551615", "-7"], np.str_, None),
        (["7", "007"], np.str_, None),
        (["+7", "7"], np.str_, None),
        (["-0", "0"], np.str_, None),
        (["7.0", "8.0"], np.str_, None),
        (["u0", "12"], np.str_, None),
        (["a:1:2", "http://x/?q=1&r=2", "é", "-", "'q'", "x" * 1024], np.str_, None),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 40, 1 << 20])
def test_query_ids_come_back_as_given(
    texts: list[str], kind: type, expected: list[int] | None, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = "".join(f"1 qid:{text} 1:2\n0 qid:{text}#c\n2 qid:{text}\t1:3\n" for text in texts)
    table = parse(content.encode(), tmp_path_factory, block_bytes=block_bytes)
    assert issubclass(table.qids.dtype.type, kind)
    assert table.qids.tolist() == (texts if expected is None else expected)
    assert table.group_sizes.tolist() == [3] * len(texts)
    assert table.columns == ("relevance", "1")
    assert table.fingerprint == parse(content.encode(), tmp_path_factory).fingerprint


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(2**63), 2**64 - 1).map(str),
            st.integers(0, 30).map(str),
            st.from_regex(r"[0-9a-zé:.+-]{1,9}", fullmatch=True),
        ),
        min_size=1, max_size=12, unique=True,
    ),
    st.integers(1, 60),
)  # fmt: skip
def test_any_query_ids_come_back_as_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block_bytes: int
) -> None:
    content = "".join(f"1 qid:{text} 1:2\n" * (1 + i % 3) for i, text in enumerate(texts))
    table = parse(content.encode(), tmp_path_factory, block_bytes=block_bytes)
    assert [str(qid) for qid in table.qids] == texts
    assert table.group_sizes.tolist() == [1 + i % 3 for i in range(len(texts))]
    plain = [int(text) for text in texts if re.fullmatch(r"0|-?[1-9][0-9]*", text)]
    whole = len(plain) == len(texts)
    small = whole and all(-(2**63) <= n < 2**63 for n in plain)
    unsigned = whole and not small and all(0 <= n < 2**64 for n in plain)
    assert table.qids.dtype.kind == ("i" if small else "u" if unsigned else "U")


def test_windows_line_endings_and_a_byte_order_mark_change_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = random_text(np.random.default_rng(3), rows=60, width=9, density=0.7)
    plain = parse(text, tmp_path_factory)
    for mark in (b"", b"\xef\xbb\xbf"):
        for end in (b"\n", b"\r\n"):
            for block_bytes in (1, 50, 1 << 20):
                other = parse(mark + text.replace(b"\n", end), tmp_path_factory, block_bytes=block_bytes)
                assert_same(plain, other)


@pytest.mark.parametrize("shift", [0, 1])
def test_features_in_any_order_are_read_as_in_order(shift: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(4)
    ordered, shuffled = [], []
    for i in range(200):
        features = np.flatnonzero(rng.random(25) < 0.6) + 1 - shift
        fields = [f"{k}:{rng.choice(['{:.3f}', '{:.20g}', '{:e}']).format(rng.normal())}" for k in features]
        ordered.append(" ".join([f"{i % 3} qid:{i // 9}", *fields]))
        if i % 4:
            rng.shuffle(fields)
        shuffled.append(" ".join([f"{i % 3} qid:{i // 9}", *fields]) + " # 1:2"[: 6 * (i % 2)])
    options = {"features_from_zero": bool(shift)}
    expected = parse("\n".join(ordered).encode(), tmp_path_factory, **options)
    assert expected.columns == ("relevance", *map(str, range(1 - shift, 26 - shift)))
    for block_bytes in (1, 100, 1 << 20):
        assert_same(expected, parse("\n".join(shuffled).encode(), tmp_path_factory, block_bytes=block_bytes, **options))


def test_features_may_be_numbered_from_zero(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = b"1 qid:1 0:5 1:6\n0 qid:1 2:7\n2 qid:1\n"
    for block_bytes in (1, 1 << 20):
        table = parse(text, tmp_path_factory, features_from_zero=True, block_bytes=block_bytes)
        assert table.columns == ("relevance", "0", "1", "2")
        np.testing.assert_array_equal(table.values, [[1, 5, 6, 0], [0, 0, 0, 7], [2, 0, 0, 0]])
    assert parse(b"1 qid:1\n", tmp_path_factory, features_from_zero=True).columns == ("relevance", "0")
    many = f"1 qid:1 {MAX_FEATURE}:2 0:3\n".encode()
    assert parse(many, tmp_path_factory, features_from_zero=True).values.shape == (1, MAX_FEATURE + 2)


MISSING = ["nan", "NaN", "NAN", "-nan", "+nan", "1.79769313486e+308", "-1.7e308", "1e308", "1e99999999999", "9" * 400]


@pytest.mark.parametrize("text", MISSING)
def test_values_that_stand_for_missing_are_read_so(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = f"1 qid:1 1:{text} 2:3 3:{text}\r\n0 qid:1 3:1 1:{text}#c\n0 qid:1 2:1\n".encode()
    for block_bytes in (1, 1 << 20):
        table = parse(content, tmp_path_factory, block_bytes=block_bytes)
        nan = np.nan
        np.testing.assert_array_equal(table.values, [[1, nan, 3, nan], [0, nan, 0, 1], [0, 0, 1, 0]])
        kind = "nan" if "nan" in text.lower() else "of 1e+308 and more"
        assert table.notes == (f"values {kind} count as missing: 2 in 1, 1 in 3",)


def test_a_note_counts_missing_values_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = b"1 qid:1 1:nan 2:1e308\n0 qid:1 1:nan 300:2 2:1e400\n" * 50  # the width grows, the order is mixed
    for block_bytes in (1, 100, 1 << 20):
        notes = parse(text, tmp_path_factory, block_bytes=block_bytes).notes
        assert notes == ("values of 1e+308 and more or nan count as missing: 100 in 1, 100 in 2",)


# -- large numbers -----------------------------------------------------------------------------------------------------


def restored(table: GroupedTable, column: str) -> np.ndarray:
    k = table.columns.index(column)
    return table.values[:, k].astype(np.float64) + table.origins.get(column, 0.0)


@pytest.mark.parametrize(
    "values",
    [
        1704078000 + np.arange(200),  # seconds
        1704078000123 + 7 * np.arange(200),  # milliseconds
        20240101 + np.arange(28).repeat(8),
        2**53 - 1 - np.arange(200),
        -1704078000 - np.arange(200),
        1704078000 + np.arange(200) / 4,
        1704078000.123456 + np.arange(200) / 64,
        45321 + np.arange(200) / 86400,
        -1000 + np.arange(200) * 1e-9,
    ],
    ids=["seconds", "milliseconds", "dates", "2^53", "negative", "fractions", "microseconds", "days", "thousand"],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_large_numbers_keep_their_differences(
    values: np.ndarray, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(5)
    values = rng.permutation(values).astype(np.float64)
    lines = [f"{i % 3} qid:{i // 9} 1:{i} 3:{v!r} 2:{rng.normal():.3f}" for i, v in enumerate(values.tolist())]
    table = parse("\n".join(lines).encode(), tmp_path_factory, block_bytes=block_bytes)
    assert table.origins == {"3": float(values.min())}
    np.testing.assert_array_equal(table.values[:, 3], (values - values.min()).astype(np.float32))
    np.testing.assert_allclose(restored(table, "3"), values, rtol=1e-14)
    assert len(np.unique(table.values[:, 3])) == len(np.unique(values))
    np.testing.assert_array_equal(table.values[:, 1], np.arange(len(values)))
    assert table.fingerprint == parse("\n".join(lines).encode(), tmp_path_factory).fingerprint


def test_large_numbers_with_missing_ones_keep_their_differences(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = b"".join(b"1 qid:1 0:%d 1:nan\r\n0 qid:1 0:nan # c\r\n\r\n" % (20240101 + i) for i in range(28))
    text = b"\xef\xbb\xbf" + rows
    table = parse(text, tmp_path_factory, features_from_zero=True, block_bytes=100)
    assert table.origins == {"0": 20240101.0}
    np.testing.assert_array_equal(table.values[:, 1], np.column_stack([np.arange(28), np.full(28, np.nan)]).ravel())
    assert table.notes == ("values nan count as missing: 28 in 0, 28 in 1",)


@pytest.mark.parametrize(
    "values",
    [
        [16777216, 16777220, 33554432],  # all exact in 32 bits
        [0, 1704078001, 3704078002],  # far apart
        [1704078000, 1704078000, 1704078000],  # constant
        [0.1, 0.2, 0.3],
    ],
)
def test_columns_that_32_bits_hold_have_no_origin(
    values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "".join(f"1 qid:1 1:{v}\n" for v in values).encode()
    table = parse(text, tmp_path_factory)
    assert table.origins == {}
    np.testing.assert_array_equal(table.values[:, 1], np.array(values, dtype=np.float32))


def test_an_absent_value_is_zero_beside_large_ones(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = b"1 qid:1 1:1704078001\n1 qid:1 1:1704078002 2:1\n1 qid:1 2:1\n"
    table = parse(text, tmp_path_factory)
    assert table.origins == {"1": 1704078001.0}
    assert table.values[:2, 1].tolist() == [0, 1]
    assert abs(table.column("1")[2]) < 128, "as near as 32 bits come to it from there"


# -- rows that stand apart ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["4", "12", "u", "007", "18446744073709551615"]), min_size=1), st.integers(1, 80))
def test_sorted_rows_are_those_of_a_sorted_file(
    tmp_path_factory: pytest.TempPathFactory, qids: list[str], block_bytes: int
) -> None:
    lines = [f"{i % 3} qid:{qid} 1:{i} {2 + i % 5}:1\n" for i, qid in enumerate(qids)]
    order = sorted(range(len(qids)), key=lambda i: qids.index(qids[i]))
    table = parse("".join(lines).encode(), tmp_path_factory, sort=True, block_bytes=block_bytes)
    plain = parse("".join(lines[i] for i in order).encode(), tmp_path_factory)
    assert_same(table, plain)
    moved = sum(i != j for i, j in enumerate(order))
    if moved:
        assert table.order is not None
        assert table.order.tolist() == order
        assert table.notes == (f"sorted by query: {moved} of {len(order)} rows moved",)
        np.testing.assert_array_equal(table.source_order(table.column("1")), np.arange(len(qids)))
    else:
        assert table.order is None
        assert table.notes == ()


# -- numbers -----------------------------------------------------------------------------------------------------------

NUMBERS = """
    0 -0 +0 5. .5 -.5 +5.25 1e-5 1E5 1e+05 -1.5e-3 00012.500 0.1 16777217 16777217.0000000001 123456789012345e22 1e-22
    9007199254740993 340282346638528859811704183484516925440 1e-45 7.006492321624085e-46 7.006492321624086e-46 1e-46
    1e-400 0e999999999999 0.0000000000000000000000000000000000000000000000000000000001 100000000000000000000000000000000
    1.17549435e-38 12345678 123456789 1234567.8 12345678.9 1.2345678 1.23456789 -12.071142 1e00000000000000000000000005
""".split()  # noqa: SIM905 - shorter than a list


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_round_like_python(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = parse(f"{text} qid:1 1:{text} 2:{text}\t3:{text}#\n".encode(), tmp_path_factory)
    expected = np.full(4, np.float32(float(text)))
    np.testing.assert_array_equal(table.values[0].view(np.uint32), expected.view(np.uint32))


@st.composite
def decimal_texts(draw: st.DrawFn) -> str:
    """Anything Python and we both call a number and that fits into 32 bits; many more digits than promised, too."""
    digits = draw(st.text("0123456789", min_size=1, max_size=draw(st.sampled_from([3, 8, 15, 25]))))
    dot = draw(st.integers(0, len(digits)))
    text = draw(st.sampled_from(["", "-", "+"])) + digits[:dot] + draw(st.sampled_from([".", ""])) + digits[dot:]
    text += draw(st.one_of(st.just(""), st.integers(-60, 22).map(lambda e: f"e{e}")))
    return text if abs(float(text)) < 3e38 else "1"


@settings(max_examples=100, deadline=None)
@given(st.lists(decimal_texts(), min_size=1, max_size=20))
def test_random_numbers_round_like_python(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    row = "1 qid:1 " + " ".join(f"{k}:{text}" for k, text in enumerate(texts, start=1))
    table = parse(row.encode(), tmp_path_factory)
    expected = np.array([float(text) for text in texts]).astype(np.float32)
    np.testing.assert_array_equal(table.values[0, 1:].view(np.uint32), expected.view(np.uint32))


def test_halfway_cases_round_like_python(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Texts between two float32s, and a hair to either side: more of them than the parser sets aside at a time."""
    rng = np.random.default_rng(3)
    a = np.abs(rng.normal(size=1000)).astype(np.float32) * np.float32(10.0) ** rng.integers(-20, 20, 1000).astype(
        np.float32
    )
    middles = (a.astype(np.float64) + np.nextafter(a, np.float32(np.inf)).astype(np.float64)) / 2
    texts = [f"{m:.{d}e}" for m in middles for d in (16, 25, 60)]
    text = "\n".join(f"1 qid:1 1:{t} 2:{t}" for t in texts).encode()
    expected = np.array([float(t) for t in texts]).astype(np.float32)
    for block_bytes in (500, 1 << 20):
        table = parse(text, tmp_path_factory, block_bytes=block_bytes)
        np.testing.assert_array_equal(table.values[:, 1], expected)
        np.testing.assert_array_equal(table.values[:, 2], expected)


# -- malformed files ---------------------------------------------------------------------------------------------------

GOOD = b"1 qid:1 1:0.5 2:3\n"
ROW = b"2 qid:7 1:1"
MALFORMED = [
    # name, bytes, line (None: no line to name), words in the message
    ("no label", GOOD + b"qid:1 1:2\n", 2, ["'qid:1'", "label"]),
    ("bad label", GOOD + b"one qid:1 1:2\n", 2, ["'one'", "label"]),
    ("JSON lines", b'{"prompt": "a"}\n', 1, ["is JSON", "'{\"prompt\": \"a\"}'", "hyperdpo align"]),
    ("label with a colon", b"1:2 qid:1 1:2\n", 1, ["'1:2'", "label"]),
    ("nan label", b"nan qid:1 1:2\n", 1, ["'nan'", "finite"]),
    ("label alone", b"3\n", 1, ["end of the line", "qid:ID"]),
    ("no qid", GOOD + GOOD + b"1 1:2 2:3\n", 3, ["'1:2'", "qid:ID"]),
    ("empty qid", b"1 qid: 1:2\n", 1, ["''", "empty"]),
    ("empty qid at the end", b"1 qid:\r\n", 1, ["''", "empty"]),
    ("long qid", b"1 qid:" + b"x" * 1025 + b" 1:2\n", 1, ["1,025 bytes", "1,024"]),
    ("control character in the qid", GOOD + b"1 qid:a\x0bb 1:2\n", 2, ["\\x0b", "control character"]),
    ("invalid UTF-8 in the qid", GOOD + b"1 qid:a\xff 1:2\n" + GOOD, 2, ["\\xff", "UTF-8"]),
    ("invalid UTF-8 before a bad line", GOOD + b"1 qid:a\xff 1:2\nbad\n", 2, ["\\xff", "UTF-8"]),
    ("bad line before invalid UTF-8", GOOD + b"bad\n1 qid:a\xff 1:2\n", 2, ["'bad'"]),
    ("capital QID", b"1 QID:1 1:2\n", 1, ["'QID:1'", "qid:ID"]),
    ("no colon", GOOD + ROW + b" 7\n", 2, ["'7'", "no colon", "FEATURE:VALUE"]),
    ("text feature", ROW + b" x:7\n", 1, ["'x'", "feature number"]),
    ("fractional feature", ROW + b" 1.5:7\n", 1, ["'1.5'", "feature number"]),
    ("negative feature", ROW + b" -2:7\n", 1, ["'-2'", "feature number"]),
    ("no feature", ROW + b" :7\n", 1, ["':7'", "feature number"]),
    ("feature 0", b"2 qid:7 0:1 1:1\n", 1, ["feature 0", "--features-from-zero"]),
    ("feature 0 behind others", GOOD + b"2 qid:7 1:1 0:1\n", 2, ["feature 0", "--features-from-zero"]),
    ("unsorted with a bad value", GOOD + ROW + b" 4:2 3:x\n", 2, ["value of feature 3", "'x'"]),
    ("unsorted with an overflow", GOOD + ROW + b" 4:2 3:1e39\n", 2, ["value of feature 3", "overflows"]),
    ("unsorted with a long number", GOOD + ROW + b" 4:2 99999:1\n", 2, ["'99999'", "65536"]),
    ("repeated feature", ROW + b" 2:2 2:3\n", 1, ["feature 2 a second time", "'2:3'"]),
    ("feature repeated later", ROW + b" 2:2 1:3\n", 1, ["feature 1 a second time"]),
    ("feature above the cap", ROW + b" 65537:2\n", 1, ["'65537'", "65536", "dense"]),
    ("feature far above the cap", ROW + b" 99999999999999999999999:2\n", 1, ["'99999999999999999999999'", "65536"]),
    ("empty value", ROW + b" 2: 3:1\n", 1, ["feature 2", "empty", "finite"]),
    ("empty value at the end", ROW + b" 2:\n", 1, ["feature 2", "empty"]),
    ("sign alone", ROW + b" 2:- 3:1\n", 1, ["'-'", "finite"]),
    ("dot alone", ROW + b" 2:. 3:1\n", 1, ["'.'", "finite"]),
    ("two dots", ROW + b" 2:1.2.3\n", 1, ["'1.2.3'", "finite"]),
    ("exponent alone", ROW + b" 2:1e\n", 1, ["'1e'", "finite"]),
    ("hexadecimal", ROW + b" 2:0x10\n", 1, ["'0x10'", "finite"]),
    ("underscore", ROW + b" 2:1_000\n", 1, ["'1_000'", "finite"]),
    ("decimal comma", ROW + b" 2:1,5\n", 1, ["'1,5'", "finite"]),
    *((f"value {v}", ROW + f" 2:{v} 3:1\n".encode(), 1, [f"'{v}'", "finite"])
      for v in ("inf", "-Inf", "INFINITY", "+infinity", "nan(1)")),
    ("overflow of a label", b"1e308 qid:1 1:2\n", 1, ["label", "'1e308'", "overflows"]),
    ("overflow", ROW + b" 2:1e39\n", 1, ["'1e39'", "overflows", "32-bit"]),
    ("overflow by a hair", GOOD + ROW + b" 2:340282356779733661637539395458142568448\n", 2, ["overflows"]),
    ("overflow in the label", b"-4e38 qid:1\n", 1, ["'-4e38'", "overflows"]),
    ("split group", b"1 qid:5 1:1\n0 qid:6 1:1\n# c\n2 qid:5 1:2\n", 4,
     ["query id 5", "line 1", "adjacent", "--sort"]),
    ("split group of a text id", b"1 qid:u 1:1\n0 qid:v 1:1\n2 qid:u 1:2\n", 3, ["query id 'u'", "line 1"]),
    ("split before a bad line", b"1 qid:5\n0 qid:6\n2 qid:5\nbad\n", 3, ["query id 5", "line 1"]),
    ("bad line before a split", b"1 qid:5\nbad\n0 qid:6\n2 qid:5\n", 2, ["'bad'", "label"]),
    ("two bad lines", GOOD + b"x qid:1\ny qid:1\n", 2, ["'x'"]),
    ("empty", b"", 1, ["no rows", "LABEL qid:ID"]),
    ("comments only", b"# a\n\n  # b\n", 3, ["no rows", "LABEL qid:ID"]),
    ("UTF-16", "\ufeff1 qid:1 1:2\n".encode("utf-16-le"), 1, ["UTF-16"]),
    ("byte order mark in the middle", GOOD + b"\xef\xbb\xbf" + GOOD, 2, ["label"]),
    ("two carriage returns", GOOD[:-1] + b"\r\r\n", 1, ["lone carriage return"]),
    ("lone carriage return in a blank line", GOOD + b" \r " + GOOD, 2, ["lone carriage return"]),
    ("lone carriage return behind the label", b"1\r\n", 1, ["end of the line"]),
    ("lone carriage return behind the qid", b"1 qid:1\r 1:2\n", 1, ["lone carriage return"]),
    ("bzip2 under a plain name", bz2.compress(GOOD), 1, ["bzip2", ".bz2"]),
    ("lone carriage return", GOOD + b"1 qid:1 1:2\r1 qid:1 1:2\n", 2, ["lone carriage return"]),
    ("lone carriage return in a comment", b"1 qid:1 1:2 # a\rb\n", 1, ["lone carriage return"]),
    ("nul", GOOD + b"1 qid:1 1:2\0 2:3\n", 2, ["NUL", "binary"]),
    ("nul in a comment", GOOD + b"1 qid:1 1:2 # \0\n", 2, ["NUL", "binary"]),
    ("nul bytes only", b"\0" * 100, 1, ["NUL", "binary"]),
    ("gzip under a plain name", gzip.compress(GOOD, mtime=0), 1, ["gzip", ".gz"]),
    ("control character", b"1 qid:1 1:2\x0b2:3\n", 1, ["\\x0b"]),
    ("invalid UTF-8", b"1 qid:1 1:\xff\xfe2\n", 1, ["\\xff"]),
    ("long line of text", GOOD + b"x" * (MAX_LINE + 1), 2, ["1,048,576 bytes", "'xxx"]),
    ("long comment", GOOD + b"#" * (MAX_LINE + 1) + b"\n" + GOOD, 2, ["1,048,576 bytes", "'###"]),
    ("long line of features", GOOD + b"1 qid:2 1:" + b"0" * 10_000_000 + b"\n", 2, ["1,048,576 bytes", "'1 qid:2 1:"]),
    ("long line behind a bad one", b"bad\n" + b"x" * 10_000_000, 1, ["'bad'"]),
    ("long token", b"1 qid:1 1:" + b"7x" * 3000 + b"\n", 1, ["'7x7x", "...'"]),
    ("a bad line without newline", GOOD + b"1 qid:1 1", 2, ["'1'", "no colon"]),
]  # fmt: skip


def assert_refused(path: Path, cache: Path, line: int | None, words: list[str]) -> None:
    cache.mkdir(exist_ok=True)
    with pytest.raises(InputError) as caught:
        read_table(path, cache_dir=cache)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: " if line else f"{path}: "), message
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 250
    assert "; expected " in message
    assert "cannot be read;" not in message, "the parser refused what the diagnosis finds nothing wrong with"
    for word in words:
        assert word in message.removeprefix(str(path)), message
    left = [p for p in cache.rglob("*") if p != cache / "tables"]
    assert left == []


@pytest.mark.parametrize(("content", "line", "words"), [m[1:] for m in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_malformed_files_are_told_why(content: bytes, line: int | None, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content)
    assert_refused(path, tmp_path / "cache", line, words)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("block_bytes", [1, 7, 64, 5000])
def test_the_first_bad_line_is_named_whichever_block_it_is_in(
    threads: int, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [b"%d qid:%d 1:%d # %s" % (i % 3, i // 4, i, b"x" * (i % 11)) for i in range(300)]
    lines[100:100] = [b"", b"# comment"]
    bad = lines.copy()
    bad[230] = b"1 qid:1 1:x"
    bad[270] = b"1"
    with pytest.raises(InputError, match=r"data\.txt:231: the value of feature 1 is 'x'"):
        parse(b"\n".join(bad), tmp_path_factory, threads=threads, block_bytes=block_bytes)
    split = [*lines, b"1 qid:9 1:0", b"1"]
    with pytest.raises(InputError, match=r"data\.txt:303: query id 9 begins again, first seen in line 37;"):
        parse(b"\n".join(split), tmp_path_factory, threads=threads, block_bytes=block_bytes)


def test_a_bad_line_deep_in_a_large_file_is_counted_exactly(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    row = b"0 qid:%d " + b" ".join(b"%d:0.125" % k for k in range(1, 60)) + b"\n"
    rows = [row % (i // 20) for i in range(12_000)]  # some 6 MB: several blocks
    rows[11_000] = rows[11_000].replace(b"33:", b"32:")
    path.write_bytes(b"".join(rows))
    assert path.stat().st_size > 2 * letor.BLOCK_BYTES
    assert_refused(path, tmp_path / "cache", 11_001, ["feature 32 a second time", "'32:0.125'"])


def test_gzip_reads_like_plain_text(tmp_path: Path) -> None:
    text = random_text(np.random.default_rng(1), 400, 30, 0.9)
    for name, content in {
        "a.txt": text,
        "b.txt.gz": gzip.compress(text),
        "c.gz": gzip.compress(text[:999]) + gzip.compress(text[999:]),  # two members
    }.items():
        (tmp_path / name).write_bytes(content)
    plain = read_table(tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    for name in ("b.txt.gz", "c.gz"):
        assert_same(plain, read_table(tmp_path / name, cache_dir=tmp_path / "cache"))


def test_a_truncated_gzip_names_the_last_whole_line(tmp_path: Path) -> None:
    lines = [b"1 qid:%d 1:%d\n" % (i, i * i) for i in range(5000)]
    whole = gzip.compress(b"".join(lines))
    path = tmp_path / "data.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as caught:
        read_table(path, cache_dir=tmp_path / "cache")
    found = re.fullmatch(
        re.escape(str(path)) + r":(\d+): the gzip data end too early.*; expected .*", str(caught.value)
    )
    assert found
    with gzip.open(path) as file:
        read = b""
        with contextlib.suppress(EOFError):
            while piece := file.read1(100):
                read += piece
    assert int(found[1]) == read.count(b"\n") > 100
    assert list((tmp_path / "cache" / "tables").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD, ["gzip"]),
        (b"", ["no rows"]),
        (gzip.compress(GOOD, mtime=0)[:5], ["gzip"]),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, ["gzip"]),
        (gzip.compress(GOOD) + b"trailing", ["gzip"]),
    ],
    ids=["plain text", "empty", "header only", "checksum", "trailing bytes"],
)
def test_what_is_no_gzip_file_is_refused(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected") as caught:
        read_table(path, cache_dir=tmp_path / "cache")
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bad_line_comes_before_the_end_of_a_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(GOOD + b"bad\n" + np.random.default_rng(0).bytes(5000))[:-100])
    assert_refused(path, tmp_path / "cache", 2, ["'bad'"])


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent.txt", tmp_path / "cache", None, ["No such file"])
    assert_refused(tmp_path, tmp_path / "cache", None, ["directory"])
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(InputError, match="expected a readable file"):
            convert_letor(path, tmp_path)


VALID = b"2 qid:14 1:0.5 2:-3e-2 7:12.25 # doc 1\n"
ALPHABET = b"0123456789 .:-+e#\t\r\n\0qidnaxf_,\xff"
MUTATION = st.tuples(
    st.sampled_from("ird"), st.integers(0, len(VALID) * 2), st.sampled_from([bytes([c]) for c in ALPHABET])
)
REFERENCE_ROW = re.compile(
    rb"[ \t]*(?P<label>\S+)[ \t]+qid:(?P<qid>[^\x00-\x20]+)(?P<features>(?:[ \t]+[0-9]+:[^\s:]+)*)[ \t]*"
)
REFERENCE_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def reference(text: bytes) -> list[tuple[float, str, dict[int, float]]] | int:
    """The rows, or the number of the first bad line. Slow, short, and written without looking at the parser."""
    rows: list[tuple[float, str, dict[int, float]]] = []
    for number, line in enumerate(text.removesuffix(b"\n").split(b"\n"), start=1):
        line = line.removesuffix(b"\r")
        body = line.split(b"#")[0]
        if b"\r" in line or b"\0" in line:
            return number
        if not body.strip(b" \t"):
            continue
        match = REFERENCE_ROW.fullmatch(body)
        if match is None or not REFERENCE_NUMBER.fullmatch(match["label"]) or abs(float(match["label"])) > 3.4e38:
            return number
        features: dict[int, float] = {}
        for k, v in (field.split(b":") for field in match["features"].split()):
            missing = v.lower().lstrip(b"+-") == b"nan" and len(v) <= 4
            if int(k) in features or not 1 <= int(k) <= MAX_FEATURE:
                return number
            if not missing and not REFERENCE_NUMBER.fullmatch(v):
                return number
            features[int(k)] = np.nan if missing or abs(float(v)) >= 1e308 else float(v)
            if abs(features[int(k)]) > 3.4e38:
                return number
        try:
            qid = match["qid"].decode()
        except UnicodeDecodeError:
            return number
        if qid in [row[1] for row in rows] and qid != rows[-1][1]:
            return number
        rows.append((float(match["label"]), qid, features))
    return rows


@settings(max_examples=400, deadline=None)
@given(st.lists(MUTATION, max_size=4), st.integers(1, 50))
@example([("i", 0, b"#")], 9)
def test_mutated_lines_are_read_or_refused_like_the_reference(
    tmp_path_factory: pytest.TempPathFactory, mutations: list[tuple[str, int, bytes]], block_bytes: int
) -> None:
    text = VALID * 2
    for kind, at, byte in mutations:
        at = min(at, len(text))
        text = text[:at] + (b"" if kind == "d" else byte) + text[at + (kind != "i") :]
    expected = reference(text)
    if isinstance(expected, int):
        with pytest.raises(InputError, match=rf"data\.txt:{expected}: ") as caught:
            parse(text, tmp_path_factory, block_bytes=block_bytes)
        assert "cannot be read" not in str(caught.value)
    elif not expected:
        with pytest.raises(InputError, match="no rows"):
            parse(text, tmp_path_factory, block_bytes=block_bytes)
    else:
        table = parse(text, tmp_path_factory, block_bytes=block_bytes)
        width = max((k for row in expected for k in row[2]), default=0)
        values = np.zeros((len(expected), 1 + width), dtype=np.float32)
        for i, (label, _, features) in enumerate(expected):
            values[i, 0] = label
            for k, value in features.items():
                values[i, k] = value
        assert table.origins == {}
        np.testing.assert_array_equal(table.values, values)
        assert np.repeat(table.qids, table.group_sizes).astype(str).tolist() == [row[1] for row in expected]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(GOOD * 1000)
    seen: list[tuple[int, int]] = []
    convert_letor(path, tmp_path, block_bytes=1000, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 10
    assert seen == sorted(seen)
    assert seen[-1] == (len(GOOD) * 1000,) * 2


def test_numbers_in_comments_do_not_widen_a_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = b"1 qid:77 3:1 12:0 # 99:1\n# 500:1\n0 qid:77 5:1#600:2\n"
    for block_bytes in (1, 1 << 20):
        assert parse(text, tmp_path_factory, block_bytes=block_bytes).columns == ("relevance", *map(str, range(1, 13)))
