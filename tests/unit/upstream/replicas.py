"""Replicas of `bridge upstream` that share a Redis in virtual time: frozen, cut off, killed, restarted and watched."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import fakeredis

from bridge.config import Settings
from bridge.store.connection import CALL_TIMEOUT, Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.snapshots import Snapshots
from bridge.upstream.errors import RateLimitedError
from bridge.upstream.leader import Upstream
from tests.fakes import fake_backend, fake_client
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock

T = TypeVar("T")

SETTINGS = Settings(cvms=("*",), lease_seconds=10, poll_interval=10, stream_timeout=60)

LASTING = SETTINGS.poll_interval + 2.0
"""Seconds after which a change must stand in Redis while all is well: a poll, and the answers on the way."""

DELETING = LASTING + SETTINGS.poll_interval + 2.0
"""The same for a deletion: it needs a second witness, an interval later."""


TAIL = 8.0
"""Seconds of writes that a promoted replica may lack: longer than a stream's interval, so that there are some."""

SLOW = 1.0
"""Seconds that a slow Redis takes for each command."""


@dataclass
class Link:
    """A way to Redis: whole (""), "slow", "refused" at once, "hanging", or "deaf": done, but half of the answers are
    lost."""

    mode: str = ""


class FrozenClock(VirtualClock):
    """A process's clock: a frozen process does not wake from a sleep."""

    def __init__(self, thawed: asyncio.Event) -> None:
        super().__init__()
        self._thawed = thawed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self._thawed.wait()


class ModelBackend(Backend):
    """A backend whose calls wait while its process is frozen, and fail as its links say."""

    def __init__(self, client: object, thawed: asyncio.Event, links: Iterable[Link], rng: random.Random) -> None:
        super().__init__(client, "bridge")
        self._thawed = thawed
        self._links = tuple(links)
        self._rng = rng

    async def call(self, command: Awaitable[T]) -> T:
        try:
            await self._thawed.wait()
            modes = {link.mode for link in self._links}
            if modes & {"refused", "hanging"}:
                await asyncio.sleep(0 if "refused" in modes else CALL_TIMEOUT)
                await self._thawed.wait()
                raise StoreUnavailableError
            if "slow" in modes:
                await asyncio.sleep(SLOW)
        except BaseException:
            command.close()  # type: ignore[attr-defined]
            raise
        done = await super().call(command)
        await self._thawed.wait()
        if "deaf" in modes and self._rng.random() < 0.5:
            raise StoreUnavailableError
        return done


@dataclass
class Replica:
    """One process, from its start to its end."""

    thawed: asyncio.Event
    link: Link
    clock: FrozenClock
    upstream: Upstream
    backend: Backend
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return self.upstream.leading and self.thawed.is_set() and not self.link.mode

    async def end(self) -> None:
        """A planned stop."""
        self.thawed.set()
        self.stop.set()
        if self.task is not None:
            await self.task
        await self.backend.close()

    async def kill(self) -> None:
        """Its connections close, and nothing that it would say to Redis arrives."""
        self.link.mode = "refused"
        self.thawed.set()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        await self.backend.close()


