"""Where a request of HTTP/1.1 ends and the next one begins, with limits, before any parser sees it.

It is stricter than parsers that serve old clients. Whatever two programs in a row could read in two ways is refused:
two Host, Content-Length or Transfer-Encoding headers, both lengths at once, folded lines, line feeds alone. See RFC
9112, sections 2.2, 3.2, 5.2, 6 and 7.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Bytes of a head, bytes of its first line, and how many headers.
HEAD_BYTES, LINE_BYTES, HEADERS = 64 * 1024, 8 * 1024, 100

#: Bytes of a chunked body's extensions and trailers, all together.
EXTRA_BYTES = 16 * 1024

#: Chunks of a body that may be of any size; further ones have at least so many bytes on average.
SMALL_CHUNKS, CHUNK_BYTES = 10_000, 64

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/1\.([01])")
_HEADER = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?)")
_LONE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_SINGLE = (b"host", b"content-length", b"transfer-encoding")


class BadRequest(Exception):
    """Bytes that are no request, or one beyond a limit.

    Attributes:
        status: of HTTP: 400, 414 or 431.
        message: what is wrong, in a line.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Head:
    """What a request's head says about it.

    Attributes:
        host: the Host header; empty if there is none (HTTP/1.0).
        length: bytes of the body; None if it is chunked.
    """

    host: bytes
    length: int | None


def end_of_head(data: bytes, seen: int = 0) -> int | None:
    """Where the head at the beginning of ``data`` ends; None if it goes on.

    Args:
        seen: bytes that an earlier call looked at.

    Raises:
        BadRequest: it cannot become one.
    """
    end = data.find(b"\r\n\r\n", max(seen - 3, 0), HEAD_BYTES)
    size = end + 4 if end >= 0 else len(data)
    first = data.find(b"\r\n", 0, LINE_BYTES)
    if first < 0 and size > LINE_BYTES:
        raise BadRequest(414, f"the request line: too long; expected at most {LINE_BYTES} bytes")
    if end >= 0:
        return size
    if size > HEAD_BYTES:
        raise BadRequest(431, f"the headers: too large; expected at most {HEAD_BYTES} bytes")
    if not re.match(_TOKEN, data) or _LONE_LINE_FEED.search(data, seen):
        raise BadRequest(400, "no request of HTTP/1.1; expected METHOD PATH HTTP/1.1 and lines that end with CR LF")
    return None


def read_head(head: bytes) -> Head:
    """Check a whole head.

    Args:
        head: with the empty line at its end.

    Raises:
        BadRequest: it is not well-formed, or could be read in two ways.
    """
    if head.count(b"\n") - 2 > HEADERS:
        raise BadRequest(431, f"the headers: too many; expected at most {HEADERS}")
    first, *lines = head[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequest(400, "the request line: not understood; expected METHOD PATH HTTP/1.1")
    found: dict[bytes, bytes] = {}
    for number, text in enumerate(lines, 1):
        header = _HEADER.fullmatch(text)
        if header is None:
            raise BadRequest(400, f"header {number}: not understood; expected NAME: VALUE on one line")
        name = header[1].lower()
        if name in _SINGLE:
            if name in found:
                raise BadRequest(400, f"{name.decode().title()}: found two; expected one")
            found[name] = header[2].strip(b" \t")
    host, length, coding = (found.get(name) for name in _SINGLE)
    if host is None and line[1] == b"1":
        raise BadRequest(400, "Host: found none; expected one")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "Content-Length and Transfer-Encoding: found both; expected one of the two")
        if coding.lower() != b"chunked" or line[1] == b"0":
            raise BadRequest(400, "Transfer-Encoding: expected chunked, in HTTP/1.1")
        return Head(host or b"", None)
    if length is not None and not (length.isdigit() and len(length) < 16):
        raise BadRequest(400, "Content-Length: expected a number of bytes")
    return Head(host or b"", int(length or 0))


class SizedBody:
    """A body of known length.

    Attributes:
        whole: nothing more belongs to it.
    """

    def __init__(self, length: int):
        self._left = length

    @property
    def whole(self) -> bool:
        return self._left == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of ``data`` belongs to the body, and what follows it."""
        part = data if len(data) <= self._left else data[: self._left]
        self._left -= len(part)
        return part, data[len(part) :]


class ChunkedBody:
    """A body in chunks. Extensions of chunks and trailers are dropped.

    Attributes:
        whole: nothing more belongs to it.
    """

    def __init__(self) -> None:
        self.whole = False
        self._line, self._next = b"", "size"
        self._left = self._extra = self._chunks = self._size = 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The content in ``data``, and what follows the body.

        Raises:
            BadRequest: these are no chunks, or they are beyond a limit.
        """
        parts, at = [], 0
        while at < len(data) and not self.whole:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                self._left, at = self._left - len(part), at + len(part)
                continue
            end = data.find(b"\n", at)
            self._line += data[at:] if end < 0 else data[at : end + 1]
            at = len(data) if end < 0 else end + 1
            if self._extra + len(self._line) > EXTRA_BYTES:
                raise BadRequest(431, f"the chunks: expected at most {EXTRA_BYTES} bytes of extensions and trailers")
            if end >= 0:
                if not self._line.endswith(b"\r\n"):
                    raise _not_chunked()
                line, self._line = self._line[:-2], b""
                self._read(line)
        return b"".join(parts), data[at:]

    def _read(self, line: bytes) -> None:
        if self._next == "size":
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise _not_chunked()
            self._left = int(size[1], 16)
            self._extra += len(size[2])
            self._size, self._chunks = self._size + self._left, self._chunks + 1
            if self._chunks > SMALL_CHUNKS + self._size // CHUNK_BYTES:
                raise BadRequest(400, f"the chunks: found {self._chunks}; expected fewer and larger ones")
            self._next = "end" if self._left else "trailer"
        elif self._next == "end":
            if line:
                raise _not_chunked()
            self._next = "size"
        elif not line:
            self.whole = True
        elif _HEADER.fullmatch(line):
            self._extra += len(line)
        else:
            raise _not_chunked()


def _not_chunked() -> BadRequest:
    return BadRequest(400, "the body: not understood; expected chunks: SIZE CR LF BYTES CR LF")
