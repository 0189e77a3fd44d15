"""`bridge upstream`: a replica stands by until it takes the lead, leads until its term ends, and hands over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid

from bridge.backoff import Backoff
from bridge.clock import Clock, set_within, unix
from bridge.config import Settings
from bridge.store.confirmations import Confirmations
from bridge.store.connection import Backend
from bridge.store.errors import FencedError, StoreError, StoreUnavailableError, UnconfirmedError
from bridge.store.leader_status import unmet_note
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter
from bridge.store.repair import mend
from bridge.store.replicas import read_copies
from bridge.store.server_clock import ServerClock
from bridge.store.slots import Slots
from bridge.store.snapshots import read_batch_digests
from bridge.upstream import cancellation, metrics
from bridge.upstream.budget import NOTICE_GRACE, Budget
from bridge.upstream.client import PhalaClient
from bridge.upstream.control_loops import ControlLoops
from bridge.upstream.journal import Journal
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.pace import Pace
from bridge.upstream.recorder import Recorder
from bridge.upstream.replication import Replication
from bridge.upstream.slot_handover import SlotHandover
from bridge.upstream.status import takeover
from bridge.upstream.tracked import NEVER, Tracked

logger = logging.getLogger(__name__)

CAMPAIGN_AT_MOST = 1.0
"""Seconds between two attempts of a standby, at most: a lease that was resigned is taken within this time."""

CAMPAIGN_BACKOFF = 15.0
"""Seconds between two attempts to begin a term where the earlier ones failed, at most."""

UNREACHABLE = "upstream unreachable"
"""What `/readyz` says then."""


FINISH_WITHIN = 2.0
"""Seconds that a planned stop waits for Redis to take what is decided."""


class TermOverError(Exception):
    """the term ends: planned stop, or the lease was not renewed in time"""


class Upstream:
    """One replica. `run` returns after `stop`: streams closed, slots freed, lease resigned."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        client: PhalaClient,
        clock: Clock,
        *,
        alone: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._client = client
        self._clock = ServerClock(clock)
        self._rng = rng or random.Random()
        self._leadership = Leadership(backend)
        self._journal = Journal(backend.keys.source)
        self._holder = uuid.uuid4().hex
        """The name of the next term: the same in each attempt, since an answer that was lost may have granted it."""
        self._slots = Slots(backend)
        self._slot_handover = SlotHandover(settings, self._slots, self._clock, alone=alone)
        self._replication = Replication()
        self._renewed_at = NEVER
        """When the last request was sent that gave or renewed this process's lease (monotonic)."""
        self._backoff = Backoff(longest=CAMPAIGN_BACKOFF)
        self.leading = False
        self.trouble = ""
        """Why this replica can neither lead nor stand by; empty while it can. A missing Redis is no reason."""
        self.context: LeaderContext | None = None

    def role(self) -> str:
        """What it does now, for people."""
        return "leader" if self.leading else "standby"

    @property
    def fault(self) -> str:
        """What keeps the leader from doing its work, on upstream's side; empty where all is well."""
        return self.context.fault if self.leading and self.context else ""

    @property
    def degraded(self) -> str:
        """Why this leader can do little, although it leads; empty while nothing is wrong."""
        context = self.context if self.leading else None
        return UNREACHABLE if context is not None and context.is_down(self._clock.monotonic()) else ""

    @property
    def note(self) -> str:
        """What may surprise, although nothing is wrong: references of `BRIDGE_CVMS` that name no CVM."""
        return unmet_note(self.context.unmet) if self.leading and self.context else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Campaigns and leads in turns until `stop` is set. While Redis does not answer, it tries again."""
        complained = True  # the command itself logs it at its start
        while not stop.is_set():
            try:
                asked_at = self._clock.monotonic()
                lease, highest_id = self._settings.lease_seconds, self._journal.position.highest_id
                if self._replication.seen is None:
                    self._replication.observe(await read_copies(self._backend), asked_at)
                wait_ms = self._replication.renewal_waits(lease)
                term = await self._leadership.acquire(self._holder, lease, uuid.uuid4().hex, highest_id, wait_ms)
                self._replication.observe(self._leadership.copies, self._clock.monotonic())
                self._slot_handover.clock_skew.observe(self._leadership.server_time, asked_at, self._clock.monotonic())
                self._clock.observe(self._leadership.server_time, asked_at, self._clock.monotonic())
                if isinstance(term, Term) and not self._replication.counts(self._clock.monotonic()):
                    await self._resign(term)
                    raise StoreUnavailableError("no replica of Redis confirms the lease")
                complained = False
                if isinstance(term, Term):
                    await self._lead(term, stop, asked_at)
                else:
                    self.trouble = ""
                    self._journal.look(*self._leadership.others_log)
                    await self._slot_handover.look()
                    await set_within(stop, min(term, CAMPAIGN_AT_MOST))
            except StoreUnavailableError as error:
                if not complained:
                    logger.warning("waiting for Redis", extra={"error": str(error)})
                complained = True
                await set_within(stop, CAMPAIGN_AT_MOST)
            except StoreError as error:
                logger.error("the lead could not be asked for", extra={"error": str(error)})
                await self._fail("the lead could not be asked for", str(error), stop)

    async def _fail(self, what: str, reason: str, stop: asyncio.Event) -> None:
        """Shows why on `/readyz`, and waits, longer each time."""
        self.trouble = f"{what}: {reason}"
        await set_within(stop, self._backoff.fail(self._clock.monotonic(), self._rng))

    async def _lead(self, term: Term, stop: asyncio.Event, asked_at: float) -> None:
        try:
            context = await self._begin(term)
        except Exception as error:  # whatever it is, this lease must not keep the others from trying
            await self._resign(term)
            if isinstance(error, StoreUnavailableError):
                raise
            logger.exception("a term could not begin", extra={"epoch": term.epoch})
            await self._fail("a term could not begin", _reason(error) or type(error).__name__, stop)
            return
        self.trouble = ""
        self._backoff.heal()
        self._renewed_at = asked_at
        self.context, self.leading = context, True
        metrics.lead(term.epoch)
        logger.info("leading", extra=takeover(context, self._clock.monotonic()))
        refusal, cancelled = "", cancellation.count()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew(context), name="lease")
                group.create_task(context.recorder.run(), name="recorder")
                group.create_task(self._end_with_the_lease(), name="lease end")
                ControlLoops(context, self._backend, group).start()
                await stop.wait()
                raise TermOverError("planned stop")
        except* (FencedError, TermOverError) as ended:
            logger.info("no longer leading", extra={"epoch": term.epoch, "reason": _reason(ended)})
        except* StoreError as refused:
            # Damaged data, or a command that Redis refuses: once that is mended, this process leads again by itself.
            refusal = _reason(refused)
            logger.error("no longer leading", extra={"epoch": term.epoch, "reason": refusal})
        finally:
            self.leading = False
            metrics.stand_by()
            self._holder = uuid.uuid4().hex
            if stop.is_set():
                await context.recorder.finish(FINISH_WITHIN)
            await self._slot_handover.persist(context)
            await self._resign(term)
        if cancellation.count() > cancelled:
            raise asyncio.CancelledError
        if refusal:
            await self._fail("the term ended", refusal, stop)

    async def _resign(self, term: Term) -> None:
        try:
            await self._leadership.resign(term)
        except StoreError:
            logger.info("the lease could not be resigned; it runs out by itself")

    async def _begin(self, term: Term) -> LeaderContext:
        """Loads log and slots. What this process could not write in its last term, or what Redis lost of that, the new
        term writes.
        """
        await mend(self._backend, term)
        await self._resume_journal(term)
        _, snapshots = await Log(self._backend).snapshot()
        slots = await self._slot_handover.load()
        now = self._clock.monotonic()
        streams_from = self._slot_handover.patience(term, self._renewed_at)
        zero = self._clock.time() - now
        known = {cvm_id: unix(each.observed_at) - zero for cvm_id, each in snapshots.items() if each.observed_at}
        confirmations = Confirmations(self._backend, term, known)
        watches = {cvm_id: Tracked.loaded(cvm_id, snapshot, now) for cvm_id, snapshot in snapshots.items()}
        for entry in self._journal.waiting:
            if entry.notice_id:
                continue
            watches.pop(entry.draft.cvm_id, None)
            if entry.snapshot is not None:
                watches[entry.draft.cvm_id] = Tracked.loaded(entry.draft.cvm_id, entry.snapshot, now)
        log_writer = LogWriter(self._backend, self._settings.log_length, self._settings.group_idle, self._clock)
        recorder = Recorder(log_writer, confirmations, term, self._clock, self._journal, watches, self._rng)
        context = LeaderContext(
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
            client=self._client,
            term=term,
            recorder=recorder,
            redis_slots=self._slots,
            budget=Budget(
                self._settings.max_streams,
                pace=self._settings.upstream_pace[0],
                most_pace=self._settings.upstream_pace[-1],
                refilled_at=now,
                closed_at=max(now, streams_from),
                notice=self._settings.stream_interval + NOTICE_GRACE,
            ),
            slots=slots,
            replication=self._replication,
            streams_from=streams_from,
            watches=watches,
            pace=Pace(
                self._settings.poll_interval,
                float(self._settings.stream_interval),
                reads_per_second=self._settings.upstream_pace[0] / 2,
            ),
        )
        await self._trust_batches(context)
        return context

    async def _resume_journal(self, term: Term) -> None:
        last = None
        if self._journal.is_unsure:
            with contextlib.suppress(ValueError):
                last = await Log(self._backend).find(term.last_id)
        if loss := self._journal.resume(term, last):
            loss.report()

    async def _trust_batches(self, context: LeaderContext) -> None:
        """Loads the batch digests that the last leader left. Where there is one, the next batch answer decides whether
        the state is read: to read a thousand states at once would delay every hint by a minute.
        """
        seen = {cvm_id: each.seen.snapshot for cvm_id, each in context.watches.items() if each.fresh}
        events = {cvm_id: snapshot.event_id for cvm_id, snapshot in seen.items() if snapshot}
        digests = await read_batch_digests(self._backend, events)
        now = self._clock.monotonic()
        context.pace.observe(now, context.watches.values())
        for cvm_id, digest in digests.items():
            context.watches[cvm_id].batch.answer = digest
            context.pace.trust(now, context.watches[cvm_id])

    async def _renew(self, context: LeaderContext) -> None:
        lease = self._settings.lease_seconds
        period = lease / 3
        while True:
            asked_at = self._clock.monotonic()
            try:
                before = context.recorder.position
                held = [slot.holding(asked_at) for slot in context.slots if slot.counts]
                wait_ms = self._replication.renewal_waits(lease)
                sequence, last_id = await self._leadership.renew(context.term, lease, period, held, wait_ms)
                self._clock.observe(self._leadership.server_time, asked_at, self._clock.monotonic())
                self._replication.observe(self._leadership.copies, self._clock.monotonic())
                context.recorder.compare(before, sequence, last_id)
                if not self._replication.counts(self._clock.monotonic()):
                    raise UnconfirmedError
                self._renewed_at = asked_at
                metrics.LEASE_RENEWED.set(self._clock.time() - self._clock.monotonic() + asked_at)
                await self._clock.sleep(period)
            except (StoreUnavailableError, UnconfirmedError):
                await self._clock.sleep(min(0.2, period))

    async def _end_with_the_lease(self) -> None:
        """Ends the term with the lease, so that no stream of ours outlives it, however slowly Redis fails."""
        while True:
            left = self._renewed_at + self._settings.lease_seconds - self._clock.monotonic()
            if left <= 0:
                raise TermOverError("the lease ran out: Redis did not answer, or this process was suspended")
            await self._clock.sleep(left)


def _reason(ended: BaseException) -> str:
    """The text of the first error in a group."""
    while isinstance(ended, BaseExceptionGroup):
        ended = ended.exceptions[0]
    return str(ended) or str(ended.__doc__)
