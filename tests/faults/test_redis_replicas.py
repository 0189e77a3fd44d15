"""A Redis with a replica: silent, promoted beside a primary that goes on, or not told of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.store.connection import connect
from bridge.store.errors import UnconfirmedError
from bridge.store.leadership import Leadership, Term
from bridge.store.replicas import read_copies
from bridge.store.slots import Slots
from bridge.upstream.client import PhalaClient
from bridge.upstream.leader import Upstream
from tests.bridges import Whole, whole
from tests.servers import RealServer, cluster, cluster_url, eventually


@contextmanager
def pair() -> Iterator[tuple[RealServer, RealServer]]:
    """A primary and its replica, in step, without a sentinel."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(RealServer(tcp=True, options={"repl-diskless-sync-delay": "0"}))
        follows = {"replicaof": f"127.0.0.1 {primary.port}"}
        replica = stack.enter_context(RealServer(tcp=True, options=follows))
        eventually(lambda: replica.call("INFO")["master_link_status"] == "up", "the replica in step")
        eventually(lambda: primary.call("INFO")["slave0"]["state"] == "online", "the primary knows")
        yield primary, replica


@asynccontextmanager
async def second(bridge: Whole, redis_url: str) -> AsyncIterator[Upstream]:
    """Another process on another Redis."""
    settings = Settings(cvms=("*",), poll_interval=0.2, lease_seconds=1, stream_timeout=10)
    backend, clock, stop = connect(redis_url, "bridge"), SystemClock(), asyncio.Event()
    client = PhalaClient(bridge.sim.api_prefix, "key", clock=clock)
    upstream = Upstream(settings, backend, client, clock)
    running = asyncio.create_task(upstream.run(stop))
    try:
        yield upstream
    finally:
        stop.set()
        await running
        await client.aclose()
        await backend.close()


async def streams(bridge: Whole, count: int) -> bool:
    return int((await bridge.control("GET", "/streams"))["open"]) == count


async def test_a_lease_that_the_silent_replica_does_not_confirm_ends() -> None:
    with pair() as (primary, replica):
        async with whole(primary.url, cvms=6) as bridge:
            await bridge.until(lambda: streams(bridge, 5), "five streams")
            replica.freeze()
            await bridge.until(lambda: streams(bridge, 0), "no stream outlives the lease")

            async def leads_no_more() -> bool:
                return not bridge.upstream.leading

            await bridge.until(leads_no_more, "the term ends with its streams")
            replica.thaw()
            await bridge.until(lambda: streams(bridge, 5), "five streams again")


async def test_a_lead_that_the_silent_replica_does_not_confirm_is_given_back(caplog: pytest.LogCaptureFixture) -> None:
    with pair() as (primary, replica):
        replica.freeze()
        async with whole(primary.url, cvms=6) as bridge:

            async def given_back() -> bool:
                until = await asyncio.to_thread(primary.call, "HMGET", "{bridge}:leader", "epoch", "until")
                return int(until[0] or 0) > 1 and until[1] == "0"

            await bridge.until(given_back, "a lead was given back, and asked for again")
            assert "no replica of Redis confirms what is written" in caplog.text
            assert not bridge.upstream.leading
            assert await bridge.log() == []
            replica.thaw()
            await bridge.until(lambda: streams(bridge, 5), "five streams")
            counted = await bridge.control("GET", "/streams")
    assert counted["users"]["demo"]["opened"] == 5


async def test_beside_a_promoted_replica_the_old_primary_opens_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.upstream.watcher.OPEN_GRACE", 1.0)
    monkeypatch.setattr("bridge.upstream.watcher.END_GRACE", 1.0)
    with pair() as (primary, replica):
        async with whole(primary.url, cvms=6, time_scale=1.0, settings={"stream_timeout": 10}) as bridge:
            await bridge.control("PATCH", "/settings", json={"limit": 100})
            await bridge.until(lambda: streams(bridge, 5), "five streams")
            replica.call("REPLICAOF", "NO", "ONE")
            async with second(bridge, replica.url) as other:

                async def taken_over() -> bool:
                    return other.context is not None and sum(slot.opened_at > 0 for slot in other.context.slots) == 5

                await bridge.until(taken_over, "the other process has opened five streams")
                assert other.leading
                assert bridge.upstream.leading, "two lead: nothing of the one reaches the other"
                counted = await bridge.control("GET", "/streams")
    assert counted["users"]["demo"]["max"] <= 5
    assert max(each["max"] for each in counted["cvms"].values()) == 1


async def test_a_slot_that_no_replica_confirms_is_not_taken_for_a_stream() -> None:
    with pair() as (primary, replica):
        backend = connect(primary.url, "bridge")
        term = await Leadership(backend).acquire("one", 10, "log")
        assert isinstance(term, Term)
        assert await Slots(backend).take(term, 0, "a", 100, 1000) == 0
        replica.freeze()
        with pytest.raises(UnconfirmedError):
            await Slots(backend).take(term, 1, "b", 100, 100)
        await backend.close()


async def test_a_cluster_tells_its_replicas_and_a_user_without_the_rights_gets_no_answer(
    own_server: RealServer,
) -> None:
    with cluster() as server:
        backend = connect(cluster_url(server), "bridge")
        assert (await read_copies(backend)).connected == 0
        assert isinstance(await Leadership(backend).acquire("one", 10, "log", wait_ms=50), Term)
        await backend.close()
    own_server.call("ACL", "SETUSER", "bridge", "on", ">password", "+@all", "~*", "&*", "-info", "-wait")
    backend = connect(f"redis://bridge:password@127.0.0.1:{own_server.port}/0", "bridge")
    leadership = Leadership(backend)
    assert isinstance(await leadership.acquire("one", 10, "log", wait_ms=50), Term)
    assert (leadership.copies.confirmed, leadership.copies.connected) == (None, None)
    await backend.close()
