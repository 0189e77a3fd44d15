"""`bridge upstream`: stands by until it leads, leads until its term ends, and hands over cleanly."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.errors import FencedError, StoreError, StoreUnavailableError
from bridge.store.leadership import Leadership, Term
from bridge.store.ledger import Ledger, Place
from bridge.store.log import Log
from bridge.store.slots import Slots
from bridge.upstream import metrics
from bridge.upstream.budget import Budget
from bridge.upstream.client import PhalaClient
from bridge.upstream.recorder import Recorder
from bridge.upstream.reign import Reign
from bridge.upstream.rounds import Rounds
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import Tracked

logger = logging.getLogger(__name__)

CAMPAIGN_AT_MOST = 1.0
"""Seconds between tries of a standby, at the most: a lease that was resigned is taken within this."""


class TermOverError(Exception):
    """the term ends: planned stop, or the lease could not be renewed in time"""


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
        chance: random.Random | None = None,
        make_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._client = client
        self._clock = clock
        self._alone = alone
        self._chance = chance or random.Random()
        self._make_id = make_id
        self._leadership = Leadership(backend)
        self._last = Place(0, "0-0")
        self._birth = ""
        self.leading = False
        self.reign: Reign | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Campaigns and leads in turns until `stop` is set. Redis being away is waited out."""
        complained = True  # the command itself says so at its start
        while not stop.is_set():
            try:
                term = await self._campaign()
                complained = False
                if isinstance(term, Term):
                    await self._lead(term, stop)
                else:
                    await self._pause(stop, min(term, CAMPAIGN_AT_MOST))
            except StoreUnavailableError as error:
                if not complained:
                    logger.warning("waiting for Redis", extra={"error": str(error)})
                complained = True
                await self._pause(stop, CAMPAIGN_AT_MOST)

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return

    async def _campaign(self) -> Term | float:
        holder = self._make_id()
        return await self._leadership.acquire(holder, self._settings.lease_seconds, self._make_id(), self._last.last_id)

    async def _lead(self, term: Term, stop: asyncio.Event) -> None:
        reign = await self._begin(term)
        self.reign, self.leading = reign, True
        metrics.LEADER.set(1)
        logger.info("leading", extra={"epoch": term.epoch, "sequence": reign.recorder.place.sequence})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew(reign), name="lease")
                group.create_task(_until(stop), name="stop")
                Rounds(reign, self._backend, group).start()
        except* (FencedError, TermOverError) as ended:
            reason = next(str(error) or str(error.__doc__) for error in _leaves(ended))
            logger.info("no longer leading", extra={"epoch": term.epoch, "reason": reason})
        finally:
            self.leading = False
            metrics.LEADER.set(0)
            metrics.WATCHES.set(0)
            self._last, self._birth = reign.recorder.place, term.birth
            await self._resign(term)

    async def _begin(self, term: Term) -> Reign:
        """Everything as the log and the slots tell it; this process's own last write where Redis lost it."""
        _, snapshots = await Log(self._backend).snapshot()
        place = Place(term.sequence, term.last_id)
        if term.birth == self._birth and self._last.sequence > place.sequence:
            logger.error("Redis lost events that it had confirmed", extra={"sequence": self._last.sequence})
            place = self._last
        now = self._clock.monotonic()
        redis_slots = Slots(self._backend)
        strange = term.born and not self._alone and self._birth == ""
        recorder = Recorder(Ledger(self._backend, self._settings.log_length), term, self._clock, place)
        return Reign(
            self._settings,
            self._clock,
            self._chance,
            self._client,
            term,
            recorder,
            redis_slots,
            Budget(self._settings.max_streams, refilled_at=now),
            await self._slots(redis_slots, now),
            now + self._settings.lease_seconds if strange else now,
            {cvm_id: Tracked.loaded(cvm_id, snapshot, now) for cvm_id, snapshot in snapshots.items()},
        )

    async def _slots(self, redis_slots: Slots, now: float) -> list[Slot]:
        """Whoever held a slot before may still have its stream: such a slot waits its deadline out."""
        slots = []
        for record in await redis_slots.list(self._settings.max_streams):
            slot = Slot(record.index, cvm_id=record.cvm_id)
            if record.state != "free":
                slot.step(Life.QUARANTINED)
                slot.until = now + record.remaining
            slots.append(slot)
        return slots

    async def _renew(self, reign: Reign) -> None:
        lease = self._settings.lease_seconds
        period = lease / 3
        renewed_at = self._clock.monotonic()
        while True:
            try:
                await self._leadership.renew(reign.term, lease, period)
                renewed_at = self._clock.monotonic()
                await self._clock.sleep(period)
            except StoreUnavailableError as error:
                if self._clock.monotonic() - renewed_at > lease:
                    raise TermOverError("Redis was away for longer than the lease") from error
                await self._clock.sleep(min(0.2, period))

    async def _resign(self, term: Term) -> None:
        try:
            await self._leadership.resign(term)
        except StoreError:
            logger.info("the lease could not be resigned and runs out by itself")


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    raise TermOverError("planned stop")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
