"""The reader of receivers' answers: no bytes and no cut between them make it fail, and it keeps to its bounds."""

from __future__ import annotations

import gc
import itertools
import weakref

from hypothesis import given
from hypothesis import strategies as st

from bridge.webhooks.http_answer import MOST_CHUNKS, MOST_INTERIM, MOST_WIRE, TOO_LONG, HttpAnswer

PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 500\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"HTTP/1.1 204 x\r\n\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 4\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"abc",
        b"3\r\nabc\r\n",
        b"3;x=y\nabc\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1",
        b" ",
    ]
)
STREAMS = st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=300))


def read(*parts: bytes) -> HttpAnswer:
    answer = HttpAnswer()
    for part in parts:
        answer.feed(part)
    return answer


def told(answer: HttpAnswer) -> tuple[object, ...]:
    return answer.status, bytes(answer.body.kept), answer.ended, answer.fault, answer.reusable, answer.wire


@given(STREAMS, st.sets(st.integers(0, 300), max_size=5))
def test_it_does_not_matter_how_the_network_cuts_an_answer(data: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    whole, parts = read(data), read(*(data[a:b] for a, b in itertools.pairwise(edges)))
    assert told(parts) == told(whole)
    for answer in (whole, parts):
        answer.end_of_stream()
        assert answer.ended == bool(data)
    assert told(parts) == told(whole)


@given(STREAMS)
def test_bytes_behind_an_answer_cost_the_connection_and_change_no_status(data: bytes) -> None:
    answer = read(data)
    if answer.ended:
        before = answer.status, bytes(answer.body.kept)
        assert answer.feed(b"HTTP/1.1 200 OK\r\n\r\n")
        assert not answer.reusable
        assert (answer.status, bytes(answer.body.kept)) == before


@given(STREAMS, STREAMS.filter(bool))
def test_every_answer_ends_within_its_bytes(start: bytes, again: bytes) -> None:
    answer = HttpAnswer()
    answer.feed(start)
    while not answer.ended:
        answer.feed(again * (MOST_WIRE // len(again) // 8 + 1))
    assert answer.wire <= 2 * MOST_WIRE
    assert (answer.fault is None) == (answer.status is not None)


def test_a_status_must_come_within_a_few_interim_answers() -> None:
    interim, final = b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    assert read(interim * (MOST_INTERIM - 1) + final).status == 200
    for parts in ([interim] * MOST_INTERIM, [interim * MOST_INTERIM + final]):
        answer = read(*parts)
        assert (answer.ended, answer.status, answer.fault) == (True, None, TOO_LONG)


def test_a_body_of_many_small_chunks_is_cut_and_its_status_stays() -> None:
    head, chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"
    answer = read(head + chunk * MOST_CHUNKS)
    assert not answer.ended
    answer.feed(chunk)
    assert (answer.ended, answer.status, answer.reusable) == (True, 200, False)
    assert len(answer.body.kept) == MOST_CHUNKS


def test_an_answer_is_reusable_exactly_where_its_end_is_certain() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    assert read(head + b"\r\nok").reusable
    assert read(b"HTTP/1.1 204 x\r\n\r\n").reusable
    assert read(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n").reusable
    assert read(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").reusable
    for data in (
        head + b"\r\nok!",
        head + b"Connection: close\r\n\r\nok",
        head + b"Content-Length: 3\r\n\r\nok",
        head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
    ):
        assert not read(data).reusable


def test_an_answer_that_nobody_needs_any_more_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        for data in (b"", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100, b"HTTP/1.1 500 x\r\nContent-Length: 1\r\n\r\nx"):
            known = weakref.ref(read(data))
            assert known() is None
    finally:
        gc.enable()
