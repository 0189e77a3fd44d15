"""The streams of the client: their request, their events, and what ends them."""

from __future__ import annotations

import httpx
import pytest

from bridge.events import State
from bridge.upstream.client import Ended, Garbled
from bridge.upstream.errors import UnparsableError
from tests.unit.upstream.scripted_client import client_for, received, sse


async def test_a_stream_asks_for_events_on_a_connection_of_its_own() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return sse(b"")

    async with client_for(answer).stream("my app", target="deleted", interval=5, timeout=120) as events:
        assert [event async for event in events] == []
    assert asked[0].url.raw_path == b"/api/v1/cvms/my%20app/state?target=deleted&interval=5&timeout=120"
    assert (asked[0].headers["accept"], asked[0].headers["connection"]) == ("text/event-stream", "close")


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
