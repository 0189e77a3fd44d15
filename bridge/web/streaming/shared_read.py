"""One read for all callers that wait for it: each gets the outcome of a read that began after it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRead(Generic[T]):
    """At any moment one read is running, and one more is wanted at most, however many callers there are."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        """The number of the last read that ended; its outcome is the last one."""
        self._value: T | None = None
        self._error: Exception | None = None

    async def get(self) -> T:
        """Raises what a read raised that ended while this caller waited, whenever it began."""
        begun, ended = self._begun, self._ended
        async with self._lock:
            failed = self._error is not None and self._ended > ended
            if self._ended <= begun and not failed:
                self._begun = number = self._begun + 1
                try:
                    self._value, self._error = await self._read(), None
                except Exception as error:
                    self._value, self._error = None, error
                self._ended = number
            if self._error is not None:
                raise self._error
            return self._value  # type: ignore[return-value]
