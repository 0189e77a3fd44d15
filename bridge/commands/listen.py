"""`bridge listen`: a webhook receiver for trying things out, which registers and unregisters itself at a bridge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bridge.client import AnswerError, BridgeError, Client, InvalidError, NotFoundError
from bridge.clock import Clock, SystemClock, rfc3339
from bridge.commands.forwarding import Forwarding
from bridge.commands.terminal import as_object, bridge_client, event_line, painted, refused
from bridge.events import TRANSITION, dumps
from bridge.process.signals import CommandError
from bridge.uvicorn_server import http_url, listening_socket, serving, small_server
from bridge.webhooks.signing import PREFIX, verify

MAX_BODY = 2 << 20
"""Bytes; the largest state is one megabyte, and the webhook format is around it."""

MOST_REMEMBERED = 10_000
"""Ids of deliveries whose attempts are counted; the oldest are forgotten first."""

MOST_WAITING = 1000
"""Deliveries that are answered but not printed yet while the pipe is not read; others wait for their answer."""

UNREGISTER_SECONDS = 5.0
"""How long the bridge may take to answer at the end, when a person waits for the prompt."""

LOOK_EVERY = 2.0
"""Seconds between two looks at whether the bridge still delivers."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What to register, and at which bridge. `fields` are the body of `POST /v1/webhooks`, without URL and secret.

    `address`: where the bridge reaches this receiver; None: the address on which it listens.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    address: str | None = None
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """How to answer: with `status` after `delay` seconds; a share `fail` of the answers, 0 to 1, is 500 instead.

    `forward_to`: the URL whose answer is given instead of `status`.
    """

    status: int = 200
    delay: float = 0.0
    fail: float = 0.0
    forward_to: str | None = None


@dataclass(frozen=True)
class Received:
    """One attempt and its answer. `fault`: why its signature is not valid."""

    at: str
    webhook_id: str
    attempt: int
    fault: str | None
    status: int
    body: object

    def to_json(self) -> str:
        first = {"at": self.at, "webhook_id": self.webhook_id, "attempt": self.attempt, "verified": self.fault is None}
        return dumps({**first, "fault": self.fault, "status": self.status, "body": self.body})


class Receiver:
    """The ASGI app. `received` holds the attempts in the order of their arrival."""

    def __init__(
        self, secret: str, reply: Reply, clock: Clock, rng: random.Random, forwarding: Forwarding | None = None
    ) -> None:
        self._clock, self._rng = clock, rng
        self._secret = secret
        self._reply = reply
        self._forwarding = forwarding
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
        answer = await self._answer(request, body, fault)
        webhook_id = request.headers.get("webhook-id", "")
        attempt = self._attempts[webhook_id] = self._attempts.pop(webhook_id, 0) + 1
        if len(self._attempts) > MOST_REMEMBERED:
            self._attempts.popitem(last=False)
        await self.received.put(Received(rfc3339(now), webhook_id, attempt, fault, answer.status_code, _parsed(body)))
        await self._clock.sleep(self._reply.delay)
        return answer

    async def _answer(self, request: Request, body: bytes, fault: str | None) -> Response:
        if fault:
            return PlainTextResponse(f"{fault}\n", 401)
        if self._rng.random() < self._reply.fail:
            return PlainTextResponse("failed on request\n", 500)
        if self._forwarding is not None:
            return await self._forwarding.post(request.headers.raw, body)
        return PlainTextResponse("received\n", self._reply.status)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


async def listen(
    registration: Registration, reply: Reply, write: Callable[[Received], None], announce: Callable[[str], None]
) -> None:
    """Passes each attempt to `write`, until it is cancelled. It unregisters itself however it ends.

    `announce` gets lines for people. Raises CommandError if the bridge refuses or cannot be reached, or somebody else
    removes the endpoint; OSError if the address is not available.
    """
    secret = PREFIX + b64encode(secrets.token_bytes(32)).decode()
    async with contextlib.AsyncExitStack() as stack:
        forwarding = None
        if reply.forward_to:
            # The environment's proxies are for what is elsewhere.
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            forwarding = Forwarding(reply.forward_to, http)
            announce(f"webhooks go on to {reply.forward_to}, signed with {secret}")
        receiver = Receiver(secret, reply, SystemClock(), random.Random(), forwarding)
        await _serve(receiver, registration, secret, write, announce)


