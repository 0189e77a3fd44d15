"""What the tasks of one term share: the watch list, the slots, the budget and the way to the log."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.leadership import Term
from bridge.store.slots import Slots
from bridge.upstream.budget import Budget
from bridge.upstream.client import PhalaClient
from bridge.upstream.errors import UpstreamError
from bridge.upstream.planner import Limits, Turns
from bridge.upstream.recorder import Recorder
from bridge.upstream.slots import Slot
from bridge.upstream.tracked import Tracked


@dataclass(slots=True)
class LeaderContext:
    """One term's state, owned by the leader's tasks on one event loop; nothing of it outlives the term."""

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
    """Monotonic: no stream is opened before; whoever led until now must notice first."""
    watches: dict[str, Tracked] = field(default_factory=dict)
    batch_route: bool = True
    batch_again_at: float = 0.0
    turns: Turns = field(default_factory=Turns)

    def limits(self, now: float) -> Limits:
        """What the next plan must keep to."""
        streams = 0 if now < self.streams_from or self.budget.is_blocked else self.budget.streams
        requests = self.budget.refill(now)
        batch = self.batch_route
        if self.budget.is_blocked:
            requests, batch = int(requests > 0 and self._is_due(now) and self.budget.probe(now)), False
        return Limits(streams, self.settings.poll_interval, requests, batch)

    def may_ask(self) -> bool:
        """Whether a question that no plan allowed may be sent: always, or as the probe of a blocked account."""
        return not self.budget.is_blocked or self.budget.probe(self.clock.monotonic())

    def apply(self, error: UpstreamError, subject: str, *, ours: bool = True, other_streams: int | None = None) -> None:
        """Changes the budget as the table of `errors.py` says; the parameters are those of `Budget.apply`."""
        now = self.clock.monotonic()
        self.budget.apply(error, now, self.rng, subject, ours=ours, other_streams=other_streams)

    def _is_due(self, now: float) -> bool:
        """Whether a read waits at all: without one the probe is left to those who ask for references."""
        return any(
            not (each.reading or each.streaming) and max(each.read_due, each.read_backoff.until) <= now
            for each in self.watches.values()
        )

    def limits_of_route(self) -> Limits:
        """The limits as far as they say how often a CVM is read."""
        return Limits(self.budget.streams, self.settings.poll_interval, 0, self.batch_route)
