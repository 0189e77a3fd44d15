"""Key pairs of `v1a`: what the API shows of them, and what anybody gets below `/.well-known/`."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from bridge.sealing import new_key
from tests.real.webhook_api import READER, URL, Api, fields, front
from tests.schemas import check_answer

BOTH = ["v1", "v1a"]


async def published(api: Api, url: str) -> httpx.Response:
    """As anybody gets them: without a token."""
    return await api.get(url, headers={"Authorization": ""})


def key_of(jwk: dict[str, Any]) -> str:
    return "whpk_" + base64.b64encode(base64.urlsafe_b64decode(jwk["x"] + "=")).decode()


async def test_the_public_key_is_shown_and_published_and_the_private_one_never(api: Api) -> None:
    made = await api.made(signatures=BOTH)
    (key,) = made["public_keys"]
    assert (key["key"][:5], len(base64.b64decode(key["key"][5:])), key["expires_at"]) == ("whpk_", 32, None)
    for headers in (None, READER):
        shown = (await api.get(f"/v1/webhooks/{made['id']}", headers=headers)).json()
        assert (shown["signatures"], shown["public_keys"]) == (BOTH, [key])
    answer = await published(api, made["public_keys_url"])
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=300")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    check_answer("GET", "/.well-known/bridge/webhook-keys/{name}", 200, "application/jwk-set+json", answer.json())
    (jwk,) = answer.json()["keys"]
    assert jwk == {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key["key"], "x": jwk["x"]}
    assert key_of(jwk) == key["key"]


async def test_a_rotation_makes_a_new_pair_and_shows_when_the_old_one_ends(api: Api) -> None:
    made = await api.made(signatures=["v1a"])
    one, url = f"/v1/webhooks/{made['id']}", made["public_keys_url"]
    rotated = (await api.post(f"{one}/rotate-secret", json={"overlap_seconds": 60})).json()
    new, old = rotated["public_keys"]
    assert (new["expires_at"], old["key"], old["expires_at"] is None) == (None, made["public_keys"][0]["key"], False)
    keys = (await published(api, url)).json()["keys"]
    assert [(key_of(each), "exp" in each) for each in keys] == [(new["key"], False), (old["key"], True)]
    ended = (await api.post(f"{one}/rotate-secret", json={"overlap_seconds": 0})).json()
    (last,) = ended["public_keys"]
    assert last["key"] not in (new["key"], old["key"])
    assert [key_of(each) for each in (await published(api, url)).json()["keys"]] == [last["key"]]


async def test_the_pair_stays_through_changes_and_is_not_published_without_v1a(api: Api) -> None:
    made = await api.made(signatures=BOTH)
    one, url = f"/v1/webhooks/{made['id']}", made["public_keys_url"]
    without = (await api.put(one, json={"url": URL})).json()
    assert (without["signatures"], without["public_keys"], without["public_keys_url"]) == (["v1"], [], None)
    assert (await published(api, url)).status_code == 404
    again = (await api.patch(one, json={"signatures": ["v1a", "v1a"], "format": "cloudevents"})).json()
    assert (again["signatures"], again["public_keys"], again["public_keys_url"]) == (["v1a"], made["public_keys"], url)
    assert fields(await api.patch(one, json={"format": "slack"})) == ["signatures"]
    assert (await api.patch(one, json={"format": "slack", "signatures": ["v1"]})).status_code == 200
    assert (await api.delete(one)).status_code == 204
    assert (await published(api, url)).status_code == 404


async def test_nobody_finds_endpoints_by_their_ids(api: Api) -> None:
    made = await api.put("/v1/webhooks/guessed", json={"url": URL, "signatures": BOTH})
    await api.put("/v1/webhooks/plain", json={"url": URL})
    place, _, suffix = made.json()["public_keys_url"].rpartition(".")
    assert len(suffix) >= 22
    tried = [place, f"{place}.", f"{place}.{suffix[:-1]}", f"{place}.{suffix}x", f"{place}.ü", place + "x." + suffix]
    parent = place.removesuffix("guessed")
    tried += [parent + each for each in ("plain.", "plain.x", f"nobody.{suffix}", f".{suffix}", "a%00.x")]
    found = [await published(api, each) for each in tried]
    assert {(each.status_code, each.content) for each in found} == {(404, found[0].content)}


async def test_the_address_is_a_whole_one_where_the_bridge_knows_its_own(api: Api, redis_url: str) -> None:
    made = await api.made(signatures=BOTH)
    async with front(redis_url, secret_key=new_key(), public_url="https://bridge.test/base/") as other:
        shown = await other.shown(made["id"])
    assert shown["public_keys_url"] == f"https://bridge.test/base{made['public_keys_url']}"


async def test_a_front_end_without_the_key_shows_the_rest(api: Api, redis_url: str) -> None:
    made = await api.made(signatures=BOTH)
    async with front(redis_url, secret_key=new_key()) as other:
        shown = await other.shown(made["id"])
        assert (shown["url"], shown["public_keys"], shown["signatures"]) == (None, None, BOTH)
        answer = await published(other, made["public_keys_url"])
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:bridge:problem:no-secret-key")
