"""Dispatchers in virtual time: what each receiver gets, in which order, and with what."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence

from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import SealedSecret
from bridge.store.endpoints import Endpoints
from tests.lanes import Answer, FakePoster, Got, endpoint
from tests.unit.webhooks.stage import cvm, number, staged, true
from tests.virtual import run_virtual


def test_half_of_the_answers_fail_and_each_lane_still_arrives_in_order() -> None:
    rng, accepted = random.Random(3), defaultdict[str, list[int]](list)

    def answer(got: Got) -> Answer:
        if rng.random() < 0.5:
            return Answer(500, "http_5xx: no")
        accepted[cvm(got)].append(number(got))
        return Answer()

    async def scenario() -> FakePoster:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(answer)
            stage.start(poster, retry=[1] * 20)
            stage.start(poster, retry=[1] * 20)
            for turn in range(30):
                await stage.writer.append("abc"[turn % 3])
            await stage.all_done(seconds=600)
            return poster

    poster = run_virtual(scenario())
    assert accepted == {name: list(range(first, 31, 3)) for first, name in enumerate("abc", 1)}
    bodies = defaultdict[str, set[bytes]](set)
    for got in poster.got:
        bodies[got.headers["webhook-id"]].add(got.body)
    assert len(bodies) == 30
    assert all(len(each) == 1 for each in bodies.values())


def test_one_cvms_failing_event_holds_back_its_own_lane_alone() -> None:
    times: dict[int, float] = {}
    failures = 3

    async def scenario() -> None:
        async with staged() as stage:

            def answer(got: Got) -> Answer:
                nonlocal failures
                if number(got) == 1 and failures:
                    failures -= 1
                    return Answer(500, "http_5xx: no")
                times[number(got)] = stage.clock.monotonic()
                return Answer()

            for name in ("e", "f"):
                await Endpoints(stage.backend).create(endpoint(name, cvms=("a", "b") if name == "e" else ("b",)))
            stage.start(FakePoster(answer), retry=[30] * 9)
            for name in ("a", "a", "a", "b", "b"):
                await stage.writer.append(name)
            began = stage.clock.monotonic()
            await stage.all_done("e", "f", seconds=600)
            assert [each for each in times if each <= 3] == [1, 2, 3]
            assert max(times[4], times[5]) - began < 2
            assert times[1] - began > 2

    run_virtual(scenario())


def test_the_old_secret_signs_alongside_until_its_time() -> None:
    signed: list[list[str]] = []

    def sign(delivery_id: str, at: int, body: bytes, secrets: Sequence[str], *_: object, phala: bool) -> dict[str, str]:
        signed.append(list(secrets))
        return {}

    async def scenario() -> None:
        async with staged() as stage:
            until = int(stage.clock.time() * 1000) + 60_000
            secrets = (SealedSecret("sealed:new"), SealedSecret("sealed:old", until))
            await Endpoints(stage.backend).create(endpoint(secrets_sealed=secrets))
            stage.start(FakePoster(), sign=sign)
            await stage.writer.append()
            await stage.all_done()
            await asyncio.sleep(61)
            await stage.writer.append()
            await stage.until(lambda: true(len(signed) == 2))

    run_virtual(scenario())
    assert signed == [["new", "old"], ["new"]]


def test_a_changed_url_counts_from_the_next_attempt_on() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            endpoints = Endpoints(stage.backend)
            await endpoints.create(endpoint())
            poster = FakePoster(lambda got: Answer() if "new" in got.url else Answer(500, "http_5xx: no"))
            stage.start(poster, retry=[5] * 9)
            await stage.writer.append()
            await stage.until(lambda: true(poster.got))
            await endpoints.change("e", lambda known: endpoint(url="sealed:http://new/"))
            await stage.all_done()

    run_virtual(scenario())


def test_what_is_sent_again_with_all_of_its_period_has_a_header_that_says_so() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster()
            stage.start(poster)
            await stage.writer.append()
            await stage.all_done()
            assert (await Deliveries(stage.backend).recover("e", 0)).queued == 0
            assert (await Deliveries(stage.backend).recover("e", 0, all=True)).queued == 1
            await stage.all_done()
            assert [got.headers.get("bridge-replay") for got in poster.got] == [None, "1"]
            assert len({got.headers["webhook-id"] for got in poster.got}) == 1

    run_virtual(scenario())


def test_a_removed_endpoint_gets_nothing_more_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: no"))
            stage.start(poster)
            await stage.writer.append()
            await stage.until(lambda: true(poster.got))
            await Endpoints(stage.backend).remove("e")
            seen = len(poster.got)
            await stage.writer.append()
            await asyncio.sleep(30)
            assert len(poster.got) <= seen + 1
            keys = [key async for key in stage.backend.client.scan_iter("{bridge}:webhooks:*")]
            assert keys == []

    run_virtual(scenario())
