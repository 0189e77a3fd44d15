"""Keeps the hub at the end of the log: the subscription to Redis, its deafness, the heartbeats, the demand."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress

from bridge.clock import Clock
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick
from bridge.store.watches import Watches
from bridge.web import metrics
from bridge.web.api.references import References
from bridge.web.streaming.hub import SLICES, Hub

logger = logging.getLogger(__name__)

DEAF_AFTER_PERIODS = 3
RETRY_EVERY = 0.5
ANNOUNCE_EVERY = 5.0
GATHER = 0.1
"""Seconds between two announcements at least: a herd of subscribers is one change."""


class Follower:
    """`ready`: Redis answers and the subscription stands."""

    def __init__(self, hub: Hub, feed: Feed, references: References, clock: Clock, *, period: float) -> None:
        self._hub = hub
        self._feed = feed
        self._references = references
        self._clock = clock
        self._period = period
        self._heard_at = float("-inf")
        self._subscribed_at, self._standing = float("-inf"), False
        self.ready = False

    async def follow(self) -> None:
        """Never returns; a broken or deaf subscription is made anew on a fresh connection."""
        while True:
            try:
                await self._listen()
                logger.info("no tick from a leader: subscribing anew")
                self._heard_at = float("-inf")
            except StoreUnavailableError as error:
                if self.ready:
                    logger.warning("the subscription to Redis broke", extra={"error": str(error)})
                self.ready = False
                await self._clock.sleep(RETRY_EVERY)
            except StoreError as error:
                logger.error("Redis refuses the subscription", extra={"error": str(error)})
                self.ready = False
                await self._clock.sleep(RETRY_EVERY)
            self._hub.led = self._led()

    async def _listen(self) -> None:
        """Returns when no tick came for three periods."""
        self._subscribed_at, self._standing = self._clock.monotonic(), False
        async with aclosing(self._feed.messages()) as messages:
            while True:
                patience = DEAF_AFTER_PERIODS * self._period
                left = max(self._heard_at, self._subscribed_at) + patience - self._clock.monotonic()
                try:
                    async with asyncio.timeout(max(left, 0)):
                        message = await anext(messages)
                except TimeoutError:
                    # Without an answer to the subscription it is Redis that is silent, not the leader.
                    self.ready = self.ready and self._standing
                    return
                await self._take(message)

    async def _take(self, message: Message) -> None:
        if isinstance(message, Published):
            await self._hub.receive(message.event)
        elif isinstance(message, Tick):
            self._heard_at, self._period = self._clock.monotonic(), message.period
            self._hub.led = True
            await self._hub.heard(message.log_id, message.sequence, message.id)
        elif isinstance(message, Subscribed):
            metrics.RESUBSCRIBES.inc()
            await self._hub.catch_up()
            self.ready = self._standing = True
        elif isinstance(message, Answered):
            self._references.answered(message.reference)

    def _led(self) -> bool:
        return self._clock.monotonic() - self._heard_at <= DEAF_AFTER_PERIODS * self._period

    async def beat(self, every: float) -> None:
        """Heartbeats, for ever: each subscriber has one in `every` seconds."""
        while True:
            await self._clock.sleep(every / SLICES)
            self._hub.led = self._led()
            self._hub.beat()

    async def announce(self, watches: Watches, front: str) -> None:
        """Tells the leader who subscribes here, on changes and every few seconds; takes it back at the end."""
        try:
            while True:
                self._hub.demand.changed.clear()
                try:
                    await watches.announce(front, self._hub.demand.counts(), 3 * ANNOUNCE_EVERY)
                except StoreError:
                    logger.info("the demand waits for Redis")
                await self._clock.sleep(GATHER)
                await self._demand_changes()
        finally:
            await _quietly(watches, front)

    async def _demand_changes(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANNOUNCE_EVERY):
                await self._hub.demand.changed.wait()


async def _quietly(watches: Watches, front: str) -> None:
    try:
        await watches.retire(front)
    except StoreError:
        logger.info("the demand runs out by itself")
