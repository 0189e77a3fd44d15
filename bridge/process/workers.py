"""`bridge web --workers N`: several front ends on one port, each a process with a hub of its own.

The kernel spreads new connections evenly over them (SO_REUSEPORT). A worker that crashes is started again; a worker
that cannot start ends all of them. Workers end with their parent, however it ends: their stdin is a pipe from it, and a
line in the pipe asks them to stop. The parent sends no signal, because systemd signals all processes at once, and a
second signal would make a worker exit at once.
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

from bridge.clock import set_within
from bridge.config import Settings
from bridge.process.signals import CommandError, Stop
from bridge.uvicorn_server import address_family

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""How long a crashed worker waits before its next start, so that one that always crashes does not spin."""

CANNOT_START = 1
"""The exit status of a worker that cannot run as it is set up; it has printed why."""

START_SECONDS = 10.0
"""For so long that exit status is taken for CANNOT_START; later it is a crash, which has the same status."""

KILL_SECONDS = 10.0
"""Beyond the drain; a worker that still runs then hangs, and is killed."""


STOP_AT_ONCE = b"stop at once\n"


async def run_workers(settings: Settings, host: str, count: int, stop: Stop) -> None:
    """Runs until `stop`, and returns once all workers have drained. Raises CommandError, and OSError for the address.

    A worker that cannot start sets `stop`, so the others drain and end.
    """
    with _reserved(host, settings.port) as port, tempfile.TemporaryDirectory(prefix="bridge-metrics-") as metrics:
        # Workers keep their counters in files, so that each of them can answer /metrics with the sum.
        environment = {**os.environ, "PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": metrics}
        end_seconds = settings.drain_seconds + KILL_SECONDS
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(_keep_running(environment, stop, end_seconds), name=f"worker {number}")
                for number in range(count)
            ]
        if not all(task.result() for task in workers):
            raise CommandError("a worker could not start")


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Binds the port that the workers will share, a free one for 0. It does not listen, so it gets no connections."""
    family = address_family(host)
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        # Without SO_REUSEPORT: fails if another program shares its port, which would then get some of our connections.
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        yield int(bound.getsockname()[1])


async def _keep_running(environment: Mapping[str, str], stop: Stop, end_seconds: float) -> bool:
    """Starts a worker again and again until `stop`. False if it could not start."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        started_at = loop.time()
        status = await _run(environment, stop, end_seconds)
        if stop.is_set():
            break
        if status == CANNOT_START and loop.time() - started_at < START_SECONDS:
            stop.set_at_once()
            return False
        logger.error("a worker ended unexpectedly and is started again", extra={"status": status})
        await set_within(stop, RESTART_SECONDS)
    return True


async def _run(environment: Mapping[str, str], stop: Stop, end_seconds: float) -> int:
    """Runs one worker until it ends or `stop` is set; returns its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "web", "--worker"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that ctrl-C reaches the parent alone
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ending = asyncio.create_task(process.wait(), name="worker's end")
    try:
        await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
        if process.returncode is None and process.stdin is not None:
            process.stdin.write(STOP_AT_ONCE if stop.at_once else b"stop\n")
            await asyncio.wait({ending}, timeout=end_seconds)
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


def end_with_parent(stop: Stop) -> None:
    """In a worker: sets `stop` when the parent asks for it or is gone. Must be called inside the event loop.

    A parent that is gone while this worker already stops was told to exit at once, so this worker exits at once, too.
    """
    reader = os.dup(sys.stdin.fileno())
    os.set_blocking(reader, False)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if line := os.read(reader, 64):
            if line == STOP_AT_ONCE:
                stop.set_at_once()
            else:
                stop.set()
            return
        loop.remove_reader(reader)
        os.close(reader)
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop.add_reader(reader, readable)
