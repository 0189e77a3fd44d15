"""Host names to addresses that webhooks may reach, so that names without an answer hold up no others.

A name server that does not answer is the fault of one name only while others are answered; otherwise it is ours, and
no attempt at all (`NotAttemptedError`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.addresses import Resolve, UrlRefusedError, check_addresses
from bridge.clock import Clock
from bridge.config_values import Allowlist
from bridge.webhooks.schedule import NotAttemptedError

KEPT_SECONDS = 10.0
"""How long a checked answer serves further connections to the same name."""

MOST_NAMES = 20_000
"""Names whose last answers are kept: more than there may be endpoints."""

LONGEST_LOOKUP = 60.0
"""Seconds after which a lookup counts as unanswered; the system's own limit is mostly 10 to 30."""

ANSWERED_LATELY = 60.0
"""Seconds: while any name was answered within them, the resolver works."""

Standing = Literal["answered", "new", "unanswered"]

ROOM = {"answered": 64, "new": 128, "unanswered": 32}
"""Lookups at once by how the name's last one ended. So names without an answer, of which each takes a place for half a
minute, delay neither those that were answered before nor new ones. Altogether fewer than `host_lookup.MAX_LOOKUPS`."""


@dataclass(frozen=True, slots=True)
class _Known:
    """How the last lookup ended; `addresses` are checked, and empty unless it gave some."""

    standing: Standing
    at: float
    addresses: Sequence[str] = ()


class _Lookup:
    """One for all attempts that want the same name at the same time."""

    def __init__(self) -> None:
        self.begun = False
        self.task: asyncio.Task[Sequence[str]]


class Names:
    """`addresses` may be called any number of times at once."""

    def __init__(self, resolve: Resolve, allow: Allowlist, clock: Clock) -> None:
        self._resolve = resolve
        self._allow = allow
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()  # the oldest first
        self._lookups: dict[str, _Lookup] = {}
        self._room = {standing: asyncio.Semaphore(size) for standing, size in ROOM.items()}
        self._answered_at: float | None = None

    async def addresses(self, host: str, port: int, seconds: float) -> Sequence[str]:
        """At least one, each permitted. Waits at most `seconds`; the lookup goes on for later attempts.

        Raises UrlRefusedError, and NotAttemptedError where the resolver is to blame.
        """
        known = self._known.get(host)
        if known is not None and known.addresses and self._clock.monotonic() - known.at < KEPT_SECONDS:
            return known.addresses
        lookup = self._lookups.get(host) or self._begin(host, port, known.standing if known else "new")
        await asyncio.wait([lookup.task], timeout=max(seconds, 0))
        if lookup.task.done():
            return lookup.task.result()
        if not lookup.begun:
            raise NotAttemptedError("resolver", "too many host names are waited for")
        raise self._unanswered()

    def close(self) -> None:
        for lookup in self._lookups.values():
            lookup.task.cancel()

    def _begin(self, host: str, port: int, standing: Standing) -> _Lookup:
        lookup = self._lookups[host] = _Lookup()
        lookup.task = asyncio.create_task(self._look_up(lookup, host, port, standing), name="webhook-lookup")
        lookup.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait any more
        return lookup

    async def _look_up(self, lookup: _Lookup, host: str, port: int, standing: Standing) -> Sequence[str]:
        try:
            async with self._room[standing]:
                lookup.begun = True
                found = await self._ask(host, port)
        finally:
            del self._lookups[host]
        check_addresses(host, found, self._allow)
        self._note(host, "answered", found)
        return found

    async def _ask(self, host: str, port: int) -> Sequence[str]:
        """None at all if the name servers answer that there are none."""
        try:
            async with asyncio.timeout(LONGEST_LOOKUP):
                found = await self._resolve(host, port)
        except OSError as error:  # a TimeoutError is one
            if isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN:
                self._note(host, "unanswered")
                raise self._unanswered() from None
            found = ()
        self._answered_at = self._clock.monotonic()
        self._note(host, "answered")
        return found

    def _note(self, host: str, standing: Standing, addresses: Sequence[str] = ()) -> None:
        self._known.pop(host, None)
        self._known[host] = _Known(standing, self._clock.monotonic(), addresses)
        if len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)

    def _unanswered(self) -> Exception:
        at = self._answered_at
        if at is not None and self._clock.monotonic() - at < ANSWERED_LATELY:
            return UrlRefusedError("dns", "the name servers of the host do not answer")
        return NotAttemptedError("resolver", "no name server answers")
