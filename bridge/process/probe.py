"""`/healthz`, `/readyz` and `/metrics` on a port of their own (`BRIDGE_PROBE_PORT`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.exposition import exposition
from bridge.process.signals import run_role
from bridge.process.startup import ALL_ADDRESSES, named_address
from bridge.store.connection import Backend
from bridge.store.errors import StoreError
from bridge.uvicorn_server import listening_socket, serving, small_server
from bridge.web.http.http1 import BoundedProtocol
from bridge.web.http.waiting_connections import WaitingConnections

MOST_CONNECTIONS = 100
"""More than all who ask for health; a leader needs its files and its time for streams and Redis."""


def create_app(
    backend: Backend,
    role: Callable[[], str],
    trouble: Callable[[], str] = str,
    degraded: Callable[[], str] = str,
    note: Callable[[], str] = str,
) -> Starlette:
    """Of a role without a front end. Healthy while it answers; ready while Redis answers and `trouble` is empty, for
    leader and standby alike; degraded while `degraded` is not empty. `note` is told beside it
    (docs/contract.md#http)."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        try:
            await backend.ping()
        except StoreError as error:
            return JSONResponse({"status": "unavailable", "redis": str(error)}, 503)
        if reason := trouble():
            return JSONResponse({"status": "unavailable", "role": role(), "reason": reason}, 503)
        if reason := degraded():
            return JSONResponse({"status": "degraded", "role": role(), "reason": reason})
        return JSONResponse({"status": "ready", "role": role()} | ({"reason": reason} if (reason := note()) else {}))

    async def metrics(request: Request) -> Response:
        return Response(exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


def start_probe(group: asyncio.TaskGroup, settings: Settings, app: Starlette, stop: asyncio.Event) -> None:
    """Starts a task that serves the probe if BRIDGE_PROBE_PORT is set; it raises CommandError if the port is in use."""
    if settings.probe_port is not None:
        group.create_task(run_role("probe", serve_probe(settings.probe_port, stop, app), stop), name="probe")


async def serve_probe(port: int, stop: asyncio.Event, app: Starlette, *, shared: bool = False) -> None:
    """Until `stop`, or its cancellation. `shared`: other processes listen on the same port. Raises CommandError."""
    with named_address(ALL_ADDRESSES, port, "BRIDGE_PROBE_PORT"):
        listener = listening_socket(ALL_ADDRESSES, port, shared=shared)
    waiting = WaitingConnections(SystemClock(), most=MOST_CONNECTIONS, streams=lambda: 0)
    server = small_server(app, protocol=partial(BoundedProtocol, waiting=waiting))
    async with serving(server, listener), asyncio.TaskGroup() as group:
        expiring = group.create_task(waiting.run(), name="waiting connections")
        await stop.wait()
        expiring.cancel()
