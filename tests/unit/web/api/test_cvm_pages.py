"""Pages of CVMs: what one costs Redis, and what a filter leaves of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import SecretStr

from bridge.config import Settings, Token
from bridge.events import dumps
from bridge.store.connection import Backend
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.web.api import cvms
from bridge.web.app import FrontEnd
from bridge.web.streaming.hub import Hub
from tests.fakes import CountedCalls, fake_backend
from tests.virtual import VirtualClock, run_virtual

CVMS = [f"00000000-0000-0000-0000-0000000000{number:02}" for number in range(40)]


READY = CVMS[::3]


def front_end(backend: Backend, limited_to: list[str]) -> FrontEnd:
    """For one token, whose secret is "secret"."""
    token = Token("one", SecretStr("secret"), "read", frozenset(limited_to))
    return FrontEnd(Settings(tokens=(token,)), backend, VirtualClock())


@asynccontextmanager
async def client(front: FrontEnd) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer secret"}
    transport = httpx.ASGITransport(front.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
        yield http


async def listed(limited_to: list[str], query: str) -> tuple[list[str], int]:
    """The ids that a token with these CVMs gets, all of which are watched, and the round trips to Redis."""
    backend = CountedCalls()
    await Watches(backend).renew(CVMS)
    async with client(front_end(backend, limited_to)) as http:
        backend.calls = 0
        answer = await http.get(f"/v1/cvms{query}")
    await backend.close()
    return [each["cvm_id"] for each in answer.json()["items"]], backend.calls


@pytest.mark.parametrize("query", ["", "?ready=true"])
def test_a_limited_token_with_many_cvms_costs_redis_no_more_calls_than_with_one(query: str) -> None:
    one, calls = run_virtual(listed(CVMS[:1], query))
    many, calls_of_many = run_virtual(listed(CVMS, query))
    assert (one, many) == (([], []) if query else (CVMS[:1], CVMS))
    assert calls_of_many == calls


@pytest.mark.parametrize("limited_to", [[], CVMS], ids=["every CVM", "a limited token"])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_filtered_pages_look_at_so_many_cvms_and_have_each_wanted_one_once(
    monkeypatch: pytest.MonkeyPatch, limit: int, limited_to: list[str]
) -> None:
    monkeypatch.setattr(cvms, "MOST_LOOKED_AT", 7)

    async def scenario() -> list[list[str]]:
        backend = fake_backend()
        await Watches(backend).renew(CVMS)
        for cvm_id in CVMS:
            made = Snapshot(cvm_id, "{}", "running", None, None, None, ready=cvm_id in READY)
            await backend.client.hset(backend.keys.state, cvm_id, made.to_json())
        pages: list[list[str]] = []
        after: str | None = ""
        async with client(front_end(backend, limited_to)) as http:
            while after is not None:
                page = (await http.get("/v1/cvms", params={"ready": "true", "limit": limit, "after": after})).json()
                pages.append([each["cvm_id"] for each in page["items"]])
                after = page["next"]
        await backend.close()
        return pages

    pages = run_virtual(scenario())
    assert [each for page in pages for each in page] == READY
    assert max(map(len, pages)) == min(limit, 3)  # three of seven CVMs are ready at most


@pytest.mark.parametrize(
    ("known", "limited_to", "led", "told"),
    [(3, [], True, {"known": 3, "found": 40}), (40, [], True, None), (3, CVMS, True, None), (3, [], False, None)],
)
async def test_a_list_tells_how_many_cvms_are_known_until_all_are(
    monkeypatch: pytest.MonkeyPatch, known: int, limited_to: list[str], led: bool, told: object
) -> None:
    monkeypatch.setattr(Hub, "led", led)
    backend = fake_backend()
    await backend.client.set(backend.keys.leader_status, dumps({"known": known, "found": 40}))
    async with client(front_end(backend, limited_to)) as http:
        assert (await http.get("/v1/cvms")).json().get("progress") == told
    await backend.close()
