"""The client against scripted answers: each status, each body that may come, and what leaves for upstream."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from prometheus_client import REGISTRY

from bridge import __version__
from bridge.events import State
from bridge.upstream.client import MAX_ERROR_BODY, MAX_REFERENCE, Ended, Garbled, Listed, PhalaClient, StreamEvent
from bridge.upstream.errors import (
    BatchAbsentError,
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

KEY = "phak_very-secret"
NOW = 1_795_536_000.0
STATE = {"id": "u-1", "name": "web", "status": "running"}

Handler = Callable[[httpx.Request], httpx.Response]


class StoppedClock:
    def time(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the client never sleeps")


def client_for(handler: Handler | httpx.Response) -> PhalaClient:
    answer = handler if callable(handler) else lambda request: handler
    return PhalaClient("http://up/api/v1/", KEY, clock=StoppedClock(), transport=httpx.MockTransport(answer))


async def received(response: httpx.Response) -> list[StreamEvent]:
    async with client_for(response).stream("u-1", target="deleted", interval=5, timeout=120) as events:
        return [event async for event in events]


def sse(body: bytes, content_type: str = "text/event-stream") -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": content_type}, content=body)


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


async def test_a_stream_asks_for_events_on_a_connection_of_its_own() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return sse(b"")

    async with client_for(answer).stream("my app", target="deleted", interval=5, timeout=120) as events:
        assert [event async for event in events] == []
    assert asked[0].url.raw_path == b"/api/v1/cvms/my%20app/state?target=deleted&interval=5&timeout=120"
    assert (asked[0].headers["accept"], asked[0].headers["connection"]) == ("text/event-stream", "close")


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


async def test_a_stream_gives_its_states_and_its_end() -> None:
    body = b'event: state\ndata: {"status":"running"}\n\nevent: ping\ndata: x\n\ndata: {"status":"no"}\n\n'
    for kind in ("complete", "timeout"):
        first, last = await received(sse(body + b"event: " + kind.encode() + b"\ndata: {}\n\n"))
        assert isinstance(first, State)
        assert (first.status, last) == ("running", Ended(kind))


async def test_one_garbled_state_does_not_end_a_stream() -> None:
    bad = b"".join(b"event: state\ndata: " + data + b"\n\n" for data in (b"{", b"[]", b'{"status":1}'))
    events = await received(sse(bad + b'event: state\ndata: {"status":"running"}\n\n'))
    assert [type(event) for event in events] == [Garbled, Garbled, Garbled, State]


async def test_ten_megabytes_on_one_line_end_the_stream_as_garbled() -> None:
    good = b'event: state\ndata: {"status":"running"}\n\n'
    events = await received(sse(good + b"event: state\ndata: " + b"x" * 10_000_000 + b"\n\n" + good))
    assert [type(event) for event in events] == [State, Garbled]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"error":"gone","message":"The CVM is gone"}', "The CVM is gone"),
        (b'{"error":"gone","elapsed":3}', "gone"),
        (b'{"error":{"a":1},"message":null}', ""),
        (b"<html>", ""),
        (b"[" * 100_000, ""),
        (b'{"error":"' + b"x" * 1000 + b'"}', "x" * 200),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_an_error_event_gives_a_short_readable_message(data: bytes, message: str) -> None:
    assert await received(sse(b"event: error\ndata: " + data + b"\n\n")) == [Ended("error", message)]


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=latin-1", "Text/Event-Stream"])
async def test_a_stream_is_utf_8_whatever_its_header_says(content_type: str) -> None:
    (event,) = await received(sse('event: state\ndata: {"status":"x","name":"ä"}\n\n'.encode(), content_type))
    assert isinstance(event, State)
    assert event.name == "ä"


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/event-streams", ""])
async def test_a_stream_of_another_type_is_no_stream(content_type: str) -> None:
    with pytest.raises(UnparsableError):
        await received(sse(b"", content_type))


async def test_a_batch_keeps_the_answers_that_are_objects() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, json.loads(request.content)) == ("POST", {"vm_uuids": ["a", "b", "c"]})
        return httpx.Response(200, json={"a": {"status": "running"}, "b": None, "c": "running"})

    assert await client_for(answer).batch(["a", "b", "c"]) == {"a": {"status": "running"}}


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_missing_batch_route_has_an_error_of_its_own(status: int) -> None:
    with pytest.raises(BatchAbsentError):
        await client_for(httpx.Response(status)).batch(["a"])


@pytest.mark.parametrize(
    ("status", "kind"), [(401, UnauthorizedError), (422, RequestRefusedError), (429, RateLimitedError)]
)
async def test_a_failing_batch_route_is_not_a_missing_one(status: int, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind):
        await client_for(httpx.Response(status)).batch(["a"])


@pytest.mark.parametrize("body", [b"[]", b"null", b"nonsense"])
async def test_a_batch_answer_that_is_not_an_object_is_unparsable(body: bytes) -> None:
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, content=body)).batch(["a"])


def listing(held: dict[int, list[object]], asked: list[int], **more: object) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["page"]))
        return httpx.Response(200, json={"items": held.get(asked[-1], []), **more})

    return answer


def named(name: str) -> dict[str, object]:
    return {"vm_uuid": name}


@pytest.mark.parametrize(
    ("more", "total", "pages"),
    [({"pages": 2}, None, 2), ({"total": 2, "pages": None}, 2, None), ({"total": "2", "pages": -1}, None, None)],
    ids=repr,
)
async def test_a_page_has_the_counts_that_upstream_gives(
    more: dict[str, object], total: int | None, pages: int | None
) -> None:
    asked: list[int] = []
    page = await client_for(listing({2: [named("b")]}, asked, **more)).list_page(2)
    assert (asked, [each.vm_uuid for each in page.entries]) == ([2], ["b"])
    assert (page.total, page.pages) == (total, pages)


async def test_both_shapes_of_the_list_are_read_and_other_entries_skipped() -> None:
    hosted = {"id": "u-1", "status": "stopped", "app_id": "a1", "instance_id": "i1"}
    items = [
        {"hosted": hosted, "name": "old", "status": "running"},
        {"id": "cvm_2", "vm_uuid": "u-2", "name": "new", "status": "running", "app_id": "app_2", "instance_id": "i2"},
        {"id": "cvm_3", "vm_uuid": None, "name": "provisioning", "hosted": None},
        {"id": 4, "vm_uuid": 4, "name": ""},
        None,
        "cvm_5",
    ]
    assert (await client_for(listing({1: items}, [], pages=1)).list_page(1)).entries == (
        Listed(vm_uuid="u-1", name="old", app_id="a1", instance_id="i1", status="running"),
        Listed(vm_uuid="u-2", hashed_id="cvm_2", name="new", app_id="app_2", instance_id="i2", status="running"),
        Listed(hashed_id="cvm_3", name="provisioning"),
        Listed(),
    )


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"items":{}}', b"nonsense"])
async def test_a_list_without_items_is_unparsable(body: bytes) -> None:
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, content=body)).list_page(1)


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


async def test_the_details_of_a_cvm_are_read_as_an_entry_of_the_list() -> None:
    details = {"id": 7, "vm_uuid": "u", "name": "web-1", "app_id": "0a"}
    client = client_for(httpx.Response(200, json=details))
    assert await client.read_listed("a/b") == Listed(vm_uuid="u", name="web-1", app_id="0a")
    with pytest.raises(UnparsableError):
        await client_for(httpx.Response(200, json=[])).read_listed("web-1")
