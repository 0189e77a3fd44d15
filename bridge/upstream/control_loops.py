"""The leader's standing tasks: plan, carry out the plan, mark stale watches, write the status."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.leader_status import LeaderStatusWriter
from bridge.store.log import Log
from bridge.store.log_readers import count_unread
from bridge.store.snapshots import write_batch_digests
from bridge.store.watches import Watches
from bridge.upstream import metrics
from bridge.upstream.batch_reader import ask_batch
from bridge.upstream.demand_survey import DemandSurvey
from bridge.upstream.discovery import Discovery
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.notice_intake import NoticeIntake
from bridge.upstream.phala_webhook import PhalaWebhook
from bridge.upstream.planner import Batch, Close, Open, Read, plan
from bridge.upstream.reachability import Reachability
from bridge.upstream.reader import read
from bridge.upstream.resolver import Resolver
from bridge.upstream.second_witness import SecondWitness
from bridge.upstream.slots import Life, Slot
from bridge.upstream.status import held_back, leader_status
from bridge.upstream.tracked import Tracked
from bridge.upstream.watcher import lifetime, watch
from bridge.upstream.workspace import Workspace

logger = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between two plans: the shortest poll interval there may be."""

STALE_EVERY = 1.0
STATUS_EVERY = 2.0
MEASURE_EVERY = 1.0
SWEEP_EVERY = 60.0
"""Seconds between two removals of announcements that have expired and count for nothing already."""

REACHABILITY_EVERY = 1.0


