"""What a server answers to a request that it does not carry out."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """An answer that is an error: one line, as an HTTP status.

    Attributes:
        status: of HTTP.
        message: one line: where, what was found, what was expected.
        parameter: the field of the request, for OpenAI's error shape.
        code: a short word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        parameter: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.parameter, self.code = status, " ".join(message.split()), parameter, code
        self.headers = dict(headers or ({"Retry-After": "1"} if status in (429, 503) else {}))
