"""Streams that wait for a status: ten thousand callers are ten thousand entries and one timer, with no task each.

Everything but `load` and `run` is synchronous and runs on one event loop, so an event reaches exactly the watchers that
were there when it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bridge.clock import Clock, evenly
from bridge.events import FRESH, Event
from bridge.reference_sets import ReferenceSet
from bridge.store.errors import StoreError
from bridge.store.snapshots import Snapshots
from bridge.web import metrics
from bridge.web.dropin import wire
from bridge.web.dropin.last_state import UNSEEN, LastState
from bridge.web.dropin.timer_wheel import TimerWheel
from bridge.web.http.access import LASTING, Credential
from bridge.web.streaming.demand import WatchDemand
from bridge.web.streaming.sinks import Sink

logger = logging.getLogger(__name__)

SETTLE = 0.5
"""Seconds after `watch.fresh`: by then the transition that was missed has come too, if there was one."""

SLACK = 1e-3
"""Seconds that a timer may ring too early, because of rounding."""

READ_AGAIN = 1.0


@dataclass(eq=False, slots=True)
class Watcher:
    """One stream: its target and pace. `name`, `limit` and `credential`: its token's. Times are monotonic seconds."""

    name: str
    cvm_id: str
    target: str
    interval: float
    timeout: float
    started: float
    due: float = 0.0
    sink: Sink | None = None
    limit: ReferenceSet | None = None
    credential: Credential = LASTING

    def __post_init__(self) -> None:
        self.due = self.started

    @property
    def deadline(self) -> float:
        return self.started + self.timeout

    @property
    def next(self) -> float:
        return min(self.due, self.deadline)

    def may_see(self, state: LastState) -> bool:
        """Whether its token may. A CVM that nobody has seen yet was let in by its reference."""
        if self.credential.revoked:
            return False
        if self.limit is None or (state.status is None and not self.limit.is_fixed):
            return True
        return self.limit.matches(self.cvm_id, state.app_id, state.name)

    def take_turn(self, now: float) -> bool:
        """Whether a repetition is due; the next one is then an interval later, and missed ones are left out."""
        if now < self.due - SLACK:
            return False
        self.due += self.interval
        if self.due <= now:
            self.due = now + self.interval
        return True


def due_events(
    watcher: Watcher, state: LastState, stale_reason: str | None, now: float, *, changed: bool
) -> tuple[bytes, bool]:
    """The SSE events that a stream gets now, perhaps none, and whether they end it."""
    elapsed = now - watcher.started
    if now >= watcher.deadline - SLACK:
        return wire.timeout(watcher.target, elapsed), True
    if not (watcher.take_turn(now) or changed):
        return b"", False
    if state.gone:
        return wire.gone(elapsed), True
    if stale_reason is not None:
        return wire.stale(stale_reason, elapsed), False
    if state.status == watcher.target:
        return state.block + wire.complete(watcher.target, elapsed), True
    return state.block, False


