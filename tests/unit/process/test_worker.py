from __future__ import annotations

from bridge.process.worker import ENDS_WITHIN, HANGS_AFTER, KILL_SECONDS, STARTS_WITHIN, Patience


def asked(count: int, *, started: bool = True) -> Patience:
    patience = Patience()
    if started:
        patience.ask()
        patience.answer()
    for _ in range(count):
        patience.ask()
    return patience


def test_a_worker_hangs_after_so_many_questions_and_may_start_slowly() -> None:
    assert not asked(HANGS_AFTER - 1).is_over(None)
    assert asked(HANGS_AFTER).is_over(None)
    assert not asked(STARTS_WITHIN - 1, started=False).is_over(None)
    assert asked(STARTS_WITHIN, started=False).is_over(None)


def test_an_answer_makes_up_for_all_questions_before() -> None:
    patience = asked(HANGS_AFTER - 1)
    patience.answer()
    patience.ask()
    assert not patience.is_over(None)


def test_a_stop_waits_for_the_drain_and_then_only_for_a_worker_that_answers() -> None:
    assert not asked(STARTS_WITHIN).is_over(-0.1)
    assert asked(ENDS_WITHIN).is_over(0.0)
    assert not asked(ENDS_WITHIN - 1).is_over(0.0)
    assert asked(0).is_over(KILL_SECONDS)
