"""``hyperdpo serve`` as a process: what it refuses to start with, and how it ends."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import free_port, subprocess_environment

CLIENTS = 8


@contextlib.contextmanager
def process(run: Path, *options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that is ready, and its URL."""
    port = free_port()
    command = [sys.executable, "-m", "hyperdpo", "serve", str(run), "--port", str(port), *options]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=subprocess_environment(**environment)
    )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
    try:
        while True:
            assert started.poll() is None, started.stdout and started.stdout.read()
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            time.sleep(0.05)
        yield url, started
    finally:
        started.kill()
        started.wait(30)


class Load:
    """Clients that ask until nobody listens any more; what they got, and what they lost."""

    def __init__(self, url: str, path: str, body: dict[str, Any], keep_alive: bool):
        self.url, self.path, self.body, self.keep_alive = url, path, body, keep_alive
        self.answers: list[str] = []
        self.lost: list[str] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as shared:
            while True:
                try:
                    if self.keep_alive:
                        answer = shared.post(self.path, json=self.body)
                    else:
                        answer = httpx.post(self.url + self.path, json=self.body, timeout=60)
                    answer.raise_for_status()
                    self.answers.append(answer.text)
                except httpx.ConnectError:
                    return  # the connection was never accepted
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    return

    def under(self, number: int, started: subprocess.Popen[str]) -> None:
        """Send a signal amid the load, and wait for the end."""
        for thread in self.threads:
            thread.start()
        while len(self.answers) < 3 * CLIENTS:
            assert not self.lost, self.lost
            time.sleep(0.01)
        started.send_signal(number)
        for thread in self.threads:
            thread.join(60)
        assert started.wait(30) == 0, started.stdout and started.stdout.read()
        assert not self.lost, self.lost


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_ranking_server_that_is_told_to_end_loses_nothing(ranker: Path, keep_alive: bool) -> None:
    body = {"features": np.eye(40, 6).tolist(), "weights": [0.3, 0.7]}
    with process(ranker, "--backend", "torch") as (url, started):
        load = Load(url, "/rank", body, keep_alive)
        load.under(signal.SIGTERM, started)
    assert len(set(load.answers)) == 1
    assert len(json.loads(load.answers[0])["groups"][0]["scores"]) == 40


def test_a_chat_server_that_is_told_to_end_finishes_its_streams(adapter: Path) -> None:
    body = {"prompt": "w3 w4", "weights": [0.3, 0.7], "temperature": 0, "max_tokens": 60, "stream": True}
    with process(adapter, "--cpu") as (url, started):
        load = Load(url, "/v1/completions", body, keep_alive=True)
        load.under(signal.SIGINT, started)
    counts = {answer.count('"text":" w') for answer in load.answers}
    assert len(counts) == 1
    assert min(counts) > 10
    assert all(answer.endswith("data: [DONE]\n\n") for answer in load.answers)


