"""`bridge dispatcher`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.errors import RefusalError
from bridge.process.garbage_collection import settle_garbage_collection
from bridge.process.redis_connection import connected, needed_redis, report_redis
from bridge.process.serving import serve_role_probe
from bridge.process.signals import run_role
from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.webhooks.dispatcher import Dispatcher
from bridge.webhooks.formats import render
from bridge.webhooks.signing import sign
from bridge.webhooks.transport import Poster


async def run_dispatcher(settings: Settings, stop: asyncio.Event) -> None:
    """One replica of the webhooks' sending side. An absent Redis is waited for."""
    url, clock = needed_redis(settings), SystemClock()
    if not settings.secret_key:
        raise RefusalError(
            "BRIDGE_SECRET_KEY is not set: `bridge dispatcher` needs the key that `bridge web` has (`bridge keygen` "
            "prints one)"
        )
    async with (
        connected(url, settings.namespace) as backend,
        running_dispatcher(settings, backend, clock) as dispatcher,
        asyncio.TaskGroup() as group,
    ):
        report_redis(group, backend, clock, stop, masked_url(url))
        if settings.probe_port is not None:
            probe = serve_role_probe(settings.probe_port, backend, lambda: "dispatcher", stop)
            group.create_task(run_role("probe", probe, stop), name="probe")
        settle_garbage_collection()
        group.create_task(run_role("dispatcher", dispatcher.run(stop), stop), name="dispatcher")


@contextlib.asynccontextmanager
async def running_dispatcher(settings: Settings, backend: Backend, clock: Clock) -> AsyncIterator[Dispatcher]:
    async with Poster(timeout=settings.webhook_timeout, allow=settings.webhook_allow, clock=clock) as poster:
        yield Dispatcher(
            backend,
            poster,
            render=render,
            sign=sign,
            unseal=Sealer(settings.secret_key).open,
            retry=settings.webhook_retry,
            clock=clock,
        )
