"""What a web page can make a browser send to a front end, with and without tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.config import Settings
from tests.real.fronts import Front, front

TOKEN = {"Authorization": "Bearer 0123456789abcdef"}

UNSAFE = [
    ("POST", "/v1/stream-tokens"),
    ("POST", "/v1/webhooks"),
    ("POST", "/v1/webhooks/ep_1/rotate-secret"),
    ("POST", "/v1/webhooks/ep_1/test"),
    ("PUT", "/v1/cvms/web-1"),
    ("DELETE", "/v1/cvms/web-1"),
    ("POST", "/api/v1/cvms"),
]


@pytest.fixture(params=["open", "tokens"])
async def web(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Front]:
    tokens = Settings.model_validate({"tokens": "me:0123456789abcdef:admin"}).tokens
    given: dict[str, Any] = {
        "cors_origins": ("https://status.example",),
        "webhook_secret": "whsec_0123456789abcdef0123456789abcdef",
    }
    async with front(redis_url, tokens=tokens, open_access=request.param == "open", **given) as made:
        yield made


@pytest.mark.parametrize(("method", "path"), UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    web: Front, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await web.http.request(method, web.url + path, headers={**TOKEN, **headers})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:bridge:problem:cross-site"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://status.example"},
        {"Origin": "https://status.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://bridge.example:8443", "X-Forwarded-Host": "bridge.example:8443"},
        {"Origin": "https://bridge.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_the_pages_own_requests_and_those_of_programs_pass(web: Front, headers: dict[str, str]) -> None:
    answer = await web.http.post(f"{web.url}/v1/stream-tokens", headers={**TOKEN, **headers})
    assert answer.status_code == 201
    own = {"Origin": web.url}
    assert (await web.http.post(f"{web.url}/v1/stream-tokens", headers={**TOKEN, **own})).status_code == 201


FOREIGN = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "a b"]
LOCAL = ["localhost:1", "LOCALHOST", "bridge.localhost", "127.0.0.1:80", "127.8.8.8", "[::1]:80"]


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_rebound_name_reads_nothing_of_an_open_bridge(redis_url: str, host: str) -> None:
    async with front(redis_url) as web:
        for path in ("/v1/cvms", "/v1/events", "/", "/api/v1/cvms/web-1/state", "/healthz"):
            answer = await web.http.get(web.url + path, headers={"Host": host})
            assert answer.status_code == 421
            assert answer.json()["type"] == "urn:bridge:problem:misdirected"


@pytest.mark.parametrize("host", LOCAL)
async def test_names_of_this_machine_reach_an_open_bridge(redis_url: str, host: str) -> None:
    async with front(redis_url) as web:
        assert (await web.http.get(f"{web.url}/v1/cvms", headers={"Host": host})).status_code == 200


async def test_with_tokens_any_name_will_do(redis_url: str) -> None:
    tokens = Settings.model_validate({"tokens": "me:0123456789abcdef:admin"}).tokens
    async with front(redis_url, tokens=tokens, open_access=False) as web:
        answer = await web.http.get(f"{web.url}/v1/cvms", headers={**TOKEN, "Host": "bridge.example"})
        assert answer.status_code == 200