class Replicas:
    """Two of them, their Redis and its clock."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.redis_clock = VirtualClock()
        self.redis = fakeredis.FakeServer(version=(7,))
        self.link = Link()
        self.plain = fake_backend(self.redis)
        self.all: list[Replica] = []
        self.tails_lost = 0

    def start(self, index: int) -> Replica:
        """A new process in this place."""
        thawed, link, rng = asyncio.Event(), Link(), random.Random(index)
        thawed.set()
        clock = FrozenClock(thawed)
        backend = ModelBackend(fake_client(self.redis), thawed, (link, self.link), rng)
        upstream = Upstream(SETTINGS, backend, ModelClient(self.cloud, clock, thawed), clock, rng=rng)
        made = Replica(thawed, link, clock, upstream, backend)
        made.task = asyncio.create_task(upstream.run(made.stop), name=f"replica {index}")
        self.all[index : index + 1] = [made]
        return made

    async def restart(self, index: int, *, kill: bool = False) -> None:
        replica = self.all[index]
        await (replica.kill() if kill else replica.end())
        self.start(index)

    async def lose(self, what: str) -> None:
        """Redis loses all its data ("all"), its "slots", or, as a promoted replica does, the last "takes" or the log's
        "tail".

        The leader may be frozen or cut off. The standby is woken first, and has a look before and after it: without one
        nobody could know of the slots.
        """
        if what == "tail":
            await self._lose_tail()
            return
        self._wake(*(replica for replica in self.all if not replica.upstream.leading))
        slots, before = self.plain.keys.slots, await self.plain.client.hgetall(self.plain.keys.slots)
        await asyncio.sleep(1.2)
        await (self.plain.client.flushall() if what == "all" else self.plain.client.delete(slots))
        if what == "takes" and before:
            await self.plain.client.hset(slots, mapping=before)
        await asyncio.sleep(SETTINGS.lease_seconds / 3 + 1)

    async def _lose_tail(self) -> None:
        """What was written to the log in the last seconds is lost."""
        self.tails_lost += 1
        keys, client = self.plain.keys, fakeredis.FakeAsyncRedis(server=self.redis)  # this one decodes nothing
        before = {key: await client.dump(key) for key in (keys.meta, keys.log, keys.state)}
        await asyncio.sleep(TAIL)
        async with client.pipeline(transaction=True) as pipe:
            for key, data in before.items():
                pipe.delete(key)
                if data is not None:
                    pipe.restore(key, 0, data)
            await pipe.execute()
        await client.aclose()
        await asyncio.sleep(SETTINGS.lease_seconds / 3 + 1)

    async def jump(self, seconds: float) -> None:
        """Redis's clock jumps, and a standby sees it; a process that starts later could not."""
        self._wake(*(replica for replica in self.all if not replica.upstream.leading))
        self.redis_clock.jump(seconds)
        await asyncio.sleep(1.5)

    def _wake(self, *replicas: Replica) -> None:
        self.link.mode = ""
        for replica in replicas:
            replica.thawed.set()
            replica.link.mode = ""

    def heal(self) -> None:
        """Everybody is awake and reaches Redis."""
        self._wake(*self.all)

    @property
    def leader(self) -> Replica | None:
        """Who leads, awake and with a way to Redis."""
        return next((replica for replica in self.all if replica.leads and not self.link.mode), None)

    async def end(self) -> None:
        self.heal()
        for replica in self.all:
            await replica.end()
        await self.plain.close()


class Monitor:
    """Looks every second whether what lasted stands in Redis; while something is wrong, and until the bridge may
    be expected to be over it, it waits.
    """

    def __init__(self, replicas: Replicas, cloud: Cloud) -> None:
        self.replicas, self.cloud = replicas, cloud
        self.settled_at = 0.0
        self.checked = 0
        self.missed: list[str] = []
        self._leader: Replica | None = None
        self._failing = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._settle(asyncio.get_running_loop().time())
            await self._look(asyncio.get_running_loop().time())

    def expect_after(self, seconds: float) -> None:
        """Something happened that takes the bridge so long to be over."""
        self.settled_at = max(self.settled_at, asyncio.get_running_loop().time() + seconds)

    def _settle(self, now: float) -> None:
        leader = self.replicas.leader
        if leader is None or leader is not self._leader:
            self.expect_after(LASTING)
        self._leader = leader
        if self.cloud.failing is not None or self.cloud.unrouted:
            # The longest backoff of a read, or a minute at half a request a second.
            self.expect_after(90.0 if self.cloud.failing is RateLimitedError else 75.0)

    async def _look(self, now: float) -> None:
        if now < self.settled_at:
            return
        snapshots = await Snapshots(self.replicas.plain).all()
        if asyncio.get_running_loop().time() < self.settled_at or self.replicas.leader is not self._leader:
            return
        for name, status in self.cloud.status.items():
            snapshot = snapshots.get(name)
            known = snapshot.status if snapshot else None
            # Nobody waits for one that was deleted: it is looked for once a minute.
            patience = LASTING if known != "deleted" else 75.0
            patience = max(patience, DELETING) if status is None else patience
            since = self.cloud.changed_at[name] if status else max(self.cloud.changed_at[name], self.settled_at)
            if now - since <= patience:
                continue
            self.checked += 1
            if known != (status or "deleted") and not (status is None and known is None):
                self.missed.append(f"{now:.2f}: {name} is {status} since {self.cloud.changed_at[name]}, not {known}")
