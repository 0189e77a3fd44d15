"""The settings that are times: how long history is kept, and how long an endpoint may fail."""

from __future__ import annotations

from bridge.clock import rfc3339
from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.limits import LaneLimits
from tests.fakes import HandClock, fake_backend, redis_time
from tests.lanes import Bench, Writer, endpoint, serve, settle

SETTINGS = Settings(webhook_keep=100, webhook_disable_after=60)


async def one_delivery(backend: Backend) -> Bench:
    """One endpoint for which one delivery waits, with the limits of SETTINGS."""
    made = Bench(backend, await Writer.lead(backend), LaneLimits.of(SETTINGS))
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    return made


async def test_finished_deliveries_are_kept_for_as_long_as_the_settings_tell() -> None:
    clock, backend = HandClock(), fake_backend()
    with redis_time(clock):
        made = await one_delivery(backend)
        await serve(made)
        for seconds, kept in ((99, 1), (2, 0)):
            clock.now += seconds
            await made.lanes.sweep(["e"])
            assert len((await Deliveries(backend).page("e"))[0]) == kept
    await backend.close()


async def test_an_endpoint_may_fail_for_as_long_as_the_settings_tell() -> None:
    clock, backend = HandClock(), fake_backend()
    with redis_time(clock):
        made = await one_delivery(backend)
        for seconds, expected in ((0, "done"), (30, "done"), (29, "done"), (2, "disabled")):
            clock.now += seconds
            (claim,) = (await made.claim(token=str(clock.now))).claims
            assert await settle(made, claim, "failed") == expected
    await backend.close()


async def test_times_that_the_version_before_kept_elsewhere_are_told_before_and_after_a_sweep() -> None:
    clock, backend = HandClock(), fake_backend()
    health = "{bridge}:webhooks:health:e"
    with redis_time(clock):
        made = Bench(backend, await Writer.lead(backend))
        await made.endpoints.create(endpoint())
        await backend.client.hset(health, mapping={"success_at": 1000, "failure_at": 2000, "swept_at": clock.ms})
        for _ in range(2):
            found = await made.endpoints.get("e")
            assert found is not None
            assert found[1].last_success_at == "1970-01-01T00:00:01.000Z"
            assert found[1].last_failure_at == "1970-01-01T00:00:02.000Z"
            await made.lanes.sweep(["e"])
        assert not await backend.client.exists(health)
        await made.writer.append()
        await made.fill()
        await serve(made)
        found = await made.endpoints.get("e")
        assert found is not None
        assert found[1].last_success_at == rfc3339(clock.now)
    await backend.close()
