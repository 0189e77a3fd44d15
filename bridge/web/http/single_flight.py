"""Many who ask the same at the same moment cost one question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Questions under way, by key. What is answered is not kept: who comes later asks anew."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}

    async def ask(self, key: Hashable, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer to `question`, or to the one that is under way for this key; what it raises is everybody's.

        A caller that goes away does not take the answer from the others.
        """
        asking: asyncio.Task[T] | None = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(question(), name=self._name)
            asking.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asking)

    def _answered(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # perhaps nobody is there to hear of it any more

    async def aclose(self) -> None:
        """Gives up what is under way."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
