"""`bridge` commands as processes.

An import of bridge takes more CPU than most tests: commands are forks of a process that has it, except where a test
changes what Python imports, or coverage measures.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO, Protocol

from tests.servers import PATIENCE, eventually

MEASURED = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", *MEASURED)

#: All that run, by their start.
running: list[Command] = []


class Process(Protocol):
    """What of `Popen` tests use."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@functools.cache
def _warm() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    return context


class Fork:
    """One `bridge` process that a warm one forks."""

    def __init__(self, home: Path, arguments: Sequence[str], environment: dict[str, str]) -> None:
        out, its_out = _warm().Pipe(duplex=False)
        err, its_err = _warm().Pipe(duplex=False)
        given = (its_out, its_err, home, arguments, environment)
        with its_out, its_err:
            self._process = _warm().Process(target=_command, args=given, daemon=True)
            self._process.start()
        self.stdout, self.stderr = (os.fdopen(os.dup(each.fileno())) for each in (out, err))
        out.close()
        err.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("bridge", timeout or 0)
        return self._process.exitcode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _command(out: Connection, err: Connection, home: Path, arguments: Sequence[str], given: dict[str, str]) -> None:
    """What the fork does: it becomes `python -m bridge` with these arguments."""
    for connection, target in ((out, 1), (err, 2)):
        os.dup2(connection.fileno(), target)
        connection.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(given)
    os.chdir(home)
    warnings.resetwarnings()
    warnings.simplefilter("error")
    sys.argv = ["bridge", *arguments]

    from bridge.commands.cli import main  # noqa: PLC0415 - imported already, by the process that forks

    main(arguments, prog_name="bridge")


def _fresh(home: Path, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Command:
    """One `bridge` process, or another program's; its output is collected while it runs."""

    def __init__(self, home: Path, *arguments: str, program: str = "", **environment: str) -> None:
        bare = {name: value for name, value in os.environ.items() if name in KEPT}
        own = {
            "XDG_STATE_HOME": str(home),
            "PYTHONWARNINGS": "error",
            "PYTHONPATH": str(Path.cwd()),
            "BRIDGE_DRAIN_SECONDS": "0",
            **environment,
        }
        is_fresh = program or "PYTHONPATH" in environment or any(name in os.environ for name in MEASURED)
        start = [program] if program else [sys.executable, "-m", "bridge"]
        given = {**bare, **own}
        made = _fresh(home, [*start, *arguments], given) if is_fresh else Fork(home, arguments, given)
        self.process: Process = made
        running.append(self)
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=_collect, args=(made.stdout, self.out), daemon=True),
            threading.Thread(target=_collect, args=(made.stderr, self.err), daemon=True),
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
