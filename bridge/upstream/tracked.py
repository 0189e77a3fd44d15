"""What an observation means: the pure step from what was known and what was seen to the events it makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bridge.events import (
    DELETED,
    FRESH,
    RUNNING,
    STALE,
    STATE,
    TRANSITION,
    Draft,
    ObservedBy,
    State,
    UnparsableStateError,
    cvm_data,
    parse_state,
    watch_data,
)
from bridge.store.snapshots import Snapshot
from bridge.upstream.backoff import Backoff

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a CVM. `state` is None where upstream said that it is gone. Times are monotonic seconds:
    when the question was sent (a stream's event: when it arrived) and when the answer was there."""

    cvm_id: str
    state: State | None
    by: ObservedBy
    sent_at: float
    made_at: float


@dataclass(frozen=True, slots=True)
class Step:
    """One event to append, the snapshot that goes with it, and whether the CVM had ever run before it."""

    draft: Draft
    snapshot: Snapshot
    ran: bool


@dataclass(slots=True)
class Tracked:
    """One watched CVM as the leader knows it. Only the leader's own tasks touch it, on one event loop."""

    cvm_id: str
    snapshot: Snapshot | None = None
    state: State | None = None
    made_at: float = NEVER
    confirmed_at: float = 0.0
    changed_at: float = 0.0
    """When the status changed, monotonic; a new leader counts from its own start."""
    pinned: bool = False
    subscribers: int = 0
    read_due: float = NEVER
    reading: bool = False
    batched_at: float = NEVER
    batch_answer: str | None = None
    batch_pending: str | None = None
    """Digests of what the batch route said: the answer that belongs to the state, and one that waits for a read."""
    hinted_at: float = NEVER
    streaming: bool = False
    stream_backoff: Backoff = field(default_factory=Backoff)
    read_backoff: Backoff = field(default_factory=Backoff)
    refuses_deleted: bool = False
    trouble: str | None = None
    dropped: bool = False
    """Its watch has ended: whatever is still seen of it is no news to anybody."""

    @classmethod
    def loaded(cls, cvm_id: str, snapshot: Snapshot | None, now: float) -> Tracked:
        """As a new leader finds it: to be read at once."""
        return cls(cvm_id, snapshot, _stored_state(snapshot), confirmed_at=now, changed_at=now)

    def hint(self, now: float, *, first: bool = False) -> None:
        """Something says that it changed: it is to be read now, and by a question asked from now on; `first`: before
        all that wait their turn, of which a batch can make many at once.
        """
        self.read_due = NEVER if first else min(self.read_due, now)
        self.hinted_at = now

    @property
    def status(self) -> str | None:
        return self.snapshot.status if self.snapshot else None

    @property
    def fresh(self) -> bool:
        return self.snapshot is None or self.snapshot.fresh

    @property
    def gone(self) -> bool:
        return self.status == DELETED


def _stored_state(snapshot: Snapshot | None) -> State | None:
    if snapshot is None or snapshot.raw_state is None:
        return None
    try:
        return parse_state(snapshot.raw_state)
    except UnparsableStateError:
        return None


def is_late(tracked: Tracked, observation: Observation) -> bool:
    """An answer to a question that was sent before the last applied observation was made says nothing new."""
    return observation.sent_at < tracked.made_at


def observe(tracked: Tracked, observation: Observation, now: str) -> tuple[list[Step], Snapshot]:
    """The events that an observation makes, in order, and the snapshot after it (also where there is no event).

    `now` is the RFC 3339 time of the observation. `watch.fresh` precedes what was found on recovery.
    """
    before = tracked.snapshot
    steps: list[Step] = []
    if before is not None and not before.fresh:
        before = replace(before, fresh=True, stale_reason=None)
        data = watch_data(tracked.cvm_id, before.name)
        steps.append(Step(Draft(FRESH, tracked.cvm_id, now, data), before, before.ever_ran))
    after = _after(tracked, before, observation, now)
    kind = _kind(tracked, before, observation)
    if kind is not None:
        state = observation.state
        change = (before.status if before else None, after.status)
        data = cvm_data(tracked.cvm_id, after.name, change, observation.by, state.raw if state else None)
        steps.append(Step(Draft(kind, tracked.cvm_id, now, data), after, bool(before and before.ever_ran)))
    return steps, after


def _kind(tracked: Tracked, before: Snapshot | None, observation: Observation) -> str | None:
    to = observation.state.status if observation.state else DELETED
    if before is None or before.status is None:
        return STATE
    if before.status != to:
        return TRANSITION
    if observation.state is None:
        return None
    return None if tracked.state is not None and tracked.state.same_as(observation.state) else STATE


def _after(tracked: Tracked, before: Snapshot | None, observation: Observation, now: str) -> Snapshot:
    state = observation.state
    status = state.status if state else DELETED
    same_status = before is not None and before.status == status
    name = state.name if state and state.name is not None else (before.name if before else None)
    return Snapshot(
        tracked.cvm_id,
        state.raw if state else None,
        status,
        name,
        before.since if before and same_status else now,
        now,
        before.event_id if before else "",
        ever_ran=bool(before and before.ever_ran) or status == RUNNING,
    )


def grow_stale(tracked: Tracked, reason: str, now: str) -> Step | None:
    """The step that says that nothing vouches for the state any more; None where that was said before."""
    before = tracked.snapshot
    if before is not None and not before.fresh:
        return None
    if before is None:
        before = Snapshot(tracked.cvm_id, None, None, None, None, None)
    after = replace(before, fresh=False, stale_reason=reason)
    draft = Draft(STALE, tracked.cvm_id, now, watch_data(tracked.cvm_id, before.name, reason))
    return Step(draft, after, before.ever_ran)
