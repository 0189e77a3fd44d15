from __future__ import annotations

import itertools

import pytest
from httpx_sse import ServerSentEvent as TheirEvent
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from bridge.upstream.sse import MAX_EVENT, MAX_LINE, Decoder, OverflowingError, ServerSentEvent

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


#: Bytes that mean something to a decoder come often; by themselves they hardly would.
TELLING = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b":", b" ", b"data", b"event", b"data: x", b"\xef\xbb\xbf", b"\xe2", b"\0"])
).map(b"".join)


@given(TELLING, st.lists(st.integers(0, 80)))
def test_any_cuts_give_the_same_events(data: bytes, cuts: list[int]) -> None:
    decoder, places = Decoder(), sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found = [event for start, end in itertools.pairwise(places) for event in decoder.feed(data[start:end])]
    assert found == decode(data, max(1, len(data)))


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


def test_an_event_of_endlessly_many_lines_is_refused_before_it_fills_memory() -> None:
    decoder = Decoder()
    chunks = [b"data: " + b"x" * 1000 + b"\n"] * (MAX_EVENT // 1000 + 1)
    with pytest.raises(OverflowingError):
        list(itertools.chain.from_iterable(decoder.feed(chunk) for chunk in chunks))


def test_what_came_before_an_endless_line_was_an_event() -> None:
    events = Decoder().feed(b"data: x\n\n" + b"y" * (MAX_LINE + 1))
    assert next(events) == ServerSentEvent("message", "x")
    with pytest.raises(OverflowingError):
        next(events)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\0"], ids=ascii)
@pytest.mark.parametrize("size", [1, 100])
def test_only_cr_and_lf_end_a_line(mark: str, size: int) -> None:
    assert decode(f"data: a{mark}b\n\n".encode(), size) == [ServerSentEvent("message", f"a{mark}b")]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_lf_of_a_crlf_is_no_second_line_end(size: int) -> None:
    both = [ServerSentEvent("message", "a\nb"), ServerSentEvent("message", "c")]
    assert decode(b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", size) == both


@pytest.mark.parametrize(
    "data",
    [b"data: x", b"data: x\n", b"event: state\n\n", b": x\n\n", b"retry: 5\n\n", b"id: 3\n\n", b"\n\n"],
    ids=repr,
)
def test_what_is_unfinished_or_without_data_is_no_event(data: bytes) -> None:
    assert decode(data, 1) == []


def test_the_name_of_an_event_without_data_is_not_the_next_ones() -> None:
    assert decode(b"event: state\n\ndata: x\n\n", 1) == [ServerSentEvent("message", "x")]


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert decode(b"data: \xff\xe2\x82\n\n", 1) == [ServerSentEvent("message", "\ufffd\ufffd")]


@pytest.mark.parametrize(
    ("line", "data"),
    [(b"data", ""), (b"data:", ""), (b"data: ", ""), (b"data:  x", " x"), (b"data:x:y", "x:y")],
    ids=repr,
)
def test_at_most_one_space_behind_the_colon_goes(line: bytes, data: str) -> None:
    assert decode(line + b"\n\n", 1) == [ServerSentEvent("message", data)]


def test_a_byte_order_mark_is_dropped_only_once_and_only_first() -> None:
    mark = b"\xef\xbb\xbf"
    assert decode(mark + b"data: a\n\n" + mark + b"data: b\n\n", 1) == [ServerSentEvent("message", "a")]
    assert decode(mark + mark + b"data: a\n\n", 1) == []
