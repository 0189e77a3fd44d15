"""One contestant, one round: connect everybody, send events, sit idle, let all reconnect at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass

from benchmarks.fanout.contestants import Contestant
from benchmarks.fanout.figures import Herd, Round, faults, since_sent, spread
from benchmarks.fanout.load import Answer, LoadClient
from benchmarks.fanout.machine import cpu_seconds, listen_overflows, memory

ALL, LIVE = 0, 1
"""The groups of the load client: those that are counted, and those that listen while the first reconnect."""

WARMING = 100
"""Subscribers who come and go first, so that what a server sets up once is not counted as theirs."""

PATIENCE = 60.0
"""Seconds until what has not arrived counts as missing; the slowest contestant takes three for an event."""

CONNECT_PATIENCE = 180.0

LIVE_SUBSCRIBERS, LIVE_EVENTS = 100, 400
"""Of a herd's live group; the events are more than PATIENCE holds at any rate in use."""


@dataclass(frozen=True)
class Plan:
    """How one round is done. `idle` is in seconds, 0: left out; `backlog`: events that a herd missed, 0: no herd."""

    subscribers: int = 10_000
    events: int = 10
    rate: float = 2.0
    in_flight: int = 250
    """Connections that are being opened at a time: below nginx's usual backlog."""
    rush: int = 4000
    """The same for a herd, which does not wait its turn: as many as a server's backlog may hold (Linux: 4096)."""
    idle: float = 0.0
    backlog: int = 0


class Race:
    """The steps of a round, on a server that is up. Events are numbered over all of them."""

    def __init__(self, contestant: Contestant, client: LoadClient, plan: Plan) -> None:
        self._contestant, self._client, self._plan = contestant, client, plan
        self._number = 0
        self._round = Round()

    async def run(self) -> Round:
        await self._warm_up()
        before = memory(self._contestant.pid)
        await self._connect()
        await self._send()
        self._round.bytes_each = (memory(self._contestant.pid) - before) / self._plan.subscribers
        if self._plan.idle:
            self._round.idle_percent = await self._idle()
        await self._client.close(ALL)
        if self._plan.backlog and self._contestant.cursor:
            await asyncio.sleep(1)
            self._round.herd = await self._herd(self._contestant.cursor())
        return self._round

    async def _warm_up(self) -> None:
        await self._open(ALL, WARMING, self._plan.in_flight)
        await self._client.watch(ALL, self._number + 1, 3, PATIENCE)
        await self._publish(3, 0.05)
        await self._client.report(ALL)
        await self._client.close(ALL)
        await asyncio.sleep(1)

    def _begin(self, group: int, count: int, in_flight: int, *headers: str) -> Awaitable[Answer]:
        target = self._contestant
        return self._client.open(group, count, target.port, target.path, (*target.headers, *headers), in_flight)

    async def _open(self, group: int, count: int, in_flight: int) -> Answer:
        async with asyncio.timeout(CONNECT_PATIENCE):
            return await self._begin(group, count, in_flight)

    async def _publish(self, count: int, pause: float) -> None:
        for _ in range(count):
            self._number += 1
            await self._contestant.publish(self._number)
            await asyncio.sleep(pause)

    async def _connect(self) -> None:
        opened = await self._open(ALL, self._plan.subscribers, self._plan.in_flight)
        self._round.connect_s, self._round.refused = opened["seconds"], int(opened["failed"])
        if self._round.refused:
            print(f"  {self._round.refused} connections were refused; the first answer: {opened['refusal']!r}")
        await asyncio.sleep(1)

    async def _send(self) -> None:
        plan = self._plan
        await self._client.watch(ALL, self._number + 1, plan.events, PATIENCE)
        before = cpu_seconds(self._contestant.pid)
        await self._publish(plan.events, 1 / plan.rate)
        report = await self._client.report(ALL)
        self._round.server_ms = (cpu_seconds(self._contestant.pid) - before) * 1000 / plan.events
        self._round.spread, self._round.since_sent = spread(report["events"]), since_sent(report["events"])
        self._round.client_ms = report["cpu"] * 1000 / plan.events
        self._round.faults = faults(report)

    async def _idle(self) -> float:
        before = cpu_seconds(self._contestant.pid)
        await asyncio.sleep(self._plan.idle)
        return (cpu_seconds(self._contestant.pid) - before) * 100 / self._plan.idle

    async def _herd(self, cursor: str) -> Herd:
        """What was missed is published while nobody listens; then all come back with the cursor before it."""
        plan, client = self._plan, self._client
        missed = self._number + 1
        await self._publish(plan.backlog, 0.002)
        await self._open(LIVE, LIVE_SUBSCRIBERS, plan.in_flight)
        await asyncio.sleep(1)
        reads, overflows = await self._log_reads(), listen_overflows()
        await client.watch(LIVE, self._number + 1, LIVE_EVENTS, 3 * PATIENCE)
        live = asyncio.create_task(self._publish(LIVE_EVENTS, 1 / plan.rate), name="live events")
        opening = self._begin(ALL, plan.subscribers, plan.rush, f"Last-Event-ID: {cursor}")
        await client.watch(ALL, missed, plan.backlog, PATIENCE, replay=True)
        served = await client.report(ALL)
        await _ended(live)
        reads_after = await self._log_reads()
        await asyncio.sleep(0.5)  # for what was published last
        heard = await client.end(LIVE)
        for group in (ALL, LIVE):
            await client.close(group)
        await opening
        new_reads = None if reads is None or reads_after is None else reads_after - reads
        return Herd.of(served, heard, new_reads, listen_overflows() - overflows)

    async def _log_reads(self) -> int | None:
        return await self._contestant.log_reads() if self._contestant.log_reads else None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
