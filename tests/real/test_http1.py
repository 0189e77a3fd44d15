"""Request heads, trailers, upgrades and old clients on the wire of a real front end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging

import pytest

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.open_files import OWN_FILES
from bridge.sealing import new_key
from bridge.web import server
from bridge.web.http.http1 import BoundedProtocol
from bridge.web.http.waiting_connections import CLIENT_SECONDS
from tests.real.fronts import Front, front, played
from tests.real.test_stream_servers import body_until, head_of, ids_in
from tests.real.waiting import until
from tests.servers import PATIENCE

LINE = b"GET /healthz HTTP/1.1\r\n"


async def answer_to(web: Front, *pieces: bytes) -> bytes:
    """Everything that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    web.writers.append(writer)
    async with asyncio.timeout(PATIENCE):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        return await reader.read(-1)


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (431, [LINE, b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n"]),
        (431, [LINE, *[b"X-Long: " + b"a" * 30_000 + b"\r\n"] * 3, b"\r\n"]),
        (431, [LINE, b"X-Unfinished: ", *[b"a" * 10_000] * 30]),
        (431, [LINE, *[b"X-%d: a\r\n" % number for number in range(101)], b"\r\n"]),
        (414, [b"GET /healthz?", b"a" * 70_000, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        (414, [b"GET /healthz?", *[b"a" * 10_000] * 30]),
        (414, [b"GET /v1/cvms?", b"a&" * 2000, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        (431, [b"\r\n" * 100_000]),
        (400, [b"nonsense\r\n\r\n"]),
        (400, [b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n"]),
    ],
)
async def test_a_head_without_bounds_is_refused_and_the_connection_ends(
    redis_url: str, status: int, head: list[bytes]
) -> None:
    async with front(redis_url) as web:
        answer = await answer_to(web, *head)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (await web.http.get(f"{web.url}/healthz")).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        LINE + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /v1/cvms?" + b"a&" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        LINE + b"Connection: close\r\n\r\n",
        LINE + b"Connection: close, upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
async def test_a_connection_is_let_go_without_the_garbage_collector(redis_url: str, given: bytes) -> None:
    async with front(redis_url) as web:
        gc.collect()
        gc.disable()
        try:
            await answer_to(web, given)
            await until(lambda: not any(isinstance(each, BoundedProtocol) for each in gc.get_objects()))
        finally:
            gc.enable()


async def test_a_head_within_the_bounds_is_served(redis_url: str) -> None:
    async with front(redis_url) as web:
        fields = [b"X-%d: %s\r\n" % (number, b"a" * 600) for number in range(97)]
        answer = await answer_to(web, LINE, b"Host: localhost\r\nConnection: close\r\n", *fields, b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_framing_without_end_between_the_bytes_of_a_body_is_refused(redis_url: str) -> None:
    post = b"POST /v1/upstream/webhooks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with front(redis_url, webhook_secret="whsec_0123456789abcdef0123456789abcdef") as web:
        assert (await answer_to(web, post, b"1;extension=", *[b"a" * 10_000] * 30)).startswith(b"HTTP/1.1 431 ")
        trailer = [b"1\r\na\r\n0\r\nX-Trailer: ", *[b"a" * 10_000] * 30]
        assert (await answer_to(web, post, *trailer)).startswith(b"HTTP/1.1 431 ")


def test_a_trailer_is_no_header(redis_url: str) -> None:
    async def scenario(web: Front) -> None:
        secret = b"X-API-Key: 0123456789abcdef"
        head = b"POST /v1/stream-tokens HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        inside = await answer_to(web, head, secret, b"\r\nConnection: close\r\n\r\n0\r\n\r\n")
        assert inside.startswith(b"HTTP/1.1 201 ")
        # In one piece: the trailer is parsed before the request is served.
        behind = await answer_to(web, head + b"Connection: close\r\n\r\n0\r\n" + secret + b"\r\n\r\n")
        assert behind.startswith(b"HTTP/1.1 401 ")

    tokens = Settings.model_validate({"tokens": "me:0123456789abcdef:read"}).tokens
    asyncio.run(played(redis_url, scenario, tokens=tokens, open_access=False))


async def test_an_offered_upgrade_changes_nothing(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    post = b"POST /v1/webhooks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b'{"url": "ftp://example.org/", "cvms": ["*"]}'
    framed = b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with front(redis_url, secret_key=new_key()) as web:
        await web.lead()
        plain = await answer_to(web, post, b"Connection: close\r\n", framed)
        closing = offer.replace(b"Upgrade, ", b"close, Upgrade, ", 1)
        offered = await answer_to(web, post, closing, framed)
        assert offered.rpartition(b"\r\n\r\n")[2] == plain.rpartition(b"\r\n\r\n")[2]
        assert b"https" in plain  # about the URL, not about a missing body
        pipelined = await answer_to(web, *[LINE + offer + b"\r\n"] * 3, LINE + closing + b"\r\n")
        assert pipelined.count(b"HTTP/1.1 200 ") == 4
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(b"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n" + offer + b"\r\n")
        await head_of(reader)
        await body_until(reader, b"event: position")
        entry_id = await web.append()
        assert ids_in(await body_until(reader, b"event: state")) == [entry_id]
    assert caplog.records == []


async def test_an_old_client_gets_no_chunks(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        answer = await answer_to(web, b"GET /metrics HTTP/1.0\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body.startswith(b"# HELP ")
        document = await answer_to(web, b"GET /openapi.json HTTP/1.0\r\n\r\n")
        assert json.loads(document.partition(b"\r\n\r\n")[2])["openapi"]
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(b"GET /v1/events?snapshot=0 HTTP/1.0\r\n\r\n")
        assert b"transfer-encoding" not in (await head_of(reader)).lower()
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"event: position\n")
            entry_id = await web.append()
            assert await reader.readuntil(b"id: %s\n" % entry_id.encode())


class Fast(SystemClock):
    """A clock that runs fifty times as fast."""

    def monotonic(self) -> float:
        return super().monotonic() * 50

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 50)


POST = b"POST /v1/stream-tokens HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (b"", None),
        (b"GET /healthz HT", b"408"),
        (LINE + b"X-Slow: ", b"408"),
        (b"\r\n", b"408"),
        (b"POST /v1/webhooks HTTP/1.1\r\nHost: [::1]\r\nContent-Type: text/json\r\nContent-Length: 9\r\n\r\n{", b"408"),
        (LINE + b"Host: localhost\r\nContent-Length: 9\r\n\r\na", b"200"),
    ],
)
async def test_a_client_that_stops_in_the_middle_of_a_request_is_let_go(
    redis_url: str, caplog: pytest.LogCaptureFixture, given: bytes, status: bytes | None
) -> None:
    async with front(redis_url, clock=Fast(), secret_key=new_key()) as web:
        answer = await answer_to(web, given)
    assert answer == b"" if status is None else answer.startswith(b"HTTP/1.1 %b " % status)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_body_that_keeps_coming_is_awaited(redis_url: str) -> None:
    async with front(redis_url, clock=Fast(), secret_key=new_key()) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(
            b"POST /v1/webhooks HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n"
        )
        for _ in range(20):
            await asyncio.sleep(CLIENT_SECONDS / 50 / 5)
            writer.write(b"x")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 415 ")


async def test_a_client_that_leaves_in_the_middle_of_its_body_costs_one_line(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with front(redis_url, secret_key=new_key()) as web:
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(POST.replace(b"stream-tokens", b"webhooks") + b"Content-Length: 100\r\n\r\n{")
        await web.http.get(f"{web.url}/healthz")
        writer.close()
        await until(lambda: "a client left before its request was complete" in caplog.messages)
        # Still uploading when the front end ends:
        _, staying = await asyncio.open_connection("127.0.0.1", web.port)
        staying.write(POST.replace(b"stream-tokens", b"webhooks") + b"Content-Length: 100\r\n\r\n{")
        await web.http.get(f"{web.url}/healthz")
    staying.close()
    assert caplog.messages.count("a client left before its request was complete") == 2
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_connections_without_a_request_give_way_when_files_run_short(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "raise_open_files", lambda: OWN_FILES + 30)
    async with front(redis_url) as web:
        silent = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(60)]
        assert (await web.http.get(f"{web.url}/healthz")).status_code == 200
        async with asyncio.timeout(PATIENCE):
            assert await silent[0][0].read(-1) == b""
        silent[-1][1].write(LINE + b"Host: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await silent[-1][0].read(-1)).startswith(b"HTTP/1.1 200 ")
        assert web.metric("bridge_out_of_files_total") >= 30
        for _, writer in silent:
            writer.close()
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["too few open files: connections without a request are ended"]
