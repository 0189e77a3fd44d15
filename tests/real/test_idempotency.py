"""`Idempotency-Key`: requests that are repeated, over a real Redis."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

import pytest

from bridge.web.api.idempotency import IdempotencyKey
from bridge.web.api.webhook_models import EndpointRegistration
from tests.real.webhook_api import URL, Api, fields, front


@pytest.fixture
async def api(redis_url: str) -> Any:
    tokens = "root:root-token:admin other:other-token:admin"
    async with front(redis_url, tokens=tokens) as client:
        yield client


def keyed(key: str = "key-1", token: str = "root-token") -> dict[str, str]:
    return {"Idempotency-Key": key, "Authorization": f"Bearer {token}"}


async def test_the_same_request_again_gets_the_same_endpoint_and_secret(api: Api) -> None:
    body = {"url": URL, "to": ["error"]}
    asked = [api.post("/v1/webhooks", json=body, headers=keyed()) for _ in range(5)]
    answers = [*await asyncio.gather(*asked), await api.post("/v1/webhooks", json=body, headers=keyed())]
    assert {each.status_code for each in answers} == {201}
    first = answers[0].json()
    assert all(each.json() == first for each in answers)
    assert {each.headers["location"] for each in answers} == {f"/v1/webhooks/{first['id']}"}
    assert len((await api.get("/v1/webhooks")).json()["items"]) == 1
    turned = json.dumps({"to": ["error"], "url": URL, "enabled": True})
    again = await api.post("/v1/webhooks", content=turned, headers={**keyed(), "Content-Type": "application/json"})
    assert (again.status_code, again.json()) == (201, first)


async def test_another_body_is_422_and_another_token_or_key_makes_another(api: Api) -> None:
    made = (await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())).json()
    other = await api.post("/v1/webhooks", json={"url": URL, "to": ["error"]}, headers=keyed())
    assert (other.status_code, fields(other)) == (422, ["Idempotency-Key"])
    for headers in (keyed("key-2"), keyed(token="other-token")):
        more = await api.post("/v1/webhooks", json={"url": URL}, headers=headers)
        assert more.status_code == 201
        assert more.json()["id"] != made["id"]


def test_a_mark_of_a_version_without_signatures_fits_the_same_request() -> None:
    key = IdempotencyKey(b"key-1", "/v1/webhooks root")
    body = EndpointRegistration.model_validate({"url": URL, "to": ["error"]})
    fields = {name: value for name, value in body.model_dump(mode="json").items() if name != "signatures"}
    text = json.dumps(fields, sort_keys=True)
    mark = f"{hmac.new(b'key-1', text.encode(), 'sha256').hexdigest()}.x"
    assert key.is_of(mark, body)
    assert not key.is_of(mark, body.model_copy(update={"signatures": ["v1", "v1a"]}))


async def test_a_rotated_secret_is_not_told_again(api: Api) -> None:
    made = (await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())).json()
    await api.post(f"/v1/webhooks/{made['id']}/rotate-secret")
    again = await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert "secret" not in again.json()


async def test_after_a_day_the_secret_is_not_told_again(api: Api) -> None:
    made = (await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())).json()
    key = "{bridge}:webhooks:endpoints"
    stored = await api.backend.client.hget(key, made["id"])
    await api.backend.client.hset(key, made["id"], stored.replace(made["created_at"], "2026-01-01T00:00:00.000Z"))
    again = await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert "secret" not in again.json()


async def test_the_key_outlives_changes_and_ends_with_the_endpoint(api: Api) -> None:
    made = (await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())).json()
    one = f"/v1/webhooks/{made['id']}"
    await api.put(one, json={"url": URL, "description": "put"})
    await api.patch(one, json={"to": ["error"]})
    again = await api.post("/v1/webhooks", json={"url": URL}, headers=keyed())
    assert (again.status_code, again.json()["description"], again.json()["to"]) == (201, "put", ["error"])
    await api.delete(one)
    anew = await api.post("/v1/webhooks", json={"url": URL, "to": ["x"]}, headers=keyed())
    assert (anew.status_code, anew.json()["id"]) == (201, made["id"])
    assert anew.json()["secret"] != made["secret"]


async def test_neither_key_nor_body_nor_secret_can_be_read_in_redis(api: Api) -> None:
    body = {"url": f"{URL}?geheim", "headers": {"X": "geheim"}}
    made = (await api.post("/v1/webhooks", json=body, headers=keyed("geheimer-key"))).json()
    stored = json.dumps(await api.backend.client.hgetall("{bridge}:webhooks:endpoints"))
    assert "geheim" not in stored
    assert made["secret"] not in stored


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb"])
async def test_a_key_of_another_form_is_422(api: Api, key: str) -> None:
    answer = await api.post("/v1/webhooks", json={"url": URL}, headers=keyed(key))
    assert (answer.status_code, fields(answer)) == (422, ["Idempotency-Key"])
    assert (await api.get("/v1/webhooks")).json()["items"] == []


async def test_a_repeated_test_is_one_delivery(api: Api) -> None:
    made = await api.made()
    asked = [await api.post(f"/v1/webhooks/{made['id']}/test", headers=keyed()) for _ in range(3)]
    assert {each.status_code for each in asked} == {202}
    assert len({json.dumps(each.json()["event"]) for each in asked}) == 1
    assert len((await api.get("/v1/deliveries")).json()["items"]) == 1
    await api.post(f"/v1/webhooks/{made['id']}/test", headers=keyed("key-2"))
    assert len((await api.get("/v1/deliveries")).json()["items"]) == 2
