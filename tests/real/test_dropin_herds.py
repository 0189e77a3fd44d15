"""Many drop-in clients at once on real sockets: what they cost upstream, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from collections.abc import Iterator

import pytest

from bridge.store.watches import Watches
from bridge.web.dropin.watchers import Watcher
from tests.bridges import Whole, whole
from tests.servers import PATIENCE

STATE = "GET /api/v1/cvms/{}/state?target=stopped HTTP/1.1\r\nHost: localhost\r\nX-API-Key: any\r\n\r\n"


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Client(asyncio.Protocol):
    """Sends one request; `completed` is when it got `complete`, in monotonic seconds."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.got = b""
        self.answered = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()
        self.completed = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if b"event: state" in self.got and not self.answered.done():
            self.answered.set_result(None)
        if b"event: complete" in data:
            self.completed = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def connect(url: str, request: bytes) -> Client:
    port = int(url.rpartition(":")[2])
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(request), "127.0.0.1", port)
    return client


async def test_a_thousand_watchers_of_three_cvms_cost_upstream_three_streams(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with whole(redis_url, cvms=3) as bridge:
        await bridge.until_seen(3)
        clients = [await connect(bridge.url, STATE.format(bridge.ids[n % 3]).encode()) for n in range(1000)]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*[client.answered for client in clients])
            started = time.monotonic()
            for cvm_id in bridge.ids:
                await bridge.patch(cvm_id, status="stopped")
            await asyncio.gather(*[client.ended for client in clients])
        for client in clients:
            assert client.got.endswith(b"\r\n0\r\n\r\n")
            assert client.got.count(b"event: state") >= 2
            assert client.got.count(b"event: complete") == 1
        times = sorted(client.completed - started for client in clients)
        assert bridge.sim.simulator.quota.users["demo"].max == 3
    with capsys.disabled():
        print(f"\n  change to complete, 1000 watchers of 3 CVMs: p50 {times[500]:.3f} s, last {times[-1]:.3f} s")


async def test_five_thousand_connections_that_vanish_leave_nothing_behind(redis_url: str) -> None:
    async with whole(redis_url, cvms=1, settings={"watch_linger": 0.0}) as bridge:
        await bridge.until_seen(1)
        request = STATE.format(bridge.ids[0]).encode()
        await vanish(bridge, request, 100)
        tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        for _ in range(49):
            await vanish(bridge, request, 100)
        await until_all_are_gone(bridge)
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Watcher)]

        async def as_few_as_before() -> bool:
            return len(asyncio.all_tasks()) <= tasks and len(os.listdir("/proc/self/fd")) <= files + 2

        await bridge.until(as_few_as_before, "as few tasks and files as before")


async def vanish(bridge: Whole, request: bytes, count: int) -> None:
    """A third at once, a third in the middle of the request, a third after the answer."""
    clients = [await connect(bridge.url, request[: len(request) // 2] if n % 3 == 1 else request) for n in range(count)]
    async with asyncio.timeout(PATIENCE):
        for n, client in enumerate(clients):
            if n % 3 == 2:
                await client.answered
            client.transport.abort()
        await asyncio.gather(*[client.ended for client in clients])


async def until_all_are_gone(bridge: Whole) -> None:
    async def all_gone() -> bool:
        text = (await bridge.http.get(f"{bridge.url}/metrics")).text
        return "\nbridge_subscribers 0.0\n" in text and not (await Watches(bridge.backend).survey()).demand

    await bridge.until(all_gone, "no subscriber and no demand")
