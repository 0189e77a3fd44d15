"""The bodies of `bridge up`, `web` and `upstream`: what is started, in which order it ends, and who hears a signal.

Every body runs until `stop` is set and returns once all that it started has ended. What keeps one from starting, or
ends it before its time, is a RefusalError or an EmbeddedError of one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.embedded import EmbeddedError, EmbeddedServer, state_directory
from bridge.process.serving import serve_probe
from bridge.process.workers import RefusedError, end_with_parent, run_workers
from bridge.sealing import KeyFileError, Sealer, kept_key
from bridge.simulator.server import serve as serve_simulator
from bridge.store.connection import Backend, connect
from bridge.store.errors import StoreError
from bridge.upstream.client import PhalaClient
from bridge.upstream.leader import Upstream
from bridge.web.server import serve_web
from bridge.webhooks.dispatcher import Dispatcher
from bridge.webhooks.formats import render
from bridge.webhooks.signing import sign
from bridge.webhooks.transport import Poster

logger = logging.getLogger(__name__)

Body = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

REMINDER_SECONDS = 30.0
"""Between two log lines that say that Redis is still missing."""

STATUS_SECONDS = 2.0
"""How long the exit status of a server whose connections broke may take."""


class RefusalError(Exception):
    """a command cannot run as it is set up; one line says why and what helps"""


@dataclass(frozen=True)
class StartupInfo:
    """What `bridge up` tells whoever started it; `simulated` and `embedded` say what it brought along itself."""

    address: str
    redis_url: str
    settings: Settings
    simulated: bool
    embedded: EmbeddedServer | None
    open_access: bool


def execute(body: Body, *expected: type[Exception]) -> None:
    """Runs a body on uvloop where it is installed; SIGINT and SIGTERM set its `stop`, a second one ends the process.

    Raises RefusalError, EmbeddedError and what else is `expected` alone even where a task group had wrapped it.
    """
    caught: tuple[type[Exception], ...] = (RefusalError, EmbeddedError, *expected)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_heeding_signals(body))
    except* caught as group:
        refusal = _first(group)
    else:
        return
    raise refusal from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - it is not everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _heeding_signals(body: Body) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    heard = False

    def hear(number: signal.Signals) -> None:
        nonlocal heard
        if heard:
            os._exit(128 + number)  # whoever asks twice means now; the embedded server ends by its own watch
        # Not told by `stop`: a parent's word on its way to a worker that is signalled too is no second asking.
        heard = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    await body(stop)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends or `stop` is set; then it is cancelled and its end awaited."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work, name="work")
        stopping = group.create_task(_cancel_at(stop, working), name="stop")
        await asyncio.wait({working})
        stopping.cancel()


async def _cancel_at(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()


def open_access(settings: Settings, host: str, *, alone: bool) -> bool:
    """Whether callers need no token. Raises RefusalError where that would open the bridge to others unasked.

    `alone`: this is `bridge up`, which may be open without being told so while only this machine can connect.
    """
    if not settings.auth:
        return True
    if settings.tokens:
        return False
    if alone and _is_loopback(host):
        return True
    raise RefusalError(
        "BRIDGE_TOKENS is not set, so nobody could be let in: set it to name:secret:scope, or BRIDGE_AUTH=off to let "
        "everybody in"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run_up(settings: Settings, announce: Callable[[StartupInfo], None], stop: asyncio.Event) -> None:
    """Everything in one process. `announce` is called once the front end listens."""
    host, clock = settings.host or "127.0.0.1", SystemClock()
    opened = open_access(settings, host, alone=True)
    async with contextlib.AsyncExitStack() as stack:
        embedded = None if settings.redis_url else await stack.enter_async_context(EmbeddedServer())
        url = embedded.socket_url if embedded else str(settings.redis_url)
        settings = _with_webhooks(settings)
        simulated = settings.api_key is None
        if simulated:
            settings = await stack.enter_async_context(_simulated(settings))
        backend = await stack.enter_async_context(_backend(url, settings.namespace))
        client = await stack.enter_async_context(_client(settings, clock))
        upstream = Upstream(settings, backend, client, clock, alone=embedded is not None)
        dispatcher = None
        if settings.secret_key:
            dispatcher = await stack.enter_async_context(_dispatcher(settings, backend, clock))

        def say(port: int) -> None:
            shown = embedded.url if embedded else masked_url(url)
            announce(StartupInfo(_url(host, port), shown, settings, simulated, embedded, opened))

        web = _serve_web(settings, backend, clock, stop, host=host, opened=opened, say=say)
        async with _guarded(embedded, stop), asyncio.TaskGroup() as group:
            _report_redis(group, backend, clock, stop, "" if embedded else masked_url(url))
            group.create_task(_role("web", web, stop), name="web")
            group.create_task(_role("upstream", upstream.run(stop), stop), name="upstream")
            if dispatcher is not None:
                group.create_task(_role("dispatcher", dispatcher.run(stop), stop), name="dispatcher")


def _with_webhooks(settings: Settings) -> Settings:
    """With a key of this machine's own where none is set, and receivers on this machine allowed."""
    try:
        keys = settings.secret_key or (kept_key(state_directory() / "secret.key"),)
    except KeyFileError as error:
        raise RefusalError(str(error)) from None
    return settings.model_copy(update={"secret_key": keys, "webhook_allow": with_loopback(settings.webhook_allow)})


