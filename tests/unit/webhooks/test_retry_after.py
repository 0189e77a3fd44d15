"""An endpoint that names a time with `Retry-After`: no lane of it is attempted earlier, whatever its breaker does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from tests.lanes import Answer, FakePoster, Got, endpoint
from tests.unit.webhooks.stage import Stage, staged
from tests.virtual import run_virtual

BUSY = Answer(429, "http_4xx: busy", 60.0)


class Timed(FakePoster):
    """Has the time of each request."""

    def __init__(self, stage: Stage, answer: Callable[[Got], Answer]) -> None:
        def timed(got: Got) -> Answer:
            self.at.append(stage.clock.monotonic() - began)
            return answer(got)

        super().__init__(timed)
        began = stage.clock.monotonic()
        self.at: list[float] = []


async def _fifteen(stage: Stage, poster: FakePoster) -> None:
    """Fifteen lanes, each with a delivery that is due."""
    await Endpoints(stage.backend).create(endpoint())
    for lane in range(15):
        await stage.writer.append(f"cvm-{lane}")
    stage.start(poster, retry=[1] * 9)


async def _asked_to_wait(stage: Stage) -> FakePoster:
    """Of fifteen lanes, ten were told to wait a minute, 20 s ago."""
    poster = FakePoster(lambda got: BUSY)
    await _fifteen(stage, poster)
    await asyncio.sleep(20)
    assert len(poster.got) == 10
    return poster


@pytest.mark.parametrize("code", [429, 503, 500, 404, 302])
def test_no_lane_is_attempted_before_the_time_that_one_was_told(code: int) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = Timed(stage, lambda got: Answer(code, "http: no", 60.0))
            await _fifteen(stage, poster)
            await asyncio.sleep(59)
            assert len(poster.at) == 10, "those that were on their way at the first answer"
            assert max(poster.at) < 2
            await asyncio.sleep(60)
            assert len(poster.at) == 11, "ten failures opened the breaker: one probe a minute"

    run_virtual(scenario())


def test_a_success_that_closes_the_breaker_does_not_end_the_time() -> None:
    """It may be the answer to an attempt from before, or of a test that a caller requested."""

    async def scenario() -> None:
        async with staged() as stage:
            poster = await _asked_to_wait(stage)
            poster.answer = lambda got: Answer()
            tested = await Deliveries(stage.backend).test("e", "2026-11-24T16:00:00.000Z")
            await asyncio.sleep(2)
            known = await Deliveries(stage.backend).get(tested)
            assert known is not None
            assert known.status == "delivered", "a caller's own request waits for nothing"
            sent = len(poster.got)
            assert sent == 11
            await asyncio.sleep(35)
            assert len(poster.got) == sent
            await stage.all_done(seconds=20)

    run_virtual(scenario())


def test_a_shorter_time_does_not_end_a_longer_one() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            answers = iter([BUSY, Answer(429, "http_4xx: busy", 5.0)])
            poster = FakePoster(lambda got: next(answers, Answer()))
            await _fifteen(stage, poster)
            await asyncio.sleep(58)
            assert len(poster.got) == 10
            await stage.all_done(seconds=20)

    run_virtual(scenario())


def test_the_next_attempt_that_is_shown_is_the_one_that_is_made() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await _asked_to_wait(stage)
            waiting = await stage.deliveries()
            began = min(each.created_at for each in waiting)
            assert len(waiting) == 15
            assert all(each.next_attempt_at and each.next_attempt_at > f"{began[:17]}59" for each in waiting)

    run_virtual(scenario())


def test_a_retry_that_is_asked_for_does_not_end_the_time() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await _asked_to_wait(stage)
            for each in await stage.deliveries():
                await Deliveries(stage.backend).retry(each.id)
            await asyncio.sleep(35)
            assert len(poster.got) == 10

    run_virtual(scenario())


def test_enabling_an_endpoint_ends_its_time() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await _asked_to_wait(stage)
            poster.answer = lambda got: Answer()
            await Endpoints(stage.backend).disable("e")
            await Endpoints(stage.backend).enable("e")
            await stage.all_done(seconds=5)

    run_virtual(scenario())


def test_a_server_clock_that_stepped_back_moves_the_time_with_it() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = FakePoster(lambda got: BUSY if len(poster.got) <= 10 else Answer())
            await _fifteen(stage, poster)
            await asyncio.sleep(20)
            stage.clock.jump(-3600)
            await stage.all_done(seconds=120)

    run_virtual(scenario())
