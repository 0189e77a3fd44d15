"""Work that must come to its end although the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


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


def raise_if_cancelled() -> None:
    """Raises CancelledError if the current task was cancelled and went on: before Python 3.13 a task group that already
    ends for an error forgets a cancellation from outside.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
