"""Servers under load, alone and beside floods: what 16 honest clients see, and the server's memory.

python benchmarks/bench_load.py [--seconds 60] [--model stories260k] [--only KIND] [--floods a,b]

Clients ask again as soon as they are answered, each request at other weights. Ranker and components: lists of 120
documents x 136 features, a ranker of the default size (hardly trained: the arithmetic is the same). Language model:
16 tokens of MODEL. A flood is a process of its own, on the same cores. Memory is the resident one, sampled; the ratio
is its largest value over the largest beside no flood. TERM is sent while half-sent requests are all that is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from bench_serving import CLIENTS, Connection, bodies, saved_ranker, server_process

from hyperdpo.serving.server.commands import MAX_BODY

MEBI = 2**20
P99_SECONDS, MEMORY_RATIO, TERM_SECONDS = 0.5, 1.3, 5.0

#: Connections of floods that only wait, and of those that send as fast as they can.
SLOW, FAST = 1500, 16

POST = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
FLOODS = ("slow loris", "endless headers", "endless bodies", "half bodies", "whole bodies", "nested bodies")


async def flood(kind: str, port: int, path: bytes, largest: int) -> None:
    """Send what a server has to defend itself against, until this process is ended."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    async def drip() -> None:
        _, writer = await connect()
        writer.write((POST % path) + b"x: ")
        while True:
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(1)

    async def pour(start: bytes, block: bytes, most: int, hold: float) -> None:
        reader, writer = await connect()
        try:
            writer.write((POST % path) + start)
            for _ in range(most):
                writer.write(block)
                await writer.drain()
            await asyncio.wait_for(reader.read(), hold)
        finally:
            writer.transport.abort()

    async def again(one: object) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                await one()  # type: ignore[operator]
            await asyncio.sleep(0.01)

    block, sized = b" " * 65536, b"content-length: %d\r\n\r\n" % largest
    nested = (b"[[]," + b"[]," * 21845)[:65536]
    one = {
        "slow loris": drip,
        "endless headers": lambda: pour(b"x: ", b"y" * 65536, 10**6, 1),
        "endless bodies": lambda: pour(b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + block + b"\r\n", 10**6, 1),
        "half bodies": lambda: pour(sized, block, largest // 65536 - 1, 60),
        "whole bodies": lambda: pour(sized, block, largest // 65536, 1),
        "nested bodies": lambda: pour(sized, nested, largest // 65536, 1),
    }[kind]
    await asyncio.gather(*(again(one) for _ in range(SLOW if kind == "slow loris" else FAST)))


@contextlib.contextmanager
def flooded(kind: str | None, port: int, path: str, largest: int) -> Iterator[None]:
    """A flood in a process of its own."""
    if kind is None:
        yield
        return
    started = subprocess.Popen([sys.executable, __file__, "--flood", kind, str(port), path, str(largest)])
    try:
        time.sleep(2)
        yield
        if started.poll() is not None:
            raise RuntimeError(f"the flood ended: {kind}")
    finally:
        started.kill()
        started.wait()


def resident(process: int) -> float:
    """MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Load:
    """What honest clients saw: seconds of each answer, errors; and the server's largest memory meanwhile."""

    def __init__(self, port: int, process: int, path: str, requests: Sequence[bytes], clients: int, seconds: float):
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.memory = 0.0
        self._port, self._path, self._requests = port, path, requests
        self._stop = time.perf_counter() + seconds
        threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.memory = max(self.memory, resident(process))
            time.sleep(0.05)

    def _client(self, number: int) -> None:
        connection, turn = None, number
        while time.perf_counter() < self._stop:
            started = time.perf_counter()
            try:
                connection = connection or Connection(self._port)
                connection.ask(b"POST", self._path, self._requests[turn % len(self._requests)])
                self.seconds.append(time.perf_counter() - started)
            except (OSError, RuntimeError) as error:
                self.errors.append(repr(error))
                connection = None
                time.sleep(0.1)
            turn += 1


def measured(
    name: str, run: Path, path: str, requests: Sequence[bytes], options: argparse.Namespace, *more: str
) -> None:
    """Print a table of one server."""
    largest = MAX_BODY["align" if path.startswith("/v1") else "rank"]
    print(
        f"\n{name}: POST {path}, {options.clients} clients, {options.seconds:g} s each; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| beside | answers | errors | p50 ms | p95 ms | p99 ms | memory MiB | ratio | target |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|", flush=True)
    with server_process(run, *more) as (port, process):
        Load(port, process.pid, path, requests, options.clients, min(3.0, options.seconds))  # caches and parsers
        alone = 0.0
        for kind in (None, *options.floods):
            with flooded(kind, port, path, largest):
                found = Load(port, process.pid, path, requests, options.clients, options.seconds)
            alone = alone or found.memory
            p50, p95, p99 = np.percentile(found.seconds or [np.inf], [50, 95, 99])
            ratio = found.memory / alone
            met = "" if kind is None else "met" if p99 < P99_SECONDS and ratio <= MEMORY_RATIO else "missed"
            print(
                f"| {kind or 'nothing'} | {len(found.seconds):,} | {len(found.errors)} | {1e3 * p50:.1f} "
                f"| {1e3 * p95:.1f} | {1e3 * p99:.1f} | {found.memory:.0f} | {ratio:.2f} | {met} |",
                flush=True,
            )
            for text in sorted(set(found.errors))[:3]:
                print(f"    {text}", flush=True)
        half = [Connection(port) for _ in range(50)]
        for connection in half:
            connection._socket.sendall(POST % path.encode() + b"content-length: 9\r\n\r\n{")
        time.sleep(0.5)
        started = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        seconds = time.perf_counter() - started
        print(
            f"\nTERM with 50 half-sent requests: {seconds:.1f} s (target {TERM_SECONDS:g}), exit {process.returncode}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--model")
    parser.add_argument("--only", choices=["ranker", "components", "texts"])
    parser.add_argument("--floods", type=lambda text: text.split(",") if text else [], default=list(FLOODS))
    parser.add_argument("--flood", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        kind, port, path, largest = options.flood
        asyncio.run(flood(kind, int(port), path.encode(), int(largest)))
    with tempfile.TemporaryDirectory() as place:
        if options.only != "texts":
            file = saved_ranker(Path(place) / "ranker.onnx", form="gain")
            lists = bodies(packed=False)
            if options.only != "components":
                measured("Ranker", file, "/rank", lists, options)
            if options.only != "ranker":
                columns = [json.loads(body) for body in lists]
                for body in columns:
                    del body["groups"][0]["weights"]
                measured("Components", file, "/components", [json.dumps(body).encode() for body in columns], options)
        if options.model and options.only in (None, "texts"):
            from hyperdpo.alignment.conditioning import ConditioningConfig
            from hyperdpo.alignment.model import ConditionedLM

            adapter = Path(place) / "adapter"
            ConditionedLM.create(options.model, ConditioningConfig(("a", "b"))).save_pretrained(adapter)
            asked = [
                {"prompt": "Once upon a time", "max_tokens": 16, "seed": i, "weights": [i / 7, 1 - i / 7]}
                for i in range(8)
            ]
            texts = [json.dumps(body).encode() for body in asked]
            measured("Language model", adapter, "/v1/completions", texts, options, "--model", options.model)


if __name__ == "__main__":
    main()
