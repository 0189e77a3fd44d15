"""The routes of webhook endpoints: what PUT, PATCH, rotations and enabling change, and what stays."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from bridge.clock import SystemClock
from bridge.store.endpoints import Endpoints
from tests.real.webhook_api import OTHER, SECRET, URL, Api, fields


async def test_put_is_idempotent_and_keeps_the_secret(api: Api) -> None:
    body = {"url": URL, "to": ["running"], "headers": {"X-A": "1"}}
    first = await api.put("/v1/webhooks/deploys", json=body)
    assert (first.status_code, first.headers["location"]) == (201, "/v1/webhooks/deploys")
    made = first.json()
    secret = made.pop("secret")
    for _ in range(2):
        again = await api.put("/v1/webhooks/deploys", json=body)
        assert (again.status_code, again.json()) == (200, made)
    assert await api.secrets("deploys") == [(secret, False)]
    other = await api.put("/v1/webhooks/deploys", json={"url": URL, "enabled": False, "secret": secret})
    assert (other.json()["to"], other.json()["headers"], other.json()["enabled"]) == ([], {}, False)
    assert await api.secrets("deploys") == [(secret, False)]
    assert (await api.put("/v1/webhooks/deploys", json=body)).json()["enabled"] is True
    rotated = await api.put("/v1/webhooks/deploys", json={**body, "secret": OTHER})
    assert "secret" not in rotated.json()
    assert await api.secrets("deploys") == [(OTHER, False), (secret, True)]
    assert len((await api.get("/v1/webhooks")).json()["items"]) == 1


@pytest.mark.parametrize("endpoint_id", ["a b", "ä", "a.b", "a:b", "{x}", "a" * 65, "a\n"])
async def test_an_id_of_other_characters_is_422(api: Api, endpoint_id: str) -> None:
    path = f"/v1/webhooks/{quote(endpoint_id)}"
    assert fields(await api.put(path, json={"url": URL})) == ["id"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://1.1.1.1/other?key=2", True),
        ("HTTPS://1.1.1.1:443/", True),
        ("https://1.1.1.2/", False),
        ("https://1.1.1.1:8443/", False),
        ("http://1.1.1.1:443/", False),
    ],
)
async def test_hidden_headers_do_not_move_to_another_host(api: Api, url: str, kept: bool) -> None:
    made = await api.made(url="https://1.1.1.1/hook", headers={"X-A": "1"})
    one = f"/v1/webhooks/{made['id']}"
    assert (await api.patch(one, json={"url": url})).json()["headers"] == ({"X-A": "***"} if kept else {})
    moved = await api.patch(one, json={"url": "https://1.1.1.3/", "headers": {"X-B": "2"}})
    assert moved.json()["headers"] == {"X-B": "***"}


async def test_patch_changes_only_the_given_fields(api: Api) -> None:
    made = await api.made(secret=SECRET, headers={"X-A": "1"}, to=["running"], description="old")
    del made["secret"]
    one = f"/v1/webhooks/{made['id']}"
    changed = await api.patch(one, json={"description": "new", "to": []})
    assert changed.json() == {**made, "description": "new", "to": []}
    assert (await api.patch(one, json={})).json() == changed.json()
    assert (await api.patch(one, json={"enabled": False})).json()["enabled"] is False
    assert (await api.patch(one, json={"headers": {}, "url": URL + "2"})).json() == {
        **changed.json(),
        "headers": {},
        "url": URL + "2",
        "health": "disabled",
        "enabled": False,
    }
    assert await api.secrets(made["id"]) == [(SECRET, False)]
    for body, named in (({"secret": SECRET}, "secret"), ({"id": "x"}, "id"), ({"url": "http://10.0.0.1/"}, "url")):
        assert fields(await api.patch(one, json=body)) == [named]
    for name in ("url", "description", "cvms", "from", "to", "types", "format", "signatures", "headers", "enabled"):
        assert fields(await api.patch(one, json={name: None})) == [name]


async def test_a_rotation_shows_the_new_secret_and_lets_the_old_ones_sign_for_a_day(api: Api) -> None:
    made = await api.made(secret=SECRET)
    one = f"/v1/webhooks/{made['id']}"
    rotated = (await api.post(f"{one}/rotate-secret")).json()
    assert {**rotated, "secret": SECRET} == made
    given = (await api.post(f"{one}/rotate-secret", json={"secret": OTHER})).json()
    assert given["secret"] == OTHER
    assert await api.secrets(made["id"]) == [(OTHER, False), (rotated["secret"], True), (SECRET, True)]
    stored = await api.stored(made["id"])
    left = [(each.expires_at_ms or 0) / 1000 - SystemClock().time() for each in stored.secrets_sealed[1:]]
    assert all(86_000 < seconds <= 86_400 for seconds in left)
    for _ in range(6):
        await api.post(f"{one}/rotate-secret")
    assert len(await api.secrets(made["id"])) == 5
    assert fields(await api.post(f"{one}/rotate-secret", json={"secret": "short"})) == ["secret"]
    assert fields(await api.post(f"{one}/rotate-secret", json={"key": "x"})) == ["key"]


async def test_the_overlap_of_a_rotation_can_be_given_and_0_ends_every_old_secret_at_once(api: Api) -> None:
    made = await api.made(secret=SECRET)
    one = f"/v1/webhooks/{made['id']}/rotate-secret"
    for seconds in (2_592_000, 3600):
        assert (await api.post(one, json={"overlap_seconds": seconds})).status_code == 200
    stored = await api.stored(made["id"])
    left = [(each.expires_at_ms or 0) / 1000 - SystemClock().time() for each in stored.secrets_sealed[1:]]
    assert all(3_500 < seconds <= 3_600 for seconds in left)
    assert (await api.post(one, json={"secret": OTHER, "overlap_seconds": 0})).status_code == 200
    assert await api.secrets(made["id"]) == [(OTHER, False)]
    for wrong in (-1, 2_592_001, 0.5, "60", None, True):
        assert fields(await api.post(one, json={"overlap_seconds": wrong})) == ["overlap_seconds"]


async def test_enable_removes_the_reason(api: Api) -> None:
    made = await api.made()
    await Endpoints(api.backend).disable(made["id"], "410 Gone")
    shown = await api.shown(made["id"])
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "410 Gone")
    one = f"/v1/webhooks/{made['id']}"
    assert (await api.patch(one, json={"enabled": False})).json()["disabled_reason"] == "410 Gone"
    enabled = await api.post(f"{one}/enable")
    assert (enabled.status_code, enabled.json()["enabled"], enabled.json()["disabled_reason"]) == (200, True, None)
