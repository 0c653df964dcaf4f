"""What the page on serving shows of clients: the commands that start servers, curl and OpenAI's client."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import free_port, subprocess_environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()


def command(beginning: str) -> list[str]:
    """The words of the page's first command that begins so."""
    found = re.search(rf"^{re.escape(beginning)}[^\n#]*", PAGE, re.MULTILINE)
    assert found, beginning
    return shlex.split(found[0])


@contextlib.contextmanager
def started(words: list[str], place: Path) -> Iterator[int]:
    """The page's server, at a port of its own."""
    port = free_port()
    more = ["--port", str(port)]
    arguments = [sys.executable, "-m", "hyperdpo", *words[1:], *more]
    server = subprocess.Popen(arguments, cwd=place, env=subprocess_environment(), stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait(30)


def test_openais_client_streams_an_answer_as_the_page_shows(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from tiny_models import tiny_base
    from toy_preferences import words_tokenizer

    from hyperdpo.alignment.conditioning import ConditioningConfig
    from hyperdpo.alignment.model import ConditionedLM

    (example,) = re.findall(r"^```python\n(from openai.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    base = tiny_base()
    base.save_pretrained(tmp_path / "base")
    words_tokenizer().save_pretrained(tmp_path / "base")
    base.config.name_or_path = str(tmp_path / "base")
    conditioning = ConditioningConfig(("helpful", "harmless"), prompt_tokens=3)
    ConditionedLM.create(base, conditioning).save_pretrained(tmp_path / "aligned")
    names: dict[str, Any] = {}
    with started(command("hyperdpo serve aligned"), tmp_path) as port:
        for _ in range(4):  # an untrained model of 50 words sometimes ends its answer at once
            exec(compile(example.replace("8001", str(port)), "serving.md", "exec"), names)
            chunks = list(names["answer"])
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            if text:
                break
    assert text
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_curl_is_told_the_objectives_and_features(fitted: Path) -> None:
    with started(["hyperdpo", "serve", str(fitted)], fitted.parent) as port:
        words = [word.replace("8000", str(port)) for word in command("curl http://127.0.0.1:8000/info")]
        told = subprocess.run(words, capture_output=True, check=True, timeout=60)
        about = httpx.get(f"http://127.0.0.1:{port}/info").json()
    assert told.stdout.decode() == httpx.Response(200, json=about).text
    assert about["objectives"] == ["query_url_clicks", "url_clicks"]
