"""The fan-out: one feed in, any number of subscribers out; each has a filter and a position, and no queue here.

Everything runs on one event loop, and every change of the subscriber sets happens between two awaits: that is what
makes the seam between replay and live exact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

from bridge.clock import Clock, rfc3339
from bridge.events import Event, entry_key
from bridge.store.log import Log, Position
from bridge.store.snapshots import Snapshot
from bridge.web import metrics
from bridge.web.frames import Frame, block, frame, position_block, reset_block, retry_line, snapshot_json
from bridge.web.ring import Ring
from bridge.web.subscriber import Start, Subscriber

logger = logging.getLogger(__name__)

PAGE = 500
"""Events per page of a replay: large enough to be quick, small enough to be paced."""

REPLAYS_AT_ONCE = 8
"""Pages read from Redis at the same time; a herd with old cursors waits its turn."""

STEP = 0.01
"""Seconds; letting go sleeps no shorter: ten thousand short sleeps would take longer than they say."""

HISTORY_LOST = "history_lost"
UNKNOWN_CURSOR = "unknown_cursor"


class Hub:
    """Owns the subscribers and the ring. `receive`, `heard` and `catch_up` are the feed's; the rest the endpoints'."""

    def __init__(
        self, log: Log, source: str, clock: Clock, *, buffer: int, log_length: int, ring: Ring | None = None
    ) -> None:
        self._log = log
        self._source = source
        self._clock = clock
        self._buffer = buffer
        self._skip_at_most = max(1, log_length // 10)
        self._ring = ring or Ring()
        self._catching = asyncio.Lock()
        self._reading = asyncio.Semaphore(REPLAYS_AT_ONCE)
        self._snapshot_lock = asyncio.Lock()
        self._cached: tuple[tuple[str, int, bool], Position, dict[str, bytes]] | None = None
        self._everything: set[Subscriber] = set()
        self._by_cvm: dict[str, set[Subscriber]] = {}
        self._present: set[Subscriber] = set()
        self.birth = ""
        self.sequence = 0
        self.last_id = "0-0"
        self._unsent = 0
        self.led = False
        """Whether a leader was heard lately; the follower of the feed sets it."""
        self.closing = False
        """Whether subscribers are being let go: no new ones then."""
        self.demanded = asyncio.Event()
        """Set when `demand` changed; who announces it clears it."""

    # The feed's side

    async def receive(self, event: Event) -> None:
        """A published event: the next one goes out, a known one is ignored, a hole is read from the log.

        A number known already under a later id is no repeat but another history: the log says which.
        """
        try:
            later = entry_key(event.id) > entry_key(self.last_id)
        except ValueError:
            return  # published by somebody else
        if self.birth and later and event.sequence == self.sequence + 1:
            await self._publish_all([event])
        elif later or event.sequence > self.sequence:
            metrics.HEALED.inc()
            await self.catch_up()

    async def heard(self, birth: str, sequence: int, entry_id: str | None = None) -> None:
        """A tick: it tells where the log stands."""
        if birth != self.birth or sequence != self.sequence or entry_id not in (None, self.last_id):
            await self.catch_up()

    async def catch_up(self) -> None:
        """Reads the log from the last event on. What is missing in it was lost by Redis: everybody is reset.

        The feed's follower alone calls it, never at the same moment as `receive`.
        """
        async with self._catching:
            position = await self._log.position()
            if position is None:
                return
            if not await self._continues(position):
                await self._begin(position)
                return
            while self.sequence < position.sequence:
                events = await self._log.read(self.last_id, PAGE)
                if not events or not await self._publish_all(events):
                    await self._begin(position)
                    return

    async def awaken(self) -> None:
        """Finds the log's end when nobody has yet: a subscriber may be here before the feed is."""
        async with self._catching:
            if not self.birth and (position := await self._log.position()) is not None:
                await self._begin(position)

    async def _continues(self, position: Position) -> bool:
        """Whether the log still holds what was last published here under the same number.

        A replica promoted without the last writes goes on with other events under their numbers.
        """
        if position.birth != self.birth or position.sequence < self.sequence:
            return False
        if position.sequence == self.sequence:
            return position.id == self.last_id
        if self.last_id == position.floor:
            return self.sequence == position.floor_sequence
        last = await self._log.find(self.last_id)
        return last is not None and last.sequence == self.sequence

    async def _publish_all(self, events: Iterable[Event]) -> bool:
        """False at a hole. Pauses often enough for connections that take their bytes not to look slow."""
        for event in events:
            if event.sequence != self.sequence + 1:
                return False
            self._publish(frame(event))
            if self._unsent > self._buffer // 4:
                self._unsent = 0
                await asyncio.sleep(0)
        return True

    async def _begin(self, position: Position) -> None:
        """Stands at the end of this log; whoever followed another history is told."""
        anew = bool(self.birth)
        recent = await self._log.latest(PAGE)
        self._ring.clear()
        for event in recent:
            if event.sequence <= position.sequence:
                self._ring.add(frame(event))
        self.birth, self.sequence, self.last_id = position.birth, position.sequence, position.id
        metrics.POSITION.set(self.sequence)
        if anew:
            metrics.RESETS.inc()
            logger.warning("history was lost: subscribers are reset", extra={"sequence": self.sequence})
            self._start_over(self._present, Start(reset=HISTORY_LOST))
        else:
            # They came before there was a log: all of it is news to them.
            whole = position.floor_sequence == 0
            self._start_over(self._live(), Start(0, position.floor) if whole else Start(reset=HISTORY_LOST))

    def _start_over(self, subscribers: Iterable[Subscriber], start: Start) -> None:
        for subscriber in list(subscribers):
            self._rest(subscriber)
            subscriber.start_over(start)

    def _live(self) -> set[Subscriber]:
        return self._everything.union(*self._by_cvm.values())

    def _publish(self, new: Frame) -> None:
        self.sequence, self.last_id = new.sequence, new.id
        metrics.POSITION.set(new.sequence)
        self._ring.add(new)
        self._unsent += len(new.data)
        for subscriber in list(self._everything):
            self._offer(subscriber, new)
        for subscriber in list(self._by_cvm.get(new.cvm_id, ())):
            self._offer(subscriber, new)

    def _offer(self, subscriber: Subscriber, new: Frame) -> None:
        if new.sequence <= subscriber.sequence or not subscriber.wants(new.cvm_id, new.type):
            return
        if subscriber.sink.backlog() > self._buffer:
            metrics.SLOW.inc()
            self.leave(subscriber)
            subscriber.sink.cut()
            return
        self._send(subscriber, new)

    def _send(self, subscriber: Subscriber, new: Frame) -> None:
        subscriber.sink.write(new.data)
        subscriber.sequence = subscriber.sent = new.sequence
        metrics.SENT.inc()

    def beat(self) -> None:
        """A comment to every live subscriber, and a position where a filter has let its cursor grow old."""
        comment = f":{self.sequence}\n".encode()
        for subscriber in self._live():
            if self.sequence - subscriber.sent >= self._skip_at_most:
                subscriber.sink.write(position_block(self.sequence, self.last_id))
                subscriber.sequence = subscriber.sent = self.sequence
            elif subscriber.sink.backlog() <= self._buffer:
                subscriber.sink.write(comment)

    # The endpoints' side

    @property
    def present(self) -> int:
        return len(self._present)

    def demand(self) -> dict[str, int]:
        """Subscribers per CVM that was asked for by name; a token's limit asks for nothing."""
        counts: dict[str, int] = {}
        for subscriber in self._present:
            for cvm_id in subscriber.demands:
                counts[cvm_id] = counts.get(cvm_id, 0) + 1
        return counts

    def enter(self, subscriber: Subscriber) -> None:
        """From here on the subscriber counts, and is told when history is lost."""
        self._present.add(subscriber)
        if subscriber.demands:
            self.demanded.set()
        metrics.SUBSCRIBERS.set(len(self._present))

    def leave(self, subscriber: Subscriber) -> None:
        if subscriber in self._present and subscriber.demands:
            self.demanded.set()
        self._present.discard(subscriber)
        self._rest(subscriber)
        metrics.SUBSCRIBERS.set(len(self._present))

    def _rest(self, subscriber: Subscriber) -> None:
        """Not live for now: nothing is published to it."""
        self._everything.discard(subscriber)
        for cvm_id in subscriber.cvms or ():
            group = self._by_cvm.get(cvm_id)
            if group is not None:
                group.discard(subscriber)
                if not group:
                    del self._by_cvm[cvm_id]

    def _go_live(self, subscriber: Subscriber) -> None:
        if subscriber.cvms is None:
            self._everything.add(subscriber)
        else:
            for cvm_id in subscriber.cvms:
                self._by_cvm.setdefault(cvm_id, set()).add(subscriber)

    async def serve(self, subscriber: Subscriber, start: Start | None) -> None:
        """Snapshot or replay, then live, and over again whenever history is lost. Ends only by cancellation.

        Raises StoreUnavailableError before anything live was promised; the client reconnects.
        """
        if not self.birth:
            await self.awaken()
        while True:
            if start is None or start.reset is not None:
                start = await self._introduce(subscriber, start.reset if start else None)
                # As replay, a snapshot larger than the buffer is no lag.
                await subscriber.sink.drained()
            subscriber.sequence = subscriber.sent = start.sequence
            await self._replay(subscriber, start)
            await subscriber.attention.wait()
            subscriber.attention.clear()
            start, subscriber.again = subscriber.again, None

    async def _introduce(self, subscriber: Subscriber, reset: str | None) -> Start:
        position, blocks = await self._snapshot()
        at = (position.sequence, position.id)
        if reset is not None:
            now = rfc3339(self._clock.time())
            subscriber.sink.write(reset_block(reset, self._source, now, position.id))
        chosen = [cvm_id for cvm_id in blocks if subscriber.cvms is None or cvm_id in subscriber.cvms]
        if not subscriber.snapshots or not chosen:
            subscriber.sink.write(position_block(*at))
            return Start(*at)
        subscriber.sink.write(b"".join(blocks[cvm_id] for cvm_id in chosen[:-1]))
        subscriber.sink.write(f"id: {position.id}\n".encode() + blocks[chosen[-1]])
        return Start(*at)

    async def _snapshot(self) -> tuple[Position, dict[str, bytes]]:
        """The encoded snapshots by ascending CVM, made once per position whoever asks."""
        async with self._snapshot_lock:
            if not self.birth:
                await self.awaken()
            key = (self.birth, self.sequence, self.led)
            if self._cached is None or self._cached[0] != key:
                position, snapshots = await self._log.snapshot()
                if position is None:
                    return Position("", 0, "0-0", "0-0", 0, False), {}
                encoded = self._encode(position, snapshots)
                self._cached = ((position.birth, position.sequence, self.led), position, encoded)
            return self._cached[1], self._cached[2]

    def _encode(self, position: Position, snapshots: dict[str, Snapshot]) -> dict[str, bytes]:
        at = (position.sequence, position.id)
        return {
            cvm_id: block("snapshot", snapshot_json(snapshots[cvm_id], self._source, at, led=self.led))
            for cvm_id in sorted(snapshots)
        }

    async def _replay(self, subscriber: Subscriber, start: Start) -> None:
        """From `start` to the end of the ring, paced, and live at exactly the next sequence."""
        sequence, entry_id = start.sequence, start.id
        while subscriber.again is None:
            if sequence >= self.sequence:
                # No await between this comparison and going live.
                self._go_live(subscriber)
                return
            frames = self._ring.after(sequence, PAGE)
            if frames is None:
                async with self._reading:
                    frames = [frame(event) for event in await self._log.read(entry_id, PAGE)]
            if subscriber.attention.is_set():
                return
            if not frames or frames[0].sequence != sequence + 1 or frames[-1].sequence != sequence + len(frames):
                subscriber.start_over(Start(reset=HISTORY_LOST))
                return
            self._replay_page(subscriber, frames)
            sequence, entry_id = frames[-1].sequence, frames[-1].id
            await subscriber.sink.drained()

    def _replay_page(self, subscriber: Subscriber, frames: list[Frame]) -> None:
        for old in frames:
            if subscriber.wants(old.cvm_id, old.type):
                self._send(subscriber, old)
        last = frames[-1]
        subscriber.sequence = last.sequence
        if last.sequence - subscriber.sent >= self._skip_at_most:
            subscriber.sink.write(position_block(last.sequence, last.id))
            subscriber.sent = last.sequence

    async def locate(self, cursor: str) -> Start:
        """Where a cursor stands in the log, or the reset that it gets."""
        sequence = self._ring.sequence_of(cursor)
        if sequence is not None:
            return Start(sequence, cursor)
        try:
            key = entry_key(cursor)
        except ValueError:
            return Start(reset=UNKNOWN_CURSOR)
        position = await self._log.position()
        if position is None or "-" not in cursor:
            return Start(reset=UNKNOWN_CURSOR)
        if key == entry_key(position.floor):
            return Start(position.floor_sequence, position.floor)
        if key < entry_key(position.floor):
            return Start(reset=HISTORY_LOST)
        event = await self._log.find(cursor) if key <= entry_key(position.id) else None
        return Start(event.sequence, event.id) if event else Start(reset=UNKNOWN_CURSOR)

    async def locate_time(self, milliseconds: int) -> Start:
        """Everything since a Unix time; what the log gave up before that is a reset, what never was is none."""
        position = await self._log.position()
        if position is None:
            return Start(0, "0-0")
        before = f"{max(milliseconds - 1, 0)}-{2**64 - 1}"
        if entry_key(before) < entry_key(position.floor):
            return Start(reset=HISTORY_LOST) if position.trimmed else Start(position.floor_sequence, position.floor)
        events = await self._log.read(before, 1)
        if not events:
            return Start(position.sequence, position.id)
        return Start(events[0].sequence - 1, before)

    async def let_go(self, seconds: float, retry_ms: Iterator[int]) -> None:
        """Ends every subscription, evenly over `seconds`, each told when to come back; who still slips in, too."""
        self.closing = True
        began, count = self._clock.monotonic(), len(self._present)
        for number, subscriber in enumerate(list(self._present)):
            ahead = began + seconds * number / count - self._clock.monotonic()
            if ahead > STEP:
                await self._clock.sleep(ahead)
            self._let_go(subscriber, next(retry_ms))
        for subscriber in list(self._present):
            self._let_go(subscriber, next(retry_ms))

    def _let_go(self, subscriber: Subscriber, retry_ms: int) -> None:
        subscriber.sink.write(retry_line(retry_ms))
        self.leave(subscriber)
        subscriber.sink.close()
