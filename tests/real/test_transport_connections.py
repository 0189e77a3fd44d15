"""What connections to receivers live through: kept ones, broken ones, bytes that nobody asked for."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

from bridge.webhooks.schedule import NotAttemptedError
from tests.posting import (
    OK,
    Answer,
    Certified,
    Conversation,
    fixed,
    hang_up,
    names,
    never,
    poster,
    raw,
    receiver,
    reset,
    word,
)
from tests.real.waiting import until


async def test_one_connection_serves_many_attempts_and_a_cut_body_costs_it() -> None:
    sizes = iter([3, 3, 10_000_000, 3])

    async def answer(request: Conversation) -> None:
        await fixed("200 OK", b"x" * next(sizes))(request)

    async with receiver(answer) as inner, poster() as sender:
        for expected in (1, 1, 1, 2):
            assert (await sender.post(inner.url(), {}, b"")).ok
            assert inner.connections == expected


async def test_a_connection_that_the_receiver_closes_between_attempts_fails_none() -> None:
    async def once(request: Conversation) -> None:
        await OK(request)
        request.writer.close()

    async with receiver(once) as inner, poster() as sender:
        for _ in range(3):
            assert (await sender.post(inner.url(), {}, b"")).ok
            await asyncio.sleep(0.01)
        assert inner.connections == 3


STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("when", ["with the answer", "at once", "later"])
async def test_an_answer_to_no_request_is_never_taken_for_one(when: str, tls: bool, certified: Certified) -> None:
    requests = 0

    async def answer(request: Conversation) -> None:
        nonlocal requests
        requests += 1
        if requests > 1:
            await fixed("500 x")(request)
            return
        await request.send(STRAY * 2 if when == "with the answer" else STRAY)
        if when != "with the answer":
            await asyncio.sleep(0 if when == "at once" else 0.05)
            await request.send(STRAY)

    async with receiver(answer, tls=certified.server if tls else None) as inner:
        url = inner.url("hooks.test", scheme="https" if tls else "http")
        async with poster(resolve=names(["127.0.0.1"]), tls=certified.client) as sender:
            assert (await sender.post(url, {}, b"1")).ok
            if when == "later":
                await asyncio.sleep(0.1)
            else:
                time.sleep(0.05)  # noqa: ASYNC251 - it has come to the machine, and the loop has not looked
            assert (await sender.post(url, {}, b"2")).status_code == 500
            assert (inner.connections, [request.body for request in inner.requests]) == (2, [b"1", b"2"])


@pytest.mark.parametrize("end", [hang_up, reset])
async def test_a_kept_connection_that_ends_at_the_request_is_replaced_at_once(end: Answer) -> None:
    requests = 0

    async def answer(request: Conversation) -> None:
        nonlocal requests
        requests += 1
        await (end if requests == 2 else OK)(request)

    async with receiver(answer) as inner, poster() as sender:
        for number in ("1", "2"):
            assert (await sender.post(inner.url(), {"webhook-id": number}, b"")).ok
        assert [request.headers["webhook-id"] for request in inner.requests] == ["1", "2", "2"]
        assert inner.connections == 2


async def test_a_machine_without_open_files_makes_no_attempt_and_blames_nobody() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with receiver(OK) as inner, poster() as sender:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(NotAttemptedError, match="Too many open files"):
                await sender.post(inner.url(), {}, b"")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await sender.post(inner.url(), {}, b"")).ok


async def test_idle_connections_make_room_for_those_in_use() -> None:
    async with receiver(OK, host="0.0.0.0") as inner, poster(most_connections=3) as sender:  # noqa: S104
        for host in (1, 2, 3, 4, 4, 1):
            assert (await sender.post(inner.url(f"127.0.3.{host}"), {}, b"")).ok
        assert inner.connections == 5
        await until(lambda: sum(request.reader.at_eof() for request in inner.requests) >= 2)


async def test_only_a_kept_connection_without_a_byte_of_an_answer_is_replaced() -> None:
    answers = [OK, raw(b"HTTP"), hang_up]

    async def answer(request: Conversation) -> None:
        await answers.pop(0)(request)

    async with receiver(answer) as inner, poster() as sender:
        assert (await sender.post(inner.url(), {}, b"")).ok
        for _ in range(2):
            assert word(await sender.post(inner.url(), {}, b"")) == "reset"
        assert (len(inner.requests), inner.connections) == (3, 2)


async def test_a_cancelled_attempt_is_cancelled_and_closes_its_connection() -> None:
    async with receiver(never) as inner, poster(timeout=60) as sender:
        attempt = asyncio.create_task(sender.post(inner.url(), {}, b""))
        await until(lambda: bool(inner.requests))
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await inner.requests[0].closed()


async def test_a_request_that_is_no_longer_in_time_is_sent_on_no_connection_kept_or_new() -> None:
    async with receiver(OK) as inner, poster() as sender:
        assert (await sender.post(inner.url(), {}, b"{}", lambda: True)).ok
        for _ in range(2):
            with pytest.raises(NotAttemptedError):
                await sender.post(inner.url(), {}, b"{}", lambda: False)
        await until(lambda: inner.connections == 2)
        assert len(inner.requests) == 1
