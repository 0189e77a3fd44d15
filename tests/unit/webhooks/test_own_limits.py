"""An endpoint's own rate and concurrency, with two dispatchers in virtual time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from tests.lanes import Answer, FakePoster, Got, endpoint
from tests.unit.webhooks.stage import Stage, cvm, number, staged
from tests.virtual import run_virtual


async def filled(stage: Stage, events: int, cvms: int, **limits: Any) -> tuple[list[tuple[float, Got]], FakePoster]:
    """Two dispatchers send to one endpoint; (when, request) of every attempt as it comes."""
    await Endpoints(stage.backend).create(endpoint(**limits))
    attempts: list[tuple[float, Got]] = []

    def answer(got: Got) -> Answer:
        attempts.append((stage.clock.monotonic(), got))
        return Answer()

    poster = FakePoster(answer)
    for turn in range(events):
        await stage.writer.append(f"cvm-{turn % cvms}", str(turn))
    for _ in range(2):
        stage.start(poster)
    return attempts, poster


def most_within(moments: list[float], seconds: float) -> int:
    at = [round(moment * 1000) for moment in moments]
    return max(sum(begin <= each < begin + seconds * 1000 for each in at) for begin in at)


@pytest.mark.parametrize(("rate", "events", "cvms"), [(0.5, 6, 6), (5, 40, 20), (5, 40, 1), (200, 400, 40)])
def test_no_second_has_more_attempts_than_the_rate_and_order_is_kept(rate: float, events: int, cvms: int) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            attempts, _ = await filled(stage, events, cvms, rate=rate)
            await stage.all_done(seconds=2 * events / rate + 10)
            moments = [moment for moment, _ in attempts]
            assert len(moments) == events
            window = max(1.0, 1 / rate)
            assert most_within(moments, window) <= rate * window + max(1, rate // 50) - 1
            assert moments[-1] - moments[0] <= 1.5 * events / rate
            numbers = defaultdict(list)
            for _, got in attempts:
                numbers[cvm(got)].append(number(got))
            assert all(each == sorted(each) for each in numbers.values())

    run_virtual(scenario())


def test_no_more_attempts_are_under_way_than_its_concurrency() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            attempts, poster = await filled(stage, 30, 15, concurrency=2)
            poster.stalled = lambda got: True
            await asyncio.sleep(3)
            assert poster.open == 2
            poster.gate.set()
            await stage.all_done()
            assert (len(attempts), poster.most_open) == (30, 2)

    run_virtual(scenario())


def test_limits_change_with_the_endpoint_at_once() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            attempts, _ = await filled(stage, 30, 15, rate=0.01)
            await asyncio.sleep(3)
            assert len(attempts) == 1
            await Endpoints(stage.backend).change("e", lambda old: replace(old, rate=None))
            await stage.all_done(seconds=10)
            assert len(attempts) == 30

    run_virtual(scenario())


def test_a_retry_counts_too_and_a_clock_that_steps_back_holds_nothing_up() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            attempts, _ = await filled(stage, 3, 3, rate=1)
            await stage.all_done()
            await stage.backend.client.hset(
                "{bridge}:webhooks:health:e", "paced", int(stage.clock.time() * 1000) + 3_600_000
            )
            await Deliveries(stage.backend).retry((await stage.deliveries())[0].id)
            await stage.all_done(seconds=10)
            assert len(attempts) == 4

    run_virtual(scenario())
