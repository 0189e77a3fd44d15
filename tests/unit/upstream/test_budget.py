from __future__ import annotations

import random

from bridge.upstream.budget import PROBE_EVERY, REQUESTS_PER_SECOND, SHORTEST_PAUSE, SHRUNK_FOR, Budget

RNG = random.Random(1)


def test_after_any_number_of_429s_requests_go_on_slowly() -> None:
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


def test_a_refusal_soon_after_a_stream_was_closed_costs_an_interval_and_another_one_a_minute() -> None:
    budget = Budget(5, notice=6.0)
    budget.stream_closed(100.0)
    for left in (4, 3, 3):
        budget.too_many_streams(100.5, left, None)  # one burst
    assert (budget.streams_now(106.0), budget.streams_now(106.5)) == (3, 5)
    budget.too_many_streams(106.6, 4, None)
    budget.refill(106.6 + SHRUNK_FOR - 1)
    assert budget.streams_now(106.6 + SHRUNK_FOR - 1) == 4
    budget.refill(106.6 + SHRUNK_FOR)
    assert budget.streams_now(106.6 + SHRUNK_FOR) == 5


def test_what_others_take_is_not_taken_back_when_upstream_has_noticed_a_close() -> None:
    budget = Budget(5, notice=6.0)
    budget.too_many_streams(100.0, 4, None)
    budget.stream_closed(110.0)
    budget.too_many_streams(110.5, 3, 20.0)
    budget.refill(131.0)
    assert (budget.streams_now(130.0), budget.streams_now(131.0)) == (3, 4)
    budget.refill(100.0 + SHRUNK_FOR)
    assert budget.streams_now(100.0 + SHRUNK_FOR) == 5


def test_a_stream_that_was_closed_long_ago_explains_no_refusal() -> None:
    budget = Budget(5, notice=6.0)
    budget.stream_closed(100.0)
    budget.too_many_streams(112.0, 4, None)
    assert budget.streams_now(130.0) == 4


def test_one_forbidden_cvm_does_not_block_the_account_and_three_in_a_row_do() -> None:
    budget = Budget(5)
    for name in ("a", "a", "b"):
        budget.unauthorized(0.0, RNG, name, at_once=False)
    assert not budget.is_blocked
    budget.unauthorized(0.0, RNG, "c", at_once=False)
    assert budget.stale_reason(0.0) == "unauthorized"
    budget.authorized()
    assert budget.stale_reason(0.0) is None


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


def test_those_who_wait_leave_a_plan_its_share_and_together_they_keep_to_the_rate() -> None:
    budget = Budget(most_streams=5, tokens=1.0, most_pace=REQUESTS_PER_SECOND)
    budget.waiting = 200
    planned = taken = 0
    for tick in range(1, 1001):
        now = tick / 20
        taken += budget.take(now)
        if tick % 2 == 0:
            allowed = budget.refill_for_plan(now)
            budget.spend(allowed)
            planned += allowed
    assert taken > planned > taken / 2
    assert planned + taken <= REQUESTS_PER_SECOND * 50 + 2


def test_a_plan_has_no_request_in_advance_while_upstream_asked_for_a_pause() -> None:
    budget = Budget(most_streams=5, tokens=1.0)
    budget.waiting = 1
    assert budget.take(0.0)
    budget.paused_until = 60.0
    assert budget.refill_for_plan(0.01) == 0


def sent_in(budget: Budget, begin: int, end: int, wanted: int = 1000) -> int:
    """How many requests of those that are wanted in each second are sent from one second to the other."""
    sent = 0
    for tick in range(begin * 10, end * 10):
        allowed = min(budget.refill(tick / 10), wanted // 10)
        if allowed < wanted // 10:
            budget.run_short()
        budget.spend(allowed)
        sent += allowed
    return sent


def test_the_pace_grows_while_more_is_wanted_and_no_burst_is_larger() -> None:
    budget = Budget(5)
    assert sent_in(budget, 0, 30) >= 1000
    sent_in(budget, 30, 90)
    assert 990 <= sent_in(budget, 90, 100) <= 1000
    assert budget.refill(120.0) == REQUESTS_PER_SECOND
    assert sent_in(budget, 121, 181, wanted=10) == 600
    assert budget.rate == REQUESTS_PER_SECOND


def test_a_429_halves_a_pace_that_has_grown_and_it_grows_again_after_a_minute() -> None:
    budget = Budget(5)
    sent_in(budget, 0, 40)
    grown = budget.rate
    budget.too_many_requests(40.0, 1.0)
    sent_in(budget, 40, 100)
    assert budget.rate == grown / 2
    sent_in(budget, 100, 105)
    assert grown / 2 < budget.rate < grown


def test_the_pace_stands_while_upstream_is_strained_and_where_it_is_fixed() -> None:
    budget = Budget(5)
    for second in range(0, 40, 10):
        budget.strained(second)
        sent_in(budget, second, second + 10)
    assert budget.rate == REQUESTS_PER_SECOND
    assert sent_in(Budget(5, pace=4.0, most_pace=4.0), 0, 100) <= 4 * 101


def test_an_upstream_that_comes_back_is_asked_at_the_first_pace() -> None:
    budget = Budget(5)
    sent_in(budget, 0, 40)
    budget.unauthorized(40.0, RNG, "a", at_once=True)
    sent_in(budget, 40, 90)
    budget.authorized()
    assert budget.rate == REQUESTS_PER_SECOND
