"""Phala Cloud over HTTP. No other module of the wing holds the API key or imports httpx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import httpx

from bridge import __version__
from bridge.clock import Clock
from bridge.events import MAX_STATE_BYTES, State, UnparsableStateError, parse_state
from bridge.readiness import Told, is_passing
from bridge.retry_after import parse_retry_after
from bridge.upstream import errors, metrics
from bridge.upstream.cancellation import finished
from bridge.upstream.sse import Decoder, OverflowingError, ServerSentEvent

API_VERSION = "2026-06-23"
"""The date that selects the shape of upstream's answers; the client understands both shapes."""

ANSWER_TIMEOUT = 10.0
"""Seconds that a plain answer may take in all; a stream's headers likewise."""

KEEPALIVE = 60.0
"""Seconds for which an idle connection is kept: polls of few CVMs come every 10 s, and each would need a new TLS
handshake."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a `Retry-After` that asks for more counts as this."""

MAX_ERROR_BODY = 64 * 1024
MAX_LIST_BODY = 16 * MAX_STATE_BYTES
"""A page of 100 CVMs with all their details, or a batch answer with its `events` lists."""

MAX_REFERENCE = 1024
"""Characters; every form of reference is far shorter, and httpx refuses a URL of 64 kB."""

PAGE_SIZE = 100

DONE = (200, 201, 204)
"""The statuses of requests that make or remove something."""


_UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""After these upstream has certainly not got the request."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A state and when it was asked for and answered, monotonic seconds."""

    state: State
    sent_at: float
    made_at: float


