"""Any bytes on a front end's port: it answers others, smuggles nothing, and keeps nothing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import requests
from hypothesis import strategies as st

from tests.fuzzing import ADMIN, Watched, tried, watched_web
from tests.servers import PATIENCE

SPARE = 32 << 20
"""Bytes by which a process may have grown."""

KEY = f"Host: localhost\r\nX-API-Key: {ADMIN}\r\n".encode()
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def registration(name: str) -> bytes:
    """A request that leaves a trace if it is served."""
    body = json.dumps({"url": "https://8.8.8.8/", "enabled": False}).encode()
    head = f"PUT /v1/webhooks/{name} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + KEY + b"\r\n" + body


SMUGGLED = registration("smuggled")
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


def said(port: int, pieces: Sequence[bytes]) -> bytes:
    """Everything that the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        found = b""
        try:
            for piece in pieces:
                client.sendall(piece)
            while some := client.recv(1 << 16):
                found += some
        except (ConnectionResetError, BrokenPipeError):
            pass
    return found


def statuses(answer: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


CUTS = st.lists(st.integers(0, 2000), max_size=4)
SPACE = st.sampled_from([b"", b" ", b"\t", b"  "])


CLEAR = [
    b"POST /v1/webhooks HTTP/1.1\r\nContent-Type: application/json\r\n",
    b"POST /v1/webhooks HTTP/1.1\r\nContent-Type: text/plain\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    b"PATCH /v1/webhooks/none HTTP/1.1\r\nContent-Type: application/json\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
    b"POST /v1/webhooks/none/test HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n",
    b"DELETE /v1/webhooks/none HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"POST http://localhost/v1/webhooks HTTP/1.1\r\n",
]


# Ambiguous: each of these has a second reading, in which SMUGGLED is a request of its own.


def _lengths(space: bytes, first: int, second: int) -> bytes:
    return b"Content-Length:%s%d\r\nContent-Length: %d\r\n\r\n" % (space, first, second) + SMUGGLED


def _both(space: bytes, coding_first: bool) -> bytes:
    fields = [b"Content-Length:%s%d\r\n" % (space, len(CHUNKED)), b"Transfer-Encoding:%schunked\r\n" % space]
    return b"".join(reversed(fields) if coding_first else fields) + b"\r\n0\r\n\r\n" + SMUGGLED


def _field(line: bytes, body: bytes) -> bytes:
    return line + b"\r\n\r\n" + body


BAD_CODINGS = [
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\n\tX: y",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\0\r\nTransfer-Encoding: chunked",
    b"X\0: y\r\nTransfer-Encoding: chunked",
    b": y\r\nTransfer-Encoding: chunked",
    b"X\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nHost: example.org",
]
BAD_LENGTHS = [
    b"+%d",
    b"-%d",
    b"0x%x",
    b"%d, %d",
    b"%d %d",
    b"%d;",
    b"'%d'",
    b"%d.0",
    b"1e%d",
    b"99999999999999999999%d",
    b"",
]
BAD_CHUNKS = [b"0x0\r\n", b"-0\r\n", b"+0\r\n", b"0 \r\n", b" 0\r\n", b"0\n", b"0\r", b"g\r\n", b"\r\n", b"1\r\nab\r\n"]
BAD_CHUNKS += [b"0;a\nb\r\n", b"%s0\r\n" % (b"f" * 17), b"1\r\na0\r\n", b"1\r\na\n0\r\n", b"\0\r\n", b"0\x0b\r\n"]

ambiguous_fields = st.one_of(
    st.builds(_lengths, SPACE, st.integers(0, 3), st.integers(0, 500)),
    st.builds(_both, SPACE, st.booleans()),
    st.sampled_from(BAD_CODINGS).map(lambda line: _field(line, b"0\r\n\r\n" + SMUGGLED)),
    st.sampled_from(BAD_LENGTHS).map(
        lambda text: _field(b"Content-Length: " + text.replace(b"%d", b"5").replace(b"%x", b"5"), SMUGGLED)
    ),
    st.sampled_from(BAD_CHUNKS).map(lambda chunk: _field(b"Transfer-Encoding: chunked", chunk + b"\r\n" + SMUGGLED)),
)
BAD_LINES = [b"POST /v1/stream-tokens HTTP/%s" % version for version in (b"0.9", b"1.2", b"2.0", b"3.0", b"11", b"1")]
BAD_LINES += [b"POST /v1/stream-tokens", b"POST http://example.org/v1/stream-tokens HTTP/1.1", b"POST v1 HTTP/1.1"]
BAD_LINES += [b"POST http://localhost HTTP/1.1", b"CONNECT localhost:1 HTTP/1.1", b"PRI * HTTP/2.0", b"post / HTTP/1.1"]
BAD_LINES += [b"POST /v1/stream-tokens\0 HTTP/1.1", b"POST /\xff HTTP/1.1", b"POST\t/ HTTP/1.1", b" POST / HTTP/1.1"]
ambiguous = st.one_of(
    # A route that waits for its body: others may answer before the fault in it has come.
    st.builds(lambda fields: CLEAR[0] + KEY + fields, ambiguous_fields),
    st.sampled_from(BAD_LINES).map(lambda line: line + b"\r\n" + KEY + b"\r\n" + SMUGGLED),
    st.just(b"POST /v1/stream-tokens HTTP/1.0\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
)


def refuses(web: Watched, request: bytes, cuts: list[int]) -> None:
    assert statuses(said(web.port, split(request, cuts))) == [400], request
    web.answers()


# Clear: a body that looks like a request is a body, whatever comes before and behind it.

framed = st.one_of(
    st.just(b"Content-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)),
    st.just(b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED),
    st.integers(1, len(SMUGGLED) - 1).map(
        lambda cut: (
            b"Transfer-Encoding: Chunked\r\n\r\n%x;a=b\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: a\r\n\r\n"
            % (cut, SMUGGLED[:cut], len(SMUGGLED) - cut, SMUGGLED[cut:])
        )
    ),
)
pipelines = st.lists(st.tuples(st.sampled_from(CLEAR), framed), min_size=1, max_size=4)


def serves(web: Watched, pipeline: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    requests_ = [line + KEY + rest for line, rest in pipeline]
    found = statuses(said(web.port, split(b"".join(requests_) + LAST, cuts)))
    final = [status for status in found if status != 100]
    assert len(final) == len(pipeline) + 1, (requests_, found)
    assert final[-1] == 200
    assert all(status < 500 for status in final)


# Anything: parts of requests, cut, repeated, mixed with what is no HTTP at all.

PARTS = [
    *CLEAR,
    LAST,
    KEY,
    b"\r\n",
    b"\r\n\r\n",
    b"GET /v1/events?snapshot=0 HTTP/1.1\r\n" + KEY + b"\r\n",
    b"GET /v1/events HTTP/1.0\r\n" + KEY + b"Accept: text/event-stream\r\n\r\n",
    b"HEAD /v1/events HTTP/1.1\r\n" + KEY + b"\r\n",
    b"GET /v1/cvms?" + b"a=b&" * 20_000,
    b"X-Long: " + b"a" * 70_000,
    b"GET /v1/events?access_token=" + b"%00" * 300 + b"." + b"%ff" * 30 + b" HTTP/1.1\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"Content-Length: 18446744073709551615\r\n\r\n",
    b"0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    bytes.fromhex("16030100c8010000c40303") + bytes(189),
    b"\x00\x0e\x1f\xff" * 40,
]
noise = st.lists(
    st.one_of(
        st.sampled_from(PARTS),
        st.binary(max_size=60),
        st.tuples(st.sampled_from(PARTS), st.integers(0, 200)).map(lambda each: each[0][: each[1]]),
    ),
    min_size=1,
    max_size=6,
)


def bears(web: Watched, parts: list[bytes]) -> None:
    """The client leaves in the middle, without waiting for its answers."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as client:
        try:
            for part in parts:
                client.sendall(part)
            web.answers()
            client.setblocking(False)
            found = client.recv(1 << 20)
        except (ConnectionResetError, BrokenPipeError, BlockingIOError):
            return
    assert all(status < 500 for status in statuses(found)), parts


def test_any_bytes_are_borne_and_no_request_is_smuggled(tmp_path: Path, redis_url: str) -> None:
    with watched_web(tmp_path, redis_url) as web:
        assert statuses(said(web.port, [registration("known"), LAST])) == [201, 200], "the trace that would be found"
        before = web.memory()
        tried(400, st.tuples(ambiguous, CUTS), lambda each: refuses(web, *each))
        tried(200, st.tuples(pipelines, CUTS), lambda each: serves(web, *each))
        tried(500, noise, lambda parts: bears(web, parts))
        listed = requests.get(f"{web.url}/v1/webhooks", headers={"X-API-Key": ADMIN}, timeout=PATIENCE).json()
        assert [item["id"] for item in listed["items"]] == ["known"]
        assert web.memory() < before + SPARE
