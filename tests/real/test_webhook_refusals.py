"""The routes of webhooks: what is refused, and that it is told what is wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from bridge.sealing import new_key
from bridge.webhook_formats import FORMATS
from tests.real.webhook_api import URL, Api, fields, front


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, ["url"]),
        ({"url": None}, ["url"]),
        ({"url": 5}, ["url"]),
        ({"url": ""}, ["url"]),
        ({"url": "ftp://127.0.0.1/"}, ["url"]),
        ({"url": "http://user:geheim@127.0.0.1/"}, ["url"]),
        ({"url": "http://nowhere.invalid/geheim"}, ["url"]),
        ({"url": "http://10.0.0.1/geheim"}, ["url"]),
        ({"url": "http://169.254.169.254/latest/meta-data/"}, ["url"]),
        ({"url": "http://2130706433/"}, ["url"]),
        ({"url": "http://[::ffff:127.0.0.1]/"}, ["url"]),
        ({"url": "http://[64:ff9b::7f00:1]/"}, ["url"]),
        ({"url": URL + "#geheim"}, ["url"]),
        ({"url": URL + "?***"}, ["url"]),
        ({"url": "http://127.0.0.1/" + "a" * 2048}, ["url"]),
        ({"url": URL, "colour": "blue", "more": 1}, ["colour", "more"]),
        ({"url": URL, "from_": []}, ["from_"]),
        ({"url": URL, "description": "a" * 1001}, ["description"]),
        ({"url": URL, "cvms": "web-1"}, ["cvms"]),
        ({"url": URL, "cvms": ["ok", ""]}, ["cvms[1]"]),
        ({"url": URL, "cvms": ["a"] * 1001}, ["cvms"]),
        ({"url": URL, "from": [1]}, ["from[0]"]),
        ({"url": URL, "to": [""]}, ["to[0]"]),
        ({"url": URL, "to": ["a"] * 101}, ["to"]),
        ({"url": URL, "types": ["cvm.snapshot"]}, ["types[0]"]),
        ({"url": URL, "format": "xml"}, ["format"]),
        *[({"url": URL, "signatures": wrong}, ["signatures"]) for wrong in ([], "v1a", None, ["v1", "v1a", "v1"])],
        ({"url": URL, "signatures": ["v2"]}, ["signatures[0]"]),
        *[
            ({"url": URL, "signatures": ["v1", "v1a"], "format": format}, ["signatures"])
            for format in FORMATS
            if format not in ("standard", "cloudevents")
        ],
        ({"url": URL, "enabled": "yes"}, ["enabled"]),
        *[({"url": URL, "rate": rate}, ["rate"]) for rate in (0, -1, 0.001, 1001, "5", True)],
        *[({"url": URL, "concurrency": many}, ["concurrency"]) for many in (0, -1, 11, 1.5, "5", True)],
        ({"url": URL, "secret": "geheim"}, ["secret"]),
        ({"url": URL, "secret": "whsec_geheim"}, ["secret"]),
        ({"url": URL, "secret": "whsec_" + base64.b64encode(b"s" * 23).decode()}, ["secret"]),
        ({"url": URL, "secret": "whsec_" + base64.b64encode(b"s" * 65).decode()}, ["secret"]),
        ({"url": URL, "secret": base64.b64encode(b"s" * 32).decode()}, ["secret"]),
        ({"url": URL, "headers": []}, ["headers"]),
        ({"url": URL, "headers": {"X": 1}}, ["headers.X"]),
        *[
            ({"url": URL, "headers": {name: "geheim"}}, ["headers"])
            for name in (
                "Host",
                "CONTENT-LENGTH",
                "Content-Type",
                "Transfer-Encoding",
                "Connection",
                "Accept-Encoding",
                "webhook-id",
                "Webhook-Signature",
                "X-Webhook-Timestamp",
                "Proxy-Authorization",
                "a b",
                "a:b",
                "a\r\nb",
                "ä",
                "",
            )
        ],
        *[({"url": URL, "headers": {"X": value}}, ["headers"]) for value in ("a\r\nb: c", "ä", "a\0", " a", "***")],
        ({"url": URL, "headers": {"X": "a" * 4097}}, ["headers"]),
        ({"url": URL, "headers": {f"X-{number}": "a" for number in range(101)}}, ["headers"]),
        ({"url": URL, "headers": {f"X-{number}": "a" * 4096 for number in range(5)}}, ["headers"]),
        ({"url": URL, "headers": {"X-A": "a", "x-a": "b"}}, ["headers"]),
        ({"url": 1, "to": 1, "format": 1}, ["url", "to", "format"]),
    ],
)
async def test_a_wrong_field_is_422_that_names_it_and_quotes_no_value(
    api: Api, given: dict[str, Any], named: list[str]
) -> None:
    for answer in (await api.post("/v1/webhooks", json=given), await api.put("/v1/webhooks/mine", json=given)):
        assert fields(answer) == named
        assert "geheim" not in answer.text
    assert (await api.get("/v1/webhooks")).json()["items"] == []


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "NaN", "[" * 20_000])
async def test_a_body_that_is_not_a_json_object_is_422(api: Api, body: str) -> None:
    answer = await api.post("/v1/webhooks", content=body, headers={"Content-Type": "application/json"})
    assert fields(answer) == ["body"]


async def test_a_body_has_a_limit_and_must_be_declared_as_json(api: Api) -> None:
    body = json.dumps({"url": URL, "description": "a" * 70_000})
    long = await api.post("/v1/webhooks", content=body, headers={"Content-Type": "application/json"})
    assert long.status_code == 413
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = await api.post("/v1/webhooks", content=json.dumps({"url": URL}), headers={"Content-Type": kind})
        assert answer.status_code == 415, kind


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/webhooks"),
        ("POST", "/v1/webhooks"),
        ("GET", "/v1/webhooks/x"),
        ("PUT", "/v1/webhooks/x"),
        ("PATCH", "/v1/webhooks/x"),
        ("DELETE", "/v1/webhooks/x"),
        ("POST", "/v1/webhooks/x/rotate-secret"),
        ("POST", "/v1/webhooks/x/enable"),
        ("POST", "/v1/webhooks/x/test"),
        ("POST", "/v1/webhooks/x/recover"),
        ("GET", "/v1/webhooks/x/deliveries"),
        ("GET", "/v1/deliveries"),
        ("GET", "/v1/deliveries/x"),
        ("POST", "/v1/deliveries/x/retry"),
        ("POST", "/v1/deliveries/x/cancel"),
    ],
)
async def test_every_route_checks_scope_and_query(api: Api, method: str, path: str) -> None:
    async def status(token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
        return (await api.request(method, path, headers=headers)).status_code

    assert await status(None) == 401
    assert await status("wrong") == 401
    limited = [await status("one-token"), await status("some-token")]
    if path == "/v1/deliveries":
        assert limited == [403, 403]
    else:  # there are no such endpoints for them either
        assert (limited[0] == 403) == (method != "GET")
        assert limited[1] == (await api.request(method, path)).status_code
    assert (await status("read-token") == 403) == (method != "GET")
    answer = await api.request(method, path, params={"colour": "blue"})
    assert fields(answer) == ["colour"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/webhooks/none", None),
        ("PATCH", "/v1/webhooks/none", {"description": "x"}),
        ("DELETE", "/v1/webhooks/none", None),
        ("POST", "/v1/webhooks/none/rotate-secret", None),
        ("POST", "/v1/webhooks/none/enable", {}),
        ("POST", "/v1/webhooks/none/test", {}),
        ("POST", "/v1/webhooks/none/recover", {"since": "2026-11-24T16:00:00Z"}),
        ("GET", "/v1/webhooks/none/deliveries", None),
        ("GET", "/v1/deliveries/none", None),
        ("GET", "/v1/deliveries/%00%C3%A4*", None),
        ("POST", "/v1/deliveries/none/retry", None),
    ],
)
async def test_unknown_endpoints_and_deliveries_are_404(api: Api, method: str, path: str, body: object) -> None:
    answer = await api.request(method, path, json=body)
    assert answer.status_code == 404, answer.text
    assert answer.json()["type"].startswith("urn:bridge:problem:no-such-")


async def test_without_a_secret_key_nothing_is_made_and_the_answer_names_the_remedy(redis_url: str) -> None:
    async with front(redis_url) as keyed:
        made = await keyed.made()
    async with front(redis_url, secret_key=()) as api:
        one = f"/v1/webhooks/{made['id']}"
        for method, path in (("POST", "/v1/webhooks"), ("PUT", one), ("PATCH", one), ("POST", f"{one}/rotate-secret")):
            answer = await api.request(method, path, json={"url": URL})
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:bridge:problem:no-secret-key"
            assert "bridge keygen" in answer.json()["detail"]
        assert (await api.shown(made["id"]))["url"] is None
    async with front(redis_url, secret_key=new_key()) as other:
        assert (await other.shown(made["id"]))["url"] is None
        assert (await other.delete(one)).status_code == 204
