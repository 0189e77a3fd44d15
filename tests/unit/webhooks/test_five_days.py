"""When an endpoint counts as having failed for five days (`docs/contract.md#webhooks`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from bridge.store.lanes import Verdict
from tests.fakes import HandClock, fake_backend, redis_time
from tests.lanes import Bench, bench, endpoint, settle

DAY = 86_400.0
HOUR = 3_600.0

At = Callable[..., Awaitable[str]]


@pytest.fixture
async def at() -> AsyncIterator[At]:
    """`await at(seconds, lane, verdict, wait)`: an event, and what its attempt at that time came to."""
    clock, backend = HandClock(), fake_backend()
    began = clock.now
    with redis_time(clock):
        made = await bench(backend)
        await made.endpoints.create(endpoint())

        async def attempt(seconds: float, lane: str = "a", verdict: Verdict = "given_up", wait: float = 0) -> str:
            clock.now = began + seconds
            if not await _waits(made, lane):
                await made.writer.append(lane)
                await made.fill()
            claims = {claim.lane: claim for claim in (await made.claim(token=str(seconds), lease=1)).claims}
            clock.now += 1
            return await settle(made, claims[lane], verdict, wait)

        yield attempt
    await backend.close()


async def _waits(made: Bench, lane: str) -> bool:
    return bool(await made.backend.client.exists(f"{{bridge}}:webhooks:lane:e:{lane}"))


async def test_failures_without_a_success_for_five_days_disable(at: At) -> None:
    for hours in range(0, 120, 8):
        assert await at(hours * HOUR) != "disabled"
    assert await at(5 * DAY) == "disabled"


@pytest.mark.parametrize("days", [5, 6, 100])
async def test_two_lone_failures_with_nothing_between_do_not_disable(at: At, days: int) -> None:
    assert await at(0) == "done"
    assert await at(days * DAY) == "done"


async def test_a_silence_starts_the_five_days_anew(at: At) -> None:
    days: Sequence[float] = (0, 1, 2, 5, 6, 7, 8, 9)
    assert [await at(day * DAY) for day in days] == ["done"] * 8
    assert await at(10 * DAY) == "disabled"


async def test_a_success_on_another_lane_starts_them_anew_too(at: At) -> None:
    for day in (0, 1, 2, 3, 4):
        assert await at(day * DAY) == "done"
    assert await at(4.5 * DAY, "b", "delivered") == "done"
    for day in (5, 6, 7, 8, 9):
        assert await at(day * DAY) != "disabled"
    assert await at(10.1 * DAY) == "disabled"


async def test_a_silence_that_the_retry_schedule_asked_for_is_none(at: At) -> None:
    assert await at(0, verdict="failed", wait=3 * DAY) == "done"
    assert await at(3 * DAY + 60, verdict="failed", wait=3 * DAY) == "done"
    assert await at(6 * DAY + 120) == "disabled"
