"""The same streams with each kind of server: detached or plain ASGI, httptools or h11."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.store.watches import Watches
from bridge.web.streaming.detach import Detached
from bridge.web.streaming.subscriber import Subscriber
from tests.real.fronts import Front, front
from tests.real.tls import OfFront
from tests.servers import PATIENCE

SERVERS = {"httptools detached": None, "httptools plain": HttpToolsProtocol, "h11 plain": H11Protocol}
TLS = "httptools detached over TLS"


@pytest.fixture(params=[*SERVERS, TLS])
async def web(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> AsyncIterator[Front]:
    tls = OfFront(tmp_path) if request.param == TLS else None
    async with front(redis_url, protocol=SERVERS.get(request.param), tls=tls) as made:
        await made.lead()
        yield made


async def head_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readuntil(b"\r\n\r\n")


async def body_until(reader: asyncio.StreamReader, wanted: bytes) -> bytes:
    """The body as it was sent, chunk by chunk, up to the chunk that holds `wanted`."""
    body = b""
    async with asyncio.timeout(PATIENCE):
        while wanted not in body:
            size = int(await reader.readuntil(b"\r\n"), 16)
            body += (await reader.readexactly(size + 2))[:-2]
            assert size, body[-1000:]
    return body


def ids_in(body: bytes) -> list[str]:
    return [found.decode() for found in re.findall(rb"^id: (.+)$", body, re.MULTILINE)]


def reset(writer: asyncio.StreamWriter) -> None:
    """The client vanishes: its kernel answers with a reset and takes nothing more."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_head_has_no_body_and_leaves_the_connection_usable(web: Front) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.tls)
    await Watches(web.backend).want("cvm-1")
    for path in ("/v1/events", "/v1/cvms/cvm-1/events"):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await head_of(reader)).lower()
        assert head.startswith(b"http/1.1 200 ")
        assert b"content-type: text/event-stream" in head
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'{"status":"ok"}')
    assert web.metric("bridge_subscribers") == 0
    writer.close()


async def test_a_client_that_accepts_gzip_gets_the_same(web: Front) -> None:
    await web.append()
    while (await web.http.get(f"{web.url}/readyz")).json().get("sequence") != "1":  # noqa: ASYNC110 - a real server's doing has no event
        await asyncio.sleep(0.01)
    bodies = []
    for encoding in ("identity", "gzip, br"):
        reader, writer = await web.connect(f"/v1/events?snapshot=0 HTTP/1.1\r\nAccept-Encoding: {encoding}\r\nX-A:")
        head = await head_of(reader)
        assert b"content-encoding" not in head.lower()
        bodies.append(await body_until(reader, b"event: position"))
        writer.close()
    assert bodies[0] == bodies[1]


