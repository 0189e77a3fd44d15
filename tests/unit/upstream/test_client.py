"""The client's requests: what leaves for upstream, and what each status and each body of an answer becomes."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import traceback
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from prometheus_client import REGISTRY

from bridge import __version__
from bridge.upstream.client import MAX_ERROR_BODY, MAX_REFERENCE
from bridge.upstream.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServerError,
    UnauthorizedError,
    UnparsableError,
    UnreachableError,
    UpstreamError,
)
from tests.unit.upstream.scripted_client import KEY, NOW, STATE, client_for, listing, received, sse


async def test_a_state_is_read_with_the_key_the_version_and_our_name() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=STATE)

    reading = await client_for(answer).read_state("u-1")
    assert (reading.state.fields, reading.sent_at, reading.made_at) == (STATE, 7.0, 7.0)
    (request,) = asked
    assert str(request.url) == "http://up/api/v1/cvms/u-1/state"
    sent = {name: request.headers[name] for name in ("x-api-key", "x-phala-version", "accept", "user-agent")}
    assert sent == {
        "x-api-key": KEY,
        "x-phala-version": "2026-06-23",
        "accept": "application/json",
        "user-agent": f"cvm-bridge/{__version__}",
    }


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (204, RequestRefusedError, "refused"),
        (302, RequestRefusedError, "refused"),
        (400, RequestRefusedError, "refused"),
        (401, UnauthorizedError, "unauthorized"),
        (403, ForbiddenError, "unauthorized"),
        (404, NotFoundError, "not_found"),
        (408, UnreachableError, "unreachable"),
        (409, ConflictError, "conflict"),
        (422, RequestRefusedError, "refused"),
        (428, ConflictError, "conflict"),
        (429, RateLimitedError, "rate_limited"),
        (500, ServerError, "unreachable"),
        (503, ServerError, "unreachable"),
        (599, ServerError, "unreachable"),
    ],
)
async def test_each_status_is_one_error_for_reads_and_streams(
    status: int, kind: type[UpstreamError], reason: str
) -> None:
    response = httpx.Response(status, json={"detail": "why"}, headers={"Retry-After": "30"})
    with pytest.raises(UpstreamError) as read:
        await client_for(response).read_state("u-1")
    with pytest.raises(UpstreamError) as streamed:
        await received(httpx.Response(status, json={"detail": "why"}, headers={"Retry-After": "30"}))
    for error in (read.value, streamed.value):
        assert (type(error), error.reason, error.status, error.retry_after) == (kind, reason, status, 30.0)
        assert (json.loads(error.body), error.content_type) == ({"detail": "why"}, "application/json")


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0.0),
        (" 12 ", 12.0),
        ("3600", 3600.0),
        (_date(90), 90.0),
        (_date(90).replace("GMT", "-0000"), 90.0),
        ("3601", 3600.0),
        ("-5", None),
        ("9" * 300, 3600.0),
        ("9" * 400, 3600.0),
        ("9" * 5000, 3600.0),
        ("²", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (_date(-90), None),
        (_date(86_400), 3600.0),
    ],
)
async def test_retry_after_is_used_in_both_forms_and_a_longer_one_counts_as_an_hour(
    value: str, wait: float | None
) -> None:
    response = httpx.Response(429, headers=[(b"Retry-After", value.encode())])
    with pytest.raises(RateLimitedError) as caught:
        await client_for(response).read_state("u-1")
    assert caught.value.retry_after == wait


@pytest.mark.parametrize("location", [b"http://up/other", b"http://[", b"javascript:x", b"http://\xe9.com/", b"\0"])
async def test_a_redirect_is_refused_whatever_its_target(location: bytes) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(307, headers=[(b"Location", location)])

    with pytest.raises(RequestRefusedError):
        await client_for(answer).read_state("u-1")
    assert len(asked) == 1


@pytest.mark.parametrize("ref", ["a/b", "a?b=c", "a#b", "../x", "%2e%2e", "a b", "ä", "\0\r\n", "a" * MAX_REFERENCE])
async def test_a_reference_is_one_segment_of_the_path_whatever_it_holds(ref: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        segments = request.url.raw_path.decode().split("/")
        assert (segments[:4], segments[5:]) == (["", "api", "v1", "cvms"], ["state"])
        return httpx.Response(200, json={"status": "x", "name": httpx.URL("http://x/" + segments[4]).path[1:]})

    assert (await client_for(answer).read_state(ref)).state.name == ref


@pytest.mark.parametrize("ref", ["", ".", "..", "\ud800", "a" * (MAX_REFERENCE + 1)], ids=ascii)
async def test_an_unusable_reference_is_refused_without_a_request(ref: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("asked")

    with pytest.raises(RequestRefusedError):
        await client_for(answer).read_state(ref)
    with pytest.raises(RequestRefusedError):
        async with client_for(answer).stream(ref, target="deleted", interval=5, timeout=120):
            pass


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[1]", b'"running"', b'{"name":"x"}', b'{"status":null}', b"[" * 100_000], ids=len
)
async def test_an_answer_that_is_not_a_state_is_unparsable(body: bytes) -> None:
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, content=body)).read_state("u-1")


async def test_an_answer_is_cut_at_its_limit_after_decompression() -> None:
    body = gzip.compress(b'{"status":"' + b"x" * 5_000_000 + b'"}')
    assert len(body) < 10_000
    with pytest.raises(UnparsableError, match="more than"):
        await client_for(httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=body)).read_state("u-1")


async def test_broken_compression_is_unparsable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))

    with pytest.raises(UnparsableError):
        await client_for(answer).read_state("u-1")
    # httpx leaves its inner generator, which failed half-way, to the garbage collector and the loop.
    gc.collect()
    await asyncio.sleep(0)


async def test_an_endless_error_page_keeps_its_status_and_not_its_body() -> None:
    with pytest.raises(ServerError) as caught:
        await client_for(httpx.Response(502, content=b"x" * (MAX_ERROR_BODY + 1))).read_state("u-1")
    assert (caught.value.status, caught.value.body) == (502, b"")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.ProxyError]
)
async def test_every_connection_error_is_unreachable(error: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("from the network")

    with pytest.raises(UnreachableError):
        await client_for(answer).read_state("u-1")


async def test_an_error_never_shows_the_key_not_even_in_its_traceback() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value b'{request.headers['x-api-key']}'")

    with pytest.raises(UnreachableError) as caught:
        await client_for(answer).read_state("u-1")
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_each_request_is_counted_by_route_and_outcome() -> None:
    def counted(route: str, outcome: str) -> float:
        name = "bridge_upstream_requests_total"
        return REGISTRY.get_sample_value(name, {"route": route, "outcome": outcome}) or 0.0

    wanted = [("state", "ok"), ("state", "not_found"), ("batch", "no_batch"), ("list", "ok"), ("stream", "ok")]
    wanted += [("stream", "rate_limited"), ("stream", "unparsable"), ("list", "unparsable"), ("state", "unparsable")]
    before = {each: counted(*each) for each in wanted}
    await client_for(httpx.Response(200, json=STATE)).read_state("u-1")
    await client_for(listing({1: []}, [])).list_page(1)
    await received(sse(b""))
    for answer in (httpx.Response(404), httpx.Response(200, content=b"no state")):
        with pytest.raises(UpstreamError):
            await client_for(answer).read_state("u-1")
    with pytest.raises(UpstreamError):
        await client_for(httpx.Response(404)).batch(["u-1"])
    with pytest.raises(UpstreamError):
        await client_for(httpx.Response(200, content=b"no list")).list_page(1)
    for answer in (httpx.Response(429), sse(b"", "text/html")):
        with pytest.raises(UpstreamError):
            await received(answer)
    assert {each: counted(*each) - before[each] for each in wanted} == dict.fromkeys(wanted, 1.0)
