"""A subscriber that waits for a decision instead of passing events on: its sink reads what the hub writes.

So a wait begins, resumes, is drained and counts as demand as a stream does. One costs a task that sleeps, and a few
objects; no connection of its own is written to until the decision.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from starlette.types import Message

from bridge.clock import Clock
from bridge.events import POSITION, RESET, SSE_EVENTS, entry_key
from bridge.waiting import Outcome, Waiting
from bridge.web.streaming.frames import Frame

BLOCKS_READ = 16
"""Blocks that are kept as they were read: thousands of waits get the same one, one after the other."""


MOST_MEMBERS = 200_000
"""CVMs that all waits of a front end remember: half a kilobyte each."""


@dataclass(slots=True)
class Crowd:
    """How many CVMs the waits of one front end remember together. The waiters count themselves."""

    count: int = 0

    @property
    def is_too_large(self) -> bool:
        return self.count > MOST_MEMBERS


@dataclass(frozen=True, slots=True)
class _Block:
    """`entry_id` is empty where there is no `id:` line."""

    event: str
    entry_id: str
    kind: str
    time: str | None
    data: Mapping[str, Any]


class Waiter:
    """The sink (`sinks.Sink`) of one wait; the hub writes, and the request's task sleeps. It decides once."""

    def __init__(
        self, waiting: Waiting, clock: Clock, crowd: Crowd, *, cursor: str = "", begun_at: str = "0-0"
    ) -> None:
        """`cursor`: after which the wait begins. The empty text: with snapshots, which may be some seconds old; what
        was so before `begun_at`, the log's last event, decides nothing then.
        """
        self.waiting = waiting
        self.cursor = cursor
        """The last event that was considered."""
        self.outcome = Outcome.UNDECIDED
        self.reset: str | None = None
        """Why the cursor cannot be honoured."""
        self.is_live = False
        """Whether all that there was has been considered."""
        self.is_ended = False
        """Whether the hub ended it."""
        self.is_crowded = False
        """Whether there is no room for all of its CVMs."""
        self.file = None
        self._crowd = crowd
        self._counted = 0
        self._clock = clock
        self._resumed = bool(cursor)
        self._counts_from = entry_key("0-0" if cursor else begun_at)
        self._nap: asyncio.Timeout | None = None
        self._count(len(waiting.members))

    @property
    def is_over(self) -> bool:
        return self.is_ended or self.is_crowded or self.reset is not None or self.outcome is not Outcome.UNDECIDED

    # The request's side

    async def nap(self, receive: Callable[[], Awaitable[Message]], seconds: float | None) -> bool:
        """Returns once there is news, or after `seconds`; False if the client has gone.

        A timeout that is moved up is the alarm, so that a wait needs no second task.
        """
        try:
            async with asyncio.timeout(seconds) as self._nap:
                while (await receive())["type"] != "http.disconnect":
                    continue
                return False
        except TimeoutError:
            return True
        finally:
            self._nap = None

    def settle(self, *, led: bool) -> None:
        """See `Waiting.settle`."""
        self.waiting.settle(self._clock.monotonic(), led=led)
        if self.is_live:
            self._decide()

    def release(self) -> None:
        """It remembers no CVM from here on, as far as others are concerned."""
        self._count(0)

    # The hub's side

    def offer(self, frame: Frame, most: int) -> bool:
        self._read(frame.data)
        return True

    def send_all(self, frames: Iterable[Frame]) -> None:
        for each in frames:
            self._read(each.data)

    def write(self, data: bytes) -> None:
        for block in data.split(b"\n\n"):
            self._read(block)

    def flush(self) -> None:
        """The hub calls it when what is new comes from now on."""
        self.is_live = True
        if not self.is_over:
            self._decide()
        self._wake()

    def close(self) -> None:
        self.is_ended = True
        self._wake()

    def cut(self) -> None:
        self.close()

    def backlog(self) -> int:
        return 0

    async def drained(self) -> None:
        await asyncio.sleep(0)  # others have a turn between two pieces of thousands of snapshots

    def pass_on(self, rest: bytes) -> None:
        raise AssertionError("there is no file")

    def _read(self, text: bytes) -> None:
        if self.is_over or (block := _block(text)) is None:
            return
        if block.event == SSE_EVENTS[RESET]:
            self._lose(str(block.data.get("reason")))
        elif block.event != POSITION:
            self.waiting.take(block.kind, block.data, block.time, self._clock.monotonic(), block.entry_id)
            self._count(len(self.waiting.members))
        if block.entry_id and self.reset is None:
            # Until there is a cursor, snapshots are missing.
            self.cursor = block.entry_id
            if entry_key(block.entry_id) >= self._counts_from:
                self._decide()

    def _count(self, members: int) -> None:
        if members > self._counted and self._crowd.is_too_large:
            self.is_crowded = True
            self._wake()
        self._crowd.count += members - self._counted
        self._counted = members

    def _lose(self, reason: str) -> None:
        if self._resumed:
            self.reset = reason
            self._wake()
        else:
            self.is_live = False
            self.waiting.forget()

    def _decide(self) -> None:
        self.outcome = self.waiting.outcome
        if self.outcome is not Outcome.UNDECIDED or self.waiting.is_unsettled:
            self._wake()

    def _wake(self) -> None:
        if self._nap is not None and not self._nap.expired():
            self._nap.reschedule(asyncio.get_running_loop().time())


@lru_cache(maxsize=BLOCKS_READ)
def _block(text: bytes) -> _Block | None:
    """None for what has no data: comments, `retry:`, or the empty text."""
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line and not line.startswith(b":"))
    if b"data" not in fields:
        return None
    envelope = json.loads(fields[b"data"], parse_int=str)
    return _Block(
        fields[b"event"].decode(),
        fields.get(b"id", b"").decode(),
        str(envelope.get("type")),
        envelope.get("time"),
        envelope.get("data") or {},
    )