class ControlLoops:
    """One term's tasks in the leader's group; they end with it."""

    def __init__(self, context: LeaderContext, backend: Backend, group: asyncio.TaskGroup) -> None:
        self._context = context
        self._backend = backend
        self._group = group
        self._watches, self._log = Watches(backend), Log(backend)
        self._workspace = Workspace(context)
        resolver = Resolver(context, self._workspace)
        self._discovery = Discovery(context, resolver, self._workspace, self._watches)
        self._intake = NoticeIntake(context, backend, resolver)
        self._survey = DemandSurvey(context, backend, group, resolver, self._discovery, self._intake.woken)
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._status = LeaderStatusWriter(backend, context.term)
        self._digested = set(context.watches)
        """CVMs of which Redis may have a digest."""
        self._written_digests: dict[str, tuple[str, str]] = {}
        """As this term wrote them; of no more CVMs than are watched."""

    def start(self) -> None:
        """Starts every standing task."""
        witness = SecondWitness(self._context, self._workspace)
        tasks = {
            "survey": self._survey.run(),
            "plan": self._plan_for_ever(),
            "stale": self._repeat(STALE_EVERY, self._mark_stale, "observed_at could not be written"),
            "metrics": self._repeat(MEASURE_EVERY, self._measure, "the log's length could not be read"),
            "status": self._repeat(STATUS_EVERY, self._write_status, "leader status could not be written"),
            "sweep": self._repeat(SWEEP_EVERY, self._watches.sweep, "vanished front ends were not forgotten"),
            "wake": self._survey.listen(),
            "notices": self._intake.run(),
            "phala webhook": PhalaWebhook(self._context).run(),
            "second witness": self._repeat(witness.every, witness.look, "no witness was asked"),
            "reachability": self._repeat(REACHABILITY_EVERY, Reachability(self._context).look, "reachability"),
            "discovery": self._discovery.run(),
        }
        for name, task in tasks.items():
            self._group.create_task(task, name=name)

    async def _repeat(self, seconds: float, step: Callable[[], Awaitable[None]], failure: str) -> None:
        """Runs `step` for ever, `seconds` apart. While Redis does not answer, `failure` is logged."""
        while True:
            try:
                await step()
            except StoreUnavailableError:
                logger.info("%s: Redis does not answer", failure)
            await self._context.clock.sleep(seconds)

    # Plan

    async def _plan_for_ever(self) -> None:
        clock = self._context.clock
        due = clock.monotonic()
        while True:
            self._act(clock.monotonic())
            due = max(due + TICK, clock.monotonic())
            await clock.sleep(due - clock.monotonic())

    def _act(self, now: float) -> None:
        context = self._context
        if not context.batch_route and now >= context.batch_again_at:
            context.batch_route = True
        metrics.BUDGET.set(context.budget.allowed(now))
        for slot in context.slots:
            slot.ripen(now)
        metrics.count_slots(context.slots)
        context.pace.observe(now, context.watches.values())
        limits = context.limits(now)
        actions = plan(now, context.watches, context.slots, limits)
        for action in actions:
            if isinstance(action, Open):
                self._open(context.slots[action.index], context.watches[action.cvm_id])
            elif isinstance(action, Close):
                if task := self._streams.get(action.index):
                    task.cancel()
            elif isinstance(action, Read):
                self._read(context.watches[action.cvm_id], now)
            elif isinstance(action, Batch):
                self._ask(action, now)
        requests = sum(not isinstance(action, Close) for action in actions)
        context.budget.spend(requests)
        if requests >= limits.requests:
            metrics.BUDGET_SPENT.inc(TICK)
            context.budget.run_short()

    def _read(self, tracked: Tracked, now: float) -> None:
        reads = tracked.reads
        late = now - max(reads.due, reads.hinted_at, reads.backoff.until)
        if late < math.inf:  # else it is the first read
            metrics.LATE.labels("state").observe(late)
        self._group.create_task(read(self._context, tracked), name=f"read {tracked.cvm_id}")

    def _ask(self, batch: Batch, now: float) -> None:
        for cvm_id in batch.cvm_ids:
            self._context.watches[cvm_id].batch.asked_at = batch.due
        metrics.LATE.labels("batch").observe(now - batch.due)
        self._group.create_task(ask_batch(self._context, batch.cvm_ids), name="batch")

    def _open(self, slot: Slot, tracked: Tracked) -> None:
        # Before the task runs, so that the next plan does not use the slot again.
        term, now = self._context.term, self._context.clock.monotonic()
        slot.take(tracked.cvm_id, (term.holder, term.epoch), now, now + lifetime(self._context.settings))
        task = self._group.create_task(watch(self._context, tracked, slot), name=f"watch {tracked.cvm_id}")
        self._streams[slot.index] = task
        task.add_done_callback(lambda done: self._ended(slot, done))

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if self._streams.get(slot.index) is task:
            del self._streams[slot.index]
        if slot.life is Life.OPENING:
            # Cancelled before its first step: Redis was not asked for the slot.
            slot.quarantine(self._context.clock.monotonic())

    # Status

    async def _mark_stale(self) -> None:
        context, now = self._context, self._context.clock.monotonic()
        for tracked in list(context.watches.values()):
            if now - tracked.seen.confirmed_at > context.pace.patience(tracked):
                reason = context.budget.stale_reason(now) or tracked.seen.failure or "unreachable"
                await context.recorder.mark_stale(tracked, reason)
        await context.recorder.flush()

    async def _measure(self) -> None:
        context, now = self._context, self._context.clock.monotonic()
        metrics.KEY_REFUSED.set(context.budget.is_blocked)
        metrics.hold_back(held_back(context, now))
        watches = context.watches.values()
        stream = sum(each.stream.is_open for each in watches)
        stale = sum(not each.fresh for each in watches)
        oldest = now - min((each.seen.confirmed_at for each in watches), default=now)
        metrics.count_watches(stream, len(watches) - stream, stale, oldest)
        if position := await self._log.position():
            length = position.sequence - position.low_water_sequence
            most, idle = context.settings.log_length, context.settings.group_idle
            unread = await count_unread(self._backend, position, idle) if length > most else 0
            metrics.count_log(length, position.sequence, max(0, unread - most))

    async def _write_status(self) -> None:
        clock = self._context.clock
        now = clock.monotonic()
        await self._status.write(leader_status(self._context, now), clock.time(), now)
        await self._write_batch_digests()

    async def _write_batch_digests(self) -> None:
        """For the next leader, those that vouch for a state; a streamed CVM's may have changed since."""
        watches = self._context.watches
        digests = {
            cvm_id: (tracked.seen.snapshot.event_id, tracked.batch.answer)
            for cvm_id, tracked in watches.items()
            if tracked.seen.snapshot
            and tracked.seen.snapshot.event_id
            and tracked.batch.answer
            and tracked.batch.vouches
            and not tracked.stream.is_open
        }
        written = self._written_digests
        changed = {key: value for key, value in digests.items() if written.get(key) != value}
        present = set(watches)
        await write_batch_digests(self._backend, changed, self._digested - present)
        self._written_digests = {key: value for key, value in (written | digests).items() if key in present}
        self._digested = present
