"""``rank score --engine dask``: Parquet files of any size, one partition at a time on each worker of Dask.

Workers get paths and settings, and compute with the functions of ``rank score`` on one machine. A partition is a run of
whole groups of one file. Each becomes one Parquet file, which says in its header what it was made from.
"""

from __future__ import annotations

import json
import logging
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from hyperdpo._version import __version__
from hyperdpo.data.cache import source_key, table_kind
from hyperdpo.data.storage import open_stored
from hyperdpo.data.tabular import convert_table, parquet_groups
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, one_line
from hyperdpo.files import check_writable, write_json, written
from hyperdpo.hashing import fingerprint
from hyperdpo.locks import writes_to
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.components import with_rows
from hyperdpo.ranking.config import parse_config
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.run_files import CONFIG, MODEL, TREES
from hyperdpo.ranking.scoring import ScoreRequest
from hyperdpo.ranking.sources import note_reading
from hyperdpo.runs import RUN
from hyperdpo.threads import VARIABLE, free_cores

#: Rows of a partition, unless the user says otherwise: at 136 features half a gigabyte of temporary files.
PARTITION_ROWS = 1_000_000
#: Written last: an output directory with it is complete.
DONE = "_done.json"
#: Key in a part's header: what it was made from.
MADE_FROM = b"hyperdpo"
#: Seconds to wait for a scheduler, and for its first worker.
PATIENCE = 20
#: Tasks that the scheduler holds at a time.
AHEAD = 1000
#: A worker with several threads holds one partition at a time, too.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Job:
    """What every worker is told: where the run is, how files are read, what is asked and where it goes."""

    run: str
    run_print: str
    """:func:`run_fingerprint`."""
    settings: str
    """The run's configuration as JSON, with what this command says of files."""
    request: ScoreRequest
    out: str
    cpu: bool
    version: str = __version__


@dataclass(frozen=True)
class Partition:
    """Whole groups of one file: rows ``start`` to before ``stop``."""

    path: str
    key: str
    """Tells one content of the file from another."""
    start: int
    stop: int
    name: str
    """The name of the file that it becomes."""

    def made_from(self, job: Job) -> bytes:
        """A hash of all that its file depends on."""
        settings = json.loads(job.settings)
        read = [settings["qid_column"], settings["sort"]]
        known = [job.run_print, asdict(job.request), read, self.key, self.start, self.stop]
        return fingerprint(known).encode()


@dataclass(frozen=True)
class FilePlan:
    """How a file is cut, and which groups it has."""

    path: str
    key: str
    cuts: tuple[int, ...]
    """Rows between which the partitions lie; fewer than two for a file without rows."""
    digests: np.ndarray
    """(G,) uint64 hashes of the query ids."""

    def partitions(self) -> list[Partition]:
        stem = Path(self.path).stem
        return [
            Partition(self.path, self.key, start, stop, f"{stem}-{i:05d}.parquet")
            for i, (start, stop) in enumerate(zip(self.cuts, self.cuts[1:], strict=False))
        ]


@writes_to("out")
def score_files(
    run: RankRun,
    source: Path,
    request: ScoreRequest,
    out: Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    partition_rows: int = PARTITION_ROWS,
    cpu: bool = False,
) -> dict[str, Any]:
    """Score a Parquet file, or all in a directory, into a directory of Parquet files: ``qid``, ``row``, the values.

    An interrupted call is carried on by the same call: parts that are there are kept.

    Args:
        run: from a directory that every worker can read.
        scheduler: the address of a Dask scheduler; None: worker processes on this machine, of one thread each.
        workers: how many of these; None: one for each free core.
        partition_rows: the most rows of a partition, rounded up to whole groups. With ``sort`` a file is one partition.

    Returns:
        What is written to ``_done.json``: ``rows``, ``parts``, ``kept`` (parts of an earlier call), ``columns``,
        ``request``.

    Raises:
        InputError: no Parquet files, a group in two files, an output directory with other files, a scheduler that does
            not answer, or what scoring a file raises.
    """
    assert run.path is not None
    names, paths = request.names(run), _parquet_files(source)
    if out.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise InputError(f"{out}: holds the data; expected another directory for the scores")
    check_writable(out)
    place = run.path.absolute()
    job = Job(str(place), run_fingerprint(place), json.dumps(run.config.to_dict()), request, str(out.absolute()), cpu)
    with _client(scheduler, workers) as client:
        reading = (run.config.qid_column, run.config.sort, partition_rows)
        plans: list[FilePlan] = []
        with progress_bar("query ids", len(paths), "files") as update:
            for plan in _results(client, plan_file, [(str(path), *reading) for path in paths]):
                plans.append(plan)
                update(len(plans))
        plans.sort(key=lambda plan: plan.path)
        _check_groups(plans, run.config.qid_column)
        partitions = [partition for plan in plans for partition in plan.partitions()]
        if not partitions:
            raise InputError(f"{source}: no rows; expected at least one")
        left = _left_to_do(out, partitions, job)
        rows = sum(partition.stop - partition.start for partition in partitions)
        if left:
            (out / DONE).unlink(missing_ok=True)
        done, notes = rows - sum(partition.stop - partition.start for partition in left), dict[str, str]()
        with progress_bar("score", rows, "rows") as update:
            update(done)
            for scored, said in _results(client, score_partition, [(job, partition) for partition in left]):
                done += scored
                update(done)
                notes |= {note.partition(": ")[2]: note for note in said if note.partition(": ")[2] not in notes}
    for note in notes.values():
        warnings.warn(note, stacklevel=2)
    if missing := _left_to_do(out, partitions, job):
        raise InputError(
            f"{out / missing[0].name}: a worker wrote it, but it is not here; expected --out on storage that all share"
        )
    result = {"rows": rows, "parts": len(partitions), "columns": list(names), "request": asdict(request)}
    write_json(out / DONE, result)
    return result | {"kept": len(partitions) - len(left)}


