"""Clients with rare behaviour (pipelining, bodies, half-closed connections, upgrades), on both event loops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from prometheus_client import REGISTRY

from tests.real.fronts import Front, front, played
from tests.real.test_stream_servers import body_until, head_of, ids_in, reset
from tests.servers import PATIENCE
from tests.virtual import assert_no_task_left

Scenario = Callable[[Front], Awaitable[None]]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

STREAM = b"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, redis_url: str, caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Runs a scenario on a front end; a logged warning is a failure."""
    caplog.set_level(logging.WARNING)

    async def alone(scenario: Scenario, given: dict[str, Any]) -> None:
        await played(redis_url, scenario, **given)
        await assert_no_task_left({asyncio.current_task()})

    def runs(scenario: Scenario, **given: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(alone(scenario, given))
        noise = [record.getMessage() for record in caplog.records if record.name != "bridge.web.server"]
        assert noise == []

    return runs


async def opened(web: Front, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=2**20)
    web.writers.append(writer)
    writer.write(request)
    return reader, writer


async def streams(web: Front, reader: asyncio.StreamReader) -> None:
    """A stream begins here, and gets its events."""
    assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
    await body_until(reader, b"event: position")
    entry_id = await web.append()
    assert ids_in(await body_until(reader, b"event: state")) == [entry_id]


def test_a_request_pipelined_behind_a_stream_disturbs_nothing(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        reader, _ = await opened(web, (STREAM + b"\r\n") * 2 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await streams(web, reader)
        assert web.metric("bridge_subscribers") == 1

    run(scenario)


def test_a_stream_pipelined_behind_a_request_begins_after_it(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        plain = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, _ = await opened(web, plain + STREAM + b"\r\n" + plain)
        await head_of(reader)
        assert await reader.readexactly(15) == b'{"status":"ok"}'
        await streams(web, reader)

    run(scenario)


@pytest.mark.parametrize("body", [b"Content-Length: 1000000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"])
def test_a_body_that_never_ends_does_not_stop_the_stream(run: Callable[..., None], body: bytes) -> None:
    async def scenario(web: Front) -> None:
        reader, writer = await opened(web, STREAM + body)
        await streams(web, reader)
        writer.write(b"y" * 300_000)
        await writer.drain()
        entry_id = await web.append()
        assert ids_in(await body_until(reader, b"event: state")) == [entry_id]

    run(scenario)


def test_a_client_that_expects_100_continue_gets_the_stream(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        reader, _ = await opened(web, STREAM + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        await streams(web, reader)

    run(scenario)


def test_a_client_that_asks_to_close_gets_the_stream_first(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        reader, _ = await opened(web, STREAM + b"Connection: close\r\n\r\n")
        await streams(web, reader)

    run(scenario)


def test_a_client_that_closes_its_half_is_gone(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        for _ in range(20):
            _, writer = await opened(web, STREAM + b"\r\n")
            writer.write_eof()
        reader, writer = await opened(web, STREAM + b"\r\n")
        await streams(web, reader)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await reader.read(-1)
        await web.until_present(0)

    run(scenario)


def test_clients_that_vanish_at_any_moment_leave_nothing_behind(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        first = await web.append()
        for number in range(60):
            _, writer = await opened(web, STREAM + f"Last-Event-ID: {first}\r\n\r\n".encode())
            for _ in range(number % 12):
                await asyncio.sleep(0)
            (reset if number % 2 else asyncio.StreamWriter.close)(writer)
        await web.append()
        await web.until_present(0)

    run(scenario)


def test_a_stream_paused_while_it_replays_is_whole(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        written = [await web.append(filling=100_000) for _ in range(70)]
        reader, _ = await opened(web, STREAM + f"Last-Event-ID: {written[0]}\r\n\r\n".encode())
        await head_of(reader)
        written += [await web.append(filling=100_000) for _ in range(5)]  # while no client reads
        body = await body_until(reader, f"id: {written[-1]}\n".encode())
        assert ids_in(body) == written[1:]

    run(scenario)


async def test_a_stop_leaves_no_connection_whose_last_bytes_are_still_on_their_way(redis_url: str) -> None:
    """The process ends next, and bytes that still wait are lost."""
    async with front(redis_url, subscriber_buffer=2**30) as web:
        await web.lead()
        await opened(web, STREAM + b"\r\n")
        await web.until_present(1)
        for _ in range(60):
            await web.append(filling=400_000)
        web.stop.set()
        await web.serving
        assert REGISTRY.get_sample_value("bridge_subscribers") == 0


def test_a_client_that_does_not_read_its_last_bytes_is_cut(run: Callable[..., None]) -> None:
    async def scenario(web: Front) -> None:
        await opened(web, STREAM + b"\r\n")
        await web.until_present(1)
        for _ in range(60):
            await web.append(filling=100_000)
        await web.until_present(0)

    run(scenario, subscriber_max_age=0.5, subscriber_buffer=2**30)
