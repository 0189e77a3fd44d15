"""A stream's first bytes: they go out in one piece, before all others, and leave nothing of the request behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from uvicorn.protocols.http import httptools_impl

from bridge.store.leadership import Leadership
from bridge.store.watches import Watches
from bridge.web import server
from bridge.web.server import listen
from bridge.web.streaming.detach import Detached
from bridge.web.streaming.hub import Hub
from tests.real.fronts import Front, played
from tests.real.test_stream_clients import LOOPS, STREAM, opened
from tests.real.test_stream_servers import body_until, head_of, ids_in
from tests.servers import PATIENCE

DATA_SEGMENTS_IN = 152
"""Its position in Linux's `tcp_info`."""

OF_A_REQUEST = (httptools_impl.RequestResponseCycle, httptools_impl.HttpToolsProtocol)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, redis_url: str) -> Callable[..., None]:

    def runs(scenario: Callable[[Front], Awaitable[None]], **given: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(played(redis_url, scenario, **given))

    return runs


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def narrow_listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket whose connections have small kernel buffers."""
    bound = listen(host, port, shared=shared)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return bound


async def narrow(web: Front, request: bytes) -> asyncio.StreamReader:
    """A client with small kernel buffers."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", web.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
    web.writers.append(writer)
    writer.write(request)
    return reader


async def piece(web: Front, request: bytes, writes: int = 1) -> bytes:
    """The first bytes as they arrive; the kernel counts the server's writes, if it can."""
    reader, writer = await opened(web, request)
    async with asyncio.timeout(PATIENCE):
        read = await reader.read(2**20)
    if hasattr(socket, "TCP_INFO"):
        written = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        assert struct.unpack_from("I", written, DATA_SEGMENTS_IN) == (writes,)
    return read


def waiting() -> list[int]:
    return [size for found in gc.get_objects() if isinstance(found, Detached) and (size := found.backlog())]


def test_head_and_first_bytes_go_out_in_one_piece(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        await Watches(web.backend).want("cvm-1")
        await until_led(web)
        reader, _ = await opened(web, STREAM + b"\r\n")
        await web.until_present(1)
        ids = [await web.append() for _ in range(3)]
        await body_of(reader, ids[-1].encode())  # the front end has them all
        first = await piece(web, STREAM + b"\r\n")
        assert first.startswith(b"HTTP/1.1 200 ")
        assert b"\r\n\r\nc\r\nretry: 3000\n\r\n" in first
        assert b"event: position\n" in first
        # Nothing follows the cursor, so only the opening goes out.
        first = await piece(web, STREAM + f"Last-Event-ID: {ids[-1]}\r\n\r\n".encode())
        assert first.endswith(b"\r\n\r\nc\r\nretry: 3000\n\r\n")
        first = await piece(web, STREAM + f"Last-Event-ID: {ids[0]}\r\n\r\n".encode())
        assert ids_in(first) == ids[1:]
        done = b"GET /api/v1/cvms/cvm-1/state?target=running HTTP/1.1\r\nHost: localhost\r\nX-API-Key: any\r\n\r\n"
        first = await piece(web, done, writes=2)  # the end is one more
        assert first.startswith(b"HTTP/1.1 200 ")
        assert re.search(rb"event: complete\n.+\n\n\r\n0\r\n\r\n$", first)

    run(scenario)


async def until_led(web: Front) -> None:
    assert web.term is not None
    async with asyncio.timeout(PATIENCE):
        while (await web.http.get(f"{web.url}/readyz")).json()["status"] != "ready":
            await Leadership(web.backend).renew(web.term, 60.0, 30.0)
            await asyncio.sleep(0.01)


def test_events_come_after_an_initial_snapshot_that_is_on_its_way(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "listen", narrow_listener)

    async def scenario(web: Front) -> None:
        for number in range(200):
            await web.append(f"cvm-{number}")
            await Watches(web.backend).want(f"cvm-{number}")
        request = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, _ = await opened(web, request)
        await body_of(reader, b"cvm-199")  # from here on there is an initial snapshot in memory
        clients = [await narrow(web, request) for _ in range(3)]
        await web.until_present(4)
        assert len(waiting()) == 3
        written = [await web.append(filling=filling) for filling in (0, 30_000) * 10]
        bodies = await asyncio.gather(*(body_of(client, written[-1].encode()) for client in clients))
        assert [[found for found in ids_in(body) if found in written] for body in bodies] == [written] * 3
        assert {body.count(b"event: snapshot\n") for body in bodies} == {200}

    run(scenario, subscriber_buffer=8 << 20, heartbeat=3600)


async def body_of(reader: asyncio.StreamReader, wanted: bytes) -> bytes:
    await head_of(reader)
    return await body_until(reader, wanted)


def test_a_stream_begins_after_an_answer_that_is_on_its_way(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        last = [await web.append(filling=100_000) for _ in range(30)][-1]
        page = b"GET /v1/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
        reader = await narrow(web, page + STREAM + f"Last-Event-ID: {last}\r\n\r\n".encode())
        head = await head_of(reader)
        written = [await web.append(filling=10_000) for _ in range(5)]
        found = re.search(rb"content-length: (\d+)", head)
        assert found is not None
        async with asyncio.timeout(PATIENCE):
            await reader.readexactly(int(found[1]))
        assert ids_in(await body_of(reader, written[-1].encode())) == written

    run(scenario)


@pytest.mark.usefixtures("no_collector")
def test_nothing_of_a_request_outlives_its_detaching(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        for _ in range(30):
            await opened(web, STREAM + b"\r\n")
        await web.until_present(30)
        assert [type(found) for found in gc.get_objects() if isinstance(found, OF_A_REQUEST)] == []

    run(scenario)


def test_a_fault_at_the_start_ends_the_stream_and_releases_its_place(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    enter = Hub.enter

    def fail(*given: Any) -> None:
        enter(*given)
        raise ValueError("a fault of the bridge")

    async def scenario(web: Front) -> None:
        await opened(web, STREAM + b"\r\n")
        await web.until_present(1)
        with monkeypatch.context() as patched:
            patched.setattr(Hub, "enter", fail)
            for _ in range(3):
                reader, _ = await opened(web, STREAM + b"\r\n")
                async with asyncio.timeout(PATIENCE):
                    assert (await reader.read(-1)).count(b"HTTP/1.1 ") == 1
            await web.until_present(1)

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["Exception in ASGI application\n"] * 3


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_leaves_while_requests_wait_behind_its_stream_is_gone(
    run: Callable[..., None], version: bytes
) -> None:
    async def scenario(web: Front) -> None:
        request = STREAM.replace(b"HTTP/1.1", b"HTTP/" + version) + b"Connection: keep-alive\r\n\r\n"
        for _ in range(5):
            reader, writer = await opened(web, request * 3)
            await reader.readuntil(b"position")
            writer.transport.abort()
        await web.until_present(0)

    run(scenario)


def test_an_extra_slash_does_not_redirect_to_another_scheme(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        answer = await web.http.get(f"{web.url}/v1/events/?access_token=x", headers={"X-Forwarded-Proto": "https"})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:bridge:problem:not-found")

    run(scenario)
