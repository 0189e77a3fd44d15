"""The routes of webhook endpoints: what is made and shown."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.config_values import Allowlist
from bridge.sealing import Sealer
from tests.bridges import whole
from tests.real.webhook_api import KEY, READER, SECRET, URL, Api, fields


async def test_an_endpoint_shows_its_secret_once_and_header_values_and_query_never(api: Api) -> None:
    answer = await api.post(
        "/v1/webhooks",
        json={"url": f"{URL}?key=geheim", "description": "mine", "headers": {"X-Token": "geheim"}, "to": ["running"]},
    )
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/webhooks/{made['id']}")
    assert made["id"].startswith("wh_")
    secret = made.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert made == {
        "id": made["id"],
        "url": f"{URL}?***",
        "description": "mine",
        "cvms": [],
        "from": [],
        "to": ["running"],
        "ready": None,
        "types": ["cvm.transition"],
        "format": "standard",
        "signatures": ["v1"],
        "public_keys": [],
        "public_keys_url": None,
        "rate": None,
        "concurrency": None,
        "headers": {"X-Token": "***"},
        "owner": "root",
        "limited_to": None,
        "enabled": True,
        "health": "ok",
        "disabled_reason": None,
        "created_at": made["created_at"],
        "pending": 0,
        "last_success_at": None,
        "last_failure_at": None,
        "failing_since": None,
        "breaker_open": False,
        "held_until": None,
        "postponed_since": None,
        "postponed_reason": None,
    }
    assert await api.shown(made["id"]) == made
    assert (await api.get("/v1/webhooks")).json() == {"items": [made], "next": None}
    assert (await api.head(f"/v1/webhooks/{made['id']}")).status_code == 200
    assert "geheim" not in (await api.get("/v1/webhooks")).text
    stored = await api.stored(made["id"])
    assert Sealer([SecretStr(KEY)]).open(stored.url_sealed) == f"{URL}?key=geheim"


@pytest.mark.parametrize("path", ["/services/T0/B0/geheim", "/geheim?key=geheim", "/?key=geheim"])
async def test_a_path_that_may_be_a_secret_is_shown_to_administrators_only(api: Api, path: str) -> None:
    made = await api.made(url=f"http://127.0.0.1:9{path}")
    assert made["url"] == f"http://127.0.0.1:9{path}".replace("?key=geheim", "?***")
    token = (await api.post("/v1/stream-tokens")).json()["access_token"]
    for asked in ({"headers": READER}, {"headers": {"Authorization": ""}, "params": {"access_token": token}}):
        one = await api.get(f"/v1/webhooks/{made['id']}", **asked)
        page = await api.get("/v1/webhooks", **asked)
        assert one.json()["url"] == page.json()["items"][0]["url"] == "http://127.0.0.1:9/…"
        assert "geheim" not in one.text + page.text
    refused = await api.patch(f"/v1/webhooks/{made['id']}", json={"url": one.json()["url"]})
    assert "a path that is not shown" in refused.text


async def test_a_secret_from_the_caller_is_stored_and_shown_once(api: Api) -> None:
    made = await api.made(secret=SECRET)
    assert made["secret"] == SECRET
    assert await api.secrets(made["id"]) == [(SECRET, False)]
    assert SECRET not in (await api.get(f"/v1/webhooks/{made['id']}")).text


async def test_a_list_pages_by_id_without_gap_or_repeat(api: Api) -> None:
    made = sorted([(await api.made(description=str(number)))["id"] for number in range(5)])
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await api.get("/v1/webhooks", params={"limit": 2, "after": after})).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
    assert seen == made


async def test_rate_and_concurrency_are_shown_and_end_with_null(api: Api) -> None:
    made = await api.made(rate=2.5, concurrency=3)
    assert (made["rate"], made["concurrency"]) == (2.5, 3)
    one = f"/v1/webhooks/{made['id']}"
    changed = (await api.patch(one, json={"rate": None})).json()
    assert (changed["rate"], changed["concurrency"]) == (None, 3)
    replaced = (await api.put(one, json={"url": URL, "rate": 10})).json()
    assert (replaced["rate"], replaced["concurrency"]) == (10, None)


async def test_a_deleted_endpoint_is_gone(api: Api) -> None:
    made = await api.made()
    answer = await api.delete(f"/v1/webhooks/{made['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.get(f"/v1/webhooks/{made['id']}")).status_code == 404
    assert (await api.delete(f"/v1/webhooks/{made['id']}")).status_code == 404
    assert (await api.get("/v1/webhooks")).json()["items"] == []


async def test_a_cvm_that_an_endpoint_names_is_watched(redis_url: str) -> None:
    settings = {"secret_key": KEY, "webhook_allow": with_loopback(Allowlist()), "cvms": ()}
    async with whole(redis_url, cvms=2, settings=settings) as bridge:
        first = bridge.sim.simulator.world.cvms[0]
        made = await bridge.http.post(f"{bridge.url}/v1/webhooks", json={"url": URL, "cvms": [first.name]})
        assert made.status_code == 201
        await bridge.until_seen(1)
        assert [event.cvm_id for event in await bridge.log()] == [first.vm_uuid]


async def test_references_become_canonical_ids_and_unknown_ones_are_field_errors(redis_url: str) -> None:
    settings = {"secret_key": KEY, "webhook_allow": with_loopback(Allowlist())}
    async with whole(redis_url, cvms=2, settings=settings) as bridge:
        await bridge.until_seen(2)
        first, second = bridge.sim.simulator.world.cvms
        body = {"url": URL, "cvms": [first.name, second.vm_uuid, first.vm_uuid]}
        made = await bridge.http.post(f"{bridge.url}/v1/webhooks", json=body)
        assert (made.status_code, made.json()["cvms"]) == (201, [first.vm_uuid, second.vm_uuid])
        unknown = await bridge.http.post(f"{bridge.url}/v1/webhooks", json={"url": URL, "cvms": ["nobody"]})
        assert fields(unknown) == ["cvms"]
        assert len((await bridge.http.get(f"{bridge.url}/v1/webhooks")).json()["items"]) == 1
