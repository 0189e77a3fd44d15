"""One attempt at receivers of every kind, on real sockets: how it ends and by when."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import socket
import tracemalloc
import zlib
from collections.abc import Sequence
from urllib.parse import quote

import pytest

from bridge.events import dumps
from bridge.webhooks.bodies import shown
from tests.posting import (
    DEADLINE,
    OK,
    SLACK,
    Answer,
    Conversation,
    fixed,
    hang_up,
    names,
    never,
    post,
    poster,
    raw,
    receiver,
    reset,
    word,
)


async def test_a_request_arrives_as_it_was_given_and_under_the_urls_name() -> None:
    async with receiver(OK) as inner:
        outcome = await post(inner.url("Hooks.test", "/a%2Fb?key=%20x&k=1"), poster(resolve=names(["127.0.0.1"])))
        assert (outcome.status_code, outcome.error, outcome.response_body) == (200, None, "thanks")
        request = inner.requests[0]
        assert request.head.startswith(b"POST /a%2Fb?key=%20x&k=1 HTTP/1.1\r\n")
        assert request.headers["host"].lower() == f"hooks.test:{inner.port}"
        assert request.headers["user-agent"].startswith("bridge/")
        assert (request.headers["webhook-id"], request.body) == ("d-1", b"{}")


async def test_a_body_of_more_than_a_megabyte_arrives_whole() -> None:
    async with receiver(OK) as inner:
        body = b"x" * 1_300_000
        assert (await post(inner.url(), body=body)).ok
        assert inner.requests[0].body == body


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, None),
        (204, None),
        (299, None),
        (300, "http_3xx"),
        (304, "http_3xx"),
        (400, "http_4xx"),
        (404, "http_4xx"),
        (410, "http_4xx"),
        (429, "http_4xx"),
        (500, "http_5xx"),
        (503, "http_5xx"),
        (599, "http_5xx"),
        (600, "protocol"),
    ],
)
async def test_every_status_has_its_word_and_only_2xx_has_none(status: int, expected: str | None) -> None:
    async with receiver(fixed(f"{status} x")) as inner:
        outcome = await post(inner.url())
        assert (outcome.status_code, word(outcome)) == (status, expected)


# The deadline


async def _drip(request: Conversation) -> None:
    for byte in b"HTTP/1.1" + b" " * 40:
        await request.send(bytes([byte]))
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("answer", [never, _drip])
async def test_an_answer_that_does_not_come_is_a_timeout_and_its_connection_is_closed(answer: Answer) -> None:
    async with receiver(answer) as inner, poster() as sender:
        outcome = await sender.post(inner.url(), {}, b"")
        assert (outcome.status_code, word(outcome)) == (None, "timeout")
        assert DEADLINE * 1000 - 50 <= outcome.duration_ms <= (DEADLINE + SLACK) * 1000
        await inner.requests[0].closed()


async def test_a_silent_tls_handshake_is_a_timeout() -> None:
    async with receiver(never) as inner:
        assert word(await post(inner.url(scheme="https"))) == "timeout"


async def test_a_connection_that_is_not_taken_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        assert word(await post(f"http://127.0.0.1:{port}/")) == "timeout"
        for each in waiting:
            each.close()


async def _drip_body(request: Conversation) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\n\r\nbegin")
    while True:
        await request.send(b".")
        await asyncio.sleep(0.05)


async def test_a_status_decides_and_a_body_that_does_not_end_is_cut_at_the_deadline() -> None:
    async with receiver(_drip_body) as inner:
        outcome = await post(inner.url())
        assert (outcome.status_code, outcome.error) == (200, None)
        assert outcome.response_body.startswith("begin.")
        assert outcome.duration_ms <= (DEADLINE + SLACK) * 1000


# What it receives


def flood(start: bytes, endless: bytes) -> Answer:
    """Sends as much as the connection takes, until it is closed; then it cannot."""

    async def answer(request: Conversation) -> None:
        await request.send(start)
        while True:
            await request.send(endless * (65536 // len(endless)))

    return answer


@functools.cache
def _packed() -> bytes:
    """Half a gigabyte of zeros in half a megabyte."""
    pack = zlib.compressobj(wbits=31)
    return b"".join([*(pack.compress(bytes(1 << 20)) for _ in range(512)), pack.flush()])


async def _bomb(request: Conversation) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", _packed())
    request.writer.close()


FLOODS: dict[str, tuple[Answer, int | None, str | None]] = {
    "body": (flood(b"HTTP/1.1 500 Oops\r\n\r\n", b"a"), 500, "http_5xx"),
    "chunks": (flood(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"), 500, "http_5xx"),
    "chunk extension": (flood(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"), 500, "http_5xx"),
    "trailers": (flood(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"), 500, "http_5xx"),
    "head": (flood(b"HTTP/1.1 500 Oops\r\n", b"X-Name: value\r\n"), 500, "http_5xx"),
    "head of a success": (flood(b"HTTP/1.1 200 OK\r\n", b"X-Name: value\r\n"), 200, None),
    "header": (flood(b"HTTP/1.1 500 Oops\r\nX-Name: ", b"v"), 500, "http_5xx"),
    "reason": (flood(b"HTTP/1.1 500 ", b"K"), 500, "http_5xx"),
    "empty lines": (flood(b"", b"\r\n"), None, "protocol"),
    "continue": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), None, "protocol"),
    "long hints": (flood(b"HTTP/1.1 103 Early Hints\r\n", b"Link: </x>\r\n"), None, "protocol"),
    "letters": (flood(b"", b"SSH-2.0"), None, "protocol"),
    "bomb": (_bomb, 200, None),
}


@pytest.mark.parametrize(("answer", "status", "expected"), FLOODS.values(), ids=FLOODS)
async def test_what_is_too_much_is_cut_with_flat_memory(
    answer: Answer, status: int | None, expected: str | None
) -> None:
    if answer is _bomb:
        _packed()  # takes its time before the deadline runs
    async with receiver(answer) as inner, poster(timeout=30.0) as sender:
        tracemalloc.start()
        try:
            outcome = await sender.post(inner.url(), {}, b"")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (outcome.status_code, word(outcome)) == (status, expected)
        assert len(outcome.response_body) <= 4096
        await inner.requests[0].closed()
        # Half of it is the receiver's own: it fills its socket in the same process.
        assert peak < 8 << 20


@pytest.mark.parametrize("letter", ["a", '"', "ä", "\ufffd", "\x00", "\U0001f600"])
async def test_a_body_is_kept_to_4_kib_of_json_whatever_its_length_and_letters(letter: str) -> None:
    async with receiver(fixed("500 x", letter.encode() * 5000)) as inner:
        kept = (await post(inner.url())).response_body
        assert 4096 - 12 < len(dumps(kept)) - 2 <= 4096
        assert set(kept) <= {letter, "\ufffd"}


async def test_bytes_that_are_no_text_take_no_more_room_than_text() -> None:
    async with receiver(fixed("500 x", b"\xff" * 4096)) as inner, receiver(fixed("500 x", b"\xff\x00ok")) as other:
        assert (await post(inner.url())).response_body == "\ufffd" * (4096 // 6)
        assert (await post(other.url())).response_body == "\ufffd\x00ok"


async def _echo(request: Conversation) -> None:
    await fixed("500 x", request.head + request.body)(request)


async def test_a_receiver_that_echoes_the_request_brings_no_secret_into_the_history() -> None:
    async with receiver(_echo) as inner, poster() as sender:
        headers = {"x-token": 'ge"heim', "webhook-id": "d-1", "content-type": "application/json"}
        outcome = await sender.post(inner.url(path="/hook?key=ver%2Fborgen&flag=1"), headers, b"{}")
        assert "POST ***?*** HTTP/1.1" in outcome.response_body
        assert "webhook-id: d-1" in outcome.response_body
        assert "heim" not in outcome.response_body


@pytest.mark.parametrize("secret", ["geheim-geheim", "ge/heim=?&", 'a"b"c"d'])
def test_no_spelling_of_a_secret_and_no_half_of_it_is_kept(secret: str) -> None:
    body = f"{secret} {quote(secret, safe='')} {json.dumps(secret)} ".encode()
    enqueuer = b"." * (4090 - len(body))
    url = f"http://hooks.test/?key={quote(secret, safe='')}"
    headers = {"X-Token": secret, "Authorization": quote(secret, safe="")}
    for request in ((url, {}), ("http://hooks.test/", headers)):
        text = shown(body + enqueuer + secret.encode() * 10, *request)
        assert all(part not in text for part in (secret[:6], quote(secret, safe="")[:7]) if len(part) > 3), text
        assert len(text) <= 4096
        echoed = shown((secret.encode() * 5000)[: 12 * 1024], *request)
        assert secret[:4] not in echoed.replace("*", "")
        assert echoed.startswith("***")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("X-GZip", gzip.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")),
        ("identity", b"hello"),
        ("gzip", b"no gzip"),
    ],
    ids=["gzip", "x-gzip", "deflate", "identity", "broken gzip"],
)
async def test_a_compressed_body_is_read_and_a_broken_one_harms_nothing(encoding: str, body: bytes) -> None:
    async with receiver(fixed("200 OK", body, f"Content-Encoding: {encoding}")) as inner:
        outcome = await post(inner.url())
        assert (outcome.error, outcome.response_body) == (None, "" if body == b"no gzip" else "hello")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (hang_up, "reset"),
        (reset, "reset"),
        (raw(b"HTTP/1.1 20"), "reset"),
        (raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "protocol"),
        (raw(b"HTTP/1.1 abc OK\r\n\r\n"), "protocol"),
        (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), "protocol"),
        (raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "protocol"),
    ],
)
async def test_a_broken_answer_has_its_word(answer: Answer, expected: str | None) -> None:
    async with receiver(answer) as inner:
        assert word(await post(inner.url())) == expected


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

ODD_SUCCESSES = {
    "no reason": (b"HTTP/1.1 200\r\n\r\nok", "ok"),
    "cut behind the status": (b"HTTP/1.1 200", ""),
    "cut head": (b"HTTP/1.1 204 No Content\r\nDate", ""),
    "lone line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nok", "ok"),
    "HTTP/2": (b"http/2 200 \r\n\r\nok", "ok"),
    "empty lines before": (b"\r\n\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
    "long header": (b"HTTP/1.1 200 OK\r\nCSP: " + b"x" * 9_000 + b"\r\nContent-Length: 2\r\n\r\nok", "ok"),
    "long head": (b"HTTP/1.1 200 OK\r\n" + b"X-Name: value\r\n" * 15_000 + b"Content-Length: 2\r\n\r\nok", "ok"),
    "long reason": (b"HTTP/1.1 200 " + b"O" * 100_000 + b"K\r\nContent-Length: 2\r\n\r\nok", "ok"),
    "no field": (b"HTTP/1.1 200 OK\r\n: x\r\nno colon\r\n fold\r\n\xff\x00: 1\r\n\r\nok", "ok"),
    "body too short": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", "cut"),
    "body too long": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", "ok"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "ok"),
    "no number": (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", "ok"),
    "length and chunks": (CHUNKED + b"Content-Length: 5\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
    "trailers": (CHUNKED + b"\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", "ok"),
    "no chunks": (CHUNKED + b"\r\nok\r\n", ""),
    "cut chunk": (CHUNKED + b"\r\n9\r\nok", "ok"),
    "unknown coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: zip\r\n\r\nok", "ok"),
    "upgrade": (b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nok", "ok"),
    "a few interim answers": (b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 7 + b"HTTP/1.1 200 OK\r\n\r\nok", "ok"),
}


@pytest.mark.parametrize(("data", "body"), ODD_SUCCESSES.values(), ids=ODD_SUCCESSES)
async def test_any_2xx_is_a_success_however_odd_the_rest(data: bytes, body: str) -> None:
    async with receiver(raw(data)) as inner:
        outcome = await post(inner.url(), poster(timeout=30.0))
        assert (outcome.ok, outcome.response_body) == (True, body)


async def test_a_closed_port_is_connect_and_an_unknown_name_is_dns() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert word(await post(f"http://127.0.0.1:{port}/")) == "connect"

    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    for resolve in (unknown, names([])):
        assert word(await post("http://hooks.test/", poster(resolve=resolve))) == "dns"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "http://127.0.0.1/#x", "nonsense"])
async def test_what_is_no_plain_url_is_refused_url(url: str) -> None:
    assert word(await post(url)) == "refused_url"


# Retry-After

NOW = 1_795_536_000.0  # Tue, 24 Nov 2026 16:00:00 GMT


@pytest.mark.parametrize(("status", "expected"), [(429, 7.0), (500, 7.0), (404, 7.0), (302, 7.0), (200, None)])
async def test_retry_after_counts_with_any_status_but_2xx(status: int, expected: float | None) -> None:
    async with receiver(fixed(f"{status} x", b"", "Retry-After: 7")) as inner:
        assert (await post(inner.url())).retry_after == expected


@pytest.mark.parametrize(("text", "seconds"), [("0", None), ("86401", 86_400.0), ("9" * 400, 86_400.0), ("soon", None)])
async def test_a_retry_after_of_no_wait_is_ignored_and_one_over_a_day_is_a_day(
    text: str, seconds: float | None
) -> None:
    async with receiver(fixed("429 x", b"", f"Retry-After: {text}")) as inner:
        assert (await post(inner.url())).retry_after == seconds
