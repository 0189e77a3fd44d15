"""One stream of one CVM in one slot, from taking the slot to releasing it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, get_args

from bridge.backoff import HEALTHY_AFTER
from bridge.config import Settings
from bridge.events import State
from bridge.store.errors import FencedError, StoreError, StoreUnavailableError, UnconfirmedError
from bridge.upstream import metrics
from bridge.upstream.cancellation import ended, finished
from bridge.upstream.client import Garbled, StreamEvent
from bridge.upstream.errors import (
    RULES,
    AccountEffect,
    CvmEffect,
    NotSentError,
    RequestRefusedError,
    UnparsableError,
    UpstreamError,
)
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.reader import read
from bridge.upstream.slots import Life, Slot
from bridge.upstream.tracked import NEVER, Observation, Tracked

logger = logging.getLogger(__name__)

OPEN_GRACE = 15.0
"""Seconds from taking a slot to the response's headers. A process that was suspended in between gives up."""

END_GRACE = 10.0
"""Seconds that upstream may be late in ending a stream at its timeout."""

SETTLING = 0.5
"""Seconds between closing a stream and using its slot again: upstream may notice the end late."""

EARLY = 1.0
"""Seconds: a stream that ends sooner counts as a failure whatever it sent, so that streams do not open in a loop."""

SILENT_INTERVALS = 2.0

LATELY_INTERVALS = 1.5
"""An event may be half an interval late. After a longer silence our close may not reach upstream either."""

Certain = Literal["ordinary", "early", "closed", "refused", "not_sent"]
"""Ends after which upstream has no stream of ours in the slot. `closed`: by us, while upstream was sending."""

Uncertain = Literal["half_open", "overdue", "cut", "silent", "unanswered", "late_open"]
"""Ends that upstream may not have heard: until its timeout it may have the stream. `silent`: closed by us, while
upstream was not sending; `unanswered`: the request may have arrived, and no headers came."""

End = Certain | Uncertain

for _each in (*get_args(Certain), *get_args(Uncertain)):
    metrics.STREAM_ENDS.labels(_each)  # at 0, so that Prometheus sees the first step too


@dataclass(slots=True)
class _Stream:
    """One try to hold a stream, and how it ended."""

    opened_at: float
    heard_at: float = NEVER
    garbled: bool = False
    end: End | None = None

    def close(self, now: float, interval: float) -> End:
        """It ends now; unless another end is known, we end it."""
        if self.end is None and self.heard_at == NEVER:
            self.end = "unanswered"
        elif self.end is None:
            self.end = "closed" if now - self.heard_at <= LATELY_INTERVALS * interval else "silent"
        return self.end


def lifetime(settings: Settings) -> float:
    """Seconds from taking a slot until upstream has certainly ended the stream in it."""
    return OPEN_GRACE + settings.stream_timeout + END_GRACE


def target_for(tracked: Tracked) -> str:
    """The target that ends the stream: `deleted`, after which nothing follows. Where upstream refuses that target, a
    status other than the present one, since its arrival is a change."""
    if not tracked.stream.refuses_deleted:
        return "deleted"
    return "stopped" if tracked.status == "running" else "running"


async def watch(context: LeaderContext, tracked: Tracked, slot: Slot) -> None:
    """Takes in Redis the slot that is marked as opening, follows the stream, and frees the slot, or leaves it to its
    deadline.

    An upstream error ends in a backoff. Raises FencedError when the term is over. On cancellation the stream is closed
    first.
    """
    try:
        confirm_ms = context.replication.take_waits(context.clock.monotonic())
        whole = lifetime(context.settings)
        wait = await context.redis_slots.take(context.term, slot.index, tracked.cvm_id, whole, confirm_ms)
    except UnconfirmedError:
        # A promoted replica would not know of the slot: it is given back, and no stream is opened.
        tracked.stream.backoff.fail(context.clock.monotonic(), context.rng)
        await _release(context, slot, "not_sent")
        return
    except FencedError:
        slot.quarantine(slot.taken_at)  # not taken
        raise
    except BaseException as error:
        # Redis may have taken the slot: it stays unused until the deadline that Redis would have.
        slot.quarantine(slot.until)
        if not isinstance(error, StoreUnavailableError):
            raise
        return
    if wait > 0:
        slot.quarantine(slot.taken_at + wait)
        return
    stream = _Stream(context.clock.monotonic())
    try:
        await _follow(context, tracked, slot, stream)
    finally:
        tracked.stream.is_open = False
        tracked.batch.forget()
        # The last observation may be a whole interval old.
        tracked.reads.bring_forward(tracked.seen.made_at + context.settings.poll_interval)
        await _release(context, slot, stream.close(context.clock.monotonic(), context.settings.stream_interval))


