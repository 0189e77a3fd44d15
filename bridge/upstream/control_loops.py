"""The leader's standing tasks: survey the demand, plan, carry out the plan, mark stale watches, write the status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bridge.clock import rfc3339, set_within
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.feed import subscription
from bridge.store.leadership import write_leader_status
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import write_batch_digests
from bridge.store.watches import Survey, Watches
from bridge.upstream import metrics
from bridge.upstream.batch_reader import ask_batch
from bridge.upstream.discovery import Discovery
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.planner import Batch, Close, Open, Read, plan
from bridge.upstream.reachability import Reachability
from bridge.upstream.reader import read
from bridge.upstream.resolver import Resolver
from bridge.upstream.second_witness import SecondWitness
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import Tracked
from bridge.upstream.watcher import lifetime, watch

logger = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between two plans: the shortest poll interval there may be."""

SURVEY_EVERY = 1.0
STATUS_EVERY = 2.0
LOOKUPS_AT_ONCE = 8
"""Unknown references looked up at the same time; the others wait."""


class ControlLoops:
    """One term's tasks in the leader's group; they end with it."""

    def __init__(self, context: LeaderContext, backend: Backend, group: asyncio.TaskGroup) -> None:
        self._context = context
        self._backend = backend
        self._group = group
        self._watches = Watches(backend)
        self._lookups = ReferenceLookups(backend)
        self._resolver = Resolver(context)
        self._discovery = Discovery(context, self._resolver, self._watches)
        self._woken = asyncio.Event()
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._answering: set[str] = set()
        self._written_digests: dict[str, tuple[str, str]] = {}
        """As this term wrote them; of no more CVMs than are watched."""

    def start(self) -> None:
        """Starts every standing task."""
        witness = SecondWitness(self._context)
        tasks = {
            "survey": self._survey_for_ever(),
            "plan": self._plan_for_ever(),
            "stale": self._repeat(SURVEY_EVERY, self._mark_stale, "observed_at could not be written"),
            "status": self._repeat(STATUS_EVERY, self._write_status, "leader status could not be written"),
            "wake": self._wake_for_ever(),
            "second witness": self._repeat(witness.every, witness.look, "no witness was asked"),
            "reachability": self._repeat(SURVEY_EVERY, Reachability(self._context).look, "reachability"),
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

    # Demand

    async def _survey_for_ever(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._survey(await self._watches.survey())
            except StoreUnavailableError:
                logger.info("demand could not be read: Redis does not answer")
            await set_within(self._woken, SURVEY_EVERY)

    async def _wake_for_ever(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(subscription(self._backend, self._backend.keys.wake_channel)) as wakes:
                    async for _ in wakes:
                        self._woken.set()
            except StoreUnavailableError:
                await self._context.clock.sleep(SURVEY_EVERY)

    async def _survey(self, survey: Survey) -> None:
        for reference in survey.lookups:
            if reference not in self._answering and len(self._answering) < LOOKUPS_AT_ONCE:
                self._answering.add(reference)
                self._group.create_task(self._answer(reference), name=f"lookup {reference}")
        await self._take_hints(survey)
        now = self._context.clock.monotonic()
        for cvm_id in survey.watches:
            if cvm_id not in self._context.watches:
                self._context.watches[cvm_id] = Tracked.loaded(cvm_id, None, now)
        pins = survey.pins | survey.config_pins
        for tracked in list(self._context.watches.values()):
            tracked.demand.pinned = tracked.cvm_id in pins
            tracked.demand.subscribers = survey.demand.get(tracked.cvm_id, 0)
        await self._keep_wanted(survey)
        await self._drop_unwanted(survey)
        metrics.WATCHES.set(len(self._context.watches))

    async def _answer(self, reference: str) -> None:
        try:
            await self._lookups.answer(await self._resolver.look_up(reference))
        except StoreUnavailableError:
            logger.info("the answer to a look-up could not be written: Redis does not answer")
        finally:
            self._answering.discard(reference)
            self._woken.set()

    async def _take_hints(self, survey: Survey) -> None:
        """Hints are removed from Redis before they are acted on: one that arrives meanwhile stays there."""
        with contextlib.suppress(StoreUnavailableError):  # they may be removed even if the reply was lost
            await self._lookups.forget_hints(survey.hints)
        now = self._context.clock.monotonic()
        for reference in survey.hints:
            if tracked := self._context.watches.get(reference):
                tracked.reads.hint(now, first=True)
            else:
                self._group.create_task(self._follow_hint(reference), name=f"hint {reference}")

    async def _follow_hint(self, reference: str) -> None:
        """A hint may name the CVM by another reference. A CVM that is not watched needs no read."""
        answer = await self._resolver.look_up(reference)
        if tracked := self._context.watches.get(answer.cvm_id or ""):
            tracked.reads.hint(self._context.clock.monotonic(), first=True)

    async def _keep_wanted(self, survey: Survey) -> None:
        """Demand and pins renew a watch well before its linger time ends."""
        old = survey.now_ms - int(self._context.settings.watch_linger * 250)
        wanted = {*survey.demand, *survey.pins, *survey.config_pins}
        await self._watches.renew(cvm_id for cvm_id in wanted if survey.watches.get(cvm_id, 0) <= old)

    async def _drop_unwanted(self, survey: Survey) -> None:
        cutoff = survey.now_ms - int(self._context.settings.watch_linger * 1000)
        for tracked in list(self._context.watches.values()):
            if tracked.demand.pinned or tracked.demand.subscribers or survey.watches.get(tracked.cvm_id, 0) > cutoff:
                continue
            if await self._context.recorder.drop(tracked, cutoff):
                self._context.watches.pop(tracked.cvm_id, None)
                logger.info("watch ended: nothing demands this CVM any more", extra={"cvm_id": tracked.cvm_id})

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
        metrics.BUDGET.set(context.budget.streams)
        for slot in context.slots:
            slot.ripen(now)
        context.pace.observe(now, context.watches.values())
        requests = 0
        for action in plan(now, context.watches, context.slots, context.limits(now)):
            if isinstance(action, Open):
                requests += 1
                self._open(context.slots[action.index], context.watches[action.cvm_id])
            elif isinstance(action, Close):
                if task := self._streams.get(action.index):
                    task.cancel()
            elif isinstance(action, Read):
                requests += 1
                self._group.create_task(read(context, context.watches[action.cvm_id]), name=f"read {action.cvm_id}")
            elif isinstance(action, Batch):
                requests += 1
                for cvm_id in action.cvm_ids:
                    context.watches[cvm_id].batch.asked_at = action.due
                self._group.create_task(ask_batch(context, action.cvm_ids), name="batch")
        context.budget.spend(requests)

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
        metrics.STALE.set(sum(not tracked.fresh for tracked in context.watches.values()))
        await context.recorder.flush()

    async def _write_status(self) -> None:
        await write_leader_status(self._backend, self._status())
        await self._write_batch_digests()
        await self._watches.sweep()

    async def _write_batch_digests(self) -> None:
        """For the next leader, those that vouch for a state; a streamed CVM's may have changed since."""
        digests = {
            cvm_id: (tracked.seen.snapshot.event_id, tracked.batch.answer)
            for cvm_id, tracked in self._context.watches.items()
            if tracked.seen.snapshot
            and tracked.seen.snapshot.event_id
            and tracked.batch.answer
            and tracked.batch.vouches
            and not tracked.stream.is_open
        }
        written = self._written_digests
        changed = {key: value for key, value in digests.items() if written.get(key) != value}
        await write_batch_digests(self._backend, changed)
        self._written_digests = digests

    def _status(self) -> dict[str, Any]:
        context, now = self._context, self._context.clock.monotonic()
        polled = [tracked for tracked in context.watches.values() if not tracked.stream.is_open]
        return {
            "leader": context.term.holder,
            "epoch": context.term.epoch,
            "at": rfc3339(context.clock.time()),
            "budget": context.budget.streams,
            "budget_reason": context.budget.streams_reason,
            "blocked": context.budget.is_blocked,
            "unreachable": context.budget.breaker.is_down(now),
            "fault": context.fault,
            "polling": {tracked.cvm_id: self._why_polled(tracked, now) for tracked in polled},
        }

    def _why_polled(self, tracked: Tracked, now: float) -> str:
        context = self._context
        if tracked.gone:
            return "deleted"
        if context.budget.is_blocked:
            return "unauthorized"
        if context.budget.breaker.is_open:
            return "upstream is unreachable"
        if tracked.stream.backoff.until > now:
            return f"backing off after {tracked.seen.failure or 'a stream that ended early'}"
        if any(slot.cvm_id == tracked.cvm_id and slot.life is Life.QUARANTINED for slot in context.slots):
            return "its slot is quarantined until an older stream has ended"
        if now < context.streams_from:
            return "waiting until the previous leader has closed its streams"
        if now < context.budget.absent_streams.until:
            return "upstream answers 404 to streams"
        if context.budget.streams_reason:
            return "the account is used elsewhere too"
        return "all slots are taken"
