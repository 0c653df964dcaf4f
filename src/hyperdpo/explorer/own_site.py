"""Who may talk to the page's server: the page itself, under a name of this server. Pages of other sites may not."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

#: Names by which a server on this machine alone is called.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: A name, or an address of version 6 in brackets; then a port.
_AUTHORITY = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^\[\]:/?#@\s]+))(?::(?P<port>\d{1,5}))?")
_PORTS = {"http": 80, "https": 443}


class OwnSite:
    """Middleware that refuses requests and websockets under foreign names, or from pages of other origins.

    Without it, any page that the user visits could read the explorer, or move it: browsers let pages open websockets to
    everywhere, and a name of the page's own may be made to lead to this machine.

    Args:
        hosts: names that the Host header may have; empty for any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()):
        self._app, self._hosts = app, {_plain(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self.refusal(scope["headers"]) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the answer is 403
        else:
            code, message = refused
            await PlainTextResponse(message + "\n", code)(scope, receive, send)

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Status and reason of a refusal; None where there is nothing to refuse.

        Args:
            headers: names, in lower case, and values.
        """
        hosts, origins = (
            [value.decode("latin-1") for name, value in headers if name == wanted] for wanted in (b"host", b"origin")
        )
        own = authority(hosts[0]) if len(hosts) == 1 else None
        if own is None:
            return 400, "Host: expected one header, with a name or an address in brackets, and a port"
        if self._hosts and own[0] not in self._hosts:
            return 421, f"Host: found {own[0][:60]!r}; expected {' or '.join(sorted(self._hosts))}"
        for origin in origins:
            scheme, _, end = origin.partition("://")
            theirs, usual = authority(end), _PORTS.get(scheme)
            if usual is None or theirs is None or (theirs[0], theirs[1] or usual) != (own[0], own[1] or usual):
                return 403, f"Origin: found {origin[:60]!r}; only this server's own page is answered"
        return None


def authority(text: str) -> tuple[str, int | None] | None:
    """Name and port of a Host header; None for what is none.

    >>> authority("[::1]:8080"), authority("LocalHost"), authority("[localhost]:8080")
    (('::1', 8080), ('localhost', None), None)
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if found["address"] is None:
        return _plain(found["name"]), port
    try:
        return str(ipaddress.IPv6Address(found["address"])), port
    except ValueError:
        return None


def _plain(host: str) -> str:
    """A name in lower case, an address of version 6 in its shortest form."""
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        return host.lower()
