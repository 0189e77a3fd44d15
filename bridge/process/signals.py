"""How a command runs until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Stop(asyncio.Event):
    """Set when a command shall end; `at_once`: without the drain, because nobody sends anything here any more."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = False

    def set_at_once(self) -> None:
        self.at_once = True
        self.set()


Body = Callable[[Stop], Coroutine[Any, Any, None]]
"""A command's work: it runs until the event is set, and returns once everything it started has ended."""


class CommandError(Exception):
    """the command cannot run as it is set up; the text is one line that tells why and what helps"""


def execute(body: Body) -> None:
    """Runs a body, on uvloop where that is installed. SIGINT and SIGTERM set its `stop`; a second signal exits at once.

    SIGINT comes from a person's keyboard, who does not want to wait for a drain.

    Raises CommandError and OSError without the exception groups that task groups put around them.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(body))
    except* (CommandError, OSError) as group:
        error = _first(group)
    else:
        return
    raise error from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not every platform has it
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _with_signals(body: Body) -> None:
    stop, loop = Stop(), asyncio.get_running_loop()
    received = False

    def receive(number: signal.Signals) -> None:
        nonlocal received
        if received:
            os._exit(128 + number)  # the embedded server ends by its own watch
        # `stop` cannot tell whether this is the second signal: in a worker, the parent may have set it.
        received = True
        if number == signal.SIGINT:
            stop.set_at_once()
        else:
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receive, number)
    await body(stop)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends; cancels it when `stop` is set, and waits for its end."""
    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(work, name="work"), group.create_task(stop.wait(), name="stop")}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def run_role(name: str, work: Awaitable[None], stop: asyncio.Event) -> None:
    """Awaits a role's work. Raises CommandError if it ends before `stop` is set."""
    await work
    if not stop.is_set():
        raise CommandError(f"{name} ended unexpectedly; see the log")
