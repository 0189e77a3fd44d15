"""Deliveries per second of one dispatcher against bare posting loops, and how soon an event is received.

All in one run on one machine: a sink, a Redis server and a `bridge dispatcher` as processes of their own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import httpx
from pydantic import SecretStr

from bridge.events import TRANSITION, Draft, cvm_data
from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from bridge.webhook_formats import Signature
from bridge.webhook_keys import new_private_text
from tests.servers import RealServer, free_port

AT_ONCE = 64
ENDPOINTS = 1_000
EVENTS = 20
ROUNDS = 3
RATES = (200, 1_000)
"""Events a second."""
SECONDS = 5
SIGNED_WITH = "whsec_" + base64.b64encode(bytes(24)).decode()


class Pen:
    """A leader that writes what it is told."""

    def __init__(self, backend: Backend, term: Term) -> None:
        self.backend = backend
        self._log_writer, self._term = LogWriter(backend, 100_000), term
        self._written = WritePosition(term.sequence, term.last_id)

    async def append(self, cvm_id: str, number: int) -> None:
        state = f'{{"status":"{number}","id":"{cvm_id}","name":"web","uptime":"1h","boot_progress":null}}'
        data = cvm_data(cvm_id, "web", ("starting", "running"), "stream", state)
        draft = Draft(TRANSITION, cvm_id, "2026-11-24T16:00:00.000Z", data)
        snapshot = Snapshot(cvm_id, state, str(number), "web", "t", "t")
        self._written = await self._log_writer.append(self._term, self._written, draft, snapshot, ran=True)


@contextlib.contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environment}
    with subprocess.Popen([sys.executable, *arguments], env=given, stdout=subprocess.PIPE) as started:
        try:
            yield started
        finally:
            started.kill()


async def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.05)


async def drained(session: aiohttp.ClientSession, sink: str, count: int) -> list[tuple[float, str]]:
    """What the sink received, once it has received so many."""
    found: list[tuple[float, str]] = []

    async def all_there() -> bool:
        async with session.get(sink) as answer:
            found.extend((at, text) for at, _, text in await answer.json())
        return len(found) >= count

    await until(all_there)
    return found


async def bare(session: aiohttp.ClientSession, sink: str, count: int, body: bytes) -> float:
    """Posts per second of a loop that does nothing else."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            async with session.post(sink, data=body, headers={"content-type": "application/json"}) as answer:
                await answer.read()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began)


async def naive(sink: str, count: int, body: bytes) -> float:
    left = iter(range(count))
    async with httpx.AsyncClient() as client:

        async def work() -> None:
            for _ in left:
                await client.post(sink, content=body, headers={"content-type": "application/json"})

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return count / (time.perf_counter() - began)


async def register(backend: Backend, sealer: Sealer, sink: str, count: int, scheme: Signature = "v1") -> None:
    endpoints = Endpoints(backend)
    secret, key = ((SealedSecret(sealer.seal(text)),) for text in (SIGNED_WITH, new_private_text()))
    for number in range(count):
        made = Endpoint(f"e{number:05}", sealer.seal(f"{sink}/{number}"), secrets_sealed=secret, keys_sealed=key)
        await endpoints.create(replace(made, signatures=(scheme,)))


@contextlib.asynccontextmanager
async def registered(sink: str, endpoints: int, scheme: Signature = "v1") -> AsyncIterator[tuple[Pen, dict[str, str]]]:
    """A server with endpoints at the sink: a pen for its log, and the environment of a dispatcher."""
    key = new_key()
    with RealServer() as server:
        backend = connect(server.url, "bridge")
        term = await Leadership(backend).acquire("bench", 3600, "birth", "0-0")
        assert isinstance(term, Term)
        await register(backend, Sealer([SecretStr(key)]), sink, endpoints, scheme)
        yield (
            Pen(backend, term),
            {"REDIS_URL": server.url, "BRIDGE_SECRET_KEY": key, "BRIDGE_WEBHOOK_ALLOW": "127.0.0.0/8"},
        )
        await backend.close()


@contextlib.asynccontextmanager
async def bridge(sink: str, endpoints: int, scheme: Signature = "v1") -> AsyncIterator[Pen]:
    """A dispatcher that delivers to the sink, and a pen for the log it reads."""
    async with registered(sink, endpoints, scheme) as (pen, environment):
        with process("-m", "bridge", "dispatcher", **environment):
            await pen.append("warm-up", -1)
            yield pen


async def throughput(session: aiohttp.ClientSession, sink: str, scheme: Signature = "v1") -> float:
    async with bridge(sink, ENDPOINTS, scheme) as pen:
        await drained(session, sink, ENDPOINTS)
        for number in range(EVENTS):
            await pen.append(f"cvm-{number}", number)
        found = sorted(at for at, _ in await drained(session, sink, ENDPOINTS * EVENTS))
        return (len(found) - 1) / (found[-1] - found[0])


async def latency(session: aiohttp.ClientSession, sink: str, rate: int) -> list[float]:
    """Milliseconds from append to receipt, sorted."""
    written: dict[str, float] = {}
    async with bridge(sink, 1) as pen:
        await drained(session, sink, 1)
        began = time.perf_counter()
        for number in range(rate * SECONDS):
            await asyncio.sleep(max(began + number / rate - time.perf_counter(), 0))
            written[str(number)] = time.time()
            await pen.append(f"cvm-{number % 50}", number)
        found = await drained(session, sink, len(written))
    return sorted((at - written[text]) * 1000 for at, text in found if text in written)


async def measure() -> None:
    port = free_port()
    sink = f"http://127.0.0.1:{port}"
    body = json.dumps(
        {"type": TRANSITION, "timestamp": "t", "data": {"state": {"status": "1", "fill": "x" * 500}}}
    ).encode()
    with process("-m", "benchmarks.sink", str(port)) as started:
        assert started.stdout is not None
        await asyncio.to_thread(started.stdout.readline)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await bare(session, sink, 2_000, body)
            loops, plain, delivered, by_key = [], [], [], []
            for _ in range(ROUNDS):
                loops.append(await bare(session, sink, 10_000, body))
                plain.append(await naive(sink, 1_000, body))
                await drained(session, sink, 0)
                delivered.append(await throughput(session, sink))
                by_key.append(await throughput(session, sink, "v1a"))
            waits = {rate: await latency(session, sink, rate) for rate in RATES}
    _tell([statistics.median(each) for each in (loops, plain, delivered, by_key)], waits)


def _tell(medians: list[float], waits: dict[int, list[float]]) -> None:
    loop, plain, delivered, by_key = medians
    print(
        f"webhooks: one dispatcher, {ENDPOINTS} endpoints, a local sink; medians of {ROUNDS}; loops: {AT_ONCE} at once"
    )
    print(f"  deliveries a second   {delivered:8.0f}   ({delivered / loop:.2f} of the bare loop)")
    print(f"  signed with v1a       {by_key:8.0f}   ({by_key / delivered:.2f} of v1)")
    print(f"  bare aiohttp loop     {loop:8.0f}")
    print(f"  naive httpx loop      {plain:8.0f}")
    for rate, found in waits.items():
        p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
        print(f"  append -> received at {rate}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def run() -> None:
    asyncio.run(measure())


if __name__ == "__main__":
    run()
