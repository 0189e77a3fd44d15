"""Refuses what a foreign web page makes a browser send: requests that change something, and rebound host names."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.addresses import is_loopback
from bridge.web.http.problems import ProblemError, ProblemType, problem_response

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing; CORS decides whether a page may read their answers."""


class SameOrigin:
    """An ASGI middleware. `allowed`: origins whose pages may do everything that their token allows.

    `loopback_only`: every caller has full access because only this machine reaches the bridge. Then the host name must
    be a loopback name as well: a page of the Internet can have its own name resolved to 127.0.0.1, and would be of the
    same origin.
    """

    def __init__(self, app: ASGIApp, *, allowed: Iterable[str], loopback_only: bool) -> None:
        self._app = app
        self._allowed = frozenset(allowed)
        self._loopback_only = loopback_only

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not a coroutine of its own: most requests pass, and thousands may come at once.
        if scope["type"] == "http" and (self._loopback_only or scope["method"] not in SAFE):
            problem = self._problem(scope["method"], Headers(scope=scope))
            if problem is not None:
                return problem_response(problem)(scope, receive, send)
        return self._app(scope, receive, send)

    def _problem(self, method: str, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "")
        if self._loopback_only and host and not _is_local(host):
            return ProblemError(ProblemType.MISDIRECTED, "without tokens it answers to localhost and 127.0.0.1 only")
        if method not in SAFE and self._is_foreign(headers, host):
            return ProblemError(ProblemType.CROSS_SITE, "BRIDGE_CORS_ORIGINS lists the origins that may do this")
        return None

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        """Browsers send `Sec-Fetch-Site` over HTTPS and to this machine, and `Origin` with every unsafe method."""
        origin = headers.get("origin")
        if origin is not None and self._allowed & {origin, "*"}:
            return False
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        # A page cannot set the proxy's header without asking first (CORS).
        own = (host.lower(), headers.get("x-forwarded-host", "").lower())
        return origin is not None and _authority(origin) not in own


def _is_local(host: str) -> bool:
    """Whether the `Host` header, with or without a port, is a name of this machine that no DNS server can change."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _authority(origin: str) -> str:
    """The host and port of an origin; a text that is no host where it has none (`null`)."""
    return origin.partition("://")[2].lower() or "null"
