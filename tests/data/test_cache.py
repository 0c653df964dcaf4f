"""The cache of parsed tables: read once, found again, never half-written."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hyperdpo.data import blocks, letor, storage
from hyperdpo.data.cache import CACHE_VARIABLE, cache_root, clear_cache, read_table, temporary_prefix
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.storage import open_stored
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_json

TEXT = "".join(f"{i % 3} qid:{i // 5} 1:{i} 3:{i}.25\n" for i in range(100))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files parsed so far."""
    seen: list[Path] = []
    real = letor.convert_letor

    def counted(path: Path, directory: Path, **options: Any) -> str:
        seen.append(path)
        return real(path, directory, **options)

    monkeypatch.setattr(letor, "convert_letor", counted)
    return seen


def entries(root: Path) -> list[Path]:
    return sorted(p.parent for p in root.rglob("meta.json"))


def temporaries(root: Path) -> list[Path]:
    return list((root / "tables").glob("tmp-*"))


def test_the_second_opening_does_not_parse(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_table(source, cache_dir=root)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(letor, "convert_letor", fail)
    second = read_table(str(source), cache_dir=root)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.qids, second.qids)
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert (first.columns, first.fingerprint) == (second.columns, second.fingerprint)
    assert second.source == str(source)


def test_values_are_mapped_read_only(source: Path, root: Path) -> None:
    table = read_table(source, cache_dir=root)
    assert isinstance(table.values.base, np.memmap)
    assert type(table.values) is np.ndarray
    assert table.values.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 1


