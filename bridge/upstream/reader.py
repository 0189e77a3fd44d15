"""Plain requests: states read, batches asked for hints; each class of trouble leads to one action."""

from __future__ import annotations

import logging
from typing import Any

from bridge.upstream import metrics
from bridge.upstream.errors import (
    BatchAbsentError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
    UpstreamError,
)
from bridge.upstream.planner import next_read
from bridge.upstream.reign import Reign
from bridge.upstream.tracked import Observation, Tracked

logger = logging.getLogger(__name__)

BATCH_AGAIN_AFTER = 600.0
"""Seconds until an absent batch route is tried again: it may be a proxy's whim, and a try is cheap."""

LONGEST_READ_WAIT = 30.0

# Fields of a batch answer that say nothing of a change.
_BATCH_VOLATILE = frozenset({"uptime", "vm_uuid", "correlation_id"})


async def read(reign: Reign, tracked: Tracked) -> bool:
    """Reads one CVM's state and records it. True when upstream answered (a state, or that it is gone)."""
    tracked.reading = True
    try:
        return await _read(reign, tracked)
    finally:
        tracked.reading = False


async def _read(reign: Reign, tracked: Tracked) -> bool:
    sent_at = reign.clock.monotonic()
    try:
        reading = await reign.client.read_state(tracked.cvm_id)
        seen = Observation(tracked.cvm_id, reading.state, "poll", reading.sent_at, reading.made_at)
    except NotFoundError:
        seen = Observation(tracked.cvm_id, None, "poll", sent_at, reign.clock.monotonic())
    except UpstreamError as error:
        trouble(reign, tracked, error)
        tracked.read_due = reign.clock.monotonic()
        return False
    metrics.REQUESTS.labels("state", "ok" if seen.state else "gone").inc()
    await reign.recorder.record(tracked, seen)
    reign.budget.authorized()
    tracked.read_backoff.heal()
    # Remembered only now: a hint whose read failed must hint again.
    tracked.batch_answer, tracked.batch_pending = tracked.batch_pending or tracked.batch_answer, None
    now = reign.clock.monotonic()
    tracked.read_due = next_read(tracked, now, len(reign.watches), reign.limits_of_route())
    return True


def trouble(reign: Reign, tracked: Tracked, error: UpstreamError, *, kind: str = "state") -> None:
    """What a failed plain request of one CVM leads to."""
    now = reign.clock.monotonic()
    if tracked.trouble != error.reason:
        fields = {"cvm_id": tracked.cvm_id, "reason": error.reason, "error": str(error)}
        logger.warning("a CVM's state could not be read", extra=fields)
    tracked.trouble = error.reason
    metrics.REQUESTS.labels(kind, error.reason).inc()
    if isinstance(error, RateLimitedError):
        reign.budget.too_many_requests(now, error.retry_after)
        return
    if isinstance(error, UnauthorizedError):
        reign.budget.unauthorized(now, reign.chance, tracked.cvm_id, error.status)
    wait = tracked.read_backoff.fail(now, reign.chance, error.retry_after or 0.0)
    # A state that is polled every 10 s must not be forgotten for a minute because of three bad answers.
    tracked.read_backoff.until = now + min(wait, max(LONGEST_READ_WAIT, error.retry_after or 0.0))


async def ask_batch(reign: Reign, cvm_ids: tuple[str, ...]) -> None:
    """One call for many: who differs from the last batch answer is read now, who does not is vouched for."""
    sent_at = reign.clock.monotonic()
    asked = [reign.watches[cvm_id] for cvm_id in cvm_ids if cvm_id in reign.watches]
    for tracked in asked:
        tracked.batched_at = sent_at
    try:
        answers = await reign.client.batch([tracked.cvm_id for tracked in asked])
    except BatchAbsentError:
        reign.batch_route = False
        reign.batch_again_at = sent_at + BATCH_AGAIN_AFTER
        logger.warning("upstream has no batch route: every polled CVM's state is read instead")
        spread(reign, asked)
        return
    except RateLimitedError as error:
        reign.budget.too_many_requests(reign.clock.monotonic(), error.retry_after)
        metrics.REQUESTS.labels("batch", error.reason).inc()
        return
    except UpstreamError as error:
        # No hint is no news: each of these is read itself, so that a broken batch route hides nothing.
        metrics.REQUESTS.labels("batch", error.reason).inc()
        spread(reign, asked)
        return
    metrics.REQUESTS.labels("batch", "ok").inc()
    for tracked in asked:
        await _weigh(reign, tracked, answers.get(tracked.cvm_id), sent_at)


def spread(reign: Reign, asked: list[Tracked]) -> None:
    """Reads of the states themselves, evenly over the next poll interval."""
    now = reign.clock.monotonic()
    for position, tracked in enumerate(asked):
        due = now + reign.settings.poll_interval * position / len(asked)
        tracked.read_due = min(tracked.read_due, due)


async def _weigh(reign: Reign, tracked: Tracked, answer: dict[str, Any] | None, sent_at: float) -> None:
    if tracked.streaming:
        return
    said = None if answer is None else {key: value for key, value in answer.items() if key not in _BATCH_VOLATILE}
    if said is not None and said == tracked.batch_answer:
        # Made when it was asked, at the latest: what a read found in between counts as newer.
        await reign.recorder.vouch(tracked, sent_at)
        return
    tracked.read_due = min(tracked.read_due, reign.clock.monotonic())
    tracked.batch_pending = said
