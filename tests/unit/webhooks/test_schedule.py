"""What an outcome means, and how long the next attempt waits."""

from __future__ import annotations

import random
import statistics

import pytest

from bridge.config import Settings
from bridge.webhooks.schedule import Schedule
from tests.lanes import Answer

WAITS = (5.0, 300.0, 1800.0)


class FixedRandom(random.Random):
    """Always the same number."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def random(self) -> float:
        return self.share


def schedule(share: float = 0.5) -> Schedule:
    return Schedule(WAITS, FixedRandom(share))


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_any_2xx_is_delivered(code: int) -> None:
    assert schedule().verdict(Answer(code), 0) == ("delivered", 0.0)


@pytest.mark.parametrize("code", [None, 101, 301, 400, 404, 408, 429, 500, 503])
def test_everything_else_is_tried_again_after_its_wait(code: int | None) -> None:
    assert [schedule().verdict(Answer(code, "x: y"), n) for n in range(4)] == [
        ("failed", 5.0),
        ("failed", 300.0),
        ("failed", 1800.0),
        ("given_up", 0.0),
    ]


def test_each_wait_is_a_fifth_shorter_or_longer_at_most() -> None:
    waits = [schedule(share).verdict(Answer(500), 1)[1] for share in (0.0, 0.5, 1.0)]
    assert waits == pytest.approx([240.0, 300.0, 360.0])


def test_the_default_schedule_lasts_as_long_as_planned() -> None:
    planned = Settings.model_fields["webhook_retry"].default
    lasted = Schedule(planned, random.Random(7))
    totals = [sum(lasted.verdict(Answer(500), n)[1] for n in range(len(planned))) for _ in range(200)]
    assert statistics.median(totals) == pytest.approx(sum(planned), rel=0.02)


def test_a_410_ends_the_endpoint_even_at_the_last_attempt() -> None:
    assert [schedule().verdict(Answer(410), n)[0] for n in (0, 3)] == ["gone", "gone"]


@pytest.mark.parametrize("code", [302, 400, 429, 500, 503])
def test_retry_after_counts_with_any_failure_and_no_attempt_comes_earlier(code: int) -> None:
    assert schedule(0.0).verdict(Answer(code, retry_after=60.0), 0)[1] == 60.0
    assert schedule(1.0).verdict(Answer(code, retry_after=60.0), 0)[1] == pytest.approx(66.0)


def test_retry_after_delays_by_a_day_at_most() -> None:
    assert schedule(1.0).verdict(Answer(429, retry_after=86_400.0), 0)[1] == 86_400.0


def test_a_test_is_one_attempt() -> None:
    assert schedule().verdict(Answer(500), 0, once=True) == ("given_up", 0.0)
