"""Heads and bodies of HTTP/1.1: well-formed ones as h11 reads them, others refused, wherever the bytes are cut."""

from __future__ import annotations

import random
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdpo.serving.server.http_framing import (
    CHUNK_BYTES,
    EXTRA_BYTES,
    HEAD_BYTES,
    HEADERS,
    LINE_BYTES,
    SMALL_CHUNKS,
    BadRequest,
    ChunkedBody,
    SizedBody,
    end_of_head,
    read_head,
)

GET = b"GET / HTTP/1.1\r\nhost: x\r\n"


def framed(data: bytes) -> tuple[str, int | None, bytes, bytes]:
    """Host, said length, content and what follows, of one whole request."""
    end = end_of_head(data)
    assert end is not None
    head = read_head(data[:end])
    body: Any = ChunkedBody() if head.length is None else SizedBody(head.length)
    content, rest = body.take(data[end:])
    assert body.whole
    return head.host.decode("latin-1"), head.length, content, rest


def chunked(content: bytes, sizes: list[int], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts, at = [], 0
    for size in [*sizes, len(content)]:
        part = content[at : at + size]
        if part:
            parts.append(b"%X%s\r\n%s\r\n" % (len(part), extension, part))
        at += size
    return b"".join(parts) + b"0" + extension + b"\r\n" + trailers + b"\r\n"


@given(
    content=st.binary(max_size=300),
    sizes=st.none() | st.lists(st.integers(1, 40), max_size=5),
    extra=st.lists(
        st.tuples(st.sampled_from(["a", "X-b", "accept"]), st.text("abc:; \t\x80ÿ,", max_size=8)), max_size=4
    ),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_requests_are_read_as_h11_reads_them(content: bytes, sizes: Any, extra: Any, seed: int) -> None:
    length = b"content-length: %d" % len(content) if sizes is None else b"Transfer-Encoding: chunked"
    lines = [b"POST /rank?a=1 HTTP/1.1", b"Host:  a.b:80 \t", length]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in extra]
    random.Random(seed).shuffle(tail := lines[1:])
    body = content if sizes is None else chunked(content, sizes)
    sent = b"\r\n".join([lines[0], *tail]) + b"\r\n\r\n" + body
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(sent)
    request = peer.next_event()
    read = b""
    while isinstance(event := peer.next_event(), h11.Data):
        read += event.data
    assert isinstance(event, h11.EndOfMessage)
    said = len(content) if sizes is None else None
    assert framed(sent + b"next") == (dict(request.headers)[b"host"].decode(), said, read, b"next")
    assert read == content


@pytest.mark.parametrize("extension", [b"", b";a", b" ; name=value"])
@pytest.mark.parametrize("trailers", [b"", b"host: evil\r\nauthorization: Bearer x\r\n"])
def test_chunks_are_the_same_wherever_they_are_cut(extension: bytes, trailers: bytes) -> None:
    content = bytes(range(256))
    sent = chunked(content, [1, 10, 100], extension, trailers) + b"GET "
    for step in (1, 2, 3, 7, 64, 1000):
        body, read, rest = ChunkedBody(), b"", b""
        for at in range(0, len(sent), step):
            if body.whole:
                rest += sent[at : at + step]
                continue
            part, left = body.take(sent[at : at + step])
            read, rest = read + part, rest + left
        assert (read, rest) == (content, b"GET "), step


def test_a_head_is_found_wherever_it_is_cut() -> None:
    sent = GET + b"a: b\r\n\r\n"
    for cut in range(1, len(sent)):
        assert end_of_head(sent[:cut]) is None
        assert end_of_head(sent + b"body", seen=cut) == len(sent)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (b"Host: a\r\nHost: b\r\n", "Host: found two"),
        (b"Host: a\r\nhost: a\r\n", "Host: found two"),
        (b"", "Host: found none"),
        (b"host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: found two"),
        (b"host: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: found two"),
        (b"host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", "found both"),
        (b"host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", "found both"),
        (b"host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n", "Content-Length: found two"),
        (b"host: a\r\nContent-Length: 3, 3\r\n", "Content-Length"),
        (b"host: a\r\nContent-Length: +3\r\n", "Content-Length"),
        (b"host: a\r\nContent-Length: 0x3\r\n", "Content-Length"),
        (b"host: a\r\nContent-Length: \xb2\r\n", "Content-Length"),
        (b"host: a\r\nContent-Length:\r\n", "Content-Length"),
        (b"host: a\r\nContent-Length: " + b"9" * 30 + b"\r\n", "Content-Length"),
        (b"host: a\r\nTransfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: expected chunked"),
        (b"host: a\r\nTransfer-Encoding: xchunked\r\n", "Transfer-Encoding: expected chunked"),
        (b"host: a\r\nTransfer-Encoding: \x0bchunked\r\n", "header 2"),
        (b"host: a\r\nTransfer-Encoding : chunked\r\n", "header 2"),
        (b"host: a\r\nx: 1\r\n folded\r\n", "header 3"),
        (b"host: a\r\nx: 1\r\n\tTransfer-Encoding: chunked\r\n", "header 3"),
        (b" host: a\r\n", "header 1"),
        (b"host: a\r\nx: 1\nContent-Length: 3\r\n", "header 2"),
        (b"host: a\r\nx: 1\rContent-Length: 3\r\n", "header 2"),
        (b"host: a\r\nx: \x00\r\n", "header 2"),
        (b"host: a\r\n: 1\r\n", "header 2"),
        (b"host: a\r\nno colon\r\n", "header 2"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(headers: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_head(b"POST / HTTP/1.1\r\n" + headers + b"\r\n")
    assert raised.value.status == 400
    assert words in raised.value.message


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/2.0", b"GET  / HTTP/1.1", b"GET /\tx HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /", b"G@T / HTTP/1.1"],
)
def test_a_request_line_of_another_form_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest, match="the request line: not understood") as raised:
        read_head(line + b"\r\nhost: a\r\n\r\n")
    assert raised.value.status == 400


def test_old_clients_send_no_host_and_no_chunks() -> None:
    assert read_head(b"GET / HTTP/1.0\r\n\r\n").host == b""
    with pytest.raises(BadRequest, match="Transfer-Encoding"):
        read_head(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b" GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\nhost: x\n", b"\x00"]
)
def test_what_cannot_become_a_request_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(BadRequest) as raised:
        end_of_head(data)
    assert raised.value.status == 400


