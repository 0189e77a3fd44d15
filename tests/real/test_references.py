"""References: many at once, made-up ones, and upstream's refusals. The test answers as the leader."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from bridge.clock import SystemClock, rfc3339
from bridge.config import Settings
from bridge.sealing import new_key
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from tests.real.fronts import Front, front
from tests.servers import PATIENCE

READ = {"Authorization": "Bearer readsecret0123456789"}
LIMITED = {"Authorization": "Bearer limitedsecret0123456789"}
ADMIN = {"Authorization": "Bearer adminsecret0123456789"}
OWN = "0000000a-0000-4000-8000-000000000000"
TOKENS: Any = Settings.model_validate(
    {
        "tokens": f"reader:readsecret0123456789:read limited:limitedsecret0123456789:read:{OWN} "
        "admin:adminsecret0123456789:admin"
    }
).tokens
EVENTS = {"Accept": "text/event-stream"}


async def answered(web: Front, *answers: Answer) -> None:
    for answer in answers:
        await ReferenceLookups(web.backend).answer(answer)


def named(count: int) -> list[str]:
    return [f"cvm-{number}" for number in range(count)]


async def test_a_thousand_clients_of_a_cvm_each_are_all_served(redis_url: str) -> None:
    async with front(redis_url) as web:
        await web.lead()
        await Watches(web.backend).renew(named(1000))
        clients = [await web.connect(f"/v1/events?cvm={cvm_id}&snapshot=0") for cvm_id in named(1000)]
        async with asyncio.timeout(PATIENCE):
            heads = [await reader.readline() for reader, _ in clients]
        assert {head.split()[1] for head in heads} == {b"200"}


async def test_one_request_may_name_very_many_cvms(redis_url: str) -> None:
    async with front(redis_url, secret_key=new_key()) as web:
        await web.lead()
        await Watches(web.backend).renew(named(1000))
        query = "&".join(f"cvm={cvm_id}" for cvm_id in named(1000))
        reader, _ = await web.connect(f"/v1/events?{query}&snapshot=0")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).split()[1] == b"200"
        await answered(web, *(Answer(f"web-{number}", f"cvm-{number}") for number in range(150)))
        body = {"url": "https://93.184.216.34/hook", "cvms": [f"web-{number}" for number in range(150)]}
        made = await web.http.post(f"{web.url}/v1/webhooks", json=body)
        assert made.status_code == 201, made.text
        assert set(made.json()["cvms"]) == set(named(150))


async def test_a_read_token_has_so_many_made_up_names_a_minute(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS, lookups_per_minute=3) as web:

        async def ask(name: str, headers: dict[str, str]) -> httpx.Response:
            return await web.http.get(f"{web.url}/v1/cvms/{name}", headers=headers, timeout=PATIENCE)

        waiting = [asyncio.create_task(ask(f"made-up-{number}", READ)) for number in range(3)]
        async with asyncio.timeout(PATIENCE):
            while await web.backend.client.zcard(web.backend.keys.lookups) < 3:  # noqa: ASYNC110 - Redis sets no event
                await asyncio.sleep(0.01)
        refused = await ask("made-up-4", READ)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:bridge:problem:too-many-lookups")
        assert int(refused.headers["retry-after"]) >= 1
        in_band = await ask("made-up-4/events", READ | EVENTS)
        assert (in_band.status_code, "event: too-many-lookups\n" in in_band.text) == (200, True)
        assert await web.backend.client.zcard(web.backend.keys.lookups) == 3
        # What is watched or was answered lately costs nothing, and others are not concerned.
        await answered(web, Answer("web-1", "cvm-1"))
        await Watches(web.backend).renew(["cvm-1"])
        assert [(await ask(name, READ)).status_code for name in ("cvm-1", "web-1")] == [200, 200]
        by_admin = asyncio.create_task(ask("made-up-5", ADMIN))
        await answered(web, *(Answer(f"made-up-{number}", None, 404, "{}") for number in (0, 1, 2, 5)))
        assert {task.status_code for task in await asyncio.gather(*waiting, by_admin)} == {404}


@pytest.mark.parametrize(
    "answer", [Answer("x", "cvm-2"), Answer("x", None, 404, "{}"), Answer("x", None, 409, '{"a":1}')]
)
async def test_a_limited_token_cannot_tell_what_there_is_from_what_there_is_not(redis_url: str, answer: Answer) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await Watches(web.backend).renew(["cvm-2"])
        await answered(web, answer)
        seen = [
            await web.http.get(f"{web.url}/v1/cvms/{name}{route}", headers=LIMITED)
            for name in ("x", "cvm-2")
            for route in ("", "/events")
        ]
        assert {(each.status_code, each.text) for each in seen} == {(403, seen[0].text)}


@pytest.mark.parametrize(("status", "shown"), [(401, 503), (403, 503), (410, 503), (500, 503), (503, 503), (429, 429)])
async def test_a_refusal_that_is_not_about_the_reference_is_a_passing_problem(
    redis_url: str, status: int, shown: int
) -> None:
    async with front(redis_url) as web:
        await answered(web, Answer("x", None, status, '{"detail":"the key of the bridge"}'))
        for path in ("/v1/cvms/x", "/v1/cvms/x/events", "/v1/events?cvm=x"):
            answer = await web.http.get(web.url + path)
            assert (answer.status_code, answer.json()["type"]) == (shown, "urn:bridge:problem:upstream")
            assert int(answer.headers["retry-after"]) >= 1
        for path in ("/v1/cvms/x/events", "/v1/events?cvm=x"):
            in_band = await web.http.get(web.url + path, headers=EVENTS)
            assert (in_band.status_code, "event: upstream\n" in in_band.text) == (200, True)


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_a_refusal_of_the_reference_is_final_and_passed_on(redis_url: str, status: int) -> None:
    async with front(redis_url) as web:
        await answered(web, Answer("x", None, status, '{"detail":"no"}'))
        for path in ("/v1/cvms/x/events", "/v1/events?cvm=x"):
            answer = await web.http.get(web.url + path, headers=EVENTS)
            assert (answer.status_code, answer.json()) == (status, {"detail": "no"})


async def test_a_fault_of_the_bridge_is_a_passing_problem_for_a_stream(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Watches, cvm_ids: object) -> int:
        raise RuntimeError

    async with front(redis_url) as web:
        await Watches(web.backend).renew(["cvm-1"])
        monkeypatch.setattr(Watches, "renew", fails)
        answer = await web.http.get(f"{web.url}/v1/events?cvm=cvm-1", headers=EVENTS)
        assert (answer.status_code, "event: internal\n" in answer.text) == (200, True)
        assert (await web.http.get(f"{web.url}/v1/events?cvm=cvm-1")).status_code == 500


async def seen_last(web: Front, **names: str) -> None:
    """Watched CVMs with these names, that have been seen just now."""
    now = rfc3339(SystemClock().time())
    for cvm_id, name in names.items():
        raw = f'{{"id":"{cvm_id}","name":"{name}","status":"running"}}'
        snapshot = Snapshot(cvm_id, raw, "running", name, now, now)
        await web.backend.client.hset(web.backend.keys.state, cvm_id, snapshot.to_json())
    await Watches(web.backend).renew(names)


ROUTES = ("/v1/cvms/{}", "/v1/cvms/{}/events", "/v1/events?cvm={}", "/api/v1/cvms/{}/state")


async def asked(web: Front, name: str, **headers: str) -> list[httpx.Response]:
    given = {"Accept": "application/json", **headers}
    return [await web.http.get(web.url + route.format(name), headers=given, timeout=PATIENCE) for route in ROUTES]


@pytest.mark.parametrize("leader", [None, 500, 429, 401])
async def test_a_name_of_a_watched_cvm_is_served_without_leader_or_upstream_and_marked(
    redis_url: str, leader: int | None
) -> None:
    """Without a leader nobody answers; else the leader does, with an error of upstream that is not about the name."""

    async def passing(web: Front, *names: str) -> None:
        if leader is not None:
            await answered(web, *(Answer(name, None, leader, "{}") for name in names))

    async with front(redis_url) as web:
        await seen_last(web, a="web-1", b="web-2", c="web-2")
        await answered(web, Answer("instance_1", "a"))
        await web.backend.client.delete(web.backend.keys.answer("instance_1"))  # a minute later
        await passing(web, "web-1", "instance_1")
        for name in ("web-1", "instance_1"):
            answers = await asked(web, name)
            assert [answer.status_code for answer in answers] == [200] * 4
            assert {answer.headers.get("bridge-reference") for answer in answers} == {"last-known"}
            assert (answers[0].json()["cvm_id"], answers[3].json()["id"]) == ("a", "a")
        stream = "/v1/cvms/web-1/events?snapshot=0", "/api/v1/cvms/web-1/state?target=stopped"
        for path in stream:
            async with web.http.stream("GET", web.url + path) as answer:
                assert (answer.status_code, answer.headers["bridge-reference"]) == (200, "last-known")
        await passing(web, "web-2")
        assert [answer.status_code for answer in await asked(web, "web-2")] == [409] * 4
        # An answer of the leader counts before all that; an id needs none.
        await answered(web, Answer("web-1", "b"))
        current = (await asked(web, "web-1"))[0]
        assert (current.json()["cvm_id"], "bridge-reference" in current.headers) == ("b", False)
        assert "bridge-reference" not in (await asked(web, "a"))[0].headers
        await answered(web, Answer("web-1", None, 404, '{"detail":"CVM not found"}'))
        assert [answer.status_code for answer in await asked(web, "web-1")] == [404] * 4


async def test_what_is_changed_by_a_name_needs_an_answer_of_upstream(redis_url: str) -> None:
    async with front(redis_url, secret_key=new_key()) as web:
        await seen_last(web, a="web-1")
        await answered(web, Answer("web-1", None, 503))
        body = {"url": "https://93.184.216.34/hook", "cvms": ["web-1"]}
        changes = [
            await web.http.put(f"{web.url}/v1/cvms/web-1"),
            await web.http.delete(f"{web.url}/v1/cvms/web-1"),
            await web.http.post(f"{web.url}/v1/webhooks", json=body),
        ]
        assert [answer.status_code for answer in changes] == [503] * 3


async def test_a_limited_token_cannot_tell_in_an_outage_which_names_there_are(redis_url: str) -> None:
    async with front(redis_url, open_access=False, tokens=TOKENS) as web:
        await seen_last(web, **{OWN: "mine", "cvm-2": "other", "cvm-3": "twice", "cvm-4": "twice"})
        hidden = ("other", "twice", "nobody")
        await answered(web, *(Answer(name, None, 503) for name in ("mine", *hidden)))
        assert [answer.status_code for answer in await asked(web, "mine", **LIMITED)] == [200] * 4
        answers = [await asked(web, name, **LIMITED) for name in hidden]
        for route in zip(*answers, strict=True):
            assert {(each.status_code, each.text) for each in route} == {(503, route[0].text)}
