from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from bridge.config import Token
from bridge.web.dropin.passthrough import ACCEPTED_SECONDS, MOST_ACCEPTED, Passthrough
from bridge.web.http.access import Access
from tests.virtual import VirtualClock, run_virtual

TOKENS = (Token("root", SecretStr("rootsecret"), "admin"),)

Handler = Callable[[httpx.Request], httpx.Response]


class Stage:
    """A passthrough whose upstream is a function; `asked` are the keys of its requests."""

    def __init__(self, answer: Handler | None = None) -> None:
        self.clock = VirtualClock()
        self.asked: list[str] = []
        self.answer = answer or (lambda _: httpx.Response(200, text='{"id":"cvm-1","status":"running"}'))
        self.access = Access(TOKENS, open_access=False, clock=self.clock)
        transport = httpx.MockTransport(self._handle)
        self.passthrough = Passthrough("http://upstream/api/v1", self.access, self.clock, transport=transport)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.01)
        self.asked.append(request.headers["x-api-key"])
        return self.answer(request)


def request(headers: dict[str, str], query: str = "") -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "query_string": query.encode()})


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({}, "", None),
        ({"x-api-key": ""}, "", None),
        ({"x-api-key": "phala"}, "", "phala"),
        ({"x-api-key": "rootsecret"}, "", None),
        ({"authorization": "Bearer phala"}, "", None),
        ({"x-api-key": "phala", "authorization": "Bearer other"}, "", "phala"),
        ({"x-api-key": "phala", "authorization": "Bearer rootsecret"}, "", None),
        ({"x-api-key": "phala", "authorization": "rootsecret"}, "", None),
        ({"x-api-key": "phala", "authorization": "bearer  rootsecret "}, "", None),
        ({"x-api-key": "Bearer rootsecret"}, "", None),
        ({"x-api-key": "phala"}, "access_token=rootsecret", None),
        ({"x-api-key": "phala"}, "access_token=other", "phala"),
    ],
)
def test_a_key_is_a_phala_key_only_if_the_request_has_no_credential_of_the_bridge(
    headers: dict[str, str], query: str, key: str | None
) -> None:
    assert Stage().passthrough.phala_key(request(headers, query)) == key


def test_a_stream_token_is_a_credential_of_the_bridge_too() -> None:
    async def scenario() -> None:
        stage = Stage()
        principal = stage.access.holder(request({"x-api-key": "rootsecret"}))
        token, _ = stage.access.stream_token(principal)
        assert stage.passthrough.phala_key(request({"x-api-key": "phala"}, f"access_token={token}")) is None

    run_virtual(scenario())


def test_upstream_is_asked_about_a_key_once_a_minute_for_each_cvm() -> None:
    async def scenario() -> None:
        stage = Stage()
        accept = stage.passthrough.accept
        assert await asyncio.gather(*[accept("k1", "web") for _ in range(24)]) == ["cvm-1"] * 24
        assert stage.asked == ["k1"]
        assert await accept("k1", "cvm-1") == "cvm-1"  # what the name turned out to be
        await asyncio.sleep(ACCEPTED_SECONDS - 1)
        assert await accept("k1", "web") == "cvm-1"
        assert stage.asked == ["k1"]
        await asyncio.sleep(1)
        await accept("k1", "web")
        await accept("k2", "web")
        assert stage.asked == ["k1", "k1", "k2"]

    run_virtual(scenario())


def test_upstreams_refusal_is_passed_on_and_not_remembered() -> None:
    async def scenario() -> None:
        body = json.dumps({"detail": "Invalid API key"})
        stage = Stage(lambda _: httpx.Response(401, text=body, headers={"retry-after": "7", "x-other": "1"}))
        refused = await stage.passthrough.accept("bad", "web")
        assert isinstance(refused, Response)
        assert (refused.status_code, bytes(refused.body).decode(), refused.headers["retry-after"]) == (401, body, "7")
        assert "x-other" not in refused.headers
        await stage.passthrough.accept("bad", "web")
        assert stage.asked == ["bad", "bad"]

    run_virtual(scenario())


@pytest.mark.parametrize("answer", ['{"name":"web","status":"running"}', "no state", '{"id":7,"status":"running"}'])
def test_a_state_without_an_id_gives_no_access(answer: str) -> None:
    async def scenario() -> None:
        stage = Stage(lambda _: httpx.Response(200, text=answer))
        assert await stage.passthrough.accept("k1", "web") is None
        assert await stage.passthrough.accept("k1", "web") is None
        assert stage.asked == ["k1", "k1"]

    run_virtual(scenario())


def test_an_unreachable_upstream_is_502_without_the_key_in_it() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b'secretkey'")

    async def scenario() -> None:
        refused = await Stage(fail).passthrough.accept("secretkey", "web")
        assert isinstance(refused, Response)
        assert refused.status_code == 502
        assert b"secretkey" not in bytes(refused.body)

    run_virtual(scenario())


def test_keys_are_remembered_as_hashes_and_only_so_many() -> None:
    async def scenario() -> None:
        stage = Stage(lambda asked: httpx.Response(200, json={"id": asked.url.path, "status": "running"}))
        for number in range(20):
            await stage.passthrough.accept("phalakey", f"cvm-{number}")
        remembered = stage.passthrough._accepted
        assert len(remembered) == 40
        assert not any("phalakey" in part for name in remembered for part in name)
        stage.passthrough._remember("h", (str(number) for number in range(2 * MOST_ACCEPTED)), "cvm-1")
        assert len(remembered) == MOST_ACCEPTED

    run_virtual(scenario())
