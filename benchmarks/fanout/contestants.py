"""The servers that are compared, each started anew for a round, on its core, and how an event gets into each."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fanout.machine import MissingError, compiled, free_port, started, until_answering
from benchmarks.fanout.payload import envelope


@dataclass(frozen=True)
class Contestant:
    """A server that answers. `publish(n)` sends event number n, stamped as late as can be, and returns soon."""

    pid: int
    port: int
    path: str
    publish: Callable[[int], Awaitable[None]]
    headers: tuple[str, ...] = ()
    cursor: Callable[[], str] | None = None
    """The last event's cursor, where a herd of reconnecting subscribers is measured."""
    log_reads: Callable[[], Awaitable[int]] | None = None
    """How often the log in Redis was read so far."""


Start = Callable[[int], AbstractAsyncContextManager[Contestant]]
"""Starts a contestant on a core. Raises MissingError, with a line to print, where this machine lacks something."""


@contextlib.asynccontextmanager
async def bare(core: int) -> AsyncIterator[Contestant]:
    """`bare.c`: the limit."""
    with tempfile.TemporaryDirectory() as directory:
        program, port = compiled("bare", Path(directory)), free_port()
        async with started([program, str(port)], core) as process:
            await until_answering(process, port, "/")
            stdin = process.stdin
            assert stdin is not None

            async def publish(number: int) -> None:
                stdin.write(f"{envelope(number, time.monotonic_ns())}\n".encode())

            yield Contestant(process.pid, port, "/", publish)


NCHAN = "/usr/lib/nginx/modules/ngx_nchan_module.so"

NGINX_CONFIG = """
load_module {module};
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 128M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{
            nchan_subscriber eventsource;
            nchan_channel_id all;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval 15;
        }}
        location = /pub {{
            nchan_publisher;
            nchan_channel_id all;
            nchan_message_buffer_length 200;
        }}
        location = /ready {{ return 200; }}
    }}
}}
"""


def _nginx_command(directory: Path, port: int) -> list[str | Path]:
    """With its configuration written. Raises MissingError."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None or not Path(NCHAN).exists():
        raise MissingError("nginx with nchan is not here (Debian: apt-get install nginx libnginx-mod-nchan)")
    config = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not enter the directory
    config.write_text(NGINX_CONFIG.format(module=NCHAN, user=user, directory=directory, port=port))
    return [nginx, "-p", directory, "-e", "stderr", "-c", config]


@contextlib.asynccontextmanager
async def nchan(core: int) -> AsyncIterator[Contestant]:
    """nginx with the module that Debian packages."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        async with started(_nginx_command(Path(directory), port), core) as process:
            await until_answering(process, port, "/ready")
            yield Contestant(process.pid, port, "/sub", lambda number: _post(port, number))


@contextlib.asynccontextmanager
async def sse_starlette(core: int) -> AsyncIterator[Contestant]:
    """What one writes first in Python: a queue and a generator per subscriber."""
    if importlib.util.find_spec("sse_starlette") is None:
        raise MissingError("sse-starlette is not here (pip install -e '.[bench]')")
    port = free_port()
    program = Path(__file__).with_name("naive.py")
    async with started([sys.executable, program, str(port)], core) as process:
        await until_answering(process, port, "/ready")
        yield Contestant(process.pid, port, "/sub", lambda number: _post(port, number))


async def _post(port: int, number: int) -> None:
    """One event by `POST /pub`; the answer may come after the fan-out, so nobody waits for it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    body = envelope(number, time.monotonic_ns()).encode()
    head = f"POST /pub HTTP/1.1\r\nHost: 127.0.0.1\r\nX-EventSource-Event: transition\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
    closing = asyncio.create_task(_close_later(writer), name="publisher's connection")
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


async def _close_later(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(2)
    writer.close()