async def test_what_a_client_sends_into_its_detached_stream_is_dropped(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        reader, writer = await web.connect("/v1/events?snapshot=0")
        await head_of(reader)
        await body_until(reader, b"event: position")
        writer.write(b"\x00\xff rubbish \r\n" * 100 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await web.http.get(f"{web.url}/healthz")
        entry_id = await web.append()
        assert ids_in(await body_until(reader, b"event: state")) == [entry_id]


async def test_an_http_1_0_client_gets_its_stream_and_its_end(web: Front) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.tls)
    writer.write(b"GET /v1/events?snapshot=0 HTTP/1.0\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"event: position")
        entry_id = await web.append()
        await reader.readuntil(f"id: {entry_id}\nevent: state\n".encode())
    writer.close()
    await web.until_present(0)


async def test_a_client_that_stops_reading_and_resets_leaves_nothing_behind(web: Front) -> None:
    clients = [await web.connect("/v1/events?snapshot=0") for _ in range(5)]
    await web.until_present(5)
    for _ in range(20):
        await web.append(filling=100_000)
    for _, writer in clients:
        reset(writer)
    await web.until_present(0)
    gc.collect()
    assert [found for found in gc.get_objects() if isinstance(found, (Subscriber, Detached))] == []


async def test_no_client_gets_bytes_of_replays_aborted_at_random(web: Front) -> None:
    rng = random.Random(5)
    cvms = [f"cvm-{number}" for number in range(10)]
    written = [await web.append(cvm_id, filling=2000) for cvm_id in cvms for _ in range(12)]
    for cvm_id in cvms:
        await Watches(web.backend).want(cvm_id)

    async def client(cvm_id: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.tls)
        writer.write(
            f"GET /v1/events?cvm={cvm_id} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {written[0]}\r\n\r\n".encode()
        )
        await asyncio.sleep(rng.random() * 0.05)
        read = b""
        for _ in range(rng.randint(0, 4)):
            async with asyncio.timeout(PATIENCE):
                read += await reader.read(rng.randint(1, 5000))
        reset(writer)
        subjects = {found.decode() for found in re.findall(rb'"subject":"([^"]+)"', read)}
        assert subjects <= {cvm_id}
        return len(subjects)

    seen = 0
    for _ in range(10):
        seen += sum(await asyncio.gather(*(client(rng.choice(cvms)) for _ in range(50))))
    assert seen > 50
    await web.until_present(0)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_subscriber_killed_and_resumed_at_random_sees_each_event_once(redis_url: str, server: str) -> None:
    async with front(redis_url, protocol=SERVERS[server], subscriber_buffer=65_536) as web:
        await web.lead()
        count = 5000 if "detached" in server else 500
        seen, connected, last = list[str](), asyncio.Event(), asyncio.Event()
        following = asyncio.create_task(follow_with_kills(web, seen, connected, last))
        async with asyncio.timeout(PATIENCE):
            await connected.wait()
        written = [await web.append() for _ in range(count)]
        last.set()
        async with asyncio.timeout(PATIENCE):
            while seen[-1:] != written[-1:]:  # noqa: ASYNC110 - a client's progress has no event
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait({following})
        assert seen == written


@pytest.mark.parametrize("server", SERVERS)
async def test_readers_of_every_pace_get_the_same_bytes(redis_url: str, server: str) -> None:
    """With full sockets, partly taken chunks and changing backlogs, each client gets whole chunks in order."""
    async with front(redis_url, protocol=SERVERS[server], subscriber_buffer=64 << 20, heartbeat=3600) as web:
        await web.lead()
        rng = random.Random(11)
        readers = [await web.connect("/v1/events?snapshot=0") for _ in range(12)]
        await web.until_present(12)
        reading = [asyncio.create_task(read_at_a_pace(reader, number)) for number, (reader, _) in enumerate(readers)]
        written = [await web.append(filling=rng.choice((0, 100, 5000, 150_000))) for _ in range(150)]
        bodies = await asyncio.gather(*reading)
        assert [ids_in(body)[1:] for body in bodies] == [written] * 12
        assert len(set(bodies)) == 1


async def read_at_a_pace(reader: asyncio.StreamReader, number: int) -> bytes:
    """The body up to the 150th event; every third reader pauses often, and every second one seldom."""
    await head_of(reader)
    rng, body, events = random.Random(number), b"", 0
    while events < 150:
        if rng.random() < (0.2 if number % 3 == 0 else 0.01):
            await asyncio.sleep(0.02)
        async with asyncio.timeout(PATIENCE):
            size = int(await reader.readuntil(b"\r\n"), 16)
            piece = (await reader.readexactly(size + 2))[:-2]
        body += piece
        events += piece.count(b"event: state\n")
    return body


async def follow_with_kills(web: Front, seen: list[str], connected: asyncio.Event, last: asyncio.Event) -> None:
    """Reads events after `connected`; its connection is reset at random until the last one is written."""
    rng, cursor = random.Random(3), ""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.tls)
        resume = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
        writer.write(f"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
        try:
            await head_of(reader)
            for _ in range(rng.randint(1, 200)) if not last.is_set() else iter(int, 1):
                body = await body_until(reader, b"\n\n")
                for block in body.split(b"\n\n"):
                    for entry_id in ids_in(block):
                        cursor = entry_id
                        connected.set()
                        if b"event: state" in block:
                            seen.append(entry_id)
        finally:
            reset(writer)


async def test_streams_end_cleanly_at_a_stop(web: Front) -> None:
    await web.append()
    clients = [await web.connect("/v1/events") for _ in range(20)]
    await web.until_present(20)
    web.stop.set()
    for reader, _ in clients:
        async with asyncio.timeout(PATIENCE):
            body = await reader.read(-1)
        assert body.endswith(b"\r\n0\r\n\r\n")
        assert re.search(rb"retry: \d+\n\r\n0\r\n\r\n$", body)
    await web.serving
