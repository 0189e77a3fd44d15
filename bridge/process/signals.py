"""How a command runs until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bridge.process.embedded import EmbeddedError
from bridge.process.errors import RefusalError

Body = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def execute(body: Body, *expected: type[Exception]) -> None:
    """Runs a body on uvloop where it is installed; SIGINT and SIGTERM set its `stop`, a second one ends the process.

    Raises RefusalError, EmbeddedError and what else is `expected` alone even where a task group had wrapped it.
    """
    caught: tuple[type[Exception], ...] = (RefusalError, EmbeddedError, *expected)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_heeding_signals(body))
    except* caught as group:
        refusal = _first(group)
    else:
        return
    raise refusal from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - it is not everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _heeding_signals(body: Body) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    heard = False

    def hear(number: signal.Signals) -> None:
        nonlocal heard
        if heard:
            os._exit(128 + number)  # whoever asks twice means now; the embedded server ends by its own watch
        # Not told by `stop`: a parent's word on its way to a worker that is signalled too is no second asking.
        heard = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    await body(stop)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends or `stop` is set; then it is cancelled and its end awaited."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work, name="work")
        stopping = group.create_task(_cancel_at(stop, working), name="stop")
        await asyncio.wait({working})
        stopping.cancel()


async def _cancel_at(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()


async def run_role(name: str, work: Awaitable[None], stop: asyncio.Event) -> None:
    await work
    if not stop.is_set():
        raise RefusalError(f"{name} ended although nothing had asked it to; the log says more")
