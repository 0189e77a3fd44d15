"""Readiness and metrics: what they cost Redis."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from bridge.config import Settings, load_settings
from bridge.exposition import exposition
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


def test_a_tokens_file_that_breaks_leaves_the_tokens_in_force_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = tmp_path / "tokens", []
    file.write_text("a:one:read")
    monkeypatch.setenv("BRIDGE_TOKENS_FILE", str(file))

    async def scenario() -> None:
        backend = fake_backend()
        front = FrontEnd(load_settings(), backend, VirtualClock())
        running = asyncio.create_task(front.run())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost") as http:
            for content in ("a:one:read", "a:canary", "b:two:read"):
                file.write_text(content)
                await asyncio.sleep(5)
                front.hub.led_until = float("inf")
                ready = (await http.get("/readyz")).json()
                answers = [await http.get("/metrics", headers={"X-API-Key": secret}) for secret in ("one", "two")]
                is_broken = any("\nbridge_tokens_file_broken 1.0\n" in each.text for each in answers)
                told.append((ready.get("reason"), is_broken, *[each.status_code for each in answers]))
        running.cancel()
        await asyncio.wait([running])
        await backend.close()

    run_virtual(scenario())
    assert told == [
        ("", False, 200, 401),
        ("BRIDGE_TOKENS_FILE cannot be used, the tokens stay as they were", True, 200, 401),
        ("", False, 401, 200),
    ]


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


def test_answers_are_counted_by_declared_route_and_status_and_no_name_becomes_a_label() -> None:
    def counted(route: str, status: int) -> float:
        labels = {"route": route, "status": str(status)}
        return REGISTRY.get_sample_value("bridge_http_requests_total", labels) or 0.0

    expected = {("GET /healthz", 200), ("GET /v1/cvms", 422), ("GET /v1/cvms/{ref}", 422)}

    async def scenario() -> None:
        backend = fake_backend()
        front = FrontEnd(Settings(), backend, VirtualClock(), open_access=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost") as http:
            for path in ("/healthz", "/v1/cvms?odd=1", "/v1/cvms/somebodys-name?odd=1"):
                await http.get(path)
        await backend.close()

    before = {each: counted(*each) for each in expected}
    run_virtual(scenario())
    assert {each: counted(*each) - before[each] for each in expected} == dict.fromkeys(expected, 1.0)
    assert b"somebodys-name" not in exposition()
