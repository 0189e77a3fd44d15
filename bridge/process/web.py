"""`bridge web`: one front end, or several worker processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.probe import serve_probe
from bridge.process.redis_connection import attend_redis, connected, required_redis
from bridge.process.secret_keys import refuse_unopened
from bridge.process.signals import Stop, run_role
from bridge.process.startup import ALL_ADDRESSES, named_address, open_access, settle_garbage_collection, tls_certificate
from bridge.process.worker import answering_parent
from bridge.process.worker_metrics import VARIABLE, used
from bridge.process.workers import run_workers
from bridge.store.connection import Backend
from bridge.store.server_clock import ServerClock
from bridge.uvicorn_server import http_url
from bridge.web import metrics
from bridge.web.server import serve_web

logger = logging.getLogger(__name__)


async def run_web_workers(settings: Settings, count: int, stop: Stop) -> None:
    """`count` front ends on one port, each a process. Raises CommandError."""
    required_redis(settings)
    host = settings.host or ALL_ADDRESSES
    open_access(settings, host, alone=False)
    tls_certificate(settings)
    async with connected(required_redis(settings), settings.namespace) as backend:
        await refuse_unopened(settings.secret_key, backend)
    with named_address(host, settings.port, "PORT"):
        await run_workers(settings, host, count, stop)


async def run_web(settings: Settings, stop: Stop, *, worker: bool = False, listener: int | None = None) -> None:
    """One front end. Without Redis it listens already and is not ready. Raises CommandError.

    `worker`: this process shares its port with others and ends with its parent; `listener`: the file of a
    socket from the parent that listens already.
    """
    with contextlib.ExitStack() as stack:
        if worker:
            stack.enter_context(used(Path(os.environ[VARIABLE])))
            stack.enter_context(answering_parent(stop, lambda cause: metrics.WORKERS_REPLACED.labels(cause).inc()))
        await _run_web(settings, stop, shared=worker, listener=listener)


async def _run_web(settings: Settings, stop: Stop, *, shared: bool, listener: int | None) -> None:
    host, url, clock = settings.host or ALL_ADDRESSES, required_redis(settings), ServerClock(SystemClock())
    opened = open_access(settings, host, alone=False)

    def report(port: int) -> None:
        address = http_url(host, port, tls=settings.tls_cert is not None)
        logger.info("listening", extra={"address": address, "redis": masked_url(url)})

    async with connected(url, settings.namespace) as backend, asyncio.TaskGroup() as group:
        if not shared:  # one worker that is started again must not end the others
            await refuse_unopened(settings.secret_key, backend)
        attend_redis(group, "web", backend, clock, stop, masked_url(url))
        web = serve_front(
            settings, backend, clock, stop, host=host, opened=opened, report=report, shared=shared, inherited=listener
        )
        group.create_task(run_role("web", web, stop), name="web")


async def serve_front(
    settings: Settings,
    backend: Backend,
    clock: Clock,
    stop: Stop,
    *,
    host: str,
    opened: bool,
    report: Callable[[int], None],
    shared: bool = False,
    inherited: int | None = None,
) -> None:
    """Serves until `stop`; `report` gets the port once the front end listens. Raises CommandError."""

    certificate, probe = tls_certificate(settings), None
    if settings.probe_port is not None:
        # Of its own event: it answers until the drain is over, so that all see in `/readyz` that this front end ends.
        probe = partial(serve_probe, settings.probe_port, asyncio.Event(), shared=shared)

    def on_listening(port: int) -> None:
        settle_garbage_collection()
        report(port)

    with named_address(host, settings.port, "PORT"):
        await serve_web(
            settings,
            backend,
            clock,
            stop,
            host=host,
            port=settings.port,
            open_access=opened,
            on_listening=on_listening,
            certificate=certificate,
            probe=probe,
            drain_seconds=lambda: 0.0 if stop.at_once else settings.drain_seconds,
            inherited=inherited,
            shared=shared,
        )
