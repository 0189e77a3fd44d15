"""Connections that wait for their client: each gets a time limit, and gives way when files run short."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from bridge.clock import Clock
from bridge.web import metrics

logger = logging.getLogger(__name__)

CLIENT_SECONDS = 10.0
"""Seconds from the connection to the first byte of a request, from there to the end of its head, between two pieces of
its body, and between two looks at an answer that the client does not take; each."""

REPORT_EVERY = 60.0
"""Seconds between two log lines about too few files."""


class Waiting(Protocol):
    """A connection, as far as it is needed here."""

    def time_out(self) -> None:
        """It has waited too long for its client."""

    def give_way(self) -> None:
        """Its file is needed: it ends at once."""


class WaitingConnections:
    """The longest waiting connection first. `most`: connections that may be open in all, `streams` of them without a
    request, which are not counted by the caller of `enter`.

    Connections that rest between two requests have no time limit here, and give way before all others.
    """

    def __init__(self, clock: Clock, *, most: int, streams: Callable[[], int]) -> None:
        self._clock = clock
        self._most = most
        self._streams = streams
        self._since: OrderedDict[Waiting, float] = OrderedDict()
        self._resting: OrderedDict[Waiting, None] = OrderedDict()
        self._reported_at = float("-inf")

    def enter(self, connection: Waiting, present: int) -> None:
        """A connection was accepted; it is one of `present`. Beyond the limit one that rests is ended, or else the
        longest waiting one.
        """
        self._since[connection] = self._clock.monotonic()
        if present + self._streams() > self._most:
            (self._resting or self._since).popitem(last=False)[0].give_way()
            metrics.OUT_OF_FILES.inc()
            self._report()

    def begin(self, connection: Waiting) -> None:
        """The connection waits for its client from now on; no effect if it does already."""
        self._resting.pop(connection, None)
        self._since.setdefault(connection, self._clock.monotonic())

    def rest(self, connection: Waiting) -> None:
        """Its request is answered, and no other one has begun."""
        self._since.pop(connection, None)
        self._resting[connection] = None

    def end(self, connection: Waiting) -> None:
        self._since.pop(connection, None)
        self._resting.pop(connection, None)

    def expire(self) -> None:
        """Tells every connection that has waited for CLIENT_SECONDS."""
        due = self._clock.monotonic() - CLIENT_SECONDS
        while self._since and (first := next(iter(self._since.items())))[1] <= due:
            self.end(first[0])
            first[0].time_out()

    async def run(self) -> None:
        """Expires connections, to the second. Never returns."""
        while True:
            await self._clock.sleep(1.0)
            self.expire()

    def _report(self) -> None:
        now = self._clock.monotonic()
        if now - self._reported_at >= REPORT_EVERY:
            self._reported_at = now
            logger.error("too few open files: connections without a request are ended", extra={"limit": self._most})
