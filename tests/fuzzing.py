"""What the fuzz tests share: how much is tried, and a front end as a process that is watched meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from bridge.sealing import new_key
from tests.commands import Command
from tests.processes import resident_bytes
from tests.servers import PATIENCE, eventually

T = TypeVar("T")

#: How many times as many examples as in the suite; `make fuzz` sets it. Read here, since a test has no such variable.
FACTOR = int(os.environ.get("BRIDGE_FUZZ", "1"))

ADMIN, READER, LIMITED = "admin-secret-0123456789", "reader-secret-0123456789", "limited-secret-0123456789"


def tried(count: int, drawn: SearchStrategy[T], check: Callable[[T], None]) -> None:
    """Checks so many examples: the same ones at each run of the suite, others at each run of `make fuzz`."""

    @settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def each(example: T) -> None:
        check(example)

    each()


@dataclass
class Watched:
    """A `bridge` process with an admin's token, a reader's, and one that is limited to one CVM."""

    command: Command
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> None:
        """Another client's request is served."""
        assert requests.get(f"{self.url}/healthz", timeout=PATIENCE).status_code == 200

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.command.process.pid}/fd"))

    def memory(self) -> int:
        """Resident bytes."""
        return resident_bytes(self.command.process.pid)

    def complaints(self) -> list[str]:
        """Log lines above information, and everything that is no log line, as a traceback is not."""
        return [line for line in self.command.err if _level(line) not in ("debug", "info")]


def _level(line: str) -> str:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return "none"
    return str(entry.get("level"))


@contextmanager
def watched_web(home: Path, redis_url: str, *, limited_to: str = "cvm-1", **environment: str) -> Iterator[Watched]:
    """`bridge web`. At the end it has no more files open than at the beginning, and has complained of nothing."""
    tokens = f"ops:{ADMIN}:admin app:{READER}:read tenant:{LIMITED}:read:{limited_to}"
    given = {
        "REDIS_URL": redis_url,
        "BRIDGE_TOKENS": tokens,
        "BRIDGE_SECRET_KEY": new_key(),
        "BRIDGE_LOG_FORMAT": "json",
    }
    command = Command(home, "web", HOST="127.0.0.1", PORT="0", **{**given, **environment})
    web = Watched(command, int(command.shows(r"http://127\.0\.0\.1:(\d+)")))
    web.answers()
    before = web.files()
    yield web
    eventually(lambda: web.files() <= before + 1, "as few open files as before")
    assert command.ends(signal.SIGTERM) == 0
    assert web.complaints() == []
