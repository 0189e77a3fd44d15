"""The fan-out: one feed in, any number of subscribers out; each has a filter and a position, and no queue here.

Everything runs on one event loop, and every change of the subscriber sets happens between two awaits: that is what
makes the seam between replay and live exact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from bridge.clock import Clock, rfc3339
from bridge.events import Event, entry_key
from bridge.store.errors import StoreError
from bridge.store.log import Log, Position
from bridge.web import metrics
from bridge.web.streaming.cursors import HISTORY_LOST, Cursors
from bridge.web.streaming.demand import Demand
from bridge.web.streaming.detach import write_directly
from bridge.web.streaming.frames import Frame, frame, position_block, reset_block, retry_line
from bridge.web.streaming.initial_snapshot import InitialSnapshot, InitialSnapshots
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.subscriber import Begin, Start, Subscriber
from bridge.web.streaming.subscriber_index import Group, SubscriberIndex

logger = logging.getLogger(__name__)

PAGE = 500
"""Events read at once by the feed, and looked at once in a replay from the ring."""

REPLAY_PAGE = 100
"""Events read at once for one replay: of the usual size they are what its subscriber's buffer takes."""

REPLAYS_AT_ONCE = 8
"""Pages read from Redis at the same time; a herd with old cursors waits its turn."""

SLICES = 20
"""Parts of the subscribers between two heartbeats of one: what is written at once stays short."""

STALLED = 60.0
"""Seconds without any progress after which a replay gives its subscriber up: alive perhaps, but not reading."""

CONTRADICTED = 0.5
"""Seconds before a subscriber starts over whose introduction could not be followed: the feed is yet to find out why."""

STEP = 0.01
"""Seconds; letting go sleeps no shorter: ten thousand short sleeps would take longer than they say."""


