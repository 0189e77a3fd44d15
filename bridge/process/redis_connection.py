"""A role's connection to Redis, and what it logs while Redis is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from bridge import __version__
from bridge.clock import Clock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.signals import CommandError, until
from bridge.store.connection import Backend, connect
from bridge.store.errors import StoreError
from bridge.store.server_clock import ServerClock
from bridge.store.versions import keep_version_told

logger = logging.getLogger(__name__)

REMINDER_SECONDS = 30.0
"""Between two log lines about a Redis that is still missing."""


def required_redis(settings: Settings) -> str:
    """The URL. Raises CommandError if it is not set."""
    if settings.redis_url is None:
        raise CommandError("REDIS_URL is not set: only `bridge up` starts a Redis of its own")
    return settings.redis_url


@contextlib.asynccontextmanager
async def connected(url: str, namespace: str) -> AsyncIterator[Backend]:
    """A backend, closed at the end. It connects at first use. Raises CommandError if the URL cannot be used."""
    try:
        backend = connect(url, namespace)
    except ValueError as error:
        raise CommandError(f"REDIS_URL cannot be used: {masked_url(str(error))}") from None
    try:
        yield backend
    finally:
        with contextlib.suppress(StoreError, OSError):
            await backend.close()


def attend_redis(
    group: asyncio.TaskGroup, role: str, backend: Backend, clock: ServerClock, stop: asyncio.Event, url: str
) -> None:
    """Starts what each role needs of its connection. Until `stop` is set, `clock` is kept at Redis's time, and a Redis
    that is missing is logged; from then on a Redis that hangs is not waited for. `url` must be masked. `role`: what
    `bridge check` shows beside the version of this process.
    """
    group.create_task(until(stop, wait_for_redis(backend, clock, url)), name="redis-report")
    group.create_task(until(stop, clock.follow(backend)), name="server-time")
    group.create_task(until(stop, keep_version_told(backend, role, __version__, clock)), name="version")
    group.create_task(_hurry(backend, stop), name="redis-hurry")


async def _hurry(backend: Backend, stop: asyncio.Event) -> None:
    await stop.wait()
    backend.hurry()


async def wait_for_redis(backend: Backend, clock: Clock, url: str) -> None:
    """Returns once Redis has answered. Until then it logs one line at once, and one every 30 seconds."""
    logged_at: float | None = None
    while True:
        try:
            await backend.ping()
        except StoreError as error:
            if logged_at is None or clock.monotonic() - logged_at >= REMINDER_SECONDS:
                logger.warning("waiting for Redis", extra={"redis": url, "error": str(error)})
                logged_at = clock.monotonic()
            await clock.sleep(1.0)
            continue
        if logged_at is not None:
            logger.info("Redis answers", extra={"redis": url})
        return
