"""The client: its requests, its events, and when it tries again or ends. No sockets, no waiting."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from bridge.client import (
    AnswerError,
    BridgeError,
    Client,
    Events,
    ForbiddenError,
    Interruption,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from bridge.client_events import (
    DeliveryGivenUp,
    Event,
    PhalaNotice,
    Position,
    Readiness,
    Reset,
    Snapshot,
    Stale,
    State,
    Transition,
)
from bridge.web.api import samples


@pytest.fixture(autouse=True)
async def _ends_of_generators() -> AsyncIterator[None]:
    """httpx leaves the end of a body that is not read to its end to the loop."""
    yield
    for _ in range(20):
        await asyncio.sleep(0)


class EnoughError(Exception):
    """the script of answers is over"""


class Naps:
    """A clock whose sleeps return at once and are remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def time(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)


Answer = httpx.Response | Exception


class Bridge:
    """Answers in order, remembers the requests, then raises EnoughError."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self._answers:
            raise EnoughError
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def stream(*blocks: str, then: Exception | None = None) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block.encode()
        if then is not None:
            raise then

    return httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, content=body())


def event(entry_id: str, data: str = "{}", name: str = "transition") -> str:
    return f"id: {entry_id}\nevent: {name}\ndata: {data}\n\n"


def client(bridge: Bridge, naps: Naps | None = None, token: str | None = None) -> Client:
    transport = httpx.MockTransport(bridge)
    return Client("http://b", token, transport=transport, clock=naps or Naps(), rng=random.Random(1))


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.interruptions: list[Interruption] = []
        self.naps = Naps()

    @property
    def waits(self) -> list[float]:
        return self.naps.taken


async def heard(bridge: Bridge, *cvms: str, token: str | None = None, **given: Any) -> Heard:
    """All that a stream tells until the script is over."""
    found = Heard()
    async with client(bridge, found.naps, token) as made:
        events = made.events(*cvms, on_interruption=found.interruptions.append, **given)
        with pytest.raises(EnoughError):
            await collect(events, found.events.append)
    return found


async def collect(events: Events, take: Callable[[Event], None]) -> None:
    async for each in events:
        take(each)


CANARY = "canary-secret"


async def test_a_reconnect_sends_the_last_cursor_and_no_since() -> None:
    bridge = Bridge(stream(event("5-0"), event("6-0"), then=httpx.ReadError("cut")))
    found = await heard(bridge, since="2026-11-24T16:00:00Z")
    first, second = bridge.requests
    assert first.url.params["since"] == "2026-11-24T16:00:00Z"
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "6-0"
    assert "since" not in second.url.params
    assert [each.cursor for each in found.events] == ["5-0", "6-0"]


async def test_a_stream_begins_after_the_cursor_that_it_is_given() -> None:
    bridge = Bridge()
    await heard(bridge, after="4-0", since="2026-11-24T16:00:00Z", types=["cvm.readiness"], snapshots=False)
    assert bridge.requests[0].headers["last-event-id"] == "4-0"
    assert bridge.requests[0].url.query == b"type=cvm.readiness&snapshot=0"


async def test_what_comes_twice_is_given_twice() -> None:
    found = await heard(Bridge(stream(event("5-0"), event("5-0"))))
    assert len(found.events) == 2


async def test_a_position_moves_the_cursor() -> None:
    bridge = Bridge(stream(event("9-0", '{"sequence":"9"}', "position")))
    found = await heard(bridge)
    assert [type(each) for each in found.events] == [Position]
    assert bridge.requests[1].headers["last-event-id"] == "9-0"


async def test_snapshots_that_break_off_are_requested_again() -> None:
    bridge = Bridge(stream("retry: 2000\n\nevent: snapshot\ndata: {}\n\n", then=httpx.ReadError("cut")))
    await heard(bridge)
    assert "last-event-id" not in bridge.requests[1].headers


async def test_a_reset_does_not_move_the_cursor_before_its_snapshots_are_complete() -> None:
    texts = samples.by_name("/bridge/b")
    reset = f"event: reset\ndata: {json.dumps(texts['reset'])}\n\n"
    snapshot = f"event: snapshot\ndata: {json.dumps(texts['snapshot'])}\n\n"
    last = f"id: {texts['snapshot']['id'].partition('/')[0]}\n{snapshot}"
    found = await heard(Bridge(stream(reset, snapshot, last)), after="4-0")
    assert [type(each) for each in found.events] == [Reset, Snapshot, Snapshot]
    assert [each.cursor for each in found.events[:2]] == ["4-0", "4-0"]
    assert [each.is_last for each in found.events if isinstance(each, Snapshot)] == [False, True]


async def test_a_single_cvm_is_requested_on_its_own_route_and_several_by_filter() -> None:
    one, two = Bridge(), Bridge()
    await heard(one, "web 1/x")
    await heard(two, "a", "b")
    assert one.requests[0].url.raw_path == b"/v1/cvms/web%201%2Fx/events"
    assert two.requests[0].url.raw_path == b"/v1/events?cvm=a&cvm=b"


async def test_the_token_goes_into_a_header_and_nowhere_else() -> None:
    problem = {"title": f"who is {CANARY}?", "detail": CANARY}
    bridge = Bridge(httpx.Response(401, json=problem))
    async with client(bridge, token=CANARY) as made:
        with pytest.raises(UnauthorizedError) as raised:
            await anext(made.events())
    assert bridge.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    shown = (str(bridge.requests[0].url), repr(made), str(raised.value), repr(raised.value), str(vars(raised.value)))
    assert CANARY not in "".join(shown)


@pytest.mark.parametrize(("url", "token"), [("b:1", None), ("ftp://b", None), ("http://b", "ä"), ("http://b", "a\nb")])
def test_a_url_or_a_token_that_no_request_can_have_is_refused_at_once(url: str, token: str | None) -> None:
    with pytest.raises(ValueError, match="must"):
        Client(url, token)


async def test_waits_grow_while_nothing_answers_and_begin_small_again_once_events_came() -> None:
    failures = [httpx.ConnectError("no")] * 8
    found = await heard(Bridge(*failures, stream(event("5-0")), failures[0]))
    assert 0.25 <= found.waits[0] <= 0.5
    assert 7.5 <= found.waits[7] <= 15
    assert found.waits[8] <= 0.5
    assert [each.tries for each in found.interruptions] == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert all(isinstance(each.error, UnreachableError) for each in found.interruptions)


async def test_it_waits_as_long_as_the_bridge_asks_for_but_no_longer_than_a_minute() -> None:
    overloaded = httpx.Response(503, headers={"Retry-After": "7"}, json={"title": "Too many subscribers"})
    asked = stream("retry: 4000\n" + event("5-0"))
    endless = httpx.Response(429, headers={"Retry-After": "86400"})
    found = await heard(Bridge(overloaded, asked, endless))
    assert found.waits == [7.0, 4.0, 60.0]
    assert "Too many subscribers" in str(found.interruptions[0].error)


@pytest.mark.parametrize("name", ["overloaded", "unavailable", "internal", "some-later-problem"])
async def test_a_problem_in_the_stream_is_no_event_and_does_not_end_the_backoff(name: str) -> None:
    told = [f'retry: 6000\nevent: {name}\ndata: {{"detail":"full"}}\n\n']
    found = await heard(Bridge(stream(*told), stream(*told)))
    assert found.events == []
    assert [each.tries for each in found.interruptions] == [1, 2]
    assert found.waits == [6.0, 6.0]
    error = found.interruptions[0].error
    assert isinstance(error, UnavailableError)
    assert name in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (422, InvalidError),
        (400, RefusedError),
        (307, RefusedError),
    ],
)
async def test_a_final_refusal_ends_the_iteration_with_the_problem(status: int, kind: type[RefusedError]) -> None:
    problem = {"type": "urn:x", "title": "No", "detail": "a\x1bb", "errors": [{"field": "cvm", "detail": "odd"}]}
    async with client(Bridge(httpx.Response(status, json=problem))) as made:
        with pytest.raises(kind) as raised:
            await anext(made.events())
    assert str(raised.value) == f"the bridge answered {status}: No: a\\x1bb"
    assert (raised.value.status, raised.value.type, raised.value.fields) == (status, "urn:x", [("cvm", "odd")])


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"detail": [1]}', b"x" * 100_000, b"[" * 100_000])
async def test_an_error_without_a_problem_has_its_status(body: bytes) -> None:
    async with client(Bridge(httpx.Response(404, content=body))) as made:
        with pytest.raises(NotFoundError, match=r"^the bridge answered 404$"):
            await anext(made.events())


async def test_upstreams_own_error_tells_its_message() -> None:
    for details, told in (
        ([{"field": "cvm_id", "value": "web1", "message": "CVM not found"}], ": web1"),
        ([{"field": "cvm_id"}, 1], ""),
        ({"field": 1}, ""),
    ):
        body = {"error_code": "ERR-03-001", "message": "CVM not found", "details": details}
        async with client(Bridge(httpx.Response(404, json=body))) as made:
            with pytest.raises(NotFoundError, match=rf"^the bridge answered 404: CVM not found{told}$"):
                await anext(made.events())


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.ReadTimeout("silent")])
async def test_what_is_no_event_stream_and_a_silent_connection_are_tried_again(answer: Answer) -> None:
    found = await heard(Bridge(answer))
    assert len(found.interruptions) == 1


async def test_an_iteration_that_is_cancelled_resumes_without_a_gap() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield event("5-0").encode()
        await asyncio.Event().wait()

    silent = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body())
    bridge = Bridge(silent, stream(event("6-0")))
    async with client(bridge) as made, made.events() as events:
        assert (await anext(events)).cursor == "5-0"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(events)
        assert (await anext(events)).cursor == "6-0"
    assert bridge.requests[1].headers["last-event-id"] == "5-0"


async def test_a_closed_stream_is_over() -> None:
    bridge = Bridge(stream(event("5-0"), event("6-0")))
    async with client(bridge) as made:
        events = made.events()
        await anext(events)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


def test_every_event_of_the_documents_is_typed_and_all_its_data_are_fields() -> None:
    async def parsed() -> list[Event]:
        blocks = [event("5-0", json.dumps(each), name) for name, each in samples.by_name("/bridge/b").items()]
        return (await heard(Bridge(stream(*blocks)))).events

    found = asyncio.run(parsed())
    names = {"from": "status_before", "to": "status"}
    assert {Transition, State, Readiness, Snapshot, Stale, Reset, PhalaNotice, DeliveryGivenUp} < {
        type(each) for each in found
    }
    assert Event not in {type(each) for each in found}
    for each in found:
        for name, value in each.data.items():
            untyped = isinstance(each, Snapshot) and name == "from"
            assert untyped or getattr(each, names.get(name, name)) == value


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        "[" * 9999,
        '{"id":"1","type":7,"data":[]}',
        '{"id":"1","type":"cvm.later","sequence":"²"}',
    ],
)
async def test_an_event_of_unknown_form_is_given_out_and_its_cursor_counts(text: str) -> None:
    found = await heard(Bridge(stream(event("5-0", text, "news"))))
    assert [(each.cursor, each.json, each.sequence) for each in found.events] == [("5-0", text, None)]


async def test_a_request_gives_the_answer_or_the_error_of_its_status() -> None:
    bridge = Bridge(
        httpx.Response(201, json={"id": "wh_1"}),
        httpx.Response(204),
        httpx.Response(404, json={"type": "urn:bridge:problem:no-such-endpoint"}),
        httpx.Response(503, headers={"Retry-After": "3"}),
        httpx.Response(200, text="<html>"),
        httpx.ConnectError("no"),
    )
    async with client(bridge) as made:
        assert await made.request("POST", "/v1/webhooks", body={"url": "u"}) == {"id": "wh_1"}
        assert await made.request("DELETE", "/v1/webhooks/wh_1") is None
        for kind in (NotFoundError, UnavailableError, UnreachableError, UnreachableError):
            with pytest.raises(kind) as raised:
                await made.request("GET", "/v1/webhooks/wh_1")
            assert isinstance(raised.value, BridgeError)
            if isinstance(raised.value, AnswerError) and raised.value.status == 503:
                assert raised.value.retry_after == 3
    assert json.loads(bridge.requests[0].content) == {"url": "u"}
    assert len(bridge.requests) == 6
