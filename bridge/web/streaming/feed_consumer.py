"""Keeps the hub at the end of the log: consumes the feed, subscribes again when it breaks, announces the demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from bridge.clock import Clock, set_within
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick
from bridge.store.watches import Watches
from bridge.web import metrics
from bridge.web.streaming.hub import SLICES, Hub

logger = logging.getLogger(__name__)

DEAF_AFTER_PERIODS = 3
"""Periods of the leader without a tick after which the subscription is replaced."""

RETRY_EVERY = 0.5
ANNOUNCE_EVERY = 5.0
GATHER = 0.1
"""Seconds between two announcements at least: many subscribers that connect at once are one change."""


class FeedConsumer:
    """Three long tasks: `follow`, `beat` and `announce`. `ready`: Redis answers and the subscription stands."""

    def __init__(self, hub: Hub, feed: Feed, on_answer: Callable[[str], None], clock: Clock, *, period: float) -> None:
        """`on_answer` is called with each reference that the leader has answered; `period`: seconds between ticks."""
        self._hub = hub
        self._feed = feed
        self._on_answer = on_answer
        self._clock = clock
        self._period = period
        self._ticked_at = self._subscribed_at = float("-inf")
        self._confirmed = False
        self.ready = False

    async def follow(self) -> None:
        """Never returns; replaces a broken or silent subscription by one on a fresh connection."""
        while True:
            try:
                await self._listen()
                logger.info("no tick from a leader: subscribing again")
                self._ticked_at = float("-inf")
            except StoreError as error:
                if not isinstance(error, StoreUnavailableError):
                    logger.error("Redis refuses the subscription", extra={"error": str(error)})
                elif self.ready:
                    logger.warning("the subscription to Redis broke", extra={"error": str(error)})
                self.ready = False
                await self._clock.sleep(RETRY_EVERY)
            self._hub.led = self._led()

    async def _listen(self) -> None:
        """Returns after three periods without a tick."""
        self._subscribed_at, self._confirmed = self._clock.monotonic(), False
        async with aclosing(self._feed.messages()) as messages:
            while True:
                deaf_at = max(self._ticked_at, self._subscribed_at) + DEAF_AFTER_PERIODS * self._period
                try:
                    async with asyncio.timeout(max(deaf_at - self._clock.monotonic(), 0)):
                        message = await anext(messages)
                except TimeoutError:
                    # Redis itself is silent if it did not even confirm the subscription.
                    self.ready = self.ready and self._confirmed
                    return
                await self._take(message)

    async def _take(self, message: Message) -> None:
        if isinstance(message, Published):
            await self._hub.receive(message.event)
        elif isinstance(message, Tick):
            self._ticked_at, self._period = self._clock.monotonic(), message.period
            self._hub.led = True
            await self._hub.on_tick(message.log_id, message.sequence, message.id)
        elif isinstance(message, Subscribed):
            metrics.RESUBSCRIBES.inc()
            await self._hub.catch_up()
            self.ready = self._confirmed = True
        elif isinstance(message, Answered):
            self._on_answer(message.reference)

    def _led(self) -> bool:
        return self._clock.monotonic() - self._ticked_at <= DEAF_AFTER_PERIODS * self._period

    async def beat(self, every: float) -> None:
        """Sends each subscriber a heartbeat every `every` seconds. Never returns."""
        while True:
            await self._clock.sleep(every / SLICES)
            self._hub.led = self._led()
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
