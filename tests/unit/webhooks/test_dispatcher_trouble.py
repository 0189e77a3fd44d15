"""What keeps a dispatcher from its work is told, but not again and again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bridge.store.endpoints import Endpoints
from bridge.store.limits import LaneLimits
from bridge.webhooks.dispatcher import Dispatcher
from tests.fakes import fake_backend
from tests.lanes import Answer, FakePoster, endpoint, unsealed
from tests.unit.webhooks.stage import staged
from tests.virtual import run_virtual


def test_a_refusal_is_one_error_line_and_trouble_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with staged() as stage:
            stop, backend = asyncio.Event(), fake_backend(stage.server)
            dispatcher = Dispatcher(backend, FakePoster(), unseal=unsealed, retry=[1.0], clock=stage.clock)
            running = asyncio.create_task(dispatcher.run(stop))
            await asyncio.sleep(5)
            assert dispatcher.trouble == ""
            record = await backend.client.hgetall(backend.keys.meta)
            await backend.client.delete(backend.keys.meta)
            await backend.client.set(backend.keys.meta, "not what belongs here")  # and no leader mends it
            await asyncio.sleep(60)
            assert dispatcher.trouble.startswith("queuing: ")
            assert "WRONGTYPE" in dispatcher.trouble
            told = [each for each in caplog.records if each.levelno >= logging.ERROR]
            assert [each.message for each in told] == ["Redis refuses what the dispatcher needs"]
            await backend.client.delete(backend.keys.meta)
            await backend.client.hset(backend.keys.meta, mapping=record)
            await asyncio.sleep(5)
            assert dispatcher.trouble == ""
            stop.set()
            await running
            await backend.close()

    run_virtual(scenario())


def test_endpoints_that_take_nothing_cost_an_error_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with staged(LaneLimits(pending=1)) as stage:
            await Endpoints(stage.backend, stage.limits).create(endpoint())
            stage.start(FakePoster(lambda got: Answer(500, "http_5xx: no")), retry=[3600] * 9)
            for _ in range(90):
                await stage.writer.append()
                await asyncio.sleep(1)

    run_virtual(scenario())
    told = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert {each.getMessage() for each in told} == {"endpoints have too many pending deliveries"}
    assert [vars(each)["skipped"] for each in told] == [1, 61]
