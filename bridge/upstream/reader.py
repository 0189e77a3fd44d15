"""Plain requests: states read, batches asked for hints; each class of trouble leads to one action."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from bridge.upstream import metrics
from bridge.upstream.errors import (
    BatchAbsentError,
    CvmEffect,
    UpstreamError,
)
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.planner import GONE_EVERY, round_length
from bridge.upstream.tracked import Observation, Tracked

logger = logging.getLogger(__name__)

BATCH_AGAIN_AFTER = 600.0
"""Seconds until an absent batch route is tried again: it may be a proxy's whim, and a try is cheap."""

LONGEST_READ_WAIT = 30.0

# Fields of a batch answer that say nothing of a change.
_BATCH_VOLATILE = frozenset({"uptime", "vm_uuid", "correlation_id"})


async def read(context: LeaderContext, tracked: Tracked) -> bool:
    """Reads one CVM's state and records it. True when upstream answered (a state, or that it is gone)."""
    tracked.reading = True
    try:
        return await _read(context, tracked)
    finally:
        tracked.reading = False


async def _read(context: LeaderContext, tracked: Tracked) -> bool:
    sent_at = context.clock.monotonic()
    try:
        reading = await context.client.read_state(tracked.cvm_id)
        seen = Observation(tracked.cvm_id, reading.state, "poll", reading.sent_at, reading.made_at)
    except UpstreamError as error:
        context.apply(error, tracked.cvm_id)
        if error.rule.cvm is not CvmEffect.GONE:
            _failed(context, tracked, error)
            return False
        seen = Observation(tracked.cvm_id, None, "poll", sent_at, context.clock.monotonic())
    metrics.REQUESTS.labels("state", "ok" if seen.state else "gone").inc()
    before = tracked.state if not tracked.gone else None
    applied = await context.recorder.record(tracked, seen)
    context.budget.authorized()
    tracked.read_backoff.heal()
    # Not by the event: growing fresh again is one, and with very many CVMs each would then need one more read.
    same = applied and before is not None and seen.state is not None and before.same_as(seen.state)
    _remember(tracked, seen.sent_at, same=same)
    _come_again(context, tracked, seen.sent_at)
    return True


def _remember(tracked: Tracked, sent_at: float, *, same: bool) -> None:
    """A batch answer vouches for a state that was the `same` before and after it, and only once that was recorded.

    One that came between two states may be the words of either: it would hide that the change was taken back. And a
    hint whose read failed must hint again.
    """
    if not same:
        tracked.batch_answer = None
    if sent_at >= tracked.hinted_at and tracked.batch_pending is not None:
        tracked.batch_answer = tracked.batch_pending if same else None
        tracked.batch_pending = None


def _come_again(context: LeaderContext, tracked: Tracked, sent_at: float) -> None:
    now, count, limits = context.clock.monotonic(), len(context.watches), context.limits_of_route()
    if sent_at < tracked.hinted_at:
        tracked.read_due = now  # the hint came while the question was under way
    elif tracked.gone:
        tracked.read_due = now + GONE_EVERY
    elif limits.batch and tracked.batch_answer is None:
        tracked.read_due = now + round_length(count, limits)  # the next batch has it read sooner, so it takes no turn
    else:
        tracked.read_due = context.turns.next(now, count, limits)


def _failed(context: LeaderContext, tracked: Tracked, error: UpstreamError) -> None:
    now = context.clock.monotonic()
    if tracked.trouble != error.reason:
        fields = {"cvm_id": tracked.cvm_id, "reason": error.reason, "error": str(error)}
        logger.warning("a CVM's state could not be read", extra=fields)
    tracked.trouble = error.reason
    metrics.REQUESTS.labels("state", error.reason).inc()
    tracked.read_due = now
    if error.rule.cvm is CvmEffect.WAIT:
        return
    wait = tracked.read_backoff.fail(now, context.rng, error.retry_after or 0.0)
    # A state that is polled every 10 s must not be forgotten for a minute because of three bad answers.
    tracked.read_backoff.until = now + min(wait, max(LONGEST_READ_WAIT, error.retry_after or 0.0))


async def ask_batch(context: LeaderContext, cvm_ids: tuple[str, ...]) -> None:
    """One call for many: who differs from the last batch answer is read now, who does not is vouched for."""
    sent_at = context.clock.monotonic()
    asked = [context.watches[cvm_id] for cvm_id in cvm_ids if cvm_id in context.watches]
    for tracked in asked:
        tracked.batched_at = sent_at
    try:
        answers = await context.client.batch([tracked.cvm_id for tracked in asked])
    except UpstreamError as error:
        context.apply(error, "batch")
        metrics.REQUESTS.labels("batch", error.reason).inc()
        if isinstance(error, BatchAbsentError):
            context.batch_route = False
            context.batch_again_at = sent_at + BATCH_AGAIN_AFTER
            logger.warning("upstream has no batch route: every polled CVM's state is read instead")
        if error.rule.cvm is not CvmEffect.WAIT:
            _spread(context, asked)  # so that a batch route that fails hides no change
        return
    metrics.REQUESTS.labels("batch", "ok").inc()
    for tracked in asked:
        await _weigh(context, tracked, answers.get(tracked.cvm_id), sent_at)


def _spread(context: LeaderContext, asked: list[Tracked]) -> None:
    """Reads of the states themselves, evenly over the next poll interval."""
    now = context.clock.monotonic()
    for position, tracked in enumerate(asked):
        due = now + context.settings.poll_interval * position / len(asked)
        tracked.read_due = min(tracked.read_due, due)


async def _weigh(context: LeaderContext, tracked: Tracked, answer: dict[str, Any] | None, sent_at: float) -> None:
    if tracked.streaming:
        return
    said = None if answer is None else digest(answer)
    if said is not None and said == tracked.batch_answer and tracked.fresh:
        # Made when it was asked, at the latest: what a read found in between counts as newer.
        await context.recorder.vouch(tracked, sent_at)
        return
    tracked.hint(context.clock.monotonic())
    # One that was asked for before the present status was seen may be words on the status before it.
    tracked.batch_pending = said if sent_at >= tracked.changed_at else None


def digest(answer: dict[str, Any]) -> str:
    """Of a batch answer's words on one CVM, those that say nothing of a change left out."""
    words = {key: value for key, value in answer.items() if key not in _BATCH_VOLATILE}
    return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16).hexdigest()
