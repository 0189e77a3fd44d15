"""What a role settles before it starts: whether callers need a token, its address, and the garbage collector."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.config import Settings
from bridge.process.embedded import EmbeddedServer
from bridge.process.signals import CommandError
from bridge.uvicorn_server import http_url, unix_path
from bridge.web.http.tls import Certificate, CertificateError
from bridge.web.http.unix_socket import is_local

ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - the default of `bridge web`, see docs/contract.md#environment


@dataclass(frozen=True, kw_only=True)
class StartupInfo:
    """What the banner of `bridge up` shows."""

    address: str
    redis_url: str
    settings: Settings
    simulated: bool
    embedded: EmbeddedServer | None
    open_access: bool


def open_access(settings: Settings, host: str, *, alone: bool) -> bool:
    """Whether callers need no token. Raises CommandError where other machines could connect and no setting allows that.

    `alone`: this is `bridge up`, which needs no such setting while only this machine can connect.
    """
    if not settings.auth:
        return True
    if settings.tokens:
        return False
    if alone and is_local(host):
        return True
    raise CommandError(
        "BRIDGE_TOKENS is not set, so no caller could get access: set it to name:secret:scope, or set BRIDGE_AUTH=off "
        "to give everyone access"
    )


def tls_certificate(settings: Settings) -> Certificate | None:
    """What the front end shows its clients; None: it speaks no TLS. Raises CommandError."""
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        names = ("BRIDGE_TLS_KEY", "BRIDGE_TLS_CERT") if settings.tls_cert else ("BRIDGE_TLS_CERT", "BRIDGE_TLS_KEY")
        raise CommandError(f"{names[0]} is not set, but {names[1]} is: TLS needs both")
    try:
        return Certificate(settings.tls_cert, settings.tls_key)
    except CertificateError as error:
        raise CommandError(str(error)) from None


NAMED = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
"""Whose own words are short; what asyncio and uvloop make of them is not."""


@contextlib.contextmanager
def named_address(host: str, port: int, variable: str) -> Iterator[None]:
    """Makes an address that is not available a CommandError that names the variable to change."""
    try:
        yield
    except OSError as error:
        if unix_path(host) is None and error.errno not in NAMED:
            raise
        why = os.strerror(error.errno) if error.errno in NAMED else error.strerror or str(error)
        fault = "is in use" if error.errno == errno.EADDRINUSE else f"is not available ({why})"
        if unix_path(host) is not None:
            raise CommandError(f"{host} {fault}: set HOST to another path") from None
        address = http_url(host, port).removeprefix("http://")
        elsewhere = error.errno == errno.EADDRNOTAVAIL
        mend = "HOST to an address of this machine" if elsewhere else f"{variable} to another port"
        raise CommandError(f"{address} {fault}: set {mend}") from None


def settle_garbage_collection() -> None:
    """For a process with many connections: exempts all objects of now from collections, and makes these rare.

    Ten thousand subscribers are a million new objects within two seconds, and no garbage: with the default thresholds
    the collector takes a third of that time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
