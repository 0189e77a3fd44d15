"""What every role settles before it starts: who may come in, and at which address."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.config import Settings
from bridge.process.embedded import EmbeddedServer
from bridge.process.errors import RefusalError


@dataclass(frozen=True)
class StartupInfo:
    """What `bridge up` tells whoever started it; `simulated` and `embedded` say what it brought along itself."""

    address: str
    redis_url: str
    settings: Settings
    simulated: bool
    embedded: EmbeddedServer | None
    open_access: bool


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


def http_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def bound_address(host: str, port: int, variable: str) -> Iterator[None]:
    """An address that cannot be had is a refusal that names the variable to change."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({os.strerror(error.errno)})"
        place = http_url(host, port).removeprefix("http://")
        raise RefusalError(f"{place} {what}: set {variable} to another port") from None