def test_what_is_not_done_in_time_is_refused_and_counted(adapter: Path) -> None:
    body = {"prompt": "w3 w4", "weights": [0.3, 0.7], "temperature": 0, "max_tokens": 50, "n": 16}
    requests = 40
    with process(adapter, "--cpu", "--grace", "0", "--max-batch", "1", "--max-queue", "1000") as (url, started):
        with ThreadPoolExecutor(requests) as pool:
            asked = [
                pool.submit(httpx.post, f"{url}/v1/completions", json={**body, "stream": stream}, timeout=60)
                for stream in [False, True] * (requests // 2)
            ]
            deadline = time.monotonic() + 30
            while not re.search(r"hyperdpo_queue_length [56]\d\d", httpx.get(f"{url}/metrics").text):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            started.send_signal(signal.SIGTERM)
            answers = [answer.result(60) for answer in asked]
        assert started.wait(30) == 1
        output = started.stdout.read() if started.stdout else ""
    whole = [answer.json()["error"] for answer in answers[::2] if answer.status_code == 503]
    assert whole
    assert {error["type"] for error in whole} == {"server_error"}
    ends = [answer.text.strip().splitlines()[-1].removeprefix("data: ") for answer in answers[1::2]]
    streamed = [json.loads(end)["error"]["message"] for end in ends if end != "[DONE]"]
    assert streamed
    assert set(streamed) == {error["message"] for error in whole}
    lost = re.search(r"error: (\d+) texts were not done in time \(--grace 0 s", output)
    assert lost
    assert len(whole) + len(streamed) <= int(lost[1]) <= 16 * (len(whole) + len(streamed))
    assert "Traceback" not in output


def test_the_key_comes_from_the_environment_and_is_never_shown(ranker: Path) -> None:
    with process(ranker, "--backend", "torch", "--access-log", HYPERDPO_API_KEY="s3cret-key") as (url, started):
        assert httpx.get(f"{url}/info").status_code == 401
        assert httpx.get(f"{url}/info", headers={"Authorization": "Bearer s3cret-key"}).status_code == 200
        started.terminate()
        output, _ = started.communicate(timeout=30)
    assert started.returncode == 0
    assert "/info" in output
    assert "s3cret" not in output


def test_a_second_signal_refuses_what_is_under_way(adapter: Path) -> None:
    body = {"prompt": "w3 w4", "weights": [0.3, 0.7], "temperature": 0, "max_tokens": 50, "n": 16}
    with process(adapter, "--cpu", "--max-batch", "1", "--max-queue", "1000") as (url, started):
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=60) for _ in range(60)]
            deadline = time.monotonic() + 30
            while not re.search(r"hyperdpo_queue_length [789]\d\d", httpx.get(f"{url}/metrics").text):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            started.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            started.send_signal(signal.SIGTERM)
            codes = [answer.result(60).status_code for answer in asked]
        assert started.wait(30) == 1
        output = started.stdout.read() if started.stdout else ""
    assert set(codes) <= {200, 503}
    assert codes.count(503) > 1
    assert re.search(r"error: \d+ texts were not done in time", output)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-tokens", "8"], ("--max-tokens applies only to language models; remove it",)),
        (["--model", "gpt2"], ("--model", "language models")),
        (["--weights", ".3,.8"], ("weights",)),
        (["--weights", "c=1"], ("--weights", "'c'")),
        (["--beta", "1"], ("--beta: found [1",)),
        (["--temperature", "1"], ("--beta: found [1",)),
        (["--api-key-env", "NO_SUCH_VARIABLE"], ("--api-key-env", "NO_SUCH_VARIABLE")),
        (["--api-key-file", "/no/such/file"], ("/no/such/file", "cannot be read")),
        (["--scale", "nan"], ("--scale: found nan", "expected a number from 1e-06")),
        (["--grace", "inf"], ("--grace: found inf", "finite")),
        (["--read-timeout", "inf"], ("--read-timeout: found inf", "finite")),
        (["--host", "192.0.2.1"], ("--host 192.0.2.1", "cannot be listened on")),
    ],
)
def test_what_cannot_be_served_gets_one_line(command: Any, ranker: Path, options: list[str], words: Any) -> None:
    assert command("serve", ranker, "--backend", "torch", "--port", 0, *options).refused(*words)


def test_a_language_model_has_no_backend_and_a_place_without_a_run_is_refused(
    command: Any, adapter: Path, tmp_path: Path
) -> None:
    assert command("serve", adapter, "--backend", "onnx").refused("--backend applies only to rankers; remove it")
    assert command("serve", tmp_path).refused("no run there")
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    assert command("serve", tmp_path / "a.onnx", "--port", 0).refused("a.onnx", "cannot be loaded")


def test_a_taken_port_is_refused(command: Any, ranker: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert command("serve", ranker, "--port", port).refused(f"--port {port}", "cannot be listened on")


def test_an_empty_key_is_refused(command: Any, ranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERDPO_API_KEY", " ")
    assert command("serve", ranker, "--port", 0).refused("HYPERDPO_API_KEY", "no key")
