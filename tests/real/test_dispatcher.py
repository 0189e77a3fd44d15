"""A dispatcher on a real Redis and real sockets: what one endpoint's trouble, a restart and a flush leave of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.addresses import Resolve
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.host_lookup import HostLookup
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.errors import LostTailError, StoreError
from bridge.store.limits import LaneLimits
from bridge.store.log_writer import WritePosition
from bridge.webhooks.dispatcher import Dispatcher
from bridge.webhooks.transport import Poster
from tests.lanes import Writer, endpoint, unsealed
from tests.receivers import Hit, Receiver, receiving
from tests.servers import PATIENCE, RealServer

SECRET = SealedSecret("sealed:whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@dataclass
class Sending:
    backend: Backend
    writer: Writer
    receiver: Receiver
    endpoints: Endpoints

    async def register(self, *names: str, **given: object) -> None:
        for name in names:
            await self.endpoints.create(
                endpoint(name, url=f"sealed:{self.receiver.url}/{name}", secrets_sealed=(SECRET,), **given)
            )

    async def append(self, *cvms: str) -> None:
        """As a leader: over and over while Redis is away."""
        for cvm in cvms:
            before = self.writer.count
            while True:
                try:
                    self.writer.count = before
                    await self.writer.append(cvm)
                    break
                except LostTailError as lost:
                    at = self.writer.position
                    self.writer.position = WritePosition(lost.sequence, lost.last_id, (at.sequence + 1, at.last_id))
                except StoreError:
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def sending(
    url: str, retry: Sequence[float] = (0.2,) * 20, *, timeout: float = 2.0, resolve: Resolve | None = None
) -> AsyncIterator[Sending]:
    clock, stop, backend, pen = SystemClock(), asyncio.Event(), connect(url, "bridge"), connect(url, "bridge")
    allow = Settings(webhook_allow="127.0.0.0/8").webhook_allow  # type: ignore[arg-type]
    made = Poster(timeout=timeout, allow=allow, clock=clock, resolve=resolve or HostLookup())
    async with receiving() as receiver, made as poster:
        dispatcher = Dispatcher(
            backend, poster, unseal=unsealed, retry=retry, clock=clock, rng=random.Random(5), limits=LaneLimits()
        )
        running = asyncio.create_task(dispatcher.run(stop))
        try:
            yield Sending(pen, await Writer.lead(pen), receiver, Endpoints(pen))
        finally:
            stop.set()
            await running
            await backend.close()
            await pen.close()


async def test_one_endpoint_that_never_answers_costs_two_hundred_healthy_ones_nothing(redis_url: str) -> None:
    # An attempt at the dead one lasts longer than the test has patience for what waits behind it.
    async with sending(redis_url, timeout=10 * PATIENCE) as stage:
        receiver = stage.receiver

        async def answer(hit: Hit) -> int:
            return await receiver.never() if hit.path == "/dead" else 204

        receiver.answer = answer
        await stage.register("dead", *(f"e{number:03}" for number in range(200)))
        for _ in range(3):
            receiver.accepted.clear()
            await stage.append(*(f"cvm-{number}" for number in range(3)))
            await receiver.until(lambda: len(receiver.accepted) == 600, "six hundred deliveries")
        assert any(hit.path == "/dead" for hit in receiver.hits)
        receiver.closing.set()


async def test_a_failing_first_event_delays_its_own_cvm_alone(redis_url: str) -> None:
    refused = 0

    async def refusing(hit: Hit) -> int:
        nonlocal refused
        if (hit.path, hit.number) == ("/e", "1") and refused < 3:
            refused += 1
            return 500
        return 204

    async with sending(redis_url, [0.4] * 9) as stage:
        stage.receiver.answer = refusing
        await stage.register("e", "f")
        await stage.append("a", "a", "a", "b", "c")
        await stage.receiver.until(lambda: len(stage.receiver.accepted) == 10, "all")
        assert refused == 3
        assert stage.receiver.order("/e", "a") == stage.receiver.order("/f", "a") == ["1", "2", "3"]
        began = stage.receiver.hits[0].at
        others = [hit.at for hit in stage.receiver.accepted if hit.path == "/f" or hit.cvm_id != "a"]
        assert max(others) - began < 2
        assert len({hit.id for hit in stage.receiver.hits if (hit.path, hit.number) == ("/e", "1")}) == 1


async def test_a_killed_and_restarted_redis_loses_no_delivery_and_no_lane(own_server: RealServer) -> None:
    async def slow(hit: Hit) -> int:
        await asyncio.sleep(0.02)
        return 204

    async with sending(own_server.url) as stage:
        stage.receiver.answer = slow
        await stage.register("e", "f")
        await stage.append(*("abc" * 5))
        await asyncio.to_thread(own_server.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_server.start)
        await stage.append(*("abc" * 5))
        await stage.receiver.until(lambda: len({h.id for h in stage.receiver.accepted}) == 60, "all sixty")
        for path in ("/e", "/f"):
            for number, cvm in enumerate("abc", 1):
                assert stage.receiver.order(path, cvm) == [str(n) for n in range(number, 31, 3)]
        found, _ = await Deliveries(stage.backend).page("e")
        assert len(found) == 30


async def test_a_flush_is_an_honest_start_and_forgotten_scripts_are_loaded_again(own_server: RealServer) -> None:
    async with sending(own_server.url) as stage:
        await stage.register("e")
        await stage.append("a")
        await stage.receiver.until(lambda: len(stage.receiver.accepted) == 1, "before")
        own_server.call("SCRIPT", "FLUSH")
        await stage.append("a")
        await stage.receiver.until(lambda: len(stage.receiver.accepted) == 2, "after the scripts were forgotten")
        own_server.call("FLUSHALL")
        stage.writer = await Writer.lead(stage.backend, "two")
        await stage.append("a")
        await asyncio.sleep(1.2)  # a slow tick: no endpoint is registered, so nothing is sent
        assert len(stage.receiver.accepted) == 2
        await stage.register("e")
        await stage.append("a", "a")
        await stage.receiver.until(lambda: len(stage.receiver.accepted) == 4, "after the flush")
