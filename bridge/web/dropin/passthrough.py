"""`BRIDGE_PASSTHROUGH=on`: callers with a Phala key of their own reach upstream through the bridge with that key.

This module does not have the bridge's own key, and the bridge's tokens never go to upstream.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import quote, unquote

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Scope

from bridge.clock import Clock
from bridge.events import MAX_STATE_BYTES, UnparsableStateError, parse_state
from bridge.web.dropin.relay import Relay, RelayedRequest, failed, keep_location, no_place
from bridge.web.dropin.relay_limits import NoPlaceError, Shares, Uploads
from bridge.web.http.access import Access
from bridge.web.http.single_flight import SingleFlight

PREFIX = "/api/v1"

KEPT_HEADERS = ("content-type", "retry-after", "www-authenticate")

ACCEPTED_SECONDS = 60.0
"""So long a key that upstream has revoked may still work here."""

MOST_ACCEPTED = 10_000
"""Pairs of key and CVM that are remembered, at about 200 bytes each."""

MOST_CONNECTIONS = 200
"""Relayed requests at once, and as many questions about keys: enough for a team's SDKs and consoles."""

MOST_OF_A_KEY = 50
"""Of each; more wait their turn."""

MOST_UPLOADS = 100
"""Bodies on their way at once; the other connections are left to requests without one."""

ANSWER_TIMEOUT = 10.0
"""Seconds in all for asking upstream whether a key may read a CVM, once it is this question's turn."""

DRAIN_SECONDS = 1.0
"""Seconds that relayed answers get at shutdown; after two the server cancels them with an error message."""

SILENCE = 300.0
"""Seconds between two bytes from upstream, after which a relayed answer is given up."""


class Passthrough:
    """Decides which requests go to upstream, and relays them, without cookies and redirects.

    Questions about keys have connections of their own: relayed requests last as long as their callers like.
    """

    def __init__(
        self, prefix: str, access: Access, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._prefix = prefix.rstrip("/")
        self._access = access
        self._clock = clock
        self._accepted: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._questions = SingleFlight("passthrough key")
        self._question_shares = Shares(MOST_OF_A_KEY)
        self._question_http = _client(transport)
        self._relay = Relay(_client(transport), Shares(MOST_OF_A_KEY), Uploads(MOST_UPLOADS), asyncio.Event())

    def close(self) -> None:
        """Gives relayed answers DRAIN_SECONDS more."""
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._relay.closing.set)

    async def aclose(self) -> None:
        self._relay.closing.set()
        await self._questions.aclose()
        for http in (self._question_http, self._relay.http):
            await http.aclose()

    # Whose key a request has

    def is_own(self, request: Request) -> bool:
        """Whether any credential of the request is the bridge's own."""
        return any(self._access.knows(secret) for secret in _credentials(request))

    def phala_key(self, request: Request) -> str | None:
        """The caller's `X-API-Key`, unless the request contains a credential of the bridge."""
        key = request.headers.get("x-api-key")
        return key if key and not self.is_own(request) else None

    def name_of(self, key: str) -> str:
        """The name under which this key's streams are counted; the key cannot be derived from it."""
        return f"key {_hash(key)[:12]}"

    # Whether a key may read a CVM

    async def accept(self, key: str, reference: str) -> str | Response | None:
        """The CVM's id if upstream lets this key read it (remembered for a minute), else upstream's answer.

        None if upstream's answer has no id: the reference may name another CVM for the bridge's own key.
        """
        name = (_hash(key), reference)
        remembered = self._accepted.get(name)
        if remembered is not None and self._clock.monotonic() < remembered[1]:
            return remembered[0]
        found = await self._questions.ask(name, lambda: self._ask(key, reference))
        if isinstance(found, str):
            self._remember(name[0], (reference, found), found)
        return found

    def _remember(self, key_hash: str, names: Iterable[str], cvm_id: str) -> None:
        until = self._clock.monotonic() + ACCEPTED_SECONDS
        for name in names:
            self._accepted[key_hash, name] = (cvm_id, until)
            self._accepted.move_to_end((key_hash, name))
        while len(self._accepted) > MOST_ACCEPTED:
            self._accepted.popitem(last=False)

    async def _ask(self, key: str, reference: str) -> str | Response | None:
        headers = {"X-API-Key": key, "Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with self._question_shares.place(_hash(key)), asyncio.timeout(ANSWER_TIMEOUT):
                url = f"{self._prefix}/cvms/{quote(reference, safe='')}/state"
                request = httpx.Request("GET", url, headers=headers)
                async with aclosing(await self._question_http.send(request, stream=True)) as response:
                    body = await _read(response)
        except NoPlaceError:
            return no_place()
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            return failed(error)
        if response.status_code != 200:
            # Only the headers that the error's reader needs.
            kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            return Response(body, response.status_code, kept)
        try:
            return parse_state(body.decode("utf-8", "replace")).cvm_id
        except UnparsableStateError:
            return None

    # The relay

    def relay(self, request: Request, key: str) -> ASGIApp:
        """Relays the request with `key`, the caller's (see `phala_key`), streamed both ways."""
        url = self._url(request.scope)
        if url is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        return RelayedRequest(self._relay, request, url, _hash(key))

    def _url(self, scope: Scope) -> httpx.URL | None:
        """As the caller wrote it. None if a dot segment leads out of the API, however it is escaped."""
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        path = raw.partition(b"?")[0].decode("ascii", "replace")
        rest = path.removeprefix(PREFIX)
        # Twice, because a proxy on the way may decode once more; some servers take a backslash for a slash.
        segments = re.split(r"[/\\]", unquote(unquote(rest)))
        if rest == path or any(segment in (".", "..") for segment in segments):
            return None
        query = scope["query_string"].decode("latin-1")
        try:
            return httpx.URL(f"{self._prefix}{rest}{'?' if query else ''}{query}")
        except httpx.InvalidURL:
            return None


def _client(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(SILENCE, connect=5.0, pool=5.0),
        limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=20),
        # The pool is shared, and must not send one caller's cookies with another's request.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        event_hooks={"response": [keep_location]},
        transport=transport,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _credentials(request: Request) -> list[str]:
    """Every value that could be a secret of the bridge, in each place where a caller may have put it."""
    found = [value for name in ("x-api-key", "authorization") for value in request.headers.getlist(name)]
    found += [value.partition(" ")[2].strip() for value in found]
    return [value for value in [*found, *request.query_params.getlist("access_token")] if value]


async def _read(response: httpx.Response) -> bytes:
    """The body, cut off where it is too long for a state."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_STATE_BYTES:
            break
    return bytes(body)
