"""Keeps the hub at the end of the log: consumes the feed, subscribes again when it breaks, announces the demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from bridge.clock import SHORTEST_SLEEP, Clock, set_within
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick
from bridge.store.leadership import Lease
from bridge.store.watches import Watches
from bridge.web import metrics
from bridge.web.streaming.feed_health import FeedHealth
from bridge.web.streaming.hub import SLICES, Hub

logger = logging.getLogger(__name__)

RETRY_EVERY = 0.5
ANNOUNCE_EVERY = 5.0
GATHER = 0.1
"""Seconds between two announcements at least: many subscribers that connect at once are one change."""


class FeedConsumer:
    """Four long tasks: `follow`, `look`, `beat` and `announce`.

    A publication is a hint, which may be lost with or without its subscription; the log, read whenever a second brought
    neither an event nor a tick, is the guarantee.
    """

    def __init__(
        self,
        hub: Hub,
        feed: Feed,
        lease: Callable[[], Awaitable[Lease | None]],
        on_answer: Callable[[str], None],
        clock: Clock,
        *,
        period: float,
    ) -> None:
        """`lease` reads the leader's; `on_answer` is called with each reference that the leader has answered.

        `clock` must tell Redis's time. `period`: seconds between ticks.
        """
        self._hub = hub
        self._feed = feed
        self._lease = lease
        self._on_answer = on_answer
        self._clock = clock
        self._health = FeedHealth(period)
        self._unheard = 0
        """Looks in a row while publications did not arrive."""

    @property
    def readable(self) -> bool:
        """Whether Redis answers, so that events are read from the log at least."""
        return self._health.readable

    @property
    def arrives(self) -> bool:
        """Whether publications arrive; if not, events are late by up to a second."""
        return self._health.arrives(self._clock.monotonic())

    async def follow(self) -> None:
        """Never returns; replaces a broken or silent subscription by one on a fresh connection."""
        while True:
            try:
                await self._listen()
                metrics.position()  # from now on, to have found no log is to be behind
                logger.info("no tick from a leader: subscribing again")
            except StoreError as error:
                if not isinstance(error, StoreUnavailableError):
                    logger.error("Redis refuses the subscription", extra={"error": str(error)})
                elif self._health.arrives(self._clock.monotonic()):
                    logger.warning("the subscription to Redis broke", extra={"error": str(error)})
                self._health.break_off()
                await self._clock.sleep(RETRY_EVERY)

    async def _listen(self) -> None:
        """Returns after three periods without a tick."""
        self._health.subscribe(self._clock.monotonic())
        async with aclosing(self._feed.messages()) as messages:
            while True:
                try:
                    async with asyncio.timeout(max(self._health.deaf_at - self._clock.monotonic(), 0)):
                        message = await anext(messages)
                except TimeoutError:
                    self._health.give_up()
                    return
                await self._take(message)

    async def _take(self, message: Message) -> None:
        if isinstance(message, Subscribed):
            metrics.RESUBSCRIBES.inc()
            await self._hub.catch_up()
            self._health.confirm(self._clock.monotonic())
            return
        self._health.hear(self._clock.monotonic(), tells_end=not isinstance(message, Answered))
        if isinstance(message, Published):
            await self._hub.receive(message.event)
        elif isinstance(message, Tick):
            self._health.tick(self._clock.monotonic(), message.period)
            self._hub.led_until = self._health.led_until
            await self._hub.on_tick(message.log_id, message.sequence, message.id)
        elif isinstance(message, Answered):
            self._on_answer(message.reference)

    async def look(self) -> None:
        """Reads the log when no event and no tick came for a second, the lease when one is overdue. Never returns."""
        while True:
            now = self._clock.monotonic()
            if now >= self._health.look_at:
                await self._look(now)
            now = self._clock.monotonic()
            if self._health.readable:
                self._tell(arrives=self._health.arrives(now))
            await self._clock.sleep(max(self._health.look_at - now, SHORTEST_SLEEP))

    async def _look(self, now: float) -> None:
        health, hub = self._health, self._hub
        health.look(now)
        heard_at, before = health.heard_at, (hub.log_id, hub.sequence)
        try:
            renewed = health.is_tick_overdue(now) and await self._look_at_lease()
            await hub.catch_up()
        except StoreError:
            health.fail()
            return
        moved = (hub.log_id, hub.sequence) != before
        if moved and before[0]:  # else it is the first sight of the log
            metrics.HEALED.inc()
        health.answer(self._clock.monotonic(), heard_at=heard_at, news=renewed or moved)

    async def _look_at_lease(self) -> bool:
        """Whether it was renewed since the last look."""
        lease = await self._lease()
        remaining = lease.until - self._clock.time() if lease else 0.0
        renewed = self._health.lease(self._clock.monotonic(), lease, remaining)
        self._hub.led_until = self._health.led_until
        return renewed

    def _tell(self, *, arrives: bool) -> None:
        """One log line when publications do not arrive at two looks in a row, one when they do again."""
        if arrives and self._unheard > 1:
            logger.info("events come through the subscription to Redis again")
        self._unheard = 0 if arrives else self._unheard + 1
        if self._unheard == 2:
            logger.warning("nothing comes through the subscription to Redis: the log is read every second")

    async def beat(self, every: float) -> None:
        """Sends each subscriber a heartbeat every `every` seconds. Never returns."""
        while True:
            await self._clock.sleep(every / SLICES)
            self._hub.beat()

    async def announce(self, watches: Watches, front: str) -> None:
        """Announces this front end's demand to the leader, on changes and every few seconds; ends by withdrawing it."""
        try:
            while True:
                self._hub.demand.changed.clear()
                try:
                    await watches.announce(front, self._hub.demand.counts(), 3 * ANNOUNCE_EVERY)
                except StoreError:
                    logger.info("Redis cannot be used: the demand is announced later")
                await self._clock.sleep(GATHER)
                await set_within(self._hub.demand.changed, ANNOUNCE_EVERY)
        finally:
            try:
                await watches.retire(front)
            except StoreError:
                logger.info("Redis cannot be used: the announced demand will expire")
