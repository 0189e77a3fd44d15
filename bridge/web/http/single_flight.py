"""Callers that ask the same at the same moment share one call, as with Go's singleflight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Calls in flight, by key. Answers are not kept: a later caller starts a new call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}

    async def ask(self, key: Hashable, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of `question`, or of the call in flight for this key. Raises what that call raises.

        A cancelled caller does not cancel the call for the others.
        """
        asking: asyncio.Task[T] | None = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(question(), name=self._name)
            asking.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asking)

    def _answered(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: all callers may be gone

    async def aclose(self) -> None:
        """Cancels the calls in flight."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
