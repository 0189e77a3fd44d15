"""Passes the slots from one term to the next, also where the leader, Redis or its clock failed in between.

Redis has the records. What it forgot (a flush) or misjudges (its clock jumped forward) is corrected here.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.errors import StoreError
from bridge.store.holdings import Holding
from bridge.store.leadership import Term
from bridge.store.slots import Slots
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.slot_memory import SlotMemory
from bridge.upstream.slots import Life, Slot
from bridge.upstream.watcher import SETTLING

logger = logging.getLogger(__name__)

NOTICED = 0.5
"""Seconds. A smaller jump is network delay or a clock being adjusted; the grace periods cover it."""

REMEMBERED = 700.0
"""Seconds: no stream lives longer, with a timeout of at most 600 (docs/contract.md#environment) and grace periods."""


@dataclass(slots=True)
class ClockSkew:
    """The Redis server's clock against this process's own: a jump forward must not end a quarantine early.

    Pure. It gets each answer that contains the server's time, and sees only jumps between two answers.
    """

    latest: float = math.nan
    """An upper bound of the server's time minus the monotonic time, as last seen."""
    jumps: list[tuple[float, float]] = field(default_factory=list)
    """When each jump was noticed (monotonic) and its seconds. They are few: each is a fault of a clock."""

    def observe(self, server_time: float, sent_at: float, received_at: float) -> None:
        """`server_time` was read between the two moments."""
        jump = server_time - received_at - self.latest
        self.jumps = [(at, far) for at, far in self.jumps if received_at - at < REMEMBERED][-100:]
        if jump > NOTICED:
            self.jumps.append((received_at, jump))
        self.latest = server_time - sent_at

    def jumped(self, within: float, now: float) -> float:
        """Seconds by which the server's clock jumped forward during the last `within` seconds."""
        return sum(far for at, far in self.jumps if now - at < within)


class SlotHandover:
    """One process's memory over all its terms. `alone`: no other process can hold a stream."""

    def __init__(self, settings: Settings, redis_slots: Slots, clock: Clock, *, alone: bool) -> None:
        self._settings = settings
        self._redis_slots = redis_slots
        self._clock = clock
        self._alone = alone
        self._past: LeaderContext | None = None
        self._memory = SlotMemory()
        self._lost = 0
        self.clock_skew = ClockSkew()

    async def look(self) -> None:
        """A standby's look at the slots: it remembers them, and writes back what Redis has lost. Raises StoreError."""
        holdings = await self._redis_slots.holdings(settle=False)
        lost = self._memory.see(holdings, self._clock.monotonic())
        if len(lost) > self._lost:
            logger.warning("Redis lost slots that may be in use: they are written again", extra={"slots": len(lost)})
        self._lost = len(lost)
        await self._redis_slots.hold(lost)

    async def load(self) -> list[Slot]:
        """The slots as a new term finds them: a slot whose last stream may still be open is quarantined.

        Raises StoreUnavailableError.
        """
        if past := self._past:
            # Slots that could not be freed when this process's last term ended.
            for slot in past.slots:
                if slot.ended and slot.owner == (past.term.holder, past.term.epoch):
                    await self._redis_slots.free(past.term, slot.index, SETTLING)
        await self._redis_slots.hold(self._memory.held(self._clock.monotonic()))
        holdings = {holding.index: self._judged(holding) for holding in await self._redis_slots.holdings()}
        # Where the server's clock jumped, Redis gets the corrected deadlines for the next leader too.
        await self._redis_slots.hold(each for each in holdings.values() if each.remaining > 0 and not each.closed)
        now, size = self._clock.monotonic(), max([self._settings.max_streams, *(index + 1 for index in holdings)])
        slots = [Slot(index) for index in range(size)]
        for index, holding in holdings.items():
            if holding.remaining > 0:
                slots[index].load(holding, now)
        return slots

    def _judged(self, holding: Holding) -> Holding:
        jumped = self.clock_skew.jumped(holding.lifetime, self._clock.monotonic())
        if holding.closed or not jumped:
            return holding
        return replace(holding, remaining=min(holding.remaining + jumped, holding.lifetime))

    async def persist(self, context: LeaderContext) -> None:
        """Writes the slots of a term that has ended to Redis, which may have been flushed meanwhile.

        A new leader waits for this (`patience`). The term's streams are closed.
        """
        self._past = context
        now = self._clock.monotonic()
        waiting = [slot for slot in context.slots if slot.life is Life.CLOSING or not slot.ended]
        known = [slot.holding(now) for slot in waiting if slot.streams and slot.until > now]
        try:
            await self._redis_slots.hold(known)
        except StoreError:
            logger.info("the slots could not be written: Redis does not answer")

    def patience(self, term: Term, led_at: float) -> float:
        """Monotonic: the new term opens no stream before. `led_at`: when this process last certainly led.

        The previous leader gets the length of a lease to notice the end of its term, close its streams and write its
        slots: after a lease that ran out (too early where the server's clock jumped), and while the log is young (it
        was flushed, and the slots with it). No wait follows this process's own term, or is needed where it is alone.
        """
        now, lease, past = self._clock.monotonic(), self._settings.lease_seconds, self._past
        if self._alone:
            return now
        if past is not None and now - led_at <= lease:
            return past.streams_from
        foreign = bool(term.ran_out) and (past is None or term.ran_out != past.term.holder)
        return now + (lease if foreign else max(0.0, lease - term.age))
