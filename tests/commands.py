"""`bridge` commands as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.servers import PATIENCE, eventually

#: The last two tell coverage to measure the command.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")

#: All that run, by their start.
running: list[Command] = []


class Command:
    """One `bridge` process; its output is collected while it runs."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        bare = {name: value for name, value in os.environ.items() if name in KEPT}
        own = {
            "XDG_STATE_HOME": str(home),
            "PYTHONWARNINGS": "error",
            "PYTHONPATH": str(Path.cwd()),
            "BRIDGE_DRAIN_SECONDS": "0",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *arguments],
            cwd=home,
            env={**bare, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(self)
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=_collect, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=_collect, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        return "".join(self.out)

    @property
    def errors(self) -> str:
        return "".join(self.err)

    def shows(self, pattern: str) -> str:
        """Waits until the pattern is in stdout or stderr; returns its first group, or all of it."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            if match := re.search(pattern, self.output + self.errors):
                found.append(match)
            assert match or self.process.poll() is None, f"ended without it:\n{self.output}{self.errors}"
            return bool(match)

        eventually(look, f"{pattern!r} in\n{self.output}{self.errors}")
        return found[0][found[0].re.groups and 1]

    def ends(self, number: signal.Signals | None = None) -> int:
        """Sends the signal, if one is given, and returns the exit status."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        if self in running:
            running.remove(self)
        for reader in self._readers:
            reader.join(PATIENCE)
        return status


Start = Callable[..., Command]
"""Starts one with these arguments and this environment; `conftest.py` ends it after the test."""


def _collect(source: IO[str] | None, into: list[str]) -> None:
    assert source is not None
    with source:
        into.extend(iter(source.readline, ""))
