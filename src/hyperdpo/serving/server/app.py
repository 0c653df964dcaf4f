"""What both servers have: health, metrics, API key, limit of the body, shape of errors, OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperdpo._version import __version__
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.metrics import Metrics
from hyperdpo.serving.server.worker import Worker

#: Answered without an API key: whoever starts and stops servers asks for these.
OPEN_PATHS = ("/healthz", "/readyz")

#: Bytes of all bodies of the requests in progress, as a multiple of what one of them may have, unless set.
BODIES_HELD = 2

#: A refusal as the body of an answer.
ErrorBody = Callable[[Refusal], Mapping[str, Any]]


@dataclass
class Server:
    """What an app and the process around it share.

    Attributes:
        api_key: that requests have to bring; None for none.
        max_body: bytes of a request.
        hosts: names that requests may call this server by; empty for any. Without, a page of another site that has its
            own name point to this machine could ask a server that has no key.
        max_bodies: bytes of all requests in progress; None for :data:`BODIES_HELD` times ``max_body``.
        read_timeout: seconds in which a request has to arrive as a whole, and an answer to be read.
        max_connections: of the process.
        error_body: of a refusal; the app sets it.
        draining: the process is about to end: answers close their connections, /readyz says 503.
        engine: of the app, which sets it.
    """

    api_key: str | None = field(default=None, repr=False)
    max_body: int = 16 * 2**20
    hosts: Sequence[str] = ()
    max_bodies: int | None = None
    read_timeout: float = 30
    max_connections: int = 1000
    metrics: Metrics = field(default_factory=Metrics)
    error_body: ErrorBody = field(default=lambda refusal: {"detail": refusal.message})
    draining: bool = False
    engine: Worker | None = None


class Health(BaseModel):
    """The server is there."""

    status: str = Field(examples=["ok"])


def build_app(
    server: Server,
    *,
    title: str,
    description: str,
    error_body: ErrorBody,
    engine: Worker,
    request_models: Sequence[type[BaseModel]],
) -> FastAPI:
    """An app with everything but its own routes.

    Args:
        engine: starts and ends with the app.
        request_models: of bodies that routes read themselves; they are described by :func:`body_of`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)

    server.engine, server.error_body = engine, error_body
    app = FastAPI(title=title, description=description, version=__version__, lifespan=lifespan)

    def answer(refusal: Refusal) -> Response:
        return JSONResponse(dict(error_body(refusal)), refusal.status, headers=refusal.headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return answer(error)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code in (404, 405):
            other = f"{error.headers['Allow']}, or " if error.headers and "Allow" in error.headers else ""
            message = f"no {request.method} {request.url.path[:80]} here; expected {other}a route of /openapi.json"
        return answer(Refusal(error.status_code, message, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(Refusal(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    @app.get("/healthz", summary="Is the process there?", response_model=Health, tags=["operation"])
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Are requests welcome?",
        response_model=Health,
        responses={503: {"model": Health, "description": "The server is shutting down."}},
        tags=["operation"],
    )
    async def readyz() -> Response:
        if server.draining:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        tags=["operation"],
    )
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    app.add_middleware(BodyLimit, server=server, answer=answer)
    if server.api_key is not None:
        app.add_middleware(ApiKey, server=server, answer=answer)
    app.add_middleware(Measured, server=server, answer=answer, app_of_routes=app)
    _describe(app, server, request_models)
    return app


def body_of(model: type[BaseModel], examples: Mapping[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body itself."""
    content = {
        "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def possible_errors(bad_request: int, failure: str) -> dict[int, str]:
    """The errors that a route with a body may answer, by their code, for the OpenAPI document.

    Args:
        bad_request: the code for a wrong request.
        failure: what a 500 means.
    """
    return {
        bad_request: "Bad request: one line says what and where.",
        401: "No API key, or a wrong one (if the server has one).",
        413: "The body is too large.",
        415: "The content type is not JSON.",
        429: "The queue is full; Retry-After says when to try again.",
        500: failure,
        503: "The server is shutting down.",
    }


def error_responses(model: type[BaseModel], codes: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: the errors that it may answer."""
    return {code: {"model": model, "description": text} for code, text in codes.items()}


def check_json(request: Request) -> None:
    """Raise unless the body is said to be JSON: a web page cannot say so without being asked for leave first.

    Raises:
        Refusal: 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(415, f"Content-Type: found {kind[:60]!r}; expected application/json")


def _describe(app: FastAPI, server: Server, request_models: Sequence[type[BaseModel]]) -> None:
    """Complete the OpenAPI document: models of bodies that routes read themselves, and the key."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            components = document.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for model in request_models:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].update(_met_before(server, path, operation["responses"]))
            if server.api_key is not None:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                document["security"] = [{"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _met_before(server: Server, path: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """What a request may be answered before it reaches its route, as far as the route does not say so itself."""
    found = {}
    if server.api_key is not None and path not in OPEN_PATHS:
        found["401"] = {"description": "No key, or a wrong one."}
    if server.hosts:
        found["421"] = {"description": "The Host header names another server."}
    return {code: text for code, text in found.items() if code not in described}


def _header(scope: Scope, name: bytes) -> bytes:
    """The first header of that name; empty if there is none."""
    return next((value for other, value in scope["headers"] if other == name), b"")


class HttpMiddleware:
    """Sees every request before its route does.

    Args:
        answer: a refusal -> its response.
    """

    def __init__(self, app: ASGIApp, server: Server, answer: Callable[[Refusal], Response]):
        self._app, self._server, self._answer = app, server, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self.refusal(scope)) is not None:
            await self._answer(refusal)(scope, receive, send)
        else:
            await self.handle(scope, receive, send)

    def refusal(self, scope: Scope) -> Refusal | None:
        """What is wrong with a request's head, if anything is."""
        return None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        await self._app(scope, receive, send)


class Measured(HttpMiddleware):
    """Counts and times requests by route; tells connections to close while the server is draining."""

    def __init__(self, app: ASGIApp, server: Server, answer: Callable[[Refusal], Response], app_of_routes: FastAPI):
        super().__init__(app, server, answer)
        self._routes = app_of_routes

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, code, metrics = time.perf_counter(), 0, self._server.metrics

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                if self._server.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            pass  # gone in the middle of its body: nobody is there to answer, and nothing is wrong here
        except Exception:
            code = 500
            raise
        finally:
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", None) or self._route_of(scope)
            metrics.requests.labels(route, str(code or 499)).inc()  # 499: gone before there was an answer
            metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _route_of(self, scope: Scope) -> str:
        """The path of the route that a request would have come to, had it not been refused before.

        Paths that are no route are counted as one: anybody may make any number of them.
        """
        for route in self._routes.routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "other"))
        return "other"


class ApiKey(HttpMiddleware):
    """Refuses requests without the key."""

    def refusal(self, scope: Scope) -> Refusal | None:
        assert self._server.api_key is not None
        scheme, _, key = _header(scope, b"authorization").partition(b" ")
        expected = b"Bearer " + self._server.api_key.encode()
        if scope["path"] in OPEN_PATHS or hmac.compare_digest(scheme.title() + b" " + key.strip(), expected):
            return None
        message = "Authorization: no key, or a wrong one; expected Bearer and the server's key"
        return Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class BodyLimit(HttpMiddleware):
    """Refuses bodies that are too large, before or while they are read. What all bodies hold together is limited by
    :class:`~hyperdpo.serving.server.protocol.Connections`."""

    def refusal(self, scope: Scope) -> Refusal | None:
        said = _header(scope, b"content-length")
        return self._beyond(int(said)) if said.isdigit() and len(said) < 20 else None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            refusal = self._beyond(read)
            if refusal is not None:
                raise refusal
            return message

        await self._app(scope, receiving, send)

    def _beyond(self, size: int) -> Refusal | None:
        """What to say to a body of this size."""
        if size <= (most := self._server.max_body):
            return None
        return Refusal(413, f"the body: too large; expected at most {most} bytes", headers={"Connection": "close"})
