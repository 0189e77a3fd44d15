"""One process's connection to Redis: all URL forms, scripts that survive a restart, errors translated in one place."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

import redis.asyncio as redis
from redis import exceptions as errors
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from bridge.redis_url import parse_redis_url
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.keys import Keys
from bridge.store.metrics import counted

T = TypeVar("T")

CALL_TIMEOUT = 5.0
"""Seconds one command may take. redis-py's own socket_timeout goes through asyncio.wait_for, which on CPython 3.11
can swallow a cancellation; this one cannot."""


LAST_CALL_TIMEOUT = 2.0
"""The same while this process is ending."""

GIVEN_UP_TIMEOUT = 0.1
"""The same once a Redis has not answered while this process is ending: it need not be waited for again and again."""


@dataclass(frozen=True)
class Script:
    """A Lua script and its SHA-1, by which the server finds it."""

    text: str
    sha: str


def load_script(*names: str) -> Script:
    """The scripts of these names put together, behind what all share (`prelude.lua`)."""
    folder = resources.files("bridge.store").joinpath("scripts")
    text = "".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in ("prelude", *names))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_NOW = load_script("now")


MOST_CALLS = 50
"""Commands of one process at the same moment, each on a connection of its own; more wait their turn, in order. redis-py
itself refuses the 101st."""


class Backend:
    """A client, the namespace's keys, and calls that raise StoreErrors."""

    def __init__(self, client: Any, namespace: str, *, call_timeout: float = CALL_TIMEOUT) -> None:
        self.client = client
        self.keys = Keys(namespace)
        self._timeout = call_timeout
        self._turns = asyncio.Semaphore(MOST_CALLS)
        self._limits: set[asyncio.Timeout] = set()
        self._hurries = False

    def hurry(self) -> None:
        """This process is ending. From here on it does not wait long for a Redis that hangs: for one command at most,
        those that are under way included.
        """
        self._hurries = True
        self._timeout = min(self._timeout, LAST_CALL_TIMEOUT)
        latest = asyncio.get_running_loop().time() + self._timeout
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(min(limit.when() or latest, latest))

    async def call(self, command: Awaitable[T]) -> T:
        """Awaits one command. Raises StoreUnavailableError if the server is unreachable, not ready or too slow, or if
        no connection becomes free in time, else StoreError if it refuses the command.
        """
        with counted(asyncio.get_running_loop().time):
            return await self._in_turn(command)

    async def _in_turn(self, command: Awaitable[T]) -> T:
        if self._turns.locked():
            await self._wait(command)
        else:
            await self._turns.acquire()
        try:
            async with self._limit():
                done = await command
            if self._hurries:
                self._timeout = LAST_CALL_TIMEOUT
            return done
        except TimeoutError as error:
            waited = f"{self._timeout:g} s"
            if self._hurries:
                self._timeout = GIVEN_UP_TIMEOUT
            raise StoreUnavailableError(f"Redis did not answer within {waited}") from error
        except (errors.ConnectionError, errors.TimeoutError, errors.RedisClusterException, OSError) as error:
            raise StoreUnavailableError(f"Redis is out of reach ({_reason(error)})") from error
        except errors.RedisError as error:
            raise _translated(error) from error
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        async with asyncio.timeout(self._timeout) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def _wait(self, command: Awaitable[Any]) -> None:
        """For the command's turn. It is closed if it does not come."""
        try:
            async with self._limit():
                await self._turns.acquire()
        except BaseException as error:
            if asyncio.iscoroutine(command):
                command.close()
            if not isinstance(error, TimeoutError):
                raise
            waited = f"none of {MOST_CALLS} connections became free within {self._timeout:g} s"
            raise StoreUnavailableError(f"Redis is busy: {waited}") from error

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        """Runs a script atomically; loads it again if the server has forgotten it. Raises as `call` does."""
        return await self.call(self._evaluate(script, keys, args))

    async def _evaluate(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        try:
            return await self.client.evalsha(script.sha, len(keys), *keys, *args)
        except errors.NoScriptError:
            return await self.client.eval(script.text, len(keys), *keys, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A pipeline of commands that run as one; pass its `execute()` to `call`.

        In it, use `execute_command("SMEMBERS", …)` (likewise HGETALL) instead of the methods: these pass `keys=`,
        which redis-py's cluster pipeline cannot handle when it converts the answer.
        """
        # A cluster's pipeline looks for the nodes on entry; this call translates the error if they are unreachable.
        await self.call(self.client.initialize())
        async with self.client.pipeline(transaction=True) as pipe:
            yield pipe

    async def read_together(self, queue: Callable[[Any], object], needed: int | None = None) -> list[Any]:
        """The answers to what `queue` puts into a pipeline (see `transaction`), all of it reading, as of one moment.

        Raises as `call` if one of the first `needed` (None: all) is refused; the other errors stand in their places.
        A Redis that is full queues no command before Valkey 9: they run one after the other then, while no event is
        written.
        """
        await self.call(self.client.initialize())
        return await self.call(self._read_together(queue, needed))

    async def _read_together(self, queue: Callable[[Any], object], needed: int | None) -> list[Any]:
        try:
            found = await self._execute(queue, as_one=True)
        except (errors.OutOfMemoryError, errors.ExecAbortError):
            found = await self._execute(queue, as_one=False)
        for each in found[:needed]:
            if isinstance(each, Exception):
                raise each
        return found

    async def _execute(self, queue: Callable[[Any], object], *, as_one: bool) -> list[Any]:
        async with self.client.pipeline(transaction=as_one) as pipe:
            queue(pipe)
            return list(await pipe.execute(raise_on_error=False))

    async def now_ms(self) -> int:
        """The server's time, milliseconds since the Unix epoch: the only clock that processes share."""
        return int(await self.run(_NOW, [self.keys.meta], []))

    async def ping(self) -> None:
        """Returns when the server answers. Raises StoreUnavailableError."""
        await self.call(self.client.ping())

    async def version(self) -> str:
        """The server's name and version. HELLO tells it to every user; INFO needs a right of its own."""
        await self.call(self.client.initialize())
        node = self.client.get_default_node() if isinstance(self.client, RedisCluster) else self.client
        found: dict[str, Any] = await self.call(node.execute_command("HELLO"))
        return f"{str(found['server']).capitalize()} {found['version']}"

    async def close(self) -> None:
        await self.client.aclose()
        # A client made by a Sentinel does not close the connections to the sentinels themselves.
        manager = getattr(getattr(self.client, "connection_pool", None), "sentinel_manager", None)
        for guard in manager.sentinels if manager is not None else ():
            await guard.aclose()


# Error words of a server that is starting, failing over, or lacks a master, memory or disk. The caller tries again.
_PASSING = "LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|BUSY|UNBLOCKED|OOM|MISCONF"

_PASSING_ERRORS = (errors.ReadOnlyError, errors.ClusterDownError, errors.TryAgainError, errors.OutOfMemoryError)
"""Errors from whose text redis-py has removed the word."""


def _reason(error: Exception) -> str:
    """The error's name; for a certificate that is not accepted, what is wrong with it."""
    refused = re.search(r"certificate verify failed[^(]*", str(error))
    return refused[0].strip(" .") if refused else type(error).__name__


def _translated(error: errors.RedisError) -> StoreError:
    text = str(error)
    # Redis 6.2 wraps the error of a command inside a script: "Error running script …: -READONLY You can't write …".
    word = re.search(rf"^({_PASSING})| -({_PASSING}) ", text)
    if word or isinstance(error, _PASSING_ERRORS):
        return StoreUnavailableError(f"Redis is not ready ({word[1] or word[2] if word else type(error).__name__})")
    return StoreError(f"Redis refused: {text[:200]}")


_OPTIONS: dict[str, Any] = {
    "decode_responses": True,
    "encoding_errors": "replace",
    "socket_timeout": None,
    "socket_connect_timeout": CALL_TIMEOUT,
}


def connect(url: str, namespace: str) -> Backend:
    """A backend for any of the contract's URL forms. Connects at first use. Raises ValueError on a URL that cannot be
    used: malformed, or with TLS files that cannot be read."""
    parts = parse_redis_url(url)
    _check_tls(parts.options)
    retry = Retry(NoBackoff(), 1)  # for the sentinels too: ten tries at a dead one (the default) outlast CALL_TIMEOUT
    options = {**_OPTIONS, **parts.options}
    client: Any
    if parts.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in parts.hosts]
        client = cast(Any, RedisCluster)(startup_nodes=nodes, **options)
    elif parts.kind == "sentinel":
        guards = {**_OPTIONS, **parts.sentinel_options, "retry": retry}
        sentinel = cast(Any, Sentinel)(list(parts.hosts), sentinel_kwargs=guards)
        client = sentinel.master_for(parts.master, retry=retry, **options)
    else:
        client = redis.Redis.from_url(url.strip(), retry=retry, **_OPTIONS)
    return Backend(client, namespace)


def _check_tls(options: dict[str, Any]) -> None:
    """redis-py reads the files at each connection; what is wrong with them then passes for a server out of reach."""
    if not options.get("ssl"):
        return
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    try:
        for name in given.keys() & {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}:
            Path(given[name]).read_bytes()  # the error then names the file; that of OpenSSL does not
        redis.SSLConnection(**given).ssl_context.get()
    except (OSError, errors.RedisError) as error:
        raise ValueError(f"TLS cannot be set up with its options: {error}") from None
