"""What an observation changes: the pure step from what was known and what was seen to the events it causes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridge.events import (
    DELETED,
    FRESH,
    READINESS,
    RUNNING,
    STALE,
    STATE,
    TRANSITION,
    Draft,
    State,
    cvm_data,
    readiness_data,
    watch_data,
)
from bridge.readiness import Readiness, Told
from bridge.store.snapshots import Snapshot
from bridge.upstream.tracked import Observation, Tracked


@dataclass(frozen=True, slots=True)
class Step:
    """One event to append, the snapshot that goes with it, and whether the CVM had ever run before it. `second`: the
    readiness that follows from the event, in the same step."""

    draft: Draft
    snapshot: Snapshot
    ran: bool
    second: Draft | None = None


def is_late(tracked: Tracked, observation: Observation) -> bool:
    """Whether its request was sent before the last applied observation was made, so that it is ignored."""
    return observation.sent_at < tracked.seen.made_at


def observe(tracked: Tracked, observation: Observation, now: str) -> tuple[list[Step], Snapshot]:
    """The events that an observation causes, in order, and the snapshot after it (also without an event).

    `now` is the RFC 3339 time of the observation. `watch.fresh` precedes the change that was found on recovery. First
    sight makes one event, whose `data` has the readiness.
    """
    before = tracked.seen.snapshot
    steps: list[Step] = []
    after = _after(tracked, before, observation, now)
    kind = _kind(tracked, before, after, observation)
    second = _follows(before, after, observation.state, now)
    if before is not None and not before.fresh:
        recovered = replace(before, fresh=True, stale_reason=None) if kind or second else after
        data = watch_data(tracked.cvm_id, before.name, app_id=before.app_id or tracked.operations.app_id)
        steps.append(Step(Draft(FRESH, tracked.cvm_id, now, data), recovered, before.ever_ran))
    ran = bool(before and before.ever_ran)
    if kind is not None:
        state = observation.state
        data = cvm_data(
            tracked.cvm_id,
            after.name,
            (before.status if before else None, after.status),
            observation.by,
            state.raw if state else None,
            app_id=after.app_id,
            ready=after.ready,
            operation=after.readiness.operation_fields(),
        )
        steps.append(Step(Draft(kind, tracked.cvm_id, now, data), after, ran, second))
    elif second is not None:
        steps.append(Step(second, after, ran))
    return steps, after


def tell(tracked: Tracked, told: Told, now: str) -> tuple[Step | None, Snapshot | None]:
    """The event that an answer about operations alone causes, and the snapshot after it (also without an event)."""
    before = tracked.seen.snapshot
    if before is None or before.status is None:
        return None, before
    after = before.with_readiness(before.readiness.after(before.status, told))
    draft = _follows(before, after, tracked.seen.state, now)
    return (Step(draft, after, before.ever_ran) if draft else None), after


def _follows(before: Snapshot | None, after: Snapshot, state: State | None, now: str) -> Draft | None:
    """The readiness that is another than before; none at first sight."""
    if before is None or before.status is None or not after.readiness.differs(before.readiness):
        return None
    boot_error = state.fields.get("boot_error") if state else None
    data = readiness_data(
        after.cvm_id,
        after.name,
        (before.ready, after.ready),
        after.readiness.reason(after.status, boot_error),
        app_id=after.app_id,
        operation=after.readiness.operation_fields(),
    )
    return Draft(READINESS, after.cvm_id, now, data)


def _kind(tracked: Tracked, before: Snapshot | None, after: Snapshot, observation: Observation) -> str | None:
    if before is None or before.status is None:
        return STATE
    if before.status != after.status:
        return TRANSITION
    known, seen = tracked.seen.state, observation.state
    return None if seen is None or (known is not None and known.same_as(seen)) else STATE


def _after(tracked: Tracked, before: Snapshot | None, observation: Observation, now: str) -> Snapshot:
    state = observation.state
    status = state.status if state else DELETED
    same_status = before is not None and before.status == status
    # A state without a name has the list's; a CVM that is gone keeps the last one.
    known_names = (state.name, tracked.operations.name) if state else ()
    name = next((each for each in (*known_names, before.name if before else None) if each is not None), None)
    since, event_id = before.since if before and same_status else now, before.event_id if before else ""
    ran, raw = bool(before and before.ever_ran) or status == RUNNING, state.raw if state else None
    made = Snapshot(tracked.cvm_id, raw, status, name, since, now, event_id, ever_ran=ran)
    app_id = (state.app_id if state else None) or tracked.operations.app_id or (before.app_id if before else None)
    known, told = before.readiness if before else Readiness(), tracked.operations.told_with(observation)
    return replace(made, app_id=app_id).with_readiness(known.after(status, told) if state else known.gone())


def grow_stale(tracked: Tracked, reason: str, now: str) -> Step | None:
    """The step that makes the watch stale; None where it is stale already."""
    before = tracked.seen.snapshot
    if before is not None and not before.fresh:
        return None
    if before is None:
        before = Snapshot(tracked.cvm_id, None, None, None, None, None)
    after = replace(before, fresh=False, stale_reason=reason)
    data = watch_data(tracked.cvm_id, before.name, reason, app_id=before.app_id or tracked.operations.app_id)
    draft = Draft(STALE, tracked.cvm_id, now, data)
    return Step(draft, after, before.ever_ran)
