"""What the benchmark asks of the machine: a core for either side, a compiler, open files, and what /proc tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
PATIENCE = 30.0
SPARE_FILES = 500
"""Descriptors beyond one per connection, on either side: libraries, logs, Redis, the live group of a herd."""


class MissingError(Exception):
    """something that this machine lacks; one line says what"""


@dataclass(frozen=True)
class Cores:
    """The server has one to itself; client, Redis and the publisher, idle while it sends, share the other."""

    server: int
    client: int

    @classmethod
    def choose(cls) -> Cores:
        """Two of those that this process may use. Raises MissingError."""
        if not hasattr(os, "sched_getaffinity"):
            raise MissingError("the fan-out benchmark needs Linux (epoll, /proc, CPU affinity)")
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise MissingError("the fan-out benchmark needs two cores: one for the server, one for the client")
        return cls(usable[0], usable[1])

    @contextlib.contextmanager
    def beside_the_client(self) -> Iterator[None]:
        """This process, and what it starts meanwhile without a core of its own, keeps off the server's."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.client})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def allow_files(subscribers: int) -> None:
    """Raises the soft limit to the hard one, for this process and all that it starts. Raises MissingError."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = subscribers + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MissingError(f"{subscribers} subscribers need {needed} open files (ulimit -Hn: {hard})")
    soft = max(needed, 65_536) if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def compiled(name: str, directory: Path) -> Path:
    """The program made of `name`.c. Raises MissingError where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingError("no C compiler (cc, gcc or clang) on the PATH: the load client is written in C")
    program = directory / name
    subprocess.run([compiler, *FLAGS, "-o", program, SOURCES / f"{name}.c"], check=True)
    return program


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
        return found


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str | Path],
    core: int,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    answers: int | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process on one core, its stdin and stdout piped to us; ended on leaving (SIGKILL after five seconds)."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if answers else asyncio.subprocess.DEVNULL,
        env=environment,
        cwd=directory,
        limit=answers or 65_536,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_answering(process: asyncio.subprocess.Process, port: int, path: str) -> None:
    """Returns at the first 200 for `path`. Raises MissingError where the process ended instead."""
    async with asyncio.timeout(PATIENCE):
        while not await _answers(port, path):
            if process.returncode is not None:
                raise MissingError(f"the server ended with status {process.returncode} instead of listening")
            await asyncio.sleep(0.05)


async def _answers(port: int, path: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def family(pid: int) -> list[int]:
    """A process and its descendants: nginx serves from a worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def memory(pid: int) -> int:
    """Bytes of the family's resident memory, what several share counted once (Pss)."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def listen_overflows() -> int:
    """How often a connection did not fit into its server's backlog so far, on this whole machine.

    The client's kernel tries such a one again after 1, 3, 7, 15 … seconds: a few of them make a herd slow.
    """
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")]
    return int(dict(zip(*lines, strict=True))["ListenOverflows"])


def cpu_seconds(pid: int) -> float:
    """User and system time of the family so far; the kernel counts in hundredths of a second."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
