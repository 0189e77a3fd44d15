"""What `bridge cvms` and `bridge webhooks` share: questions to a bridge, their progress, one line for an error, and the
exit status (docs/contract.md#questions-on-the-command-line).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import IntEnum
from typing import Any, NoReturn

from bridge.client import BridgeError, Client, ForbiddenError, RefusedError, UnauthorizedError
from bridge.clock import Clock
from bridge.commands.shell import complain, discard_output, require_proxies
from bridge.commands.terminal import bridge_client, refused, write_line
from bridge.events import dumps
from bridge.process.signals import CommandError, execute, until

QUIET_SECONDS = 1.0
"""What takes no longer shows no progress."""


class Exit(IntEnum):
    """The exit status. Of several, the highest counts."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNFINISHED = 3
    CANNOT_TELL = 4


class Output:
    """Where answers go: for people if stdout is a terminal, else as JSON. `progress`: what a long wait is for."""

    def __init__(self, *, is_terminal: bool, progress: str = "") -> None:
        self.is_terminal, self.progress = is_terminal, progress
        self._shown = False

    def lines(self, lines: list[str]) -> None:
        """Raises BrokenPipeError once the pipe's reader is gone."""
        self.erase()
        for line in lines:
            write_line(line)

    def answer(self, body: dict[str, Any], *lines: str) -> None:
        """Shows the lines on a terminal, the body elsewhere. Raises BrokenPipeError."""
        self.lines([*lines] if self.is_terminal else [dumps(body)])

    def complain(self, line: str) -> None:
        self.erase()
        complain(line)

    def show_progress(self, seconds: float) -> None:
        sys.stderr.write(f"\r\x1b[K… {self.progress} ({seconds:.0f} s)")
        sys.stderr.flush()
        self._shown = True

    def erase(self) -> None:
        """Takes the progress away, so that a line can stand there."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False


Work = Callable[[Client, Output], Coroutine[Any, Any, Exit]]


def ask(command: str, url: str, token: str | None, work: Work, *, scope: str = "read") -> NoReturn:
    """Runs `work` with a client of the bridge, and ends the process with the exit status.

    `scope`: what the token must allow. A command that only reads has done its part once the reader of its pipe is gone.
    """
    require_proxies()
    url = url.rstrip("/")
    output = Output(is_terminal=sys.stdout.isatty(), progress=f"waiting for {url}")
    found = Exit.CANNOT_TELL  # a signal ends it without an answer, and must not look like success

    async def body() -> None:
        nonlocal found
        async with bridge_client(command, url, token) as bridge, progress(output, bridge.clock):
            try:
                found = await work(bridge, output)
            except BridgeError as error:
                output.complain(str(refused(error, url, scope)))
                found = exit_of(error)

    try:
        execute(lambda stop: until(stop, body()))
    except CommandError as error:
        complain(str(error))
        found = Exit.USAGE
    except BrokenPipeError:
        discard_output()
        found = Exit.DONE if scope == "read" else Exit.CANNOT_TELL
    except OSError as error:  # a full disk: the answer is not where it should be
        complain(error.strerror or str(error))
        found = Exit.CANNOT_TELL
    except KeyboardInterrupt:
        pass  # it came before our signal handlers
    sys.exit(found)


def exit_of(error: BridgeError) -> Exit:
    if isinstance(error, UnauthorizedError | ForbiddenError) or not isinstance(error, RefusedError):
        return Exit.CANNOT_TELL
    return Exit.USAGE if error.status in (400, 422) else Exit.REFUSED


@contextlib.asynccontextmanager
async def progress(output: Output, clock: Clock) -> AsyncIterator[None]:
    """Meanwhile a line of stderr tells what takes long, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.create_task(_progress(output, clock), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        output.erase()


async def _progress(output: Output, clock: Clock) -> None:
    begun = clock.monotonic()
    while True:
        await clock.sleep(QUIET_SECONDS)
        output.show_progress(clock.monotonic() - begun)
