"""Teams register endpoints by themselves: what a token that is limited to CVMs can do, sees and gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.config_values import Allowlist
from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web.api import endpoint_owners, token_cvms
from bridge.webhooks.dispatcher import Dispatcher, announce_named_cvms
from bridge.webhooks.formats import render
from tests.lanes import FakePoster, Writer, named
from tests.real.fronts import Front, front
from tests.servers import PATIENCE

A, B, C = (f"0000000{each}-0000-4000-8000-000000000000" for each in "abc")
KEY = new_key()
URL = "http://127.0.0.1:9"
TEAM, REST = f"team:team-secret:admin:web,{C}", f"rest:rest-secret:admin:{A},{B},{C}"
TOKENS = f"root:root-secret:admin {TEAM} {REST} see:see-secret:read:{A}"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cvms, "LOOK_UP_EVERY", 0.05)
    monkeypatch.setattr(endpoint_owners, "COMPARE_EVERY", 0.05)


class Bridge:
    """A front end, and a dispatcher whose receivers are `poster`."""

    def __init__(self, web: Front, poster: FakePoster, writer: Writer) -> None:
        self.web, self.poster, self.writer = web, poster, writer

    async def ask(self, token: str, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}-secret"}
        return await self.web.http.request(method, f"{self.web.url}/v1{path}", headers=headers, json=body)

    async def made(self, token: str, path: str, **fields: Any) -> dict[str, Any]:
        answer = await self.ask(token, "POST", "/webhooks", {"url": f"{URL}/{path}", **fields})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def listed(self, token: str) -> list[str]:
        answer = await self.ask(token, "GET", "/webhooks?limit=1")
        found = answer.json()["items"]
        while (after := answer.json()["next"]) is not None:
            answer = await self.ask(token, "GET", f"/webhooks?limit=1&after={after}")
            found += answer.json()["items"]
        return [each["id"] for each in found]

    async def gets(self, *paths: str) -> dict[str, str]:
        """The CVMs (a letter each) of which an endpoint gets an event that is written now."""
        self.poster.got.clear()
        for each in (A, B, C):
            await self.writer.append(each)
        async with asyncio.timeout(PATIENCE):  # the one at /all is made last
            while len(self.of("all")) < 3:  # noqa: ASYNC110 - the dispatcher decides
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        return {path: self.of(path) for path in paths}

    def of(self, path: str) -> str:
        mine = [json.loads(got.body)["subject"] for got in self.poster.got if got.url == f"{URL}/{path}"]
        return "".join(sorted(each[7] for each in mine))


@asynccontextmanager
async def bridge(backend: Backend, redis_url: str, writer: Writer, tokens: str = TOKENS) -> AsyncIterator[Bridge]:
    settings: Any = Settings.model_validate({"tokens": tokens})
    poster, stop = FakePoster(), asyncio.Event()
    sender = Dispatcher(
        backend,
        poster,
        unseal=Sealer([SecretStr(KEY)]).open,
        retry=[1],
        clock=SystemClock(),
        render=lambda format, event, ran: render("cloudevents", event, ran=ran),
        sign=named,
    )
    given = {"tokens": settings.tokens, "secret_key": KEY, "webhook_allow": with_loopback(Allowlist())}
    async with front(redis_url, open_access=False, **given) as web:
        sending = asyncio.create_task(sender.run(stop))
        yield Bridge(web, poster, writer)
        stop.set()
        await sending


@asynccontextmanager
async def led(redis_url: str) -> AsyncIterator[tuple[Backend, Writer]]:
    backend = connect(redis_url, "bridge")
    try:
        await Watches(backend).renew([A, B, C])
        await named_web(backend, A)
        yield backend, await Writer.lead(backend)
    finally:
        await backend.close()


async def named_web(backend: Backend, cvm_id: str) -> None:
    await ReferenceLookups(backend).answer(Answer("web", cvm_id, 200))


async def reaches(made: Bridge, endpoint_id: str, *cvms: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            shown = (await made.ask("root", "GET", f"/webhooks/{endpoint_id}")).json()["limited_to"]
            if set(shown or ()) - {"web"} == set(cvms):
                return
            await asyncio.sleep(0.02)


async def test_an_endpoint_gets_what_its_owner_may_see_at_that_moment(redis_url: str) -> None:
    async with led(redis_url) as (backend, writer):
        async with bridge(backend, redis_url, writer) as first:
            team = await first.made("team", "team")
            await first.made("rest", "some", cvms=[A, B])
            await first.made("root", "all")
            await reaches(first, team["id"], A, C)
            assert (team["owner"], team["url"]) == ("team", f"{URL}/team")
            assert await first.gets("team", "some") == {"team": "ac", "some": "ab"}
            await named_web(backend, B)
            await reaches(first, team["id"], B, C)
            assert await first.gets("team", "some") == {"team": "bc", "some": "ab"}
        fewer = f"root:root-secret:admin team:team-secret:admin:{C} rest:rest-secret:admin:{B},{C}"
        async with bridge(backend, redis_url, writer, fewer) as second:
            await reaches(second, team["id"], C)
            assert await second.gets("team", "some") == {"team": "c", "some": "b"}
        async with bridge(backend, redis_url, writer, "root:root-secret:admin") as third:
            await reaches(third, team["id"])
            assert await third.gets("team", "some") == {"team": "", "some": ""}


async def test_an_endpoint_of_sets_gets_members_as_they_are_at_each_event_and_no_more_than_its_owner_sees(
    redis_url: str,
) -> None:
    tokens = "root:root-secret:admin team:team-secret:admin:name:web-*"
    async with led(redis_url) as (backend, writer), bridge(backend, redis_url, writer, tokens) as made:
        team = await made.made("team", "team", cvms=["name:*", "app_1F"])
        assert (team["cvms"], team["limited_to"]) == (["name:*", "app_1f"], ["name:web-*"])
        await made.made("root", "app", cvms=["app_1f", A])
        await made.made("root", "all")
        refused = await made.ask("team", "PATCH", f"/webhooks/{team['id']}", {"cvms": ["name:"]})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "cvms[0]")
        for cvm_id, name, app_id in ((A, "web-1", None), (B, "api-1", "1f"), (C, "web-2", "1f"), (C, "old-2", "1f")):
            await writer.append(cvm_id, name=name, app_id=app_id)
        async with asyncio.timeout(PATIENCE):
            while len(made.of("all")) < 4:  # noqa: ASYNC110 - the dispatcher decides
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert (made.of("team"), made.of("app")) == ("ac", "abcc")
        await announce_named_cvms(backend, await Endpoints(backend).all(), 45.0)
        survey = await Watches(backend).survey()
        assert (survey.demand, survey.sets) == ({A: 1}, {"name:web-*": 1, "app_1f": 1})


async def test_what_waits_is_not_sent_and_not_shown_once_its_owner_may_not_see_it(redis_url: str) -> None:
    async with led(redis_url) as (backend, writer), bridge(backend, redis_url, writer) as made:
        made.poster.stalled = lambda got: got.url.endswith("/team") and A in got.body.decode()
        team = await made.made("team", "team")
        await reaches(made, team["id"], A, C)
        await made.made("root", "all")
        await made.gets()
        await made.gets()  # two of A: one in flight, one behind it
        await named_web(backend, B)
        await reaches(made, team["id"], B, C)
        made.poster.got.clear()
        made.poster.gate.set()

        async def statuses() -> list[str]:
            page = (await Deliveries(backend).page(team["id"]))[0]
            return [each.status for each in page if each.event.cvm_id == A]

        async with asyncio.timeout(PATIENCE):
            while "pending" in await statuses():  # noqa: ASYNC110 - the dispatcher decides
                await asyncio.sleep(0.02)
        assert await statuses() == ["skipped", "delivered"]
        assert made.of("team") == ""
        shown = (await made.ask("team", "GET", f"/webhooks/{team['id']}/deliveries")).json()["items"]
        every = (await made.ask("root", "GET", f"/webhooks/{team['id']}/deliveries")).json()["items"]
        assert {each["event"]["subject"] for each in shown} == {C}
        assert len(every) == 4
        hidden = next(each["id"] for each in every if each["event"]["subject"] == A)
        for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
            assert (await made.ask("team", method, f"/deliveries/{hidden}{path}")).status_code == 404
        assert (await made.ask("root", "GET", f"/deliveries/{hidden}")).status_code == 200


async def test_a_limited_token_manages_its_own_endpoints_and_there_are_no_others(redis_url: str) -> None:
    async with led(redis_url) as (backend, writer), bridge(backend, redis_url, writer) as made:
        mine = (await made.made("team", "team"))["id"]
        others = [(await made.made("rest", "rest"))["id"], (await made.made("root", "root"))["id"]]
        assert await made.listed("team") == [mine]
        assert await made.listed("see") == []
        assert set(await made.listed("root")) == {mine, *others}
        tests = [(await made.ask("root", "POST", f"/webhooks/{each}/test")).json()["id"] for each in others]
        for each in (*others, "unknown"):
            for method, path, body in (
                ("GET", "", None),
                ("PUT", "", {"url": f"{URL}/stolen"}),
                ("PATCH", "", {"enabled": False}),
                ("DELETE", "", None),
                ("POST", "/rotate-secret", None),
                ("POST", "/enable", None),
                ("POST", "/test", None),
                ("POST", "/recover", {"since": "2026-11-24T16:00:00Z"}),
                ("GET", "/deliveries", None),
            ):
                if (each, method) != ("unknown", "PUT"):
                    answer = await made.ask("team", method, f"/webhooks/{each}{path}", body)
                    assert (answer.status_code, answer.json()["type"][19:]) == (404, "no-such-endpoint"), (method, path)
        for each in tests:
            for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
                assert (await made.ask("team", method, f"/deliveries/{each}{path}")).status_code == 404
        kept = [(await made.ask("root", "GET", f"/webhooks/{each}")).json() for each in others]
        assert [(each["url"], each["enabled"]) for each in kept] == [(f"{URL}/rest", True), (f"{URL}/root", True)]

        assert (await made.ask("team", "PATCH", f"/webhooks/{mine}", {"cvms": [C]})).json()["cvms"] == [C]
        assert (await made.ask("team", "PATCH", f"/webhooks/{mine}", {"cvms": [B]})).status_code == 403
        assert (await made.ask("team", "POST", f"/webhooks/{mine}/test")).status_code == 202
        replaced = await made.ask("root", "PUT", f"/webhooks/{mine}", {"url": f"{URL}/new"})
        assert (replaced.json()["owner"], set(replaced.json()["limited_to"])) == ("team", {"web", A, C})
        assert (await made.ask("team", "DELETE", f"/webhooks/{mine}")).status_code == 204
        assert (await made.ask("see", "POST", "/webhooks", {"url": URL})).status_code == 403


async def test_an_endpoint_of_before_is_administrators_only(redis_url: str) -> None:
    async with led(redis_url) as (backend, writer), bridge(backend, redis_url, writer) as made:
        old = (await made.made("team", "team"))["id"]
        key = f"{backend.keys.webhooks}:endpoints"
        stored = json.loads(str(await backend.client.hget(key, old)))
        for name in ("owner", "reach", "signatures", "keys", "keys_suffix"):
            del stored[name]
        await backend.client.hset(key, old, json.dumps(stored, separators=(",", ":")))
        found = await Endpoints(backend).get(old)
        assert found is not None
        assert (found[0].owner, found[0].reach) == ("", None)
        assert (await made.ask("team", "GET", f"/webhooks/{old}")).status_code == 404
        assert (await made.ask("root", "GET", f"/webhooks/{old}")).json()["owner"] is None
