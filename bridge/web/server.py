"""The front end on a socket: uvicorn in a loop of ours, which handles signals and drain itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from bridge.clock import Clock
from bridge.config import Settings
from bridge.open_files import OWN_FILES, raise_open_files
from bridge.store.connection import Backend
from bridge.uvicorn_server import Server, address_family, unix_path
from bridge.web.app import FrontEnd
from bridge.web.http.tls import Certificate, TlsServer
from bridge.web.http.unix_socket import is_local, unix_socket
from bridge.web.http.waiting_connections import WaitingConnections
from bridge.web.streaming.detach import CLOSE_GRACE, Http1Protocol

logger = logging.getLogger(__name__)

SEND_BUFFER = 128 * 1024
"""Bytes for one connection in the kernel. By itself it grows to megabytes for a client that does not read, on top of
BRIDGE_SUBSCRIBER_BUFFER."""

CLOSE_SECONDS = 2
"""Seconds that ordinary requests get to finish after the subscribers are gone."""

BACKLOG = 16_384
"""Connections that may wait to be accepted: a client that finds no room tries again only seconds later."""

ACCEPTED_AT_ONCE = 8
"""Connections that one turn of the event loop accepts. libuv accepts one for each readable file, and a turn costs about
as much as a connection, so the listening socket is duplicated into as many files. 10 000 clients are then connected
after 0.8 s instead of 1.2 s."""


@contextlib.contextmanager
def listening(host: str, port: int, *, shared: bool = False, inherited: int | None = None) -> Iterator[socket.socket]:
    """A listening socket. Raises OSError if it is taken.

    `shared`: other processes may listen on the same port. `inherited`: the file of a socket that listens already.
    """
    path = unix_path(host)
    if inherited is not None:
        made: contextlib.AbstractContextManager[socket.socket] = socket.socket(fileno=inherited)
    elif path is not None:
        made = unix_socket(path, BACKLOG)
    else:
        made = listen(host, port, shared=shared)
    with made as bound:
        bound.setblocking(False)
        yield bound


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    family = address_family(host)
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    bound = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared, dualstack_ipv6=both)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # its connections inherit it
    return bound


async def serve_web(
    settings: Settings,
    backend: Backend,
    clock: Clock,
    stop: asyncio.Event,
    *,
    host: str,
    port: int,
    open_access: bool,
    on_listening: Callable[[int], None],
    protocol: Callable[..., asyncio.Protocol] | None = None,
    certificate: Certificate | None = None,
    probe: Callable[[Starlette], Coroutine[Any, Any, None]] | None = None,
    drain_seconds: Callable[[], float] | None = None,
    shared: bool = False,
    inherited: int | None = None,
) -> None:
    """Serves until `stop`, then drains and returns. Raises OSError if the address is taken.

    With a `certificate` it speaks TLS. `probe` serves health and metrics on a port of their own, until the drain is
    over. `drain_seconds` is asked when the drain begins.
    `shared` and `inherited`: as `listening`.
    """
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(listening(host, port, shared=shared, inherited=inherited))
        files = raise_open_files()
        loopback_only = open_access and is_local(host)
        front = FrontEnd(
            settings, backend, clock, open_access=open_access, loopback_only=loopback_only, open_files=files
        )
        waiting = WaitingConnections(clock, most=max(1, files - OWN_FILES), streams=lambda: front.capacity.open)
        logger.info("limit of subscribers", extra={"subscribers": front.capacity.most, "open_files": files})
        server = _server(front, waiting, certificate, protocol or partial(Http1Protocol, waiting=waiting))
        beside = [waiting.run(), *([certificate.run(clock)] if certificate else [])]
        beside += [probe(front.probe_app)] if probe else []
        sockets = [bound, *[stack.enter_context(bound.dup()) for _ in range(ACCEPTED_AT_ONCE - 1)]]
        on_listening(0 if bound.family == socket.AF_UNIX else bound.getsockname()[1])
        await _serve(front, server, sockets, beside, stop, drain_seconds or (lambda: settings.drain_seconds))


def _server(
    front: FrontEnd,
    waiting: WaitingConnections,
    certificate: Certificate | None,
    protocol: Callable[..., asyncio.Protocol],
) -> Server:
    config = uvicorn.Config(
        front.app,
        http=cast(Any, protocol),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # only /docs needs a proxy's headers, and reads them itself
        timeout_graceful_shutdown=CLOSE_SECONDS,
        timeout_keep_alive=75,
        backlog=BACKLOG,
    )
    return Server(config) if certificate is None else TlsServer(config, certificate, waiting)


async def _serve(
    front: FrontEnd,
    server: Server,
    sockets: list[socket.socket],
    beside: Iterable[Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    drain_seconds: Callable[[], float],
) -> None:
    """`beside`: tasks that look after connections; they are cancelled before the server ends."""
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(front.run(), name="front")
            tending = [group.create_task(each, name="connections") for each in beside]
            serving = group.create_task(server.serve(sockets=sockets), name="http")
            stopping = group.create_task(stop.wait(), name="stop")
            await asyncio.wait({serving, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
            server.close_connections()
            # A load balancer needs a while to notice: until then requests come, and are served.
            await front.drain(drain_seconds() if stop.is_set() else 0.0)
            await _closed(front)
            for each in tending:
                each.cancel()
            server.stop()
            await asyncio.wait({serving})
            running.cancel()
            stopping.cancel()
    finally:
        # If it is cancelled in the middle, uvicorn leaves its listening sockets open.
        for listener in getattr(server, "servers", ()):
            listener.close()


async def _closed(front: FrontEnd) -> None:
    """Waits until the ended streams have taken their last bytes: uvicorn does not wait for detached connections."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_GRACE * 1.2):
            while front.capacity.open:  # noqa: ASYNC110 - one wait for ten thousand connections
                await asyncio.sleep(0.02)
