"""`bridge web --workers N`: several front ends on one port, each a process with a hub of its own.

The kernel spreads new connections evenly over them (SO_REUSEPORT). A worker that crashes or hangs is started again; if
one cannot start at first, all of them end. Workers end with their parent, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from bridge.clock import set_within
from bridge.config import Settings
from bridge.process.signals import CommandError, Stop
from bridge.process.worker import Cause, End, run_worker
from bridge.process.worker_metrics import VARIABLE, forget_worker, metrics_directory
from bridge.uvicorn_server import address_family, unix_path
from bridge.web.http.unix_socket import unix_socket
from bridge.web.server import BACKLOG

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""How long a crashed worker waits before its next start, so that one that always crashes does not spin."""

CANNOT_START = 1
"""The exit status of a worker that cannot run as it is set up; it has printed why."""

START_SECONDS = 10.0
"""For so long that exit status is taken for CANNOT_START; later it is a crash, which has the same status."""


async def run_workers(settings: Settings, host: str, count: int, stop: Stop) -> None:
    """Runs until `stop`, and returns once all workers have drained. Raises CommandError, and OSError for the address.

    A worker that cannot start at first sets `stop`, so the others drain and end.
    """
    with _reserved(host, settings.port) as (port, listener), metrics_directory() as metrics:
        environment = {**os.environ, "PORT": str(port), VARIABLE: str(metrics)}

        async def run(replaces: Cause | None) -> End:
            forget = partial(forget_worker, metrics)
            return await run_worker(environment, stop, settings.drain_seconds, replaces, forget, listener)

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(_keep_running(run, stop), name=f"worker {number}") for number in range(count)]
        if not all(task.result() for task in workers):
            raise CommandError("a worker could not start")


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[tuple[int, int | None]]:
    """What the workers will share: a port, a free one for 0, or the file of a listening unix socket.

    A port is bound here and does not listen, so it gets no connections.
    """
    if path := unix_path(host):
        with unix_socket(path, BACKLOG) as shared:
            yield port, shared.fileno()
        return
    family = address_family(host)
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        # Without SO_REUSEPORT: fails if another program shares its port, which would then get some of our connections.
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        yield int(bound.getsockname()[1]), None


async def _keep_running(run: Callable[[Cause | None], Awaitable[End]], stop: Stop) -> bool:
    """Starts a worker again and again until `stop`. False if it could not start at first.

    One that was started in place of another leaves the others alone: they serve with settings that were right.
    """
    loop = asyncio.get_running_loop()
    replaces: Cause | None = None
    while not stop.is_set():
        started_at = loop.time()
        end = await run(replaces)
        if stop.is_set():
            break
        if replaces is None and end.status == CANNOT_START and loop.time() - started_at < START_SECONDS:
            stop.set_at_once()
            return False
        replaces = "hung" if end.hung else "crashed"
        if not end.hung:
            logger.error("a worker ended unexpectedly and is started again", extra={"status": end.status})
        await set_within(stop, RESTART_SECONDS)
    return True