async def _release(context: LeaderContext, slot: Slot, end: End) -> None:
    """The one write that a cancellation must not interrupt. Without an answer of Redis, the deadline frees the slot."""
    if end in get_args(Uncertain):
        slot.lose()
        metrics.QUARANTINES.labels(end).inc()
        waits = {"slot": slot.index, "cvm_id": slot.cvm_id, "seconds": round(slot.until - context.clock.monotonic())}
        logger.warning("upstream may still hold a stream: its slot is quarantined", extra={"cause": end, **waits})
        return
    deadline = slot.until
    slot.release(deadline)
    try:
        await finished(context.redis_slots.free(context.term, slot.index, SETTLING))
    except StoreError:
        if slot.life is Life.CLOSING:
            slot.quarantine(deadline)
        return
    if slot.life is Life.CLOSING:
        slot.release(context.clock.monotonic() + SETTLING)


async def _follow(context: LeaderContext, tracked: Tracked, slot: Slot, stream: _Stream) -> None:
    now, settings = context.clock.monotonic, context.settings
    try:
        if now() - slot.taken_at > OPEN_GRACE:
            # This process was suspended: a stream that begins now might outlive the slot's deadline.
            stream.end = "not_sent"
            return
        target = target_for(tracked)
        async with context.client.stream(
            tracked.cvm_id, target=target, interval=settings.stream_interval, timeout=settings.stream_timeout
        ) as events:
            stream.opened_at = stream.heard_at = now()
            slot.hold(now(), now() + settings.stream_timeout + END_GRACE)
            if now() - slot.taken_at > OPEN_GRACE:
                stream.end = "late_open"
                return
            tracked.stream.is_open, tracked.stream.not_found = True, False
            context.budget.stream_opened()
            context.budget.authorized()
            metrics.STREAM_OPENS.inc()
            metrics.STREAMS.inc()
            try:
                stream.end = await _listen(context, tracked, events, stream)
            finally:
                metrics.STREAMS.dec()
    except UpstreamError as error:
        stream.end = _failure(error, is_open=tracked.stream.is_open)
        _failed(context, tracked, slot, error)
    finally:
        end = stream.close(now(), settings.stream_interval)
        _weigh(context, tracked, end, now() - stream.opened_at)


def _failure(error: UpstreamError, *, is_open: bool) -> End:
    if is_open:
        # What cannot be read was sent just now, and upstream notices that we close.
        return "closed" if isinstance(error, UnparsableError) else "cut"
    if isinstance(error, NotSentError):
        return "not_sent"
    # A gateway that answers 504 has not heard what upstream did.
    return "refused" if error.status not in (None, 504) else "unanswered"


async def _listen(context: LeaderContext, tracked: Tracked, events: AsyncIterator[StreamEvent], stream: _Stream) -> End:
    silence = SILENT_INTERVALS * context.settings.stream_interval
    hard_end = stream.opened_at + context.settings.stream_timeout + END_GRACE
    pending: asyncio.Task[StreamEvent | None] | None = None
    latest = tracked.seen.events
    try:
        while True:
            if pending is None:
                pending = asyncio.create_task(_next(events), name=f"stream {tracked.cvm_id}")
            left = hard_end - context.clock.monotonic()
            done, _ = await asyncio.wait({pending}, timeout=max(0.0, min(silence, left)))
            if not done:
                if context.clock.monotonic() >= hard_end:
                    return "overdue"
                await read(context, tracked)
                if tracked.seen.events != latest:
                    return "half_open"  # the stream should have sent this change long before
                continue
            finished, pending = pending, None
            event = finished.result()
            if event is None:
                lived = context.clock.monotonic() - stream.opened_at
                return "ordinary" if lived >= HEALTHY_AFTER else "early"
            stream.heard_at = context.clock.monotonic()
            end = await _take(context, tracked, event, stream)
            if end is not None:
                return end
            latest = tracked.seen.events
    finally:
        if pending is not None:
            await _end(pending)


