"""A server without a model, for tests of connections: as an app, and as a program that serves it.

python tiny_server.py PORT GRACE
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from hyperdpo.serving.server.app import Server, build_app
from hyperdpo.serving.server.process import listen, serve_app
from hyperdpo.serving.server.worker import Worker


class NoEngine(Worker):
    def _run(self) -> None:
        pass

    def abort(self) -> int:
        return 0


def tiny_app(server: Server) -> FastAPI:
    """POST /echo says how long a body is; POST /slow answers once /go was called, POST /later after a while;
    GET /large is long, POST /fails fails."""
    app = build_app(
        server,
        title="tiny",
        description="",
        error_body=lambda refusal: {"error": refusal.message},
        engine=NoEngine("none"),
        request_models=[],
    )
    go = asyncio.Event()
    app.state.bodies = []

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        body = await request.body()
        app.state.bodies.append(body)
        return {"bytes": len(body)}

    @app.post("/slow")
    async def slow(request: Request) -> dict[str, Any]:
        body = await request.body()
        await go.wait()
        return {"bytes": len(body)}

    @app.post("/go")
    async def let_go() -> dict[str, Any]:
        go.set()
        return {}

    @app.post("/fails")
    async def fails(request: Request) -> None:
        await request.body()
        raise RuntimeError("on purpose")

    @app.get("/large")
    async def large() -> Response:
        return StreamingResponse(iter([b"x" * 2**16] * 1000))

    @app.post("/later")
    async def later() -> dict[str, Any]:
        await asyncio.sleep(3)
        return {"bytes": 0}

    return app


if __name__ == "__main__":
    shared = Server()
    listener = listen("127.0.0.1", int(sys.argv[1]))
    raise SystemExit(serve_app(tiny_app(shared), shared, listener, grace=float(sys.argv[2])))
