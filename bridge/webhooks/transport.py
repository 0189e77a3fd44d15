"""One attempt: an HTTP request that can neither block a dispatcher nor reach a forbidden address.

The rules are in `docs/contract.md#webhooks`. Errors of sockets and TLS become an AttemptOutcome here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self
from urllib.parse import urlsplit

from bridge import __version__
from bridge.addresses import Resolve, UrlRefusedError, check_addresses, parse_url
from bridge.clock import Clock
from bridge.config_values import Allowlist
from bridge.host_lookup import HostLookup
from bridge.retry_after import parse_retry_after
from bridge.webhooks.bodies import shown
from bridge.webhooks.connections import Connection, IdleConnections, Origin, TlsError, UnansweredError, connect
from bridge.webhooks.http_answer import HttpAnswer
from bridge.webhooks.names import Names
from bridge.webhooks.schedule import LONGEST_RETRY_AFTER, AttemptOutcome, InTime, NotAttemptedError, check_in_time

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 1_800
"""In use and idle: twice as many as a dispatcher has attempts at once."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""This machine's own faults at opening a connection: no files or memory are left."""


@dataclass(eq=False, kw_only=True)
class Poster:
    """Makes attempts, any number at the same time; a context manager. It knows no cookies, redirects or proxies."""

    timeout: float
    allow: Allowlist
    clock: Clock
    resolve: Resolve = field(default_factory=HostLookup)
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    most_connections: int = MOST_CONNECTIONS

    async def __aenter__(self) -> Self:
        self._names = Names(self.resolve, self.allow, self.clock)
        self._idle = IdleConnections(self.most_connections)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._names.close()
        self._idle.close()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime = lambda: True
    ) -> AttemptOutcome:
        """One attempt, which ends within the timeout. Raises NotAttemptedError if this machine could not make it,
        or not in time.

        If the receiver repeats the URL's path, query or a custom header, the recorded body has `***` instead.
        """
        started = self.clock.monotonic()
        answer = HttpAnswer()
        error = await self._attempt(url, headers, body, in_time, answer)
        duration = round((self.clock.monotonic() - started) * 1000)
        return AttemptOutcome(
            answer.status, error, self._retry_after(answer), shown(bytes(answer.body.kept), url, headers), duration
        )

    async def _attempt(
        self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime, answer: HttpAnswer
    ) -> str | None:
        """None after a 2xx, else the error. Once there is a status, it decides: a later failure only cuts the body."""
        try:
            await self._exchange(url, headers, body, in_time, answer)
        except NotAttemptedError:
            raise
        except Exception as error:
            if answer.status is None:
                return _classify(error, self.timeout)
        return _verdict(answer)

    async def _exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime, answer: HttpAnswer
    ) -> None:
        deadline = asyncio.get_running_loop().time() + self.timeout
        origin, start = _split(url)
        encoded = _request(start, headers, body)

        def request() -> bytes:
            check_in_time(in_time)
            return encoded

        with self._idle.using():
            known = self._idle.take(origin)
            if known is not None and await self._reuse(known, origin, request, answer, deadline):
                return
            addresses = await self._addresses(origin, deadline)
            async with asyncio.timeout_at(deadline):
                connection = await self._connect(origin, addresses)
                await self._send(connection, origin, request, answer)

    async def _reuse(
        self, connection: Connection, origin: Origin, request: Callable[[], bytes], answer: HttpAnswer, deadline: float
    ) -> bool:
        """False if the connection ended before a byte of the answer: the receiver had been closing it."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(connection, origin, request, answer)
        except UnansweredError:
            if answer.wire:
                raise
            return False
        return True

    async def _send(
        self, connection: Connection, origin: Origin, request: Callable[[], bytes], answer: HttpAnswer
    ) -> None:
        try:
            await connection.exchange(request(), answer)
        finally:
            if answer.reusable:
                self._idle.give(origin, connection)
            else:
                connection.abort()

    async def _addresses(self, origin: Origin, deadline: float) -> Sequence[str]:
        if origin.literal:
            check_addresses("", [origin.host], self.allow)
            return [origin.host]
        left = deadline - asyncio.get_running_loop().time()
        return await self._names.addresses(origin.host, origin.port, left)

    async def _connect(self, origin: Origin, addresses: Sequence[str]) -> Connection:
        try:
            return await connect(origin, addresses, self.tls)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise NotAttemptedError("connections", os.strerror(error.errno)) from None
            raise

    def _retry_after(self, answer: HttpAnswer) -> float | None:
        if answer.status is None or 200 <= answer.status <= 299:
            return None
        return parse_retry_after(answer.retry_after, self.clock.time(), longest=LONGEST_RETRY_AFTER) or None


@lru_cache(4096)
def _split(url: str) -> tuple[Origin, bytes]:
    """Where to connect, and the request's head as far as it is the same for every delivery. Raises UrlRefusedError."""
    target, parts = parse_url(url), urlsplit(url)
    origin = Origin(target.host, target.port, parts.scheme == "https", target.literal)
    host = f"[{target.host}]" if ":" in target.host else target.host
    name = host if target.port == (443 if origin.tls else 80) else f"{host}:{target.port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return origin, f"POST {path} HTTP/1.1\r\nHost: {name}\r\n".encode("ascii")


_DEFAULTS = {"user-agent": f"bridge/{__version__}", "accept": "*/*", "accept-encoding": "identity"}


def _request(start: bytes, headers: Mapping[str, str], body: bytes) -> bytes:
    """The whole request. Raises ValueError for a header that would become two."""
    given = {name.lower() for name in headers}
    lines = [f"{name}: {value}\r\n" for name, value in _DEFAULTS.items() if name not in given]
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    fields = "".join(lines)
    if fields.count("\n") != len(lines) or fields.count("\r") != len(lines):
        raise ValueError("a header has a line end")
    return b"".join((start, fields.encode(), b"content-length: %d\r\n\r\n" % len(body), body))


def _verdict(answer: HttpAnswer) -> str | None:
    status = answer.status
    if status is None:
        return f"protocol: {answer.fault}"
    if 200 <= status <= 299:
        return None
    if 300 <= status <= 399:
        return f"http_3xx: the receiver answered {status}, and redirects are not followed"
    if status in range(400, 600):
        return f"http_{status // 100}xx: the receiver answered {status}"
    return f"protocol: the receiver answered {status}, which is not a final status"


def _classify(error: Exception, timeout: float) -> str:
    """A stable word and a sentence that quotes nothing, because the texts of errors may hold URLs."""
    match error:
        case UrlRefusedError():
            return f"{error.word}: {error.reason}"
        case TimeoutError():
            return f"timeout: there was no answer within {timeout:g} s"
        case TlsError():
            return f"tls: {error}{_why(error.cause)}"
        case UnansweredError():
            return f"reset: {error.__doc__}{_why(error)}"
        case OSError():
            return f"connect: no connection could be made{_why(error)}"
    logger.error("an attempt failed in an unknown way", extra={"error": type(error).__name__})
    return f"internal: the attempt failed in an unknown way ({type(error).__name__})"


def _why(error: Exception) -> str:
    """The operating system's or OpenSSL's own words, which name no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f" ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f" ({error.reason})" if error.reason else ""
    number = error.errno if isinstance(error, OSError) else None
    return f" ({os.strerror(number)})" if number else ""
