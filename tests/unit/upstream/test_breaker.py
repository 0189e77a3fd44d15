"""The breaker as a state machine against a plain history of answers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.upstream.breaker import DOWN_AFTER, FAILURES, PROBE_EVERY, SUBJECTS, Breaker


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 100.0
        self.row: list[tuple[float, str]] = []
        self.probes: list[float] = []

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(subject=st.sampled_from("abcd"))
    def fail(self, subject: str) -> None:
        self.row.append((self.now, subject))
        self.breaker.failed(self.now, subject)

    @rule()
    def answer(self) -> None:
        was_open = self.breaker.is_open
        self.row.clear()
        self.probes.clear()
        self.breaker.answered()
        assert self.breaker.recovered or not was_open

    @rule()
    def probe(self) -> None:
        if not self.breaker.is_open:
            return
        allowed = self.breaker.probe(self.now)
        if self.probes:
            assert allowed == (self.now >= self.probes[-1] + PROBE_EVERY)
        if allowed:
            self.probes.append(self.now)

    @invariant()
    def is_open_after_several_failures_of_several_cvms_in_a_row(self) -> None:
        several = len({subject for _, subject in self.row}) >= SUBJECTS
        assert self.breaker.is_open == (len(self.row) >= FAILURES and several)

    @invariant()
    def is_down_while_open_or_long_without_an_answer(self) -> None:
        lasting = len(self.row) >= 2 and self.now >= self.row[0][0] + DOWN_AFTER
        assert self.breaker.is_down(self.now) == (self.breaker.is_open or lasting)


TestBreaker = BreakerMachine.TestCase


def test_one_cvm_that_fails_for_ever_opens_nothing() -> None:
    breaker = Breaker()
    for second in range(1000):
        breaker.failed(float(second), "a")
    assert not breaker.is_open


def test_the_first_probe_comes_one_interval_after_the_last_failure_at_the_latest() -> None:
    breaker = Breaker()
    for subject in "abcde":
        breaker.failed(10.0, subject)
    assert not breaker.probe(10.0)
    assert breaker.probe(10.0 + PROBE_EVERY)
