"""Virtual time: an event loop that never waits, and a clock on it.

`run_virtual(scenario())` runs a coroutine on it; hours pass in milliseconds, in the same order on every
machine. Only what happens inside the process belongs on it: nothing outside could keep up.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")

#: A scenario that runs longer than this has a timer that ticks for ever while nothing is waited for.
DAY = 86_400.0


class VirtualTimeError(AssertionError):
    """The scenario cannot go on."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time starts at 0 and moves only while nothing can run, at once to the next timer."""

    def __init__(self, limit: float = DAY) -> None:
        self._now = 0.0
        self._limit = limit
        self._closing = False
        super().__init__(_IdleSelector(self))

    def time(self) -> float:
        return self._now

    def idle(self, timeout: float | None) -> None:
        """Nothing can run for `timeout` (None: ever); raises VirtualTimeError where that is the end."""
        if timeout is None:
            raise VirtualTimeError(f"deadlock: nothing is scheduled, and these tasks wait:\n{self._waiting()}")
        self._now += max(timeout, 0.0)
        if self._now > self._limit:
            raise VirtualTimeError(
                f"{self._limit:g} virtual seconds are over, and these tasks wait:\n{self._waiting()}"
            )

    def _waiting(self) -> str:
        return "\n".join(described(task) for task in asyncio.all_tasks(self))


class _IdleSelector(selectors.DefaultSelector):
    """Reports what is ready, and tells the loop instead of waiting for more."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return []  # something can run, and what is ready here is only another thread's wake
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready:
            self._loop.idle(timeout)
        return ready


class VirtualClock:
    """A `bridge.clock.Clock` on the running virtual loop; its wall time can jump, its monotonic one not."""

    def __init__(self, wall: float = 1_795_536_000.0) -> None:
        self._wall = wall

    def time(self) -> float:
        return self._wall + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Sets the wall clock forward, or back with a negative number."""
        self._wall += seconds


def run_virtual(scenario: Coroutine[object, object, T], *, limit: float = DAY) -> T:
    """Runs the scenario to its end in virtual time; fails on a deadlock, after `limit` virtual seconds, and
    where a task is left behind.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(limit)) as runner:
        return runner.run(_alone(scenario))


async def _alone(scenario: Coroutine[object, object, T]) -> T:
    result = await scenario
    await assert_no_task_left({asyncio.current_task()})
    return result


async def assert_no_task_left(known: set[asyncio.Task[object] | None]) -> None:
    """A task that is just ending gets the turns of the loop that it needs for it."""
    for _ in range(3):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() if task not in known}
    assert not left, "tasks were left behind:\n" + "\n".join(described(task) for task in left)


def described(task: asyncio.Task[object]) -> str:
    """Its name and the innermost line that it waits at."""
    frames = task.get_stack(limit=1)
    place = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "not yet started"
    return f"  {task.get_name()} ({task.get_coro()!r:.80}) at {place}"
