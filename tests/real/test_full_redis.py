"""A Redis whose memory is used up: what is under way ends as it should, and nothing more is queued."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from bridge.commands.check import run_check
from bridge.config import Settings
from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.memory import read_memory_left
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.webhooks.dispatcher import LEASE
from tests.commands import Command
from tests.lanes import Writer, bench, endpoint, settle
from tests.receivers import Hit, receiving
from tests.servers import PATIENCE, RealServer

SIGNED_WITH = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _limit(server: RealServer, most: int, policy: str = "noeviction") -> None:
    server.call("CONFIG", "SET", "maxmemory-policy", policy)
    server.call("CONFIG", "SET", "maxmemory", str(most))


async def _used(backend: Backend) -> int:
    return int((await backend.client.info("memory"))["used_memory"])


async def _checked(server: RealServer, pattern: str) -> bool:
    """Whether `bridge check` finds nothing wrong; one of its lines is as the pattern."""
    told: list[str] = []
    fine = await run_check(Settings(redis_url=server.url), told.append)
    assert [line for line in told if re.match(pattern, line)], told
    return fine


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
    assert await settle(made, last, "gone", 3600) == "disabled"
    _limit(own_server, 0)
    assert await own.client.xlen(own.keys.notices) == 1, "it is told"
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
    assert await _checked(own_server, r"  ok       (89|9\d) % of its maxmemory are free")
    _limit(own_server, int(await _used(own) / 0.95))
    assert not await _checked(own_server, r"  WRONG    only \d % of its maxmemory are free")
    _limit(own_server, most)
    _limit(own_server, most, "allkeys-lru")
    assert await read_memory_left(own) is None, "it makes room by itself"
    _limit(own_server, most)
    own_server.call("ACL", "SETUSER", "plain", "on", "nopass", "~*", "&*", "+@all", "-info")
    stranger = connect(own_server.url.replace("://", "://plain:x@", 1), "bridge")
    assert await read_memory_left(stranger) is None, "it may not ask"
    await stranger.close()


async def test_a_full_redis_is_read_as_before(own: Backend, own_server: RealServer) -> None:
    made, watches = await bench(own), Watches(own)
    await made.endpoints.create(endpoint())
    await made.writer.append("a")
    await made.fill()
    await watches.want("a")

    async def seen() -> list[object]:
        survey = await watches.survey()
        again = await watches.survey(survey)
        deliveries = (await Deliveries(own).page("e"))[0]
        watched = await watches.some(["a", "b"])
        return [survey.watches, again.watches, watched, await Snapshots(own).all(), [each.id for each in deliveries]]

    before = await seen()
    _limit(own_server, 1)
    assert await seen() == before


async def test_a_slow_receiver_gets_each_delivery_once_and_what_comes_then_waits_in_the_log(
    own: Backend, own_server: RealServer, tmp_path: Path
) -> None:
    """The whole way: an attempt that lasts for longer than a lease, begun before Redis is full and recorded then."""
    key, writer = new_key(), await Writer.lead(own)
    sealer, answers = Sealer([SecretStr(key)]), asyncio.Event()

    async def answer(hit: Hit) -> int:
        await answers.wait()
        return 204

    async with receiving() as receiver:
        receiver.answer = answer
        await Endpoints(own).create(
            endpoint(url=sealer.seal(receiver.url), secrets_sealed=(SealedSecret(sealer.seal(SIGNED_WITH)),))
        )
        for cvm in ("a", "a", "b"):
            await writer.append(cvm)
        dispatcher = Command(
            tmp_path, "dispatcher", REDIS_URL=own_server.url, BRIDGE_SECRET_KEY=key, BRIDGE_WEBHOOK_ALLOW="127.0.0.0/8"
        )
        await receiver.until(lambda: len(receiver.hits) == 2, "both lanes are being attempted")
        _limit(own_server, 1)
        await asyncio.sleep(LEASE + 1)
        answers.set()
        async with asyncio.timeout(PATIENCE):
            while {each.status for each in (await Deliveries(own).page("e"))[0]} != {"delivered"}:  # noqa: ASYNC110 - in Redis
                await asyncio.sleep(0.05)
        _limit(own_server, int(await _used(own) / 0.95))
        await writer.append("c")
        await asyncio.to_thread(dispatcher.shows, "less than a tenth")
        known = await Endpoints(own).get("e")
        assert known is not None
        assert known[1].pending == 1, "it waits in the log"
        assert len(receiver.hits) == 3
        _limit(own_server, 0)
        await receiver.until(lambda: len(receiver.accepted) == 4, "the dispatcher goes on by itself")
        assert await asyncio.to_thread(dispatcher.ends, signal.SIGTERM) == 0
    assert len(receiver.hits) == 4
    assert dispatcher.errors.count('"level": "error"') == 1
