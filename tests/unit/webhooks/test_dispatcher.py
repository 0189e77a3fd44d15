"""Dispatchers in virtual time: order, repetition, take-over, breakers and ends, as a receiver sees them."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.events import Event
from bridge.sealing import SealError
from bridge.store.connection import Backend, Script, load_script
from bridge.store.deliveries import Deliveries
from bridge.store.dispatchers import read_dispatching
from bridge.store.endpoints import Endpoints, SealedSecret
from bridge.store.limits import LaneLimits
from bridge.webhooks.dispatcher import LEASE
from bridge.webhooks.formats import Rendered
from bridge.webhooks.schedule import NotAttemptedError
from tests.fakes import fake_client
from tests.lanes import Answer, FakePoster, Got, endpoint, plain, unsealed
from tests.unit.webhooks.stage import Stage, cvm, number, staged
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


def test_a_killed_dispatchers_lanes_go_on_elsewhere_within_the_lease_and_with_the_same_id() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            first.stalled = lambda got: True
            stage.start(first)
            await stage.writer.append()
            await stage.writer.append()
            await stage.until(lambda: _true(first.got))
            await stage.kill(0)
            began = stage.clock.monotonic()
            stage.start(second)
            await stage.all_done()
            assert stage.clock.monotonic() - began <= LEASE + 1.5
            assert [number(got) for got in second.got] == [1, 2]
            assert first.got[0].headers["webhook-id"] == second.got[0].headers["webhook-id"]

    run_virtual(scenario())


async def _true(value: object) -> bool:
    return bool(value)


async def in_flight(stage: Stage) -> FakePoster:
    """An endpoint's first attempt has begun; it ends when the poster's gate is set."""
    await Endpoints(stage.backend).create(endpoint())
    poster = FakePoster()
    poster.stalled = lambda got: True
    stage.start(poster)
    await stage.writer.append()
    await stage.until(lambda: _true(poster.got))
    return poster


def test_a_slow_attempt_keeps_its_lane_for_longer_than_a_lease() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            first.stalled = second.stalled = lambda got: True
            stage.start(first)
            stage.start(second)
            await stage.writer.append()
            await asyncio.sleep(4 * LEASE)
            assert len(first.got) + len(second.got) == 1
            first.gate.set()
            second.gate.set()
            await stage.all_done()

    run_virtual(scenario())


def test_a_planned_stop_waits_for_what_is_in_flight_and_records_it() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stopping = asyncio.create_task(stage.stop(0))
            await stage.writer.append("b")
            await asyncio.sleep(3)
            assert not stopping.done()
            poster.gate.set()
            await stopping
            assert len(poster.got) == 1
            assert [each.status for each in await stage.deliveries()] == ["delivered"]

    run_virtual(scenario())


def test_a_planned_stop_ends_although_redis_is_away_and_results_wait() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stage.server.connected = False
            poster.gate.set()
            await asyncio.sleep(3)
            async with asyncio.timeout(10):
                await stage.stop(0)

    run_virtual(scenario())


def test_results_that_waited_for_redis_are_recorded_before_anything_else_is_borrowed() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stage.server.connected = False
            poster.gate.set()
            await asyncio.sleep(3 * LEASE)
            stage.server.connected = True
            await stage.all_done()
            assert len(poster.got) == 1

    run_virtual(scenario())


def test_a_dead_endpoint_is_probed_with_one_at_a_time_and_gets_everything_when_it_is_back() -> None:
    alive = False

    async def scenario() -> None:
        nonlocal alive
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer() if alive else Answer(None, "connect: refused"))
            stage.start(poster, retry=[3600] * 9)
            for lane in range(30):
                await stage.writer.append(f"cvm-{lane}")
            await asyncio.sleep(30)
            tried = len(poster.got)
            assert tried < 20, "an open breaker lets few through"
            before = len(poster.got)
            await asyncio.sleep(120)
            assert 1 <= len(poster.got) - before <= 6
            alive = True
            began = stage.clock.monotonic()
            await stage.all_done(seconds=120)
            assert stage.clock.monotonic() - began < 65

    run_virtual(scenario())


def test_a_410_disables_and_what_comes_then_is_listed_as_skipped() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            endpoints = Endpoints(stage.backend)
            await endpoints.create(endpoint())
            poster = FakePoster(lambda got: Answer(410, "http_4xx: gone"))
            stage.start(poster)
            await stage.writer.append()
            await stage.until(lambda: _disabled(endpoints))
            await stage.writer.append()
            await asyncio.sleep(60)
            assert len(poster.got) == 1
            assert [each.status for each in await stage.deliveries()] == ["skipped", "pending"]
            poster.answer = lambda got: Answer()
            await endpoints.enable("e")
            await stage.all_done()
            assert (await Deliveries(stage.backend).recover("e", 0)).queued == 1
            await stage.all_done()
            assert [number(got) for got in poster.got] == [1, 1, 2]

    run_virtual(scenario())


async def _disabled(endpoints: Endpoints) -> bool:
    found = await endpoints.get("e")
    return found is not None and not found[0].enabled and found[0].disabled_reason is not None


def test_an_endpoint_that_fails_for_five_days_is_disabled_with_a_reason() -> None:
    async def scenario() -> None:
        async with staged(LaneLimits(disable_after_ms=40_000)) as stage:
            endpoints = Endpoints(stage.backend)
            await endpoints.create(endpoint())
            stage.start(FakePoster(lambda got: Answer(500, "http_5xx: no")), retry=[10] * 99)
            await stage.writer.append()
            await stage.until(lambda: _disabled(endpoints), 200)

    run_virtual(scenario())


def test_retry_after_is_waited_for() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer() if len(poster.got) > 1 else Answer(503, "http_5xx: busy", 40.0))
            stage.start(poster)
            await stage.writer.append()
            began = stage.clock.monotonic()
            await stage.all_done(seconds=100)
            assert 40 <= stage.clock.monotonic() - began <= 46

    run_virtual(scenario())


def test_our_own_faults_are_failed_attempts_and_end_nothing() -> None:
    def broken(format: str, event: Event, *, ran: bool) -> Rendered:
        if event.cvm_id == "a":
            raise RuntimeError("secret text")
        return plain(format, event, ran=ran)

    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            stage.start(FakePoster(), retry=[1], render=broken)
            await stage.writer.append("a")
            await stage.writer.append("b")
            await stage.all_done()
            by_cvm = {each.event.cvm_id: each for each in await stage.deliveries()}
            assert (by_cvm["a"].status, by_cvm["b"].status) == ("given_up", "delivered")
            assert [each.error for each in by_cvm["a"].attempts] == ["internal: RuntimeError"] * 2

    run_virtual(scenario())


def test_what_cannot_be_opened_is_no_attempt_and_is_delivered_once_it_can(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        locked = True

        def unseal(text: str) -> str:
            if locked and "locked" in text:
                raise SealError
            return unsealed(text)

        async with staged() as stage:
            for name in ("e", "locked"):
                await Endpoints(stage.backend).create(endpoint(name))
            stage.start(FakePoster(), retry=[1], unseal=unseal)
            await stage.writer.append("a")
            await asyncio.sleep(60)
            (held,) = await stage.deliveries("locked")
            assert (held.status, held.attempts) == ("pending", ())
            found = await Endpoints(stage.backend).get("locked")
            assert found is not None
            assert (found[0].enabled, found[1].failing_since) == (True, None)
            assert "BRIDGE_SECRET_KEY" in caplog.records[-1].__dict__["error"]
            locked = False
            await stage.all_done("e", "locked")

    run_virtual(scenario())


def test_an_idle_dispatcher_claims_nothing_and_leaves_lanes_to_the_others() -> None:
    async def scenario() -> None:
        idle = True
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            stage.start(FakePoster(), idle=lambda: idle)
            await stage.writer.append("a")
            await asyncio.sleep(60)
            assert not await stage.backend.client.exists(f"{stage.backend.keys.webhooks}:busy:e")
            assert [each.attempts for each in await stage.deliveries()] == [()]
            idle = False
            await stage.all_done()

    run_virtual(scenario())


async def postponed(stage: Stage, endpoint_id: str) -> str | None:
    """The reason that the endpoint shows, always beside its time."""
    found = await Endpoints(stage.backend).get(endpoint_id)
    assert found is not None
    assert (found[1].postponed_since is None) == (found[1].postponed_reason is None)
    return found[1].postponed_reason


def test_what_this_machine_cannot_attempt_is_no_failure_and_comes_again_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also while the breaker of `probed` is open: its probe is made again."""

    async def scenario() -> None:
        async with staged() as stage:
            began, exhausted = stage.clock.monotonic(), True

            def answer(got: Got) -> Answer:
                if "probed" in got.url and stage.clock.monotonic() - began < 10:
                    return Answer(500, "http_5xx: no")
                if exhausted:
                    raise NotAttemptedError("connections", "Too many open files")
                return Answer()

            for name in ("e", "probed"):
                await Endpoints(stage.backend).create(endpoint(name))
            poster = FakePoster(answer)
            stage.start(poster, retry=[1] * 50)
            for name in "aabb":
                await stage.writer.append(name)
            await asyncio.sleep(100)
            assert {each.status for name in ("e", "probed") for each in await stage.deliveries(name)} == {"pending"}
            asked = len(poster.got)
            assert asked < 300
            for name in ("e", "probed"):
                assert await postponed(stage, name) == "connections: Too many open files"
            exhausted = False
            await stage.all_done("e", "probed")
            assert await postponed(stage, "e") is None
            assert [[got.error for got in each.attempts] for each in await stage.deliveries()] == [[None]] * 4
            delivered = [number(got) for got in poster.got[asked:] if "e.test" in got.url]
            assert sorted(delivered) == [1, 2, 3, 4]
            assert delivered.index(1) < delivered.index(2)
            assert delivered.index(3) < delivered.index(4)
            known = await Endpoints(stage.backend).get("e")
            assert known is not None
            assert (known[1].last_failure_at, known[1].failing_since) == (None, None)

    run_virtual(scenario())
    told = [each for each in caplog.records if each.getMessage().startswith("attempts cannot be made")]
    assert [each.levelname for each in told] == ["ERROR"] * 2  # at most one a minute


