"""Failing, disabled and recovered: one of each for each time it happens, whatever two dispatchers and callers do."""

from __future__ import annotations

import itertools
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED
from bridge.store.endpoint_notices import EndpointNotice, about_endpoint, given_up_detail
from bridge.store.lanes import Claim, Result, Verdict
from bridge.store.limits import LaneLimits
from tests.fakes import fake_backend
from tests.lanes import ATTEMPT, Bench, Writer, endpoint
from tests.unit.webhooks.bench_machine import BenchMachine

HOUR = 3_600.0
LIMITS = LaneLimits(failures=1_000, disable_after_ms=20 * 3_600_000, notices=1_000)
SILENCE = 10 * HOUR
"""Without attempts for so long, an endpoint may have been well in between."""

ABOUT = about_endpoint("https://host.test/path", "")


class Health(BenchMachine):
    """One endpoint with two lanes. The model knows when it has failed since, and what is owed."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Claim] = []
        self.expected: list[str] = []
        self.given_up = self.told_given_up = 0
        self.given_up_at = self.since = self.until = float("-inf")
        self.fails = self.told = self.owed = self.off = False
        self.tokens = 0

    @initialize()
    def begin(self) -> None:
        async def made() -> Bench:
            backend = fake_backend()
            bench = Bench(backend, await Writer.lead(backend), LIMITS)
            await bench.endpoints.create(endpoint())
            return bench

        self.bench = self.do(made())

    @rule(lane=st.sampled_from(["a", "b"]))
    def append(self, lane: str) -> None:
        self.do(self.bench.writer.append(lane))
        self.do(self.bench.fill())

    @rule()
    def claim(self) -> None:
        """Either dispatcher: whose lease has run out loses it to the other."""
        self.tokens += 1
        self.claims += self.do(self.bench.claim(token=f"t{self.tokens}")).claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), verdict=st.sampled_from(["delivered", "failed", "failed", "given_up", "gone", "postponed"]))
    def settle(self, data: st.DataObject, verdict: Verdict) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        is_success = verdict in ("delivered", "postponed")
        detail = given_up_detail(claim.event, claim.delivery_id, "why", 1) if verdict == "given_up" else ""
        result = Result(claim, verdict, 0, 0.5, ATTEMPT, about="" if is_success else ABOUT, given_up=detail)
        (code,) = self.do(self.bench.lanes.settle([result]))
        if code == "lost" or verdict == "postponed":
            return
        if verdict == "delivered":
            self._succeed()
        else:
            self._fail(verdict)

    def _succeed(self) -> None:
        self.fails = self.told = False
        if self.owed and not self.off:
            self._tell(ENDPOINT_RECOVERED)
            self.owed = False

    def _fail(self, verdict: str) -> None:
        now = self.clock.now
        if verdict == "given_up":
            self.given_up += 1
            if now - self.given_up_at >= HOUR:
                self._tell(DELIVERY_GIVEN_UP)
                self.given_up_at = now
        if not self.fails or self.until < now:
            self.fails, self.since = True, now
        self.until = now + SILENCE
        if verdict == "gone" or now - self.since >= LIMITS.disable_after_ms / 1000:
            self._disable()

    def _disable(self) -> None:
        if not self.off:
            self.off = self.owed = True
            self._tell(ENDPOINT_DISABLED)

    def _tell(self, kind: str) -> None:
        self.expected.append(kind)
        self.told_given_up = self.given_up

    @rule(enabled=st.booleans())
    def switch(self, enabled: bool) -> None:
        if enabled:
            self.do(self.bench.endpoints.enable("e"))
            if self.off:
                self.off = self.fails = self.told = False
        else:
            self.do(self.bench.endpoints.disable("e", about=ABOUT))
            self._disable()

    @rule()
    def sweep(self) -> None:
        """Of both dispatchers."""
        pending = self.do(self.bench.lanes.sweep(["e"])).pending
        self.do(self.bench.lanes.sweep(["e"]))
        fails = self.fails and self.since + HOUR <= self.clock.now <= self.until
        if pending and fails and not self.told and not self.off:
            self.told = self.owed = True
            self._tell(ENDPOINT_FAILING)

    @rule(seconds=st.sampled_from([1.0, 6.0, HOUR / 2, HOUR, 6 * HOUR]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def die(self) -> None:
        """Both dispatchers are killed: what they borrowed is never settled."""
        self.claims = []

    @invariant()
    def what_is_left_is_what_happened(self) -> None:
        if not hasattr(self, "bench"):
            return
        entries = self.do(self.bench.backend.client.xrange(self.bench.backend.keys.notices))
        found = [notice for id, fields in entries if (notice := EndpointNotice.of(id, fields, ""))]
        assert [each.type for each in found] == self.expected
        assert sum(each.data["given_up"] for each in found) == self.told_given_up
        kinds = [kind for kind in self.expected if kind != DELIVERY_GIVEN_UP]
        for kind, following in itertools.pairwise(kinds):
            assert (kind, following) not in [(ENDPOINT_RECOVERED,) * 2, (ENDPOINT_FAILING,) * 2]


TestHealth = Health.TestCase
TestHealth.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "8")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