def test_opening_reads_no_values(source: Path, root: Path) -> None:
    """A table of 40 GB, all of it a hole in a sparse file, opens: nothing has read it."""
    read_table(source, cache_dir=root)
    (entry,) = entries(root)
    rows, width = 10_000_000, 1000
    with open(entry / "values.npy", "r+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
        assert file.tell() == 128
        try:
            file.truncate(128 + 4 * rows * width)
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
    offsets = np.append(np.load(entry / "offsets.npy")[:-1], rows)
    np.save(entry / "offsets.npy", offsets)
    meta = read_json(entry / "meta.json")
    meta["bytes"]["values.npy"] = 128 + 4 * rows * width
    meta["columns"] = [str(i) for i in range(width)]
    meta["checksums"] |= {name: storage._checksum(entry / name) for name in ("values.npy", "offsets.npy")}
    write_json(entry / "meta.json", meta, sealed=True)
    assert read_table(source, cache_dir=root).values.shape == (rows, width)


@pytest.mark.parametrize("how", ["size", "time", "content"])
def test_a_changed_file_is_read_again(how: str, source: Path, root: Path, parses: list[Path]) -> None:
    old = read_table(source, cache_dir=root)
    status = source.stat()
    text = TEXT + "0 qid:99 1:1\n" if how == "size" else TEXT if how == "time" else TEXT.replace("3:7.25", "3:8.25")
    source.write_text(text)
    changed_time = status.st_mtime_ns + (1_000_000_000 if how == "time" else 0)
    os.utime(source, ns=(status.st_atime_ns, changed_time))
    new = read_table(source, cache_dir=root)
    assert len(parses) == 2
    assert (new.fingerprint == old.fingerprint) == (how == "time")
    assert new.values[7, 3] == (8.25 if how == "content" else 7.25)
    assert len(entries(root)) == 1, "the table of the old content was kept"
    assert old.values[7, 3] == 7.25, "an open table lost its values"


def test_the_fingerprint_is_of_the_rows(tmp_path: Path, root: Path) -> None:
    texts = {
        "a.txt": TEXT,
        "b.txt": "# same rows\n" + TEXT.replace(" 3:", "  3:").rstrip("\n"),
        "c.txt": TEXT.replace("3:7.25", "3:7.26"),
        "d.txt": TEXT.replace("qid:3 ", "qid:77 "),
        "e.txt": TEXT.replace("qid:3 ", "qid:4 "),
    }
    prints = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        prints[name] = read_table(tmp_path / name, cache_dir=root).fingerprint
    assert prints["a.txt"] == prints["b.txt"]
    assert len(set(prints.values())) == 4
    assert all(len(p) == 32 for p in prints.values())


SCATTERED = "".join(f"{i % 3} qid:{i % 7} 1:{i}\n" for i in range(100))


def test_options_have_tables_of_their_own(source: Path, root: Path, parses: list[Path]) -> None:
    source.write_text(SCATTERED)
    first = read_table(source, cache_dir=root, sort=True)
    with pytest.raises(InputError, match="--sort"):
        read_table(source, cache_dir=root)
    zero = read_table(source, cache_dir=root, sort=True, features_from_zero=True)
    assert zero.columns == ("relevance", "0", "1")
    assert read_table(source, cache_dir=root, sort=True).columns == ("relevance", "1")
    assert len(parses) == 3
    again = read_table(source, cache_dir=root, sort=True)
    assert len(parses) == 3
    assert first.order is not None
    assert again.order is not None
    np.testing.assert_array_equal(first.order, again.order)
    assert first.notes == again.notes == ("sorted by query: 98 of 100 rows moved",)


def test_numbers_from_zero_are_for_letor_text(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("qid,relevance,a\n1,0,2\n")
    with pytest.raises(InputError, match=r"data\.csv: --features-from-zero is for LETOR text"):
        read_table(path, cache_dir=root, features_from_zero=True)


@pytest.mark.parametrize("damage", [0, 1, 2], ids=["truncated", "gone", "of another kind"])
def test_a_damaged_order_is_built_again(damage: int, source: Path, root: Path, parses: list[Path]) -> None:
    source.write_text(SCATTERED)
    order = np.array(read_table(source, cache_dir=root, sort=True).order)
    (entry,) = entries(root)
    path = entry / "order.npy"
    if damage == 0:
        truncate(path)
    elif damage == 1:
        path.unlink()
    else:
        np.save(path, order.astype(np.float64))
    np.testing.assert_array_equal(read_table(source, cache_dir=root, sort=True).order, order)
    assert len(parses) == 2


@pytest.mark.parametrize("name", ["data.txt", "data.csv", "data.parquet"])
def test_the_fingerprint_of_sorted_rows_is_that_of_a_sorted_file(name: str, tmp_path: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    qids = rng.integers(0, 9, 300)
    order = np.argsort([list(qids).index(q) for q in qids], kind="stable")
    prints = []
    for folder, rows in {"scattered": np.arange(300), "sorted": order}.items():
        path = tmp_path / folder / name
        path.parent.mkdir()
        if name.endswith(".txt"):
            path.write_text("".join(f"{i % 4} qid:{qids[i]} 1:{i}\n" for i in rows))
        else:
            frame = pl.DataFrame({"qid": qids[rows], "relevance": rows % 4, "a": rows * 0.5})
            frame.write_csv(path) if name.endswith(".csv") else frame.write_parquet(path)
        table = read_table(path, cache_dir=root, sort=True)
        assert (table.order is None) == (folder == "sorted")
        prints.append(table.fingerprint)
    assert prints[0] == prints[1]


@pytest.mark.parametrize("rows", [1, 7, 400])
def test_rows_are_sorted_in_pieces_that_fit_into_memory(
    rows: int, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks and buckets of a few rows give what one of everything gives."""
    rng = np.random.default_rng(rows)
    source.write_text("".join(f"{i % 3} qid:{rng.integers(60)} 1:{i} {rng.integers(2, 5)}:1\n" for i in range(1000)))
    whole = read_table(source, cache_dir=root / "whole", sort=True)
    monkeypatch.setattr(storage, "COPY_BYTES", 4 * 5 * rows)
    monkeypatch.setattr(storage, "BUCKET_BYTES", 4 * 5 * 3 * rows)
    pieces = read_table(source, cache_dir=root / "pieces", sort=True)
    np.testing.assert_array_equal(pieces.values, whole.values)
    assert pieces.fingerprint == whole.fingerprint
    assert whole.order is not None
    np.testing.assert_array_equal(whole.values[:, 1], whole.order)
    assert sorted(p.name for p in entries(root / "pieces")[0].iterdir()) == [
        "blocks.npy", "meta.json", "offsets.npy", "order.npy", "qids.npy", "values.npy",
    ]  # fmt: skip


def taken(table: GroupedTable) -> np.ndarray:
    """All values, as everything reads them."""
    return table.take(np.arange(table.num_rows), np.arange(len(table.columns)))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def edit(**changes: Any) -> Any:
    """Change values of the metadata, and their checksum with them."""

    def change(path: Path) -> None:
        meta = read_json(path, sealed=True)
        assert meta | changes != meta
        write_json(path, meta | changes, sealed=True)

    return change


def flip(place: int, bit: int = 0) -> Any:
    """Flip one bit."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)

    return change


DAMAGES = [
    ("values.npy", truncate),
    ("values.npy", grow),
    ("values.npy", Path.unlink),
    ("values.npy", lambda p: p.write_bytes(b"x" * p.stat().st_size)),
    ("offsets.npy", truncate),
    ("offsets.npy", Path.unlink),
    ("qids.npy", lambda p: p.write_bytes(b"")),
    ("qids.npy", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(p.stat().st_size - 4))),
    ("meta.json", Path.unlink),
    ("meta.json", lambda p: p.write_bytes(b"")),
    ("meta.json", lambda p: p.write_bytes(b"\xff\xfe{")),
    ("meta.json", lambda p: p.write_text("[1, 2]")),
    ("meta.json", lambda p: p.write_text("null")),
    ("meta.json", lambda p: p.write_text(json.dumps({"version": storage.FORMAT_VERSION}))),
    ("meta.json", lambda p: p.write_text("[" * 100_000)),
    ("meta.json", lambda p: p.write_text("9" * 5000)),
    ("meta.json", edit(columns=["1", "2", "3"])),
    ("meta.json", edit(version=0)),
    ("meta.json", edit(columns=5)),
    ("meta.json", edit(fingerprint="../../x")),
    ("meta.json", edit(fingerprint=7)),
    ("meta.json", edit(bytes={"../../values.npy": 3})),
    ("meta.json", edit(notes=None)),
    ("meta.json", flip(40)),
    ("meta.json", flip(-3)),
    ("values.npy", flip(9)),
    ("values.npy", flip(130)),
    ("values.npy", flip(-1, 7)),
    ("offsets.npy", flip(-8)),
    ("offsets.npy", flip(140, 6)),
    ("qids.npy", flip(-8)),
    ("qids.npy", flip(127)),
    ("blocks.npy", flip(-1)),
    ("blocks.npy", Path.unlink),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(DAMAGES)])
def test_a_damaged_entry_is_built_again(name: str, damage: Any, source: Path, root: Path, parses: list[Path]) -> None:
    whole = taken(read_table(source, cache_dir=root))
    (entry,) = entries(root)
    damage(entry / name)
    with pytest.warns(UserWarning, match=rf"{entry}: damaged \(.*\); {source} is parsed again"):
        np.testing.assert_array_equal(taken(read_table(source, cache_dir=root)), whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(taken(read_table(source, cache_dir=root)), whole)
    assert len(parses) == 2
    assert entries(root) == [entry]
    assert temporaries(root) == []


def test_blocks_are_checked_when_they_are_first_read(
    tmp_path: Path, root: Path, parses: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several blocks and blocks of several rows; what was not touched is not looked at."""
    path = tmp_path / "data.txt"
    path.write_text(
        "".join(f"0 qid:{i // 5} " + " ".join(f"{j}:{i}.{j}" for j in range(1, 60)) + "\n" for i in range(300))
    )
    for block_bytes in (100, 4096):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        clear_cache(root)
        whole = taken(read_table(path, cache_dir=root))
        (entry,) = entries(root)
        flip(128 + 4 * 60 * 150 + 7)(entry / "values.npy")
        table, columns, before = read_table(path, cache_dir=root), np.arange(60), len(parses)
        far, near = np.array([3, 299, 0]), np.array([290, 150, 7])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(table.take(far, columns), whole[far])
        assert len(parses) == before
        with pytest.warns(UserWarning, match=r"damaged \(values.npy has another checksum\); .* is parsed again"):
            np.testing.assert_array_equal(table.take(near, columns), whole[near])
        assert len(parses) == before + 1
        np.testing.assert_array_equal(taken(table), whole)
        np.testing.assert_array_equal(taken(read_table(path, cache_dir=root)), whole)
        assert len(parses) == before + 1
        assert temporaries(root) == []


def test_a_block_is_hashed_once(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    real = blocks.xxhash.xxh3_64_intdigest
    read_table(source, cache_dir=root)
    monkeypatch.setattr(blocks.xxhash, "xxh3_64_intdigest", lambda piece: hashed.append(len(piece)) or real(piece))
    table = read_table(source, cache_dir=root)
    assert hashed == []
    for _ in range(3):
        taken(table)
    assert hashed == [table.values.nbytes]


def test_values_that_were_damaged_and_whose_source_is_gone_are_refused(source: Path, root: Path) -> None:
    read_table(source, cache_dir=root)
    (entry,) = entries(root)
    flip(200)(entry / "values.npy")
    table = read_table(source, cache_dir=root)
    other = replace(table, values=np.array(table.values))
    assert taken(other).shape == (100, 4), "values of their own are not those of the file"
    source.write_text(TEXT + "# more\n")
    with pytest.raises(InputError, match=rf"{entry}: damaged, and {source} has changed"):
        taken(table)
    lone = open_stored(entry, "x")
    with pytest.raises(InputError, match=r"values\.npy: damaged since it was written"):
        taken(lone)


def _read(path: Path, root: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    table = read_table(path, cache_dir=root)
    results.put((table.fingerprint, float(table.values.sum())))


def test_two_processes_at_once_both_succeed(source: Path, root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for damaged in (False, True):
        if damaged:
            (entries(root)[0] / "values.npy").write_bytes(b"")
        barrier, results = context.Barrier(2), context.Queue()
        processes = [context.Process(target=_read, args=(source, root, barrier, results)) for _ in range(2)]
        for process in processes:
            process.start()
        got = [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert got[0] == got[1]
        assert len(entries(root)) == 1
        assert temporaries(root) == []


def test_losing_the_race_uses_the_winners_table(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = letor.convert_letor

    def overtaken(path: Path, directory: Path, **options: Any) -> str:
        monkeypatch.setattr(letor, "convert_letor", real)
        read_table(path, cache_dir=root)
        assert len(temporaries(root)) == 1, "the other reading deleted a directory in use"
        return real(path, directory, **options)

    monkeypatch.setattr(letor, "convert_letor", overtaken)
    assert read_table(source, cache_dir=root).num_rows == 100
    assert len(entries(root)) == 1
    assert temporaries(root) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), RuntimeError("boom"), SystemExit(1)])
def test_an_interrupted_reading_leaves_nothing(error: BaseException, source: Path, root: Path) -> None:
    def progress(done: int, total: int) -> None:
        assert temporaries(root)
        raise error

    with pytest.raises(type(error)):
        read_table(source, cache_dir=root, progress=progress)
    assert [p for p in root.rglob("*") if p != root / "tables"] == []
    assert read_table(source, cache_dir=root).num_rows == 100


def test_a_full_disk_is_said_with_its_place(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: storage.TableWriter, rows: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.TableWriter, "append", full)
    with pytest.raises(InputError, match="No space left on device") as caught:
        read_table(source, cache_dir=root)
    assert str(root) in str(caught.value)
    assert CACHE_VARIABLE in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [p for p in root.rglob("*") if p != root / "tables"] == []


def test_a_cache_that_cannot_be_a_directory_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match=CACHE_VARIABLE):
        read_table(source, cache_dir=source / "below-a-file")


def test_a_file_that_changes_while_it_is_read_is_refused(source: Path, root: Path) -> None:
    def progress(done: int, total: int) -> None:
        source.write_text(TEXT + "# more\n")

    with pytest.raises(InputError, match="changed while it was read"):
        read_table(source, cache_dir=root, progress=progress)
    assert entries(root) == []


def test_directories_of_killed_processes_are_removed(source: Path, root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    tables = root / "tables"
    dead = tables / f"{temporary_prefix(process.pid)}abc"
    own_number = tables / f"{temporary_prefix(os.getpid())}abc"  # an earlier process of a container, often number 1
    alive = tables / f"{temporary_prefix(os.getppid())}abc"
    elsewhere = tables / f"tmp-{process.pid}-0123abcd-abc"
    elsewhere_old = tables / f"tmp-{process.pid}-0123abcd-old"
    for directory in (dead, own_number, alive, elsewhere, elsewhere_old):
        directory.mkdir(parents=True)
        (directory / "values.npy").write_bytes(b"half")
    os.utime(elsewhere_old, (time.time() - 10 * 86_400,) * 2)
    read_table(source, cache_dir=root)
    assert sorted(temporaries(root)) == sorted([alive, elsewhere])


def test_where_the_cache_is(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    assert cache_root(tmp_path / "given") == tmp_path / "given"
    read_table(source)
    assert len(entries(tmp_path / "named")) == 1
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert "hyperdpo" in str(cache_root())


def test_clearing_deletes_tables_and_nothing_else(source: Path, root: Path, parses: list[Path]) -> None:
    table = read_table(source, cache_dir=root)
    other = root / "something else.txt"
    other.write_text("kept")
    clear_cache(root)
    assert list(root.rglob("*")) == [other]
    assert table.values[99, 3] == 99.25
    read_table(source, cache_dir=root)
    assert len(parses) == 2
    clear_cache(root / "absent")


def test_two_files_of_one_name_are_kept_apart(tmp_path: Path, root: Path) -> None:
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.txt").write_text(f"{i} qid:1 1:{i}\n")
    first, second = (read_table(tmp_path / f / "data.txt", cache_dir=root) for f in ("a", "b"))
    assert (first.values[0, 0], second.values[0, 0]) == (0, 1)
    assert len(entries(root)) == 2


def test_reading_imports_numba_only_when_there_is_something_to_parse(source: Path, root: Path) -> None:
    read_table(source, cache_dir=root)
    code = (
        "import sys; from pathlib import Path; from hyperdpo.data.cache import read_table; import hyperdpo.data.letor;"
        "t = read_table(sys.argv[1], cache_dir=Path(sys.argv[2]));"
        "assert t.num_rows == 100;"
        "assert not {'numba', 'pyarrow', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code, str(source), str(root)], check=True)
