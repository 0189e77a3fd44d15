"""What must hold of lanes, kept beside the real scripts: who waits in which order, who borrowed what until when."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from bridge.store.lanes import Claim

Key = tuple[str, str]


@dataclass
class Borrowed:
    claim: Claim
    until: float


@dataclass
class Model:
    """`waiting`: each lane's deliveries in the order in which they must be attempted."""

    concurrency: int
    waiting: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    borrowed: dict[Key, Borrowed] = field(default_factory=dict)
    age: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Each endpoint's waiting deliveries, the oldest first."""
    finished: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    """Deliveries that were ever delivered, also those that the history has no more."""
    endpoints: dict[str, bool] = field(default_factory=dict)
    held_until: dict[str, float] = field(default_factory=dict)
    """When each endpoint may be attempted again that asked to get nothing."""

    def queue(self, endpoint: str, lane: str, event: str) -> None:
        """An event that the log has and the endpoint wants."""
        delivery = f"{endpoint}-{event}"
        assert delivery not in self.finished, "queued twice"
        assert delivery not in self.age[endpoint], "queued twice"
        if self.endpoints[endpoint]:
            self.wait(endpoint, lane, delivery)
        else:
            self.finished[delivery] = "skipped"

    def wait(self, endpoint: str, lane: str, delivery: str) -> None:
        self.waiting[endpoint, lane].append(delivery)
        self.age[endpoint].append(delivery)

    def borrow(self, claim: Claim, now: float, lease: float) -> None:
        """A lane was lent: only its head, only to one at a time, only of an endpoint that is on."""
        key = claim.endpoint_id, claim.lane
        assert self.endpoints.get(claim.endpoint_id) is True, "a claim of an endpoint that is off"
        assert self.held_until.get(claim.endpoint_id, now) <= now, "a claim before the receiver's time"
        assert self.waiting[key][:1] == [claim.delivery_id], "not the head of its lane"
        assert key not in self.borrowed or self.borrowed[key].until <= now, "lent twice"
        self.borrowed[key] = Borrowed(claim, now + lease)
        live = [each for each in self.borrowed.items() if each[0][0] == claim.endpoint_id and each[1].until > now]
        assert len(live) <= self.concurrency, "more at once than allowed"

    def hold(self, endpoint: str, until: float) -> None:
        """The receiver asked to get nothing until then; a longer time that it asked for before stays."""
        self.held_until[endpoint] = max(self.held_until.get(endpoint, 0.0), until)

    def switch(self, endpoint: str, enabled: bool) -> None:
        if enabled and not self.endpoints[endpoint]:
            self.held_until.pop(endpoint, None)
        self.endpoints[endpoint] = enabled

    def holds(self, claim: Claim) -> bool:
        known = self.borrowed.get((claim.endpoint_id, claim.lane))
        return known is not None and known.claim is claim

    def settle(self, claim: Claim, verdict: str) -> None:
        del self.borrowed[claim.endpoint_id, claim.lane]
        if verdict == "delivered":
            self.sent.add(claim.delivery_id)
        if verdict in ("delivered", "given_up"):
            assert self.waiting[claim.endpoint_id, claim.lane][0] == claim.delivery_id
            self._finish(claim.endpoint_id, claim.lane, claim.delivery_id, verdict)
        elif verdict == "gone":  # "failed" and "postponed" leave it at the head
            self.endpoints[claim.endpoint_id] = False

    def drop_beyond(self, endpoint: str, most: int, busy: set[str]) -> int:
        """The oldest whose lane is not attempted just now are skipped. `busy`: lanes that are lent."""
        dropped = 0
        while len(self.age[endpoint]) > most:
            lanes = {each: key[1] for key, lane in self.waiting.items() if key[0] == endpoint for each in lane}
            heads = {lane[0]: key[1] for key, lane in self.waiting.items() if key[0] == endpoint and lane}
            victim = next(each for each in self.age[endpoint] if heads.get(each) not in busy)
            self._finish(endpoint, lanes[victim], victim, "skipped")
            dropped += 1
        return dropped

    def cancel(self, endpoint: str, delivery: str, now: float) -> bool:
        """Whether a caller may take it out: not while it is lent."""
        lane, at = self._place(delivery)
        if at == 0 and not self._end_lease((endpoint, lane), now):
            return False
        self._finish(endpoint, lane, delivery, "skipped")
        return True

    def hasten(self, endpoint: str, delivery: str, now: float) -> bool:
        """Whether its wait ends: only at the head of its lane, and not while it is lent."""
        lane, at = self._place(delivery)
        return at == 0 and self._end_lease((endpoint, lane), now)

    def _place(self, delivery: str) -> tuple[str, int]:
        return next((key[1], lane.index(delivery)) for key, lane in self.waiting.items() if delivery in lane)

    def _end_lease(self, key: Key, now: float) -> bool:
        """Whether nobody has it: a lease that ran out ends."""
        if key in self.borrowed and self.borrowed[key].until > now:
            return False
        self.borrowed.pop(key, None)
        return True

    def _finish(self, endpoint: str, lane: str, delivery: str, status: str) -> None:
        self.waiting[endpoint, lane].remove(delivery)
        self.age[endpoint].remove(delivery)
        self.finished[delivery] = status

    def remove(self, endpoint: str) -> None:
        del self.endpoints[endpoint]
        self.age.pop(endpoint, None)
        self.held_until.pop(endpoint, None)
        self.sent = {each for each in self.sent if not each.startswith(f"{endpoint}-")}
        for key in [key for key in self.waiting if key[0] == endpoint]:
            del self.waiting[key]
        for key in [key for key in self.borrowed if key[0] == endpoint]:
            del self.borrowed[key]
        self.finished = {each: how for each, how in self.finished.items() if not each.startswith(f"{endpoint}-")}

    def lanes_of(self, endpoint: str) -> dict[str, list[str]]:
        return {key[1]: lane for key, lane in self.waiting.items() if key[0] == endpoint and lane}
