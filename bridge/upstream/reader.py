"""Reads of one CVM's state."""

from __future__ import annotations

import logging

from bridge.upstream.changes import is_late
from bridge.upstream.client import Reading
from bridge.upstream.errors import CvmEffect, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.tracked import LONGEST_READ_WAIT, Observation, Tracked

logger = logging.getLogger(__name__)

LATE_AGAIN_AFTER = 1.0
"""Seconds until a hinted CVM is read again whose stream was faster than the answer."""


async def read(context: LeaderContext, tracked: Tracked) -> bool:
    """Reads one CVM's state and records it. True where upstream answered with a state, or that the CVM is gone."""
    tracked.reads.ask(context.clock.monotonic())
    try:
        return await _read(context, tracked)
    finally:
        tracked.reads.running = False


async def _read(context: LeaderContext, tracked: Tracked) -> bool:
    sent_at = context.clock.monotonic()
    try:
        reading = await context.client.read_state(tracked.cvm_id)
        seen = Observation(state=reading.state, by="poll", sent_at=reading.sent_at, made_at=reading.made_at)
    except UpstreamError as error:
        context.apply(error, tracked.cvm_id)
        if error.rule.cvm is not CvmEffect.ABSENT:
            _failed(context, tracked, error)
            return False
        seen = Observation(state=None, by="poll", sent_at=sent_at, made_at=context.clock.monotonic())
        if not _is_gone(context, tracked, seen, own=error.rule.definite):
            _not_found(context, tracked, error, sent_at)
            return False
    else:
        context.witnesses.answered(reading.sent_at)
        context.answered(reading)
        _forgive_stream(context, tracked)
    await _take(context, tracked, seen)
    return True


async def observed(context: LeaderContext, tracked: Tracked, reading: Reading) -> None:
    """Records a state that was read to resolve a reference: no second read is needed."""
    context.witnesses.answered(reading.sent_at)
    seen = Observation(state=reading.state, by="poll", sent_at=reading.sent_at, made_at=reading.made_at)
    if tracked.reads.running:
        await context.recorder.record(tracked, seen)
        return
    tracked.reads.running = True
    try:
        await _take(context, tracked, seen)
    finally:
        tracked.reads.running = False


async def _take(context: LeaderContext, tracked: Tracked, seen: Observation) -> None:
    before = tracked.seen.state if not tracked.gone else None
    applied = await context.recorder.record(tracked, seen)
    context.budget.authorized()
    tracked.reads.backoff.heal()
    # Compares states, since `watch.fresh` is an event without a change.
    if applied:
        tracked.reads.served_at = seen.sent_at
    same = applied and before is not None and seen.state is not None and before.same_as(seen.state)
    tracked.batch.read(same=same, hint_served=seen.sent_at >= tracked.reads.hinted_at)
    _come_again(context, tracked, seen.sent_at)


def _forgive_stream(context: LeaderContext, tracked: Tracked) -> None:
    """The CVM exists. Where its stream was answered 404, that form of the route is what upstream, or a proxy, lacks."""
    if tracked.stream.not_found:
        tracked.stream.not_found = False
        if context.budget.no_such_stream(context.clock.monotonic(), context.rng):
            logger.warning("upstream answers 404 to streams alone: the CVMs are polled, and streams tried now and then")


def _is_gone(context: LeaderContext, tracked: Tracked, seen: Observation, *, own: bool) -> bool:
    """Weighs a 404, which is in Phala's `own` words or not. One that is late counts for nothing."""
    if tracked.gone:
        return own
    if not is_late(tracked, seen):
        tracked.absence.not_found(seen.sent_at, seen.made_at, context.settings.poll_interval, own=own)
    alone = all(other is tracked or other.gone for other in context.watches.values())
    return own and context.witnesses.prove(tracked.cvm_id, tracked.absence, alone=alone)


def _not_found(context: LeaderContext, tracked: Tracked, error: UpstreamError, sent_at: float) -> None:
    """Asks again after one interval, the second witness, and then now and then; where Phala did not answer, soon."""
    now, interval = context.clock.monotonic(), context.settings.poll_interval
    tracked.seen.fail(error.reason)
    tracked.reads.due = now
    if not error.rule.definite:
        tracked.reads.fail(now, context.rng, error.retry_after)
        return
    tracked.reads.backoff.heal()
    if sent_at >= tracked.reads.hinted_at:
        tracked.reads.due += max(interval, LONGEST_READ_WAIT) if tracked.absence.again else interval


def _come_again(context: LeaderContext, tracked: Tracked, sent_at: float) -> None:
    now = context.clock.monotonic()
    if sent_at < tracked.reads.hinted_at:
        tracked.reads.due = now  # the hint came after the request was sent
    elif tracked.reads.is_hinted:
        tracked.reads.due = now + LATE_AGAIN_AFTER  # the answer was late: it may be older than the hint
    else:
        tracked.reads.due = context.pace.next_read(now, tracked)


def _failed(context: LeaderContext, tracked: Tracked, error: UpstreamError) -> None:
    now = context.clock.monotonic()
    if tracked.seen.fail(error.reason):
        fields = {"cvm_id": tracked.cvm_id, "reason": error.reason, "error": str(error)}
        logger.warning("a CVM's state could not be read", extra=fields)
    tracked.reads.bring_forward(now)
    if error.rule.cvm is CvmEffect.BACK_OFF:
        tracked.reads.fail(now, context.rng, error.retry_after)