@dataclass(eq=False, slots=True)
class WatchedCvm:
    """One CVM with watchers. Until `loaded`, its snapshot has not been read."""

    cvm_id: str
    state: LastState = UNSEEN
    loaded: bool = False
    watchers: dict[Watcher, None] = field(default_factory=dict)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Watchers:
    """Owns the watchers and their timer. The hub calls `on_event` and `on_reset`, the endpoint the rest."""

    def __init__(
        self, snapshots: Snapshots, demand: WatchDemand, clock: Clock, *, led: Callable[[], bool], buffer: int
    ) -> None:
        """`buffer`: bytes that may wait for a client."""
        self._snapshots = snapshots
        self._demand = demand
        self._clock = clock
        self._led = led
        self._buffer = buffer
        self._cvms: dict[str, WatchedCvm] = {}
        self._timers: TimerWheel[Watcher | WatchedCvm] = TimerWheel()
        self._resets = 0
        self._must_read = asyncio.Event()
        self._draining = False

    def __len__(self) -> int:
        return sum(len(cvm.watchers) for cvm in self._cvms.values())

    @property
    def scheduled(self) -> int:
        """Entries of the timer."""
        return len(self._timers)

    # The endpoint's side

    def follows(self, cvm_id: str) -> bool:
        """Whether this very id is followed here already: it needs no look-up and no watch."""
        cvm = self._cvms.get(cvm_id)
        return cvm is not None and cvm.loaded

    def enter(self, watcher: Watcher) -> None:
        """The watcher counts as demand from here on; nothing is written to it before `begin`."""
        self._cvms.setdefault(watcher.cvm_id, WatchedCvm(watcher.cvm_id)).watchers[watcher] = None
        self._demand.add((watcher.cvm_id,))

    def leave(self, watcher: Watcher) -> None:
        """Removes a watcher whose connection is gone or about to go. Further calls do nothing."""
        if not self._is_here(watcher):
            return
        cvm = self._cvms[watcher.cvm_id]
        del cvm.watchers[watcher]
        self._demand.remove((watcher.cvm_id,))
        self._timers.remove(watcher)
        if not cvm.watchers:
            self._timers.remove(cvm)
            del self._cvms[watcher.cvm_id]

    def _is_here(self, watcher: Watcher) -> bool:
        cvm = self._cvms.get(watcher.cvm_id)
        return cvm is not None and watcher in cvm.watchers

    async def load(self, cvm_id: str) -> LastState:
        """The last state of a CVM that has watchers; one read serves all who ask. Raises StoreError."""
        cvm = self._cvms[cvm_id]
        async with cvm.loading:
            while not cvm.loaded:
                resets = self._resets
                snapshot = (await self._snapshots.get([cvm_id])).get(cvm_id)
                cvm.loaded = resets == self._resets
                if snapshot is not None and cvm.loaded:
                    self._take(cvm, LastState.of(snapshot))
        return cvm.state

    def begin(self, watcher: Watcher, sink: Sink) -> None:
        """Sends the state at once; the connection is ready for it."""
        watcher.sink = sink
        if self._draining:
            self._dismiss(watcher)
        else:
            self._update(watcher, self._clock.monotonic(), changed=True)

    async def drain(self, seconds: float) -> None:
        """Ends every stream, evenly over `seconds`, so that its client asks again."""
        self._draining = True
        present = [watcher for cvm in self._cvms.values() for watcher in cvm.watchers]
        async for watcher in evenly(present, seconds, self._clock):
            if self._is_here(watcher):
                self._dismiss(watcher)

    def end_beyond(self, cvms: Mapping[str, ReferenceSet]) -> None:
        """Ends the streams about a CVM that is not among their token's `cvms`; other tokens have none."""
        for watcher in [each for cvm in self._cvms.values() for each in cvm.watchers]:
            watcher.limit = cvms.get(watcher.name, watcher.limit)
            if not watcher.may_see(self._cvms[watcher.cvm_id].state):
                self._hide(watcher)

    def end_revoked(self) -> None:
        """Ends the streams whose credentials are revoked; one that has not begun ends when it does."""
        for watcher in [each for cvm in self._cvms.values() for each in cvm.watchers if each.credential.revoked]:
            self._hide(watcher)

    def _hide(self, watcher: Watcher) -> None:
        elapsed = self._clock.monotonic() - watcher.started
        self._write(watcher, wire.no_longer_visible(watcher.target, elapsed), ends=True)

    def _dismiss(self, watcher: Watcher) -> None:
        elapsed = self._clock.monotonic() - watcher.started
        self._write(watcher, wire.going_away(watcher.target, elapsed), ends=True)

    # The hub's side

    def on_event(self, event: Event) -> None:
        cvm = self._cvms.get(event.cvm_id)
        if cvm is None or not cvm.state.older_than(event.id):
            return
        if event.type == FRESH:
            # Not yet: the state here is the old one, and a transition may follow.
            self._timers.put(cvm, self._clock.monotonic() + SETTLE)
            return
        try:
            self._take(cvm, cvm.state.after(event))
        except (ValueError, LookupError, TypeError):
            logger.warning("an event was published that no bridge wrote", extra={"cvm_id": event.cvm_id})

    def on_reset(self) -> None:
        """History was lost: reads every state again."""
        self._resets += 1
        for cvm in self._cvms.values():
            cvm.state, cvm.loaded = UNSEEN, False
            self._timers.remove(cvm)
        self._must_read.set()

    def _take(self, cvm: WatchedCvm, state: LastState) -> None:
        """The newer state counts, whether it came by an event or by a read."""
        if cvm.state is UNSEEN or cvm.state.older_than(state.event_id):
            self._timers.remove(cvm)
            self._set(cvm, state)

    def _set(self, cvm: WatchedCvm, state: LastState) -> None:
        cvm.state, now = state, self._clock.monotonic()
        for watcher in list(cvm.watchers):
            self._update(watcher, now, changed=True)

    def _update(self, watcher: Watcher, now: float, *, changed: bool) -> None:
        # The watcher may have ended a moment ago, by another item that was due.
        if watcher.sink is None or not self._is_here(watcher):
            return
        state = self._cvms[watcher.cvm_id].state
        if not watcher.may_see(state):
            self._hide(watcher)
            return
        stale_reason = state.stale_reason(led=self._led(), now=self._clock.time())
        data, ends = due_events(watcher, state, stale_reason, now, changed=changed)
        if self._write(watcher, data, ends=ends):
            self._timers.put(watcher, watcher.next)

    def _write(self, watcher: Watcher, data: bytes, *, ends: bool) -> bool:
        """Whether the watcher is still here afterwards."""
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

    # The tasks

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_timers(), name="drop-in timer")
            group.create_task(self._read_again(), name="drop-in reader")

    async def _run_timers(self) -> None:
        while True:
            due = await self._timers.wait(self._clock)
            now = self._clock.monotonic()
            for item in due:
                if isinstance(item, Watcher):
                    self._update(item, now, changed=False)
                else:
                    self._set(item, replace(item.state, stale=None, observed_at=self._clock.time()))

    async def _read_again(self) -> None:
        """A task beside the timer, so that a Redis that is away delays no timeout."""
        while True:
            await self._must_read.wait()
            self._must_read.clear()
            try:
                for cvm_id in [cvm.cvm_id for cvm in self._cvms.values() if not cvm.loaded]:
                    if cvm_id in self._cvms:
                        await self.load(cvm_id)
            except StoreError:
                logger.info("Redis cannot be used: the drop-in's states are read later")
                self._must_read.set()
                await self._clock.sleep(READ_AGAIN)
