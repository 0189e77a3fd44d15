"""The live side of the log: one subscription per process. A message is a hint; the log is complete."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from bridge.events import Event
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The subscription is made; read earlier events from the log."""


@dataclass(frozen=True, slots=True)
class Published:
    event: Event


@dataclass(frozen=True, slots=True)
class Tick:
    """The leader renewed its lease, as it does every `period` seconds."""

    log_id: str
    sequence: int
    id: str
    period: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The leader answered about a reference."""

    reference: str


Message = Subscribed | Published | Tick | Answered


class Feed:
    """Events, ticks and answers as they are published."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Subscribes on a fresh connection and yields until it breaks: StoreUnavailableError."""
        keys = self._backend.keys
        channels = (keys.events, keys.tick_channel, keys.answer_channel)
        async with aclosing(subscription(self._backend, *channels)) as source:
            async for channel, text in source:
                if (message := self._read(channel, text)) is not None:
                    yield message

    def _read(self, channel: str, text: str) -> Message | None:
        keys = self._backend.keys
        if not channel:
            return Subscribed()
        try:
            if channel == keys.events:
                return Published(Event.from_json(text))
            if channel == keys.answer_channel:
                return Answered(text)
            return _tick(json.loads(text))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            logger.warning("a message that the bridge did not write was published", extra={"channel": channel})
            return None


def _tick(fields: dict[str, Any]) -> Tick:
    tick = Tick(str(fields["birth"]), int(fields["sequence"]), str(fields["id"]), float(fields["period"]))
    if not (math.isfinite(tick.period) and tick.period > 0):
        raise ValueError("the period is not a positive number of seconds")
    return tick


async def subscription(backend: Backend, *channels: str) -> AsyncGenerator[tuple[str, str], None]:
    """(channel, text) of each message; ("", "") once all channels are subscribed, and after each silent reconnect.

    Raises StoreUnavailableError when the connection breaks.
    """
    # Unlike a command, a cluster's subscription does not discover the nodes by itself.
    await backend.call(backend.client.initialize())
    pubsub = backend.client.pubsub()
    try:
        await backend.call(pubsub.subscribe(*channels))
        acknowledged = 0
        while True:
            message: dict[str, Any] | None = await pubsub.get_message(timeout=None)
            if message is None:
                continue
            if message["type"] == "subscribe":
                acknowledged += 1
                if acknowledged % len(channels) == 0:
                    yield "", ""
            elif message["type"] == "message":
                yield str(message["channel"]), str(message["data"])
    except (RedisError, RedisClusterException, OSError) as error:
        raise StoreUnavailableError("the subscription broke") from error
    finally:
        await pubsub.aclose()
