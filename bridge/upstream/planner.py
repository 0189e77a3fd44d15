"""What to do next: a pure function from the watches, the slots and the limits to the actions of one tick."""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.readiness import is_passing
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import NEVER, Tracked

HOLD_AT_LEAST = 30.0
"""Seconds that a stream keeps its slot before a more urgent CVM may get it: streams must not flap."""

MOTION_AT_MOST = 900.0
"""Seconds after which a transitional status no longer counts as in motion: a hung `starting` must not keep a slot for
ever."""

BATCH_SIZE = 200
"""CVMs in one batch request, at most. `benchmarks/batches.py`: a CVM costs 278 µs in batches of 10, 34 µs in batches of
100 and 22 µs in batches of 200, and a failed batch affects more CVMs the larger it is. 1 000 CVMs need one request in
two seconds."""

SHORTEST_GAP = 0.1
"""Seconds between two batches: of very many CVMs at a short interval, they leave half of the requests to reads."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open a stream of `cvm_id` in slot `index`."""

    index: int
    cvm_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream in slot `index`: a more urgent CVM needs the slot, or this one is not watched any more."""

    index: int


@dataclass(frozen=True, slots=True)
class Read:
    """Read the state route now."""

    cvm_id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Ask the batch route about all of these at once. `due`: when it should have been asked."""

    cvm_ids: tuple[str, ...]
    due: float


Action = Open | Close | Read | Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """What bounds one plan; seconds and counts."""

    streams: int
    poll_interval: float
    requests: int
    """Plain requests that may be sent in this tick."""
    reads: int | None = None
    """How many of these may be reads of states; None: all."""
    batch: bool
    """Whether upstream has a batch route."""


def in_motion(tracked: Tracked, now: float) -> bool:
    """Whether the status is a transitional one and has not lasted too long."""
    if now - tracked.seen.changed_at >= MOTION_AT_MOST or tracked.gone:
        return False
    state = tracked.seen.state
    return is_passing(tracked.status) or (state is not None and state.fields.get("in_progress") is True)


MOST_URGENT = 3


def urgency(tracked: Tracked, now: float) -> int:
    """3 in motion, 2 pinned, 1 subscribed to, 0 none of these."""
    if in_motion(tracked, now):
        return MOST_URGENT
    return 2 if tracked.demand.pinned else int(tracked.demand.subscribers > 0)


