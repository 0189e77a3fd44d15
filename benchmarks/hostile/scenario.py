"""Ninety endpoints that work beside ten hostile ones, on one Redis, with dispatchers that are killed and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from benchmarks.hostile.dispatchers import Dispatchers
from benchmarks.hostile.odd_machine import HEALED, HOSTILE, NEIGHBOUR
from benchmarks.webhooks import SIGNED_WITH, process
from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.limits import LaneLimits
from tests.lanes import Writer
from tests.servers import RealServer, free_port

CVMS = 20

LIMITS = LaneLimits(pending=300, finished=100, lost=90)
"""Small, so that what hostile endpoints pile up reaches its bounds within the first quarter of a short run."""

LOG_LENGTH = 200
SLOWEST = 0.02
"""Seconds until the neighbours answer, at most."""

DAYLIGHT = 3.0
"""Seconds after which an operator enables the hostile endpoints again, whatever they answered."""

AFTERWARDS = 120.0
"""Seconds that everything may take to arrive once no event comes and the hostile receivers are healed."""

ENVIRONMENT = {
    "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8",
    "BRIDGE_WEBHOOK_RETRY": ",".join(["1", "2", *["4"] * 20]),  # hostile endpoints are asked all the time
    "BRIDGE_WEBHOOK_PENDING": str(LIMITS.pending),
    "BRIDGE_WEBHOOK_HISTORY": str(LIMITS.finished),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    seconds: float = 300.0
    rate: float = 5.0
    """Events a second; each is wanted by every endpoint."""
    neighbours: int = 90
    hostile: int = 10
    every: float = 20.0
    """Seconds between two disturbances of a dispatcher, on average."""
    seed: int = 1


@dataclass(kw_only=True)
class Seen:
    """What a run left. `written`: Unix time of each event's append by number, whose CVM is the number modulo CVMS."""

    plan: Plan
    written: dict[int, float] = field(default_factory=dict)
    receipts: list[tuple[float, str, str]] = field(default_factory=list)
    """Of the neighbours: Unix time, path and number, in the order in which they came."""
    read: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Of the hostile ones: path, delivery, CVM and number."""
    used: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    dispatchers_mb: list[list[float]] = field(default_factory=list)
    redis_mb: list[float] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)
    """Deliveries of hostile endpoints that Redis has as delivered, as far as it keeps them."""
    failed_neighbours: list[str] = field(default_factory=list)
    """Those at which any attempt failed."""
    pending: int = 0
    """What still waits at the end."""
    healing: float = 0.0
    statuses: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass
class Scene:
    """The running parts."""

    plan: Plan
    seen: Seen
    backend: Backend
    server: RealServer
    dispatchers: Dispatchers
    session: aiohttp.ClientSession
    sink: str
    control: str
    healed: Path

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self.backend, LIMITS)

    async def collect(self) -> None:
        """The neighbours' receipts so far."""
        async with self.session.get(self.sink) as answer:
            self.seen.receipts += [(at, path, number) for at, path, number in await answer.json()]

    async def write(self) -> None:
        writer, began = await Writer.lead(self.backend, log_length=LOG_LENGTH), time.monotonic()
        for number in range(1, int(self.plan.seconds * self.plan.rate) + 1):
            await asyncio.sleep(max(began + number / self.plan.rate - time.monotonic(), 0))
            self.seen.written[number] = time.time()
            await writer.append(f"cvm-{number % CVMS}")

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.seen.dispatchers_mb.append(self.dispatchers.megabytes())
            used = (await self.backend.client.info("memory"))["used_memory"]
            self.seen.redis_mb.append(int(used) / 2**20)
            await self.collect()

    async def operate(self) -> None:
        while True:
            await asyncio.sleep(DAYLIGHT)
            await self.enable()

    async def enable(self) -> None:
        """Ends what 410 and `Retry-After` led to."""
        for number in range(self.plan.hostile):
            await self.endpoints.disable(f"h{number}")
            await self.endpoints.enable(f"h{number}")

    async def heal(self) -> None:
        """Waits until everything has arrived; what then still waits is counted."""
        began = time.monotonic()
        self.healed.touch()
        async with self.session.get(f"{self.control}/heal") as answer:
            assert answer.status == 200
        await self.enable()
        while (pending := await self.pending()) and time.monotonic() - began < AFTERWARDS:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        self.seen.pending, self.seen.healing = pending, time.monotonic() - began
        async with self.session.get(f"{self.control}/tell") as answer:
            told = await answer.json(content_type=None)
        self.seen.read, self.seen.used = [tuple(each) for each in told["read"]], Counter(told["used"])
        await self.collect()

    async def pending(self) -> int:
        return sum(health.pending for _, health in await self.endpoints.page(limit=1000))

    async def look_back(self) -> None:
        """What Redis has about each endpoint."""
        for endpoint, health in await self.endpoints.page(limit=1000):
            if endpoint.id.startswith("h"):
                page, _ = await Deliveries(self.backend, LIMITS).page(endpoint.id, status="delivered", limit=1000)
                self.seen.recorded |= {each.id for each in page}
            elif health.last_failure_at:
                self.seen.failed_neighbours.append(endpoint.id)


