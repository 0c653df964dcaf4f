"""``hyperdpo verify``: which servers turn the dial of a dial.json, and why others do not."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import tokenizer
from helpers import free_port, is_one_line, read
from live_server import running
from tiny_models import tiny_base, tiny_model

from hyperdpo.core.correlation import rank_correlation
from hyperdpo.errors import InputError
from hyperdpo.files import write_json
from hyperdpo.serving.export.dial import DialSource, export_dial, load_dial_source, read_dial
from hyperdpo.serving.verify.claims import read_claims
from hyperdpo.serving.verify.engines import Answer
from hyperdpo.serving.verify.verification import Comparison, scorer_for

SCORER = "a,b=test_verify:high_and_low"

NO_SCORER = f"they were made with {SCORER} (not one of this package's); name it with --scorer\n"


def high_and_low(prompts: list[str], texts: list[str]) -> np.ndarray:
    """Minus the share of words with numbers below 25, and that share."""
    low = np.array([np.mean([int(word[1:]) < 25 for word in text.split()] or [0.0]) for text in texts])
    return np.stack([-low, low], 1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A base as GGUF, the directory of a dial of it, and ``dial.json``."""
    pytest.importorskip("xllamacpp")
    from tiny_gguf import write_gguf

    place = tmp_path_factory.mktemp("llama")
    model = tiny_model(base=tiny_base("llama"), prompt_tokens=0, gate_hidden=0, target_modules="all-linear")
    source = DialSource(model, tokenizer("bos"), ({"name": "a"}, {"name": "b"}), None, ("w5 w6 w7", "w9 w4"))
    export_dial(source, place / "dial", "gguf", scorers=[SCORER])
    write_gguf(place / "base.gguf", tiny_base("llama"), quantisation="F32", words=True)
    return place / "base.gguf", place / "dial", read_dial(place / "dial")


def llama_server(llama: tuple[Path, Path, dict[str, Any]], order: tuple[int, ...] = (0, 1), scale: float = 0.0) -> str:
    """The address of a llama.cpp server that loads the dial's adapters in this order."""
    from tiny_gguf import LlamaServer

    base, dial, content = llama
    server = LlamaServer(base, [dial / content["adapters"][j]["path"] for j in order], scale=scale)
    _ALIVE.append(server)
    return str(server.address)


_ALIVE: list[Any] = []


@pytest.fixture(scope="module")
def started(llama) -> Iterator[str]:
    """As dial.json says."""
    yield llama_server(llama)
    _ALIVE.clear()


def test_llama_cpp_turns_the_dial(command, llama, started, tmp_path) -> None:
    done = command("verify", started, "--dial", llama[1], "--scorer", SCORER, "--json", tmp_path / "found.json")
    assert (done.code, done.err) == (0, ""), done.out
    assert done.out.endswith(f"{started} turns the dial\n")
    assert "llama.cpp, 2 prompts at 5 weightings" in done.out
    found = read(tmp_path / "found.json")
    assert (found["engine"], found["turns"], found["problems"]) == ("llama.cpp", True, [])
    recorded = llama[2]["recorded"]["answers"][:5]
    assert [row["weights"] for row in found["rows"]] == [one["weights"] for one in recorded]
    for row in found["rows"]:
        assert (row["equal"] + row["ties"], row["different"]) == (2, 0)
        assert 0 < row["difference"] < 1e-3
        assert row["weights"] in row["like"]
    means = llama[2]["scores"]["means"]
    for movement in found["scores"]:
        name = movement["objective"]
        wanted = rank_correlation(
            [one["weights"][0 if name == "a" else 1] for one in means], [one[name] for one in means]
        )
        assert movement["recorded"] == pytest.approx(wanted)
        assert movement["live"] == pytest.approx(wanted)
        np.testing.assert_allclose(movement["means"], [one[name] for one in means], atol=0.1)


def test_adapters_in_another_order_are_named(command, llama, tmp_path) -> None:
    done = command("verify", llama_server(llama, (1, 0)), "--dial", llama[1], "--json", tmp_path / "found.json")
    assert done.code == 1
    assert "does not turn the dial" in done.out
    found = read(tmp_path / "found.json")
    names = [one["name"] for one in found["problems"]]
    assert names[0] == "adapter-order"
    assert "answers-differ" in names
    assert "--lora 0-a.gguf,1-b.gguf" in found["problems"][0]["message"]
    # The middle is the same in either order; the others are those of the weights exchanged.
    assert [row["different"] == 0 for row in found["rows"]] == [False, False, True, False, False]
    for row in found["rows"]:
        assert row["weights"][::-1] in row["like"]