def run_fingerprint(run: Path) -> str:
    """A hash of the files of a run directory that its scores depend on."""
    import xxhash

    files = [run / name for name in (RUN, CONFIG, MODEL)] + sorted((run / TREES).glob("*"))
    return fingerprint([(file.name, xxhash.xxh3_128_hexdigest(file.read_bytes())) for file in files])


# --- on workers


def plan_file(path: str, qid_column: str, sort: bool, most: int) -> FilePlan:
    """Read the query ids of a file, and cut it between groups."""
    import xxhash

    key = source_key(Path(path))
    names, offsets = parquet_groups(Path(path), qid_column=qid_column, sort=sort)
    digests = np.array([xxhash.xxh3_64_intdigest(str(name).encode()) for name in names], dtype=np.uint64)
    cuts = [0, int(offsets[-1])] if sort and len(names) else partition_cuts(offsets, most)
    return FilePlan(path, key, tuple(cuts), np.unique(digests))


def partition_cuts(offsets: np.ndarray, most: int) -> list[int]:
    """Rows to cut at: 0, the last one's end, and between groups as soon as ``most`` rows are full.

    >>> partition_cuts(np.array([0, 3, 5, 9, 10]), 4)
    [0, 5, 9, 10]

    Args:
        offsets: (G + 1,) first row of each group, and the number of rows.
    """
    cuts = [0]
    while cuts[-1] < offsets[-1]:
        full = int(np.searchsorted(offsets, cuts[-1] + most))
        cuts.append(int(offsets[min(full, len(offsets) - 1)]))
    return cuts


@lru_cache(maxsize=1)
def _loaded(run: str, run_print: str, settings: str, cpu: bool) -> RankRun:
    """The run, read once per worker."""
    place = Path(run)
    if not (place / RUN).is_file() or run_fingerprint(place) != run_print:
        raise InputError(f"{place}: on a worker, not the run of this command; expected the same files there")
    loaded = RankRun.load(place)
    loaded.config = parse_config(json.loads(settings), str(place / CONFIG))
    return loaded.to(best_device(cpu))


def score_partition(job: Job, partition: Partition) -> tuple[int, list[str]]:
    """Read the rows of a partition, score them and write its file.

    Returns:
        The number of rows, and the warnings.

    Raises:
        InputError: another version of this package or another run than the command's, or what reading and scoring
            raise.
    """
    import pyarrow.parquet
    from distributed import get_worker

    if job.version != __version__:
        raise InputError(f"a worker has hyperdpo {__version__}, this command {job.version}; install the same there")
    path, whole = Path(partition.path), partition.start == 0
    with (
        _ONE_AT_A_TIME,
        warnings.catch_warnings(record=True) as noted,
        # Dask removes what a killed worker leaves there.
        tempfile.TemporaryDirectory(dir=get_worker().local_directory, ignore_cleanup_errors=True) as directory,
    ):
        warnings.simplefilter("always", UserWarning)
        run = _loaded(job.run, job.run_print, job.settings, job.cpu)
        convert_table(
            path,
            Path(directory),
            qid_column=run.config.qid_column,
            sort=run.config.sort,
            origins=run.origins,
            rows=range(partition.start, partition.stop),
        )
        table = open_stored(Path(directory), str(path) if whole else f"{path} from row {partition.start + 1}")
        note_reading(table)
        # Without a fingerprint, its base scores are kept neither in memory nor in the run directory.
        table = replace(table, fingerprint="")
        values = job.request.values(run, table, best_device(job.cpu))
        made = with_rows(table, job.request.names(run), values, partition.start)
        if source_key(path) != partition.key:
            raise InputError(f"{path}: changed while it was read; expected a file that nothing writes to")
        with written(Path(job.out) / partition.name) as temporary:
            header = {MADE_FROM: partition.made_from(job)}
            pyarrow.parquet.write_table(made.replace_schema_metadata(header), temporary)
    return len(values), [str(note.message) for note in noted]


