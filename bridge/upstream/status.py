"""What the leader tells operators: whom it follows, its budget of streams, and why CVMs are polled."""

from __future__ import annotations

from bridge.clock import rfc3339
from bridge.store.leader_status import LeaderStatus
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.slots import Life


def takeover(context: LeaderContext, now: float) -> dict[str, object]:
    """The fields of the line with which a term begins; `now` is monotonic."""
    term, zero = context.term, context.clock.time() - now
    fields: dict[str, object] = {"holder": term.holder, "epoch": term.epoch}
    fields["sequence"] = context.recorder.position.sequence
    follows, epoch = term.before
    if follows:
        why = "its lease ran out" if term.ran_out else "it handed over"
        fields |= {"follows": follows, "former_epoch": epoch, "because": why}
    waits = [slot.until for slot in context.slots if slot.streams]
    fields["slots_waiting"] = len(waits)
    if waits:
        fields["slots_wait_until"] = rfc3339(zero + max(waits))
    if context.streams_from > now:
        fields["no_stream_before"] = rfc3339(zero + context.streams_from)
    return fields


def leader_status(context: LeaderContext, now: float) -> LeaderStatus:
    """`now` is monotonic."""
    budget = context.budget
    known = sum(each.status is not None for each in context.watches.values())
    fields = {
        "leader": context.term.holder,
        "epoch": context.term.epoch,
        "budget": budget.allowed(now),
        "budget_reason": "rate_limited" if budget.is_unnoticed(now) else budget.streams_reason,
        "blocked": budget.is_blocked,
        "unreachable": context.is_down(now),
        "fault": context.fault,
        "unmet": dict(context.unmet),
        "known": known,
        "found": len(context.watches) + context.unresolved,
    }
    return LeaderStatus(fields, _why_polled(context, now), _exceptions(context, now))


HELD_BACK = {
    "unauthorized": "unauthorized",
    "unreachable": "upstream is unreachable",
    "handover": "waiting until the previous leader has closed its streams",
    "no_replica": "Redis has lost its replicas, and may be cut off from a promoted one",
    "not_found": "upstream answers 404 to streams",
    "unnoticed": "upstream may not have noticed yet that a stream was closed",
    "rate_limited": "the account is used elsewhere too",
}
"""Why fewer streams than slots may be open: as metrics have it, and as operators read it."""


def held_back(context: LeaderContext, now: float) -> str | None:
    """A key of HELD_BACK, the first that applies; `now` is monotonic."""
    budget = context.budget
    why = {
        "unauthorized": budget.is_blocked,
        "unreachable": budget.breaker.is_open,
        "handover": now < context.streams_from,
        "no_replica": context.replication.is_missing(now),
        "not_found": now < budget.absent_streams.until,
        "unnoticed": budget.is_unnoticed(now),
        "rate_limited": budget.streams_reason is not None,
    }
    return next((reason for reason, holds in why.items() if holds), None)


def _why_polled(context: LeaderContext, now: float) -> str:
    reason = held_back(context, now)
    return HELD_BACK[reason] if reason else "all slots are taken"


def _exceptions(context: LeaderContext, now: float) -> dict[str, str]:
    """CVMs that are polled for a reason of their own."""
    polled = [each for each in context.watches.values() if not each.stream.is_open]
    found = {each.cvm_id: "deleted" for each in polled if each.gone}
    if context.budget.is_blocked or context.budget.breaker.is_open:
        return found
    quarantined = {slot.cvm_id for slot in context.slots if slot.life is Life.QUARANTINED}
    for each in polled:
        if each.stream.backoff.until > now:
            reason = f"backing off after {each.seen.failure or 'a stream that ended early'}"
            found.setdefault(each.cvm_id, reason)
        elif each.cvm_id in quarantined:
            found.setdefault(each.cvm_id, "its slot is quarantined until an older stream has ended")
    return found