def test_another_order_is_found_in_the_answers_where_the_files_have_other_names(command, llama, tmp_path) -> None:
    base, dial, content = llama
    shutil.copytree(dial, tmp_path / "renamed")
    (tmp_path / "renamed" / "0-a.gguf").rename(tmp_path / "renamed" / "y.gguf")
    (tmp_path / "renamed" / "1-b.gguf").rename(tmp_path / "renamed" / "x.gguf")
    renamed = {**content, "adapters": [{**content["adapters"][0], "path": "x.gguf"}, {"id": 1, "path": "y.gguf"}]}
    address = llama_server((base, tmp_path / "renamed", renamed))
    done = command("verify", address, "--dial", dial)
    assert done.code == 1
    assert "adapter-order: the answers are those of adapters in the order 1-b.gguf, 0-a.gguf" in done.out


def test_a_missing_adapter_is_named(command, llama) -> None:
    done = command("verify", llama_server(llama, (0,)), "--dial", llama[1])
    assert done.code == 1
    assert "adapter-number: the server has loaded 1 adapter (0-a.gguf), dial.json has 2" in done.out


def test_adapters_that_count_before_a_request_names_them_are_warned_of(command, llama) -> None:
    """Requests that name all adapters are right all the same."""
    address = llama_server(llama, scale=1.0)
    done = command("verify", address, "--dial", llama[1])
    assert done.code == 0, done.out
    assert "adapters count 1, 1" in done.err
    assert "--lora-init-without-apply" in done.err
    fixed = command("verify", address, "--dial", llama[1], "--weights", ".5,.5")
    assert fixed.code == 1
    assert "does not serve the point 0.5,0.5" in fixed.out


def test_llama_cpp_at_one_point(command, llama, tmp_path) -> None:
    """The first adapter alone, counting 1, is the point 1,0."""
    address = llama_server(llama, (0,), scale=1.0)
    done = command("verify", address, "--dial", llama[1], "--weights", "1,0", "--json", tmp_path / "found.json")
    assert (done.code, done.err) == (0, "hyperdpo: note: scores are not compared: " + NO_SCORER), done.out
    assert "serves the point 1,0" in done.out
    found = read(tmp_path / "found.json")
    assert (found["fixed_weights"], len(found["rows"])) == ([1.0, 0.0], 1)
    other = command("verify", address, "--dial", llama[1], "--weights", "b=1")
    assert other.code == 1
    assert "another-point: the answers are those recorded at 1,0, not at 0,1" in other.out
    assert command("verify", address, "--dial", llama[1], "--weights", ".3,.7").refused("--weights", "0.25,0.75")


