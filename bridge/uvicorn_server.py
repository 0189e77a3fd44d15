"""uvicorn inside our own event loop: without its signal handlers, on sockets that already listen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from bridge.clock import set_within

CLOSE = (b"connection", b"close")

LAST_ANSWERS = 1
"""Whole seconds for which `small_server` awaits unfinished answers at its end."""


class Server(uvicorn.Server):
    """Leaves signals to the command and begins to end as soon as `stop` is called."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_up = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_up.set()

    async def main_loop(self) -> None:
        """uvicorn's own polls ten times a second; this one waits for `stop`, and renews the Date header each second."""
        while not await self.on_tick(0):
            await set_within(self._stopping, 1)

    def close_connections(self) -> None:
        """From now on each answer is the last one on its connection."""
        self.config.encoded_headers.append(CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]

    def stop(self) -> None:
        """Makes `serve` end; idempotent."""
        self.should_exit = True
        self._stopping.set()


def small_server(app: ASGIApp, *, protocol: Callable[..., asyncio.Protocol] | None = None) -> Server:
    """A server for an app without lifespan and long answers, that logs nothing. `protocol`: in place of uvicorn's."""
    return Server(
        uvicorn.Config(
            app,
            http=cast(Any, protocol or "auto"),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=LAST_ANSWERS,
        )
    )


@contextlib.asynccontextmanager
async def serving(server: Server, listener: socket.socket) -> AsyncIterator[None]:
    """Serves while the context is open; leaving it returns once the server has ended.

    A server that ends by itself cancels the body; then its exception comes out of the context, or a RuntimeError.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(server.serve([listener]), name="server")
    body = asyncio.timeout(None)

    def end_body(_: object) -> None:
        body.reschedule(loop.time())

    try:
        async with body:
            task.add_done_callback(end_body)
            await server.started_up.wait()
            try:
                yield
            finally:
                task.remove_done_callback(end_body)
    except TimeoutError:
        if not body.expired():
            raise
        await task
        raise RuntimeError("the server ended by itself") from None
    finally:
        server.stop()
        await task


def listening_socket(host: str, port: int, backlog: int | None = None, *, shared: bool = False) -> socket.socket:
    """A socket that listens at the address; port 0 takes a free one. Raises OSError if the address is not available.

    `shared`: other processes may listen on the same port.
    """
    return socket.create_server((host, port), family=address_family(host), backlog=backlog, reuse_port=shared)


def address_family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def unix_path(host: str) -> str | None:
    """The path in `unix:/path`; None for any other host."""
    return host.removeprefix("unix:") if host.startswith("unix:/") else None


def http_url(host: str, port: int, *, tls: bool = False) -> str:
    """Without a path; an IPv6 address stands in brackets. `unix:/path` stays as it is."""
    if unix_path(host) is not None:
        return host
    scheme, name = "https" if tls else "http", f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}:{port}"
