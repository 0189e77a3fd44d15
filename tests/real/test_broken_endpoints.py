"""One endpoint or delivery that cannot be read in Redis is told, can be removed, and costs the others nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bridge.clock import SystemClock
from bridge.store.connection import Backend, Script
from bridge.store.deliveries import Deliveries
from bridge.store.endpoint_record import BROKEN
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreError
from bridge.webhooks.endpoint_cache import EndpointCache
from bridge.webhooks.enqueuer import Enqueuer
from tests.lanes import Bench, bench, endpoint, serve, unsealed
from tests.real.test_dispatcher import sending
from tests.real.webhook_api import URL, front
from tests.receivers import Hit

ROOT = "{bridge}:webhooks"

MALFORMED: list[dict[str, Any]] = [
    {"created_after": "words"},
    {"created_after": 7},
    {"cvms": [["a"]]},
    {"types": {}},
    {"url": None},
    {"url": "\ud800"},
    {"headers": ["x"]},
    {"secrets": [1]},
    {"format": "carrier pigeon"},
    {"rate": 10**400},
    {"concurrency": 10**400},
]


async def malform(backend: Backend, endpoint_id: str, fields: dict[str, Any]) -> None:
    stored = json.loads(await backend.client.hget(f"{ROOT}:endpoints", endpoint_id))
    await backend.client.hset(f"{ROOT}:endpoints", endpoint_id, json.dumps({**stored, **fields}))


async def fill(made: Bench) -> None:
    await Enqueuer(made.lanes, EndpointCache(made.endpoints, unsealed), SystemClock()).catch_up()


@pytest.mark.parametrize("fields", MALFORMED)
async def test_dispatchers_go_on_beside_a_malformed_endpoint(redis_url: str, fields: dict[str, Any]) -> None:
    async with sending(redis_url) as stage:
        await stage.register("e", "f")
        await malform(stage.backend, "e", fields)
        await stage.endpoints.disable("f")
        await stage.endpoints.enable("f")  # all endpoints are read again
        await stage.append("a", "b")
        await stage.receiver.until(lambda: len(stage.receiver.order("/f", "b")) == 1, "the other endpoint's")
        assert {hit.path for hit in stage.receiver.hits} == {"/f"}


@pytest.mark.parametrize("text", ["x", "[]", "{}", None])
async def test_a_broken_endpoint_is_listed_refuses_and_can_be_removed(redis_url: str, text: str | None) -> None:
    async with front(redis_url) as api:
        for name in ("e", "f"):
            assert (await api.put(f"/v1/webhooks/{name}", json={"url": URL})).status_code == 201
        key = f"{ROOT}:endpoints"
        await (api.backend.client.hset(key, "e", text) if text else api.backend.client.hdel(key, "e"))
        items = (await api.get("/v1/webhooks")).json()["items"]
        assert [(each["id"], each["enabled"], each["disabled_reason"]) for each in items] == [
            ("e", False, BROKEN),
            ("f", True, None),
        ]
        assert await api.shown("e") == items[0]
        for method, path, body in (
            ("PATCH", "", {"to": ["running"]}),
            ("POST", "/rotate-secret", {}),
            ("POST", "/enable", {}),
            ("POST", "/test", {}),
            ("POST", "/recover", {"since": "2026-01-01T00:00:00Z"}),
        ):
            answer = await api.request(method, f"/v1/webhooks/e{path}", json=body)
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:bridge:problem:endpoint-broken"), path
        assert (await api.delete("/v1/webhooks/e")).status_code == 204
        assert [each["id"] for each in (await api.get("/v1/webhooks")).json()["items"]] == ["f"]


async def test_a_broken_endpoint_can_be_registered_again(redis_url: str) -> None:
    async with front(redis_url) as api:
        assert (await api.put("/v1/webhooks/e", json={"url": URL})).status_code == 201
        await malform(api.backend, "e", {"created_after": "words"})
        answer = await api.put("/v1/webhooks/e", json={"url": URL, "to": ["running"]})
        assert answer.status_code == 201
        assert answer.json()["secret"]
        assert (await api.shown("e"))["to"] == ["running"]


@pytest.mark.parametrize("name", ["a b", "x" * 65, b"\xff", "ü"])
async def test_a_registration_without_a_usable_name_is_removed(redis_url: str, name: str | bytes) -> None:
    async with front(redis_url) as api:
        assert (await api.put("/v1/webhooks/e", json={"url": URL})).status_code == 201
        await api.backend.client.hset(f"{ROOT}:endpoints", name, "{}")
        assert [each["id"] for each in (await api.get("/v1/webhooks")).json()["items"]] == ["e"]
        assert await api.backend.client.hkeys(f"{ROOT}:endpoints") == ["e"]


async def history(backend: Backend) -> tuple[Bench, list[str]]:
    made = await bench(backend)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    ids = [await made.writer.append(cvm) for cvm in ("a", "a", "b")]
    await made.fill()
    return made, ids


FOREIGN = ["due:e", "busy:e", "claims:e", "health:e", "pending:e", "delivered:e", "skipped:e", "lane:e:a"]


@pytest.mark.parametrize("key", [*FOREIGN, "delivery", "attempts", "event"])
async def test_a_removal_is_complete_whatever_is_in_the_keys(backend: Backend, key: str) -> None:
    made, ids = await history(backend)
    assert (await made.claim()).claims
    spoiled = {"delivery": f"delivery:e-{ids[0]}", "attempts": f"attempts:e-{ids[0]}", "event": f"event:{ids[0]}"}
    await backend.client.set(f"{ROOT}:{spoiled.get(key, key)}", "not what belongs here")
    assert await made.endpoints.remove("e")
    left = await backend.client.keys(f"{ROOT}:*")
    assert [each for each in left if each.endswith(":e") or ":e-" in each or ":e:" in each] == []
    assert [each.event.id for each in (await Deliveries(backend).page("f"))[0]] == [
        each for each in reversed(ids) if key != "event" or each != ids[0]
    ]
    await made.endpoints.remove("f")
    assert await backend.client.keys(f"{ROOT}:*") == []


@pytest.mark.parametrize("damage", ["no event", "odd event", "other type", "odd times", "odd attempts", "odd status"])
async def test_a_damaged_delivery_is_left_out_of_lists_that_have_all_others(redis_url: str, damage: str) -> None:
    async with front(redis_url) as api:
        client = api.backend.client
        _, ids = await history(api.backend)
        delivery, event = f"{ROOT}:delivery:e-{ids[0]}", f"{ROOT}:event:{ids[0]}"
        match damage:
            case "no event":
                await client.delete(event)
            case "odd event":
                await client.hset(event, "json", '{"id":[]}')
            case "other type":
                await client.set(delivery, "words")
            case "odd times":
                await client.hset(delivery, mapping={"at": "words", "fin": "1e300"})
            case "odd attempts":
                await client.rpush(f"{ROOT}:attempts:e-{ids[0]}", "[", "{}", "[7,7,7,7,7]")
            case "odd status":
                await client.hset(delivery, "s", "words")
        answer = await api.get("/v1/webhooks/e/deliveries")
        assert answer.status_code == 200
        shown = [each["event"]["id"] for each in answer.json()["items"]]
        readable = damage in ("odd times", "odd attempts")
        assert shown == [each for each in reversed(ids) if readable or each != ids[0]]
        one = await api.get(f"/v1/deliveries/e-{ids[0]}")
        assert one.status_code == (200 if readable else 404)
        assert (await api.get("/v1/webhooks/e/deliveries?after=words")).status_code == 422


@pytest.mark.parametrize("status", ["pending", "delivered", "given_up", "skipped"])
async def test_a_list_of_another_type_is_an_empty_one(redis_url: str, status: str) -> None:
    async with front(redis_url) as api:
        await history(api.backend)
        await api.backend.client.set(f"{ROOT}:{status}:e", "not what belongs here")
        found = await api.get("/v1/webhooks/e/deliveries")
        assert found.status_code == 200
        assert len(found.json()["items"]) == (0 if status == "pending" else 3)
        assert (await api.get("/v1/webhooks")).status_code == 200
        assert (await api.delete("/v1/webhooks/e")).status_code == 204


async def test_a_delivery_whose_event_cannot_be_read_is_skipped_and_its_lane_goes_on(backend: Backend) -> None:
    made, ids = await history(backend)
    await backend.client.hset(f"{ROOT}:event:{ids[0]}", "json", "words")
    assert sorted(await serve(made)) == [("e", "a"), ("e", "b"), ("f", "a"), ("f", "b")]
    assert await backend.client.zcard(f"{ROOT}:skipped:e") == 1


async def spoil(backend: Backend, suffix: str) -> None:
    await backend.client.delete(ROOT + suffix)
    await backend.client.set(ROOT + suffix, "not what belongs here")


@pytest.mark.parametrize("suffix", ["", ":ids", ":disabled", ":changed", ":due"])
@pytest.mark.parametrize("during", ["the fill", "an attempt"])
async def test_a_shared_key_of_another_type_is_replaced_and_nothing_is_lost(
    redis_url: str, suffix: str, during: str
) -> None:
    async with sending(redis_url) as stage:

        async def answer(hit: Hit) -> int:
            if len(stage.receiver.hits) == 3:
                await spoil(stage.backend, suffix)
            return 204

        stage.receiver.answer = answer
        await stage.register("e", "f")
        await stage.append("a", "a")
        if during == "the fill":
            await spoil(stage.backend, suffix)
        await stage.append("a", "b")
        expected = {(path, cvm, number) for path in ("/e", "/f") for cvm, number in zip("aaab", "1234", strict=True)}
        await stage.receiver.until(
            lambda: {(hit.path, hit.cvm_id, hit.number) for hit in stage.receiver.accepted} == expected, "all"
        )
        for path in ("/e", "/f"):
            assert list(dict.fromkeys(stage.receiver.order(path, "a"))) == ["1", "2", "3"]


class Interrupted(Backend):
    """Behind the first step that Redis refuses, `meanwhile` runs before the caller learns of it."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        try:
            return await super().run(script, keys, args)
        except StoreError:
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                await meanwhile()
            raise


