"""What the leader keeps of each watched CVM, in parts: each part has one writer."""

from __future__ import annotations

import contextlib
import random
from dataclasses import KW_ONLY, dataclass, field, replace

from bridge.backoff import Backoff
from bridge.events import DELETED, ObservedBy, State, UnparsableStateError, parse_state
from bridge.readiness import Told
from bridge.store.snapshots import Snapshot
from bridge.upstream.absence import Absence

NEVER = float("-inf")

LONGEST_READ_WAIT = 30.0
"""Seconds: a CVM that is read every 10 s is not left alone for a minute because of three failures."""

IDLE_HINTS = 2
"""Different digests in a row whose reads found nothing, after which a further one causes no read of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at a CVM. `state` is None where upstream answered that the CVM is gone. Times are monotonic seconds:
    when the request was sent (a stream's event: when it arrived) and when the answer arrived."""

    state: State | None
    by: ObservedBy
    sent_at: float
    made_at: float


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was observed last. The recorder writes it; `failure` is also set where a request failed."""

    snapshot: Snapshot | None = None
    state: State | None = None
    made_at: float = NEVER
    confirmed_at: float = 0.0
    changed_at: float = 0.0
    """When the status changed, monotonic; a new leader counts from its own start."""
    failure: str | None = None
    """Why the last request failed; None after a state."""
    dropped: bool = False
    """The watch has ended: nothing that is observed from now on is recorded."""
    events: int = 0
    """Decided so far in this term."""

    def decide(self, snapshot: Snapshot) -> None:
        """An event is decided, and this follows from it. Its `event_id` is empty until Redis has the event."""
        self.snapshot = snapshot
        self.events += 1

    def written(self, event_id: str) -> None:
        """Redis has the last event that was decided."""
        if self.snapshot is not None:
            self.snapshot = replace(self.snapshot, event_id=event_id)

    def apply(self, observation: Observation, after: Snapshot, *, changed: bool) -> None:
        """The events of an observation are decided; `after` is the snapshot that results."""
        self.snapshot = replace(after, event_id=self.snapshot.event_id if self.snapshot else "")
        if changed:
            self.changed_at = observation.made_at
        self.state = observation.state or self.state
        self.made_at = self.confirmed_at = observation.made_at
        self.failure = None

    def note(self, snapshot: Snapshot) -> None:
        """Something is known better, and no event tells it: the snapshot has it from now on."""
        self.snapshot = snapshot

    def fail(self, reason: str) -> bool:
        """A request failed. True where the reason is a new one."""
        new, self.failure = self.failure != reason, reason
        return new


@dataclass(slots=True, kw_only=True)
class ReadSchedule:
    """When the state is read next. The reader writes it; hints and a stream's end bring a read forward."""

    due: float = NEVER
    running: bool = False
    hinted_at: float = NEVER
    served_at: float = NEVER
    """When the last request was sent whose answer was recorded."""
    asked_at: float = NEVER
    """When the last request was sent."""
    doubted: bool = False
    """Whether a stream sent something odd after that."""
    backoff: Backoff = field(default_factory=Backoff)

    def hint(self, now: float, *, first: bool = False) -> None:
        """The CVM may have changed: it is read now, by a request sent from now on.

        `first`: before all other reads that are due, of which a batch can cause many at once.
        """
        self.due = NEVER if first else min(self.due, now)
        self.hinted_at = now

    def ask(self, now: float) -> None:
        """A request is sent."""
        self.running, self.asked_at, self.doubted = True, now, False

    def doubt(self, now: float, every: float) -> None:
        """A stream sent something other than a state: the state is read beside it, at most once `every` seconds."""
        self.doubted = True
        self.bring_forward(max(now, self.asked_at + every))

    @property
    def is_hinted(self) -> bool:
        """Whether a hint waits for its read: then the CVM is read even if a stream of it is open."""
        return self.served_at < self.hinted_at

    def bring_forward(self, due: float) -> None:
        """At `due` or sooner."""
        self.due = min(self.due, due)

    def fail(self, now: float, rng: random.Random, retry_after: float | None) -> None:
        """Backs off, for `retry_after` seconds or longer."""
        wait = self.backoff.fail(now, rng, retry_after or 0.0)
        self.backoff.until = now + min(wait, max(LONGEST_READ_WAIT, retry_after or 0.0))


