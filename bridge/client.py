"""A client of the bridge: every event once and in order, across broken connections (docs/contract.md#the-sse-stream).

    async with Client("http://127.0.0.1:8000", token="…") as bridge:
        async with bridge.events("web-1") as events:
            async for event in events:
                print(event.cursor, event)

It needs httpx and httpx-sse. Tokens stand in a header alone: no address, error or `repr` has one.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError, aconnect_sse

from bridge.backoff import Backoff
from bridge.client_errors import (
    BY_STATUS,
    AnswerError,
    BridgeError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
    text_of,
)
from bridge.client_events import Event, Position, read_event
from bridge.clock import Clock, SystemClock
from bridge.retry_after import parse_retry_after

__all__ = [
    "AnswerError",
    "BridgeError",
    "Client",
    "Events",
    "ForbiddenError",
    "Interruption",
    "InvalidError",
    "NotFoundError",
    "RefusedError",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
]

SILENCE_SECONDS = 60.0
"""Four heartbeats at their default; a connection that is silent for so long is taken for dead."""

ANSWER_SECONDS = 10.0
"""For connecting, and for the answer to a plain request."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds between two tries: the first and the longest wait, doubling until an event comes; with jitter."""

LONGEST_ASKED = 60.0
"""Seconds: a longer wait that the bridge asks for counts as this."""

PAGE = 1000
"""Items that are asked for at once; the most that the bridge gives."""

MAX_PROBLEM_BYTES = 64 * 1024
"""How much of an error's body is read; most problems are far smaller."""

Query = list[tuple[str, str | int | float | bool | None]]


@dataclass(frozen=True, slots=True)
class Interruption:
    """A stream's connection broke, or could not be made; it is made again after `wait` seconds.

    `tries`: how many have failed since the last event, 1 for the first.
    """

    error: BridgeError
    tries: int
    wait: float


