"""What ``hyperdpo serve`` does: it looks at what RUN is, and serves it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperdpo.core.point import Point, PointReader, parse_weights
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.serving.export.commands import kind_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hyperdpo.serving.server.app import Server

KEY_VARIABLE = "HYPERDPO_API_KEY"

#: How long a thread of a ranker's server computes while another one wants to.
SWITCH_SECONDS = 2e-4

#: Bytes of a request: a text is never so long as a list of features.
MAX_BODY = {"rank": 4 * 2**20, "align": 2 * 2**20}

#: Names by which a server on this machine alone is called.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Options that apply to one kind of run only.
RANK_ONLY = ("temperatures", "main_share", "backend", "max_items", "max_groups")
ALIGN_ONLY = ("model", "max_tokens", "max_prompt")


def serve_command(
    run_path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_env: str | None = None,
    api_key_file: Path | None = None,
    max_body: int | None = None,
    max_bodies: int | None = None,
    allow_host: Sequence[str] = (),
    read_timeout: float = 30,
    max_connections: int = 1000,
    grace: float = 30,
    access_log: bool = False,
    **options: Any,
) -> None:
    """``hyperdpo serve``."""
    require("serve")
    kind = "rank" if run_path.is_file() else kind_of(run_path)
    for name in ALIGN_ONLY if kind == "rank" else RANK_ONLY:
        if options.get(name) is not None:
            option = "--beta" if name == "temperatures" else f"--{name.replace('_', '-')}"
            others = "language models" if kind == "rank" else "rankers"
            raise InputError(f"{option} applies only to {others}; remove it")
    for name, seconds in (("--grace", grace), ("--read-timeout", read_timeout)):
        if not math.isfinite(seconds):
            raise InputError(f"{name}: found {seconds}; expected a finite number of seconds")
    key = api_key(api_key_env, api_key_file, os.environ)
    from hyperdpo.serving.server.app import Server
    from hyperdpo.serving.server.process import address_of, listen, serve_app, use_one_heap, with_files_for

    use_one_heap()
    # Taken before the model is read, which takes a while; nobody is answered until it has been.
    listener = listen(host, port)
    hosts = (*LOOPBACK, *allow_host) if allow_host or (host in LOOPBACK and key is None) else ()
    server = Server(
        api_key=key,
        max_body=max_body or MAX_BODY[kind],
        max_bodies=max_bodies,
        hosts=hosts,
        read_timeout=read_timeout,
        max_connections=with_files_for(max_connections),
    )
    app = (_rank_app if kind == "rank" else _chat_app)(run_path, server, options)
    note = "" if key is not None else "; no API key"
    click.echo(f"{app.title} on {address_of(listener)} (documentation at /docs{note})")
    lost = serve_app(app, server, listener, grace=grace, access_log=access_log)
    if lost:
        what = f"{lost} {'lists' if kind == 'rank' else 'texts'}"
        click.echo(
            f"error: {what} were not done in time (--grace {grace:g} s, or a second signal), and were refused", err=True
        )
        raise SystemExit(1)


def api_key(variable: str | None, file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The key that requests have to bring, from where it was said to be.

    Raises:
        InputError: it is not there, or it is no text that a header could hold.
    """
    if file is not None:
        if variable is not None:
            raise InputError("--api-key-file and --api-key-env: give one of the two")
        try:
            key, where = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    else:
        where = variable or KEY_VARIABLE
        if where not in environment:
            if variable is None:
                return None
            raise InputError(f"--api-key-env: no environment variable {variable}; expected one that holds the key")
        key = environment[where].strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{where}: no key; expected printable ASCII characters without spaces")
    return key


def _rank_app(path: Path, server: Server, options: Mapping[str, Any]) -> FastAPI:
    # The thread that scores waits so long for one that reads requests (5 ms by default, three lists' worth).
    sys.setswitchinterval(SWITCH_SECONDS)
    from hyperdpo.serving.server.rank_api import rank_app
    from hyperdpo.serving.server.rank_model import RankModel
    from hyperdpo.serving.server.rank_schema import RankLimits

    model = RankModel.load(path, options.get("backend"), options.get("threads") or 1)
    point = _point(model.objectives, options)
    if point.temperatures or point.main_share is not None:
        model.check(point)
    return rank_app(model, server, _limits(RankLimits, options), point)


def _chat_app(path: Path, server: Server, options: Mapping[str, Any]) -> FastAPI:
    require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.devices import best_device
    from hyperdpo.serving.server.chat_api import TextLimits, chat_app
    from hyperdpo.serving.server.lm_source import LanguageModel
    from hyperdpo.threads import use_free_cores

    disable_progress_bars_without_tty()
    language = LanguageModel.load(path, options.get("model"), device=best_device(bool(options.get("cpu"))))
    use_free_cores()
    return chat_app(language, server, _limits(TextLimits, options), _point(language.objectives, options))


def _point(names: Sequence[str], options: Mapping[str, Any]) -> Point:
    """The point of requests that name none."""
    weights, betas = options.get("weights"), options.get("temperatures")
    given = None if weights is None else parse_weights(weights, names, range(len(names))).tolist()
    try:
        share = options.get("main_share")
        return PointReader(tuple(names)).read(given, options.get("scale"), betas, where="--", main_share=share)
    except InputError as error:
        told = str(error).replace("--temperatures:", "--beta:", 1).replace("--main_share:", "--main-share:", 1)
        raise InputError(told) from None


def _limits(kind: type[Any], options: Mapping[str, Any]) -> Any:
    """The limits that options of the same names set; others have their defaults."""
    return kind(**{f.name: options[f.name] for f in fields(kind) if options.get(f.name) is not None})