def test_a_head_has_limits() -> None:
    start = GET + b"x: "
    most = start + b"y" * (HEAD_BYTES - len(start) - 4) + b"\r\n\r\n"
    assert end_of_head(most) == HEAD_BYTES == len(most)
    assert end_of_head(most[:-4]) is None
    for data in (most[:-4] + b"y\r\n\r\n", most[:-4] + b"y" * 5, GET + b"x: y\r\n" * HEAD_BYTES):
        with pytest.raises(BadRequest, match="65536 bytes") as raised:
            end_of_head(data)
        assert raised.value.status == 431
    end = b" HTTP/1.1\r\nhost: x\r\n\r\n"
    assert end_of_head(b"GET /" + b"y" * (LINE_BYTES - 5 - 11) + end)
    for data in (b"GET /" + b"y" * LINE_BYTES, b"GET /" + b"y" * LINE_BYTES + end):
        with pytest.raises(BadRequest, match="request line: too long") as raised:
            end_of_head(data)
        assert raised.value.status == 414
    read_head(GET + b"a: b\r\n" * (HEADERS - 1) + b"\r\n")
    with pytest.raises(BadRequest, match="too many") as raised:
        read_head(GET + b"a: b\r\n" * HEADERS + b"\r\n")
    assert raised.value.status == 431


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"zz\r\n", 400),
        (b"\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\n", 400),
        (b"1 \r\nx\r\n", 400),
        (b"1\nx\r\n", 400),
        (b"1\r\nxx\r\n", 400),
        (b"1\r\nx\n0\r\n\r\n", 400),
        (b"f" * 16 + b"\r\n", 400),
        (b"0\r\nno trailer\r\n\r\n", 400),
        (b"0\r\n folded: x\r\n\r\n", 400),
        (b"1;" + b"x" * EXTRA_BYTES, 431),
        (b"1;" + b"x" * EXTRA_BYTES + b"\r\n", 431),
        (b"1;xxxx\r\ny\r\n" * (EXTRA_BYTES // 4), 431),
        (b"0\r\n" + b"a: b\r\n" * EXTRA_BYTES, 431),
        (b"1\r\nx\r\n" * (SMALL_CHUNKS + 1000), 400),
    ],
)
def test_chunks_of_another_form_and_beyond_limits_are_refused(sent: bytes, status: int) -> None:
    def read(step: int) -> None:
        body = ChunkedBody()
        for at in range(0, len(sent), step):
            body.take(sent[at : at + step])

    for step in (len(sent), 1000):
        with pytest.raises(BadRequest) as raised:
            read(step)
        assert raised.value.status == status


def test_many_chunks_of_a_usual_size_are_read() -> None:
    part = b"%x\r\n%s\r\n" % (CHUNK_BYTES, b"y" * CHUNK_BYTES)
    body = ChunkedBody()
    read = sum(len(body.take(part)[0]) for _ in range(3 * SMALL_CHUNKS))
    assert read == 3 * SMALL_CHUNKS * CHUNK_BYTES
