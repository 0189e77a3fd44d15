"""Lanes under anything that callers, dispatchers, their deaths and time can do to them: the scripts against a model."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from bridge.events import entry_key
from bridge.store.deliveries import DELIVERY_STATUSES, Attempt, Deliveries
from bridge.store.errors import AlreadyPendingError, BeingAttemptedError
from bridge.store.lanes import Checkpoint, Claim, Result, Share, Verdict
from bridge.store.limits import LaneLimits
from bridge.webhooks.enqueuer import portion
from tests.fakes import fake_backend
from tests.lanes import Bench, Writer, endpoint
from tests.unit.webhooks.bench_machine import BenchMachine
from tests.unit.webhooks.lanes_model import Model

LIMITS = LaneLimits(
    concurrency=2,
    failures=2,
    probe_first_ms=1_000,
    probe_most_ms=4_000,
    attempts=3,
    finished=6,
    lost=4,
    pending=6,
    disable_after_ms=60_000,
)
LEASE = 5.0
NAMES = st.sampled_from(["e1", "e2", "e3"])
CVMS = st.sampled_from(["a", "b", "c"])
ATTEMPT = Attempt("t", 1, 500, "e", "").to_json()


class Lanes(BenchMachine):
    """Order per lane, one borrower at a time, caps, exactly once from the log, nothing forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(LIMITS.concurrency)
        self.claims: list[Claim] = []
        self.tokens = 0
        self.log: list[tuple[str, str]] = []
        self.stale: Checkpoint | None = None
        self.born_at: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        async def made() -> Bench:
            backend = fake_backend()
            return Bench(backend, await Writer.lead(backend), LIMITS)

        self.bench = self.do(made())
        for name in ("e1", "e2"):
            self.create(name, True)
        for cvm in ("a", "b", "c"):
            self.append(cvm, 1)
        self.fill(100, 100)

    @rule(cvm=CVMS, count=st.integers(1, 3))
    def append(self, cvm: str, count: int) -> None:
        for _ in range(count):
            self.log.append((self.do(self.bench.writer.append(cvm)), cvm))

    @rule(name=NAMES, enabled=st.booleans())
    def create(self, name: str, enabled: bool) -> None:
        if name in self.model.endpoints:
            return
        self.do(self.bench.endpoints.create(endpoint(name, enabled=enabled)))
        self.model.endpoints[name] = enabled
        self.born_at[name] = len(self.log)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        assert self.do(self.bench.endpoints.remove(name)) is (name in self.model.endpoints)
        if name in self.model.endpoints:
            self.model.remove(name)
            self.claims = [claim for claim in self.claims if claim.endpoint_id != name]

    @rule(name=NAMES, enabled=st.booleans())
    def switch(self, name: str, enabled: bool) -> None:
        if name in self.model.endpoints:
            endpoints = self.bench.endpoints
            self.do(endpoints.enable(name) if enabled else endpoints.disable(name))
            self.model.switch(name, enabled)

    @rule(most=st.integers(1, 5), batch=st.integers(1, 4))
    def fill(self, most: int, batch: int) -> None:
        """A part of what the log has, sometimes only a part of one event's endpoints."""
        self.do(self._fill(most, batch))

    async def _fill(self, most: int, batch: int) -> None:
        lanes, checkpoint = self.bench.lanes, await self.bench.checkpoint()
        stale, self.stale = self.stale, checkpoint
        if stale is not None and replace(stale, last_id=checkpoint.last_id) != checkpoint:
            assert await lanes.fill(stale, [], checkpoint.last_id, "") is None, (
                "a checkpoint that has moved was accepted"
            )
        entries, last = await lanes.read(checkpoint.id, batch)
        if last is None or not self.model.endpoints:
            return
        numbers = {event: number for number, (event, _) in enumerate(self.log)}
        matched = [
            (
                each,
                sorted(
                    e
                    for e, born in self.born_at.items()
                    if e in self.model.endpoints and born <= numbers[each.event.id]
                ),
            )
            for each in entries
        ]
        shares, to_id, to_partial = portion(checkpoint, matched, last, most)
        busy = {name: await self._busy(name) for name in self.model.endpoints}
        filled = await lanes.fill(checkpoint, shares, to_id, to_partial)
        assert filled is not None
        assert await lanes.fill(checkpoint, shares, to_id, to_partial) is None or (to_id, to_partial) == (
            checkpoint.id,
            checkpoint.partial,
        )
        await self._queued(shares, busy)

    async def _queued(self, shares: list[Share], busy: dict[str, set[str]]) -> None:
        for share in shares:
            for name in share.endpoints:
                self.model.queue(name, share.entry.event.cvm_id, share.entry.event.id)
        for name in self.model.endpoints:
            self.model.drop_beyond(name, LIMITS.pending, busy[name])

    async def _busy(self, name: str) -> set[str]:
        return set(await self.bench.backend.client.zrange(f"{{bridge}}:webhooks:busy:{name}", 0, -1))

    @rule(most=st.integers(1, 5))
    def claim(self, most: int) -> None:
        self.do(self._claim(most))

    async def _claim(self, most: int) -> list[Claim]:
        opened = {name: await self._open(name) for name in self.model.endpoints}
        self.tokens += 1
        found = await self.bench.claim(most, f"t{self.tokens}", LEASE)
        assert len(found.claims) <= most
        for claim in found.claims:
            self.model.borrow(claim, self.clock.now, LEASE)
        for name, count in Counter(claim.endpoint_id for claim in found.claims).items():
            live = [key for key, each in self.model.borrowed.items() if key[0] == name and each.until > self.clock.now]
            assert not opened[name] or len(live) == count == 1, "an open breaker lets one lane through"
        self.claims += found.claims
        return list(found.claims)

    async def _open(self, name: str) -> bool:
        return bool(await self.bench.backend.client.hget(f"{{bridge}}:webhooks:health:{name}", "open"))

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["delivered", "failed", "failed", "given_up", "gone", "postponed"]),
        wait=st.floats(0, 30),
        hold=st.sampled_from([0.0, 0.0, 10.0, 60.0]),
    )
    def settle(self, data: st.DataObject, verdict: Verdict, wait: float, hold: float) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        self.do(self._settle(claim, verdict, wait, hold))

    async def _settle(self, claim: Claim, verdict: Verdict, wait: float, hold: float = 0.0) -> None:
        known = self.model.borrowed.get((claim.endpoint_id, claim.lane))
        (code,) = await self.bench.lanes.settle([Result(claim, verdict, wait, 0.5, ATTEMPT, hold)])
        if known is None or known.claim is not claim:
            assert code == "lost"
        elif code == "lost":
            assert known.until <= self.clock.now, "a lease that holds was not honoured"
        else:
            self.model.settle(claim, verdict)
            if verdict not in ("delivered", "postponed"):
                self.model.hold(claim.endpoint_id, self.clock.now + hold)
            if code == "disabled":
                self.model.endpoints[claim.endpoint_id] = False

    @precondition(lambda self: self.claims)
    @rule()
    def extend(self) -> None:
        kept = self.do(self.bench.lanes.extend(self.claims, LEASE))
        for claim, held in zip(self.claims, kept, strict=True):
            known = self.model.borrowed.get((claim.endpoint_id, claim.lane))
            own = known is not None and known.claim is claim
            assert own or not held
            if own and known is not None:
                assert held or known.until <= self.clock.now
                known.until = self.clock.now + LEASE if held else known.until

    @rule()
    def die(self) -> None:
        """A dispatcher is killed: the lanes that it borrowed are never settled."""
        self.claims = []

    @rule(most=st.integers(1, 5))
    def outlive(self, most: int) -> None:
        """The leases run out, and another dispatcher claims."""
        self.clock.now += LEASE
        self.do(self._claim(most))

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=NAMES, status=st.sampled_from(["delivered", "given_up", "skipped"]))
    def retry(self, name: str, status: str) -> None:
        if self.model.endpoints.get(name):
            self.do(self._retry(name, status))

    async def _retry(self, name: str, status: str) -> None:
        found = await self.bench.backend.client.zrange(f"{{bridge}}:webhooks:{status}:{name}", 0, 0)
        if found and len(self.model.age[name]) < LIMITS.pending:
            delivery = await Deliveries(self.bench.backend, LIMITS).retry(found[0])
            assert self.model.finished.pop(delivery.id) == status
            self.model.wait(name, delivery.event.cvm_id, delivery.id)

    @rule(name=NAMES, number=st.integers(0, 4), what=st.sampled_from(["cancel", "hasten"]))
    def cancel_or_hasten(self, name: str, number: int, what: str) -> None:
        if number < len(self.model.age[name]) and (what == "cancel" or self.model.endpoints[name]):
            self.do(self._cancel_or_hasten(name, self.model.age[name][number], what))

    async def _cancel_or_hasten(self, name: str, delivery: str, what: str) -> None:
        deliveries = Deliveries(self.bench.backend, LIMITS)
        allowed = getattr(self.model, what)(name, delivery, self.clock.now)
        try:
            await getattr(deliveries, "retry" if what == "hasten" else what)(delivery)
            assert allowed
        except (BeingAttemptedError, AlreadyPendingError):
            assert not allowed

    @rule(name=NAMES, whole=st.booleans())
    def recover(self, name: str, whole: bool) -> None:
        if self.model.endpoints.get(name):
            self.do(self._recover(name, whole))

    async def _recover(self, name: str, whole: bool) -> None:
        """What is not yet filled is left to the enqueuer: it must not overtake what lies before it."""
        client, expected = self.bench.backend.client, []
        filled = entry_key((await self.bench.checkpoint()).id)
        for event, cvm in self.log[self.born_at[name] :]:
            delivery = f"{name}-{event}"
            status = await client.hget(f"{{bridge}}:webhooks:delivery:{delivery}", "s")
            lost = status in ("given_up", "skipped") or (status is None and delivery not in self.model.sent)
            if status != "pending" and (lost or whole) and entry_key(event) <= filled:
                expected.append((cvm, delivery))
        room = max(LIMITS.pending - len(self.model.age[name]), 0)
        answer = await Deliveries(self.bench.backend, LIMITS).recover(name, 0, all=whole)
        assert answer.queued == min(room, len(expected))
        for cvm, delivery in expected[:room]:
            self.model.finished.pop(delivery, None)
            self.model.wait(name, cvm, delivery)

    @rule()
    def sweep(self) -> None:
        if self.model.endpoints:
            repaired = self.do(self.bench.lanes.sweep(self.model.endpoints)).repaired
            assert repaired == 0

    @invariant()
    def every_lane_is_where_it_must_be(self) -> None:
        self.do(self._check())

    async def _check(self) -> None:
        for name, enabled in self.model.endpoints.items():
            await self._check_endpoint(name, enabled)

    async def _check_endpoint(self, name: str, enabled: bool) -> None:
        client, root = self.bench.backend.client, "{bridge}:webhooks"
        lanes = self.model.lanes_of(name)
        due, busy = set(await client.zrange(f"{root}:due:{name}", 0, -1)), await self._busy(name)
        assert due | busy == set(lanes)
        assert not due & busy
        assert set(await client.hkeys(f"{root}:claims:{name}")) == busy
        for lane, deliveries in lanes.items():
            assert await client.lrange(f"{root}:lane:{name}:{lane}", 0, -1) == deliveries
        assert await client.zrange(f"{root}:pending:{name}", 0, -1) == self.model.age[name]
        assert len(self.model.age[name]) <= LIMITS.pending
        assert self._moment(await client.zscore(f"{root}:due", name)) == (await self._next(name) if enabled else None)
        lost = await client.zcard(f"{root}:given_up:{name}") + await client.zcard(f"{root}:skipped:{name}")
        assert lost <= LIMITS.lost
        assert lost + await client.zcard(f"{root}:delivered:{name}") <= LIMITS.finished

    async def _next(self, name: str) -> float | None:
        """When the next lane of this endpoint can be had, from what the sets say."""
        client, root = self.bench.backend.client, "{bridge}:webhooks"
        due = await client.zrange(f"{root}:due:{name}", 0, 0, withscores=True)
        busy = await client.zrange(f"{root}:busy:{name}", 0, -1, withscores=True)
        is_open, probe_at = await client.hmget(f"{root}:health:{name}", "open", "probe_at")
        held_until = int(self.model.held_until.get(name, 0) * 1000)
        moments = [score for _, score in busy]
        if due and len(busy) < (1 if is_open else LIMITS.concurrency):
            first = max(due[0][1], float(probe_at or 0) if is_open else 0)
            first = held_until if held_until > max(first, float(self.clock.now * 1000)) else first
            listed = await client.zscore(f"{root}:due", name)
            moments.append(first or listed)
        return self._moment(min(moments, default=None))

    def _moment(self, at: float | None) -> float | None:
        """All that is past can be had now."""
        return None if at is None else max(at, self.clock.now * 1000)

    async def finish(self) -> None:
        """With receivers that answer well everything that waits is delivered, and nothing is left behind."""
        for name in self.model.endpoints:
            await self.bench.endpoints.enable(name)
            self.model.switch(name, True)
        for _ in range(400):
            await self._fill(5, 4)
            claims = await self._claim(5)
            for claim in claims:
                await self._settle(claim, "delivered", 0)
            checkpoint = await self.bench.checkpoint()
            if not claims and (checkpoint.id == checkpoint.last_id or not self.model.endpoints):
                if not any(self.model.age.values()):
                    break
                self.clock.now += 5
        assert not any(self.model.age.values()), "something was forgotten"
        await self._check()
        await self._check_references()

    async def _check_references(self) -> None:
        """An event is kept exactly as long as a delivery needs it."""
        client, root, wanted = self.bench.backend.client, "{bridge}:webhooks", Counter[str]()
        for name in self.model.endpoints:
            for status in DELIVERY_STATUSES:
                for delivery in await client.zrange(f"{root}:{status}:{name}", 0, -1):
                    wanted[await client.hget(f"{root}:delivery:{delivery}", "v")] += 1
        kept = [key async for key in client.scan_iter(f"{root}:event:*")]
        assert {key.removeprefix(f"{root}:event:"): int(await client.hget(key, "refs")) for key in kept} == wanted
        deliveries = [key async for key in client.scan_iter(f"{root}:delivery:*")]
        assert len(deliveries) == wanted.total()


TestLanes = Lanes.TestCase
TestLanes.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "5")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
