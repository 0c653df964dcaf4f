"""What a server costs over the bare model, and what batching brings.

python benchmarks/bench_serving.py [--model PATH] [--rounds 5] [--seconds 2]

Ranking: lists of 120 (for throughput also of 10) documents x 136 features, a ranker of the default size (hardly
trained: the arithmetic is the same), ONNX Runtime with one thread. MODEL is a small causal LM such as stories260k;
without it the language model is left out. Every figure is a ratio or difference within one run: contestants take turns,
and the median of the rounds counts. Servers are processes of their own; clients are threads of this one, and share the
cores with them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ITEMS, SHORT_ITEMS, FEATURES, CLIENTS, TEXT_CLIENTS, TOKENS = 120, 10, 136, 16, 8, 96


def saved_ranker(out: Path, form: str = "product") -> Path:
    """A mixture of the default size as an ONNX file.

    Args:
        form: of the mixture.
    """
    from hyperdpo.data.groups import GroupedTable
    from hyperdpo.ranking.config import parse_config
    from hyperdpo.ranking.fitting import fit_run, split_table
    from hyperdpo.ranking.training import make_accelerator
    from hyperdpo.serving.export.ranker import export_ranker

    rng = np.random.default_rng(0)
    sizes = rng.integers(80, 140, 20)
    x = rng.normal(size=(sizes.sum(), FEATURES))
    labels = [np.maximum(np.round(sign * 2 * x[:, 0]), 0) for sign in (1, -1)]
    table = GroupedTable(
        values=np.column_stack([np.clip(np.round(1 + x[:, 1]), 0, 4), x, *labels]).astype(np.float32),
        columns=("relevance", *(f"f{i}" for i in range(FEATURES)), "a", "b"),
        qids=np.arange(len(sizes)),
        offsets=np.append(0, np.cumsum(sizes)),
        fingerprint="bench",
    )
    short = {"epochs": 1, "min_batches": 1}
    targets = {"target": "l1"} if form == "product" else {}
    objectives = [{"name": name, **targets} for name in ("a", "b")]
    settings = {"objectives": objectives, "mixture": {"form": form}, "training": short, "base_training": short}
    config = parse_config(settings, "bench")
    run = fit_run(config, split_table(table, config), make_accelerator("no", cpu=True))
    export_ranker(run, out)
    return out


def bodies(packed: bool, items: int = ITEMS, count: int = 8) -> list[bytes]:
    """Requests of one list each, at different weights."""
    import base64

    rng = np.random.default_rng(1)
    found = []
    for i in range(count):
        x = rng.normal(size=(items, FEATURES)).astype(np.float32)
        features: Any = {"features_base64": base64.b64encode(x.tobytes()).decode()} if packed else {"features": x}
        found.append(
            orjson.dumps(
                {"groups": [{**features, "weights": [i / count, 1 - i / count]}]}, option=orjson.OPT_SERIALIZE_NUMPY
            )
        )
    return found


@contextlib.contextmanager
def serving(run: Path, *options: str) -> Iterator[int]:
    """A server in a process of its own; its port."""
    with server_process(run, *options) as (port, _):
        yield port


@contextlib.contextmanager
def server_process(run: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server in a process of its own that answers; its port, and the process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = [sys.executable, "-m", "hyperdpo", "serve", str(run), "--port", str(port), "--cpu", *options]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), Connection(port) as connection:
                connection.ask(b"GET", "/healthz", b"")
                break
            time.sleep(0.1)
        yield port, started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


class Connection:
    """The least that a client can be: one kept connection, answers read by their length."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: bytes, path: str, body: bytes) -> bytes:
        """The body of the answer, which has to be a 200."""
        head = b"%s %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._socket.sendall(head % (method, path.encode(), len(body)) + body)
        read = b""
        while b"\r\n\r\n" not in read:
            read += self._received()
        start, _, rest = read.partition(b"\r\n\r\n")
        if b" 200 " not in start.split(b"\r\n")[0]:
            raise RuntimeError(rest.decode())
        length = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += self._received()
        return rest

    def _received(self) -> bytes:
        more = self._socket.recv(1 << 18)
        if not more:
            raise ConnectionError("closed")
        return more