# --- on the machine of the command


def _parquet_files(source: Path) -> list[Path]:
    if source.is_file() and table_kind(source) == "parquet":
        return [source.absolute()]
    if source.is_file():
        raise InputError(f"{source}: --engine dask reads Parquet only; convert it, or leave --engine out")
    if not source.is_dir():
        raise InputError(f"{source}: no such file or directory; expected Parquet")
    found = sorted(path.absolute() for path in source.glob("*.parquet") if path.name[0] not in "._")
    if not found:
        raise InputError(f"{source}: no Parquet files there; expected names ending in .parquet (not in subdirectories)")
    return found


def _check_groups(plans: Sequence[FilePlan], qid_column: str) -> None:
    """Refuse a group that stands in two files: its rows would not be scored as one list."""
    digests = np.concatenate([plan.digests for plan in plans])
    files = np.repeat(np.arange(len(plans)), [len(plan.digests) for plan in plans])
    order = np.argsort(digests, kind="stable")
    for at in np.flatnonzero(digests[order][1:] == digests[order][:-1]):
        one, other = (plans[files[order[i]]].path for i in (at, at + 1))
        first, second = (parquet_groups(Path(p), qid_column=qid_column, sort=True)[0] for p in (one, other))
        shared = set(first.astype(str)) & set(second.astype(str))
        for name in second.astype(str):  # none, if two names have one hash
            if name in shared:
                raise InputError(
                    f"{other}: query id {name} is in {one}, too; expected all rows of a query in one file (write them "
                    f"partitioned by {qid_column})"
                )


def _left_to_do(out: Path, partitions: Sequence[Partition], job: Job) -> list[Partition]:
    """The partitions without a file yet. What a killed worker left is removed.

    Raises:
        InputError: the directory holds Parquet files that were made from something else.
    """
    expected, there = {partition.name: partition for partition in partitions}, set()
    for file in sorted(out.glob("*.parquet*")) + sorted(out.glob(".*.parquet.*.tmp")):
        if file.suffix == ".tmp":
            file.unlink(missing_ok=True)
        elif file.name in expected and _made_from(file) == expected[file.name].made_from(job):
            there.add(file.name)
        else:
            raise InputError(
                f"{file}: was made from another run, point, data or partition size; expected an empty directory, or "
                "what an interrupted call of the same command left"
            )
    return [partition for name, partition in expected.items() if name not in there]


def _made_from(file: Path) -> bytes | None:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        found: bytes | None = (pyarrow.parquet.read_schema(file).metadata or {}).get(MADE_FROM)
    except (pa.ArrowException, OSError):
        return None
    return found


@contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """Worker processes of one thread each, on this machine, until the end of the block."""
    import dask
    from distributed import LocalCluster

    # Dask lets workers give memory back after every tensor, which makes scoring about 1.8 times as slow.
    kept = dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
    of_one_thread = {"threads_per_worker": 1, "env": {VARIABLE: "1"}}
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with kept, LocalCluster(n_workers=workers, **of_one_thread, **quiet) as cluster:
        yield cluster


@contextmanager
def _client(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the scheduler, or of worker processes that end with the block."""
    from distributed import Client

    if scheduler is None:
        with local_cluster(workers or free_cores()) as cluster, Client(cluster, set_as_default=False) as client:
            yield client
        return
    nothing = f"--scheduler: nothing answers at {scheduler}; expected the address of a Dask scheduler: tcp://host:8786"
    try:
        if (place := urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")).scheme in ("tcp", "tls"):
            # A client that finds nobody there takes long to say so.
            socket.create_connection((place.hostname or "", place.port or 0), PATIENCE).close()
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{nothing} ({one_line(error)})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise InputError(f"--scheduler: {scheduler} has no workers; start some (dask worker ADDRESS)") from None
        yield client


def _results(client: Any, task: Any, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """What a task returns for each of the arguments, as soon as it is there. The first error ends all.

    So many are handed out at a time that workers do not wait, and the scheduler holds few.

    Raises:
        InputError: a task's own, workers that die, or workers without this package.
    """
    from distributed import KilledWorker, as_completed

    queue = iter(arguments)

    def hand_out(number: int) -> list[Any]:
        return [client.submit(task, *values, pure=False) for values in islice(queue, number)]

    pending = as_completed(hand_out(AHEAD), loop=client.loop)
    try:
        for future in pending:
            yield future.result()
            pending.update(hand_out(1))
    except KilledWorker as error:
        raise InputError(
            f"workers died over one task ({one_line(error, 80)}); most likely memory ran out: fewer --workers or "
            "--partition-rows"
        ) from None
    except ImportError as error:
        raise InputError(f"a worker cannot import what it needs ({one_line(error)}); install hyperdpo there") from None
