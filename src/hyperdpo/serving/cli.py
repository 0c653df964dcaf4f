"""``hyperdpo export``, ``hyperdpo serve`` and ``hyperdpo verify``: their options.

What they do is in :mod:`hyperdpo.serving.export.commands`, :mod:`hyperdpo.serving.server.commands` and
:mod:`hyperdpo.serving.verify.command`.
"""

from __future__ import annotations

from typing import Any

import click

from hyperdpo.options import PATH, WholeRange, beta_option, cpu_option, scorer_option

COUNT = WholeRange(min=1)


@click.command("export")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option(
    "--out", type=PATH, required=True, help="File of a ranker; directory of its trees or of a language model."
)
@click.option(
    "--format",
    help="Ranker: onnx, torch, lightgbm; language model: merged, peft, vertices, gguf.  [default: the first of them]",
)
@click.option("--weights", metavar="W,W", help="Language model: the point to freeze, .3,.7 or NAME=.3,NAME=.7.")
@beta_option(
    "Ranker: β to freeze, one per objective.  [default: the run's; an input with the parametrization temperature]"
)
@click.option(
    "--main-share", type=float, metavar="L", help="Ranker: λ of lists that name none, for the file's metadata."
)
@click.option("--model", help="Language model: base model, instead of the one the run was trained on.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="vertices, gguf: record answers to it; may be given several times.  [default: some of the run's own prompts]",
)
@click.option("--prompts-file", type=PATH, help="vertices, gguf: record answers to its prompts, as align sample reads.")
@scorer_option("vertices, gguf: scorers of the objectives' names, where each has one")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
def export(**options: Any) -> None:
    """Write RUN as a file that is served without this package; see docs/serving.md.

    A ranker becomes ONNX (or torch.export), with weights and scale as inputs; trees become LightGBM's own files, too.
    A language model becomes a transformers checkpoint, or a PEFT adapter, at the weights that are given. With
    vertices (PEFT) and gguf (llama.cpp) it becomes one adapter per objective, which serve all weights, and dial.json.
    """
    from hyperdpo.serving.export.commands import export_command

    export_command(**options)


@click.command("serve")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; 0.0.0.0 for all of this machine's.")
@click.option("--port", type=WholeRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--weights", metavar="W,W", help="Weights for requests that name none: one per objective, sum 1, or NAME=W,NAME=W."
)
@click.option(
    "--scale", type=click.FloatRange(min=0, min_open=True), help="Scale for requests that name none.  [default: 1]"
)
@beta_option("A ranker's β for requests that name none.")
@click.option("--main-share", type=float, metavar="L", help="A ranker's λ for requests that name none.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable that holds the key requests have to bring.  [default: HYPERDPO_API_KEY, if it is set]",
)
@click.option("--api-key-file", type=PATH, help="File that holds the key, instead.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name in the Host header that is answered, too.  [default: any; without key this machine's]",
)
@click.option("--model", help="A language model's base, instead of the one the run was trained on.")
@click.option(
    "--backend",
    type=click.Choice(["onnx", "torch"]),
    help="What computes a ranker's scores.  [default: onnx where it can be]",
)
@click.option("--threads", type=COUNT, default=1, show_default=True, help="Threads of one pass over a batch of lists.")
@click.option("--max-batch", type=COUNT, help="Lists or texts in one pass.  [default: 32 lists, 16 texts]")
@click.option("--max-queue", type=COUNT, help="Queued lists or texts.  [default: 256 lists, 128 texts]")
@click.option("--max-body", type=COUNT, help="Bytes of a request.  [default: 4 MiB of lists, 2 MiB of texts]")
@click.option("--max-bodies", type=COUNT, help="Bytes of all requests in progress.  [default: twice --max-body]")
@click.option("--max-items", type=COUNT, help="Items of a list.  [default: 1000]")
@click.option("--max-groups", type=COUNT, help="Lists of a request.  [default: 64]")
@click.option("--max-tokens", type=COUNT, help="Tokens of an answer.  [default: 1024]")
@click.option("--max-prompt", type=COUNT, help="Tokens of a prompt.  [default: 4096]")
@click.option(
    "--read-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds in which a request has to arrive as a whole, and an answer to be read.",
)
@click.option(
    "--max-connections",
    type=COUNT,
    default=1000,
    show_default=True,
    help="Connections; beyond, those are closed that have waited longest for their client.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="Seconds to finish whole requests in, after TERM; the others are refused then, and the exit code is 1.",
)
@click.option("--access-log", is_flag=True, help="A line for every request.")
@cpu_option
def serve(**options: Any) -> None:
    """Answer requests at any weights: POST /rank, or OpenAI's API.

    RUN is a run of `rank fit` or a ranker.onnx of `export`, a run of `align fit` or an adapter's directory. The OpenAPI
    document is at /docs and /openapi.json, health at /healthz, counters for Prometheus at /metrics. Ends on TERM when
    what is under way is done.
    """
    from hyperdpo.serving.server.commands import serve_command

    serve_command(**options)


@click.command("verify")
@click.argument("url", metavar="URL")
@click.option("--dial", type=PATH, required=True, help="dial.json of `export --format vertices` or gguf.")
@click.option(
    "--engine",
    type=click.Choice(["llama.cpp", "hyperdpo", "openai"]),
    help="What answers at URL.  [default: what it says it is]",
)
@click.option(
    "--weights",
    metavar="W,W",
    help="The server takes no weights with a request: verify that it serves this point, one of the recorded ones.",
)
@click.option("--served-model", metavar="NAME", help="openai: the model to name.  [default: the server's first]")
@scorer_option("the recorded scores' own, where this package has it")
@click.option(
    "--tie",
    type=click.FloatRange(min=0),
    help="Another token may be taken where the two best log-probabilities are closer.  [default: as in dial.json]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="How much a log-probability may differ.  [default: as in dial.json]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="Seconds in which a server has to answer a request.",
)
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable that holds the server's key.  [default: HYPERDPO_API_KEY, if it is set]",
)
@click.option("--api-key-file", type=PATH, help="File that holds the key, instead.")
@click.option("--json", "json_file", type=PATH, help="File to write the result to.")
def verify(**options: Any) -> int:
    """Ask the server at URL at the weightings that dial.json records, and say whether it turns the dial.

    Greedy answers are compared with the recorded ones: tokens and log-probabilities of llama.cpp, texts of `hyperdpo
    serve`. Where scores are recorded, each objective's mean score has to go with its weight. Exit code 1: the server
    answers, but does not turn the dial; the reason is named. See docs/dial.md.
    """
    from hyperdpo.serving.verify.command import verify_command

    return verify_command(**options)
