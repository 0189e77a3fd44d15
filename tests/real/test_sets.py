"""Apps and patterns over real sockets: members come and go while a stream is open. The test is the leader."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bridge.config import Settings
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web.api import token_cvms
from tests.real.fronts import Front, front
from tests.servers import PATIENCE

A, B, C, D = (f"0000000{each}-0000-4000-8000-000000000000" for each in "abcd")
JSON = {"Accept": "application/json"}
APP = "app_1f"
TOKENS: Any = Settings.model_validate(
    {"tokens": f"team:teamsecret0123456789:admin:name:web-*,{APP} all:allsecret:admin"}
).tokens
TEAM = {"Authorization": "Bearer teamsecret0123456789"}


class Stream:
    """What an open stream brings."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self.cursor = ""

    async def next(self) -> tuple[str, str]:
        """Name and first digit of the CVM of the next event."""
        name = ""
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await self.reader.readline()).decode().rstrip()
                field, _, value = line.partition(": ")
                if field == "id":
                    self.cursor = value
                elif field == "event":
                    name = value
                elif field == "data":
                    return name, json.loads(value).get("subject", "-" * 8)[7]


async def opened(web: Front, path: str, **headers: str) -> Stream:
    reader, _ = await web.connect(path, headers)
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] == b"200", head
    return Stream(reader)


async def page(web: Front, query: str, token: dict[str, str] | None = None) -> list[str]:
    answer = await web.http.get(f"{web.url}{query}", headers={**JSON, **(token or {})})
    assert answer.status_code == 200, answer.text
    return ["".join((each.get("subject") or each["cvm_id"])[7]) for each in answer.json()["items"]]


async def demanded(web: Front) -> set[str]:
    survey = await Watches(web.backend).survey()
    return {*survey.demand, *survey.sets}


async def until_demanded(web: Front, references: set[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await demanded(web) != references:  # noqa: ASYNC110 - a task of the front end announces it
            await asyncio.sleep(0.02)


async def test_a_member_enters_and_leaves_while_the_stream_is_open_and_every_resume_is_exact(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).renew([A, B, C, D])
        await web.append(A, name="web-1", app_id="1F")
        await web.append(B, name="api-1", app_id=APP)
        await web.append(C, name="web-2")
        stream = await opened(web, f"/v1/events?cvm={APP}&cvm=name:web-*")
        by_app = await opened(web, f"/v1/cvms/{APP}/events")
        assert [await stream.next() for _ in range(3)] == [("snapshot", each) for each in "abc"]
        assert [await by_app.next() for _ in range(2)] == [("snapshot", "a"), ("snapshot", "b")]
        before = stream.cursor
        await web.append(D, name="db-1")
        await web.append(D, name="web-3", app_id="1f")  # enters
        await web.append(C, name="old-2")  # leaves
        await web.append(A, name="web-1", app_id="1F", gone=True)
        came = [("state", "d"), ("transition", "a")]
        assert [await stream.next() for _ in came] == [await by_app.next() for _ in came] == came
        resumed = await opened(web, f"/v1/cvms/name:web-%3F/events?last_event_id={before}")
        assert [await resumed.next() for _ in came] == came
        assert await page(web, f"/v1/events?cvm={APP}&after={before}") == ["d", "a"]
        assert await page(web, f"/v1/events?cvm=*&after={before}") == ["d", "d", "c", "a"]
        await until_demanded(web, {APP, "name:web-*", "name:web-?"})


async def test_a_list_counts_what_its_sets_select_on_all_pages(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).renew([A, B, C, D])
        await web.append(A, name="web-1", app_id=APP, ready=True)
        await web.append(B, name="web-2", ready=False)
        await web.append(C, name="api-1", app_id="1f", ready=True)
        await ReferenceLookups(web.backend).answer(Answer("web-2", B, by_name=True))

        async def asked(query: str) -> tuple[str, str | None, object]:
            answer = (await web.http.get(f"{web.url}/v1/cvms?{query}")).json()
            return "".join(each["cvm_id"][7] for each in answer["items"]), answer["next"], answer.get("counts")

        two = {"all": 2, "ready": 2, "by_status": {"running": 2}}
        assert await asked(f"cvm={APP}") == ("ac", None, two)
        assert await asked(f"cvm={APP}&limit=1") == ("a", A, two)
        assert await asked(f"cvm={APP}&limit=1&after={A}") == ("c", None, two)
        one = {"all": 1, "ready": 0, "by_status": {"running": 1}}
        three = {"all": 3, "ready": 2, "by_status": {"running": 3}}
        assert await asked(f"cvm={APP}&cvm=web-2&limit=1") == ("a", A, three)
        assert await asked("cvm=name:web-*&ready=false") == ("b", None, one)
        assert await asked("cvm=*") == ("abcd", None, {**three, "all": 4})
        assert await asked("cvm=name:nobody") == ("", None, {"all": 0, "ready": 0, "by_status": {}})
        assert await asked("") == ("abcd", None, None)


async def test_a_reference_that_can_select_nothing_is_refused_by_name(redis_url: str) -> None:
    many = "&".join(f"cvm=name:{number}" for number in range(101))
    wrong = ["events?cvm=name:", "events?cvm=name:web-[1]", f"cvms?cvm={300 * 'x'}", f"events?{many}"]
    async with front(redis_url) as web:
        for path, field in [*((each, "cvm") for each in wrong), ("cvms/name:/events", "ref")]:
            answer = await web.http.get(f"{web.url}/v1/{path}")
            assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])


