"""Parquet and CSV through the same door as LETOR text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyperdpo.data import table_files
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.storage import open_stored
from hyperdpo.data.tabular import convert_table
from hyperdpo.errors import InputError

GOOD: dict[str, Any] = {
    "qid": [7, 7, 3],
    "relevance": [1, 0, 2],
    "clicks": [0.5, -1.25, 1e-3],
    "title": ["a", "b", "c"],
    "shown": [True, False, True],
}
EXPECTED = np.array([[1, 0.5, 1], [0, -1.25, 0], [2, 1e-3, 1]], dtype=np.float32)


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A Parquet or CSV file, by the name's ending."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
        return path
    rows = [",".join(table.column_names)]
    for row in table.to_pylist():
        rows.append(
            ",".join("" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in row.values())
        )
    text = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def read(path: Path, **options: Any) -> GroupedTable:
    return read_table(path, cache_dir=path.parent / "cache", **options)


def refused(path: Path, **options: Any) -> str:
    """The message, without the path in front."""
    with pytest.raises(InputError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}:")
    assert [p for p in (path.parent / "cache").rglob("*") if p.name != "tables"] == []
    return message.removeprefix(f"{path}:")


FILES = ["data.parquet", "data.csv", "data.csv.gz"]


@pytest.mark.parametrize("name", FILES)
def test_numeric_columns_become_float32(name: str, tmp_path: Path) -> None:
    table = read(write(tmp_path / name, GOOD))
    assert table.columns == ("relevance", "clicks", "shown")
    np.testing.assert_array_equal(table.values, EXPECTED)
    assert table.values.dtype == np.float32
    assert table.qids.tolist() == [7, 3]
    assert table.qids.dtype == np.int64
    assert table.offsets.tolist() == [0, 2, 3]
    with pytest.raises(InputError, match="column 'title' is text, not numeric; the numeric columns are relevance"):
        table.column("title")


@pytest.mark.parametrize("name", FILES)
def test_text_names_of_groups(name: str, tmp_path: Path) -> None:
    table = read(write(tmp_path / name, {**GOOD, "qid": ["q-7", "q-7", "café"]}))
    assert table.qids.tolist() == ["q-7", "café"]
    assert table.qids.dtype.kind == "U"
    assert table.offsets.tolist() == [0, 2, 3]


def test_all_formats_of_the_same_rows_have_one_fingerprint(tmp_path: Path) -> None:
    tables = [read(write(tmp_path / name, GOOD)) for name in FILES]
    assert len({t.fingerprint for t in tables}) == 1
    assert tables[0].fingerprint != read(write(tmp_path / "b.csv", {**GOOD, "relevance": [1, 0, 3]})).fingerprint


@pytest.mark.parametrize("name", ["data.parquet", "data.csv"])
def test_another_column_may_name_the_group(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, GOOD)
    by_title = read(path, qid_column="title")
    assert by_title.qids.tolist() == ["a", "b", "c"]
    assert by_title.columns == ("qid", "relevance", "clicks", "shown")
    assert read(path).num_groups == 2, "the cache confused two readings of one file"
    assert read(path, qid_column="title").num_groups == 3


@pytest.mark.parametrize("name", ["data.parquet", "data.csv"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_groups_go_on_over_batches(name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 60)
    columns = {"qid": np.repeat(np.arange(60), sizes), "x": rng.normal(size=sizes.sum()), "y": np.arange(sizes.sum())}
    path = write(tmp_path / name, columns)
    monkeypatch.setattr(table_files, "BATCH_VALUES", 3 * size)
    if name.endswith("csv"):
        convert_table(path, tmp_path, block_bytes=max(40, 10 * size))
        table = open_stored(tmp_path, "x")
    else:
        table = read(path)
    np.testing.assert_array_equal(table.group_sizes, sizes)
    np.testing.assert_array_equal(table.qids, np.arange(60))
    np.testing.assert_array_equal(table.values, np.stack([columns["x"], columns["y"]], axis=1).astype(np.float32))


def test_parquet_types(tmp_path: Path) -> None:
    columns = {
        "qid": pa.array([5, 5], pa.uint16()),
        "half": pa.array(np.array([1.5, 2.5], np.float16)),
        "big": pa.array([2**63, 16777217], pa.uint64()),
        "decimal": pa.array(["1.25", "2.50"]).cast(pa.decimal128(10, 2)),
        "day": pa.array([1, 2], pa.date32()),
        "list": pa.array([[1], [2]]),
        "ragged": pa.array([[1], [2, 3]]),
    }
    table = read(write(tmp_path / "data.parquet", columns))
    assert table.columns == ("half", "big", "decimal", "list[0]")
    assert table.left_out == {"day": "a date or time", "ragged": "lists of different lengths"}
    expected = np.array([[1.5, 2**63, 1.25, 1], [2.5, 16777217, 2.5, 2]]).astype(np.float32)
    np.testing.assert_array_equal(table.values, expected)
    text = pa.array(["a", "a"]).dictionary_encode()
    assert read(write(tmp_path / "b.parquet", {**columns, "qid": text})).qids.tolist() == ["a"]


def test_whole_numbers_in_the_first_block_of_csv_do_not_bind_the_others(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,x\n" + "1,5\n" * 50 + "1,5.5\n")
    convert_table(path, tmp_path, block_bytes=64)
    assert open_stored(tmp_path, "x").values[:, 0].tolist() == [5.0] * 50 + [5.5]


BAD_VALUES = [
    # column, what stands in row 2, the file's way to say it (Parquet, CSV)
    ("clicks", float("inf"), ("inf", "inf")),
    ("clicks", 1e39, ("1e+39", "1e+39")),
    ("qid", None, ("null", "empty")),
]


@pytest.mark.parametrize(("column", "value", "found"), BAD_VALUES)
def test_values_that_are_no_numbers(column: str, value: Any, found: tuple[str, str], tmp_path: Path) -> None:
    columns = {**GOOD, column: [GOOD[column][0], value, GOOD[column][2]]}
    message = refused(write(tmp_path / "data.parquet", columns))
    assert message.startswith(f"row 2: column '{column}' is {found[0]}; expected ")
    message = refused(write(tmp_path / "data.csv", columns))
    assert message.startswith(f"3: column '{column}' is {found[1]}; expected ")


@pytest.mark.parametrize("name", FILES)
def test_the_first_bad_row_is_named(name: str, tmp_path: Path) -> None:
    x = np.arange(3000.0)
    x[[2100, 2900]] = np.inf
    columns = {"qid": np.zeros(3000, int), "x": x, "y": np.where(np.arange(3000) == 2500, np.inf, 1.0)}
    assert refused(write(tmp_path / name, columns)).startswith("row 2101: " if name == FILES[0] else "2102: ")


@pytest.mark.parametrize("name", FILES)
def test_a_split_group(name: str, tmp_path: Path) -> None:
    for qids in ([7, 3, 7], ["7", "3", "7"]):
        message = refused(write(tmp_path / name, {**GOOD, "qid": qids}))
        again, first = ("row 3", "row 1") if name == FILES[0] else ("4", "2")
        assert message.startswith(f"{again}: query id ")
        assert f"first seen in {first};" in message or f"first seen in line {first};" in message


@pytest.mark.parametrize("name", FILES)
def test_columns_that_do_not_serve(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, GOOD)
    message = refused(path, qid_column="query")
    assert "no column 'query'" in message
    assert "qid, relevance, clicks, title, shown" in message
    assert "no numeric column" in refused(write(tmp_path / name, {"qid": [1], "title": ["a"]}))


def test_a_group_cannot_be_named_by_fractions(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "data.parquet", GOOD), qid_column="clicks")
    assert message == "row 1: query id 0.5 in column 'clicks'; expected whole numbers or texts"
    assert "is timestamp" in refused(write(tmp_path / "b.parquet", {"qid": pa.array([1], pa.timestamp("s")), "x": [1]}))


CSV_ERRORS = [
    ("ragged", b"qid,x\n1,2\n1,2,3\n", "3: Expected 2 columns, got 3"),
    ("ragged behind blank lines", b"qid,x\n\n1,2\n\n1\n", "5: Expected 2 columns, got 1"),
    ("no query id behind blank lines", b"\nqid,x\n\n1,2\n\n,1\n", "6: column 'qid' is empty"),
    ("word for no query id", b"qid,x\n1,2\nN/A,1\n", "3: column 'qid' is 'N/A'"),
    ("empty", b"", " an empty file"),
    ("header only", b"qid,x\n", " no "),
    ("twice the same name", b"qid,x,x\n1,2,3\n", " column 'x' occurs twice"),
    ("parquet under the wrong name", b"PAR1\0\0\0\0", " "),
]


@pytest.mark.parametrize(("content", "start"), [e[1:] for e in CSV_ERRORS], ids=[e[0] for e in CSV_ERRORS])
def test_malformed_csv(content: bytes, start: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(start)
    assert "expected" in message or "the columns are" in message


@pytest.mark.parametrize("bad", ["1,word", "1", "1,2,3"])
def test_malformed_csv_in_a_later_block_is_counted_exactly(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,x\n" + "1,5\n" * 500 + "\n" + bad + "\n" + "1,7\n" * 20)
    with pytest.raises(InputError, match=r"data\.csv:503: ") as caught:
        convert_table(path, tmp_path, block_bytes=128)
    assert bad.split(",")[-1] in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no parquet", b"PAR1" + b"\0" * 50 + b"PAR1"], ids=["empty", "text", "magic only"]
)
def test_damaged_parquet(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    assert "Parquet" in refused(path)
    whole = write(path, GOOD).read_bytes()
    for cut in (8, len(whole) // 2):
        path.write_bytes(whole[:cut] + whole[cut + 20 :])
        refused(path)


def test_parquet_without_rows(tmp_path: Path) -> None:
    columns = {"qid": pa.array([], pa.int64()), "x": pa.array([], pa.float64())}
    assert refused(write(tmp_path / "data.parquet", columns)) == " no rows; expected at least one"


def test_a_truncated_csv_gz(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(b"qid,x\n" + np.random.default_rng(0).bytes(3000).hex().encode())[:500])
    assert "the gzip data end too early" in refused(path)
    path.write_bytes(b"qid,x\n1,2\n")
    assert "no gzip data" in refused(path)


@pytest.mark.parametrize("name", FILES)
def test_progress_reaches_the_end(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, GOOD)
    seen: list[tuple[int, int]] = []
    read(path, progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert seen[-1] == (path.stat().st_size,) * 2


# --- what counts as a number


def features(path: Path) -> dict[str, list[float]]:
    table = read(path)
    return {name: table.column(name).tolist() for name in table.columns}


def test_missing_values_become_nan(tmp_path: Path) -> None:
    columns = {"qid": [1, 1, 2], "x": [0.5, None, 2.0], "flag": [True, None, False]}
    for name in FILES:
        table = read(write(tmp_path / name, columns))
        np.testing.assert_array_equal(table.values, np.array([[0.5, 1], [np.nan, np.nan], [2, 0]], np.float32))


def test_a_text_column_is_left_out_by_name_and_a_nearly_numeric_one_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [f"1,{i},{'-' if i == 7 else i / 2},word{i}" for i in range(20)]
    path.write_text("qid,x,price,title\n" + "\n".join(rows) + "\n")
    table = read(path)
    assert table.columns == ("x",)
    assert table.left_out == {"price": "text", "title": "text"}
    with pytest.raises(InputError, match=r"data\.csv:9: column 'price' is '-', and 19 of its 20 values are numbers"):
        table.column("price")


@pytest.mark.parametrize("cell", ["1,234.5", "12 kg", "n.d."])
def test_one_odd_cell_far_behind_the_first_block_is_found(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,x,y\n" + "1,5,1\n" * 500 + f'1,"{cell}",1\n')
    convert_table(path, tmp_path, block_bytes=64)
    table = open_stored(tmp_path, str(path))
    assert table.columns == ("y",)
    with pytest.raises(InputError, match=rf"data\.csv:502: column 'x' is '{cell}'"):
        table.column("x")


def test_a_decimal_comma_is_read_with_semicolons_only(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid;x;y\n1;0,5;3\n1;-1,25;4\n")
    assert features(path) == {"x": [0.5, -1.25], "y": [3, 4]}
    path.write_text('qid,x,y\n1,"0,5",3\n1,"-1,25",4\n')
    table = read(path)
    assert table.columns == ("y",)
    with pytest.raises(InputError, match=r"data\.csv:2: column 'x' is '0,5', a number with a comma"):
        table.column("x")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_found_in_the_header(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,x,y\n1,0.5,3\n1,2.5,4\n".replace(",", separator))
    assert features(path) == {"x": [0.5, 2.5], "y": [3, 4]}


def test_query_ids_come_back_as_given(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    unsigned = pa.array([2**63 + 1, 1], pa.uint64())
    for ids in ([7, 12], ["u7", "12"], ["007", "7"], unsigned.to_pylist(), [1.0, 2.0]):
        path.write_text("qid,x\n" + "".join(f"{qid},1\n" for qid in ids))
        assert read(path).qids.tolist() == ids
        parquet = write(tmp_path / "data.parquet", {"qid": unsigned if 1 in ids[1:] else pa.array(ids), "x": [1, 2]})
        assert read(parquet).qids.tolist() == ids


def test_lists_of_one_length_become_features(tmp_path: Path) -> None:
    vectors = pa.array([[0.5, 1.0], None, [2.0, 3.0]])
    for lists in (vectors, vectors.cast(pa.list_(pa.float32(), 2))):
        table = read(write(tmp_path / "data.parquet", {"qid": [1, 1, 2], "v": lists}))
        assert table.columns == ("v[0]", "v[1]")
        np.testing.assert_array_equal(table.values, np.array([[0.5, 1], [np.nan, np.nan], [2, 3]], np.float32))


@pytest.mark.parametrize("name", FILES)
def test_time_stamps_and_dates_as_numbers_keep_their_differences(name: str, tmp_path: Path) -> None:
    seconds = [1704078000, 1704078001, 1704078003]
    table = read(write(tmp_path / name, {"qid": [1, 1, 2], "t": seconds, "day": [20240101, 20240131, 20240102]}))
    assert table.origins == {"t": 1704078000.0, "day": 20240101.0}
    np.testing.assert_array_equal(table.values, np.array([[0, 0], [1, 30], [3, 1]], np.float32))
    # Another file's origin may be another: what a run asks for is the difference from its own.
    asked = table.take(np.arange(3), table.column_indices(["t"]), np.array([1704077990.0]))
    assert asked[:, 0].tolist() == [10, 11, 13]


def test_values_of_the_largest_double_count_as_missing(tmp_path: Path) -> None:
    table = read(write(tmp_path / "data.parquet", {"qid": [1, 1], "x": [1.79769313486e308, 1.0]}))
    np.testing.assert_array_equal(table.values[:, 0], np.array([np.nan, 1], np.float32))
    assert table.notes == ("values of 1e+308 and more count as missing: 1 in x",)


@pytest.mark.parametrize("name", FILES)
def test_scattered_rows_are_brought_together_on_demand(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, {"qid": ["b", "a", "b", "a", "c"], "x": [0, 1, 2, 3, 4]})
    assert "(--sort brings them together)" in refused(path)
    table = read(path, sort=True)
    assert table.qids.tolist() == ["b", "a", "c"]
    assert table.values[:, 0].tolist() == [0, 2, 1, 3, 4]
    assert table.order is not None
    np.testing.assert_array_equal(table.source_order(table.values[:, 0]), np.arange(5))
    assert table.notes == ("sorted by query: 2 of 5 rows moved",)


def test_numbers_as_text_are_doubtful(tmp_path: Path) -> None:
    table = read(write(tmp_path / "data.parquet", {"qid": [1, 1], "x": [1, 2], "price": ["12", "7.5"]}))
    with pytest.raises(InputError, match=r"data\.parquet:row 1: column 'price' holds numbers as text, such as '12'"):
        table.column("price")


def test_a_column_without_a_value_is_missing_in_every_row(tmp_path: Path) -> None:
    for name in FILES:
        table = read(write(tmp_path / name, {"qid": [1, 1], "x": [1, 2], "none": pa.nulls(2)}))
        assert np.isnan(table.column("none")).all()


@pytest.mark.parametrize("start", [2**60, 2**63])
def test_integers_that_no_float_tells_apart_are_left_out(start: int, tmp_path: Path) -> None:
    numbers = pa.array([start + i for i in range(3)], pa.uint64())
    for name in FILES[:2]:
        table = read(write(tmp_path / name, {"qid": [1, 1, 2], "x": [1, 2, 3], "id": numbers}))
        assert table.columns == ("x",)
    assert table.left_out == {"id": "of integers so large that 64-bit floats make different ones equal"}


def test_nanoseconds_keep_their_differences(tmp_path: Path) -> None:
    stamps = pa.array([1_704_078_000_000_000_000 + 1_000_000_000 * i for i in (0, 1, 3600)])
    table = read(write(tmp_path / "data.parquet", {"qid": [1, 1, 2], "t": stamps}))
    np.testing.assert_allclose(table.values[:, 0], [0, 1e9, 3.6e12], rtol=1e-7)


def test_row_numbers_with_large_gaps_number_the_rows(tmp_path: Path) -> None:
    numbers = np.sort(np.random.default_rng(0).choice(100_000_000, 30_000, replace=False))
    table = read(write(tmp_path / "data.parquet", {"qid": np.zeros(30_000, int), "index": numbers, "x": numbers}))
    assert table.numbering == ("index",)
