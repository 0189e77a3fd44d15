"""Turns: reads are spread over a round, and a round does not grow by what each read is late."""

from __future__ import annotations

import itertools
import random

import pytest

from benchmarks.pace import Row, measure
from bridge.upstream.pace import Turns


def test_a_burst_of_reads_is_spread_over_the_round_from_then_on() -> None:
    turns, whole = Turns(), 500.0
    due = [turns.next(second / 20, second / 20, 1000, whole) for second in range(1000)]
    assert all(0.4 <= later - sooner <= 0.6 for sooner, later in itertools.pairwise(due))
    again = [turns.next(moment, moment, 1000, whole) for moment in due]
    assert all(50 <= later - sooner <= 500 for sooner, later in zip(due, again, strict=True))
    assert all(0.4 <= later - sooner <= 0.6 for sooner, later in itertools.pairwise(again))


def test_the_reads_of_a_short_round_are_spread_too_and_none_comes_later_than_a_round() -> None:
    turns = Turns()
    due = [turns.next(0.0, 0.0, 20, 10.0) for _ in range(20)]
    for _ in range(5):
        assert len({int(moment) for moment in due}) >= 9
        after = [turns.next(moment, moment, 20, 10.0) for moment in due]
        assert all(later - sooner <= 10.0 for sooner, later in zip(due, after, strict=True))
        due = sorted(after)


def test_a_round_stays_as_long_as_it_should_be_however_late_its_reads_are() -> None:
    turns, rng = Turns(), random.Random(1)
    due = [turns.next(0.0, 0.0, 5, 0.5) for _ in range(5)]
    began = due[0]
    for _ in range(100):
        due = [turns.next(moment + rng.uniform(0.0, 0.2), moment, 5, 0.5) for moment in due]
    assert due[0] - began <= 100 * 0.5


@pytest.mark.parametrize(
    "row", [Row(10, 0.5), Row(10, 0.5, batch=False), Row(60, 10), Row(60, 10, batch=False)], ids=str
)
def test_after_a_restart_on_a_busy_machine_every_cvm_is_looked_at_once_an_interval(row: Row) -> None:
    first, mean, longest = measure(row)
    assert first <= 1.1
    assert mean <= 1.05
    assert longest <= 1.1
