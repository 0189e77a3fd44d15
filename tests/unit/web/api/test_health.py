"""Readiness and metrics: what they cost Redis."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from bridge.config import Settings
from bridge.web.app import FrontEnd
from tests.fakes import CountedCalls, fake_backend
from tests.virtual import VirtualClock, run_virtual


def test_references_that_name_no_cvm_are_told_while_all_is_well() -> None:
    async def scenario() -> dict[str, str]:
        backend = fake_backend()
        front = FrontEnd(Settings(), backend, VirtualClock(), open_access=True)
        running = asyncio.create_task(front.run())
        await asyncio.sleep(0.5)
        front.hub.led_until = float("inf")
        unmet = {f"name:job-{number}*": "no CVM matches it yet" for number in range(12)}
        await backend.client.set(backend.keys.leader_status, json.dumps({"unmet": unmet}))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost") as http:
            answer: dict[str, str] = (await http.get("/readyz")).json()
        running.cancel()
        await asyncio.wait([running])
        await backend.close()
        return answer

    answer = run_virtual(scenario())
    assert answer["status"] == "ready"
    assert answer["reason"].startswith("BRIDGE_CVMS: name:job-0*: no CVM matches it yet; name:job-1*")
    assert answer["reason"].endswith("; and 2 more")


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_callers_without_a_token_at_the_same_moment_cost_redis_as_much_as_one(path: str) -> None:
    async def scenario() -> list[int]:
        backend = CountedCalls()
        front = FrontEnd(Settings(), backend, VirtualClock(), open_access=True)
        running = asyncio.create_task(front.run())
        await asyncio.sleep(0.5)
        front.hub.led_until = float("inf")
        costs = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost") as http:
            for callers in (1, 20):
                before = backend.calls
                answers = await asyncio.gather(*(http.get(path) for _ in range(callers)))
                assert {each.status_code for each in answers} == {200}
                costs.append(backend.calls - before)
        running.cancel()
        await asyncio.wait([running])
        await backend.close()
        return costs

    one, many = run_virtual(scenario())
    assert 0 < one == many