class Client:
    """Speaks to one bridge; may be used by several tasks of one event loop. Enter it, or call `aclose` at the end."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        name: str = "bridge-client",
        silence: float = SILENCE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`url`: `http://host:port`, `https://…` or `unix:/path`. `name` tells the bridge's operator who asks.

        `silence`: seconds without a byte, heartbeats included, after which a stream's connection is taken for dead; it
        must be above `BRIDGE_HEARTBEAT`. `transport` and what follows it are for tests. Raises ValueError for a URL or
        a token that no request can have.
        """
        path = url.removeprefix("unix:") if url.startswith("unix:/") else None
        self._base = "http://localhost" if path else _checked(url.rstrip("/"))
        if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
            raise ValueError("token must have printable ASCII characters only")
        self._token, self._silence = token, silence
        self.clock, self.rng = clock or SystemClock(), rng or random.Random()
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(
            headers={"User-Agent": name, **bearer},
            timeout=ANSWER_SECONDS,
            transport=transport or (httpx.AsyncHTTPTransport(uds=path) if path else None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections; open streams end with an error."""
        await self._http.aclose()

    def address(self, path: str) -> str:
        """The whole URL of a route."""
        return f"{self._base}{path}"

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Query | None = None,
        seconds: float = ANSWER_SECONDS,
        idempotency_key: str = "",
    ) -> Any:
        """One request, made once: the answer's JSON, None where it has no body. `body` is sent as JSON.

        `idempotency_key`: the same one in another try makes nothing twice, on the routes that take it. Raises
        UnreachableError, or the AnswerError of its status.
        """
        address, parameters = self.address(path), httpx.QueryParams(query)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        try:
            answer = await self._http.request(
                method, address, params=parameters, json=body, headers=headers, timeout=seconds
            )
        except httpx.HTTPError as error:
            raise UnreachableError(type(error).__name__) from None
        if not answer.is_success:
            raise self.error_of(answer, answer.content[:MAX_PROBLEM_BYTES])
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise UnreachableError("the answer is not JSON") from None

    async def items(self, path: str, query: Query | None = None) -> AsyncIterator[dict[str, Any]]:
        """The items of all pages of a list (`GET`), in its order, each page asked for as it is needed.

        Raises as `request`, also between two items.
        """
        after: str | None = ""
        while after is not None:
            turned: Query = [("after", after)] if after else []
            page = await self.request("GET", path, query=[*(query or []), ("limit", PAGE), *turned])
            if not isinstance(page, dict) or not isinstance(items := page.get("items"), list):
                raise UnreachableError("the answer is no page of a list")
            for item in items:
                yield item
            after = page.get("next")

    def events(
        self,
        *cvms: str,
        since: str | None = None,
        after: str = "",
        types: Sequence[str] = (),
        snapshots: bool = True,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> Events:
        """The events of these CVMs (ids, names, any reference), which are watched meanwhile; of all without any.

        `after`: a cursor; the stream begins with what came after it. Else `since`, an RFC 3339 time. Else it begins
        with a snapshot of each CVM, unless `snapshots` is False. `types` selects events of the log.
        `on_interruption` is called before each wait for another connection, and must not block. Raises ValueError for a
        cursor that no header can have.
        """
        if not (after.isascii() and after.isprintable()):
            raise ValueError("after must have printable ASCII characters only")
        several = [("cvm", each) for each in cvms] if len(cvms) > 1 else []
        query: Query = [*several, *(("type", each) for each in types), *([] if snapshots else [("snapshot", "0")])]
        # The route of a single CVM watches a CVM that is not watched yet, and so does `cvm=`.
        path = f"/v1/cvms/{quote(cvms[0], safe='')}/events" if len(cvms) == 1 else "/v1/events"
        return Events(self, path, query, since=since, cursor=after, on_interruption=on_interruption)

    def connection(self, path: str, query: Query, headers: dict[str, str]) -> AbstractAsyncContextManager[EventSource]:
        """One connection to an event route. Entering raises httpx.HTTPError."""
        timeout = httpx.Timeout(ANSWER_SECONDS, read=self._silence)
        pairs = httpx.QueryParams(query)
        return aconnect_sse(self._http, "GET", self.address(path), params=pairs, headers=headers, timeout=timeout)

    def problem(self, body: bytes) -> dict[str, Any]:
        """The JSON object in an error, without the token should it be repeated there; empty if there is none."""
        return _object(body.replace(self._token.encode(), b"***") if self._token else body)

    def error_of(self, answer: httpx.Response, body: bytes) -> AnswerError:
        """The error of its class, with the title and detail of the problem in `body`, or the message of upstream's."""
        status, problem = answer.status_code, self.problem(body)
        # A reference that upstream does not find gets upstream's own 404, whose `detail` may be of any type.
        words = [text_of(problem.get(name)) for name in ("title", "message", "detail")] + _values(problem)
        text = ": ".join([f"the bridge answered {status}", *filter(None, words)])
        if status in (408, 425, 429) or status >= 500:
            asked = parse_retry_after(answer.headers.get("Retry-After"), self.clock.time(), longest=math.inf)
            return UnavailableError(status, problem, text, asked)
        return BY_STATUS.get(status, RefusedError)(status, problem, text)


def _values(problem: Mapping[str, Any]) -> list[str]:
    """What upstream's error is about: the reference that names no CVM."""
    details = problem.get("details")
    listed = details if isinstance(details, list) else ()
    return [text_of(each.get("value")) for each in listed if isinstance(each, dict)]


class Events:
    """An endless iterator over events, in the order of the log, each once. For one task at a time.

    It makes the connection anew with the cursor of the last event that it gave out, as often as needed; where the
    bridge cannot honour that cursor, a Reset comes, and snapshots after it. An iteration that is cancelled, as by
    `asyncio.timeout`, loses nothing: the next one resumes. Iterating raises RefusedError if the bridge refuses.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        query: Query,
        *,
        since: str | None,
        cursor: str,
        on_interruption: Callable[[Interruption], None] | None,
    ) -> None:
        self.cursor = cursor
        """Of the last event that was given out; a stream that begins here misses nothing after it."""
        self._client = client
        self._path, self._query, self._since = path, query, since
        self._on_interruption = on_interruption
        self._backoff = Backoff(first=FIRST_WAIT, longest=LONGEST_WAIT)
        self._connection = AsyncExitStack()
        self._source: AsyncGenerator[ServerSentEvent] | None = None
        self._retry, self._tries = 0.0, 0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connection; the iteration is over. Not while another task iterates."""
        self._closed = True
        await self._disconnect()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            try:
                event = await self._next()
            except (UnreachableError, UnavailableError) as error:
                await self._disconnect()
                await self._pause(error)
            except BaseException:
                await self._disconnect()
                raise
            else:
                if event is not None:
                    return event
                await self._disconnect()
                await self._pause(None)
        raise StopAsyncIteration

    async def _next(self) -> Event | None:
        """None: the bridge ended the connection properly. Raises BridgeError."""
        try:
            source = self._source or await self._connect()
            async for sse in source:
                if sse.retry is not None:
                    self._retry = sse.retry / 1000
                if (event := self._read(sse)) is not None:
                    return event
        except (httpx.HTTPError, SSEError) as error:
            raise UnreachableError(type(error).__name__) from None
        return None

    async def _connect(self) -> AsyncGenerator[ServerSentEvent]:
        self._retry = 0.0
        # `since` is for the first connection; later ones have a cursor.
        query: Query = [*self._query, *([("since", self._since)] if self._since and not self.cursor else [])]
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        made = await self._connection.enter_async_context(self._client.connection(self._path, query, headers))
        answer = made.response
        if answer.status_code != 200:
            raise self._client.error_of(answer, await _beginning(answer))
        self._source = made.aiter_sse()
        return self._source

    def _read(self, sse: ServerSentEvent) -> Event | None:
        """None for a block without data, which is no event. Raises UnavailableError for a problem told in the stream.

        A problem is no envelope: an object with a `detail`, and without an envelope's attributes.
        """
        if not sse.data:
            return None
        event = read_event(sse.event, sse.data, sse.id or self.cursor)
        if event.id is None and not isinstance(event, Position):
            problem = self._client.problem(sse.data.encode())
            if "detail" in problem:
                raise UnavailableError(200, problem, f"the bridge answered {sse.event}: {text_of(problem['detail'])}")
        self._backoff.heal()
        self._tries = 0
        self.cursor = event.cursor
        return event

    async def _pause(self, error: BridgeError | None) -> None:
        """Waits before the next connection: as long as the bridge asked for, or longer the more have failed."""
        asked = error.retry_after if isinstance(error, AnswerError) else None
        client = self._client
        wait = self._backoff.fail(client.clock.monotonic(), client.rng, min(asked or self._retry, LONGEST_ASKED))
        if error is not None:
            self._tries += 1
            if self._on_interruption is not None:
                self._on_interruption(Interruption(error, self._tries, wait))
        await client.clock.sleep(wait)

    async def _disconnect(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            await source.aclose()
        await self._connection.aclose()


async def _beginning(answer: httpx.Response) -> bytes:
    """As much of an error's body as is read of it. Raises httpx.HTTPError."""
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_PROBLEM_BYTES:
            break
    return body[:MAX_PROBLEM_BYTES]


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object in it; an empty one if there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _checked(url: str) -> str:
    """Raises ValueError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("url must be http://host:port, https://host:port or unix:/path")
    return url
