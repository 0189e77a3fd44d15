"""A leader that is frozen just when Redis loses its slots: two processes, on an upstream that only counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bridge.events import Event
from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from bridge.store.connection import Backend, connect
from bridge.store.errors import StoreUnavailableError
from bridge.store.log import Log
from bridge.store.slots import Slots
from tests.commands import Command
from tests.faults.test_lost_tail import cut_off
from tests.servers import Guarded, RealServer, eventually, guarded

CVMS = 8
LEASE = 1.0


@contextlib.contextmanager
def flushed(binary: Path) -> Iterator[tuple[str, RealServer, Callable[[], object]]]:
    """A server, and how to empty it."""
    with RealServer(binary, tcp=True) as server:
        yield server.url, server, lambda: server.call("FLUSHALL")


@contextlib.contextmanager
def promoted(binary: Path) -> Iterator[tuple[str, RealServer, Callable[[], object]]]:
    """A primary whose replica got nothing, and how to have that one promoted."""
    with guarded(binary) as trio:
        # So long that the replica still counts as fit: ten times this without its primary.
        trio.sentinel.call("SENTINEL", "SET", "main", "down-after-milliseconds", "2000")
        cut_off(trio)
        yield trio.url, trio.primary, lambda: promote(trio)


def promote(trio: Guarded) -> None:
    trio.primary.kill()
    eventually(lambda: trio.sentinel.primary_port() == trio.replica.port, "the replica is promoted")


class Watched:
    """The simulator's counts, and the log."""

    def __init__(self, sim: Running, backend: Backend) -> None:
        self.sim, self._backend = sim, backend

    async def counts(self) -> tuple[int, int, int]:
        """Streams open now, most at the same time, most of one CVM."""
        async with httpx.AsyncClient() as http:
            counted = (await http.get(f"{self.sim.control}/streams")).json()
        most = max((each["max"] for each in counted["cvms"].values()), default=0)
        return counted["open"], counted["users"].get("demo", {"max": 0})["max"], most

    async def log(self) -> list[Event]:
        with contextlib.suppress(StoreUnavailableError):
            return await Log(self._backend).read("0-0", 9999)
        return []

    async def all_become(self, status: str) -> None:
        """Changes every CVM, and waits until the log has it."""
        async with httpx.AsyncClient() as http:
            for cvm in self.sim.simulator.world.cvms:
                await http.patch(f"{self.sim.control}/cvms/{cvm.vm_uuid}", json={"status": status, "push": True})

        async def recorded() -> bool:
            last = {event.cvm_id: json.loads(event.json)["data"].get("to") for event in await self.log()}
            return list(last.values()) == [status] * CVMS

        await until(recorded, f"all are {status}")


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not await holds():  # noqa: ASYNC110 - another process's doing has no event
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise AssertionError(f"{what} did not come true") from error


def seen(server: RealServer) -> None:
    """Returns once a standby has looked at the slots twice: only standbys read them again and again."""
    for _ in range(2):
        server.call("SCRIPT", "FLUSH")
        eventually(lambda: server.call("SCRIPT", "EXISTS", Slots._read.sha) == [True], "a look at the slots")


@pytest.mark.parametrize("losing", [flushed, promoted])
async def test_slots_that_are_lost_while_their_leader_is_frozen_are_not_used_again_before_their_time(
    losing: Callable[[Path], contextlib.AbstractContextManager[tuple[str, RealServer, Callable[[], object]]]],
    server_binary: Path,
    tmp_path: Path,
) -> None:
    world = World(seed=7, cvms=CVMS, frozen=True)
    async with serve(world=world, instant=True, operations=False) as sim:
        with losing(server_binary) as (url, server, lose):
            backend = connect(url, "bridge")
            watched = Watched(sim, backend)
            async with httpx.AsyncClient() as http:
                await http.patch(f"{sim.control}/settings", json={"limit": 100})
            given = {
                "REDIS_URL": url,
                "PHALA_CLOUD_API_KEY": "key",
                "PHALA_CLOUD_API_PREFIX": sim.api_prefix,
                "BRIDGE_CVMS": "*",
                "BRIDGE_LEASE_SECONDS": str(LEASE),
                "BRIDGE_POLL_INTERVAL": "0.2",
                "BRIDGE_STREAM_TIMEOUT": "10",
            }
            leader, standby = Command(tmp_path, "upstream", **given), Command(tmp_path, "upstream", **given)

            async def five() -> bool:
                return (await watched.counts())[0] == 5

            await until(five, "five streams")
            if "leading" in standby.errors:
                leader, standby = standby, leader
            await asyncio.to_thread(seen, server)
            os.kill(leader.process.pid, signal.SIGSTOP)
            await asyncio.to_thread(lose)
            await watched.all_become("stopping")
            await asyncio.sleep(2 * LEASE)  # until a leader that knew of no slots would long have opened its own
            os.kill(leader.process.pid, signal.SIGCONT)
            await asyncio.to_thread(leader.shows, "no longer leading")
            await watched.all_become("stopped")
            _, most, of_one = await watched.counts()
            numbers = [event.sequence for event in await watched.log()]
            leader.process.terminate()
            assert standby.ends(signal.SIGTERM) == leader.ends() == 0
            await backend.close()
    assert (most, of_one) == (5, 1)
    assert numbers == list(range(1, len(numbers) + 1))
    assert "slots_waiting" in standby.errors
