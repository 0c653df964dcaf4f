"""A portable run in llama.cpp: are its answers the run's, and what do weights of each request cost?

python benchmarks/bench_llama_cpp.py [BASE.gguf RUN] [--rounds 3] [--prompt TEXT]

RUN is a run of `align fit --portable` on the model that BASE.gguf holds, dequantised; a quantised BASE.gguf is compared
twice, dequantised to float32 and as it is. Without arguments a random Llama takes their place. Seconds are of processor
time in one thread, the least of the rounds; the clients' share is in them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the server and the writer of the tests
from tiny_gguf import LlamaServer, write_gguf

from hyperdpo.serving.export.dial import DialSource, export_dial, load_dial_source
from hyperdpo.serving.export.recorded import agreement

CLIENTS, TOKENS = 4, 32
CONTEXT = 512


def dequantised(source: Path, out: Path) -> Path:
    """A GGUF model in float32, its metadata kept."""
    import gguf

    model = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(str(out), model.fields["general.architecture"].contents())
    for key, field in model.fields.items():
        if key.startswith("GGUF.") or key in (
            "general.architecture",
            "general.file_type",
            "general.quantization_version",
        ):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in model.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def random_source(place: Path) -> tuple[Path, DialSource]:
    """A random Llama as GGUF, and a portable adapter of it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
    from exported_models import tokenizer
    from tiny_models import tiny_base, tiny_model

    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "max_position_embeddings": 512}
    base = place / "base.gguf"
    write_gguf(base, tiny_base(**sizes, initializer_range=0.1), quantisation="F32", words=True)
    model = tiny_model(base=tiny_base(**sizes, initializer_range=0.1), prompt_tokens=0, gate_hidden=0)
    return base, DialSource(model, tokenizer("bos"), ({"name": "a"}, {"name": "b"}), None, ("w5 w6 w7", "w9 w4 w30"))


def scales(weights: Any) -> list[dict[str, float]]:
    return [{"id": j, "scale": float(weight)} for j, weight in enumerate(weights)]


def compare(title: str, base: Path, adapters: list[Path], dial: dict[str, Any]) -> None:
    """Every recorded answer against the server's."""
    server = LlamaServer(base, adapters, context=CONTEXT)
    recorded, found, first = dial["recorded"], [], []
    for answer in recorded["answers"]:
        body = {
            "prompt": recorded["prompts"][answer["prompt"]]["ids"],
            "n_predict": recorded["max_new_tokens"],
            "temperature": 0,
            "cache_prompt": False,
            "return_tokens": True,
            "n_probs": 1,
            "lora": scales(answer["weights"]),
        }
        made = server.post("/completion", body)
        logprobs = [one["logprob"] for one in made["completion_probabilities"]]
        found.append(agreement(answer, made["tokens"], logprobs))
        first.append(abs(logprobs[0] - answer["logprobs"][0]))
    equal, tied = (sum(x) for x in ([one.place is None for one in found], [one.tied for one in found]))
    places = [one.place for one in found if one.place is not None and not one.tied]
    print(f"{title}: {equal} of {len(found)} answers equal by token, {tied} differ where two tokens tie")
    print(f"  log-probabilities within {max(one.difference for one in found):.2g} where the tokens are equal")
    if places:
        print(f"  {len(places)} differ elsewhere, from token {statistics.median(places):g} on (median)")


def cost(base: Path, adapters: list[Path], dial: dict[str, Any], rounds: int) -> None:
    """Tokens per second of CLIENTS requests at a time: without adapters, at equal scales, each at its own."""
    prompts = [one["ids"] for one in dial["recorded"]["prompts"]]
    m = len(adapters)
    own = np.linspace(0, 1, CLIENTS)
    points = [[1 - share, share, *[0.0] * (m - 2)] for share in own]
    plain, tuned = (LlamaServer(base, some, context=CONTEXT, parallel=CLIENTS) for some in ([], adapters))
    cases: dict[str, tuple[LlamaServer, list[Any], int]] = {
        "no adapters": (plain, [None] * CLIENTS, CLIENTS),
        "no adapters, one request at a time": (plain, [None] * CLIENTS, 1),
        "the same weights": (tuned, [[1 / m] * m] * CLIENTS, CLIENTS),
        "weights of each request": (tuned, points, CLIENTS),
        "the same weights, one request at a time": (tuned, [[1 / m] * m] * CLIENTS, 1),
    }
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, (server, weights, together) in cases.items():

            def ask(number: int, server: LlamaServer = server, weights: list[Any] = weights) -> int:
                body = {
                    "prompt": prompts[number % len(prompts)],
                    "n_predict": TOKENS,
                    "temperature": 0,
                    "cache_prompt": False,
                    "ignore_eos": True,
                }
                lora = {} if weights[number] is None else {"lora": scales(weights[number])}
                return int(server.post("/completion", {**body, **lora})["tokens_predicted"])

            started = time.process_time()
            with ThreadPoolExecutor(together) as pool:
                tokens = sum(pool.map(ask, range(CLIENTS)))
            least[name] = min(least[name], (time.process_time() - started) / tokens)
    first = least["the same weights"]
    print(f"{CLIENTS} requests of {TOKENS} tokens")
    for name, seconds in least.items():
        print(f"  {name:42} {1 / seconds:8.0f} tokens/s {seconds / first:6.2f} x the time")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", nargs="?", type=Path)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if options.run is None:
            full, source = random_source(place)
        else:
            full, source = dequantised(options.base, place / "f32.gguf"), load_dial_source(options.run)
        dial = export_dial(source, place / "dial", "gguf", prompts=options.prompt).dial
        adapters = [place / "dial" / one["path"] for one in dial["adapters"]]
        for one in dial["scale"]["kl"]:
            print(
                f"scale {one['scale']:g}: KL {one['mean']:.2g} nats per token (largest {one['largest']:.2g}) with "
                f"adapters divided by it; {one['unscaled']:.2g} if they are not, {one['base']:.2g} of the base"
            )
        compare("float32", full, adapters, dial)
        if options.run is not None:
            compare(options.base.name, options.base, adapters, dial)
        cost(full, adapters, dial, options.rounds)
        if options.run is not None:
            print(f"{options.base.name}:")
            cost(options.base, adapters, dial, options.rounds)


if __name__ == "__main__":
    main()
