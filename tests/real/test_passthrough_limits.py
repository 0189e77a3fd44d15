"""What one caller of the passthrough may take of it: uploads, lasting answers, and answers that nobody reads."""

from __future__ import annotations

import asyncio

import pytest

from bridge.web.dropin.passthrough import MOST_OF_A_KEY, MOST_UPLOADS
from tests.real.fronts import front
from tests.real.test_passthrough import FOREIGN, plain, through, upstream
from tests.real.waiting import until
from tests.servers import PATIENCE

UPLOAD = "POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 3\r\n\r\na"


@pytest.mark.parametrize(("keys", "refusal", "kept"), [(1, 429, MOST_OF_A_KEY), (205, 503, MOST_UPLOADS)])
async def test_slow_uploads_leave_others_their_relay_and_their_key_questions(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, keys: int, refusal: int, kept: int
) -> None:
    monkeypatch.setattr("bridge.web.dropin.relay_limits.TURN", 0.2)
    told = plain(b'{"detail": "Not here"}', status=b"404 Not Found")
    async with upstream(told) as sim, front(redis_url, **through(sim)) as web:
        answers: list[bytes] = []

        async def upload(number: int) -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            web.writers.append(writer)
            writer.write(UPLOAD.format(key=f"slow-{number % keys}").encode())
            reading.append(asyncio.create_task(keep(reader)))
            return writer

        async def keep(reader: asyncio.StreamReader) -> None:
            answers.append(await reader.readuntil(b"\r\n\r\n"))

        reading: list[asyncio.Task[None]] = []
        uploads = [await upload(number) for number in range(205)]
        await until(lambda: len(answers) == 205 - kept)
        assert all(each.startswith(b"HTTP/1.1 %d " % refusal) and b"\r\nretry-after: " in each for each in answers)
        for path in ("/users/me", "/cvms/a/state"):
            for _ in range(3):
                answer = await web.http.get(f"{web.url}/api/v1{path}", headers=FOREIGN)
                assert (answer.status_code, answer.json()) == (404, {"detail": "Not here"})
            changed = await web.http.post(f"{web.url}/api/v1{path}", headers=FOREIGN, json={})
            assert changed.status_code == 404
        # Those that were kept are complete as soon as their clients let them be; one made room for the last request.
        for writer in uploads:
            writer.write(b"bc")
        await until(lambda: all(task.done() for task in reading))
        finished = [each for each in answers if each.startswith(b"HTTP/1.1 404 ")]
        assert len(finished) >= kept - 2


async def test_answers_that_last_leave_key_questions_their_connections(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.web.dropin.passthrough.MOST_CONNECTIONS", 3)
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with upstream(begun, b"{}") as sim, front(redis_url, **through(sim)) as web:
        lasting = [await web.connect("/api/v1/x", {"X-API-Key": f"key-{number}"}) for number in range(3)]
        async with asyncio.timeout(PATIENCE):
            for reader, _ in lasting:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        sim.answer = [plain(b'{"detail": "Not here"}', status=b"404 Not Found")]
        answer = await web.http.get(f"{web.url}/api/v1/cvms/a/state", headers=FOREIGN, timeout=PATIENCE)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not here"})
        sim.go_on.set()


async def test_a_client_that_stops_in_its_upload_is_told_and_upstream_is_left(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.web.http.waiting_connections.CLIENT_SECONDS", 0.5)
    async with upstream(plain()) as sim, front(redis_url, **through(sim)) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(UPLOAD.format(key="key-a").encode())
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            await sim.lost.wait()


async def test_a_client_that_does_not_read_its_answer_is_left(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.web.http.waiting_connections.CLIENT_SECONDS", 0.2)
    monkeypatch.setattr("bridge.web.http.http1.MOST_STANDSTILLS", 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 10**8
    async with upstream(head + b"x" * 10**7, b"") as sim, front(redis_url, **through(sim)) as web:
        _, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=2048)
        web.writers.append(writer)
        writer.write(b"GET /api/v1/x HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key-a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await sim.lost.wait()