@dataclass(slots=True, kw_only=True)
class BatchAnswers:
    """What the batch route's answers about a CVM are worth. Whether one vouches for the state is decided anew with each
    answer, also where the digest is a former leader's."""

    asked_at: float = NEVER
    """When it was to be asked last."""
    running: bool = False
    """Whether a batch with this CVM is under way."""
    answer: str | None = None
    """The digest of the last answer; None where the state changed after it."""
    vouches: bool = False
    """Whether the last batch vouched for the state. `Pace` writes it."""
    hinted: bool = False
    """Whether a different digest waits for its read."""
    idle_hints: int = 0
    """How many different digests in a row had reads that found the state as it was."""
    told_at: float = NEVER
    """When the last answer was asked for that told of operations; a new leader counts the last one's from its start."""

    def keep(self, digest: str, *, steady: bool) -> None:
        """The last answer. `steady`: it is the one before again, and vouches."""
        self.answer = digest
        if steady:
            self.idle_hints = 0

    def differs(self, digest: str, *, current: bool) -> bool:
        """Another answer than the one before; True where a read must follow at once.

        Not `current`: it may be older than the present status. Where earlier reads found nothing, the route words
        things its own way, and the CVM is left to its turn.
        """
        self.answer = digest if current else None
        if self.idle_hints >= IDLE_HINTS:
            return False
        self.hinted = True
        return True

    def read(self, *, same: bool, hint_served: bool) -> None:
        """A state was read and recorded; `same`: it equals the one before; `hint_served`: it was asked for after the
        last hint. An answer from before a change belongs to neither state.
        """
        if not same:
            self.answer, self.idle_hints = None, 0
        elif self.hinted and hint_served:
            self.idle_hints += 1
        self.hinted = self.hinted and not hint_served

    def forget(self) -> None:
        """A stream was open: the state may have changed since the last answer."""
        self.answer, self.vouches, self.hinted = None, False, False


@dataclass(slots=True, kw_only=True)
class Operations:
    """What the batch route and the list told, beside the state. The recorder writes it."""

    app_id: str | None = None
    name: str | None = None
    """App and name by the list."""
    asked_at: float = NEVER
    """When the last answer about operations was asked for that counted or is held."""
    held: Told | None = None
    """Told together with another status than the known one: it counts with the observation of that status."""

    def is_late(self, asked_at: float, seen: Seen) -> bool:
        """Whether an answer is older than the last one, or than the last observation."""
        return asked_at < max(self.asked_at, seen.made_at)

    def count(self, asked_at: float) -> None:
        """An answer counts at once."""
        self.asked_at, self.held = asked_at, None

    def hold(self, told: Told, asked_at: float) -> None:
        self.asked_at, self.held = asked_at, told

    def told_with(self, observation: Observation) -> Told | None:
        """What is told of operations as of this observation: by its state, or by an answer that waited for it."""
        if observation.sent_at < self.asked_at:
            return None
        return (Told.by(observation.state.fields) if observation.state else None) or self.held

    def observed(self, observation: Observation) -> None:
        """It is applied, with what waited for it."""
        if observation.sent_at >= self.asked_at:
            self.held = None


@dataclass(slots=True, kw_only=True)
class StreamState:
    """How streams of this CVM go. The watcher writes it."""

    is_open: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    not_found: bool = False
    """Whether upstream answered 404 to the last one; the reader takes it back when it has read a state."""
    refuses_deleted: bool = False
    """Whether upstream refused the target `deleted`."""


@dataclass(slots=True, kw_only=True)
class Demand:
    """Who wants the CVM. The survey writes it."""

    pinned: bool = False
    subscribers: int = 0


@dataclass(slots=True)
class Tracked:
    """One watched CVM. Only the leader's own tasks touch it, on one event loop."""

    cvm_id: str
    _: KW_ONLY
    seen: Seen = field(default_factory=Seen)
    reads: ReadSchedule = field(default_factory=ReadSchedule)
    absence: Absence = field(default_factory=Absence)
    batch: BatchAnswers = field(default_factory=BatchAnswers)
    operations: Operations = field(default_factory=Operations)
    stream: StreamState = field(default_factory=StreamState)
    demand: Demand = field(default_factory=Demand)

    @classmethod
    def loaded(cls, cvm_id: str, snapshot: Snapshot | None, now: float) -> Tracked:
        """As a new leader finds it: to be read at once."""
        state = None
        if snapshot is not None and snapshot.raw_state is not None:
            with contextlib.suppress(UnparsableStateError):
                state = parse_state(snapshot.raw_state)
        batch = BatchAnswers(told_at=now if snapshot is not None and snapshot.ready is not None else NEVER)
        seen = Seen(snapshot=snapshot, state=state, confirmed_at=now, changed_at=now)
        return cls(cvm_id, seen=seen, batch=batch)

    @property
    def status(self) -> str | None:
        return self.seen.snapshot.status if self.seen.snapshot else None

    def takes(self, told: Told, status: str | None, asked_at: float) -> bool:
        """Whether an answer about operations counts now: not one that is older than what is known.

        Where the answer has another `status` than the known one, or nobody vouches for that, the status is being read:
        what is told counts with it. A state that tells of operations itself counts before the others, since two
        routes that disagree would cause events for ever.
        """
        if self.operations.is_late(asked_at, self.seen):
            return False
        own = Told.by(self.seen.state.fields) if self.seen.state else None
        contradicts = own is not None and (own.operation is None) != (told.operation is None)
        if contradicts or status not in (None, self.status) or not self.fresh or self.absence.is_missing:
            self.operations.hold(told, asked_at)
            return False
        self.operations.count(asked_at)
        return True

    @property
    def fresh(self) -> bool:
        return self.seen.snapshot is None or self.seen.snapshot.fresh

    @property
    def gone(self) -> bool:
        snapshot = self.seen.snapshot
        return snapshot is not None and snapshot.status == DELETED
