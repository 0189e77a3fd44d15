"""From where a subscriber begins to the live edge: the initial snapshots, then the events that it lacks.

A subscriber goes live in the step that compares its position with the hub's, with no await between the two. That makes
the seam exact: no event is lost there and none is sent twice.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bridge.clock import Clock, rfc3339
from bridge.events import entry_key
from bridge.store.errors import StoreError
from bridge.store.log import Log
from bridge.web import metrics
from bridge.web.streaming.cursors import HISTORY_LOST, Cursors
from bridge.web.streaming.frames import Frame, frame, position_block, reset_block
from bridge.web.streaming.initial_snapshot import NOWHERE, InitialSnapshot, InitialSnapshots
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.shared_read import SharedRead
from bridge.web.streaming.subscriber import Begin, Start, Subscriber

if TYPE_CHECKING:
    from bridge.web.streaming.hub import Hub

logger = logging.getLogger(__name__)

RING_PAGE = 500
"""Events of the ring that a replay looks at before it pauses."""

LOG_PAGE = 100
"""Events that a replay reads from Redis at once: at their usual size they fill a subscriber's buffer."""

READS_AT_ONCE = 8
"""Pages read from Redis at the same time; many subscribers with old cursors wait their turn."""

STALLED = 60.0
"""Seconds without progress after which a replay gives its subscriber up: it may be alive, but it does not read."""

CONTRADICTED = 0.5
"""Seconds before a subscriber starts over whose snapshots did not fit the log; by then the feed has found out why."""


