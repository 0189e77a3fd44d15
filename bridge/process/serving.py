"""`/healthz`, `/readyz` and `/metrics` of a role that has no front end (`BRIDGE_PROBE_PORT`), and how small apps are
served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.process.startup import bound_address
from bridge.store.connection import Backend
from bridge.store.errors import StoreError

LAST_ANSWERS = 1
"""Whole seconds that answers in the making are waited for at the end."""


def create_app(backend: Backend, role: Callable[[], str]) -> Starlette:
    """Alive while it answers; ready while Redis does, whatever its `role` just now (contract section 6)."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        try:
            await backend.ping()
        except StoreError as error:
            return JSONResponse({"status": "unavailable", "redis": str(error)}, 503)
        return JSONResponse({"status": "ready", "role": role()})

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    """uvicorn's without its signal handlers: `stop` ends it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve_probe(host: str, port: int, backend: Backend, role: Callable[[], str], stop: asyncio.Event) -> None:
    """Serves until `stop`. Raises OSError where the address cannot be had."""
    await serve_app(create_app(backend, role), listening(host, port), stop)


def listening(host: str, port: int) -> socket.socket:
    """Raises OSError where the address cannot be had."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def serve_app(app: Starlette, listener: socket.socket, stop: asyncio.Event) -> None:
    """A small app on what listens already, until `stop`."""
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([listener]), name="server")
        await stop.wait()
        server.should_exit = True


async def serve_role_probe(port: int, backend: Backend, role: Callable[[], str], stop: asyncio.Event) -> None:
    with bound_address("0.0.0.0", port, "BRIDGE_PROBE_PORT"):  # noqa: S104 - probes come from outside
        await serve_probe("0.0.0.0", port, backend, role, stop)  # noqa: S104
