"""One client that takes what a front end gives to everybody: its queue, its memory, its files."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from bridge.clock import SystemClock
from bridge.open_files import OWN_FILES
from bridge.web import server
from bridge.web.http.http1 import MOST_PIPELINED
from bridge.web.http.waiting_connections import CLIENT_SECONDS
from tests.real.fronts import Front, front
from tests.real.waiting import until
from tests.servers import PATIENCE

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Fast(SystemClock):
    """A clock that runs a hundred times as fast."""

    def monotonic(self) -> float:
        return super().monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)


def deaf(web: Front) -> socket.socket:
    """A client with a small receive buffer, that reads only when the test does."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", web.port))
    client.setblocking(False)
    return client


async def all_of(client: socket.socket, pause: float = 0.0) -> int:
    """Reads to the end, with a pause between two reads; how many bytes there were."""
    taken, loop = 0, asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while got := len(await loop.sock_recv(client, 64 << 10)):
            taken += got
            await asyncio.sleep(pause)
    return taken


async def test_requests_that_are_piled_up_behind_the_first_end_the_connection(redis_url: str) -> None:
    async with front(redis_url) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        web.writers.append(writer)
        writer.write(HEALTH * 5000)
        async with asyncio.timeout(PATIENCE):
            answered = (await reader.read(-1)).count(b"HTTP/1.1 200 ")
        assert answered == MOST_PIPELINED + 1
        assert (await web.http.get(f"{web.url}/healthz")).status_code == 200


async def test_connections_at_rest_give_way_when_files_run_short(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "raise_open_files", lambda: OWN_FILES + 30)
    async with front(redis_url) as web:
        for _ in range(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            web.writers.append(writer)
            writer.write(HEALTH)
            async with asyncio.timeout(PATIENCE):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert web.metric("bridge_out_of_files_total") >= 30


@pytest.mark.parametrize("requests", [1, MOST_PIPELINED])
async def test_a_client_that_does_not_take_its_answer_is_let_go(
    redis_url: str, caplog: pytest.LogCaptureFixture, requests: int
) -> None:
    caplog.set_level(logging.INFO)
    async with front(redis_url, clock=Fast()) as web:
        size = len((await web.http.get(f"{web.url}/docs")).content)
        with deaf(web) as client:
            await asyncio.get_running_loop().sock_sendall(client, LARGE * requests)
            await until(lambda: "a client did not take its answer" in caplog.messages)
            assert await all_of(client) < size * requests


async def test_a_client_that_takes_its_answers_slowly_gets_all(redis_url: str) -> None:
    async with front(redis_url, clock=Fast()) as web:
        size = len((await web.http.get(f"{web.url}/docs")).content)
        with deaf(web) as client:
            last = LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            await asyncio.get_running_loop().sock_sendall(client, LARGE * 8 + last)
            assert await all_of(client, pause=CLIENT_SECONDS / 100 / 100) > size * 9
