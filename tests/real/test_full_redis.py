"""A Redis whose memory is used up: what is under way ends as it should, and nothing more is queued."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from bridge.clock import SystemClock
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.memory import read_memory_left
from bridge.webhooks.dispatcher import Dispatcher
from tests.lanes import FakePoster, bench, endpoint, named, plain, settle, unsealed
from tests.servers import PATIENCE, RealServer


def _limit(server: RealServer, most: int, policy: str = "noeviction") -> None:
    server.call("CONFIG", "SET", "maxmemory-policy", policy)
    server.call("CONFIG", "SET", "maxmemory", str(most))


async def _used(backend: Backend) -> int:
    return int((await backend.client.info("memory"))["used_memory"])


@pytest.fixture
async def own(own_server: RealServer) -> AsyncIterator[Backend]:
    backend = connect(own_server.url, "bridge")
    yield backend
    await backend.close()


async def test_a_lease_is_renewed_and_a_result_recorded_in_a_full_redis(own: Backend, own_server: RealServer) -> None:
    made = await bench(own)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    (first,) = (await made.claim(most=1)).claims
    _limit(own_server, 1)
    assert await made.lanes.extend([first], 60) == [True]
    (other,) = (await made.claim(token="other")).claims
    assert other.lane != first.lane
    assert [await settle(made, claim, "delivered") for claim in (first, other)] == ["done", "done"]
    (last,) = (await made.claim(token="last")).claims
    assert await settle(made, last, "failed", 3600) == "done"
    _limit(own_server, 0)
    states = [each.status for each in (await Deliveries(own).page("e"))[0]]
    assert sorted(states) == ["delivered", "delivered", "pending"]


async def test_a_full_redis_lets_one_dispatcher_alone_have_a_lane(own: Backend, own_server: RealServer) -> None:
    """The first attempt lasts for longer than a lease: the receiver would have it once for each lease."""
    made = await bench(own)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    _limit(own_server, 1)
    (slow,) = (await made.claim(lease=0)).claims
    assert await made.lanes.extend([slow], 60) == [True]
    assert (await made.claim(token="other")).claims == []
    assert await settle(made, slow, "delivered") == "done"


async def test_what_is_left_of_the_memory_is_known_where_redis_tells_it(own: Backend, own_server: RealServer) -> None:
    assert await read_memory_left(own) is None, "no limit"
    most = 10 * await _used(own)
    _limit(own_server, most)
    left = await read_memory_left(own)
    assert left == pytest.approx(0.9, abs=0.05)
    _limit(own_server, most, "allkeys-lru")
    assert await read_memory_left(own) is None, "it makes room by itself"
    _limit(own_server, most)
    own_server.call("ACL", "SETUSER", "plain", "on", "nopass", "~*", "&*", "+@all", "-info")
    stranger = connect(own_server.url.replace("://", "://plain:x@", 1), "bridge")
    assert await read_memory_left(stranger) is None, "it may not ask"
    await stranger.close()


async def test_nothing_is_queued_while_redis_is_nearly_full_and_an_error_line_tells_it(
    own: Backend, own_server: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    made, poster, stop = await bench(own), FakePoster(), asyncio.Event()
    await made.endpoints.create(endpoint())
    other = connect(own_server.url, "bridge")
    dispatcher = Dispatcher(other, poster, unseal=unsealed, retry=[1.0], clock=SystemClock(), render=plain, sign=named)
    _limit(own_server, int(await _used(own) / 0.95))
    running = asyncio.create_task(dispatcher.run(stop))
    await made.writer.append()
    async with asyncio.timeout(PATIENCE):
        while "less than a tenth" not in dispatcher.trouble:  # noqa: ASYNC110 - a real server's doing has no event
            await asyncio.sleep(0.02)
    assert poster.got == []
    known = await made.endpoints.get("e")
    assert known is not None
    assert known[1].pending == 1, "it waits in the log"
    _limit(own_server, 0)
    async with asyncio.timeout(PATIENCE):
        while not poster.got or dispatcher.trouble:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert told == ["Redis refuses what the dispatcher needs"]
    stop.set()
    await running
    await other.close()
