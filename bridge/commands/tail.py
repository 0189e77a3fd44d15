"""`bridge tail`: events in the terminal, without a gap or a repetition across broken connections."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from bridge.backoff import Backoff
from bridge.clock import Clock, SystemClock
from bridge.commands.terminal import base_url, bridge_client, client_headers, invalid_url, problem_text
from bridge.events import POSITION
from bridge.process.signals import CommandError
from bridge.retry_after import parse_retry_after
from bridge.web.http.problems import COME_BACK

SILENCE_SECONDS = 60.0
"""Four heartbeats at their default; a connection that is silent for so long is taken for dead."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds between two tries: the first and the longest wait, doubling until an event comes; with jitter."""

_TROUBLE = frozenset(each.slug for each in COME_BACK)
"""Events that stand for a passing problem; the stream ends after one."""

Write = Callable[[str], None]


class _TryLaterError(Exception):
    """the bridge does not serve events just now; it asked to wait `seconds` (0: it did not ask)"""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Request:
    """Which events to follow, and at which bridge. `token` goes into a header only."""

    url: str
    cvms: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    since: str | None = None

    @property
    def address(self) -> str:
        """The route; a single CVM's own route, which watches a CVM that is not watched yet."""
        if len(self.cvms) == 1:
            return f"{base_url(self.url)}/v1/cvms/{quote(self.cvms[0], safe='')}/events"
        return f"{base_url(self.url)}/v1/events"

    def parameters(self, cursor: str) -> list[tuple[str, str]]:
        """`since` is for the first connection; later ones have a cursor."""
        several = [("cvm", cvm) for cvm in self.cvms] if len(self.cvms) > 1 else []
        return several + ([("since", self.since)] if self.since and not cursor else [])

    def headers(self, cursor: str) -> dict[str, str]:
        return client_headers("tail", self.token) | ({"Last-Event-ID": cursor} if cursor else {})


async def follow(
    request: Request,
    write: Write,
    complain: Write,
    *,
    client: httpx.AsyncClient | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> None:
    """Passes every event's JSON to `write`, until cancelled. `complain` gets one line per interruption.

    Raises CommandError if the bridge refuses and another try would not help.
    """
    timeout = httpx.Timeout(10.0, read=SILENCE_SECONDS)
    async with client or bridge_client(request.url, timeout=timeout) as http:
        await _Follower(request, write, complain, http, clock or SystemClock(), rng or random.Random()).run()


@dataclass
class _Follower:
    request: Request
    write: Write
    complain: Write
    http: httpx.AsyncClient
    clock: Clock
    rng: random.Random
    backoff: Backoff = field(default_factory=lambda: Backoff(first=FIRST_WAIT, longest=LONGEST_WAIT))
    cursor: str = ""
    retry: float = 0.0
    interrupted: bool = False

    async def run(self) -> None:
        while True:
            least = await self._connection()
            await self.clock.sleep(self.backoff.fail(self.clock.monotonic(), self.rng, least))

    async def _connection(self) -> float:
        """One connection until it ends; returns the seconds that the bridge asks to wait before the next."""
        self.retry = 0.0
        try:
            address, parameters = self.request.address, self.request.parameters(self.cursor)
            headers = self.request.headers(self.cursor)
            async with aconnect_sse(self.http, "GET", address, params=parameters, headers=headers) as source:
                if source.response.status_code != 200:
                    raise await _refusal(source.response, self.clock.time())
                async for event in source.aiter_sse():
                    self._take(event)
        except _TryLaterError as error:
            self._report(str(error))
            return error.seconds
        except (httpx.HTTPError, SSEError) as error:
            self._report(f"{self.request.url} cannot be reached ({type(error).__name__})")
        except httpx.InvalidURL:
            raise invalid_url(self.request.url) from None
        return self.retry

    def _take(self, event: ServerSentEvent) -> None:
        if event.retry is not None:
            self.retry = event.retry / 1000
        if event.id:
            self.cursor = event.id
        if event.event in _TROUBLE:
            self._report(f"the bridge answered {event.event}: {event.data}")
            return
        self.backoff.heal()
        self.interrupted = False
        if event.data and event.event != POSITION:
            self.write(event.data)

    def _report(self, message: str) -> None:
        if not self.interrupted:
            self.complain(f"{message}; trying again")
        self.interrupted = True


async def _refusal(response: httpx.Response, now: float) -> Exception:
    """_TryLaterError for a status that another try may change, CommandError for any other."""
    status, detail = response.status_code, await problem_text(response)
    if status == 401:
        return CommandError(f"the bridge refuses the token (401): pass --token or set BRIDGE_TOKEN{detail}")
    if status in (408, 425, 429) or status >= 500:
        asked = parse_retry_after(response.headers.get("Retry-After"), now, longest=math.inf) or 0.0
        return _TryLaterError(f"the bridge answered {status}{detail}", min(asked, LONGEST_WAIT * 4))
    return CommandError(f"the bridge answered {status}{detail}")
