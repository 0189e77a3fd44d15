"""Many endpoints in trouble at once, in virtual time: what is left of a dispatcher for those that are well."""

from __future__ import annotations

import asyncio

from bridge.store.endpoints import Endpoints
from bridge.webhooks.dispatcher import MOST_IN_FLIGHT
from tests.lanes import Answer, FakePoster, Got, endpoint
from tests.unit.webhooks.stage import staged
from tests.virtual import run_virtual


def _dead(got: Got) -> bool:
    return "dead" in got.url


def test_ninety_endpoints_that_stop_answering_at_once_leave_room_for_one_that_is_well() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            endpoints = Endpoints(stage.backend)
            for turn in range(90):
                await endpoints.create(endpoint(f"dead-{turn}", cvms=tuple(f"cvm-{lane}" for lane in range(10))))
            await endpoints.create(endpoint("well", cvms=("mine",)))
            poster = FakePoster()
            poster.stalled = _dead
            stage.start(poster)
            for lane in range(10):
                await stage.writer.append(f"cvm-{lane}")
            await asyncio.sleep(5)
            assert 90 <= poster.open < MOST_IN_FLIGHT, "each is attempted, and none has ended"
            for _ in range(3):
                await stage.writer.append("mine")
            try:
                await stage.all_done("well", seconds=5)
            finally:
                poster.gate.set()
            await stage.all_done(*(f"dead-{turn}" for turn in range(90)))
            assert len(poster.got) == 90 * 10 + 3

    run_virtual(scenario())


def test_one_endpoint_alone_may_have_ten_at_once() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer())
            poster.stalled = lambda got: True
            stage.start(poster)
            for lane in range(30):
                await stage.writer.append(f"cvm-{lane}")
            await asyncio.sleep(2)
            assert poster.open == 10
            poster.gate.set()
            await stage.all_done()

    run_virtual(scenario())
