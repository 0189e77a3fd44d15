"""`bridge dispatcher`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.open_files import OWN_FILES, raise_open_files
from bridge.process.probe import create_app, start_probe
from bridge.process.redis_connection import attend_redis, connected, required_redis
from bridge.process.secret_keys import refuse_unopened
from bridge.process.signals import CommandError, run_role, until
from bridge.process.startup import settle_garbage_collection
from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.key_check import KeyCheck
from bridge.store.limits import LaneLimits
from bridge.store.server_clock import ServerClock
from bridge.webhooks.dispatcher import MOST_IN_FLIGHT, Dispatcher
from bridge.webhooks.transport import MOST_CONNECTIONS, Poster

LEAST_CONNECTIONS = 8
"""However few files a process may open: beyond them attempts are postponed."""


async def run_dispatcher(settings: Settings, stop: asyncio.Event) -> None:
    """One replica of the webhooks' sending side. It waits for a Redis that is not there yet. Raises CommandError."""
    url, clock = required_redis(settings), ServerClock(SystemClock())
    if not settings.secret_key:
        raise CommandError(
            "BRIDGE_SECRET_KEY is not set: `bridge dispatcher` needs the same key as `bridge web` (`bridge keygen` "
            "prints one)"
        )
    async with (
        connected(url, settings.namespace) as backend,
        open_dispatcher(settings, backend, clock) as (dispatcher, keys),
        asyncio.TaskGroup() as group,
    ):
        await refuse_unopened(settings.secret_key, backend)
        attend_redis(group, "dispatcher", backend, clock, stop, masked_url(url))

        def trouble() -> str:
            return keys.fit.trouble if keys.fit.wrong else dispatcher.trouble

        start_probe(group, settings, create_app(backend, lambda: "dispatcher", trouble, lambda: keys.fit.trouble), stop)
        settle_garbage_collection()
        group.create_task(until(stop, keys.follow(clock)), name="secret keys")
        group.create_task(run_role("dispatcher", dispatcher.run(stop), stop), name="dispatcher")


@contextlib.asynccontextmanager
async def open_dispatcher(
    settings: Settings, backend: Backend, clock: Clock
) -> AsyncIterator[tuple[Dispatcher, KeyCheck]]:
    """A dispatcher whose connections to receivers are closed at the end, and the check of its keys, to be followed."""
    most = max(min(raise_open_files() - OWN_FILES, MOST_CONNECTIONS), LEAST_CONNECTIONS)
    poster = Poster(timeout=settings.webhook_timeout, allow=settings.webhook_allow, clock=clock, most_connections=most)
    async with poster:
        sealer = Sealer(settings.secret_key)
        keys = KeyCheck(backend, sealer)
        dispatcher = Dispatcher(
            backend,
            poster,
            unseal=sealer.open,
            retry=settings.webhook_retry,
            clock=clock,
            limits=LaneLimits.of(settings),
            most_in_flight=min(most, MOST_IN_FLIGHT),
            idle=lambda: keys.fit.wrong,
        )
        yield dispatcher, keys
