"""`bridge listen`: a webhook receiver for trying things out; it registers itself at a bridge and leaves with ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bridge import __version__
from bridge.clock import Clock, SystemClock, rfc3339
from bridge.commands.tail import GivenUpError, colourful, painted, printable, problem_text
from bridge.events import TRANSITION, dumps
from bridge.uvicorn_server import http_url, listening_socket, serving, small_server
from bridge.webhooks.signing import PREFIX, verify

MAX_BODY = 2 << 20
"""Bytes; the largest state is one megabyte, and its format is around it."""

MOST_REMEMBERED = 10_000
"""Ids of deliveries whose attempts are counted; the oldest are forgotten first."""

MOST_WAITING = 1000
"""Deliveries that are answered but not printed yet, where nobody reads the pipe; the next wait for their answer."""

ASK_SECONDS = 10.0
LEAVE_SECONDS = 5.0
"""How long the bridge may take to answer; less at the end, when somebody waits for the prompt."""


@dataclass(frozen=True)
class Registration:
    """What to register, and at which bridge. `fields` are the body of `POST /v1/webhooks`, without URL and secret.

    `address`: where the bridge reaches this receiver; None: where it listens.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    address: str | None = None
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """How to answer: with `status` after `delay` seconds, a share `fail` of all with 500 instead."""

    status: int = 200
    delay: float = 0.0
    fail: float = 0.0


@dataclass(frozen=True)
class Received:
    """One attempt as it came in and was answered. `fault`: why its signature is not good."""

    at: str
    webhook_id: str
    attempt: int
    fault: str | None
    status: int
    body: object

    def to_json(self) -> str:
        fields = {"at": self.at, "webhook_id": self.webhook_id, "attempt": self.attempt}
        return dumps(
            {**fields, "verified": self.fault is None, "fault": self.fault, "status": self.status} | {"body": self.body}
        )


class Receiver:
    """The ASGI app. What it received is in `received`, in the order of arrival."""

    def __init__(self, secret: str, reply: Reply, clock: Clock, rng: random.Random) -> None:
        self._secret = secret
        self._manners = reply
        self._clock = clock
        self._rng = rng
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self.received: asyncio.Queue[Received] = asyncio.Queue(MOST_WAITING)
        self.app = Starlette(routes=[Route("/{rest:path}", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return PlainTextResponse("too large\n", 413)
        now = self._clock.time()
        fault = verify(request.headers, body, self._secret, now)
        status = 401 if fault else self._status()
        webhook_id = request.headers.get("webhook-id", "")
        await self.received.put(
            Received(rfc3339(now), webhook_id, self._count(webhook_id), fault, status, _parsed(body))
        )
        await self._clock.sleep(self._manners.delay)
        return PlainTextResponse(f"{fault or 'received'}\n", status)

    def _status(self) -> int:
        return 500 if self._rng.random() < self._manners.fail else self._manners.status

    def _count(self, webhook_id: str) -> int:
        count = self._attempts.pop(webhook_id, 0) + 1
        self._attempts[webhook_id] = count
        if len(self._attempts) > MOST_REMEMBERED:
            self._attempts.popitem(last=False)
        return count


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


async def listen(
    registration: Registration,
    reply: Reply,
    write: Callable[[Received], None],
    announce: Callable[[str], None],
    *,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> None:
    """Gives what arrives to `write`, until it is cancelled; unregisters however it ends.

    `announce` gets lines for people. Raises GivenUpError where the bridge refuses or is not there, OSError where the
    address is taken.
    """
    secret = PREFIX + b64encode(secrets.token_bytes(32)).decode()
    receiver = Receiver(secret, reply, clock or SystemClock(), rng or random.Random())
    bound = listening_socket(registration.host, registration.port)
    address = registration.address or _own_address(registration.host, bound.getsockname()[1])
    async with serving(small_server(receiver.app), bound), _registered(registration, address, secret, announce):
        while True:
            write(await receiver.received.get())


def _own_address(host: str, port: int) -> str:
    """A receiver that listens on all addresses is also reachable on loopback."""
    return http_url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port) + "/"  # noqa: S104


@contextlib.asynccontextmanager
async def _registered(
    registration: Registration, address: str, secret: str, announce: Callable[[str], None]
) -> AsyncIterator[None]:
    headers = {"User-Agent": f"bridge-listen/{__version__}"}
    if registration.token:
        headers["Authorization"] = f"Bearer {registration.token}"
    async with httpx.AsyncClient(headers=headers, timeout=ASK_SECONDS) as http:
        made = await _register(http, registration, address, secret)
        announce(f"{address} is registered at {registration.url} as {made} (ctrl-C unregisters it)")
        try:
            yield
        finally:
            announce(await _unregister(http, registration, made))


async def _register(http: httpx.AsyncClient, registration: Registration, address: str, secret: str) -> str:
    """The endpoint's id. Raises GivenUpError."""
    body = {"description": "bridge listen", **registration.fields, "url": address, "secret": secret}
    try:
        answer = await http.post(f"{registration.url}/v1/webhooks", json=body)
    except httpx.InvalidURL:
        raise GivenUpError(f"{registration.url} is no URL: pass --url http://host:port") from None
    except httpx.HTTPError as error:
        raise GivenUpError(
            f"{registration.url} cannot be reached ({type(error).__name__}): is `bridge up` running?"
        ) from None
    if answer.status_code != 201:
        raise GivenUpError(f"the bridge answered {answer.status_code}{await problem_text(answer)}{_help(answer)}")
    return str(answer.json()["id"])


def _help(answer: httpx.Response) -> str:
    """What a caller of this command can do about it."""
    match answer.status_code:
        case 401 | 403:
            return ": pass --token or set BRIDGE_TOKEN to one of scope admin"
        case 422 if "url" in answer.text:
            return ": where the bridge runs elsewhere, pass --address, and let BRIDGE_WEBHOOK_ALLOW there open it"
    return ""


async def _unregister(http: httpx.AsyncClient, registration: Registration, made: str) -> str:
    """A line that says how it went."""
    path = f"/v1/webhooks/{quote(made, safe='')}"
    try:
        answer = await http.delete(f"{registration.url}{path}", timeout=LEAVE_SECONDS)
    except httpx.HTTPError as error:
        return f"{made} is still registered ({type(error).__name__}): DELETE {registration.url}{path} removes it"
    if answer.status_code in (204, 404):
        return f"{made} is unregistered"
    mending = f"DELETE {registration.url}{path} removes it"
    return f"{made} is still registered (the bridge answered {answer.status_code}): {mending}"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def colourful_line(received: Received) -> str:
    """One attempt as a line for people: what it says, how often it came, how it was answered."""
    body = _object(received.body)
    data = _object(body.get("data"))
    kind = str(body.get("event") or body.get("type") or "no event")
    told = {
        "time": body.get("time") or body.get("timestamp") or body.get("created_at") or received.at,
        "type": TRANSITION if kind.startswith("cvm.") and data.get("from") else kind,
        "subject": kind,
        "data": {**data, "name": data.get("name") or data.get("cvm_name")},
    }
    again = f" (attempt {received.attempt})" if received.attempt > 1 else ""
    fault = painted(f"  {received.fault}", 31) if received.fault else ""
    good = 200 <= received.status <= 299
    return f"{colourful(dumps(told))}  {painted(str(received.status), 32 if good else 31)}{printable(again)}{fault}"
