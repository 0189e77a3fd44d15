"""What the tasks of one term share: the watches, the slots, the budget and the recorder."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.leadership import Term
from bridge.store.slots import Slots
from bridge.upstream.absence import Witnesses
from bridge.upstream.budget import QUICK_ANSWER, Budget
from bridge.upstream.client import PhalaClient, Reading
from bridge.upstream.errors import AccountEffect, ServerError, UnparsableError, UnreachableError, UpstreamError
from bridge.upstream.membership import Membership
from bridge.upstream.pace import Pace
from bridge.upstream.planner import PlanLimits
from bridge.upstream.recorder import Recorder
from bridge.upstream.replication import Replication
from bridge.upstream.slots import Slot
from bridge.upstream.tracked import Tracked

TURN_EVERY = 0.1
"""Seconds between two looks whether the budget allows one more request."""


@dataclass(slots=True, kw_only=True)
class LeaderContext:
    """One term's state, owned by the leader's tasks on one event loop; it ends with the term."""

    settings: Settings
    clock: Clock
    rng: random.Random
    client: PhalaClient
    term: Term
    recorder: Recorder
    redis_slots: Slots
    budget: Budget
    slots: list[Slot]
    streams_from: float
    """Monotonic: no stream is opened before; until then the previous leader may not have closed its streams."""
    watches: dict[str, Tracked] = field(default_factory=dict)
    batch_route: bool = True
    batch_again_at: float = 0.0
    pace: Pace
    replication: Replication = field(default_factory=Replication)
    witnesses: Witnesses = field(default_factory=Witnesses)
    membership: Membership = field(init=False)
    unresolved: int = 0
    """CVMs that the list has and that are to be watched, whose states were not read yet. Discovery writes it."""
    fault: str = ""
    """What is wrong with upstream as a whole; such a leader is not ready."""
    unmet: Mapping[str, str] = field(default_factory=dict)
    """References of `BRIDGE_CVMS` that name no CVM at the moment, and why. Discovery writes it."""

    def __post_init__(self) -> None:
        self.membership = Membership(self.settings.cvms)

    def limits(self, now: float) -> PlanLimits:
        """What bounds the next plan."""
        budget = self.budget
        if budget.breaker.recovered:
            self._recover()
        requests = budget.refill_for_plan(now)
        streams = 0 if now < self.streams_from or self.replication.is_missing(now) else budget.streams_now(now)
        reads, batch = requests, self.batch_route
        if budget.is_held:
            reads = int(requests > 0 and self._is_due(now) and budget.probe(now))
        if budget.is_blocked:
            requests, batch = reads, False
        interval = self.settings.poll_interval
        return PlanLimits(streams=streams, poll_interval=interval, requests=requests, reads=reads, batch=batch)

    def _recover(self) -> None:
        """Upstream answers again: what failed because it was down is asked for at once."""
        self.budget.breaker.recovered = False
        for tracked in self.watches.values():
            if tracked.seen.failure == UnreachableError().reason:
                tracked.reads.backoff.heal()
                tracked.stream.backoff.heal()

    def is_down(self, now: float) -> bool:
        """Whether upstream is unreachable. Streams that go on show that only some of it fails."""
        recent = now - 2.5 * self.settings.stream_interval
        return self.budget.breaker.is_down(now) and not any(
            each.stream.is_open and each.seen.made_at >= recent for each in self.watches.values()
        )

    async def turn(self, patience: float = math.inf) -> bool:
        """Waits until the budget allows one more request, and takes it. False: not within `patience` seconds.

        While the budget is held, only as its probe.
        """
        until = self.clock.monotonic() + patience
        self.budget.waiting += 1
        try:
            while not self.budget.take(now := self.clock.monotonic()):
                if max(now, self.budget.paused_until) >= until:
                    return False
                await self.clock.sleep(TURN_EVERY)
            return True
        finally:
            self.budget.waiting -= 1

    def apply(self, error: UpstreamError, subject: str, *, ours: bool = True, other_streams: int | None = None) -> None:
        """Does what the table of `errors.py` demands of the account.

        `subject`: what was asked for. `ours`: it is watched or configured; a 403 for anything else does not concern
        the account. `other_streams`: a stream was asked for, and so many others of ours are open or being opened.
        """
        effect, budget, now = error.rule.account, self.budget, self.clock.monotonic()
        if isinstance(error, UnreachableError | ServerError):
            budget.strained(now)
        if isinstance(error, UnreachableError):
            budget.breaker.failed(now, subject)
        elif error.status is not None and not isinstance(error, UnparsableError):
            budget.breaker.answered()
        if effect is AccountEffect.ACCEPTED:
            budget.authorized()
        elif effect is AccountEffect.BLOCK or (effect is AccountEffect.SUSPECT and ours):
            budget.unauthorized(now, self.rng, subject, at_once=effect is AccountEffect.BLOCK)
        elif effect is AccountEffect.SLOW_DOWN and other_streams is not None:
            budget.too_many_streams(now, other_streams, error.retry_after)
        elif effect is AccountEffect.SLOW_DOWN:
            budget.too_many_requests(now, error.retry_after)

    def answered(self, reading: Reading) -> None:
        """Upstream answered with a state."""
        self.budget.authorized()
        if reading.made_at > reading.sent_at + QUICK_ANSWER:
            self.budget.strained(reading.made_at)

    def _is_due(self, now: float) -> bool:
        """Whether a read is due: if none is, the probe is left to look-ups."""
        return any(
            not (each.reads.running or each.stream.is_open) and max(each.reads.due, each.reads.backoff.until) <= now
            for each in self.watches.values()
        )
