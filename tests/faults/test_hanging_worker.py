"""A worker that hangs is replaced, and holds up no stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from bridge.config import Settings
from bridge.process import worker
from bridge.process.signals import Stop
from bridge.process.workers import run_workers
from tests.commands import Command
from tests.real.test_workers import workers_of
from tests.servers import PATIENCE, RealServer, eventually, free_port

PROMISED = 6.0
"""Seconds from the signal to the end of the process, if the drain is shorter."""


@asynccontextmanager
async def two_workers(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Their parent is this process; their port."""
    port = free_port()
    given = {"REDIS_URL": server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "BRIDGE_DRAIN_SECONDS": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    stop = Stop()
    running = asyncio.create_task(run_workers(Settings(port=port, drain_seconds=0.0), "127.0.0.1", 2, stop))
    try:
        yield port
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await running


def own_workers() -> list[int]:
    """Of this process, which has other children too."""
    return [each for each in workers_of(os.getpid()) if b"--worker" in Path(f"/proc/{each}/cmdline").read_bytes()]


async def until_metric(port: int, line: str) -> str:
    """The metrics, once they have this line; a worker that hangs answers nothing."""
    async with httpx.AsyncClient() as http, asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                found = (await http.get(f"http://127.0.0.1:{port}/metrics", timeout=0.5)).text
                if f"\n{line}\n" in found:
                    return found
            await asyncio.sleep(0.05)


def subscribed(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(b"GET /v1/events?snapshot=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.setblocking(False)
    return client


def is_open(client: socket.socket) -> bool:
    try:
        while client.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


async def test_a_worker_that_hangs_is_replaced_with_one_line_and_the_others_streams_go_on(
    own_server: RealServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "ASK_EVERY", 0.3)
    caplog.set_level(logging.ERROR, "bridge.process")
    async with two_workers(own_server, monkeypatch) as port, contextlib.AsyncExitStack() as stack:
        await until_metric(port, "bridge_feed_resubscribes_total 2.0")
        clients = [stack.enter_context(subscribed(port)) for _ in range(16)]
        await until_metric(port, "bridge_subscribers 16.0")
        hung, healthy = own_workers()
        os.kill(hung, signal.SIGSTOP)
        await until_metric(port, 'bridge_workers_replaced_total{cause="hung"} 1.0')
        left = sum(map(is_open, clients))
        assert 0 < left < 16
        await until_metric(port, f"bridge_subscribers {left}.0")
        assert healthy in own_workers()
        assert [record.getMessage() for record in caplog.records] == ["a worker does not answer and is replaced"]


def test_a_worker_that_hangs_holds_up_no_stop(own_server: RealServer, tmp_path: Path) -> None:
    given = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "HOST": "127.0.0.1", "PORT": str(free_port())}
    command = Command(tmp_path, "web", "--workers", "2", BRIDGE_DRAIN_SECONDS="0.5", **given)
    eventually(lambda: command.errors.count("listening") == 2, "both listen")
    workers = workers_of(command.process.pid)
    os.kill(workers[0], signal.SIGSTOP)
    began = time.monotonic()
    assert command.ends(signal.SIGTERM) == 0
    assert time.monotonic() - began < PROMISED
    assert not any(Path(f"/proc/{each}").exists() for each in workers)
    assert command.errors.count("does not end and is killed") == 1
