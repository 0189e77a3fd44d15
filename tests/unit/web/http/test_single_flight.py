from __future__ import annotations

import asyncio

import pytest

from bridge.web.http.single_flight import SingleFlight
from tests.virtual import run_virtual


class Call:
    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        await asyncio.sleep(1)
        if self.asked == 3:
            raise LookupError
        return self.asked


def test_concurrent_callers_share_a_call_and_a_later_one_starts_another() -> None:
    async def scenario() -> None:
        single_flight, question = SingleFlight("test"), Call()
        assert await asyncio.gather(*[single_flight.ask("a", question) for _ in range(100)]) == [1] * 100
        assert await asyncio.gather(*[single_flight.ask("a", question) for _ in range(2)]) == [2, 2]

    run_virtual(scenario())


def test_an_error_reaches_all_callers_of_its_key_only() -> None:
    async def scenario() -> None:
        single_flight, question, other = SingleFlight("test"), Call(), Call()
        question.asked = 2
        found = await asyncio.gather(*[single_flight.ask("a", question) for _ in range(3)], return_exceptions=True)
        assert [type(error) for error in found] == [LookupError] * 3
        assert await asyncio.gather(*[single_flight.ask(key, other) for key in "bc"]) == [2, 2]

    run_virtual(scenario())


def test_a_cancelled_caller_does_not_cancel_the_call_for_the_others() -> None:
    async def scenario() -> None:
        single_flight, question = SingleFlight("test"), Call()
        first = asyncio.create_task(single_flight.ask("a", question))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(single_flight.ask("a", question))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1
        assert first.cancelled()

    run_virtual(scenario())


def test_an_error_without_a_waiting_caller_is_quiet() -> None:
    async def scenario() -> None:
        single_flight, question = SingleFlight("test"), Call()
        question.asked = 2
        asking = asyncio.create_task(single_flight.ask("a", question))
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.sleep(1)

    run_virtual(scenario())


def test_closing_cancels_the_calls_in_flight() -> None:
    async def scenario() -> None:
        single_flight, question = SingleFlight("test"), Call()
        asking = asyncio.create_task(single_flight.ask("a", question))
        await asyncio.sleep(0.5)
        await single_flight.aclose()
        with pytest.raises(asyncio.CancelledError):
            await asking

    run_virtual(scenario())
