"""`bridge tail`: events in the terminal, without hole or repeat across broken connections."""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from bridge import __version__
from bridge.clock import Clock, SystemClock
from bridge.events import POSITION, RESET, SNAPSHOT, TRANSITION
from bridge.retry_after import parse_retry_after

SILENCE_SECONDS = 60.0
"""Four heartbeats at their default; a connection that says nothing for so long is taken for dead."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds between tries: the first and the longest. A wait is drawn from half of it to all of it."""

MAX_BODY = 4096
"""Bytes of an error's body that are read; a problem is far smaller."""

_COLOURS = {"running": 32, "stopped": 33, "exited": 33, "error": 31, "deleted": 31}

Write = Callable[[str], None]


class GivenUpError(Exception):
    """the bridge refuses, and asking again would not help"""


class _RefusedError(Exception):
    """an answer that may be another one next time; `wait` seconds where it says so"""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Request:
    """What to follow, and at which bridge. `token` goes into a header only."""

    url: str
    cvms: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    since: str | None = None

    @property
    def address(self) -> str:
        """A single CVM's own route makes the watch where there is none yet."""
        if len(self.cvms) == 1:
            return f"{self.url}/v1/cvms/{quote(self.cvms[0], safe='')}/events"
        return f"{self.url}/v1/events"

    def parameters(self, cursor: str) -> list[tuple[str, str]]:
        """`since` is only how to begin: a cursor knows better."""
        several = [("cvm", cvm) for cvm in self.cvms] if len(self.cvms) > 1 else []
        return several + ([("since", self.since)] if self.since and not cursor else [])

    def headers(self, cursor: str) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"User-Agent": f"bridge-tail/{__version__}", **bearer, **({"Last-Event-ID": cursor} if cursor else {})}


class Waits:
    """How long to wait before the next try: doubling, with jitter, and back to the start once events came."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next = FIRST_WAIT

    def after_success(self) -> None:
        self._next = FIRST_WAIT

    def take(self, asked: float = 0.0) -> float:
        """Seconds; never less than what the bridge `asked` for."""
        wait, self._next = self._next, min(self._next * 2, LONGEST_WAIT)
        return max(asked, wait * self._rng.uniform(0.5, 1.0))


async def follow(
    request: Request,
    write: Write,
    complain: Write,
    *,
    client: httpx.AsyncClient | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> None:
    """Gives every event's JSON to `write`, for ever. What passes is told to `complain`, once per time of trouble.

    Raises GivenUpError where the bridge refuses for good.
    """
    timeout = httpx.Timeout(10.0, read=SILENCE_SECONDS)
    async with client or httpx.AsyncClient(timeout=timeout) as http:
        await _Following(request, write, complain, http, clock or SystemClock(), Waits(rng or random.Random())).run()


class _Following:
    def __init__(
        self, request: Request, write: Write, complain: Write, http: httpx.AsyncClient, clock: Clock, waits: Waits
    ) -> None:
        self._request = request
        self._write = write
        self._complain = complain
        self._http = http
        self._clock = clock
        self._waits = waits
        self._cursor = ""
        self._retry = 0.0
        self._troubled = False

    async def run(self) -> None:
        while True:
            asked = await self._connection()
            await self._clock.sleep(self._waits.take(asked))

    async def _connection(self) -> float:
        """One connection until it ends; the seconds that the bridge asks to wait before the next."""
        self._retry = 0.0
        try:
            async for event in self._events():
                self._take(event)
        except _RefusedError as error:
            self._trouble(str(error))
            return error.wait
        except (httpx.HTTPError, SSEError) as error:
            self._trouble(f"{self._request.url} cannot be reached ({type(error).__name__})")
        except httpx.InvalidURL:
            raise GivenUpError(f"{self._request.url} is no URL: pass --url http://host:port") from None
        return self._retry

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        request = self._request
        async with aconnect_sse(
            self._http,
            "GET",
            request.address,
            params=request.parameters(self._cursor),
            headers=request.headers(self._cursor),
        ) as source:
            if source.response.status_code != 200:
                raise await _refusal(source.response, self._clock.time())
            async for event in source.aiter_sse():
                yield event

    def _take(self, event: ServerSentEvent) -> None:
        if event.retry is not None:
            self._retry = event.retry / 1000
        if event.id:
            self._cursor = event.id
        self._waits.after_success()
        self._troubled = False
        if event.data and event.event not in (POSITION, "overloaded"):
            self._write(event.data)

    def _trouble(self, message: str) -> None:
        if not self._troubled:
            self._complain(f"{message}; trying again")
        self._troubled = True


async def _refusal(response: httpx.Response, now: float) -> Exception:
    """Statuses that another try may change are _RefusedError, the others final."""
    status, detail = response.status_code, await problem_text(response)
    if status == 401:
        return GivenUpError(f"the bridge refuses the token (401): pass --token or set BRIDGE_TOKEN{detail}")
    if status in (408, 425, 429) or status >= 500:
        asked = parse_retry_after(response.headers.get("Retry-After"), now, longest=math.inf) or 0.0
        return _RefusedError(f"the bridge answered {status}{detail}", min(asked, LONGEST_WAIT * 4))
    return GivenUpError(f"the bridge answered {status}{detail}")


async def problem_text(response: httpx.Response) -> str:
    """What a problem says, on one line and with a colon before it; nothing where it is no problem."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            break
    try:
        problem = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(problem, dict):
        return ""
    # A CVM that upstream does not know is upstream's own 404, whose `detail` may be anything.
    said = [problem.get(name) for name in ("title", "detail")]
    text = ": ".join(part for part in said if isinstance(part, str) and part)
    return f": {printable(text)}" if text else ""


def colourful(text: str) -> str:
    """One event as a line for people: time, name, what became of it."""
    try:
        envelope = json.loads(text)
    except ValueError:
        return printable(text)
    raw = envelope.get("data")
    data: dict[str, Any] = raw if isinstance(raw, dict) else {}
    time = str(envelope.get("time", ""))[11:19] or "--:--:--"
    name = printable(str(data.get("name") or data.get("cvm_id") or envelope.get("subject") or "the log"))
    return f"{painted(time, 2)}  {painted(f'{name:<20}', 1)} {_news(str(envelope.get('type')), data)}"


def _news(kind: str, data: dict[str, Any]) -> str:
    if kind == TRANSITION:
        return f"{_status(data.get('from'))} → {_status(data.get('to'))}"
    if kind == SNAPSHOT:
        return f"is {_status(_snapshot_status(data))}"
    if kind == RESET:
        return painted(f"history is lost here ({printable(str(data.get('reason')))}); what is known now:", 31)
    if kind.startswith("watch."):
        reason = f" ({printable(str(data['reason']))})" if data.get("reason") else ""
        return painted(kind.removeprefix("watch.") + reason, 35)
    return f"{_status(data.get('to'))}{_progress(data.get('state'))}"


def _snapshot_status(data: dict[str, Any]) -> object:
    state = data.get("state")
    return data.get("status") or data.get("to") or (state.get("status") if isinstance(state, dict) else None)


def _progress(state: object) -> str:
    """What a `cvm.state` most often is about."""
    if not isinstance(state, dict):
        return ""
    said = [state.get(name) for name in ("boot_error", "boot_progress", "shutdown_progress")]
    found = next((part for part in said if isinstance(part, str) and part), None)
    return painted(f"  {printable(found)}", 2) if found else ""


def _status(status: object) -> str:
    text = "unseen" if status is None else printable(str(status))
    return painted(text, _COLOURS.get(text, 36))


def painted(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def printable(text: str) -> str:
    """A CVM's name must not write to the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
