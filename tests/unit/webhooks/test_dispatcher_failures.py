"""What follows where an attempt fails or cannot be made, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from bridge.events import Event
from bridge.sealing import SealError
from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from bridge.store.limits import LaneLimits
from bridge.webhooks.formats import Rendered
from bridge.webhooks.schedule import NotAttemptedError
from tests.lanes import Answer, FakePoster, Got, endpoint, plain, unsealed
from tests.unit.webhooks.stage import Stage, number, staged
from tests.virtual import run_virtual


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"bridge_webhook_{name}") or 0.0


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
            assert metric("open_breakers") == metric("endpoints_failing") == 1
            assert 100 < metric("oldest_pending_seconds") < 160
            assert metric("log_lag_seconds") == 0
            assert 1 <= len(poster.got) - before <= 6
            alive = True
            began = stage.clock.monotonic()
            await stage.all_done(seconds=120)
            assert stage.clock.monotonic() - began < 65
            await asyncio.sleep(15)
            assert metric("open_breakers") == metric("oldest_pending_seconds") == metric("endpoints_failing") == 0

    run_virtual(scenario())


def test_an_endpoint_fails_as_soon_as_no_attempt_succeeds_and_until_one_does() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            endpoints = Endpoints(stage.backend)
            await endpoints.create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: broken"))
            stage.start(poster, retry=[300] * 9)
            await stage.writer.append()
            await asyncio.sleep(20)
            assert (metric("endpoints_failing"), metric("open_breakers")) == (1, 0), "one failure opens no breaker"
            await endpoints.disable("e")
            await asyncio.sleep(20)
            assert metric("endpoints_failing") == 0
            await endpoints.enable("e")
            await asyncio.sleep(20)
            assert metric("endpoints_failing") == 1
            poster.answer = lambda got: Answer()
            await stage.all_done(seconds=400)
            await asyncio.sleep(20)
            assert metric("endpoints_failing") == 0

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


def test_a_failed_attempt_ends_the_reason_why_none_could_be_made() -> None:
    exhausted = True

    def answer(got: Got) -> Answer:
        if exhausted:
            raise NotAttemptedError("connections", "Too many open files")
        return Answer(500, "http_5xx: no")

    async def scenario() -> None:
        nonlocal exhausted
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            stage.start(FakePoster(answer))
            await stage.writer.append()
            await asyncio.sleep(10)
            assert await postponed(stage, "e") == "connections: Too many open files"
            exhausted = False
            await asyncio.sleep(10)
            assert (await stage.deliveries())[0].attempts
            assert await postponed(stage, "e") is None

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
