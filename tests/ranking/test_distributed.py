"""``rank score --engine dask``: the numbers of ``rank score``, in whole parts of whole groups."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

from hyperdpo import extras
from hyperdpo.data.cache import read_table
from hyperdpo.data.storage import open_stored
from hyperdpo.data.tabular import convert_table, parquet_groups
from hyperdpo.errors import InputError
from hyperdpo.ranking.distributed import DONE, _loaded, partition_cuts

AT = ("--weights", ".3,.7", "--scale", "2", "--cpu")


@pytest.fixture(scope="module")
def rows(generated: tuple[Path, Path]) -> pa.Table:
    table = read_table(generated[0])
    columns = {name: table.values[:, j] for j, name in enumerate(table.columns)}
    return pa.table({"qid": np.repeat(table.qids, table.group_sizes), **columns})


@pytest.fixture(scope="module")
def parts(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of whole groups, small row groups, and one without rows."""
    directory = tmp_path_factory.mktemp("parts")
    half = int(np.searchsorted(rows["qid"].to_numpy(), 16))
    pq.write_table(rows.slice(0, half), directory / "a.parquet", row_group_size=90)
    pq.write_table(rows.slice(half), directory / "b.parquet", row_group_size=333)
    pq.write_table(rows.slice(0, 0), directory / "c.parquet")
    (directory / "_SUCCESS").touch()
    return directory