async def _serve(
    receiver: Receiver,
    registration: Registration,
    secret: str,
    write: Callable[[Received], None],
    announce: Callable[[str], None],
) -> None:
    listener = listening_socket(registration.host, registration.port)
    # A receiver that listens on all addresses is also reachable on loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(registration.host, registration.host)  # noqa: S104
    address = registration.address or http_url(host, listener.getsockname()[1]) + "/"
    async with (
        serving(small_server(receiver.app), listener),
        _registered(registration, address, secret, announce) as watching,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_pass_on(receiver, write), name="print")
        group.create_task(watching, name="registration")


async def _pass_on(receiver: Receiver, write: Callable[[Received], None]) -> None:
    while True:
        write(await receiver.received.get())


@contextlib.asynccontextmanager
async def _registered(
    registration: Registration, address: str, secret: str, announce: Callable[[str], None]
) -> AsyncIterator[Coroutine[Any, Any, None]]:
    """What is to run meanwhile."""
    async with bridge_client("listen", registration.url, registration.token) as bridge:
        endpoint_id = await _register(bridge, registration, address, secret)
        path = f"/v1/webhooks/{quote(endpoint_id, safe='')}"
        announce(f"{address} is registered at {registration.url} as {endpoint_id} (ctrl-C unregisters it)")
        try:
            yield _watch(bridge, path, endpoint_id, announce)
        finally:
            announce(await _unregister(bridge, path, endpoint_id))


async def _register(bridge: Client, registration: Registration, address: str, secret: str) -> str:
    """The endpoint's id. Raises CommandError."""
    body = {"description": "bridge listen", **registration.fields, "url": address, "secret": secret}
    try:
        return str((await bridge.request("POST", "/v1/webhooks", body=body))["id"])
    except InvalidError as error:
        reach = "if the bridge runs on another machine, pass --address and set BRIDGE_WEBHOOK_ALLOW there"
        help_text = f": {reach}" if any(name == "url" for name, _ in error.fields) else ""
        raise CommandError(f"{error}{help_text}") from None
    except BridgeError as error:
        raise refused(error, registration.url, "admin") from None


async def _watch(bridge: Client, path: str, endpoint_id: str, announce: Callable[[str], None]) -> None:
    """Announces why nothing comes, and when that has passed. Raises CommandError once the endpoint is gone."""
    told = ""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        trouble = await _trouble(bridge, path, endpoint_id)
        if trouble != told:
            announce(trouble or f"{endpoint_id} is delivered to again")
            told = trouble


async def _trouble(bridge: Client, path: str, endpoint_id: str) -> str:
    """A line; empty while all is well. Raises CommandError if there is no such endpoint."""
    try:
        body = as_object(await bridge.request("GET", path))
    except AnswerError as error:
        if error.type.endswith("no-such-endpoint"):
            raise CommandError(f"{endpoint_id} is gone: somebody removed it, or the bridge lost its data") from None
        return f"{error}: trying again"
    except BridgeError as error:
        return f"the bridge cannot be reached ({error}): trying again"
    if body.get("enabled") is False:
        why = f" ({body['disabled_reason']})" if body.get("disabled_reason") else ""
        return f"{endpoint_id} is disabled{why}: POST {bridge.address(path)}/enable delivers to it again"
    return ""


async def _unregister(bridge: Client, path: str, endpoint_id: str) -> str:
    """A line that tells the result."""
    try:
        await bridge.request("DELETE", path, seconds=UNREGISTER_SECONDS)
    except NotFoundError:
        pass  # a lost answer to the same request, or somebody was faster
    except BridgeError as error:
        return f"{endpoint_id} is still registered ({error}): DELETE {bridge.address(path)} removes it"
    return f"{endpoint_id} is unregistered"


def received_line(received: Received) -> str:
    """One attempt as a coloured line for people: its event, its number if it is a repetition, its answer."""
    body = as_object(received.body)
    data = as_object(body.get("data"))
    kind = str(body.get("event") or body.get("type") or "no event")
    envelope = {
        "time": body.get("time") or body.get("timestamp") or body.get("created_at") or received.at,
        "type": TRANSITION if kind.startswith("cvm.") and data.get("from") else kind,
        "subject": kind,
        "data": {**data, "name": data.get("name") or data.get("cvm_name")},
    }
    again = f" (attempt {received.attempt})" if received.attempt > 1 else ""
    fault = painted(f"  {received.fault}", 31) if received.fault else ""
    good = 200 <= received.status <= 299
    return f"{event_line(dumps(envelope))}  {painted(str(received.status), 32 if good else 31)}{again}{fault}"
