"""Lanes in Redis: one per (endpoint, CVM), filled from the log, lent to one dispatcher at a time.

Only a lane's head is ever attempted, so an endpoint gets each CVM's events in their order
(`docs/decisions/005-webhook-lanes.md`). All rules are in the scripts (`scripts/lane_rules.lua` and those behind it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.events import Event, entry_key, read_entry
from bridge.store.connection import Backend, load_script
from bridge.store.lane_repair import run_lane_script
from bridge.store.limits import LaneLimits
from bridge.store.log import HIGHEST_ID
from bridge.store.memory import read_memory_left

logger = logging.getLogger(__name__)

TEST_TYPE = "webhook.test"

Verdict = Literal["delivered", "failed", "given_up", "gone", "postponed", "withheld"]
"""`postponed`: no attempt was made, so none is recorded and the delivery's failures stay as many. `withheld`: nor will
there be one."""

Settled = Literal["lost", "done", "opened", "closed", "disabled", "broken"]

_SETTLED: tuple[Settled, ...] = ("lost", "done", "opened", "closed", "disabled", "broken")

ReportQuarantine = Callable[[str, str, str], None]
"""Called with endpoint, lane ("": the whole endpoint) and Redis's error when keys hold values of another form."""


def _ignore(endpoint_id: str, lane: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The position up to which the log was read. `partial`: the next event is queued for endpoints up to this id."""

    log_id: str
    id: str
    partial: str
    revision: int
    last_id: str
    low_water_mark: str
    trimmed: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """Of some endpoints: deliveries pending, forgotten lanes that were mended, breakers open, the age in seconds of
    the delivery that waits longest, and endpoints whose attempts all fail while deliveries wait."""

    pending: int = 0
    repaired: int = 0
    open_breakers: int = 0
    oldest: float = 0.0
    failing: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            self.pending + other.pending,
            self.repaired + other.repaired,
            self.open_breakers + other.open_breakers,
            max(self.oldest, other.oldest),
            self.failing + other.failing,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry with what filters compare; `ran`: the CVM had been seen running before."""

    event: Event
    ran: bool
    from_: str | None
    to: str | None
    ready: bool | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """One event and the endpoints (ascending by id) to queue it for in one step."""

    entry: Entry
    endpoints: Sequence[str]


@dataclass(frozen=True, slots=True)
class Filled:
    queued: int
    skipped: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The head of a lane, lent until the lease ends. `failures`: failed attempts since it was queued.

    `replay`: a caller had it sent again although it was delivered, or with all of its period.
    """

    endpoint_id: str
    lane: str
    token: str
    delivery_id: str
    event: Event
    ran: bool
    failures: int
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """`wait`: seconds until the next lane is due, None if no lane waits. `revision`: of the endpoints."""

    revision: int
    wait: float | None
    claims: Sequence[Claim]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one attempt: `wait` seconds until the next, `jitter` (0 to 1) for the breaker's own wait.

    `about`: what notices show of the endpoint, as JSON; "" after a success. `given_up`: what a notice tells of the
    delivery that is given up, as JSON; "": there is no notice.

    `attempt`: its record as JSON; the reason if it is postponed. `hold`: seconds for which the
    receiver asked to get nothing, in any lane.
    """

    claim: Claim
    verdict: Verdict
    wait: float
    jitter: float
    attempt: str
    hold: float = 0.0
    about: str = ""
    given_up: str = ""


class Lanes:
    """The dispatchers' side. Every method but `claim`, `read` and `lateness` is one atomic step; all raise StoreError.

    A step that meets a lane with damaged keys quarantines it, reports it, and continues with the others.
    Times are the server's.
    """

    _checkpoint = load_script("lane_rules", "log_rules", "checkpoint")
    _fill = load_script("lane_rules", "delivered_marks", "fill")
    _claim = load_script("lane_rules", "claim")
    _extend = load_script("lane_rules", "extend")
    _settle = load_script("lane_rules", "delivered_marks", "notice_rules", "settle")
    _sweep = load_script("lane_rules", "delivered_marks", "notice_rules", "sweep")

    def __init__(self, backend: Backend, limits: LaneLimits | None = None, report: ReportQuarantine = _ignore) -> None:
        self._backend = backend
        self._limits = (limits or LaneLimits()).to_json()
        self._quarantined = report

    async def checkpoint(self, *, at_work: bool = False) -> Checkpoint | None:
        """None without a log. A new log is read from its beginning; without endpoints the position is the log's end.

        `at_work`: a dispatcher asks, which leaves the time.
        """
        answer = await self._run(self._checkpoint, int(at_work))
        if not answer:
            return None
        log_id, position, partial, revision, last_id, low_water_mark, trimmed, mended = answer
        if mended:
            logger.error("what webhooks had read could not be told, and was found anew", extra={"field": mended})
        return Checkpoint(log_id, position, partial, int(revision), last_id, low_water_mark, trimmed == "1")

    async def read(self, after: str, count: int) -> tuple[list[Entry], str | None]:
        """At most `count` of the bridge's log entries above `after`, oldest first; and the last entry's id."""
        if after == HIGHEST_ID:
            return [], None  # the bridge did not write that entry
        client, key = self._backend.client, self._backend.keys.log
        # A position at the highest id would never be passed, and the bridge wrote no such entry.
        rows = await self._backend.call(client.xrange(key, f"({after}", f"({HIGHEST_ID}", count))
        entries = [entry for entry in (_entry(*row) for row in rows) if entry is not None]
        return entries, rows[-1][0] if rows else None

    async def fill(self, checkpoint: Checkpoint, shares: Sequence[Share], to_id: str, to_partial: str) -> Filled | None:
        """Queues and moves the position to `to_id`. None: position, log or revision is not `checkpoint`'s any more."""
        arguments: list[object] = [checkpoint.log_id, checkpoint.id, checkpoint.partial, checkpoint.revision]
        arguments += [to_id, to_partial]
        for share in shares:
            event = share.entry.event
            arguments += [event.id, int(share.entry.ran), event.json, event.lane, event.sequence]
            arguments.append(len(share.endpoints))
            arguments += share.endpoints
        done, *counts = await self._run(self._fill, *arguments)
        if not int(done):
            return None
        self._report(counts.pop())
        return Filled(*(int(count) for count in counts))

    async def claim(self, token: str, lease: float, most: int, share: int) -> Claimed:
        """Borrows at most `most` lanes that are due, for `lease` seconds; `token` is new at each call.

        Passes over endpoints that have `share` lanes lent already, and skips deliveries whose event cannot be read.
        """
        arguments = token, int(lease * 1000), most, share
        revision, wait, claims, events, broken = await self._run(self._claim, *arguments)
        self._report(broken)
        known: dict[str, tuple[Event | None, bool]] = {}
        for event_id, ran, text in zip(*[iter(events)] * 3, strict=True):
            known[event_id] = _event(text), ran == "1"
        found, unreadable = [], []
        for endpoint_id, lane, delivery_id, event_id, failures, replay in zip(*[iter(claims)] * 6, strict=True):
            event, ran = known[event_id]
            if event is not None:
                found.append(Claim(endpoint_id, lane, token, delivery_id, event, ran, int(failures), int(replay) == 1))
            else:
                unreadable += [endpoint_id, lane, token, delivery_id, "unreadable", 0, 0, 0, "", "", ""]
        if unreadable:
            await self._run(self._settle, *unreadable)
            logger.error("deliveries whose event cannot be read were skipped", extra={"count": len(unreadable) // 11})
        milliseconds = int(wait)
        return Claimed(int(revision), None if milliseconds < 0 else milliseconds / 1000, found)

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """Renews leases. False: another dispatcher has that lane by now, or it is gone."""
        arguments: list[object] = [int(lease * 1000)]
        for claim in claims:
            arguments += [claim.endpoint_id, claim.lane, claim.token]
        kept, broken = await self._run(self._extend, *arguments)
        self._report(broken)
        return [bool(each) for each in kept]

    async def settle(self, results: Sequence[Result]) -> list[Settled]:
        """Records attempts and gives the lanes back.

        "lost": the claim had ended, nothing was recorded. "broken": damaged keys, so the attempt will be made again.
        """
        arguments: list[object] = []
        for each in results:
            claim = each.claim
            arguments += [claim.endpoint_id, claim.lane, claim.token, claim.delivery_id, each.verdict]
            arguments += [int(each.wait * 1000), int(each.hold * 1000), each.jitter, each.attempt]
            arguments += [each.about, each.given_up]
        codes, broken = await self._run(self._settle, *arguments)
        self._report(broken)
        return [_SETTLED[int(code)] for code in codes]

    async def sweep(self, endpoint_ids: Iterable[str]) -> Swept:
        """Looks at these endpoints; mends lanes that had been forgotten, deletes history that is too old."""
        pending, repaired, open_breakers, oldest, failing = await self._run(self._sweep, *endpoint_ids)
        return Swept(int(pending), int(repaired), int(open_breakers), int(oldest) / 1000, int(failing))

    async def lateness(self) -> float:
        """Seconds for which the most overdue lane could have been claimed; 0 if no lane is late."""
        client, key = self._backend.client, f"{self._backend.keys.webhooks}:due"
        rows = await self._backend.call(client.zrange(key, 0, 0, withscores=True))
        if not rows:
            return 0.0
        return max((await self._backend.now_ms() - float(rows[0][1])) / 1000, 0.0)

    async def log_lag(self) -> float:
        """Seconds since the oldest event was written that is not queued yet; 0 if all are, or without endpoints."""
        checkpoint = await self.checkpoint()
        _, first = await self.read(checkpoint.id, 1) if checkpoint else ([], None)
        return max((await self._backend.now_ms() - entry_key(first)[0]) / 1000, 0.0) if first else 0.0

    async def memory_left(self) -> float | None:
        """The share of Redis's memory that is free; None where that is not told, or not limited."""
        return await read_memory_left(self._backend)

    def _report(self, broken: Sequence[str]) -> None:
        for endpoint_id, lane, why in zip(*[iter(broken)] * 3, strict=True):
            self._quarantined(endpoint_id, lane, why)

    async def _run(self, script: Any, *arguments: object) -> Any:
        return await run_lane_script(self._backend, script, [self._limits, *arguments])


def _entry(entry_id: str, fields: dict[str, str]) -> Entry | None:
    try:
        event, envelope = read_entry(entry_id, fields["event"])
        data = envelope["data"]
        return Entry(event, fields.get("ran") == "1", data.get("from"), data.get("to"), data.get("ready"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None  # the bridge did not write this entry


def _event(text: str | None) -> Event | None:
    try:
        return Event.from_json(text) if text else None
    except ValueError:
        return None
