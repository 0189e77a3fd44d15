"""What one caller of the passthrough may take of it, so that the others are served too."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

TURN = 5.0
"""Seconds for which a request waits for a place of its key."""


class NoPlaceError(Exception):
    """the key has as many requests here as it may, and none of them has ended in time"""


class Shares:
    """So many requests at a time for each key; the next ones wait for their turn.

    A key is in the table only while it has a request here, so connections bound the table.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._turns: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}
        """A key's free places, and one item for each of its requests, those that wait included."""

    def __len__(self) -> int:
        return len(self._turns)

    @asynccontextmanager
    async def place(self, key_hash: str) -> AsyncIterator[None]:
        """One of the key's places while the context is open. Raises NoPlaceError after TURN seconds."""
        free, present = self._turns.setdefault(key_hash, (asyncio.Semaphore(self._each), []))
        present.append(None)
        try:
            try:
                async with asyncio.timeout(TURN):
                    await free.acquire()
            except TimeoutError:
                raise NoPlaceError from None
            try:
                yield
            finally:
                free.release()
        finally:
            present.pop()
            if not present:
                del self._turns[key_hash]


class Upload(Protocol):
    """A request whose body is on its way."""

    def give_way(self) -> None:
        """It has taken longest, and its place is needed: it ends."""


class Uploads:
    """The bodies on their way; beyond `most` the oldest gives way.

    A client can send as slowly as it likes, and a key need not be valid before its request is complete.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: OrderedDict[Upload, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._under_way)

    def enter(self, upload: Upload) -> None:
        self._under_way[upload] = None
        if len(self._under_way) > self._most:
            oldest, _ = self._under_way.popitem(last=False)
            oldest.give_way()

    def leave(self, upload: Upload) -> None:
        self._under_way.pop(upload, None)
