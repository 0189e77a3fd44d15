"""Somebody is told: a chat endpoint hears of a dead one, and dead ones that want to hear of each other end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from bridge.events import DELIVERY_GIVEN_UP, ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED, NOTICES
from bridge.store.endpoints import Endpoints
from bridge.store.limits import LaneLimits
from tests.lanes import Answer, FakePoster, endpoint
from tests.unit.webhooks.stage import Stage, staged
from tests.virtual import run_virtual

DEAD = Answer(status_code=500, error="http_5xx: the receiver answered 500")
LIMITS = LaneLimits(failing_ms=20_000, given_up_ms=20_000, disable_after_ms=60_000)


async def leader(stage: Stage, told: list[str]) -> None:
    while True:
        told += await stage.writer.take_notices()
        await asyncio.sleep(2)


def types(poster: FakePoster, host: str) -> list[str]:
    return [json.loads(got.body)["type"] for got in poster.got if got.url == f"http://{host}.test/"]


def test_a_chat_endpoint_hears_once_of_each_trouble_of_another_from_two_dispatchers_of_which_one_is_killed() -> None:
    async def scenario() -> None:
        async with staged(LIMITS) as stage:
            endpoints, is_dead = Endpoints(stage.backend), True
            poster = FakePoster(lambda got: DEAD if is_dead and got.url == "http://dead.test/" else Answer())
            await endpoints.create(endpoint("dead", types=(*NOTICES, "cvm.transition")))
            await endpoints.create(endpoint("chat", types=NOTICES))
            await endpoints.create(endpoint("all", types=()))
            leading = asyncio.create_task(leader(stage, []))
            killed = stage.start(poster, retry=(5,) * 12)
            stage.start(poster, retry=(5,) * 12)
            for cvm in "abc":
                await stage.writer.append(cvm)
            await asyncio.sleep(16)
            await stage.kill(killed)
            await asyncio.sleep(24)
            is_dead = False
            await stage.writer.append("a")
            await stage.all_done("dead", "chat", "all")
            await asyncio.sleep(10)
            leading.cancel()
            assert types(poster, "chat") == [ENDPOINT_FAILING, ENDPOINT_RECOVERED]
            assert not {*NOTICES} & {*types(poster, "dead"), *types(poster, "all")}

    run_virtual(scenario())


def test_dead_endpoints_that_want_to_hear_of_each_other_come_to_an_end() -> None:
    async def scenario() -> None:
        async with staged(LIMITS) as stage:
            told: list[str] = []
            poster = FakePoster(lambda got: DEAD)
            for name in ("one", "two", "three"):
                await Endpoints(stage.backend).create(endpoint(name, types=() if name == "three" else NOTICES))
            leading = asyncio.create_task(leader(stage, told))
            stage.start(poster, retry=(5,) * 6)
            for cvm in "ab":
                await stage.writer.append(cvm)
            await asyncio.sleep(200)
            leading.cancel()
            found = Counter(told)
            assert found[ENDPOINT_RECOVERED] == 0
            assert found[ENDPOINT_FAILING] == 3
            assert 0 < found[ENDPOINT_DISABLED] <= 3
            # Of the events about CVMs, which one of them alone wants: no notice follows from a notice.
            assert found[DELIVERY_GIVEN_UP] == 1

    run_virtual(scenario())
