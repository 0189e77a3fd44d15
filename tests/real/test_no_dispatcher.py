"""Webhooks that no dispatcher delivers: what waits is counted, and everybody who looks is told."""

from __future__ import annotations

from bridge.commands.check import run_check
from bridge.config import Settings
from bridge.store.endpoints import Endpoints
from bridge.store.lanes import Lanes
from tests.bridges import Whole, whole
from tests.lanes import endpoint
from tests.servers import RealServer


async def _ready(bridge: Whole) -> tuple[str, str]:
    answer = (await bridge.http.get(f"{bridge.url}/readyz")).json()
    return answer["status"], answer["reason"]


async def _missing(bridge: Whole) -> str:
    text = (await bridge.http.get(f"{bridge.url}/metrics")).text
    return next(line for line in text.splitlines() if line.startswith("bridge_webhook_dispatcher_missing "))[-3:]


async def test_a_front_end_tells_that_no_dispatcher_runs_where_an_enabled_endpoint_needs_one(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        endpoints = Endpoints(bridge.backend)

        async def settled() -> bool:
            return await _ready(bridge) == ("ready", "")

        await bridge.until(settled, "nothing is missing without an endpoint")
        await endpoints.create(endpoint(types=()))
        assert await _ready(bridge) == ("degraded", "no dispatcher was ever seen")
        assert await _missing(bridge) == "1.0"
        await Lanes(bridge.backend).checkpoint(at_work=True)
        assert await _ready(bridge) == ("ready", "")
        assert await _missing(bridge) == "0.0"
        await bridge.backend.client.hset("{bridge}:webhooks", "seen", "1795536000000")
        assert await _ready(bridge) == ("degraded", "no dispatcher since 2026-11-24T16:00:00.000Z")
        await endpoints.disable("e")
        assert await _ready(bridge) == ("ready", "")


async def test_bridge_check_tells_of_a_missing_dispatcher_and_of_endpoints_in_trouble(own_server: RealServer) -> None:
    async with whole(own_server.url, cvms=1) as bridge:
        told: list[str] = []
        settings = Settings.model_validate({"redis_url": own_server.url})
        await Endpoints(bridge.backend).create(endpoint())
        await run_check(settings, told.append)
        assert [line for line in told if "no dispatcher was ever seen" in line and "bridge dispatcher" in line]
        await Lanes(bridge.backend).checkpoint(at_work=True)
        told.clear()
        await run_check(settings, told.append)
        assert not [line for line in told if "no dispatcher" in line]
        assert "  health   1 ok" in told
        await Endpoints(bridge.backend).disable("e", "the receiver answered 410 Gone")
        await bridge.backend.client.hset(
            "{bridge}:webhooks:health:f", mapping={"told": 1, "failing_since": 1795536000000}
        )
        await Endpoints(bridge.backend).create(endpoint("f"))
        told.clear()
        await run_check(settings, told.append)
        assert "  health   1 disabled, 1 failing" in told
        assert "    disabled e: the receiver answered 410 Gone, 0 waiting" in told
        assert "    failing f: since 2026-11-24T16:00:00.000Z, 0 waiting" in told
