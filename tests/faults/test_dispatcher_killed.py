"""`bridge dispatcher` as a process, killed at its worst moments, against a receiver that fails half of its answers.

`python -m benchmarks.hostile` is the long form: a hundred endpoints, several dispatchers, minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from pydantic import SecretStr

from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.webhooks.dispatcher import LEASE
from tests.hostile import Hostile, ways
from tests.lanes import Writer
from tests.posting import Answer
from tests.posting import receiver as serving
from tests.receivers import Hit, Receiver, receiving

CVMS = ("a", "b", "c", "d")
EVENTS = 60
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOSTILE = ("h0", "h1", "h2")


def _repeated_ways() -> dict[str, Answer]:
    """Those after which more attempts are soon made."""
    silencing = {"410", "Retry-After of a century"}
    return {name: way for name, way in ways("http://127.0.0.1:9/").items() if name not in silencing}


class Dispatchers:
    """One after the other, with these settings; `killed` has the moments."""

    def __init__(self, redis_url: str, key: str, **settings: str) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path.cwd()),
            "REDIS_URL": redis_url,
            "BRIDGE_SECRET_KEY": key,
            "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8",
            "BRIDGE_WEBHOOK_RETRY": ",".join(["0.1"] * 60),
            **settings,
        }
        self.killed: list[float] = []
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "bridge", "dispatcher"], env=self._environment)

    def kill(self) -> None:
        """SIGKILL, and a successor."""
        self.process.kill()
        self.process.wait()
        self.killed.append(time.monotonic())
        self.start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


class Unreliable:
    """Fails half; the chosen acceptance is answered while the dispatcher is frozen, which then dies."""

    def __init__(self, receiver: Receiver, dispatchers: Dispatchers, chosen: int) -> None:
        self._rng = random.Random(11)
        self._receiver, self._dispatchers, self._chosen = receiver, dispatchers, chosen
        self.frozen: Hit | None = None

    async def answer(self, hit: Hit) -> int:
        if self._rng.random() < 0.5:
            return 500
        if self.frozen is None and len(self._receiver.accepted) >= self._chosen:
            self.frozen = hit
            self._dispatchers.freeze()
        return 204


async def _register(backend: Backend, sealer: Sealer, url: str, *names: str) -> None:
    secret = (SealedSecret(sealer.seal(SECRET)),)
    for name in names or ("e", "f"):
        await Endpoints(backend).create(Endpoint(name, sealer.seal(f"{url}/{name}"), secrets_sealed=secret))


async def test_every_event_arrives_in_order_with_one_id_whatever_is_killed_when_beside_hostile_receivers(
    redis_url: str,
) -> None:
    key, backend = new_key(), connect(redis_url, "bridge")
    writer, sealer = await Writer.lead(backend), Sealer([SecretStr(key)])
    hostile = Hostile(_repeated_ways(), random.Random(3))
    async with receiving() as receiver, serving(hostile.answer) as odd:
        await _register(backend, sealer, receiver.url)
        await _register(backend, sealer, odd.url(path=""), *HOSTILE)
        dispatchers = Dispatchers(redis_url, key, BRIDGE_WEBHOOK_TIMEOUT="3")
        unreliable = Unreliable(receiver, dispatchers, 40)
        receiver.answer = unreliable.answer
        try:
            for number in range(EVENTS):
                await writer.append(CVMS[number % len(CVMS)])
            await receiver.until(lambda: len(receiver.accepted) > 15, "some are delivered")
            await asyncio.to_thread(dispatchers.kill)  # between attempts, or in one
            await receiver.until(lambda: unreliable.frozen is not None, "a 204 that nobody records")
            await asyncio.sleep(0.1)  # the answer is on its way
            await asyncio.to_thread(dispatchers.kill)
            await receiver.until(_all_accepted(receiver), "everything is delivered")
        finally:
            status = await asyncio.to_thread(dispatchers.end)
        assert status == 0
        found, _ = await Deliveries(backend).page("e", limit=EVENTS)
        assert {each.status for each in found} == {"delivered"}
        assert len(hostile.used) > 10
        for name in HOSTILE:
            found, _ = await Deliveries(backend).page(name, status="delivered", limit=EVENTS)
            assert {each.id for each in found} <= {each.id for each in hostile.read}
    await backend.close()
    _assert_in_order(receiver.hits, receiver.accepted)
    _assert_explained(receiver.accepted, dispatchers.killed)
    assert sum(hit.id == unreliable.frozen.id for hit in receiver.accepted if unreliable.frozen) == 2


async def test_a_frozen_dispatchers_lanes_go_on_within_the_lease_and_it_disturbs_nothing_when_it_wakes(
    redis_url: str,
) -> None:
    key, backend = new_key(), connect(redis_url, "bridge")
    writer, sealer = await Writer.lead(backend), Sealer([SecretStr(key)])
    async with receiving() as receiver:
        first = Dispatchers(redis_url, key)
        try:
            await _register(backend, sealer, receiver.url)
            await writer.append("a")
            await receiver.until(lambda: len(receiver.accepted) == 2, "the first dispatcher delivers")
            slow = asyncio.Event()

            async def answer(hit: Hit) -> int:
                await slow.wait()
                return 204

            receiver.answer = answer
            for number in range(12):
                await writer.append(CVMS[number % len(CVMS)])
            await receiver.until(lambda: len(receiver.hits) == 2 + 2 * len(CVMS), "all lanes are being attempted")
            first.freeze()
            second, frozen_at, known = Dispatchers(redis_url, key), time.monotonic(), len(receiver.hits)
            slow.set()
            try:
                await receiver.until(lambda: len({hit.id for hit in receiver.accepted}) == 26, "the second has all")
                assert receiver.hits[known].at - frozen_at < LEASE + 1.5
                first.process.send_signal(signal.SIGCONT)
                await writer.append("a")
                await receiver.until(lambda: len({hit.id for hit in receiver.accepted}) == 28, "the last one")
            finally:
                assert await asyncio.to_thread(second.end) == 0
        finally:
            status = await asyncio.to_thread(first.end)
        assert status == 0
    await backend.close()
    _assert_in_order(receiver.hits, receiver.accepted)
    # Twice only what was in flight when it froze: one delivery of each lane at the most.
    twice = len(receiver.accepted) - 28
    assert twice <= 2 * len(CVMS)


def _all_accepted(receiver: Receiver) -> Callable[[], bool]:
    return lambda: len({hit.id for hit in receiver.accepted}) == 2 * EVENTS


def _assert_in_order(hits: list[Hit], accepted: list[Hit]) -> None:
    """None was attempted before the one ahead of it in its lane was accepted; each has one id and one body."""
    first = {hit.id: hit.at for hit in reversed(accepted)}
    lanes = defaultdict[tuple[str, str], dict[int, str]](dict)
    for hit in hits:
        assert lanes[hit.path, hit.cvm_id].setdefault(int(hit.number), hit.id) == hit.id
    for hit in hits:
        lane = lanes[hit.path, hit.cvm_id]
        before = [number for number in lane if number < int(hit.number)]
        assert all(first[lane[number]] <= hit.at for number in before)
    assert len({(hit.id, hit.body) for hit in hits}) == sum(len(lane) for lane in lanes.values())


def _assert_explained(accepted: list[Hit], killed: list[float]) -> None:
    """What was accepted twice was accepted once before and once after a dispatcher was killed."""
    times = defaultdict[str, list[float]](list)
    for hit in accepted:
        times[hit.id].append(hit.at)
    for moments in times.values():
        for earlier, later in pairwise(moments):
            assert any(earlier <= moment <= later for moment in killed)