@pytest.fixture(scope="module")
def portable_dial(portable_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "dial"
    export_dial(load_dial_source(portable_run), out, "vertices")
    return out


@contextmanager
def own_server(path: Path, change: Callable[[Any], None] = lambda model: None, key: str | None = None) -> Iterator[str]:
    pytest.importorskip("fastapi")
    from hyperdpo.serving.server.app import Server
    from hyperdpo.serving.server.chat_api import TextLimits, chat_app
    from hyperdpo.serving.server.lm_source import LanguageModel

    language, server = LanguageModel.load(path), Server(api_key=key)
    change(language.model)
    with running(chat_app(language, server, TextLimits()), server) as url:
        yield url


def test_our_own_server_turns_the_dial_with_its_key(
    command, portable_run, portable_dial, tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("HYPERDPO_API_KEY", raising=False)
    (tmp_path / "key").write_text("secret\n")
    with own_server(portable_run, key="secret") as url:
        done = command(
            "verify", f"{url}/v1/", "--dial", portable_dial / "dial.json", "--api-key-file", tmp_path / "key"
        )
        assert (done.code, done.err) == (0, ""), done.out
        assert "hyperdpo, " in done.out
        assert "turns the dial" in done.out
        without = command("verify", url, "--dial", portable_dial)
        assert without.refused("no key", "HYPERDPO_API_KEY")
        monkeypatch.setenv("HYPERDPO_API_KEY", "other")
        assert command("verify", url, "--dial", portable_dial).refused("wrong one")


def test_another_base_is_named_by_its_fingerprint(command, portable_run, portable_dial) -> None:
    def other(model: Any) -> None:
        model.base.get_input_embeddings().weight.data.mul_(-1)

    with own_server(portable_run, other) as url:
        done = command("verify", url, "--dial", portable_dial)
    assert done.code == 1
    assert "another-base: the server's base has the fingerprint" in done.out
    assert "answers-differ" in done.out


def test_a_run_of_other_objectives_is_named_without_asking(command, adapter, portable_dial) -> None:
    with own_server(adapter) as url:
        done = command("verify", url, "--dial", portable_dial)
    assert done.code == 1
    assert "objectives: the server has the objectives a, b, dial.json has low, high" in done.out


class Stub(HTTPServer):
    """A server of plain functions: (method, route) to what it answers, from the body."""

    def __init__(self, routes: dict[tuple[str, str], Callable[[Any], Any]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = routes
        self.bodies: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = self.server.routes.get((self.command, self.path))
        answer = None if found is None else found(json.loads(body) if body else None)
        if body:
            self.server.bodies.append(json.loads(body))
        if isinstance(answer, str):
            self.send_response(307)
            self.send_header("Location", answer)
        else:
            self.send_response(404 if answer is None else 200)
        content = json.dumps(answer).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stub(**routes: Any) -> Iterator[Stub]:
    """Routes as ``GET_v1_models=function``."""
    server = Stub(
        {(name.partition("_")[0], "/" + name.partition("_")[2].replace("__", "/")): f for name, f in routes.items()}
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def models(owner: str) -> Callable[[Any], Any]:
    return lambda body: {"data": [{"id": "m", "owned_by": owner}]}


def recorded_text(dial: dict[str, Any], body: dict[str, Any], weights: list[float]) -> str:
    recorded = dial["recorded"]
    (number,) = [n for n, one in enumerate(recorded["prompts"]) if one["ids"] == body["prompt"]]
    (one,) = [a for a in recorded["answers"] if a["prompt"] == number and a["weights"] == weights]
    return str(one["text"])


def test_a_server_that_ignores_weights_is_named(command, portable_dial) -> None:
    dial = read_dial(portable_dial)

    def fixed(body: Any) -> Any:
        return {"choices": [{"text": recorded_text(dial, body, [0.25, 0.75])}]}

    with stub(GET_v1__models=models("hyperdpo"), POST_v1__completions=fixed) as server:
        done = command("verify", server.url, "--dial", portable_dial)
        assert done.code == 1
        assert "weights-ignored" in done.out
        grid = [one["weights"] for one in dial["recorded"]["answers"][:5]]
        assert [list(body["weights"].values()) for body in server.bodies[:5]] == grid
        assert command("verify", server.url, "--dial", portable_dial, "--weights", ".25,.75").code == 0


def test_any_server_of_completions_is_verified_at_one_point(command, portable_dial) -> None:
    dial = read_dial(portable_dial)

    def fixed(body: Any) -> Any:
        assert (body["model"], body["temperature"], "weights" in body) == ("m", 0, False)
        return {"choices": [{"text": recorded_text(dial, body, [0.5, 0.5]) + " ", "logprobs": None}]}

    with stub(GET_v1__models=models("vllm"), POST_v1__completions=fixed) as server:
        assert command("verify", server.url, "--dial", portable_dial).refused("openai", "--weights W,W")
        assert command("verify", server.url, "--dial", portable_dial, "--weights", ".5,.5").code == 0
        done = command("verify", server.url, "--dial", portable_dial, "--weights", "1,0")
        assert done.code == 1
        assert "another-point" in done.out


def test_the_table_says_that_the_base_is_dequantised(command, portable_dial, tmp_path) -> None:
    origin = {"file": "t.gguf", "quantisation": "Q8_0", "dequantised": True}
    dial = changed(portable_dial, tmp_path, lambda content: content["base"].update(gguf_origin=origin))
    content = read_dial(dial)

    def fixed(body: Any) -> Any:
        return {"choices": [{"text": recorded_text(content, body, [0.5, 0.5])}]}

    with stub(GET_v1__models=models("vllm"), POST_v1__completions=fixed) as server:
        done = command("verify", server.url, "--dial", dial, "--weights", ".5,.5", "--json", tmp_path / "found.json")
    assert "at a fixed point; base dequantised from t.gguf (Q8_0)" in " ".join(done.out.split())
    assert read(tmp_path / "found.json")["gguf_origin"] == origin


def test_scores_that_do_not_go_with_the_weights_are_named(command, llama, tmp_path) -> None:
    """Every difference is allowed as a tie, but texts go the other way."""
    _, place, dial = llama

    def turned(body: Any) -> Any:
        return {"content": recorded_text(dial, body, [one["scale"] for one in body["lora"]][::-1])}

    def as_recorded(body: Any) -> Any:
        return {"content": recorded_text(dial, body, [one["scale"] for one in body["lora"]])}

    loaded = [{"path": f"/somewhere/{one['path']}", "scale": 0} for one in dial["adapters"]]
    routes = {"GET_lora-adapters": lambda body: loaded, "GET_v1__models": models("llamacpp")}
    options = ("--scorer", SCORER, "--tie", "100")
    with stub(**routes, POST_completion=turned) as server:
        done = command("verify", server.url, "--dial", place, *options)
    assert done.code == 1
    assert "scores: the mean score of a does not go with its weight (Spearman -0.90; recorded: 0.90)" in done.out

    def minimised(content: dict[str, Any]) -> None:
        content["objectives"] = [{"name": "a", "direction": "minimize"}, {"name": "b"}]

    with stub(**routes, POST_completion=as_recorded) as server:
        assert command("verify", server.url, "--dial", place, "--scorer", SCORER).err == ""
        done = command("verify", server.url, "--dial", changed(place, tmp_path, minimised), "--scorer", SCORER)
    # The run itself does not do what it should: the server is not to blame.
    assert done.code == 0
    assert "the mean score of a does not go with its weight (Spearman 0.90; recorded: 0.90)" in done.err


def test_records_that_could_be_those_of_a_fixed_point_show_nothing(command, portable_dial, tmp_path) -> None:
    def alike(dial: dict[str, Any]) -> None:
        answers = dial["recorded"]["answers"]
        for one in answers:
            first = next(other for other in answers if other["prompt"] == one["prompt"])
            one.update({name: first[name] for name in ("ids", "text", "logprobs", "second")})

    dial = changed(portable_dial, tmp_path, alike)
    content = read_dial(dial)

    def answer(body: Any) -> Any:
        return {"choices": [{"text": recorded_text(content, body, [1, 0])}]}

    with stub(GET_v1__models=models("hyperdpo"), POST_v1__completions=answer) as server:
        done = command("verify", server.url, "--dial", dial)
        assert done.code == 1
        assert "not-shown: the recorded answers are too alike" in done.out
        assert command("verify", server.url, "--dial", dial, "--weights", "1,0").code == 1


def test_nobody_there_is_one_line(command, portable_dial) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert command("verify", url, "--dial", portable_dial).refused(url, "no answer", "refused")
    assert command("verify", "127.0.0.1:8080", "--dial", portable_dial).refused("URL", "http://127.0.0.1:8080")
    assert command("verify", "file:///etc/passwd", "--dial", portable_dial).refused("URL")


def test_answers_of_something_else_are_one_line(command, portable_dial) -> None:
    with stub() as server:
        assert command("verify", server.url, "--dial", portable_dial).refused("unknown server", "--engine")
    with stub(GET_v1__models=models("hyperdpo"), POST_v1__completions=lambda body: {"choices": []}) as server:
        assert command("verify", server.url, "--dial", portable_dial).refused("/v1/completions", "not an answer")
    with stub(GET_v1__models=models("hyperdpo")) as server:
        assert command("verify", server.url, "--dial", portable_dial).refused("/v1/completions", "404")
    with stub(GET_v1__models=lambda body: "http://example.org/") as server:
        done = command("verify", server.url, "--dial", portable_dial)
        assert done.refused("redirected", "example.org")


def changed(dial: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of ``dial.json`` with a checksum of its own."""
    content = json.loads(json.dumps(read_dial(dial)))
    change(content)
    write_json(tmp_path / "dial.json", content, sealed=True)
    return tmp_path / "dial.json"


def test_a_damaged_dial_is_one_line(command, portable_dial, tmp_path) -> None:
    damaged = (portable_dial / "dial.json").read_bytes().replace(b'"tie": 0.001', b'"tie": 0.002')
    (tmp_path / "dial.json").write_bytes(damaged)
    url = f"http://127.0.0.1:{free_port()}"
    assert command("verify", url, "--dial", tmp_path).refused("dial.json", "damaged")
    assert command("verify", url, "--dial", tmp_path / "missing").refused("missing", "cannot be read")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda dial: dial.update(recorded=None, scores=None), ("no answers are recorded", "--prompt")),
        (lambda dial: dial.pop("adapters"), ("adapters", "export the run again")),
        (lambda dial: dial["adapters"].pop(), ("adapters: found 1", "expected 2")),
        (lambda dial: dial["recorded"]["answers"].pop(), ("recorded.answers", "an answer to each")),
        (lambda dial: dial["recorded"]["answers"][0]["logprobs"].pop(), ("recorded.answers.0", "differ in length")),
        (lambda dial: dial["recorded"]["answers"][0].update(weights=[1]), ("recorded.answers", "2 weights")),
        (lambda dial: dial.update(scores={"scorer": "length", "means": [{}]}), ("scores.means",)),
    ],
)
def test_a_dial_without_what_is_needed_is_one_line(portable_dial, tmp_path, change, words) -> None:
    with pytest.raises(InputError) as error:
        read_claims(changed(portable_dial, tmp_path, change))
    assert is_one_line(error.value, "dial.json", *words)


def test_a_file_does_not_decide_which_function_is_run(portable_dial, tmp_path) -> None:
    def score(name: str) -> Path:
        def change(dial: dict[str, Any]) -> None:
            grid = [one["weights"] for one in dial["recorded"]["answers"] if one["prompt"] == 0]
            for one in dial["objectives"]:
                one["column"] = {"low": "length", "high": "brevity"}[one["name"]]
            dial["scores"] = {"scorer": name, "means": [{"weights": w, "low": 0, "high": 0} for w in grid]}

        return changed(portable_dial, tmp_path, change)

    found, note = scorer_for(read_claims(score("no_such_module:function")), ())
    assert found is None
    assert note is not None
    assert "no_such_module:function" in note.message
    assert "--scorer" in note.message
    found, note = scorer_for(read_claims(score("length, brevity")), ())
    assert note is None
    assert found is not None
    assert found.score(["x"], ["two words"]).tolist() == [[2, -2]]


def test_texts_may_differ_from_a_tie_on(portable_dial) -> None:
    """A server that gives no tokens: the place is where the text leaves the recorded one."""
    claims = read_claims(portable_dial)
    recorded = next(one for row in claims.answers for one in row if len(one.ids) > 6 and min(one.ids[:7]) > 2)
    words = recorded.text.split()
    how = Comparison.of(claims, tie=0.0)
    other = "w3" if words[5] != "w3" else "w4"
    left = Answer(" ".join([*words[:5], other, *words[6:]]))
    assert how.agreement(recorded, left)[:2] == (5, False)
    margin = abs(recorded.logprobs[5] - recorded.second[5])
    tolerant = Comparison.of(claims, tie=margin + 1e-6)
    assert tolerant.agreement(recorded, left)[:2] == (5, True)
    assert tolerant.agrees(recorded, left)
    assert how.agrees(recorded, Answer(recorded.text + " \ufffd"))
    far = Answer(recorded.text, None, tuple(x + 0.002 for x in recorded.logprobs))
    assert how.agreement(recorded, far).difference == pytest.approx(0.002)
    assert not how.agrees(recorded, far)
    assert Comparison.of(claims, tolerance=0.003).agrees(recorded, far)


def test_a_dial_that_was_written_before_tolerances_were_recorded_has_a_wide_one(portable_dial, tmp_path) -> None:
    old = read_claims(changed(portable_dial, tmp_path, lambda dial: dial["recorded"].pop("tolerance")))
    assert Comparison.of(old).tolerance == 5e-3
    assert Comparison.of(read_claims(portable_dial)).tolerance == 1e-3
