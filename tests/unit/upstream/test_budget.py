from __future__ import annotations

import random

from bridge.upstream.budget import PROBE_EVERY, REQUESTS_PER_SECOND, SHORTEST_PAUSE, SHRUNK_FOR, Budget

RNG = random.Random(1)


def test_however_often_it_was_too_much_requests_go_on_slowly() -> None:
    budget = Budget(5)
    for second in range(10):
        budget.too_many_requests(float(second), 1.0)
    sent = 0
    for second in range(11, 51):
        allowed = budget.refill(float(second))
        budget.spend(allowed)
        sent += allowed
    assert 15 <= sent <= 22


def test_the_refusals_of_one_burst_halve_the_pace_once() -> None:
    budget = Budget(5)
    for _ in range(12):
        budget.too_many_requests(0.0, 0.0)
    assert budget.refill(SHORTEST_PAUSE - 0.1) == 0
    budget.spend(budget.refill(SHORTEST_PAUSE))
    assert budget.refill(SHORTEST_PAUSE + 1.0) == REQUESTS_PER_SECOND / 2


def test_the_pace_comes_back() -> None:
    budget = Budget(5)
    budget.too_many_requests(0.0, None)
    assert budget.refill(1.0) == 0
    budget.refill(2.0 + SHRUNK_FOR)
    assert budget.refill(4.0 + SHRUNK_FOR) == 20


def test_a_sixth_stream_refused_shrinks_for_a_while_and_grows_one_by_one() -> None:
    budget = Budget(5)
    budget.too_many_streams(0.0, 3, None)
    budget.refill(SHRUNK_FOR - 1)
    assert (budget.streams, budget.streams_reason) == (3, "rate_limited")
    budget.refill(SHRUNK_FOR)
    assert budget.streams == 4
    budget.refill(2 * SHRUNK_FOR)
    assert (budget.streams, budget.streams_reason) == (5, None)


def test_one_forbidden_cvm_blocks_nobody_three_in_a_row_do() -> None:
    budget = Budget(5)
    for name in ("a", "a", "b"):
        budget.unauthorized(0.0, RNG, name, at_once=False)
    assert not budget.is_blocked
    budget.unauthorized(0.0, RNG, "c", at_once=False)
    assert budget.trouble(0.0) == "unauthorized"
    budget.authorized()
    assert budget.trouble(0.0) is None


def test_a_blocked_account_is_asked_one_question_at_a_time() -> None:
    budget = Budget(5)
    budget.unauthorized(0.0, RNG, "a", at_once=True)
    until = budget.blocked.until
    budget.unauthorized(0.1, RNG, "b", at_once=True)
    assert budget.blocked.until == until
    assert not budget.probe(until - 0.1)
    assert budget.probe(until)
    assert not budget.probe(until + PROBE_EVERY - 0.1)
    assert budget.probe(until + PROBE_EVERY)