class Replays:
    """Brings subscribers to the live edge: at once where memory holds all they need, else in a task for each.

    A task ends with its subscriber live or gone. What the hub publishes meanwhile it finds in the ring or the log.
    """

    def __init__(
        self, edge: Hub, log: Log, ring: Ring, source: str, clock: Clock, *, buffer: int, skip_at_most: int
    ) -> None:
        """`edge`: where subscribers become live. `buffer`: bytes that may wait for a subscriber. `skip_at_most`: events
        that a filter may skip in a row.
        """
        self._edge = edge
        self._log = log
        self._ring = ring
        self._source = source
        self._clock = clock
        self._buffer = buffer
        self._skip_at_most = skip_at_most
        self._cursors = Cursors(log)
        self._initial_snapshots = InitialSnapshots(log, source, clock)
        self._position = SharedRead(log.position)
        self._reading = asyncio.Semaphore(READS_AT_ONCE)

    def begin(self, subscriber: Subscriber, begin: Begin) -> None:
        """Live when this returns, or later by a task."""
        if not self._begin_at_once(subscriber, begin):
            self._begin_later(subscriber, begin)

    def restart(self, subscriber: Subscriber, start: Start) -> None:
        """Begins again at `start`; the subscriber must not be live."""
        if subscriber.replaying is None:
            self._begin_later(subscriber, start)
        else:
            subscriber.restart_at = start

    def forget_snapshots(self) -> None:
        """Another history of the log begins."""
        self._initial_snapshots.forget()

    # Without waiting

    def _begin_at_once(self, subscriber: Subscriber, begin: Begin) -> bool:
        """False, with nothing written: this takes waiting."""
        if not self._edge.log_id:
            return False
        if isinstance(begin, str):
            done = self._replayed_at_once(subscriber, begin)
        else:
            done = begin is None and self._snapshots_at_once(subscriber)
        if done:
            self._edge.go_live(subscriber)
        return done

    def _replayed_at_once(self, subscriber: Subscriber, cursor: str) -> bool:
        start = self._in_ring(cursor)
        frames = self._ring.after(start.sequence, RING_PAGE) if start else None
        if start is None or frames is None or start.sequence + len(frames) != self._edge.sequence:
            return False
        if sum(len(old.chunk) for old in frames) > self._buffer // 2:
            return False  # so much at once would make any client look slow
        subscriber.sequence = subscriber.sent = start.sequence
        if frames:
            self._write_page(subscriber, frames)
        return True

    def _in_ring(self, begin: Begin) -> Start | None:
        """The position of an event that the ring has; None for anything else."""
        sequence = self._ring.sequence_of(begin) if isinstance(begin, str) else None
        return None if sequence is None else Start(sequence, str(begin))

    def _snapshots_at_once(self, subscriber: Subscriber) -> bool:
        edge = self._edge
        if not subscriber.snapshots:
            subscriber.sink.write(position_block(edge.sequence, edge.last_id))
            subscriber.sequence = subscriber.sent = edge.sequence
            return True
        made = self._initial_snapshots.current(edge.log_id, led=edge.led)
        if made is None:
            return False
        at = made.position
        since = self._ring.after(at.sequence, RING_PAGE) if at.sequence < edge.sequence else []
        blocks = made.of(subscriber.scope)
        size = len(blocks) + sum(len(old.chunk) for old in since or ())
        if since is None or at.sequence + len(since) != edge.sequence or size > self._buffer // 2:
            return False
        subscriber.sink.write(blocks or position_block(at.sequence, at.id))
        subscriber.sequence = subscriber.sent = at.sequence
        if since:
            self._write_page(subscriber, since)
        return True

    # In a task

    def _begin_later(self, subscriber: Subscriber, begin: Begin) -> None:
        metrics.REPLAYS.inc()
        metrics.REPLAYING.inc()
        subscriber.replaying = asyncio.create_task(self._run(subscriber, begin), name="subscriber replay")
        subscriber.replaying.add_done_callback(lambda _: metrics.REPLAYING.dec())  # also if it never began

    async def _run(self, subscriber: Subscriber, begin: Begin) -> None:
        # The status is sent already: after any failure the client comes back and finds out more.
        try:
            await self._until_live(subscriber, begin)
            return
        except TimeoutError:
            metrics.SLOW.inc()
            self._edge.leave(subscriber)
            subscriber.sink.cut()
            return
        except StoreError as error:
            logger.info("a subscription ends because Redis cannot be used", extra={"error": str(error)})
        except Exception:
            logger.exception("a subscription ends because of a fault in the bridge")
        finally:
            subscriber.replaying = None
        self._edge.leave(subscriber)
        subscriber.sink.close()

    async def _until_live(self, subscriber: Subscriber, begin: Begin) -> None:
        if not self._edge.log_id:
            await self._edge.catch_up_to(0)
        start = self._in_ring(begin) or await self._cursors.find(begin)
        while not await self._advance(subscriber, start):
            if start is None or start.reset is not None:
                await self._clock.sleep(CONTRADICTED)
            start, subscriber.restart_at = subscriber.restart_at, None

    async def _advance(self, subscriber: Subscriber, start: Start | None) -> bool:
        """True: live. False: it must begin again at `restart_at`."""
        if start is None or start.reset is not None:
            start = await self._write_snapshots(subscriber, start.reset if start else None)
        elif not await self._reaches(start):
            subscriber.restart_at = Start(reset=HISTORY_LOST)
        if subscriber.must_restart():
            return False
        subscriber.sequence = subscriber.sent = start.sequence
        # However large, what was written until now does not make the subscriber a slow one.
        await _drained(subscriber)
        return await self._replay(subscriber, start)

    async def _write_snapshots(self, subscriber: Subscriber, reset: str | None) -> Start:
        """The snapshots, after a `reset` if there is a reason for one; where the replay goes on."""
        made, log_is_gone = await self._read_states(only_position=not subscriber.snapshots)
        at = Start(made.position.sequence, made.position.id)
        if not await self._reaches(at):
            subscriber.restart_at = Start(reset=HISTORY_LOST)
        if subscriber.must_restart():
            return at
        if reset is not None:
            subscriber.sink.write(reset_block(reset, self._source, rfc3339(self._clock.time()), at.id))
        pieces = made.pieces(subscriber.scope, self._buffer)
        subscriber.sink.write(next(pieces, b"") or position_block(at.sequence, at.id))
        for piece in pieces:
            await _drained(subscriber)
            if subscriber.must_restart():
                break
            subscriber.sink.write(piece)
        # The feed's position in a log that is gone holds until there is another log; then every subscriber is reset.
        return Start(self._edge.sequence, self._edge.last_id) if log_is_gone else at

    async def _read_states(self, *, only_position: bool) -> tuple[InitialSnapshot, bool]:
        """The snapshots, and whether Redis has lost the log that the feed follows."""
        edge = self._edge
        if not edge.log_id:
            await edge.catch_up_to(0)
        log_id = edge.log_id
        if only_position:
            made = InitialSnapshot(await self._position.get() or NOWHERE, edge.led, self._clock.monotonic(), {})
        else:
            made = await self._initial_snapshots.get(log_id, led=edge.led)
        if made.position.log_id != edge.log_id:
            await edge.catch_up()
        return made, bool(log_id) and not made.position.log_id

    async def _reaches(self, start: Start) -> bool:
        """Whether the feed has come to `start`; reads what it lacks.

        A subscriber ahead of the feed would miss that its history was lost.
        """
        if start.sequence <= self._edge.sequence:
            return True
        await self._edge.catch_up_to(start.sequence)
        following = await self._log.read(start.id, 1)
        return start.sequence <= self._edge.sequence and (not following or following[0].sequence == start.sequence + 1)

    async def _replay(self, subscriber: Subscriber, start: Start) -> bool:
        """From `start` to the end of the ring, paced, and live at exactly the next sequence."""
        entry_id = start.id
        while not subscriber.must_restart():
            if subscriber.sequence > self._edge.sequence:
                subscriber.restart_at = Start(reset=HISTORY_LOST)  # ahead of the feed, see _reaches
                break
            if subscriber.sequence == self._edge.sequence:
                # No await between this comparison and going live.
                self._edge.go_live(subscriber)
                return True
            if (last := await self._replay_page(subscriber, entry_id)) is None:
                break
            entry_id = last
            await _drained(subscriber)
        return False

    async def _replay_page(self, subscriber: Subscriber, entry_id: str) -> str | None:
        """Writes some of what follows `entry_id`; the last id. None: the subscriber must begin again."""
        frames = self._ring.after(subscriber.sequence, RING_PAGE)
        if frames is None:
            async with self._reading:
                events = await self._log.read_some(entry_id, LOG_PAGE)
            frames = [frame(event) for event in events if event.sequence <= self._edge.sequence]
        if subscriber.must_restart():
            return None
        if not _follow(frames, subscriber.sequence, entry_id):
            subscriber.restart_at = Start(reset=HISTORY_LOST)
            return None
        return self._write_page(subscriber, frames)

    def _write_page(self, subscriber: Subscriber, frames: list[Frame]) -> str:
        """Writes those of `frames` that the subscriber wants, at most a buffer full; the last id considered."""
        wanted = [old for old in frames if subscriber.wants(old)]
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
        """As many as the buffer takes, one at least: a page of large events is more than may wait for a subscriber."""
        size = 0
        for count, old in enumerate(frames):
            size += len(old.chunk)
            if size > self._buffer and count:
                return frames[:count]
        return frames


def _follow(frames: list[Frame], sequence: int, entry_id: str) -> bool:
    """Whether they come next, without a hole. An earlier id belongs to a history that Redis has lost since."""
    if not frames or entry_key(frames[0].id) <= entry_key(entry_id):
        return False
    return frames[0].sequence == sequence + 1 and frames[-1].sequence == sequence + len(frames)


async def _drained(subscriber: Subscriber) -> None:
    """Raises TimeoutError if the client takes nothing."""
    async with asyncio.timeout(STALLED):
        await subscriber.sink.drained()
