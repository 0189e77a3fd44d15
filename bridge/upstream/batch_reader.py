"""Batches: one request for many CVMs, whose answers tell of operations, and vouch for states or hint that they changed.

Streamed CVMs are asked about for their operations alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from bridge.events import State
from bridge.readiness import Told
from bridge.upstream.errors import AccountEffect, BatchAbsentError, CvmEffect, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.tracked import NEVER, Tracked

logger = logging.getLogger(__name__)

BATCH_AGAIN_AFTER = 600.0
"""Seconds until an absent batch route is tried again: a proxy may have refused it, and a try is cheap."""

UNLIMITED_AFTER = 120.0
"""Seconds until a batch route that limits us is tried again: by then the account has its whole rate again."""

_VOLATILE = frozenset({"uptime", "vm_uuid", "correlation_id"})
"""Fields of an answer that differ without a change of the CVM."""

_PROGRESS = ("boot_progress", "boot_error", "shutdown_progress")
"""Fields that answer and state have in common, beside the status."""


class Verdict(Enum):
    """What an answer is worth."""

    VOUCHES = auto()
    HINTS = auto()
    NOTHING = auto()


async def ask_batch(context: LeaderContext, cvm_ids: tuple[str, ...]) -> None:
    """One request for many CVMs. What it does not vouch for is read, at once after a hint, else in its turn."""
    asked = [context.watches[cvm_id] for cvm_id in cvm_ids if cvm_id in context.watches]
    for tracked in asked:
        tracked.batch.running = True
    try:
        await _ask(context, asked)
    finally:
        for tracked in asked:
            tracked.batch.running = False


async def _ask(context: LeaderContext, asked: list[Tracked]) -> None:
    sent_at = context.clock.monotonic()
    try:
        answers = await context.client.batch([tracked.cvm_id for tracked in asked])
    except UpstreamError as error:
        _failed(context, asked, error)
        return
    await _tell(context, asked, answers, sent_at)
    unanswered, late = [], context.clock.monotonic() - sent_at > context.pace.slow
    for tracked in asked:
        if tracked.stream.is_open:
            continue
        verdict = weigh(tracked, answers.get(tracked.cvm_id), sent_at)
        if verdict is Verdict.VOUCHES:
            # Dated by the request: the result of a read in between counts as newer.
            await context.recorder.confirm(tracked, sent_at)
            if not late:
                context.pace.trust(context.clock.monotonic(), tracked)
                continue
        if verdict is Verdict.HINTS:
            tracked.reads.hint(context.clock.monotonic())
        unanswered.append(tracked)
    context.pace.distrust(context.clock.monotonic(), unanswered)


async def _tell(
    context: LeaderContext, asked: list[Tracked], answers: Mapping[str, dict[str, Any]], sent_at: float
) -> None:
    for tracked in asked:
        answer = answers.get(tracked.cvm_id, {})
        if (told := Told.by(answer)) is not None:
            tracked.batch.told_at = sent_at
            status = answer.get("status")
            await context.recorder.tell(tracked, told, status if isinstance(status, str) else None, sent_at)


def _failed(context: LeaderContext, asked: list[Tracked], error: UpstreamError) -> None:
    now = context.clock.monotonic()
    asked = [each for each in asked if not each.stream.is_open]
    if error.rule.account is AccountEffect.SLOW_DOWN:
        context.apply(error, "batch")  # whether the key works, the reads of the states show
    if isinstance(error, BatchAbsentError):
        _set_aside(context, now + BATCH_AGAIN_AFTER)
        logger.warning("upstream has no batch route: every polled CVM's state is read instead")
    elif error.rule.cvm is not CvmEffect.WAIT:
        context.pace.distrust(now, asked)
    elif any(now - each.seen.confirmed_at > 1.5 * context.settings.poll_interval for each in asked):
        # More requests do not help a limited account; but limited twice in a row, this route alone may be.
        _set_aside(context, now + UNLIMITED_AFTER)
        logger.warning("upstream limits the batch route: every polled CVM's state is read instead")


def _set_aside(context: LeaderContext, until: float) -> None:
    context.batch_route, context.batch_again_at = False, until
    context.pace.distrust(context.clock.monotonic(), context.watches.values())


def weigh(tracked: Tracked, answer: dict[str, Any] | None, sent_at: float) -> Verdict:
    """Whether an answer, asked for at `sent_at`, vouches for the state that is known. Keeps its digest.

    Only an answer with the same status vouches, if it is the same as the one before, or the first one after a read and
    tells the same progress.
    """
    state, batch = tracked.seen.state, tracked.batch
    if answer is None or state is None or tracked.absence.is_missing:
        return Verdict.NOTHING
    found, agrees = digest(answer), answer.get("status") == tracked.status
    steady = found == batch.answer
    first = batch.answer is None and sent_at >= tracked.seen.made_at > NEVER and _tells_progress(answer, state)
    if steady or (first and agrees):
        vouches = agrees and tracked.fresh and not tracked.reads.is_hinted
        batch.keep(found, steady=steady and vouches)
        return Verdict.VOUCHES if vouches else Verdict.NOTHING
    hints = batch.differs(found, current=sent_at >= tracked.seen.changed_at)
    return Verdict.HINTS if hints else Verdict.NOTHING


def _tells_progress(answer: dict[str, Any], state: State) -> bool:
    return all((answer.get(name) or None) == (state.fields.get(name) or None) for name in _PROGRESS)


def digest(answer: dict[str, Any]) -> str:
    """A short hash of a batch answer's fields for one CVM, without the volatile ones."""
    fields = {key: value for key, value in answer.items() if key not in _VOLATILE}
    return hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=16).hexdigest()