@pytest.mark.parametrize("suffix", ["", ":endpoints", ":ids", ":disabled", ":changed"])
async def test_a_step_goes_on_where_another_process_has_mended_the_shared_key_first(
    backend: Backend, suffix: str
) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint("e"))
    await made.writer.append("a")
    await spoil(backend, suffix)
    late, mended = Interrupted(backend.client, "bridge"), []

    async def mended_by_the_other() -> None:
        mended.append(await Endpoints(backend).create(endpoint("g")))

    late.meanwhile = mended_by_the_other
    await Endpoints(late).create(endpoint("f"))
    assert mended, "both found the damage"
    assert [each.id for each, _ in await Endpoints(late).page()] == ["e", "f", "g"]


async def test_registrations_that_were_overwritten_are_told_and_new_ones_work(redis_url: str) -> None:
    async with sending(redis_url) as stage:
        await stage.register("e", "f")
        await spoil(stage.backend, ":endpoints")
        assert [each.broken for each, _ in await stage.endpoints.page()] == [True, True]
        assert await stage.endpoints.remove("e")
        await stage.register("e", "g")
        await stage.append("a")
        await stage.receiver.until(lambda: len(stage.receiver.accepted) == 2, "the new ones'")
        assert {hit.path for hit in stage.receiver.hits} == {"/e", "/g"}