async def run_web_workers(settings: Settings, count: int, stop: asyncio.Event) -> None:
    """So many front ends on one port."""
    _needed_redis(settings)
    host = settings.host or "0.0.0.0"  # noqa: S104 - the contract's default
    open_access(settings, host, alone=False)
    with _address(host, settings.port, "PORT"):
        try:
            await run_workers(settings, count, stop)
        except* RefusedError:
            raise RefusalError("a worker could not start") from None


async def run_web(settings: Settings, stop: asyncio.Event, *, worker: bool = False) -> None:
    """One front end. An absent Redis is waited for: it listens meanwhile and is not ready.

    `worker`: one of several on the same port, that ends with its parent.
    """
    if worker:
        end_with_parent(stop)
    host, clock = settings.host or "0.0.0.0", SystemClock()  # noqa: S104 - the contract's default
    url = _needed_redis(settings)
    opened = open_access(settings, host, alone=False)

    def say(port: int) -> None:
        logger.info("listening", extra={"address": _url(host, port), "redis": masked_url(url)})

    async with _backend(url, settings.namespace) as backend, asyncio.TaskGroup() as group:
        _report_redis(group, backend, clock, stop, masked_url(url))
        web = _serve_web(settings, backend, clock, stop, host=host, opened=opened, say=say, shared=worker)
        group.create_task(_role("web", web, stop), name="web")


async def run_upstream(settings: Settings, stop: asyncio.Event) -> None:
    """One replica, leading or standing by. An absent Redis is waited for."""
    url, clock = _needed_redis(settings), SystemClock()
    if settings.api_key is None:
        raise RefusalError("PHALA_CLOUD_API_KEY is not set: `bridge upstream` needs it (`bridge up` can simulate)")
    async with (
        _backend(url, settings.namespace) as backend,
        _client(settings, clock) as client,
        asyncio.TaskGroup() as group,
    ):
        upstream = Upstream(settings, backend, client, clock)
        _report_redis(group, backend, clock, stop, masked_url(url))
        if settings.probe_port is not None:
            probe = _serve_probe(
                settings.probe_port, backend, lambda: "leader" if upstream.leading else "standby", stop
            )
            group.create_task(_role("probe", probe, stop), name="probe")
        group.create_task(_role("upstream", upstream.run(stop), stop), name="upstream")


async def run_dispatcher(settings: Settings, stop: asyncio.Event) -> None:
    """One replica of the webhooks' sending side. An absent Redis is waited for."""
    url, clock = _needed_redis(settings), SystemClock()
    if not settings.secret_key:
        raise RefusalError(
            "BRIDGE_SECRET_KEY is not set: `bridge dispatcher` needs the key that `bridge web` has (`bridge keygen` "
            "prints one)"
        )
    async with (
        _backend(url, settings.namespace) as backend,
        _dispatcher(settings, backend, clock) as dispatcher,
        asyncio.TaskGroup() as group,
    ):
        _report_redis(group, backend, clock, stop, masked_url(url))
        if settings.probe_port is not None:
            probe = _serve_probe(settings.probe_port, backend, lambda: "dispatcher", stop)
            group.create_task(_role("probe", probe, stop), name="probe")
        settle_garbage_collection()
        group.create_task(_role("dispatcher", dispatcher.run(stop), stop), name="dispatcher")


@contextlib.asynccontextmanager
async def _dispatcher(settings: Settings, backend: Backend, clock: Clock) -> AsyncIterator[Dispatcher]:
    async with Poster(timeout=settings.webhook_timeout, allow=settings.webhook_allow, clock=clock) as poster:
        yield Dispatcher(
            backend,
            poster,
            render=render,
            sign=sign,
            unseal=Sealer(settings.secret_key).open,
            retry=settings.webhook_retry,
            clock=clock,
        )