def test_the_old_secret_signs_alongside_until_its_time() -> None:
    signed: list[list[str]] = []

    def sign(delivery_id: str, at: int, body: bytes, secrets: Sequence[str], *, phala: bool) -> dict[str, str]:
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
            await stage.until(lambda: _true(len(signed) == 2))

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
            await stage.until(lambda: _true(poster.got))
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


def test_a_dispatcher_is_seen_while_it_is_at_work_and_missed_once_it_is_dead() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster()
            stage.start(poster)
            for _ in range(20):
                await asyncio.sleep(2)
                assert (await read_dispatching(stage.backend)).trouble == ""
            await stage.kill(0)
            await asyncio.sleep(21)
            assert (await read_dispatching(stage.backend)).trouble.startswith("no dispatcher since ")
            stage.start(poster)
            await asyncio.sleep(2)
            assert (await read_dispatching(stage.backend)).trouble == ""

    run_virtual(scenario())


def test_a_removed_endpoint_gets_nothing_more_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: no"))
            stage.start(poster)
            await stage.writer.append()
            await stage.until(lambda: _true(poster.got))
            await Endpoints(stage.backend).remove("e")
            seen = len(poster.got)
            await stage.writer.append()
            await asyncio.sleep(30)
            assert len(poster.got) <= seen + 1
            keys = [key async for key in stage.backend.client.scan_iter("{bridge}:webhooks:*")]
            assert keys == []

    run_virtual(scenario())


