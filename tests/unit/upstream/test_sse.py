from __future__ import annotations

import itertools

import pytest
from httpx_sse import ServerSentEvent as TheirEvent
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from bridge.upstream.sse import MAX_LINE, Decoder, OverflowingError, ServerSentEvent

LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"event: state",
        b"",
        b": comment",
        b"retry: 5",
        b"id: 3",
        b"data: \xe2\x80\xa8x",
        b"nonsense",
    ]
)


def decode(data: bytes, size: int) -> list[ServerSentEvent]:
    decoder = Decoder()
    return [event for start in range(0, len(data), size) for event in decoder.feed(data[start : start + size])]


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_cutting_of_any_bytes_gives_the_same_events(data: bytes, size: int) -> None:
    assert decode(data, size) == decode(data, max(1, len(data)))


@given(st.lists(LINES, max_size=20), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(1, 5))
def test_every_line_end_gives_the_same_events(lines: list[bytes], end: bytes, size: int) -> None:
    assert decode(end.join([*lines, b"", b""]), size) == decode(b"\n".join([*lines, b"", b""]), 1000)


@given(st.lists(LINES, max_size=20))
def test_it_agrees_with_httpx_sse_where_that_has_no_fault(lines: list[bytes]) -> None:
    theirs, found = SSEDecoder(), list[TheirEvent]()
    for line in [*lines, b""]:
        event = theirs.decode(line.decode())
        if event is not None and event.data:
            found.append(event)
    ours = [event for event in decode(b"\n".join([*lines, b"", b""]), 1000) if event.data]
    assert [(event.event, event.data) for event in ours] == [(event.event, event.data) for event in found]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert decode(b"\xef\xbb\xbfdata: x\n\n", 1) == [ServerSentEvent("message", "x")]


def test_a_lone_cr_at_the_end_of_a_chunk_ends_the_event_at_once() -> None:
    assert list(Decoder().feed(b"data: x\r\r")) == [ServerSentEvent("message", "x")]


def test_a_line_without_end_is_refused_before_it_fills_memory() -> None:
    decoder = Decoder()
    chunks = [b"x" * 65536] * (MAX_LINE // 65536 + 1)
    with pytest.raises(OverflowingError):
        list(itertools.chain.from_iterable(decoder.feed(chunk) for chunk in chunks))