class Hub:
    """Owns the subscribers and the ring. `receive`, `heard` and `catch_up` are the feed's; the rest the endpoints'."""

    def __init__(
        self,
        log: Log,
        source: str,
        clock: Clock,
        *,
        buffer: int,
        log_length: int,
        ring: Ring | None = None,
        demand: Demand | None = None,
    ) -> None:
        self._log = log
        self._source = source
        self._clock = clock
        self._buffer = buffer
        self._skip_at_most = max(1, log_length // 10)
        self._ring = ring or Ring()
        self.cursors = Cursors(log, self._ring)
        self.demand = demand or Demand()
        self._initial_snapshots = InitialSnapshots(log, source, clock)
        self._catching = asyncio.Lock()
        self._reading = asyncio.Semaphore(REPLAYS_AT_ONCE)
        self._present: dict[Subscriber, None] = {}
        self._index = SubscriberIndex()
        self._beats: list[dict[Subscriber, None]] = [{} for _ in range(SLICES)]
        self._beat = self._entered = 0
        self.log_id = ""
        self.sequence = 0
        self.last_id = "0-0"
        self._unsent = 0
        self.led = False
        """Whether a leader was heard lately; the follower of the feed sets it."""
        self.listeners: list[Callable[[Event], None]] = []
        """Called with each event in order, at the moment it goes to the subscribers."""
        self.on_reset: list[Callable[[], None]] = []
        """Called when events may have been missed: what was made of them is to be read anew."""

    # The feed's side

    async def receive(self, event: Event) -> None:
        """A published event: the next one goes out, a known one is ignored, a hole is read from the log.

        A number known already under a later id is no repeat but another history: the log says which.
        """
        try:
            key = entry_key(event.id)
        except ValueError:
            return  # published by somebody else
        async with self._catching:
            later = key > entry_key(self.last_id)
            if self.log_id and later and event.sequence == self.sequence + 1:
                await self._publish_all([event])
            elif later or event.sequence > self.sequence:
                metrics.HEALED.inc()
                await self._catch_up()

    async def heard(self, log_id: str, sequence: int, entry_id: str | None = None) -> None:
        """A tick: it tells where the log stands."""
        if log_id != self.log_id or sequence != self.sequence or entry_id not in (None, self.last_id):
            await self.catch_up()

    async def catch_up(self) -> None:
        """Reads the log from the last event on. What is missing in it was lost by Redis: everybody is reset."""
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
            events = await self._log.read(self.last_id, PAGE)
            if not events or not await self._publish_all(events):
                await self._begin(position)
                return

    async def awaken(self) -> None:
        """Finds the log's end when nobody has yet: a subscriber may be here before the feed is."""
        async with self._catching:
            if not self.log_id and (position := await self._log.position()) is not None:
                await self._begin(position)

    async def _continues(self, position: Position) -> bool:
        """Whether the log still holds what was last published here under the same number.

        A replica promoted without the last writes goes on with other events under their numbers.
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
        """False at a hole. Pauses often enough for connections that take their bytes not to look slow."""
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
        """Stands at the end of this log; whoever followed another history is told."""
        anew = bool(self.log_id)
        recent = await self._log.latest(PAGE)
        self._ring.clear()
        for event in recent:
            if event.sequence <= position.sequence:
                self._ring.add(frame(event))
        self.log_id, self.sequence, self.last_id = position.log_id, position.sequence, position.id
        metrics.POSITION.set(self.sequence)
        if anew:
            metrics.RESETS.inc()
            logger.warning("history was lost: subscribers are reset", extra={"sequence": self.sequence})
            self._start_over(self._present, Start(reset=HISTORY_LOST))
        else:
            # They came before there was a log: all of it is news to them.
            whole = position.low_water_sequence == 0
            live = [subscriber for subscriber in self._present if subscriber.live]
            self._start_over(live, Start(0, position.low_water_mark) if whole else Start(reset=HISTORY_LOST))
        for told in self.on_reset:
            told()

    def _start_over(self, subscribers: Iterable[Subscriber], start: Start) -> None:
        for subscriber in list(subscribers):
            self._rest(subscriber)
            if subscriber.settling is None:
                self._settle_later(subscriber, start)
            else:
                subscriber.again = start

    def _publish(self, new: Frame) -> None:
        self.sequence, self.last_id = new.sequence, new.id
        metrics.POSITION.set(new.sequence)
        self._ring.add(new)
        self._unsent += len(new.chunk)
        for group in self._index.of(new.cvm_id, new.type):
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
        """A comment to the next slice of the live subscribers, and a position where a filter let a cursor grow old."""
        comment = f":{self.sequence}\n".encode()
        self._beat = (self._beat + 1) % SLICES
        for subscriber in self._beats[self._beat]:
            if not subscriber.live:
                continue
            sent = max(subscriber.sent, self._index.sent(subscriber))
            if self.sequence - sent >= self._skip_at_most:
                subscriber.sink.write(position_block(self.sequence, self.last_id))
                subscriber.sent = self.sequence
            elif subscriber.sink.backlog() <= self._buffer:
                subscriber.sink.write(comment)
            self._index.review(subscriber)

    # The endpoints' side

    @property
    def present(self) -> int:
        return len(self._present)

    def enter(self, subscriber: Subscriber, begin: Begin = None) -> None:
        """Begins with the snapshot or the replay, then live, and over again whenever history is lost.

        Needs no waiting where the ring and the last introduction hold what it begins with; else a task settles it.
        """
        self._present[subscriber] = None
        self._entered = (self._entered + 1) % SLICES
        subscriber.beat = self._entered
        self._beats[subscriber.beat][subscriber] = None
        self.demand.add(subscriber.demands)
        if not self._settle_at_once(subscriber, begin):
            self._settle_later(subscriber, begin)

    def leave(self, subscriber: Subscriber) -> None:
        """Its connection is gone, or is to go. More calls do nothing."""
        if subscriber not in self._present:
            return
        del self._present[subscriber]
        del self._beats[subscriber.beat][subscriber]
        self.demand.remove(subscriber.demands)
        self._rest(subscriber)
        if subscriber.settling is not None:
            subscriber.settling.cancel()

    def _rest(self, subscriber: Subscriber) -> None:
        """Not live for now: nothing is published to it."""
        if subscriber.live:
            subscriber.live = False
            self._index.discard(subscriber)

    def _go_live(self, subscriber: Subscriber) -> None:
        subscriber.live = True
        subscriber.sink.flush()  # what waits there must not be overtaken by what is written to the file
        self._index.add(subscriber)

    # From where a subscriber begins to the log's end

    def _settle_at_once(self, subscriber: Subscriber, begin: Begin) -> bool:
        """Live within this call. False, with nothing written: it takes waiting."""
        if not self.log_id:
            return False
        if isinstance(begin, str):
            start = self.cursors.known(begin)
            frames = self._ring.after(start.sequence, PAGE) if start else None
            if start is None or frames is None or not self._is_little(frames, start.sequence):
                return False
            subscriber.sequence = subscriber.sent = start.sequence
            if frames:
                self._replay_page(subscriber, frames)
        elif begin is None:
            if not self._introduced_at_once(subscriber):
                return False
        else:
            return False
        self._go_live(subscriber)
        return True

    def _is_little(self, frames: list[Frame], after: int) -> bool:
        """Whether these reach the end and are no lag by themselves."""
        whole = after + len(frames) == self.sequence
        return whole and sum(len(old.chunk) for old in frames) <= self._buffer // 2

    def _introduced_at_once(self, subscriber: Subscriber) -> bool:
        at = Start(self.sequence, self.last_id)
        if subscriber.snapshots:
            made = self._initial_snapshots.current(self.log_id, self.last_id, led=self.led)
            if made is None or len(blocks := made.of(subscriber.cvms)) > self._buffer // 2:
                return False
        else:
            blocks = b""
        subscriber.sink.write(blocks or position_block(at.sequence, at.id))
        subscriber.sequence = subscriber.sent = at.sequence
        return True

    def _settle_later(self, subscriber: Subscriber, begin: Begin) -> None:
        metrics.REPLAYING.inc()
        subscriber.settling = asyncio.create_task(self._settle(subscriber, begin), name="subscriber settling")
        subscriber.settling.add_done_callback(lambda _: metrics.REPLAYING.dec())  # also where it never began

    async def _settle(self, subscriber: Subscriber, begin: Begin) -> None:
        # The status is sent already: whatever happens here, the client comes back and finds out more.
        try:
            await self._settle_until_live(subscriber, begin)
            return
        except TimeoutError:
            metrics.SLOW.inc()
            self.leave(subscriber)
            subscriber.sink.cut()
            return
        except StoreError as error:
            logger.info("a subscription ends because Redis cannot be used", extra={"error": str(error)})
        except Exception:
            logger.exception("a subscription ends by a fault of the bridge")
        finally:
            subscriber.settling = None
        self.leave(subscriber)
        subscriber.sink.close()

    async def _settle_until_live(self, subscriber: Subscriber, begin: Begin) -> None:
        if not self.log_id:
            await self.awaken()
        start = await self.cursors.find(begin)
        while not await self._advance(subscriber, start):
            if start is None or start.reset is not None:
                await self._clock.sleep(CONTRADICTED)
            start, subscriber.again = subscriber.again, None

    async def _advance(self, subscriber: Subscriber, start: Start | None) -> bool:
        """True: live. False: it is to start over at `again`."""
        if start is None or start.reset is not None:
            start = await self._introduce(subscriber, start.reset if start else None)
        elif not await self._reaches(start):
            subscriber.again = Start(reset=HISTORY_LOST)
        if subscriber.disturbed():
            return False
        subscriber.sequence = subscriber.sent = start.sequence
        # As replay, what was written until now is no lag, however large.
        await _drained(subscriber)
        return await self._replay(subscriber, start)

    async def _introduce(self, subscriber: Subscriber, reset: str | None) -> Start:
        made, gone = await self._introduction()
        at = Start(made.position.sequence, made.position.id)
        if not await self._reaches(at):
            subscriber.again = Start(reset=HISTORY_LOST)
        if subscriber.disturbed():
            return at
        if reset is not None:
            subscriber.sink.write(reset_block(reset, self._source, rfc3339(self._clock.time()), at.id))
        pieces = made.pieces(subscriber.cvms, self._buffer) if subscriber.snapshots else iter(())
        subscriber.sink.write(next(pieces, b"") or position_block(at.sequence, at.id))
        for piece in pieces:
            await _drained(subscriber)
            if subscriber.disturbed():
                break
            subscriber.sink.write(piece)
        # What the feed has of a log that is gone stands until there is another, and then everybody is reset.
        return Start(self.sequence, self.last_id) if gone else at

    async def _introduction(self) -> tuple[InitialSnapshot, bool]:
        """And whether Redis has no log any more although the feed follows one."""
        if not self.log_id:
            await self.awaken()
        log_id = self.log_id
        made = await self._initial_snapshots.get(log_id, self.last_id, led=self.led)
        if made.position.log_id != self.log_id:
            await self.catch_up()
        return made, bool(log_id) and not made.position.log_id

    async def _reaches(self, start: Start) -> bool:
        """Whether the feed has come to where a subscriber begins; what it does not know yet, it reads here.

        Ahead of the feed, a subscriber would miss that its history was lost.
        """
        if start.sequence <= self.sequence:
            return True
        async with self._catching:
            if start.sequence > self.sequence:
                await self._catch_up()
        following = await self._log.read(start.id, 1)
        return start.sequence <= self.sequence and (not following or following[0].sequence == start.sequence + 1)

    async def _replay(self, subscriber: Subscriber, start: Start) -> bool:
        """From `start` to the end of the ring, paced, and live at exactly the next sequence."""
        entry_id = start.id
        while not subscriber.disturbed():
            if subscriber.sequence > self.sequence:
                subscriber.again = Start(reset=HISTORY_LOST)  # ahead of the feed it would miss that history was lost
                break
            if subscriber.sequence == self.sequence:
                # No await between this comparison and going live.
                self._go_live(subscriber)
                return True
            if (last := await self._replay_some(subscriber, entry_id)) is None:
                break
            entry_id = last
            await _drained(subscriber)
        return False

    async def _replay_some(self, subscriber: Subscriber, entry_id: str) -> str | None:
        """Writes what follows `entry_id`, no more than a buffer full; the last id. None: it is to start over."""
        frames = self._ring.after(subscriber.sequence, PAGE)
        if frames is None:
            async with self._reading:
                events = await self._log.read(entry_id, REPLAY_PAGE)
            frames = [frame(event) for event in events if event.sequence <= self.sequence]
        if subscriber.disturbed():
            return None
        if not _continue(frames, subscriber.sequence, entry_id):
            subscriber.again = Start(reset=HISTORY_LOST)
            return None
        return self._replay_page(subscriber, frames)

    def _replay_page(self, subscriber: Subscriber, frames: list[Frame]) -> str:
        """Writes some of the `frames`, which follow the subscriber's position; the last one's id."""
        wanted = [old for old in frames if subscriber.wants(old.cvm_id, old.type)]
        fitting = self._fitting(wanted)
        last = fitting[-1] if len(fitting) < len(wanted) else frames[-1]
        subscriber.sink.send_all(fitting)
        metrics.SENT.inc(len(fitting))
        subscriber.sequence = last.sequence
        if fitting:
            subscriber.sent = fitting[-1].sequence
        if subscriber.sequence - subscriber.sent >= self._skip_at_most:
            subscriber.sink.write(position_block(last.sequence, last.id))
            subscriber.sent = last.sequence
        return last.id

    def _fitting(self, frames: list[Frame]) -> list[Frame]:
        """As many as a buffer takes, one at least: a page of large events is more than anybody may hold here."""
        size = 0
        for count, old in enumerate(frames):
            size += len(old.chunk)
            if size > self._buffer and count:
                return frames[:count]
        return frames

    # The end

    async def let_go(self, seconds: float, retry_ms: Iterator[int]) -> None:
        """Ends every subscription, evenly over `seconds`, each told when to come back; who still slips in, too."""
        began, count = self._clock.monotonic(), len(self._present)
        for number, subscriber in enumerate(list(self._present)):
            ahead = began + seconds * number / count - self._clock.monotonic()
            if ahead > STEP:
                await self._clock.sleep(ahead)
            self.let_go_one(subscriber, next(retry_ms))
        for subscriber in list(self._present):
            self.let_go_one(subscriber, next(retry_ms))

    def let_go_one(self, subscriber: Subscriber, retry_ms: int) -> None:
        subscriber.sink.write(retry_line(retry_ms))
        self.leave(subscriber)
        subscriber.sink.close()


def _continue(frames: list[Frame], sequence: int, entry_id: str) -> bool:
    """Whether they are what follows, without a hole. An earlier id is of a history that Redis has given up since."""
    if not frames or entry_key(frames[0].id) <= entry_key(entry_id):
        return False
    return frames[0].sequence == sequence + 1 and frames[-1].sequence == sequence + len(frames)


async def _drained(subscriber: Subscriber) -> None:
    """Raises TimeoutError where the client takes nothing."""
    async with asyncio.timeout(STALLED):
        await subscriber.sink.drained()
