"""Who waits for a status: ten thousand callers are ten thousand entries, one subscription, one timer, no task each.

Everything but `load` and `run` is synchronous and runs on one event loop: an event meets the watchers that were there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bridge.clock import Clock
from bridge.events import FRESH, Event
from bridge.store.errors import StoreError
from bridge.store.snapshots import Snapshots
from bridge.web import metrics
from bridge.web.dropin import wire
from bridge.web.dropin.known import UNSEEN, Known
from bridge.web.dropin.wheel import Wheel
from bridge.web.streaming.demand import WatchDemand
from bridge.web.streaming.sinks import Sink

logger = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds from `watch.fresh` on: by then the transition that it was about has come too, if there was one."""

SLACK = 1e-3
"""Seconds: a timer may ring that much before its time as floats count it."""

READ_AGAIN = 1.0

STEP = 0.01
"""Seconds; letting go sleeps no shorter."""


@dataclass(eq=False, slots=True)
class Watcher:
    """One stream: what it waits for, at which pace. `name`: its token's. Times are monotonic seconds."""

    name: str
    cvm_id: str
    target: str
    interval: float
    timeout: float
    started: float
    due: float = 0.0
    sink: Sink | None = None

    def __post_init__(self) -> None:
        self.due = self.started

    @property
    def deadline(self) -> float:
        return self.started + self.timeout

    @property
    def next(self) -> float:
        return min(self.due, self.deadline)

    def take_turn(self, now: float) -> bool:
        """Whether a look is due; the next one is then an interval later, and missed ones are left out."""
        if now < self.due - SLACK:
            return False
        self.due += self.interval
        if self.due <= now:
            self.due = now + self.interval
        return True


def words(watcher: Watcher, known: Known, doubt: str | None, now: float, *, news: bool) -> tuple[bytes, bool]:
    """What a stream says now, and whether it ends with it."""
    elapsed = now - watcher.started
    if now >= watcher.deadline - SLACK:
        return wire.timeout(watcher.target, elapsed), True
    if not (watcher.take_turn(now) or news):
        return b"", False
    if known.gone:
        return wire.gone(elapsed), True
    if doubt is not None:
        return wire.stale(doubt, elapsed), False
    if known.seen and known.status == watcher.target:
        return known.block + wire.complete(watcher.target, elapsed), True
    return known.block, False


