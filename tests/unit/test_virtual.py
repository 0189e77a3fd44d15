"""The virtual loop keeps its promises; every other unit test leans on them."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.virtual import VirtualClock, VirtualTimeError, run_virtual


def test_an_hour_passes_at_once_and_timers_fire_in_their_order() -> None:
    async def scenario() -> list[tuple[str, float]]:
        clock, seen = VirtualClock(), list[tuple[str, float]]()

        async def at(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            seen.append((name, clock.monotonic()))

        async with asyncio.TaskGroup() as group:
            group.create_task(at("late", 3600))
            group.create_task(at("early", 0.25))
        return seen

    assert run_virtual(scenario()) == [("early", 0.25), ("late", 3600)]


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not() -> None:
    async def scenario() -> tuple[float, float]:
        clock = VirtualClock(wall=1000)
        await clock.sleep(5)
        clock.jump(-100)
        return clock.time(), clock.monotonic()

    assert run_virtual(scenario()) == (905, 5)


def test_a_timeout_ends_what_would_wait_for_ever() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_000):
                await asyncio.Event().wait()

    run_virtual(scenario())


def test_a_deadlock_is_told_with_the_task_that_waits() -> None:
    async def scenario() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="forgotten")

    with pytest.raises(VirtualTimeError, match=r"deadlock(?s:.*)forgotten"):
        run_virtual(scenario())


def test_a_timer_that_ticks_for_ever_ends_at_the_limit() -> None:
    async def tick() -> None:
        for _ in itertools.count():
            await asyncio.sleep(10)

    with pytest.raises(VirtualTimeError, match="100 virtual seconds are over"):
        run_virtual(tick(), limit=100)


def test_a_task_left_behind_fails_the_scenario() -> None:
    async def scenario() -> None:
        asyncio.current_task().left = asyncio.create_task(asyncio.sleep(9), name="left")  # type: ignore[union-attr]

    with pytest.raises(AssertionError, match=r"left behind(?s:.*)left"):
        run_virtual(scenario())