async def test_a_token_of_sets_sees_what_belongs_to_them_now_and_nothing_else(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cvms, "LOOK_UP_EVERY", 0.05)
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await web.lead()
        await Watches(web.backend).renew([A, B, C, D])
        await web.append(A, name="web-1")
        await web.append(B, name="api-1", app_id="1f")
        await web.append(C, name="api-2")
        everything = await opened(web, "/v1/events?cvm=name:*", **TEAM)
        by_id = await opened(web, f"/v1/events?cvm={A}&snapshot=0", **TEAM)
        waiting = await opened(web, f"/api/v1/cvms/{A}/state?target=stopped", **TEAM)
        assert [await everything.next(), await everything.next()] == [("snapshot", "a"), ("snapshot", "b")]
        assert await by_id.next() == ("position", "-")

        async def seen() -> tuple[list[str], list[int]]:
            ids = (A, B, C, D)
            statuses = [(await web.http.get(f"{web.url}/v1/cvms/{each}", headers=TEAM)).status_code for each in ids]
            assert await page(web, "/v1/cvms?cvm=*", TEAM) == await page(web, "/v1/cvms", TEAM)
            return await page(web, "/v1/cvms", TEAM), statuses

        assert await seen() == (["a", "b"], [200, 200, 403, 403])
        await web.append(A, name="old-1")  # leaves, and nobody is shown that
        await web.append(D, name="web-4")
        assert await everything.next() == ("state", "d")
        assert await seen() == (["b", "d"], [403, 200, 403, 200])
        for ended in (by_id, waiting):
            async with asyncio.timeout(PATIENCE):
                rest = await ended.reader.read()
            assert b"old-1" not in rest
            assert rest.endswith(b"0\r\n\r\n")
        await until_demanded(web, {APP, "name:web-*"})  # and not every CVM of the workspace
        # A name that nobody has seen yet is of the pattern, and one outside it is refused as before.
        await ReferenceLookups(web.backend).answer(Answer("web-9", "cvm-9", by_name=True))
        await ReferenceLookups(web.backend).answer(Answer("db-9", "cvm-8", by_name=True))
        for name, status in (("web-9", 404), ("db-9", 403)):
            assert (await web.http.get(f"{web.url}/v1/cvms/{name}", headers=TEAM)).status_code == status