@dataclass(frozen=True, slots=True)
class Garbled:
    """The stream sent something that is not a state; it goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """`complete` and `timeout` end a stream; after `error` it may go on."""

    kind: Literal["complete", "timeout", "error"]
    message: str = ""


StreamEvent = State | Garbled | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One CVM of the list; any of these may be missing."""

    vm_uuid: str | None = None
    hashed_id: str | None = None
    name: str | None = None
    app_id: str | None = None
    instance_id: str | None = None
    status: str | None = None
    told: Told | None = None
    """What it tells of operations: no more than whether one is in progress."""

    @property
    def in_motion(self) -> bool:
        """Whether something happens with it, as far as the list tells."""
        return is_passing(self.status) or (self.told is not None and self.told.operation is not None)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of the list. `total` CVMs on `pages` pages in all, as far as upstream tells it."""

    entries: tuple[Listed, ...]
    total: int | None = None
    pages: int | None = None


class PhalaClient:
    """All methods raise UpstreamError's subclasses and nothing else."""

    def __init__(
        self, prefix: str, api_key: str, *, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._prefix = prefix.rstrip("/")
        self._clock = clock
        self._headers = {
            "X-API-Key": api_key,
            "X-Phala-Version": API_VERSION,
            "User-Agent": f"cvm-bridge/{__version__}",
        }
        self._http = self._client(transport, kept=20)
        # A stream takes a connection of its own: one that was kept may be dead, and nobody could tell whether upstream
        # got the request. The slots bound the streams; a pool with a bound would delay one whose slot is held.
        self._stream_http = self._client(transport, kept=0)

    def _client(self, transport: httpx.AsyncBaseTransport | None, *, kept: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=KEEPALIVE),
            follow_redirects=False,
            event_hooks={"response": [_forget_location]},
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()
        await self._stream_http.aclose()

    async def read_state(self, ref: str) -> Reading:
        """The present state (immediate mode)."""
        sent_at = self._clock.monotonic()
        with self._counted("state"):
            body = await self._plain("GET", _state_path(ref), MAX_STATE_BYTES)
            try:
                state = parse_state(body.decode("utf-8", "replace"))
            except UnparsableStateError as error:
                raise errors.UnparsableError(str(error)) from error
        return Reading(state, sent_at, self._clock.monotonic())

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The batch route's answer for each CVM that it has. Raises BatchAbsentError where there is no such route."""
        with self._counted("batch"):
            try:
                body = await self._plain("POST", "/status/batch", MAX_LIST_BODY, {"vm_uuids": list(ids)})
            except (errors.NotFoundError, errors.UnauthorizedError, errors.RequestRefusedError) as error:
                if error.status in (403, 404, 405):
                    raise errors.BatchAbsentError(status=error.status) from error
                raise
            answers = _json(body)
            if not isinstance(answers, dict):
                raise errors.UnparsableError("the batch answer is not an object")
        return {cvm_id: answer for cvm_id, answer in answers.items() if isinstance(answer, dict)}

    async def list_page(self, number: int) -> ListPage:
        """One page of the list of the workspace's CVMs, counted from 1."""
        with self._counted("list"):
            path = f"/cvms/paginated?page={number}&page_size={PAGE_SIZE}"
            answer = _json(await self._plain("GET", path, MAX_LIST_BODY))
            items = answer.get("items") if isinstance(answer, dict) else None
            if not isinstance(items, list):
                raise errors.UnparsableError("the list of CVMs has no items")
        entries = tuple(_listed(item) for item in items if isinstance(item, dict))
        return ListPage(entries, total=_count(answer.get("total")), pages=_count(answer.get("pages")))

    async def read_listed(self, ref: str) -> Listed:
        """What the list would tell of this CVM."""
        with self._counted("details"):
            details = _json(await self._plain("GET", _cvm_path(ref), MAX_STATE_BYTES))
            if not isinstance(details, dict):
                raise errors.UnparsableError("the details of a CVM are not an object")
        return _listed(details)

    async def webhooks(self, method: str, path: str = "", body: object = None) -> Any:
        """A request about the workspace's webhooks, `path` below their list; the answer's JSON, or None."""
        with self._counted("webhooks"):
            answer = await self._plain(method, f"/workspace/webhooks{path}", MAX_LIST_BODY, body, accepted=DONE)
            return _json(answer or b"null")

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        """On entry upstream has answered 200 with an event stream; on exit the connection is closed.

        Iteration ends where upstream ends the body; a connection that is cut raises UnreachableError. On entry
        NotSentError, or any error with a status but 504, tells that upstream has opened none.
        """
        request = self._stream_http.build_request(
            "GET",
            self._prefix + _state_path(ref),
            params={"target": target, "interval": interval, "timeout": timeout},
            headers={"Accept": "text/event-stream", "Cache-Control": "no-cache", "Connection": "close"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=5.0, read=None),
        )
        with self._counted("stream"):
            response = await self._opened(request)
        try:
            async with aclosing(_events(response)) as events:
                yield events
        finally:
            await _close(response)

    async def _opened(self, request: httpx.Request) -> httpx.Response:
        response = await self._send(request, self._stream_http)
        try:
            if response.status_code != 200:
                raise await self._error(response)
            if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
                raise errors.UnparsableError("upstream did not answer with an event stream", status=200)
        except BaseException:
            await _close(response)
            raise
        return response

    async def _plain(
        self, method: str, path: str, most: int, body: object = None, *, accepted: Sequence[int] = (200,)
    ) -> bytes:
        headers = {"Accept": "application/json"}
        request = self._http.build_request(method, self._prefix + path, json=body, headers=headers)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                response = await self._send(request, self._http)
                try:
                    if response.status_code not in accepted:
                        raise await self._error(response)
                    return await _read(response, most)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise errors.UnreachableError(f"upstream did not answer within {ANSWER_TIMEOUT:g} s") from error

    async def _send(self, request: httpx.Request, http: httpx.AsyncClient) -> httpx.Response:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await http.send(request, stream=True)
        except TimeoutError as error:
            raise errors.UnreachableError(f"upstream did not answer within {ANSWER_TIMEOUT:g} s") from error
        except httpx.LocalProtocolError:
            # Its text may quote the header that holds the key.
            raise errors.UnreachableError("upstream cannot be reached (LocalProtocolError)") from None
        except httpx.HTTPError as error:
            kind = errors.NotSentError if isinstance(error, _UNCONNECTED) else errors.UnreachableError
            raise kind(f"upstream cannot be reached ({type(error).__name__})") from error

    async def _error(self, response: httpx.Response) -> errors.UpstreamError:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                body = await _read(response, MAX_ERROR_BODY)
        except (errors.UpstreamError, TimeoutError):
            body = b""
        wait = parse_retry_after(response.headers.get("retry-after"), self._clock.time(), longest=LONGEST_RETRY_AFTER)
        return errors.error_for(response.status_code, body, response.headers.get("content-type", ""), wait)

    @contextmanager
    def _counted(self, route: str) -> Iterator[None]:
        """One request: how long it takes and how it ends, `ok` or the error's reason."""
        sent_at, outcome = self._clock.monotonic(), ""
        try:
            yield
            outcome = "ok"
        except errors.UpstreamError as error:
            outcome = error.reason
            raise
        finally:
            if outcome:  # a request that was cancelled tells nothing about upstream
                metrics.REQUESTS.labels(route, outcome).inc()
                metrics.REQUEST_SECONDS.labels(route).observe(self._clock.monotonic() - sent_at)


async def _close(response: httpx.Response) -> None:
    """A cancellation in the middle would leave the connection open, and upstream would go on with the stream."""
    await finished(response.aclose())


def _state_path(ref: str) -> str:
    return f"{_cvm_path(ref)}/state"


def _cvm_path(ref: str) -> str:
    # httpx normalises dot segments, which would request another route.
    if ref in ("", ".", "..") or len(ref) > MAX_REFERENCE:
        raise errors.RequestRefusedError("not a usable reference", status=422)
    try:
        return f"/cvms/{quote(ref, safe='')}"
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair; a URL cannot.
        raise errors.RequestRefusedError("not a usable reference", status=422) from None


async def _forget_location(response: httpx.Response) -> None:
    """httpx parses the target of a redirect even if it does not follow it, and fails at an invalid one."""
    response.headers.pop("location", None)


async def _read(response: httpx.Response, most: int) -> bytes:
    """The body, decompressed. Raises UnparsableError past `most` bytes, UnreachableError where it breaks off."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most:
                raise errors.UnparsableError(f"an answer of more than {most} bytes")
    except httpx.DecodingError as error:
        raise errors.UnparsableError("the answer's compression is broken") from error
    except httpx.HTTPError as error:
        raise errors.UnreachableError(f"upstream broke off ({type(error).__name__})") from error
    return bytes(body)


async def _events(response: httpx.Response) -> AsyncGenerator[StreamEvent, None]:
    decoder = Decoder()
    try:
        async for chunk in response.aiter_bytes():
            for event in decoder.feed(chunk):
                if (seen := _stream_event(event)) is not None:
                    yield seen
    except OverflowingError as error:
        yield Garbled(str(error))
    except httpx.DecodingError as error:
        raise errors.UnparsableError("the stream's compression is broken") from error
    except httpx.HTTPError as error:
        raise errors.UnreachableError(f"upstream cut the stream ({type(error).__name__})") from error


def _stream_event(event: ServerSentEvent) -> StreamEvent | None:
    if event.event == "state":
        try:
            return parse_state(event.data)
        except UnparsableStateError as error:
            return Garbled(str(error))
    if event.event == "complete":
        return Ended("complete")
    if event.event == "timeout":
        return Ended("timeout")
    return Ended("error", _error_message(event.data)) if event.event == "error" else None


def _error_message(data: str) -> str:
    """The message of an `error` event, at most 200 characters; empty where there is none."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    texts = [fields.get("message"), fields.get("error")] if isinstance(fields, dict) else []
    return next((text[:200] for text in texts if isinstance(text, str) and text), "")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise errors.UnparsableError("not JSON") from error


def _listed(item: dict[str, Any]) -> Listed:
    """Either shape of a list entry: the older keeps ids under `hosted`."""
    hosted = item["hosted"] if isinstance(item.get("hosted"), dict) else {}

    def text(name: str) -> str | None:
        return _text(item.get(name)) or _text(hosted.get(name))

    return Listed(
        vm_uuid=_text(item.get("vm_uuid")) or _text(hosted.get("id")),
        hashed_id=_text(item.get("id")),
        name=text("name"),
        app_id=text("app_id"),
        instance_id=text("instance_id"),
        status=text("status"),
        told=Told.by({"in_progress": item.get("in_progress")}),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
