"""One attempt: an HTTP request that can neither block a dispatcher nor reach a forbidden address.

The rules are in `docs/contract.md#webhooks`. Only this module uses aiohttp, whose errors become an AttemptOutcome here.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge import __version__
from bridge.addresses import Resolve, UrlRefusedError, check_addresses, parse_url
from bridge.clock import Clock
from bridge.config_values import Allowlist
from bridge.host_lookup import HostLookup
from bridge.retry_after import parse_retry_after
from bridge.webhooks.bodies import read_body, shown
from bridge.webhooks.schedule import AttemptOutcome

logger = logging.getLogger(__name__)

KEEP_ALIVE = 1.5
"""Seconds an idle connection is kept: shorter than receivers keep theirs (2 and more), since a request sent into one
that is just being closed is a failed attempt."""

DNS_SECONDS = 10
"""How long a checked answer serves further connections to the same name."""

MAX_HEADER_LINE = 8190
"""Bytes of one line of a response's head, of which aiohttp takes 128; beyond, the attempt fails as `protocol`."""

BIG_BODY = 1 << 20
"""Bytes from which on aiohttp wants a body as a file, to send it in parts."""

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds; a `Retry-After` of more than a day counts as a day."""


class _CheckedResolver(AbstractResolver):
    """aiohttp connects only to the addresses that this returns: a later resolution of the name cannot change them."""

    def __init__(self, resolve: Resolve, allow: Allowlist) -> None:
        self._resolve = resolve
        self._allow = allow

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._resolve(host, port)
        check_addresses(host, addresses, self._allow)
        return [_resolved(host, port, address) for address in addresses]

    async def close(self) -> None:
        pass


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


@dataclass(eq=False, kw_only=True)
class Poster:
    """Makes attempts, any number at the same time; a context manager. It ignores cookies, redirects and the
    environment's proxies.
    """

    timeout: float
    allow: Allowlist
    clock: Clock
    resolve: Resolve = field(default_factory=HostLookup)
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(self.resolve, self.allow),
            ttl_dns_cache=DNS_SECONDS,
            ssl=self.tls,
            limit=0,  # the caller decides how many attempts there are at once
            keepalive_timeout=KEEP_ALIVE,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # the attempt's own deadline covers all of it
            trust_env=False,
            auto_decompress=False,  # aiohttp would inflate a whole chunk, however large it becomes
            headers={"User-Agent": f"bridge/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AttemptOutcome:
        """One attempt, which ends within the timeout. Raises nothing but CancelledError.

        If the receiver repeats the URL's query or a custom header, the recorded body has `***` instead.
        """
        started = self.clock.monotonic()
        answer = _Answer()
        error = await self._attempt(url, headers, body, answer)
        duration = round((self.clock.monotonic() - started) * 1000)
        return AttemptOutcome(
            answer.status, error, answer.retry_after, shown(bytes(answer.body), url, headers), duration
        )

    async def _attempt(self, url: str, headers: Mapping[str, str], body: bytes, answer: _Answer) -> str | None:
        """None after a 2xx, else the error. Once there is a status, it decides: a later failure only cuts the body."""
        try:
            async with asyncio.timeout(self.timeout):
                await self._exchange(url, headers, body, answer)
        except Exception as error:
            if answer.status is None:
                return _classify(error, self.timeout)
        return _verdict(answer.status)

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, answer: _Answer) -> None:
        assert self._session is not None, "the poster is used outside of its context"
        target = parse_url(url)
        if target.literal:  # aiohttp asks no resolver about these
            check_addresses("", [target.host], self.allow)
        async with self._session.post(
            URL(url, encoded=True),
            headers=headers,
            data=body if len(body) < BIG_BODY else io.BytesIO(body),
            allow_redirects=False,
        ) as response:
            answer.take(response, self.clock.time())
            await read_body(response, answer.body)


@dataclass(eq=False)
class _Answer:
    """What has been received so far."""

    status: int | None = None
    retry_after: float | None = None
    body: bytearray = field(default_factory=bytearray)

    def take(self, response: aiohttp.ClientResponse, now: float) -> None:
        self.status = response.status
        if response.status in (429, 503):
            seconds = parse_retry_after(response.headers.get("Retry-After"), now, longest=LONGEST_RETRY_AFTER)
            self.retry_after = seconds or None


def _verdict(status: int | None) -> str | None:
    if status is None or 200 <= status <= 299:
        return None
    if 300 <= status <= 399:
        return f"http_3xx: the receiver answered {status}, and redirects are not followed"
    if status in range(400, 600):
        return f"http_{status // 100}xx: the receiver answered {status}"
    return f"protocol: the receiver answered {status}, which is not a final status"


_TLS = (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError)
_TRANSLATED: Sequence[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str]] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the host name does not resolve"),
    (_TLS, "tls", "no verified TLS connection could be made"),
    (aiohttp.ClientConnectorError, "connect", "no connection could be made"),
    ((aiohttp.ServerConnectionError, ConnectionError), "reset", "the connection was closed before an answer"),
    (aiohttp.ClientOSError, "reset", "the connection broke before an answer"),
    (aiohttp.ClientError, "protocol", "the receiver's answer is not HTTP, or larger than a response head may be"),
)
"""The first that fits; subclasses come before their bases."""


def _classify(error: Exception, timeout: float) -> str:
    """A stable word and a sentence that quotes nothing, because the texts of errors may hold URLs."""
    if isinstance(error, UrlRefusedError):
        return f"{error.word}: {error.reason}"
    if isinstance(error, TimeoutError):
        return f"timeout: there was no answer within {timeout:g} s"
    for kinds, word, sentence in _TRANSLATED:
        if isinstance(error, kinds):
            return f"{word}: {sentence}{_why(error)}"
    logger.error("an attempt failed in an unknown way", extra={"error": type(error).__name__})
    return f"internal: the attempt failed in an unknown way ({type(error).__name__})"


def _why(error: Exception) -> str:
    """The operating system's or OpenSSL's own words, which name no address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f" ({cause.verify_message})" if isinstance(cause, ssl.SSLCertVerificationError) else ""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        return f" ({cause.reason})" if cause.reason else ""
    number = cause.errno if isinstance(cause, OSError) else None
    return f" ({os.strerror(number)})" if number else ""
