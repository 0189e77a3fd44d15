"""`bridge web`: one front end, or several worker processes on one port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.errors import RefusalError
from bridge.process.garbage_collection import settle_garbage_collection
from bridge.process.redis_connection import connected, needed_redis, report_redis
from bridge.process.signals import run_role
from bridge.process.startup import bound_address, http_url, open_access
from bridge.process.workers import RefusedError, end_with_parent, run_workers
from bridge.store.connection import Backend
from bridge.web.server import serve_web

logger = logging.getLogger(__name__)


async def run_web_workers(settings: Settings, count: int, stop: asyncio.Event) -> None:
    """So many front ends on one port."""
    needed_redis(settings)
    host = settings.host or "0.0.0.0"  # noqa: S104 - the contract's default
    open_access(settings, host, alone=False)
    with bound_address(host, settings.port, "PORT"):
        try:
            await run_workers(settings, count, stop)
        except* RefusedError:
            raise RefusalError("a worker could not start") from None


async def run_web(settings: Settings, stop: asyncio.Event, *, worker: bool = False) -> None:
    """One front end. An absent Redis is waited for: it listens meanwhile and is not ready.

    `worker`: one of several on the same port, that ends with its parent.
    """
    if worker:
        end_with_parent(stop)
    host, clock = settings.host or "0.0.0.0", SystemClock()  # noqa: S104 - the contract's default
    url = needed_redis(settings)
    opened = open_access(settings, host, alone=False)

    def say(port: int) -> None:
        logger.info("listening", extra={"address": http_url(host, port), "redis": masked_url(url)})

    async with connected(url, settings.namespace) as backend, asyncio.TaskGroup() as group:
        report_redis(group, backend, clock, stop, masked_url(url))
        web = serve_front(settings, backend, clock, stop, host=host, opened=opened, say=say, shared=worker)
        group.create_task(run_role("web", web, stop), name="web")


async def serve_front(
    settings: Settings,
    backend: Backend,
    clock: Clock,
    stop: asyncio.Event,
    *,
    host: str,
    opened: bool,
    say: Callable[[int], None],
    shared: bool = False,
) -> None:
    def listening(port: int) -> None:
        settle_garbage_collection()
        say(port)

    with bound_address(host, settings.port, "PORT"):
        await serve_web(
            settings,
            backend,
            clock,
            stop,
            host=host,
            port=settings.port,
            open_access=opened,
            on_listening=listening,
            shared=shared,
        )
