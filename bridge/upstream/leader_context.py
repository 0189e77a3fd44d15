"""What the tasks of one term share: the watches, the slots, the budget and the recorder."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.leadership import Term
from bridge.store.slots import Slots
from bridge.upstream.absence import Witnesses
from bridge.upstream.budget import Budget
from bridge.upstream.client import PhalaClient
from bridge.upstream.errors import AccountEffect, UpstreamError
from bridge.upstream.planner import PlanLimits, Turns
from bridge.upstream.recorder import Recorder
from bridge.upstream.slots import Slot
from bridge.upstream.tracked import Tracked


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
    turns: Turns = field(default_factory=Turns)
    witnesses: Witnesses = field(default_factory=Witnesses)
    fault: str = ""
    """What is wrong with upstream as a whole; such a leader is not ready."""

    def limits(self, now: float) -> PlanLimits:
        """What bounds the next plan."""
        streams = 0 if now < self.streams_from else self.budget.streams_now(now)
        requests = self.budget.refill(now)
        batch = self.batch_route
        if self.budget.is_blocked:
            requests, batch = int(requests > 0 and self._is_due(now) and self.budget.probe(now)), False
        return PlanLimits(streams=streams, poll_interval=self.settings.poll_interval, requests=requests, batch=batch)

    def may_ask(self) -> bool:
        """Whether a question that no plan allowed may be sent: always, or as the probe of a blocked account."""
        return not self.budget.is_blocked or self.budget.probe(self.clock.monotonic())

    def apply(self, error: UpstreamError, subject: str, *, ours: bool = True, other_streams: int | None = None) -> None:
        """Does what the table of `errors.py` demands of the account.

        `subject`: what was asked for. `ours`: it is watched or configured; a 403 for anything else does not concern
        the account. `other_streams`: a stream was asked for, and so many others of ours are open or being opened.
        """
        effect, budget, now = error.rule.account, self.budget, self.clock.monotonic()
        if effect is AccountEffect.ACCEPTED:
            budget.authorized()
        elif effect is AccountEffect.BLOCK or (effect is AccountEffect.SUSPECT and ours):
            budget.unauthorized(now, self.rng, subject, at_once=effect is AccountEffect.BLOCK)
        elif effect is AccountEffect.SLOW_DOWN and other_streams is not None:
            budget.too_many_streams(now, other_streams, error.retry_after)
        elif effect is AccountEffect.SLOW_DOWN:
            budget.too_many_requests(now, error.retry_after)

    def _is_due(self, now: float) -> bool:
        """Whether a read is due: if none is, the probe is left to look-ups."""
        return any(
            not (each.reads.running or each.stream.is_open) and max(each.reads.due, each.reads.backoff.until) <= now
            for each in self.watches.values()
        )

    def limits_of_route(self) -> PlanLimits:
        """The limits that determine how often a CVM is read."""
        interval = self.settings.poll_interval
        return PlanLimits(streams=self.budget.streams, poll_interval=interval, requests=0, batch=self.batch_route)
