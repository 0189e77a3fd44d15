"""Lanes in Redis: one per (endpoint, CVM), filled from the log, lent to one dispatcher at a time (design section 4).

Only a lane's head is ever attempted, so an endpoint sees each CVM's events in their order. All rules are in the
scripts (`scripts/lane_rules.lua` and what is put behind it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.events import Event, read_entry
from bridge.store.connection import Backend, load_script
from bridge.store.limits import LaneLimits
from bridge.store.log import HIGHEST_ID

TEST_TYPE = "webhook.test"

Verdict = Literal["delivered", "failed", "given_up", "gone"]
Settled = Literal["lost", "done", "opened", "closed", "disabled", "broken"]

_SETTLED: tuple[Settled, ...] = ("lost", "done", "opened", "closed", "disabled", "broken")

Tell = Callable[[str, str, str], None]
"""Hears of keys that hold what they should not: endpoint, lane ("": all of the endpoint's) and what Redis said."""


def _unheard(endpoint_id: str, lane: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the log has been read to. `partial`: the endpoint up to which (by id) the next event is queued already."""

    log_id: str
    id: str
    partial: str
    revision: int
    last_id: str
    low_water_mark: str
    trimmed: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry as endpoints' filters see it; `ran`: the CVM had been seen running before."""

    event: Event
    ran: bool
    from_: str | None
    to: str | None


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
    """The head of a lane, lent until its lease ends. `failures`: failed attempts since it was queued."""

    endpoint_id: str
    lane: str
    token: str
    delivery_id: str
    event: Event
    ran: bool
    failures: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """`wait`: seconds until the next lane is due, None where none waits. `revision`: of the endpoints."""

    revision: int
    wait: float | None
    claims: Sequence[Claim]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one attempt; `wait` seconds until the next, `jitter` (0 to 1) for the breaker's own wait."""

    claim: Claim
    verdict: Verdict
    wait: float
    jitter: float
    attempt: str


class Lanes:
    """The dispatchers' side. Everything but `read` is one atomic step; times are the server's.

    A lane whose keys are broken is set aside by whatever step meets it, `tell` hears of it, and the others go on.
    """

    _checkpoint = load_script("lane_rules", "checkpoint")
    _fill = load_script("lane_rules", "fill")
    _claim = load_script("lane_rules", "claim")
    _extend = load_script("lane_rules", "extend")
    _settle = load_script("lane_rules", "settle")
    _sweep = load_script("lane_rules", "sweep")

    def __init__(self, backend: Backend, limits: LaneLimits | None = None, tell: Tell = _unheard) -> None:
        self._backend = backend
        self._limits = (limits or LaneLimits()).to_json()
        self._tell = tell

    async def checkpoint(self) -> Checkpoint | None:
        """None without a log. A log born anew is begun at its birth; without endpoints the position is its end."""
        answer = await self._run(self._checkpoint)
        if not answer:
            return None
        log_id, position, partial, revision, last_id, low_water_mark, trimmed = answer
        return Checkpoint(log_id, position, partial, int(revision), last_id, low_water_mark, trimmed == "1")

    async def read(self, after: str, count: int) -> tuple[list[Entry], str | None]:
        """At most `count` log entries above `after`, oldest first, without somebody else's; and the last one's id."""
        if after == HIGHEST_ID:
            return [], None  # somebody else's hand wrote that entry
        client, key = self._backend.client, self._backend.keys.log
        rows = await self._backend.call(client.xrange(key, f"({after}", "+", count))
        entries = [entry for entry in (_entry(*row) for row in rows) if entry is not None]
        return entries, rows[-1][0] if rows else None

    async def fill(self, checkpoint: Checkpoint, shares: Sequence[Share], to_id: str, to_partial: str) -> Filled | None:
        """Queues and moves the position to `to_id`. None: position, birth or revision is not `place`'s any more."""
        arguments: list[object] = [
            checkpoint.log_id,
            checkpoint.id,
            checkpoint.partial,
            checkpoint.revision,
            to_id,
            to_partial,
        ]
        for share in shares:
            event = share.entry.event
            arguments += [event.id, int(share.entry.ran), event.json, event.cvm_id, len(share.endpoints)]
            arguments += share.endpoints
        done, *counts = await self._run(self._fill, *arguments)
        if not int(done):
            return None
        self._told(counts.pop())
        return Filled(*(int(count) for count in counts))

    async def claim(self, token: str, lease: float, most: int, share: int) -> Claimed:
        """Borrows at most `most` lanes that are due, for `lease` seconds; `token` is new at each call.

        None of an endpoint of which `share` are lent already.
        """
        arguments = token, int(lease * 1000), most, share
        revision, wait, claims, events, broken = await self._run(self._claim, *arguments)
        self._told(broken)
        known: dict[str, tuple[Event | None, bool]] = {}
        for event_id, ran, text in zip(*[iter(events)] * 3, strict=True):
            known[event_id] = _event(text), ran == "1"
        found = []
        for endpoint_id, lane, delivery_id, event_id, failures in zip(*[iter(claims)] * 5, strict=True):
            event, ran = known[event_id]
            if event is not None:
                found.append(Claim(endpoint_id, lane, token, delivery_id, event, ran, int(failures)))
        milliseconds = int(wait)
        return Claimed(int(revision), None if milliseconds < 0 else milliseconds / 1000, found)

    async def extend(self, claims: Sequence[Claim], lease: float) -> list[bool]:
        """Renews leases. False: that lane is somebody else's by now, or gone."""
        arguments: list[object] = [int(lease * 1000)]
        for claim in claims:
            arguments += [claim.endpoint_id, claim.lane, claim.token]
        kept, broken = await self._run(self._extend, *arguments)
        self._told(broken)
        return [bool(each) for each in kept]

    async def settle(self, results: Sequence[Result]) -> list[Settled]:
        """Records attempts and gives the lanes back.

        "lost": the claim had ended, nothing was recorded. "broken": it could not be, the attempt will be made again.
        """
        arguments: list[object] = []
        for each in results:
            claim = each.claim
            arguments += [claim.endpoint_id, claim.lane, claim.token, claim.delivery_id, each.verdict]
            arguments += [int(each.wait * 1000), each.jitter, each.attempt]
        codes, broken = await self._run(self._settle, *arguments)
        self._told(broken)
        return [_SETTLED[int(code)] for code in codes]

    async def sweep(self, endpoint_ids: Iterable[str]) -> tuple[int, int]:
        """(deliveries pending, lanes that had been forgotten) of these endpoints; ends history that is too old."""
        pending, repaired = await self._run(self._sweep, *endpoint_ids)
        return int(pending), int(repaired)

    async def lateness(self) -> float:
        """Seconds since the lane that has been due for longest could have been claimed; 0 where none is late."""
        client, key = self._backend.client, f"{self._backend.keys.webhooks}:due"
        rows = await self._backend.call(client.zrange(key, 0, 0, withscores=True))
        if not rows:
            return 0.0
        return max((await self._backend.now_ms() - float(rows[0][1])) / 1000, 0.0)

    def _told(self, broken: Sequence[str]) -> None:
        for endpoint_id, lane, why in zip(*[iter(broken)] * 3, strict=True):
            self._tell(endpoint_id, lane, why)

    async def _run(self, script: Any, *arguments: object) -> Any:
        keys = self._backend.keys
        return await self._backend.run(script, [keys.webhooks, keys.meta], [self._limits, *arguments])


def _entry(entry_id: str, fields: dict[str, str]) -> Entry | None:
    try:
        event, envelope = read_entry(entry_id, fields["event"])
        data = envelope["data"]
        return Entry(event, fields.get("ran") == "1", data.get("from"), data.get("to"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None  # somebody else's entry


def _event(text: str | None) -> Event | None:
    try:
        return Event.from_json(text) if text else None
    except ValueError:
        return None
