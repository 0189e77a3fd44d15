"""Work that must come to its end although the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Its result. If the waiting task is cancelled meanwhile, however often, CancelledError is raised after its end."""
    task = asyncio.ensure_future(work)
    await ended(task)
    return task.result()


async def ended(work: asyncio.Future[Any]) -> None:
    """Waits for its end, whatever that is. If the waiting task is cancelled meanwhile, however often, CancelledError is
    raised after that.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if not work.cancelled():
        work.exception()  # it counts as seen
    if cancelled is not None:
        raise cancelled


def count() -> int:
    """How often the current task was cancelled. If it has grown although the task goes on, that was forgotten: before
    Python 3.13 by a task group that already ended for an error, in whose body the task waited until then.
    """
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
