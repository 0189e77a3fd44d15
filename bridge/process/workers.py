"""`bridge web --workers N`: as many front ends on one port, each a process with a hub of its own.

The kernel deals new connections out evenly (SO_REUSEPORT). A worker that crashes is started again; one that refuses to
start ends all. Workers end with their parent, however it goes: their stdin is a pipe from it. A line in it is a stop;
no signal, for who signals all processes at once (systemd) would be heard twice, and a second signal means now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping

from prometheus_client import multiprocess

from bridge.config import Settings

logger = logging.getLogger(__name__)

AGAIN_AFTER = 1.0
"""Seconds before a crashed worker is started again: what crashes at once must not spin."""

REFUSED = 1
"""The exit status of a worker that cannot run as it is set up; it has said why itself."""

STARTING = 10.0
"""Seconds in which that status is a refusal; later it is a crash, which has the same."""

LATEST = 10.0
"""Seconds beyond the drain after which a worker that still runs is hung, and killed."""


class RefusedError(Exception):
    """a worker could not start; it has said why"""


async def run_workers(settings: Settings, count: int, stop: asyncio.Event) -> None:
    """Runs until `stop`, then until all workers have let their subscribers go. Raises RefusedError, OSError.

    One that refuses sets `stop`: the others end as at any other.
    """
    host = settings.host or "0.0.0.0"  # noqa: S104 - the contract's default
    with _reserved(host, settings.port) as port, tempfile.TemporaryDirectory(prefix="bridge-metrics-") as metrics:
        # Counters are summed over the workers by way of files: whichever is scraped answers for all.
        environment = {**os.environ, "PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": metrics}
        patience = settings.drain_seconds + LATEST
        async with asyncio.TaskGroup() as group:
            kept = [
                group.create_task(_keep(environment, stop, patience), name=f"worker {number}")
                for number in range(count)
            ]
        if any(task.result() == REFUSED for task in kept):
            raise RefusedError


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Keeps the port for the workers to bind, and finds a free one for 0. Not listening, it gets no connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        # Others that share their port would share it with us, unasked.
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        yield int(bound.getsockname()[1])


async def _keep(environment: Mapping[str, str], stop: asyncio.Event, patience: float) -> int:
    """REFUSED where that is why it ended, else 0."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        began = loop.time()
        status = await _run(environment, stop, patience)
        if stop.is_set():
            break
        if status == REFUSED and loop.time() - began < STARTING:
            stop.set()
            return REFUSED
        logger.error("a worker ended by itself and is started again", extra={"status": status})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_AFTER):
                await stop.wait()
    return 0


async def _run(environment: Mapping[str, str], stop: asyncio.Event, patience: float) -> int:
    """One worker's life; its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "web", "--worker"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # ctrl-C reaches the parent alone, which tells them
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ending = asyncio.create_task(process.wait(), name="worker's end")
    try:
        await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
        if process.returncode is None and process.stdin is not None:
            process.stdin.write(b"stop\n")
            await asyncio.wait({ending}, timeout=patience)
        if process.returncode is None:
            logger.error("a worker does not end and is killed", extra={"pid": process.pid})
            process.kill()
        return await ending
    finally:
        stopping.cancel()
        if process.returncode is None:
            process.kill()
        multiprocess.mark_process_dead(  # type: ignore[no-untyped-call]
            process.pid, environment["PROMETHEUS_MULTIPROC_DIR"]
        )


def end_with_parent(stop: asyncio.Event) -> None:
    """In a worker: sets `stop` when the parent says so or is gone. Called inside the loop.

    Gone while this one ends already, it was told to end at once, and so does this one.
    """
    reader = os.dup(sys.stdin.fileno())
    os.set_blocking(reader, False)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if os.read(reader, 64):
            stop.set()
            return
        loop.remove_reader(reader)
        os.close(reader)
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop.add_reader(reader, readable)