def rate_of(port: int, clients: int, requests: list[bytes], seconds: float) -> float:
    """Answered lists a second."""
    done = [0] * clients
    stop = time.perf_counter() + seconds

    def client(number: int) -> None:
        with Connection(port) as connection:
            while time.perf_counter() < stop:
                connection.ask(b"POST", "/rank", requests[done[number] % len(requests)])
                done[number] += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def overheads(file: Path, rounds: int) -> None:
    """Bare session.run, the app without a network, and a client over loopback, in turns."""
    from hyperdpo.core.point import Point, PointReader
    from hyperdpo.serving.server.app import Server
    from hyperdpo.serving.server.rank_api import rank_app
    from hyperdpo.serving.server.rank_model import RankModel, padded
    from hyperdpo.serving.server.rank_schema import RankLimits, read_groups

    model = RankModel.load(file)
    points = PointReader(model.objectives, Point())
    kinds = {"JSON": bodies(False), "base64": bodies(True)}
    inputs = [
        padded([group.work for group in read_groups(body, model, points, RankLimits())]) for body in kinds["JSON"]
    ]
    app = rank_app(model, Server(), RankLimits())
    measured: dict[str, list[float]] = {}

    async def in_process(port: int) -> None:
        async with app.router.lifespan_context(app):
            with Connection(port) as connection:
                for _ in range(rounds):
                    times: dict[str, list[float]] = {}

                    def took(name: str, started: float, times: dict[str, list[float]] = times) -> None:
                        times.setdefault(name, []).append(1e3 * (time.perf_counter() - started))

                    for i in range(100):  # in turns, call by call: the machine's speed drifts
                        started = time.perf_counter()
                        model.graph.run(["scores"], inputs[i % len(inputs)])
                        took("bare", started)
                        for kind, requests in kinds.items():
                            started = time.perf_counter()
                            await _ask(app, requests[i % len(requests)])
                            took(f"{kind}, in the app", started)
                            started = time.perf_counter()
                            connection.ask(b"POST", "/rank", requests[i % len(requests)])
                            took(f"{kind}, seen by a client", started)
                    bare = statistics.median(times["bare"])
                    for name, values in times.items():
                        p50 = statistics.median(values)
                        measured.setdefault(name, []).append(p50 if name == "bare" else p50 - bare)

    with serving(file) as port:
        asyncio.run(in_process(port))
    bare = statistics.median(measured.pop("bare"))
    print(f"POST /rank, one list of {ITEMS} x {FEATURES}: bare session.run {bare:.2f} ms (p50); over it")
    for name, values in measured.items():
        print(f"  {name:<22} +{statistics.median(values):.2f} ms  (rounds {min(values):.2f} to {max(values):.2f})")


async def _ask(app: Any, body: bytes) -> None:
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return sent.pop()

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    scope = {"type": "http", "method": "POST", "path": "/rank", "query_string": b"", "http_version": "1.1"}
    headers = [(b"content-type", b"application/json")]
    await app({**scope, "headers": headers, "scheme": "http", "root_path": "", "asgi": {}}, receive, send)


def throughput(file: Path, rounds: int, seconds: float) -> None:
    """The same load on a server that scores one list at a time, and on one that batches."""
    with serving(file, "--max-batch", "1") as one, serving(file) as many:
        for packed, items in ((False, ITEMS), (True, ITEMS), (False, SHORT_ITEMS), (True, SHORT_ITEMS)):
            kind, requests = f"{items} items, {'base64' if packed else 'JSON'}", bodies(packed, items)
            found: dict[str, list[float]] = {"alone": [], "unbatched": [], "batched": []}
            for _ in range(rounds):
                found["alone"].append(rate_of(many, 1, requests, seconds))
                found["unbatched"].append(rate_of(one, CLIENTS, requests, seconds))
                found["batched"].append(rate_of(many, CLIENTS, requests, seconds))
            alone, unbatched, batched = (statistics.median(values) for values in found.values())
            ratio = statistics.median(b / u for u, b in zip(found["unbatched"], found["batched"], strict=True))
            over = statistics.median(b / u for u, b in zip(found["alone"], found["batched"], strict=True))
            print(
                f"lists/s, {kind}: {CLIENTS} clients batched {batched:.0f}, one list at a time {unbatched:.0f} "
                f"(x {ratio:.2f}); one client {alone:.0f} (x {over:.2f})"
            )


def texts(base: str, rounds: int, place: Path) -> None:
    """Eight clients at weights of their own, the same requests one after another, and all at the same weights."""
    from hyperdpo.alignment.conditioning import ConditioningConfig
    from hyperdpo.alignment.model import ConditionedLM

    ConditionedLM.create(base, ConditioningConfig(("a", "b"))).save_pretrained(place)
    mixed = [[i / (TEXT_CLIENTS - 1), 1 - i / (TEXT_CLIENTS - 1)] for i in range(TEXT_CLIENTS)]
    with serving(place, "--model", base) as port:

        def ask(number: int, weights: list[float], found: list[int]) -> None:
            turn = {"role": "user", "content": "Once upon a time there was"}
            asked = {"messages": [turn], "weights": weights, "max_tokens": TOKENS, "seed": number}
            with Connection(port) as connection:
                answer = json.loads(connection.ask(b"POST", "/v1/chat/completions", json.dumps(asked).encode()))
            found.append(answer["usage"]["completion_tokens"])

        def together(weights: list[list[float]]) -> float:
            found: list[int] = []
            threads = [threading.Thread(target=ask, args=(i, w, found)) for i, w in enumerate(weights)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sum(found) / (time.perf_counter() - started)

        def apart() -> float:
            found: list[int] = []
            started = time.perf_counter()
            for i, w in enumerate(mixed):
                ask(i, w, found)
            return sum(found) / (time.perf_counter() - started)

        rates = [(apart(), together(mixed), together([[0.5, 0.5]] * TEXT_CLIENTS)) for _ in range(rounds + 1)][1:]
    one, many, uniform = (statistics.median(column) for column in zip(*rates, strict=True))
    gain = statistics.median(m / a for a, m, _ in rates)
    loss = statistics.median(u / m for _, m, u in rates)
    print(
        f"tokens/s, {TEXT_CLIENTS} clients of chat completions: mixed weights {many:.0f}, one after another {one:.0f} "
        f"(x {gain:.2f}); the same weights {uniform:.0f} ({loss:.2f} x mixed)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        file = saved_ranker(Path(place) / "ranker.onnx")
        overheads(file, arguments.rounds)
        throughput(file, arguments.rounds, arguments.seconds)
        if arguments.model:
            texts(arguments.model, arguments.rounds, Path(place) / "adapter")


if __name__ == "__main__":
    main()
