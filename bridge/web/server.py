"""The front end on a socket: uvicorn inside our own loop, signals and drain in our own hands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.web.app import FrontEnd
from bridge.web.streaming.detach import LAST_WORDS, PROTOCOL

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 2
"""Seconds that plain requests get to finish after the subscribers are gone."""

BACKLOG = 16_384
"""Connections that wait to be accepted: one of a herd that finds no room tries again only seconds later."""


ACCEPTED_AT_ONCE = 8
"""Connections that one turn of the event loop accepts. libuv accepts one for each file that is readable, and a turn
costs about as much as a connection: so the listening socket has as many files. A herd of 10 000 is in after 0.8 s
instead of 1.2 s."""


class _Server(uvicorn.Server):
    """uvicorn raises a caught signal again after its shutdown; here signals are the command's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one; the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    with contextlib.suppress(ValueError, OSError):  # some systems name a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; `shared`: with other processes' on the same port. Raises OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
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
    protocol: type[asyncio.Protocol] = PROTOCOL,
    shared: bool = False,
) -> None:
    """Serves until `stop`, lets the subscribers go, returns. Raises OSError where the address is taken."""
    bound = listen(host, port, shared=shared)
    files = raise_open_files()
    front = FrontEnd(settings, backend, clock, open_access=open_access, open_files=files)
    logger.info("room for subscribers", extra={"subscribers": front.capacity.most, "open_files": files})
    config = uvicorn.Config(
        front.app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # what a proxy says of its client matters to /docs alone, which looks itself
        timeout_graceful_shutdown=CLOSE_SECONDS,
        timeout_keep_alive=75,
        backlog=BACKLOG,
    )
    server = _Server(config)
    with contextlib.ExitStack() as listening:
        sockets = [listening.enter_context(bound)]
        sockets += [listening.enter_context(bound.dup()) for _ in range(ACCEPTED_AT_ONCE - 1)]
        on_listening(bound.getsockname()[1])
        await _serve(front, server, sockets, stop)


async def _serve(front: FrontEnd, server: _Server, sockets: list[socket.socket], stop: asyncio.Event) -> None:
    try:
        await _serve_until(front, server, sockets, stop)
    finally:
        # Cancelled in the middle: uvicorn leaves what it listens on open.
        for listener in getattr(server, "servers", ()):
            listener.close()


async def _last_words(front: FrontEnd) -> None:
    """Until the streams that were let go took what was on its way: uvicorn does not wait for connections of ours."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS * 1.2):
            while front.capacity.open:  # noqa: ASYNC110 - ten thousand closings are one wait
                await asyncio.sleep(0.02)


async def _serve_until(front: FrontEnd, server: _Server, sockets: list[socket.socket], stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(front.run(), name="front")
        serving = group.create_task(server.serve(sockets=sockets), name="http")
        stopping = group.create_task(stop.wait(), name="stop")
        await asyncio.wait({serving, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        await front.drain()
        await _last_words(front)
        server.should_exit = True
        await asyncio.wait({serving})
        running.cancel()
        stopping.cancel()