def plan(now: float, watches: Mapping[str, Tracked], slots: Sequence[Slot], limits: PlanLimits) -> list[Action]:
    """Streams first, then due reads and a due batch, within the limit of requests. Changes none of its arguments.

    Of two and more requests due batches get up to half, so that neither reads nor batches wait for many of the others.
    """
    actions: list[Action] = _streams(now, watches, slots, limits)
    batches = _batches(now, watches.values(), limits)
    kept = min(len(batches), limits.requests // 2)
    if limits.requests == 1 and batches and batches[0].due <= now - _caught_up(limits) / 2:
        kept = 1
    most = limits.requests - kept
    reads = _reads(now, watches.values(), most if limits.reads is None else min(most, limits.reads))
    return actions + reads + batches[: limits.requests - len(reads)]


def _streams(now: float, watches: Mapping[str, Tracked], slots: Sequence[Slot], limits: PlanLimits) -> list[Action]:
    actions: list[Action] = []
    for slot in slots:
        tracked = watches.get(slot.cvm_id or "")
        unwanted = tracked is None or tracked.gone
        # A stream of a watch that ended: another one of the same CVM began in between.
        foreign = slot.life is Life.OPEN and tracked is not None and not tracked.stream.is_open
        if slot.life in (Life.OPENING, Life.OPEN) and (unwanted or foreign):
            actions.append(Close(slot.index))
    occupied = {slot.cvm_id for slot in slots if slot.streams}
    counted = sum(slot.streams for slot in slots)
    free = [slot for slot in slots if slot.life is Life.FREE][: max(0, limits.streams - counted)]
    if free:
        candidates = [each for each in watches.values() if each.cvm_id not in occupied and _may_stream(each, now)]
        first = heapq.nsmallest(
            len(free), candidates, key=lambda each: (-urgency(each, now), each.seen.confirmed_at, each.cvm_id)
        )
        actions += [Open(slot.index, tracked.cvm_id) for slot, tracked in zip(free, first, strict=False)]
    elif limits.streams and all(slot.life is not Life.CLOSING for slot in slots):
        actions += _preempt(now, watches, slots, occupied)
    return actions


def _may_stream(tracked: Tracked, now: float) -> bool:
    if tracked.gone or tracked.absence.is_missing or tracked.stream.backoff.until > now:
        return False
    # A CVM that was once watched under another name has its stream under its id.
    return tracked.seen.state is None or tracked.seen.state.cvm_id in (None, tracked.cvm_id)


def _read_beside_stream(tracked: Tracked) -> bool:
    """Whether the state is asked for while a stream is open: after a hint, where the stream sends something else, and
    where a read did not find the CVM."""
    return tracked.reads.is_hinted or tracked.reads.doubted or tracked.absence.is_missing


def _preempt(
    now: float, watches: Mapping[str, Tracked], slots: Sequence[Slot], occupied: Container[str | None]
) -> list[Action]:
    """Closes the stream of the least urgent CVM if a more urgent one waits."""
    held = [slot for slot in slots if slot.life is Life.OPEN and now - slot.opened_at >= HOLD_AT_LEAST]
    known = [(slot.index, watches[slot.cvm_id]) for slot in held if slot.cvm_id and slot.cvm_id in watches]
    least, index = min(((urgency(tracked, now), index) for index, tracked in known), default=(math.inf, 0))
    if least >= MOST_URGENT:
        return []
    for each in watches.values():  # with every tick, so the answer that most of them give is asked for first
        if urgency(each, now) > least and each.cvm_id not in occupied and _may_stream(each, now):
            return [Close(index)]
    return []


def _reads(now: float, watches: Iterable[Tracked], most: int) -> list[Action]:
    due = [each for each in watches if each.reads.due <= now and _may_read(each, now)]
    due.sort(key=lambda tracked: (tracked.reads.due, not in_motion(tracked, now), tracked.cvm_id))
    return [Read(tracked.cvm_id) for tracked in due[:most]]


def _may_read(tracked: Tracked, now: float) -> bool:
    if tracked.reads.running or tracked.reads.backoff.until > now:
        return False
    return not tracked.stream.is_open or _read_beside_stream(tracked)


def _caught_up(limits: PlanLimits) -> float:
    """Seconds of late batches that are asked at once; a longer pause is not made up for."""
    return max(limits.poll_interval / 10, 2 * SHORTEST_GAP)


def _batches(now: float, watches: Iterable[Tracked], limits: PlanLimits) -> list[Batch]:
    """The batches that are due: batches of equal size follow each other evenly over the poll interval, counted from
    when the last one was due. A CVM whose state was never read has nothing that a batch could vouch for; of a streamed
    one it tells the operations.
    """
    known = [each for each in watches if not each.gone and each.seen.state is not None] if limits.batch else []
    if not known:
        return []
    rounds = math.ceil(len(known) / BATCH_SIZE)
    gap, size = max(limits.poll_interval / rounds, SHORTEST_GAP), math.ceil(len(known) / rounds)
    newest = max(tracked.batch.asked_at for tracked in known)
    due = now if newest == NEVER else max(newest + gap, now - _caught_up(limits))
    if due > now:
        return []
    idle = (tracked for tracked in known if not tracked.batch.running)
    count = math.floor((now - due) / gap) + 1
    first = heapq.nsmallest(count * size, idle, key=lambda each: (each.batch.asked_at, each.cvm_id))
    ids = [tracked.cvm_id for tracked in first]
    return [Batch(tuple(ids[n * size : (n + 1) * size]), due + n * gap) for n in range(math.ceil(len(ids) / size))]
