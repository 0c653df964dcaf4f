"""Reading LETOR text: this reader against sklearn and the polars trick, the reopening of its cache, and its memory.

    python benchmarks/bench_reading.py [--rows 50000] [--repeat 3] [--only-ours] [--forms]

Writes a file in MSLR's style (136 features, whole numbers and decimals of mixed lengths), reads it in every way, checks
that all give the same values, and prints MB/s of text. The reader's figure includes writing its cache; each time its
cache is empty and its machine code compiled. A reader's figure is the best of `--repeat` runs, taken in turn.
Peak memory is that of a fresh process, above what it had after its imports. `--forms` also reads the same rows in other
forms: query ids of text, Windows line endings, features in reverse, large numbers, rows in random order.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 136
# VmHWM is ru_maxrss, except that ru_maxrss begins at the size of the process that started this one.
PEAK_OF_READING = """
import re, sys
from pathlib import Path
from hyperdpo.data.cache import read_table

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

read_table(sys.argv[1], cache_dir=Path(sys.argv[3]))  # loads the machine code
before = peak()
table = read_table(sys.argv[2], cache_dir=Path(sys.argv[3]), sort=len(sys.argv) > 4)
print(before, peak(), table.values.nbytes)
"""


def write_file(path: Path, rows: int, seed: int = 0) -> None:
    """MSLR's mixture, by column: a third small whole numbers, a tenth large ones, else up to 6 decimals; many zeros."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, FEATURES, p=[0.38, 0.08, 0.44, 0.10])
    chunk = 5000
    with open(path, "w") as file:
        for start in range(0, rows, chunk):
            n = min(chunk, rows - start)
            small = rng.poisson(3.0, (n, FEATURES)) * (rng.random((n, FEATURES)) < 0.6)
            large = rng.integers(0, 10 ** rng.integers(1, 6, (n, FEATURES)))
            decimal = np.round(rng.gamma(1.5, 6.0, (n, FEATURES)) * (rng.random((n, FEATURES)) < 0.7), 6)
            negative = -np.round(rng.gamma(20.0, 0.5, (n, FEATURES)), 6)
            values = np.choose(kind, [small, large, decimal, negative])
            labels = rng.integers(0, 5, n)
            for i in range(n):
                row = " ".join(f"{k}:{v:.10g}" for k, v in enumerate(values[i].tolist(), start=1))
                file.write(f"{labels[i]} qid:{1 + (start + i) // 120} {row}\n")


def read_sklearn(path: Path) -> np.ndarray:
    from sklearn.datasets import load_svmlight_file

    features, labels, _ = load_svmlight_file(str(path), dtype=np.float32, query_id=True, zero_based=False)
    return np.column_stack([labels, features.toarray()])


def read_polars(path: Path) -> np.ndarray:
    import polars as pl

    text = path.read_bytes().replace(b":", b" ")
    schema: dict[str, Any] = {
        f"{i}": pl.Int64 if i in (2, *range(3, 3 + 2 * FEATURES, 2)) else pl.Float32 for i in range(3 + 2 * FEATURES)
    }
    schema["1"] = pl.String  # "qid"
    frame = pl.read_csv(io.BytesIO(text), separator=" ", has_header=False, schema=schema)
    wanted = [0, *range(4, 4 + 2 * FEATURES, 2)]  # LABEL qid ID 1 VALUE 2 VALUE ...
    return frame[:, wanted].to_numpy()


def write_forms(path: Path) -> dict[str, Path]:
    """The rows of a file in other forms."""
    lines = path.read_text().splitlines()
    fields = [line.split() for line in lines]
    forms = {
        "query ids of text": [line.replace("qid:", "qid:q", 1) for line in lines],
        "Windows line endings": [f"{line}\r" for line in lines],
        "features in reverse": [" ".join([*parts[:2], *reversed(parts[2:])]) for parts in fields],
        "a time stamp": [f"{line} {FEATURES + 1}:{1704078000 + i}" for i, line in enumerate(lines)],
        "rows in random order, sorted": [lines[i] for i in np.random.default_rng(0).permutation(len(lines))],
    }
    paths = {}
    for number, (name, rows) in enumerate(forms.items()):
        paths[name] = path.with_name(f"form-{number}.txt")
        paths[name].write_text("\n".join(rows), newline="\n")
    return paths


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true", help="leave out sklearn and polars, and the comparison")
    parser.add_argument("--forms", action="store_true", help="also read the rows in other forms")
    options = parser.parse_args()

    from hyperdpo.data.cache import clear_cache, read_table
    from hyperdpo.data.letor import convert_letor

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path, cache = directory / "data.txt", directory / "cache"
        write_file(path, options.rows)
        megabytes = path.stat().st_size / 1e6
        print(f"{options.rows:,} rows x {FEATURES} features, {megabytes:.1f} MB of text")

        small = directory / "small.txt"
        write_file(small, 10)
        (directory / "small").mkdir()
        convert_letor(small, directory / "small")  # loads the machine code

        if not options.only_ours:
            expected = read_sklearn(path).astype(np.float32)
            np.testing.assert_array_equal(read_polars(path), expected)
            np.testing.assert_array_equal(read_table(path, cache_dir=cache).values, expected)
            del expected

        def read_cold(threads: int | None = None) -> None:
            clear_cache(cache)
            target = directory / "one"
            if threads is None:
                read_table(path, cache_dir=cache)
            else:
                target.mkdir(exist_ok=True)
                convert_letor(path, target, threads=threads)

        ways: dict[str, Callable[[], object]] = {
            "hyperdpo (cold cache, written)": read_cold,
            "hyperdpo, 1 parsing thread": lambda: read_cold(1),
        }
        if not options.only_ours:
            ways["polars after ':' -> ' '"] = lambda: read_polars(path)
            ways["sklearn load_svmlight_file"] = lambda: read_sklearn(path)
        forms = write_forms(path) if options.forms else {}

        def read_form(form: Path) -> None:
            clear_cache(cache)
            read_table(form, cache_dir=cache, sort=True)

        ways |= {name: partial(read_form, form) for name, form in forms.items()}
        best = dict.fromkeys(ways, np.inf)
        for _ in range(options.repeat):
            for way, call in ways.items():
                best[way] = min(best[way], seconds(call))
        ours = best["hyperdpo (cold cache, written)"]
        for way, took in best.items():
            print(f"{way:32s} {1000 * took:9.1f} ms {megabytes / took:8.1f} MB/s   hyperdpo is {took / ours:5.1f} x")

        read_table(path, cache_dir=cache)
        reopened = min(seconds(lambda: read_table(path, cache_dir=cache)) for _ in range(5))
        print(f"{'reopening from the cache':32s} {1000 * reopened:9.2f} ms")

        command = [sys.executable, "-c", PEAK_OF_READING, str(small), str(path), str(directory / "fresh")]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak, arrays = (int(n) / 1e6 for n in output.split())
        limit = 1.3 * arrays + 200
        if forms:
            form = forms["rows in random order, sorted"]
            target = directory / "scattered"
            command = [sys.executable, "-c", PEAK_OF_READING, str(small), str(form), str(target), "sort"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"sorting rows in random order: peak memory {int(output.split()[1]) / 1e6:.0f} MB")
        print(f"float32 values {arrays:.0f} MB; peak memory {peak:.0f} MB, {peak - before:.0f} MB above the imports:")
        print(f"{peak / arrays:.2f} x the values, {(peak - before) / arrays:.2f} x above the imports", end="; ")
        print(f"{'within' if peak <= limit else 'ABOVE'} 1.3 x values + 200 MB = {limit:.0f} MB")


if __name__ == "__main__":
    main()