@dataclass(eq=False, slots=True)
class Topic:
    """One CVM that somebody waits for. Until `loaded` its past is not known here."""

    cvm_id: str
    known: Known = UNSEEN
    loaded: bool = False
    watchers: dict[Watcher, None] = field(default_factory=dict)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Watchers:
    """Owns the watchers and their timer. `heard` and `forget` are the hub's listeners, the rest the endpoint's."""

    def __init__(
        self, snapshots: Snapshots, demand: WatchDemand, clock: Clock, *, led: Callable[[], bool], buffer: int
    ) -> None:
        self._snapshots = snapshots
        self._demand = demand
        self._clock = clock
        self._led = led
        self._buffer = buffer
        self._topics: dict[str, Topic] = {}
        self._wheel: Wheel[Watcher | Topic] = Wheel()
        self._woken = asyncio.Event()
        self._rings_at = float("-inf")
        self._history = 0
        self._forgot = asyncio.Event()
        self._closing = False

    def __len__(self) -> int:
        return sum(len(topic.watchers) for topic in self._topics.values())

    @property
    def scheduled(self) -> int:
        """Entries of the timer."""
        return len(self._wheel)

    # The endpoint's side

    def follows(self, cvm_id: str) -> bool:
        """Whether this very id is followed here already: it needs no look-up and no watch."""
        topic = self._topics.get(cvm_id)
        return topic is not None and topic.loaded

    def enter(self, watcher: Watcher) -> None:
        """It counts as demand from here on, and says nothing before `begin`."""
        topic = self._topics.setdefault(watcher.cvm_id, Topic(watcher.cvm_id))
        topic.watchers[watcher] = None
        self._demand.add((watcher.cvm_id,))

    def leave(self, watcher: Watcher) -> None:
        """Its connection is gone, or is to go. More calls do nothing."""
        if not self._is_here(watcher):
            return
        topic = self._topics[watcher.cvm_id]
        del topic.watchers[watcher]
        self._demand.remove((watcher.cvm_id,))
        self._wheel.remove(watcher)
        if not topic.watchers:
            self._wheel.remove(topic)
            del self._topics[watcher.cvm_id]

    def _is_here(self, watcher: Watcher) -> bool:
        topic = self._topics.get(watcher.cvm_id)
        return topic is not None and watcher in topic.watchers

    async def load(self, cvm_id: str) -> Known:
        """What is known of a CVM that somebody entered for, read once for all who ask. Raises StoreError."""
        topic = self._topics[cvm_id]
        async with topic.loading:
            while not topic.loaded:
                history = self._history
                snapshot = (await self._snapshots.get([cvm_id])).get(cvm_id)
                topic.loaded = history == self._history
                if snapshot is not None and topic.loaded:
                    self._learn(topic, Known.of(snapshot))
        return topic.known

    def begin(self, watcher: Watcher, sink: Sink) -> None:
        """Its connection stands: the state goes out at once."""
        watcher.sink = sink
        if self._closing:
            self._dismiss(watcher)
        else:
            self._look(watcher, self._clock.monotonic(), news=True)

    async def let_go(self, seconds: float) -> None:
        """Ends every stream, evenly over `seconds`, in the way that makes its client ask again."""
        self._closing = True
        present = [watcher for topic in self._topics.values() for watcher in topic.watchers]
        began = self._clock.monotonic()
        for number, watcher in enumerate(present):
            ahead = began + seconds * number / len(present) - self._clock.monotonic()
            if ahead > STEP:
                await self._clock.sleep(ahead)
            if self._is_here(watcher):
                self._dismiss(watcher)

    def _dismiss(self, watcher: Watcher) -> None:
        elapsed = self._clock.monotonic() - watcher.started
        self._say(watcher, wire.going_away(watcher.target, elapsed), ends=True)

    # The hub's side

    def heard(self, event: Event) -> None:
        topic = self._topics.get(event.cvm_id)
        if topic is None or not topic.known.older_than(event.id):
            return
        if event.type == FRESH:
            # Not yet: the state that is known is the old one, and what was found on recovery follows.
            self._put(topic, self._clock.monotonic() + SETTLE)
            return
        try:
            self._learn(topic, topic.known.after(event))
        except (ValueError, LookupError, TypeError):
            logger.warning("an event that is none of ours was published", extra={"cvm_id": event.cvm_id})

    def forget(self) -> None:
        """History was lost: all is read anew."""
        self._history += 1
        for topic in self._topics.values():
            topic.known, topic.loaded = UNSEEN, False
            self._wheel.remove(topic)
        self._forgot.set()

    def _learn(self, topic: Topic, known: Known) -> None:
        """The newer one wins, whether it came by an event or by a read."""
        if topic.known is not UNSEEN and not topic.known.older_than(known.event_id):
            return
        self._wheel.remove(topic)
        topic.known = known
        self._tell(topic)

    def _tell(self, topic: Topic) -> None:
        now = self._clock.monotonic()
        for watcher in list(topic.watchers):
            self._look(watcher, now, news=True)

    def _look(self, watcher: Watcher, now: float, *, news: bool) -> None:
        # It may have ended a moment ago, by what else was due.
        if watcher.sink is None or not self._is_here(watcher):
            return
        known = self._topics[watcher.cvm_id].known
        doubt = known.doubt(led=self._led(), now=self._clock.time())
        data, ends = words(watcher, known, doubt, now, news=news)
        if self._say(watcher, data, ends=ends):
            self._put(watcher, watcher.next)

    def _say(self, watcher: Watcher, data: bytes, *, ends: bool) -> bool:
        """Whether it is still here afterwards."""
        sink = watcher.sink
        if sink is None:
            return True
        if sink.backlog() > self._buffer:
            metrics.SLOW.inc()
            self.leave(watcher)
            sink.cut()
            return False
        sink.write(data)
        if ends:
            self.leave(watcher)
            sink.close()
        return not ends

    # The timer

    def _put(self, item: Watcher | Topic, due: float) -> None:
        self._wheel.put(item, due)
        if due < self._rings_at:
            self._woken.set()

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ring(), name="drop-in timer")
            group.create_task(self._read_anew(), name="drop-in reader")

    async def _ring(self) -> None:
        while True:
            self._turn()
            await self._rest()

    def _turn(self) -> None:
        now = self._clock.monotonic()
        for item in self._wheel.take(now):
            if isinstance(item, Watcher):
                self._look(item, now, news=False)
            else:
                item.known = replace(item.known, stale=None, observed_at=self._clock.time())
                self._tell(item)

    async def _rest(self) -> None:
        """Until something is due or has changed."""
        due = self._wheel.next_due()
        self._rings_at = float("inf") if due is None else due
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock.monotonic())):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._rings_at = float("-inf")
        self._woken.clear()

    async def _read_anew(self) -> None:
        """Beside the timer: a Redis that is away delays no timeout."""
        while True:
            await self._forgot.wait()
            self._forgot.clear()
            try:
                for cvm_id in [topic.cvm_id for topic in self._topics.values() if not topic.loaded]:
                    if cvm_id in self._topics:
                        await self.load(cvm_id)
            except StoreError:
                logger.info("the drop-in's states wait for Redis")
                self._forgot.set()
                await self._clock.sleep(READ_AGAIN)
