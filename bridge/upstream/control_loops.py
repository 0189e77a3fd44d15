"""The leader's standing tasks: surveying the wishes, planning, acting on the plan, telling what is stale."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from bridge.clock import rfc3339
from bridge.events import DELETED
from bridge.store.batch_digests import Vouchers
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.leader_status import Notes
from bridge.store.reference_lookups import Answer, Wishes
from bridge.store.wake import wakes
from bridge.store.watches import Survey, Watches
from bridge.upstream import metrics
from bridge.upstream.budget import REQUESTS_PER_SECOND
from bridge.upstream.discovery import Discovery
from bridge.upstream.leader_context import Reign
from bridge.upstream.planner import GONE_EVERY, Batch, Close, Open, Read, plan, poll_interval
from bridge.upstream.reader import ask_batch, read
from bridge.upstream.resolver import Resolver
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import Tracked
from bridge.upstream.watcher import watch

logger = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between two plans: the shortest poll interval there may be."""

SURVEY_EVERY = 1.0
NOTES_EVERY = 2.0
STALE_AFTER_AT_LEAST = 10.0
WISHES_AT_ONCE = 8
"""Unknown references asked for at the same time; the others wait their turn."""


class Rounds:
    """One term's tasks in the leader's group; they end with it."""

    def __init__(self, reign: Reign, backend: Backend, group: asyncio.TaskGroup) -> None:
        self._reign = reign
        self._backend = backend
        self._group = group
        self._watches = Watches(backend)
        self._wishes = Wishes(backend)
        self._notes = Notes(backend)
        self._resolver = Resolver(reign.client, reign.clock)
        self._discovery = Discovery(reign, self._resolver, self._watches)
        self._woken = asyncio.Event()
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._answering: set[str] = set()
        self._vouchers = Vouchers(backend)
        self._vouched: dict[str, tuple[str, str]] = {}
        """What stands in Redis by this term; of no more CVMs than are watched."""

    def start(self) -> None:
        """Starts every standing task."""
        tasks = {
            "survey": self._survey_for_ever(),
            "plan": self._plan_for_ever(),
            "stale": self._tell_stale_for_ever(),
            "notes": self._note_for_ever(),
            "wake": self._wake_for_ever(),
            "discovery": self._discovery.run(),
        }
        for name, task in tasks.items():
            self._spawn(task, name)

    def _spawn(self, task: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return self._group.create_task(task, name=name)

    # What is wanted

    async def _survey_for_ever(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._survey(await self._watches.survey())
            except StoreUnavailableError:
                logger.info("the survey waits for Redis")
            try:
                async with asyncio.timeout(SURVEY_EVERY):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _wake_for_ever(self) -> None:
        while True:
            try:
                async for _ in wakes(self._backend):
                    self._woken.set()
            except StoreUnavailableError:
                await self._reign.clock.sleep(SURVEY_EVERY)

    async def _survey(self, survey: Survey) -> None:
        self._answer_wishes(survey)
        await self._take_hints(survey)
        now = self._reign.clock.monotonic()
        for cvm_id in survey.watches:
            if cvm_id not in self._reign.watches:
                self._reign.watches[cvm_id] = Tracked.loaded(cvm_id, None, now)
        pins = survey.pins | survey.config_pins
        for tracked in list(self._reign.watches.values()):
            tracked.pinned = tracked.cvm_id in pins
            tracked.subscribers = survey.demand.get(tracked.cvm_id, 0)
        await self._keep_wanted(survey)
        await self._drop_unwanted(survey)
        metrics.WATCHES.set(len(self._reign.watches))

    def _answer_wishes(self, survey: Survey) -> None:
        for reference in survey.wishes:
            if reference not in self._answering and len(self._answering) < WISHES_AT_ONCE:
                self._answering.add(reference)
                self._spawn(self._answer(reference), f"wish {reference}")

    async def _answer(self, reference: str) -> None:
        try:
            await self._wishes.answer(await self._resolved(reference))
        except StoreUnavailableError:
            logger.info("an answer waits for Redis")
        finally:
            self._answering.discard(reference)
            self._woken.set()

    async def _resolved(self, reference: str) -> Answer:
        """Upstream's answer; an account that refuses the key is not asked on behalf of whoever comes by, but for a
        probe now and then: without watches nobody else would find out that it accepts the key again.
        """
        reign = self._reign
        if reign.budget.is_blocked and not reign.budget.probe(reign.clock.monotonic()):
            return Answer(reference, None, 503)
        answer = await self._resolver.resolve(reference)
        if answer.status == 401:
            reign.budget.unauthorized(reign.clock.monotonic(), reign.chance, reference, answer.status)
        elif answer.cvm_id is not None or answer.status == 404:
            reign.budget.authorized()
        return answer

    async def _take_hints(self, survey: Survey) -> None:
        """Forgotten first: a hint that comes from now on stays, and one that came before is read for after it."""
        with contextlib.suppress(StoreUnavailableError):  # the reply alone may be lost: nobody else remembers them then
            await self._wishes.forget_hints(survey.hints)
        now = self._reign.clock.monotonic()
        for reference in survey.hints:
            if tracked := self._reign.watches.get(reference):
                tracked.hint(now, first=True)
            else:
                self._spawn(self._follow_hint(reference), f"hint {reference}")

    async def _follow_hint(self, reference: str) -> None:
        """A hint may name the CVM in another form; one that nobody watches is no news."""
        answer = await self._resolved(reference)
        if tracked := self._reign.watches.get(answer.cvm_id or ""):
            tracked.hint(self._reign.clock.monotonic(), first=True)

    async def _keep_wanted(self, survey: Survey) -> None:
        """Demand renews a watch well before its linger time could end; pins need none, but outlive their pin."""
        old = survey.now_ms - int(self._reign.settings.watch_linger * 250)
        wanted = {*survey.demand, *survey.pins, *survey.config_pins}
        await self._watches.renew(cvm_id for cvm_id in wanted if survey.watches.get(cvm_id, 0) <= old)

    async def _drop_unwanted(self, survey: Survey) -> None:
        cutoff = survey.now_ms - int(self._reign.settings.watch_linger * 1000)
        for tracked in list(self._reign.watches.values()):
            if tracked.pinned or tracked.subscribers or survey.watches.get(tracked.cvm_id, 0) > cutoff:
                continue
            if await self._reign.recorder.drop(tracked, cutoff):
                self._reign.watches.pop(tracked.cvm_id, None)
                logger.info("nobody watches this CVM any more", extra={"cvm_id": tracked.cvm_id})

    # What is done

    async def _plan_for_ever(self) -> None:
        while True:
            self._act(self._reign.clock.monotonic())
            await self._reign.clock.sleep(TICK)

    def _act(self, now: float) -> None:
        reign = self._reign
        if not reign.batch_route and now >= reign.batch_again_at:
            reign.batch_route = True
        metrics.BUDGET.set(reign.budget.streams)
        requests = 0
        for action in plan(now, reign.watches, reign.slots, reign.limits(now)):
            if isinstance(action, Open):
                self._open(reign.slots[action.index], reign.watches[action.cvm_id])
            elif isinstance(action, Close):
                self._close(action.index)
            elif isinstance(action, Read):
                requests += 1
                tracked = reign.watches[action.cvm_id]
                tracked.reading = True
                self._spawn(read(reign, tracked), f"read {action.cvm_id}")
            elif isinstance(action, Batch):
                requests += 1
                for cvm_id in action.cvm_ids:
                    reign.watches[cvm_id].batched_at = now
                self._spawn(ask_batch(reign, action.cvm_ids), "batch")
        reign.budget.spend(requests)

    def _open(self, slot: Slot, tracked: Tracked) -> None:
        # Marked before the task runs: the next plan must not give the slot away twice.
        slot.cvm_id = tracked.cvm_id
        slot.step(Life.OPENING)
        task = self._spawn(watch(self._reign, tracked, slot), f"watch {tracked.cvm_id}")
        self._streams[slot.index] = task
        task.add_done_callback(lambda done: self._ended(slot, done))

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if self._streams.get(slot.index) is task:
            del self._streams[slot.index]
        if slot.life is Life.OPENING:
            # Cancelled before it ran at all: nothing was taken.
            slot.step(Life.QUARANTINED)
            slot.until = self._reign.clock.monotonic()

    def _close(self, index: int) -> None:
        if task := self._streams.get(index):
            task.cancel()

    # What is said

    async def _tell_stale_for_ever(self) -> None:
        while True:
            await self._reign.clock.sleep(SURVEY_EVERY)
            now = self._reign.clock.monotonic()
            for tracked in list(self._reign.watches.values()):
                if now - tracked.confirmed_at > self._patience(tracked):
                    reason = self._reign.budget.trouble(now) or tracked.trouble or "unreachable"
                    await self._reign.recorder.mark_stale(tracked, reason)
            metrics.STALE.set(sum(not tracked.fresh for tracked in self._reign.watches.values()))
            try:
                await self._reign.recorder.flush()
            except StoreUnavailableError:
                logger.info("observed_at waits for Redis")

    def _patience(self, tracked: Tracked) -> float:
        """Seconds without confirmation after which the bridge no longer vouches: contract section 2."""
        settings = self._reign.settings
        if tracked.status == DELETED:
            interval = GONE_EVERY
        elif tracked.streaming:
            interval = float(settings.stream_interval)
        else:
            interval = poll_interval(len(self._reign.watches), self._reign.limits_of_route())
        # One that was never seen waits its turn in the first round: there is nothing yet to vouch for.
        first = len(self._reign.watches) / REQUESTS_PER_SECOND if tracked.snapshot is None else 0.0
        return max(STALE_AFTER_AT_LEAST, 3 * interval) + first

    async def _note_for_ever(self) -> None:
        while True:
            try:
                await self._notes.write(self._note())
                await self._write_vouchers()
                await self._watches.sweep()
            except StoreUnavailableError:
                logger.info("the notes wait for Redis")
            await self._reign.clock.sleep(NOTES_EVERY)

    async def _write_vouchers(self) -> None:
        """For the next leader; not of a streamed CVM, whose state may have left its last batch answer behind."""
        now = {
            cvm_id: (tracked.snapshot.event_id, tracked.batch_answer)
            for cvm_id, tracked in self._reign.watches.items()
            if tracked.snapshot is not None and tracked.batch_answer is not None and not tracked.streaming
        }
        await self._vouchers.write({cvm_id: it for cvm_id, it in now.items() if self._vouched.get(cvm_id) != it})
        self._vouched = now

    def _note(self) -> dict[str, Any]:
        reign, now = self._reign, self._reign.clock.monotonic()
        polled = [tracked for tracked in reign.watches.values() if not tracked.streaming]
        return {
            "leader": reign.term.holder,
            "epoch": reign.term.epoch,
            "at": rfc3339(reign.clock.time()),
            "budget": reign.budget.streams,
            "budget_reason": reign.budget.streams_reason,
            "blocked": reign.budget.is_blocked,
            "polling": {tracked.cvm_id: self._why_polled(tracked, now) for tracked in polled},
        }

    def _why_polled(self, tracked: Tracked, now: float) -> str:
        reign = self._reign
        if tracked.gone:
            return "deleted"
        if reign.budget.is_blocked:
            return "unauthorized"
        if tracked.stream_backoff.until > now:
            return f"backing off after {tracked.trouble or 'a stream that ended early'}"
        if any(slot.cvm_id == tracked.cvm_id and slot.life is Life.QUARANTINED for slot in reign.slots):
            return "its slot waits for an older stream to end"
        if now < reign.streams_from:
            return "waiting until whoever led before has surely noticed"
        if reign.budget.streams_reason:
            return "the account is used elsewhere too"
        return "all slots are taken"