@pytest.mark.parametrize(
    "fields",
    [
        {"position": "words"},
        {"position": "18446744073709551615-18446744073709551615"},
        {"position": "99999999999999-0"},
        {"partial": "\ufffd"},
        {"partial": "words"},
        {"revision": "words"},
        {"revision": "1e300"},
        {"revision": "-1"},
        {"revision": "07"},
        {"stamp": "inf", "floor": "nan"},
    ],
)
async def test_a_checkpoint_that_cannot_be_read_is_found_anew_without_loss_or_repeat(
    backend: Backend, fields: dict[str, str]
) -> None:
    made, ids = await history(backend)
    assert len(await serve(made)) == 6
    ids += [await made.writer.append("a")]
    await backend.client.hset(ROOT, mapping=fields)
    await fill(made)
    await fill(made)
    assert await serve(made) == [("e", "a"), ("f", "a")]
    assert [each.event.id for each in (await Deliveries(backend).page("e"))[0]] == ids[::-1]


@pytest.mark.parametrize("how", ["spoiled", "deleted"])
async def test_a_lost_checkpoint_is_found_anew_though_most_deliveries_are_forgotten_and_an_endpoint_is_new(
    backend: Backend, how: str
) -> None:
    made = await bench(backend, finished=2)
    await made.endpoints.create(endpoint("e"))
    for _ in range(5):
        await made.writer.append("a")
    await fill(made)
    assert len(await serve(made)) == 5
    unread = await made.writer.append("a")
    await backend.client.delete(ROOT)
    if how == "spoiled":
        await spoil(backend, "")
    await made.endpoints.create(endpoint("g"))
    await fill(made)
    assert await serve(made) == [("e", "a")]
    assert (await Deliveries(backend).page("e"))[0][0].event.id == unread