@pytest.fixture(scope="module")
def run(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(fitted, tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with a worker in this process."""
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def written(out: Path, stem: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(out.glob(f"{stem}-*.parquet"))])


def test_processes_give_the_scores_of_each_file_in_parts_of_whole_groups(run, parts, tmp_path, command) -> None:
    before = sorted(run.rglob("*"))
    out = tmp_path / "scores"
    engine = ("--engine", "dask", "--workers", 2, "--partition-rows", 500)
    done = command("rank", "score", run, parts, *AT, *engine, "--out", out)
    assert (done.code, sorted(run.rglob("*"))) == (0, before)  # a run directory may be read-only
    made = sorted(out.glob("*.parquet"))
    assert f"{out}: 2,958 rows in {len(made)} parts; score" in done.out
    assert json.loads((out / DONE).read_text())["rows"] == 2958
    seen: set[int] = set()
    for file in made:
        qids = set(pq.read_table(file)["qid"].to_pylist())
        assert not qids & seen
        seen |= qids
    for stem in "ab":
        assert command("rank", "score", run, parts / f"{stem}.parquet", *AT, "--out", tmp_path / "plain.npy").code == 0
        table = written(out, stem)
        np.testing.assert_allclose(table["score"], np.load(tmp_path / "plain.npy"), rtol=0, atol=2e-6)
        assert table["row"].to_pylist() == list(range(len(table)))
        assert table["qid"].to_pylist() == pq.read_table(parts / f"{stem}.parquet")["qid"].to_pylist()


@pytest.fixture
def scored(run: Path, scheduler: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """``rank score DATA --engine dask ...`` on the worker in this process."""
    dask = ("--engine", "dask", "--scheduler", scheduler)
    return lambda data, *more: command("rank", "score", run, data, *dask, *more)


def test_components_are_those_of_each_file(run, parts, scored, tmp_path, command) -> None:
    done = scored(parts, "--components", tmp_path / "columns", "--partition-rows", 700)
    assert done.code == 0
    assert "rank by the sum of weight times column" in done.out
    for stem in "ab":
        plain = tmp_path / f"{stem}.parquet"
        assert command("rank", "score", run, parts / f"{stem}.parquet", "--components", plain).code == 0
        one, other = written(tmp_path / "columns", stem), pq.read_table(plain)
        assert one.column_names == other.column_names
        for name in one.column_names:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-7)


def test_an_interrupted_call_is_carried_on_and_a_worker_reads_the_run_once(parts, scored, tmp_path) -> None:
    call = (parts, *AT, "--partition-rows", 500, "--out", tmp_path)
    _loaded.cache_clear()
    assert scored(*call).code == 0
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert (_loaded.cache_info().misses, _loaded.cache_info().hits) == (1, len(made) - 1)
    lost = sorted(made)[2]
    content = pq.read_table(lost)
    lost.unlink()
    (tmp_path / f".{lost.name}.123.tmp").write_bytes(b"half of a fi")
    done = scored(*call)
    assert f"{len(made)} parts, {len(made) - 1} of them kept from before" in done.out
    assert pq.read_table(lost).equals(content)
    assert {f: f.stat().st_mtime_ns for f in made if f != lost} == {f: t for f, t in made.items() if f != lost}
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([DONE, *(file.name for file in made)])


@pytest.mark.parametrize("other", [("--scale", "3"), ("--weights", ".4,.6"), ("--partition-rows", 600)])
def test_parts_of_another_point_or_cut_are_not_mixed_in(parts, scored, tmp_path, other) -> None:
    assert scored(parts, *AT, "--partition-rows", 500, "--out", tmp_path).code == 0
    done = scored(parts, *AT, "--partition-rows", 500, *other, "--out", tmp_path)
    assert done.code == 2
    assert "was made from another run, point, data or partition size; expected an empty directory" in done.err


def test_changed_data_are_not_mixed_in(rows, scored, tmp_path) -> None:
    data, out = tmp_path / "data.parquet", tmp_path / "out"
    pq.write_table(rows.slice(0, 700), data)
    assert scored(data, *AT, "--out", out).code == 0
    pq.write_table(rows.slice(0, 690), data)
    assert "was made from another run, point, data" in scored(data, *AT, "--out", out).err


def test_a_group_in_two_files_or_two_places_is_refused(rows, scored, tmp_path) -> None:
    for name, piece in (("a", rows.slice(0, 100)), ("b", rows.slice(100))):
        pq.write_table(piece, tmp_path / f"{name}.parquet")
    qid = rows["qid"][100].as_py()
    done = scored(tmp_path, *AT, "--out", tmp_path / "out")
    assert done.code == 2
    assert f"{tmp_path}/b.parquet: query id {qid} is in {tmp_path}/a.parquet, too; expected all rows of a" in done.err
    again = tmp_path / "again.parquet"
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), again)
    done = scored(again, *AT, "--partition-rows", 500, "--out", tmp_path / "out")
    assert f"{again}:row 2959: query id 1 begins again, first seen in row 1; expected" in done.err
    assert not (tmp_path / "out").exists()


def test_scattered_rows_are_brought_together_in_one_part_per_file(run, rows, scored, tmp_path, command) -> None:
    order = np.random.default_rng(0).permutation(800)
    data = tmp_path / "mixed.parquet"
    pq.write_table(rows.take(pa.array(order)), data)
    assert scored(data, *AT, "--sort", "--partition-rows", 100, "--out", tmp_path / "out").code == 0
    assert command("rank", "score", run, data, *AT, "--sort", "--out", tmp_path / "plain.npy").code == 0
    found = written(tmp_path / "out", "mixed")
    np.testing.assert_array_equal(found["score"], np.load(tmp_path / "plain.npy"))
    assert found["qid"].equals(rows["qid"].take(pa.array(order)))


def test_what_a_worker_refuses_or_notes_is_told_as_without_dask(rows, scored, tmp_path) -> None:
    data = tmp_path / "data.parquet"
    pq.write_table(rows.drop_columns(["5"]), data)
    done = scored(data, *AT, "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"hyperdpo: {data}: no column '5'; the columns are" in done.err
    pq.write_table(rows.append_column("more", rows["5"]), data)
    done = scored(data, *AT, "--partition-rows", 500, "--out", tmp_path / "out")
    assert done.code == 0
    assert done.err.count("columns that the run was not trained with, and does not use: more") == 1


def test_base_scores_come_from_a_column(run, rows, scored, tmp_path, command) -> None:
    data = tmp_path / "data.parquet"
    pq.write_table(rows.append_column("mine", rows["5"]), data)
    call = (data, *AT, "--base-scores")
    assert scored(*call, "mine", "--partition-rows", 900, "--out", tmp_path / "out").code == 0
    assert command("rank", "score", run, *call, "mine", "--out", tmp_path / "plain.npy").code == 0
    np.testing.assert_allclose(
        written(tmp_path / "out", "data")["score"], np.load(tmp_path / "plain.npy"), rtol=1e-6, atol=2e-6
    )
    (tmp_path / "base.txt").write_text("0\n")
    done = scored(*call, tmp_path / "base.txt", "--out", tmp_path / "other")
    assert "--base-scores: is a file; --engine dask takes base scores from a column" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scheduler", "tcp://host:8786", "--out", "o"), "--scheduler: is for --engine dask; add that"),
        (("--partition-rows", "5", "--out", "o"), "--partition-rows: is for --engine dask; add that"),
        (("--out", "o"), "is a directory; expected a file, or --engine dask"),
        (("--engine", "dask"), "--out: missing; expected a directory"),
        (("--engine", "dask", "--scheduler", "host", "--workers", "2", "--out", "o"), "leave out --scheduler, or this"),
        (
            ("--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--out", "o"),
            "nothing answers at tcp://127.0.0.1:1",
        ),
        (("--engine", "dask", "--scheduler", "tcp://x:y", "--out", "o"), "--scheduler: nothing answers at tcp://x:y"),
        (("--engine", "dask", "--out", "{data}"), "holds the data; expected another directory"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(run, parts, tmp_path, command, options, message) -> None:
    options = [str(tmp_path / "o") if option == "o" else option.format(data=parts) for option in options]
    done = command("rank", "score", run, parts, *AT, *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_other_data_and_a_missing_package_are_one_line(run, generated, tmp_path, command, monkeypatch) -> None:
    dask = ("--engine", "dask", "--out", tmp_path / "out")
    done = command("rank", "score", run, generated[0], *AT, *dask)
    assert "--engine dask reads Parquet only; convert it, or leave --engine out" in done.err
    done = command("rank", "score", run, tmp_path, *AT, *dask)
    assert f"{tmp_path}: no Parquet files there; expected names ending in .parquet" in done.err
    monkeypatch.setattr(extras, "is_installed", lambda module: module != "distributed")
    done = command("rank", "score", run, tmp_path, *AT, *dask)
    assert done.err == "hyperdpo: distributed is not installed; run: pip install 'hyperdpo[dask]'\n"


def test_cuts_lie_between_groups_as_soon_as_a_partition_is_full() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        sizes = rng.integers(1, 9, rng.integers(1, 20))
        offsets, most = np.append(0, np.cumsum(sizes)), int(rng.integers(1, 25))
        expected, held = [0], 0
        for end, size in zip(offsets[1:], sizes, strict=True):
            held += int(size)
            if held >= most or end == offsets[-1]:
                expected.append(int(end))
                held = 0
        assert partition_cuts(offsets, most) == expected
    assert partition_cuts(np.array([0]), 5) == [0]


def test_some_rows_of_a_file_are_read_as_a_file_of_these_rows(rows, tmp_path) -> None:
    file, piece = tmp_path / "all.parquet", tmp_path / "piece.parquet"
    pq.write_table(rows.slice(0, 1000), file, row_group_size=170)
    names, offsets = parquet_groups(file)
    assert names.tolist() == list(dict.fromkeys(rows.slice(0, 1000)["qid"].to_pylist()))
    for start, stop in [(offsets[1], offsets[4]), (0, offsets[2]), (offsets[5], 1000), (0, 1000)]:
        pq.write_table(rows.slice(start, stop - start), piece)
        found = []
        for path, wanted in ((file, range(start, stop)), (piece, None)):
            directory = tmp_path / f"{path.stem}-{start}-{stop}"
            directory.mkdir()
            convert_table(path, directory, rows=wanted)
            found.append(open_stored(directory, str(path)))
        np.testing.assert_array_equal(found[0].values, found[1].values)
        assert (found[0].qids.tolist(), found[0].offsets.tolist()) == (
            found[1].qids.tolist(),
            found[1].offsets.tolist(),
        )
    broken = rows.slice(0, 1000).set_column(3, "2", pa.array([*[0.0] * 900, np.inf, *[0.0] * 99]))
    pq.write_table(broken, file)
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"all\.parquet:row 901: column '2'"):
        convert_table(file, tmp_path / "x", rows=range(int(offsets[5]), 1000))
