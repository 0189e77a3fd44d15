"""`bridge up`: all roles in one process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.dispatcher import open_dispatcher
from bridge.process.embedded import EmbeddedError, EmbeddedServer
from bridge.process.redis_connection import attend_redis, connected
from bridge.process.secret_keys import key_file, own_key, refuse_unopened
from bridge.process.signals import Stop, run_role, until
from bridge.process.startup import StartupInfo, open_access
from bridge.process.upstream import phala_client
from bridge.process.web import serve_front
from bridge.simulator.server import serve as serve_simulator
from bridge.store.connection import Backend
from bridge.store.errors import StoreError
from bridge.store.server_clock import ServerClock
from bridge.upstream.leader import Upstream
from bridge.uvicorn_server import http_url

STATUS_SECONDS = 2.0
"""How long the exit status of a server whose connections broke may take."""


async def run_up(settings: Settings, announce: Callable[[StartupInfo], None], stop: Stop) -> None:
    """Everything in one process. `announce` is called once the front end listens. Raises CommandError."""
    host, clock = settings.host or "127.0.0.1", ServerClock(SystemClock())
    opened = open_access(settings, host, alone=True)
    async with contextlib.AsyncExitStack() as stack:
        embedded = None if settings.redis_url else await stack.enter_async_context(EmbeddedServer())
        url = embedded.socket_url if embedded else str(settings.redis_url)
        backend = await stack.enter_async_context(connected(url, settings.namespace))
        settings = await _with_webhooks(settings, backend)
        simulated = settings.api_key is None
        if simulated:
            settings = await stack.enter_async_context(_simulated(settings))
        client = await stack.enter_async_context(phala_client(settings, clock))
        dispatcher, keys = await stack.enter_async_context(open_dispatcher(settings, backend, clock))
        upstream = Upstream(settings, backend, client, clock, alone=embedded is not None)

        def report(port: int) -> None:
            announce(
                StartupInfo(
                    address=http_url(host, port, tls=settings.tls_cert is not None),
                    redis_url=embedded.url if embedded else masked_url(url),
                    settings=settings,
                    simulated=simulated,
                    embedded=embedded,
                    open_access=opened,
                )
            )

        web = serve_front(settings, backend, clock, stop, host=host, opened=opened, report=report)
        async with _watched(embedded, stop), asyncio.TaskGroup() as group:
            attend_redis(group, "up", backend, clock, stop, "" if embedded else masked_url(url))
            group.create_task(run_role("web", web, stop), name="web")
            group.create_task(run_role("upstream", upstream.run(stop), stop), name="upstream")
            group.create_task(until(stop, keys.follow(clock)), name="secret keys")
            group.create_task(run_role("dispatcher", dispatcher.run(stop), stop), name="dispatcher")


async def _with_webhooks(settings: Settings, backend: Backend) -> Settings:
    """With this machine's own secret key if none is set, and with receivers on this machine allowed.

    Raises CommandError where the key does not open what is sealed, or is gone.
    """
    keys = settings.secret_key or (await own_key(backend),)
    await refuse_unopened(keys, backend, "BRIDGE_SECRET_KEY" if settings.secret_key else str(key_file()))
    return settings.model_copy(update={"secret_key": keys, "webhook_allow": with_loopback(settings.webhook_allow)})


@contextlib.asynccontextmanager
async def _simulated(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a simulator as upstream; if they name no CVMs, all of its CVMs are watched."""
    async with serve_simulator() as simulator:
        yield settings.model_copy(
            update={
                "api_key": SecretStr("simulated"),
                "api_prefix": simulator.api_prefix,
                "cvms": settings.cvms or ("*",),
            }
        )


@contextlib.asynccontextmanager
async def _watched(embedded: EmbeddedServer | None, stop: Stop) -> AsyncIterator[None]:
    """Sets `stop` if the embedded server ends while the context is open, and raises its EmbeddedError at the end."""
    if embedded is None:
        yield
        return
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_stop_with(embedded, stop), name="embedded-redis")
        try:
            yield
        except* StoreError:
            if not await _has_ended(embedded):
                raise
        if not watching.done():
            watching.cancel()
    if not watching.cancelled():
        await embedded.wait()


async def _stop_with(embedded: EmbeddedServer, stop: Stop) -> None:
    with contextlib.suppress(EmbeddedError):
        await embedded.wait()
    stop.set_at_once()


async def _has_ended(embedded: EmbeddedServer) -> bool:
    """Whether a server whose connections broke has ended; its exit status may come a moment later."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            await embedded.wait()
    except EmbeddedError:
        return True
    except TimeoutError:
        pass
    return False