async def _end(pending: asyncio.Task[StreamEvent | None]) -> None:
    """Before its end the stream cannot be closed, and the error would end the process."""
    pending.cancel()
    await ended(pending)


async def _next(events: AsyncIterator[StreamEvent]) -> StreamEvent | None:
    return await anext(events, None)


async def _take(context: LeaderContext, tracked: Tracked, event: StreamEvent, stream: _Stream) -> End | None:
    if isinstance(event, State):
        await _record(context, tracked, event)
        return None
    if isinstance(event, Garbled):
        new, first = tracked.seen.fail(RULES[UnparsableError].reason), not stream.garbled
        stream.garbled = True
        if new and first:
            extra = {"cvm_id": tracked.cvm_id, "reason": event.reason}
            logger.warning("a stream sent something that is not a state", extra=extra)
    if isinstance(event, Garbled) or event.kind == "error":
        # The CVM may be gone, or not: the state route answers that, once an interval however much comes.
        tracked.reads.doubt(context.clock.monotonic(), context.settings.stream_interval)
        return None
    return "ordinary" if context.clock.monotonic() - stream.opened_at >= EARLY else "early"


async def _record(context: LeaderContext, tracked: Tracked, state: State) -> None:
    now = context.clock.monotonic()
    seen = Observation(state=state, by="stream", sent_at=now, made_at=now)
    await context.recorder.record(tracked, seen)


def _failed(context: LeaderContext, tracked: Tracked, slot: Slot, error: UpstreamError) -> None:
    # Streams that are being opened count too: when many are opened at once, the first answer may be a refusal.
    absent = error.rule.cvm is CvmEffect.ABSENT
    if not absent and tracked.seen.fail(error.reason):
        extra = {"cvm_id": tracked.cvm_id, "reason": error.reason, "error": str(error)}
        logger.warning("a stream failed", extra=extra)
    if tracked.stream.is_open:
        return  # upstream answered this request; a proxy that restarts cuts all streams, and reads go on
    others = sum(other.life in (Life.OPENING, Life.OPEN) for other in context.slots if other is not slot)
    context.apply(error, tracked.cvm_id, other_streams=others)
    if absent:
        # A proxy may not know this form of the route: whether the CVM is gone, the state route answers.
        tracked.stream.not_found = True
        tracked.reads.hint(context.clock.monotonic())
    elif error.rule.account is AccountEffect.SLOW_DOWN:
        _refused(context)
    elif isinstance(error, RequestRefusedError) and error.status == 422:
        tracked.stream.refuses_deleted = True


def _refused(context: LeaderContext) -> None:
    now = context.clock.monotonic()
    allowed = {"budget": context.budget.allowed(now)}
    if context.budget.is_unnoticed(now):
        logger.info("upstream refuses a stream: it may not have noticed yet that one was closed", extra=allowed)
    else:
        logger.warning("upstream allows no further stream: the account is used elsewhere too", extra=allowed)


def _weigh(context: LeaderContext, tracked: Tracked, end: End, lived: float) -> None:
    metrics.STREAM_ENDS.labels(end).inc()
    if end in ("ordinary", "early", "closed"):
        context.budget.stream_closed(context.clock.monotonic())
    if end in ("ordinary", "closed", "half_open", "overdue") or lived >= HEALTHY_AFTER:
        tracked.stream.backoff.heal()
    else:
        tracked.stream.backoff.fail(context.clock.monotonic(), context.rng)