def _needed_redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise RefusalError("REDIS_URL is not set: only `bridge up` brings a Redis of its own")
    return settings.redis_url


@contextlib.asynccontextmanager
async def _backend(url: str, namespace: str) -> AsyncIterator[Backend]:
    try:
        backend = connect(url, namespace)
    except ValueError as error:
        raise RefusalError(f"REDIS_URL cannot be used: {masked_url(str(error))}") from None
    try:
        yield backend
    finally:
        with contextlib.suppress(StoreError, OSError):
            await backend.close()


@contextlib.asynccontextmanager
async def _client(settings: Settings, clock: Clock) -> AsyncIterator[PhalaClient]:
    assert settings.api_key is not None
    client = PhalaClient(settings.api_prefix, settings.api_key.get_secret_value(), clock=clock)
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def _simulated(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with a simulator of their own as upstream, all of its CVMs watched unless some are named."""
    async with serve_simulator() as simulator:
        yield settings.model_copy(
            update={
                "api_key": SecretStr("simulated"),
                "api_prefix": simulator.api_prefix,
                "cvms": settings.cvms or ("*",),
            }
        )


@contextlib.asynccontextmanager
async def _guarded(embedded: EmbeddedServer | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """Sets `stop` once the embedded server ends before the inside, and raises its EmbeddedError after that."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_stop_with(embedded, stop), name="embedded-redis") if embedded else None
        try:
            yield
        except* StoreError:
            if embedded is None or not await _has_ended(embedded):
                raise
        if watching is not None and not watching.done():
            watching.cancel()
    if embedded is not None and watching is not None and not watching.cancelled():
        await embedded.wait()


async def _stop_with(embedded: EmbeddedServer, stop: asyncio.Event) -> None:
    with contextlib.suppress(EmbeddedError):
        await embedded.wait()
    stop.set()


async def _has_ended(embedded: EmbeddedServer) -> bool:
    """Broken connections are how a server's end shows first: its status follows within moments."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            await embedded.wait()
    except EmbeddedError:
        return True
    except TimeoutError:
        pass
    return False


async def _role(name: str, work: Awaitable[None], stop: asyncio.Event) -> None:
    await work
    if not stop.is_set():
        raise RefusalError(f"{name} ended although nothing had asked it to; the log says more")


async def _serve_web(
    settings: Settings,
    backend: Backend,
    clock: Clock,
    stop: asyncio.Event,
    *,
    host: str,
    opened: bool,
    say: Callable[[int], None],
    shared: bool = False,
) -> None:
    def listening(port: int) -> None:
        settle_garbage_collection()
        say(port)

    with _address(host, settings.port, "PORT"):
        await serve_web(
            settings,
            backend,
            clock,
            stop,
            host=host,
            port=settings.port,
            open_access=opened,
            on_listening=listening,
            shared=shared,
        )


async def _serve_probe(port: int, backend: Backend, role: Callable[[], str], stop: asyncio.Event) -> None:
    with _address("0.0.0.0", port, "BRIDGE_PROBE_PORT"):  # noqa: S104 - probes come from outside
        await serve_probe("0.0.0.0", port, backend, role, stop)  # noqa: S104


def settle_garbage_collection() -> None:
    """What is here now stays, so that collections need not walk through it; and they come seldom.

    Ten thousand subscribers are a million young objects within two seconds, none of them garbage: with the default
    thresholds the collector takes a third of that time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@contextlib.contextmanager
def _address(host: str, port: int, variable: str) -> Iterator[None]:
    """An address that cannot be had is a refusal that names the variable to change."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({os.strerror(error.errno)})"
        place = _url(host, port).removeprefix("http://")
        raise RefusalError(f"{place} {what}: set {variable} to another port") from None


def _report_redis(group: asyncio.TaskGroup, backend: Backend, clock: Clock, stop: asyncio.Event, url: str) -> None:
    group.create_task(until(stop, wait_for_redis(backend, clock, url)), name="redis-report")


async def wait_for_redis(backend: Backend, clock: Clock, url: str) -> None:
    """Returns once Redis has answered. While it does not: one log line at once and one every 30 seconds."""
    said_at: float | None = None
    while True:
        try:
            await backend.ping()
        except StoreError as error:
            if said_at is None or clock.monotonic() - said_at >= REMINDER_SECONDS:
                logger.warning("waiting for Redis, which must answer first", extra={"redis": url, "error": str(error)})
                said_at = clock.monotonic()
            await clock.sleep(1.0)
            continue
        if said_at is not None:
            logger.info("Redis answers", extra={"redis": url})
        return
