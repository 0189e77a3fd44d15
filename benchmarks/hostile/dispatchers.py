"""The dispatchers as processes, and what is done to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import aiohttp

from benchmarks.hostile.odd_machine import FILES
from benchmarks.webhooks import until
from tests.processes import resident_bytes
from tests.servers import free_port

COUNT = 4
LONG_LIVED, FEW_FILES = 0, 3
"""One is frozen but never killed, so that its memory can be told; one may have MOST_FILES open files."""

MOST_FILES = 140

EXPECTED = (
    "attempts cannot be made and are postponed",
    "endpoints have too many pending deliveries",
    "endpoint disabled",
)
"""Error lines that hostile endpoints shall cause."""


class Dispatchers:
    """Started at once; `disturb` has them killed and frozen, one at a time."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environment}
        self._log = directory / "dispatchers.log"
        self._out: IO[bytes] = self._log.open("wb")
        self._ports = [free_port() for _ in range(COUNT)]
        self.processes = [self._start(number) for number in range(COUNT)]
        self.done: Counter[str] = Counter()
        self.ended: list[int] = []
        """Exit statuses of those that ended by themselves."""

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment = {**self._environment, "BRIDGE_PROBE_PORT": str(self._ports[number])}
        if number == FEW_FILES:
            environment[FILES] = str(MOST_FILES)
        command = [sys.executable, "-m", "benchmarks.hostile.odd_machine"]
        return subprocess.Popen(command, env=environment, stderr=self._out)

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Returns once all of them work."""
        for port in self._ports:
            await until(lambda: _answers(session, f"http://127.0.0.1:{port}/readyz"))  # noqa: B023

    async def disturb(self, rng: random.Random, every: float) -> None:
        """`every`: the mean time between the end of one disturbance and the next, seconds."""
        while True:
            await asyncio.sleep(every * rng.uniform(0.5, 1.5))
            number = rng.randrange(COUNT)
            process = self.processes[number]
            if (status := process.poll()) is not None:
                self.ended.append(status)
                self.processes[number] = self._start(number)
            elif number == LONG_LIVED or rng.random() < 0.5:
                process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(rng.uniform(1, 12))
                finally:
                    process.send_signal(signal.SIGCONT)
                self.done["frozen"] += 1
            else:
                process.kill()
                process.wait()
                try:
                    await asyncio.sleep(rng.uniform(0, 2))
                finally:
                    self.processes[number] = self._start(number)
                self.done["killed"] += 1

    def megabytes(self) -> list[float]:
        """Resident, of each; 0 for one that is not there."""
        return [_resident(each.pid) for each in self.processes]

    async def end(self) -> list[int]:
        """A planned stop; the exit statuses."""
        for process in self.processes:
            process.terminate()
        return [await asyncio.to_thread(process.wait, 60) for process in self.processes]

    def errors(self) -> Counter[str]:
        """What they logged that hostile endpoints do not explain, by message."""
        return Counter(message for message in _error_lines(self._log) if message not in EXPECTED)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._out.close()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(url) as answer:
            return answer.status == 200
    return False


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return resident_bytes(pid) / 2**20
    return 0.0


def _error_lines(log: Path) -> Iterator[str]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            yield line  # of no logger: a traceback
        else:
            if record["level"] in ("error", "critical"):
                yield record["msg"]