async def play(plan: Plan) -> Seen:
    """The run itself lasts for `plan.seconds`."""
    seen, rng = Seen(plan=plan), random.Random(plan.seed)
    async with _scene(plan, seen) as scene:
        await scene.dispatchers.ready(scene.session)
        tasks = [
            asyncio.create_task(each)
            for each in (scene.dispatchers.disturb(rng, plan.every), scene.watch(), scene.operate())
        ]
        try:
            await scene.write()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await scene.heal()
        await scene.look_back()
        seen.statuses = scene.dispatchers.ended + await scene.dispatchers.end()
        seen.done, seen.errors = scene.dispatchers.done, scene.dispatchers.errors()
    return seen


@contextlib.asynccontextmanager
async def _scene(plan: Plan, seen: Seen) -> AsyncIterator[Scene]:
    key, port = new_key(), free_port()
    sink = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-hostile-")))
        server = stack.enter_context(RealServer())
        await _first_line(stack.enter_context(process("-m", "benchmarks.sink", str(port), str(SLOWEST))))
        hostile = stack.enter_context(process("-m", "benchmarks.hostile.receivers", f"{sink}/redirected"))
        hostile_port = int(await _first_line(hostile))
        backend = connect(server.url, "bridge")
        await _register(Endpoints(backend, LIMITS), Sealer([SecretStr(key)]), plan, port, hostile_port)
        environment = {
            **ENVIRONMENT,
            "REDIS_URL": server.url,
            "BRIDGE_SECRET_KEY": key,
            HEALED: str(directory / "healed"),
        }
        dispatchers = Dispatchers(environment, directory)
        stack.callback(dispatchers.close)
        async with aiohttp.ClientSession() as session:
            control = f"http://127.0.0.1:{hostile_port}"
            healed = directory / "healed"
            yield Scene(plan, seen, backend, server, dispatchers, session, sink, control, healed)
        await backend.close()


async def _first_line(started: subprocess.Popen[bytes]) -> str:
    assert started.stdout is not None
    return (await asyncio.to_thread(started.stdout.readline)).decode()


async def _register(endpoints: Endpoints, sealer: Sealer, plan: Plan, port: int, hostile_port: int) -> None:
    """Every other neighbour has a name; each hostile one has its own."""
    urls = {
        f"n{number:03}": f"http://{f'n{number}{NEIGHBOUR}' if number % 2 else '127.0.0.1'}:{port}/n{number:03}"
        for number in range(plan.neighbours)
    }
    urls |= {f"h{number}": f"http://h{number}{HOSTILE}:{hostile_port}/h{number}" for number in range(plan.hostile)}
    for id, url in urls.items():
        secrets = (SealedSecret(sealer.seal(SIGNED_WITH)),)
        await endpoints.create(Endpoint(id, sealer.seal(url), secrets_sealed=secrets))