def test_a_test_is_attempted_at_once_even_at_a_dead_endpoint() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: no"))
            stage.start(poster, retry=[3600] * 9)
            for lane in range(20):
                await stage.writer.append(f"cvm-{lane}")
            await asyncio.sleep(20)
            tested = await Deliveries(stage.backend).test("e", "2026-11-24T16:00:00.000Z")
            await asyncio.sleep(2)
            known = await Deliveries(stage.backend).get(tested)
            assert known is not None
            assert (known.status, len(known.attempts)) == ("given_up", 1)

    run_virtual(scenario())


class Halting(Backend):
    """As a process that stands still for `pause` seconds after each claim."""

    pause = 0.0

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        answer = await super().run(script, keys, args)
        if self.pause and script == load_script("lane_rules", "claim"):
            await asyncio.sleep(self.pause)
        return answer


def test_a_process_that_stood_still_does_not_send_what_it_borrowed_before() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            halting = Halting(fake_client(stage.server), "bridge")
            halting.pause = 2 * LEASE
            stage.start(first, backend=halting)
            await stage.writer.append()
            await asyncio.sleep(0.5)
            stage.start(second)
            await stage.all_done()
            await asyncio.sleep(3 * LEASE)
            assert first.got == []
            assert len(second.got) == 1
            halting.pause = 0.0
            await asyncio.sleep(2 * LEASE)

    run_virtual(scenario())


def test_a_server_clock_that_stepped_back_holds_nothing_for_long() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: no") if len(poster.got) == 1 else Answer())
            stage.start(poster, retry=[20] * 9)
            await asyncio.sleep(16)
            await stage.writer.append()
            await stage.until(lambda: _true(poster.got))
            await asyncio.sleep(0.1)
            stage.clock.jump(-3600)
            await stage.all_done(seconds=60)

    run_virtual(scenario())
