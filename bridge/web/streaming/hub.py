"""The fan-out: one feed in, any number of subscribers out. A subscriber has a filter and a position, and no queue here.

Everything runs on one event loop, and the sets of subscribers change only between two awaits. `replay.py` brings a
subscriber to the end of the log; from there on the hub writes each event to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from bridge.clock import Clock, evenly
from bridge.cvm_scope import CvmScope
from bridge.events import Event, entry_key
from bridge.reference_sets import ReferenceSet
from bridge.store.log import Log, Position
from bridge.web import metrics
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.streaming.cursors import HISTORY_LOST
from bridge.web.streaming.demand import WatchDemand
from bridge.web.streaming.detach import write_directly
from bridge.web.streaming.frames import Frame, frame, heartbeat, position_block, retry_line
from bridge.web.streaming.replay import Replays
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.shared_read import SharedRead
from bridge.web.streaming.subscriber import Begin, Start, Subscriber
from bridge.web.streaming.subscriber_index import Group, SubscriberIndex

logger = logging.getLogger(__name__)

PAGE = 500
"""Events that the feed reads from Redis at once."""

SLICES = 20
"""Groups of subscribers that get their heartbeats one after the other, so that one turn of the loop stays short."""


COME_BACK_MS = 1000
"""For a subscriber whose token changed while its request was served; there are few of them."""


MOST_DIFFERENT_PATTERNS = 10_000
"""Different patterns of names of all subscribers: a name that is new is tried with each, in some milliseconds."""


class Hub:
    """Owns the subscribers and the ring. The feed calls `receive`, `on_tick` and `catch_up`, the routes the rest."""

    def __init__(
        self, log: Log, source: str, clock: Clock, *, buffer: int, log_length: int, ring: Ring | None = None
    ) -> None:
        self._log = log
        self._clock = clock
        self._buffer = buffer
        self._skip_at_most = max(1, log_length // 10)
        self._ring = ring or Ring()
        self.demand = WatchDemand()
        self._replays = Replays(self, log, self._ring, source, clock, buffer=buffer, skip_at_most=self._skip_at_most)
        self._catching = asyncio.Lock()
        self._shared_catch_up = SharedRead(self._catch_up_alone)
        self._present: dict[Subscriber, None] = {}
        self._index = SubscriberIndex()
        self._beats: list[dict[Subscriber, None]] = [{} for _ in range(SLICES)]
        self._beat = self._entered = 0
        self._patterns: Counter[str] = Counter()
        """Of those present."""
        self.log_id = ""
        self.sequence = 0
        self.last_id = "0-0"
        self._unsent = 0
        self.led_until = float("-inf")
        """Until when a leader leads, as far as is known (monotonic seconds); the feed consumer sets it."""
        self.listeners: list[Callable[[Event], None]] = []
        """Called with each event, in order, right after it went to the subscribers."""
        self.on_reset: list[Callable[[], None]] = []
        """Called when events may have been missed: a listener must read again what it derived from them."""

    @property
    def led(self) -> bool:
        """Whether a leader leads."""
        return self._clock.monotonic() <= self.led_until

    # The feed's side

    async def receive(self, event: Event) -> None:
        """A published event: the next one goes out, a known one is ignored, a hole is filled from the log.

        A known number under a later id is not a repetition but another history; the log then decides. Raises
        StoreError.
        """
        try:
            key = entry_key(event.id)
        except ValueError:
            return  # not published by a bridge
        async with self._catching:
            later = key > entry_key(self.last_id)
            if self.log_id and later and event.sequence == self.sequence + 1:
                await self._publish_all([event])
            elif later or event.sequence > self.sequence:
                metrics.HEALED.inc()
                await self._catch_up()

    async def on_tick(self, log_id: str, sequence: int, entry_id: str | None = None) -> None:
        """The leader's position in the log: reads what is missing here. Raises StoreError."""
        if log_id != self.log_id or sequence != self.sequence or entry_id not in (None, self.last_id):
            await self.catch_up()

    async def catch_up(self) -> None:
        """Reads the log from the last event on. If Redis lost events, every subscriber is reset. Raises StoreError."""
        await self._shared_catch_up.get()

    async def catch_up_to(self, sequence: int) -> None:
        """As `catch_up`, unless the hub follows a log and has this event. Raises StoreError."""
        if not self.log_id or sequence > self.sequence:
            await self._shared_catch_up.get()

    async def _catch_up_alone(self) -> None:
        async with self._catching:
            await self._catch_up()

    async def _catch_up(self) -> None:
        position = await self._log.position()
        if position is None:
            return
        if not await self._continues(position):
            await self._begin(position)
            return
        while self.sequence < position.sequence:
            events = await self._log.read_some(self.last_id, PAGE)
            if not events or not await self._publish_all(events):
                await self._begin(position)
                return

    async def _continues(self, position: Position) -> bool:
        """Whether the log still has the last event that was published here, under the same number.

        A replica that was promoted without the last writes goes on with other events under their numbers.
        """
        if position.log_id != self.log_id or position.sequence < self.sequence:
            return False
        if position.sequence == self.sequence:
            return position.id == self.last_id
        if self.last_id == position.low_water_mark:
            return self.sequence == position.low_water_sequence
        last = await self._log.find(self.last_id)
        return last is not None and last.sequence == self.sequence

    async def _publish_all(self, events: Iterable[Event]) -> bool:
        """False at a hole. Pauses often, so that a connection that takes its bytes is not mistaken for a slow one."""
        for event in events:
            if event.sequence != self.sequence + 1:
                return False
            self._publish(frame(event))
            for listener in self.listeners:
                listener(event)
            if self._unsent > self._buffer // 4:
                self._unsent = 0
                await asyncio.sleep(0)
        return True

    async def _begin(self, position: Position) -> None:
        """Goes to the end of this log; subscribers that followed another history are reset."""
        replaced = bool(self.log_id)
        recent = await self._log.latest(PAGE)
        self._ring.clear()
        for event in recent:
            if event.sequence <= position.sequence:
                self._ring.add(frame(event))
        self.log_id, self.sequence, self.last_id = position.log_id, position.sequence, position.id
        self._replays.forget_snapshots()
        metrics.position().set(self.sequence)
        if replaced:
            metrics.RESETS.inc()
            logger.warning("history was lost: subscribers are reset", extra={"sequence": self.sequence})
            self._start_over(self._present, Start(reset=HISTORY_LOST))
        else:
            # They came before there was a log, so all of its events are new to them.
            whole = position.low_water_sequence == 0
            live = [subscriber for subscriber in self._present if subscriber.live]
            self._start_over(live, Start(0, position.low_water_mark) if whole else Start(reset=HISTORY_LOST))
        for notify in self.on_reset:
            notify()

    def _start_over(self, subscribers: Iterable[Subscriber], start: Start) -> None:
        for subscriber in list(subscribers):
            self._stop_live(subscriber)
            self._replays.restart(subscriber, start)

    def _publish(self, new: Frame) -> None:
        self.sequence, self.last_id = new.sequence, new.id
        metrics.position().set(new.sequence)
        written_at = entry_key(new.id)[0] / 1000  # Redis's clock, as ours
        metrics.LAG.observe(max(0.0, self._clock.time() - written_at))
        self._ring.add(new)
        self._unsent += len(new.chunk)
        for group in self._index.of(new):
            self._deliver(group, new)

    def _deliver(self, group: Group, new: Frame) -> None:
        group.sent = new.sequence
        count, slow, crowded = len(group), [], []
        for subscriber in group.others:
            if not subscriber.sink.offer(new, self._buffer):
                slow.append(subscriber)
            elif subscriber.sink.file is not None and not subscriber.sink.backlog():
                crowded.append(subscriber)
        for file, taken in write_directly(group.files(), new.chunk):
            subscriber = group.direct[file]
            subscriber.sink.pass_on(new.chunk[taken:])
            crowded.append(subscriber)
        for subscriber in crowded:
            self._index.review(subscriber)
        metrics.SENT.inc(count - len(slow))
        for subscriber in slow:
            metrics.SLOW.inc()
            self.leave(subscriber)
            subscriber.sink.cut()

    def beat(self) -> None:
        """A heartbeat to the next slice of the subscribers; a position instead where a cursor has grown old."""
        comment = heartbeat(self.sequence)
        self._beat = (self._beat + 1) % SLICES
        for subscriber in self._beats[self._beat]:
            if not subscriber.live:
                if subscriber.sink.backlog() <= self._buffer:
                    subscriber.sink.write(heartbeat(subscriber.sequence))
                continue
            sent = max(subscriber.sent, self._index.sent(subscriber))
            if self.sequence - sent >= self._skip_at_most:
                subscriber.sink.write(position_block(self.sequence, self.last_id))
                subscriber.sent = self.sequence
            elif subscriber.sink.backlog() <= self._buffer:
                subscriber.sink.write(comment)
            self._index.review(subscriber)

    # The routes' side

    @property
    def present(self) -> int:
        return len(self._present)

    def check_patterns(self, scope: CvmScope) -> None:
        """Raises ProblemError 503 if there is no room for its patterns of names beside those of others."""
        if (new := scope.patterns - self._patterns.keys()) and len(self._patterns) + len(new) > MOST_DIFFERENT_PATTERNS:
            raise ProblemError(ProblemType.OVERLOADED, "subscribers name too many different patterns of names")

    def enter(self, subscriber: Subscriber, begin: Begin = None) -> None:
        """Starts a subscription: snapshots or replay, then live events, and again from the start if history is lost.

        One whose credential was revoked meanwhile ends at once.
        """
        if subscriber.credential.revoked:
            self.end(subscriber, COME_BACK_MS)
            return
        self._present[subscriber] = None
        self._entered = (self._entered + 1) % SLICES
        subscriber.beat = self._entered
        self._beats[subscriber.beat][subscriber] = None
        self.demand.add(subscriber.scope.demands.texts)
        self._patterns.update(subscriber.scope.patterns)
        self._replays.begin(subscriber, begin)

    def leave(self, subscriber: Subscriber) -> None:
        """Ends a subscription whose connection is gone or about to go. Further calls do nothing."""
        if subscriber not in self._present:
            return
        del self._present[subscriber]
        del self._beats[subscriber.beat][subscriber]
        self.demand.remove(subscriber.scope.demands.texts)
        for pattern in subscriber.scope.patterns:
            self._patterns[pattern] -= 1
            if not self._patterns[pattern]:
                del self._patterns[pattern]
        self._stop_live(subscriber)
        if subscriber.replaying is not None:
            subscriber.replaying.cancel()

    def _stop_live(self, subscriber: Subscriber) -> None:
        """From here on nothing is published to it."""
        if subscriber.live:
            subscriber.live = False
            self._index.discard(subscriber)

    def go_live(self, subscriber: Subscriber) -> None:
        """From here on each published event that it wants is written to it."""
        subscriber.live = True
        subscriber.sink.flush()  # what is written to the file directly must not overtake what waits
        self._index.add(subscriber)

    # The end

    async def drain(self, seconds: float, retry_ms: Iterator[int]) -> None:
        """Ends every subscription, evenly over `seconds`, including those that come meanwhile.

        Each is told when to come back: `retry_ms`, milliseconds.
        """
        async for subscriber in evenly(self._present, seconds, self._clock):
            self.end(subscriber, next(retry_ms))
        for subscriber in list(self._present):
            self.end(subscriber, next(retry_ms))

    def end_beyond(self, cvms: Mapping[str, ReferenceSet], retry_ms: Iterator[int]) -> None:
        """Ends the subscriptions whose scope their token's `cvms` would not give them now; other tokens have none."""
        for subscriber in list(self._present):
            allowed = cvms.get(subscriber.token)
            if allowed is not None and (subscriber.exceeds(allowed) or self._index.has_strayed(subscriber)):
                self.end(subscriber, next(retry_ms))

    def end_revoked(self, retry_ms: Iterator[int]) -> None:
        """Ends the subscriptions whose credentials are revoked."""
        for subscriber in [each for each in self._present if each.credential.revoked]:
            self.end(subscriber, next(retry_ms))

    def end(self, subscriber: Subscriber, retry_ms: int) -> None:
        """Ends one subscription after a `retry:` of so many milliseconds."""
        subscriber.sink.write(retry_line(retry_ms))
        self.leave(subscriber)
        subscriber.sink.close()
