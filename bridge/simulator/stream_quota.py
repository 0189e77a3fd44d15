"""The open SSE streams, and the limit per user. Synchronous, so that nothing comes between a check and its count."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

#: Upstream's limit of concurrent SSE connections per user.
LIMIT = 5

#: How a stream's connection ends: by a TCP reset, closed in the middle of the body, or properly.
Cut = Literal["reset", "close", "end"]

#: Verbatim pieces that may wait on one stream, whose client may not read.
MAX_PIECES = 1000


@dataclass(eq=False)
class OpenStream:
    """One SSE connection. Code that changes a field must set `awake`; only the stream's own task clears it.

    `counted` False: the stream has lapsed, so it no longer counts against the limit, but its client is still connected.
    `ends_at`: when its timeout ends it, real seconds.
    """

    id: int
    cvm: str
    user: str
    target: str
    interval: int
    timeout: int
    ends_at: float = math.inf
    counted: bool = True
    silent: bool = False
    gone: bool = False
    push: bool = False
    cut: Cut | None = None
    pieces: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_PIECES), repr=False)
    awake: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


@dataclass
class Tally:
    """Streams of one user or CVM: open now, most at one moment, opened ever, refused by the limit."""

    open: int = 0
    max: int = 0
    opened: int = 0
    refused: int = 0

    def enter(self) -> None:
        self.open += 1
        self.opened += 1
        self.max = max(self.max, self.open)


class StreamQuota:
    """All open streams. `late_notice`: real seconds for which the stream of a client that went away still counts, at
    most until its timeout: a proxy in front of upstream may notice late, or never.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.limit = LIMIT
        self.late_notice = 0.0
        self.occupied: Counter[str] = Counter()
        self.users: defaultdict[str, Tally] = defaultdict(Tally)
        self.cvms: defaultdict[str, Tally] = defaultdict(Tally)
        self._monotonic = monotonic
        self._open: dict[int, OpenStream] = {}
        self._late: list[tuple[float, OpenStream]] = []
        self._ids = itertools.count(1)

    def open(
        self, cvm: str, user: str, target: str, interval: int, timeout: int, lasts: float = math.inf
    ) -> OpenStream | None:
        """The stream, which lasts so many real seconds at most, or None if the user has reached the limit."""
        tally = self.users[user]
        if self.held(user) >= self.limit:
            tally.refused += 1
            return None
        stream = OpenStream(next(self._ids), cvm, user, target, interval, timeout, self._monotonic() + lasts)
        self._open[stream.id] = stream
        tally.enter()
        self.cvms[cvm].enter()
        return stream

    def held(self, user: str) -> int:
        """The number of streams that count against the user's limit now."""
        self.notice()
        return self.users.get(user, Tally()).open + self.occupied[user]

    def notice(self) -> None:
        """Stops counting streams whose clients went away `late_notice` seconds ago."""
        now = self._monotonic()
        noticed = [stream for until, stream in self._late if until <= now]
        self._late = [(until, stream) for until, stream in self._late if until > now]
        for stream in noticed:
            self._leave(stream)

    def release(self, stream: OpenStream) -> None:
        """Removes a stream whose connection has ended; idempotent. If its client went away, `late_notice` applies."""
        self.lapse(stream)
        self._open.pop(stream.id, None)

    def lapse(self, stream: OpenStream) -> None:
        """Stops counting it; idempotent."""
        if not stream.counted:
            return
        stream.counted = False
        if stream.gone and self.late_notice:
            self._late.append((min(self._monotonic() + self.late_notice, stream.ends_at), stream))
        else:
            self._leave(stream)

    def _leave(self, stream: OpenStream) -> None:
        self.users[stream.user].open -= 1
        self.cvms[stream.cvm].open -= 1

    def streams(self, cvm: str | None = None) -> list[OpenStream]:
        """The connected streams, oldest first; of one CVM if `cvm` (a vm uuid) is given."""
        return [stream for stream in self._open.values() if cvm in (None, stream.cvm)]

    def push(self, cvms: Iterable[str]) -> None:
        """Makes the streams of these CVMs send the state now."""
        for stream in (stream for cvm in set(cvms) for stream in self.streams(cvm)):
            stream.push = True
            stream.awake.set()

    def reset_counts(self) -> None:
        """Begins the tallies anew; open streams stay counted."""
        for tally in (*self.users.values(), *self.cvms.values()):
            tally.max, tally.opened, tally.refused = tally.open, 0, 0
