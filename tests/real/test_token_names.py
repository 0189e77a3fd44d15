"""Tokens that are limited to CVMs by name. The test answers as the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from bridge.config import Settings
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web.api import token_cvms
from tests.real.fronts import Front, front
from tests.servers import PATIENCE

A, B, C = (f"0000000{each}-0000-4000-8000-000000000000" for each in "abc")
TOKENS: Any = Settings.model_validate({"tokens": f"team:teamsecret0123456789:read:web,{C}"}).tokens
TEAM = {"Authorization": "Bearer teamsecret0123456789"}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cvms, "LOOK_UP_EVERY", 0.05)


async def status(web: Front, path: str) -> int:
    return (await web.http.get(web.url + path, headers={**TEAM, "Accept": "application/json"})).status_code


async def seen(web: Front) -> set[str]:
    """The CVMs of its list."""
    page: httpx.Response = await web.http.get(f"{web.url}/v1/cvms", headers=TEAM)
    return {item["cvm_id"] for item in page.json()["items"]}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110 - another task of the front end decides
            await asyncio.sleep(0.02)


async def named(web: Front, cvm_id: str | None) -> None:
    """From now on, upstream has this CVM under the name; None: it has none."""
    await ReferenceLookups(web.backend).answer(Answer("web", cvm_id, 200 if cvm_id else 404, "" if cvm_id else "{}"))


async def test_a_token_sees_the_cvm_that_has_its_name_and_no_other_one_any_longer(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await web.lead()
        await Watches(web.backend).renew([A, B, C])
        # Until the name is resolved, nothing tells what there is.
        assert {await status(web, f"/v1/cvms/{each}") for each in (A, B)} == {503}
        assert await seen(web) == {C}
        await named(web, A)
        await until(lambda: _equals(seen(web), {A, C}))
        assert [await status(web, f"/v1/cvms/{each}") for each in (A, "web", C, B)] == [200, 200, 200, 403]

        streams = []
        for query in ("", f"&cvm={A}", f"&cvm={C}"):
            reader, writer = await web.connect(f"/v1/events?snapshot=0{query}", TEAM)
            streams.append(reader)
            assert (await reader.readline()).split()[1] == b"200", writer
        waiting, _ = await web.connect(f"/api/v1/cvms/{A}/state?target=stopped", TEAM)
        assert (await waiting.readline()).split()[1] == b"200"
        await web.until_present(4)

        await named(web, B)
        await until(lambda: _equals(seen(web), {B, C}))
        assert [await status(web, f"/v1/cvms/{each}") for each in (A, "web", C, B)] == [403, 200, 200, 200]
        for stream in (*streams[:2], waiting):
            async with asyncio.timeout(PATIENCE):
                assert (await stream.read()).endswith(b"0\r\n\r\n")
        await web.until_present(1)  # what it asked for by id and may still see

        await named(web, None)
        await until(lambda: _equals(seen(web), {C}))
        missing = [await status(web, f"/v1/cvms/{each}") for each in (A, B, "web")]
        assert missing == [403, 403, 403]


async def test_a_token_by_name_keeps_its_cvm_while_upstream_cannot_be_asked(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await Watches(web.backend).renew([A])
        await named(web, A)
        await until(lambda: _equals(seen(web), {A}))
        await ReferenceLookups(web.backend).answer(Answer("web", None, 503))
        await asyncio.sleep(0.3)
        assert await seen(web) == {A}


async def _equals(asked: Awaitable[set[str]], wanted: set[str]) -> bool:
    return await asked == wanted
