"""The client on real sockets, against the simulated Phala Cloud."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bridge.clock import SystemClock
from bridge.events import State
from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from bridge.upstream.client import Ended, Garbled, PhalaClient, StreamEvent
from bridge.upstream.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    UnauthorizedError,
    UnreachableError,
    UpstreamError,
)
from tests.real.waiting import until
from tests.servers import PATIENCE

Control = Callable[..., Awaitable[Any]]


@pytest.fixture
async def sim() -> AsyncIterator[Running]:
    """Three CVMs that do nothing by themselves; five seconds take 0.1."""
    world = World(seed=7, cvms=3, frozen=True)
    async with serve(world=world, keys={"key-a": "alice"}, time_scale=0.02) as running:
        yield running


@pytest.fixture
async def client(sim: Running) -> AsyncIterator[PhalaClient]:
    client = PhalaClient(sim.api_prefix, "key-a", clock=SystemClock())
    yield client
    await client.aclose()


@pytest.fixture
async def control(sim: Running) -> AsyncIterator[Control]:
    async with httpx.AsyncClient(base_url=sim.control, trust_env=False) as http:

        async def ask(method: str, path: str, **more: Any) -> Any:
            return (await http.request(method, path, **more)).raise_for_status().json()

        yield ask


def uuid_of(sim: Running, number: int = 0) -> str:
    return sim.simulator.world.cvms[number].vm_uuid


def stream(client: PhalaClient, ref: str, target: str = "deleted", timeout: int = 600) -> Any:
    return client.stream(ref, target=target, interval=5, timeout=timeout)


async def soon(events: AsyncIterator[StreamEvent]) -> StreamEvent:
    async with asyncio.timeout(PATIENCE):
        return await anext(events)


async def open_streams(control: Control) -> int:
    return int((await control("GET", "/streams"))["open"])


async def until_none_is_open(control: Control) -> None:
    async with asyncio.timeout(PATIENCE):
        while await open_streams(control):  # noqa: ASYNC110 - another side's state has no event to set
            await asyncio.sleep(0.005)


async def test_a_state_is_read_and_later_than_asked(sim: Running, client: PhalaClient) -> None:
    reading = await client.read_state(uuid_of(sim))
    assert (reading.state.cvm_id, reading.state.status) == (uuid_of(sim), "running")
    assert reading.sent_at < reading.made_at


async def test_a_stream_shows_changes_and_completes(sim: Running, client: PhalaClient, control: Control) -> None:
    async with stream(client, uuid_of(sim), target="stopped") as events:
        first = await soon(events)
        assert isinstance(first, State)
        assert first.status == "running"
        await control("PATCH", f"/cvms/{uuid_of(sim)}", json={"status": "stopped", "push": True})
        rest = [event async for event in events]
    assert isinstance(rest[-2], State)
    assert (rest[-2].status, rest[-1]) == ("stopped", Ended("complete"))


async def test_a_stream_ends_at_its_timeout(sim: Running, client: PhalaClient) -> None:
    async with stream(client, uuid_of(sim), timeout=10) as events:
        found = [event async for event in events]
    assert {type(event) for event in found[:-1]} == {State}
    assert found[-1] == Ended("timeout")


async def test_a_stream_that_is_left_is_closed_at_upstream(sim: Running, client: PhalaClient, control: Control) -> None:
    async with stream(client, uuid_of(sim)) as events:
        await soon(events)
        assert await open_streams(control) == 1
    await until_none_is_open(control)


async def test_a_cancelled_stream_is_closed_at_upstream(sim: Running, client: PhalaClient, control: Control) -> None:
    seen = asyncio.Event()

    async def follow() -> None:
        async with stream(client, uuid_of(sim)) as events:
            async for _ in events:
                seen.set()

    task = asyncio.create_task(follow(), name="follow")
    async with asyncio.timeout(PATIENCE):
        await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_none_is_open(control)


async def test_an_open_that_is_cancelled_before_its_headers_leaves_nothing_open(
    sim: Running, client: PhalaClient, control: Control
) -> None:
    await control("POST", "/faults", json={"route": "stream", "action": "hang"})

    async def follow() -> None:
        async with stream(client, uuid_of(sim)):
            raise AssertionError("it never answers")

    task = asyncio.create_task(follow(), name="follow")
    await until(lambda: any(fault.hits for fault in sim.simulator.faults.all()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_none_is_open(control)
    async with stream(client, uuid_of(sim)) as events:
        assert isinstance(await soon(events), State)


async def test_a_sixth_stream_is_rate_limited(sim: Running, client: PhalaClient, control: Control) -> None:
    await control("PUT", "/users/alice", json={"occupied": 5})
    with pytest.raises(RateLimitedError) as caught:
        async with stream(client, uuid_of(sim)):
            pass
    assert caught.value.status == 429


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_cut_connection_is_unreachable(sim: Running, client: PhalaClient, control: Control, how: str) -> None:
    async def follow() -> None:
        async with stream(client, uuid_of(sim)) as events:
            await soon(events)
            await control("POST", "/streams/cut", json={"how": how})
            async with asyncio.timeout(PATIENCE):
                async for _ in events:
                    pass

    with pytest.raises(UnreachableError):
        await follow()


async def test_a_body_that_ends_is_no_error(sim: Running, client: PhalaClient, control: Control) -> None:
    async with stream(client, uuid_of(sim)) as events:
        await soon(events)
        await control("POST", "/streams/cut", json={"how": "end"})
        rest = [event async for event in events]
    assert {type(event) for event in rest} <= {State}


@pytest.mark.parametrize("line_end", ["LF", "CRLF", "CR"])
async def test_one_byte_per_write_gives_the_same_events_with_any_line_end(
    sim: Running, client: PhalaClient, control: Control, line_end: str
) -> None:
    await control("PATCH", "/settings", json={"line_end": line_end, "one_byte": True})
    await control("PUT", f"/cvms/{uuid_of(sim)}/raw", content='{"status":"running","name":"ä\u2028\u0085"}'.encode())
    async with stream(client, uuid_of(sim), target="running") as events:
        found = [event async for event in events]
    assert isinstance(found[0], State)
    assert found[0].fields == {"status": "running", "name": "ä\u2028\u0085"}
    assert found[-1] == Ended("complete")


async def test_a_garbled_event_does_not_end_a_stream_and_ten_megabytes_do(
    sim: Running, client: PhalaClient, control: Control
) -> None:
    async with stream(client, uuid_of(sim)) as events:
        await soon(events)
        await control("POST", f"/streams/send?cvm={uuid_of(sim)}", content=b"event: state\ndata: nonsense\n\n")
        while isinstance(event := await soon(events), State):
            pass
        assert isinstance(event, Garbled)
        assert isinstance(await soon(events), State)
        await control("POST", f"/streams/send?cvm={uuid_of(sim)}", content=b"data: " + b"x" * 10_000_000)
        rest = [event async for event in events]
    assert [event for event in rest if not isinstance(event, State)] == [rest[-1]]
    assert isinstance(rest[-1], Garbled)
    await until_none_is_open(control)


async def test_the_simulators_refusals_are_told_apart(sim: Running, client: PhalaClient, control: Control) -> None:
    async def refusal(work: Awaitable[object]) -> type[UpstreamError]:
        with pytest.raises(UpstreamError) as caught:
            await work
        return caught.type

    async def opened(timeout: int) -> None:
        async with stream(client, uuid_of(sim), timeout=timeout):
            pass

    stranger = PhalaClient(sim.api_prefix, "key-x", clock=SystemClock())
    assert await refusal(client.read_state("nobody")) is NotFoundError
    assert await refusal(stranger.read_state(uuid_of(sim))) is UnauthorizedError
    assert await refusal(opened(timeout=5)) is RequestRefusedError
    await control("POST", "/faults", json={"route": "state", "action": "reset"})
    assert await refusal(client.read_state(uuid_of(sim))) is UnreachableError
    await stranger.aclose()


async def test_nobody_at_the_address_is_unreachable() -> None:
    client = PhalaClient("http://127.0.0.1:1/api/v1", "key-a", clock=SystemClock())
    with pytest.raises(UnreachableError):
        await client.read_state("u-1")
    await client.aclose()


async def test_list_and_batch_tell_of_every_cvm(sim: Running, client: PhalaClient) -> None:
    ids = [uuid_of(sim, number) for number in range(3)]
    assert [each.vm_uuid for each in (await client.list_page(1)).entries] == ids
    answers = await client.batch([*ids, "nobody"])
    assert {cvm_id: answer["status"] for cvm_id, answer in answers.items()} == dict.fromkeys(ids, "running")


async def test_a_connection_is_used_again_after_the_pause_between_two_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    connections, ahead = 0, 0.0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        body = b'{"id":"u-1","status":"running"}'
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    shifted = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    monkeypatch.setattr("httpcore._async.http11.time", shifted)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = PhalaClient(f"http://127.0.0.1:{port}", "key-a", clock=SystemClock())
        for pause in (0.0, 30.0, 55.0):
            ahead += pause
            assert (await client.read_state("u-1")).state.cvm_id == "u-1"
        await client.aclose()
    assert connections == 1
