"""Deliveries in Redis: their history with every attempt, and what a caller can queue again."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.clock import rfc3339
from bridge.events import Event, dumps, entry_key, envelope
from bridge.store import errors
from bridge.store.connection import Backend, load_script
from bridge.store.endpoints import Endpoints
from bridge.store.foreign import decimal, stored_time
from bridge.store.lane_repair import run_lane_script
from bridge.store.lanes import TEST_TYPE, Entry, Lanes
from bridge.store.limits import LaneLimits
from bridge.store.unread import is_past, wanted
from bridge.tracing import Trace

logger = logging.getLogger(__name__)

DeliveryStatus = Literal["pending", "delivered", "given_up", "skipped"]

DELIVERY_STATUSES: Mapping[DeliveryStatus, str] = {
    "pending": "waits for its first or next attempt",
    "delivered": "the receiver answered 2xx",
    "given_up": "its last attempt failed; of a test, its only one",
    "skipped": "it gets no further attempt: a caller canceled it, the endpoint was disabled, too many deliveries "
    "waited, its owner may no longer see the CVM, or a key of its lane in Redis was damaged",
}
"""What each status means; the documents quote it."""

READ_AT_ONCE = 25
"""Deliveries per script: each may have 20 attempts of 4 KiB."""

RECOVER_AT_ONCE = 100
"""Events per script: a recovery must not block the server."""

LEAST_TOO_HIGH = 10**16
"""No stamp is so high; a cursor has at most its digits."""

_NO_ID_ABOVE = 18_446_744_073_709_551_615


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request; `at` in RFC 3339. The body is cut; of the last two failed attempts only."""

    at: str
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: str

    def to_json(self) -> str:
        return dumps([self.at, self.duration_ms, self.status_code, self.error, self.response_body])


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint. `id` is the `webhook-id` of every attempt.

    `next_attempt_at`: None unless it is pending, at the head of its lane, and its endpoint enabled.
    """

    id: str
    endpoint_id: str
    event: Event
    status: DeliveryStatus
    created_at: str
    finished_at: str | None
    next_attempt_at: str | None
    attempts: tuple[Attempt, ...]

    @property
    def size(self) -> int:
        """Characters of its event and of the answers to its attempts."""
        return len(self.event.json) + sum(len(each.response_body) for each in self.attempts)


@dataclass(frozen=True, slots=True)
class Recovered:
    """`complete` is False if the endpoint's queue is full: call again once some deliveries are finished.

    `next`: the time of the first event that was not queued then, RFC 3339.
    """

    queued: int
    complete: bool
    next: str | None = None


class Deliveries:
    """The callers' side; any process may use it. All methods raise StoreError."""

    _read = load_script("lane_rules", "read_deliveries")
    _requeue = load_script("lane_rules", "delivered_marks", "requeue")

    def __init__(self, backend: Backend, limits: LaneLimits | None = None) -> None:
        self._backend = backend
        self._endpoints = Endpoints(backend, limits)
        self._lanes = Lanes(backend, limits)
        self._limits = (limits or LaneLimits()).to_json()

    async def page(
        self,
        endpoint_id: str,
        *,
        status: DeliveryStatus | None = None,
        after: str = "",
        limit: int = 100,
        most_bytes: int = 1 << 20,
    ) -> tuple[list[Delivery], str | None]:
        """Newest first, and the cursor of the next page, which begins early behind `most_bytes` of events and answers.

        Raises ValueError if `after` is not such a cursor.
        """
        check_cursor(after)
        chosen: Sequence[DeliveryStatus] = (status,) if status else tuple(DELIVERY_STATUSES)
        rows = await self.newest(endpoint_id, chosen, after, limit + 1)
        found: list[Delivery] = []
        for start in range(0, min(limit, len(rows)), READ_AT_ONCE):
            some = rows[start : min(limit, start + READ_AT_ONCE)]
            stamps = {delivery_id: stamp for stamp, delivery_id in some}
            loaded = await self.load([delivery_id for _, delivery_id in some])
            if lost := len(some) - len(loaded):
                extra = {"endpoint": endpoint_id, "count": lost}
                logger.warning("deliveries whose keys in Redis are damaged were left out of a list", extra=extra)
            for delivery in loaded:
                found.append(delivery)
                most_bytes -= delivery.size
                if most_bytes <= 0:
                    last = delivery.id == rows[-1][1]
                    return found, None if last else str(stamps[delivery.id])
        return found, str(rows[limit - 1][0]) if len(rows) > limit else None

    async def newest(
        self, endpoint_id: str, statuses: Sequence[DeliveryStatus], after: str, most: int, lowest: int = 0
    ) -> list[tuple[int, str]]:
        """(stamp, id) of the newest, at most `most`, with stamps below `after` ("": any) and from `lowest` on.

        Read at one moment, so that each is in exactly one list. A key of another type is no list.
        """
        highest = f"({after}" if after else "+inf"
        lists = [f"{self._backend.keys.webhooks}:{each}:{endpoint_id}" for each in statuses]

        def queue(pipe: Any) -> None:
            for key in lists:
                pipe.execute_command("ZREVRANGEBYSCORE", key, highest, lowest, "WITHSCORES", "LIMIT", 0, most)

        found = await self._backend.read_together(queue, needed=0)
        every = (row for rows in found if isinstance(rows, list) for row in _stamped(rows))
        return sorted(every, reverse=True)[:most]

    async def get(self, delivery_id: str) -> Delivery | None:
        found = await self.load([delivery_id])
        return found[0] if found else None

    async def retry(self, delivery_id: str) -> Delivery:
        """Queues a finished delivery at the end of its lane; one that waits at its lane's head is due at once.

        Raises UnknownDeliveryError, EndpointDisabledError, AlreadyPendingError (it waits behind another delivery, or is
        being attempted).
        """
        return await self._move("retry", delivery_id)

    async def cancel(self, delivery_id: str) -> Delivery:
        """Skips a pending delivery; the next of its lane is due. One that is skipped already stays so.

        Raises UnknownDeliveryError, BeingAttemptedError, FinishedDeliveryError.
        """
        return await self._move("cancel", delivery_id)

    async def _move(self, what: str, delivery_id: str) -> Delivery:
        known = await self.get(delivery_id)
        if known is None:
            raise errors.UnknownDeliveryError
        answer = await self._run(what, known.endpoint_id, delivery_id)
        _refuse(answer[0], errors.UnknownDeliveryError)
        return await self.get(delivery_id) or known

    async def recover(
        self, endpoint_id: str, since_ms: int, until_ms: int | None = None, *, all: bool = False
    ) -> Recovered:
        """Queues the events of that time that the log still has and the endpoint wants, but that were not delivered.

        These are the given-up, the skipped, and those that were never queued, if newer than the endpoint. With `all`,
        the delivered too.
        Raises UnknownEndpointError, BrokenEndpointError, EndpointDisabledError.
        """
        found = await self._endpoints.get(endpoint_id)
        checkpoint = await self._lanes.checkpoint()
        if found is None:
            raise errors.UnknownEndpointError
        if found[0].broken:
            raise errors.BrokenEndpointError
        if not found[0].enabled:
            raise errors.EndpointDisabledError
        after, queued = f"{since_ms - 1}-{_NO_ID_ABOVE}" if since_ms > 0 else "0-0", 0
        while checkpoint is not None:
            entries, last = await self._lanes.read(after, RECOVER_AT_ONCE)
            # Events after the checkpoint will be queued anyway, and must not overtake those before it.
            read = [entry for entry in entries if entry_key(entry.event.id) <= entry_key(checkpoint.id)]
            chosen = list(wanted(found[0], checkpoint.log_id, read, until_ms))
            parts = itertools.chain.from_iterable(map(_told, chosen))
            answer = await self._run("replay" if all else "recover", endpoint_id, *parts)
            _refuse(answer[0], errors.UnknownEndpointError)
            queued += int(answer[1])
            if int(answer[2]) < len(chosen):
                return Recovered(queued, False, rfc3339(entry_key(chosen[int(answer[2])].event.id)[0] / 1000))
            if last is None or len(read) < len(entries) or (entries and is_past(entries[-1], until_ms)):
                break
            after = last
        return Recovered(queued, True)

    async def test(self, endpoint_id: str, at: str, number: str = "", trace: Trace | None = None) -> str:
        """Queues an event of type `webhook.test` for one attempt, beside all other lanes; returns the delivery's id.

        The same `number` again ("": a random one) is the same test. Raises UnknownEndpointError, EndpointDisabledError.
        """
        event_id = f"test-{number or secrets.token_hex(8)}"
        data, source = dumps({"endpoint_id": endpoint_id}), self._backend.keys.source
        about = {"event_id": event_id, "subject": endpoint_id, "time": at}
        text = envelope(source, TEST_TYPE, data, **about, sequence=0, trace=trace)
        answer = await self._run("test", endpoint_id, event_id, text)
        _refuse(answer[0], errors.UnknownEndpointError)
        return f"{endpoint_id}-{event_id}"

    async def load(self, ids: Sequence[str]) -> list[Delivery]:
        """Those of them that are there and readable, in this order."""
        found: list[Delivery] = []
        for start in range(0, len(ids), READ_AT_ONCE):
            some = ids[start : start + READ_AT_ONCE]
            rows = await run_lane_script(self._backend, self._read, [self._limits, *some])
            found += filter(None, map(_delivery, some, rows))
        return found

    async def _run(self, what: str, *arguments: object) -> Any:
        given = [self._limits, self._backend.keys.webhook_wake_channel, what, *arguments]
        return await run_lane_script(self._backend, self._requeue, given)


def check_cursor(after: str) -> None:
    """Raises ValueError for what is no cursor of a list of deliveries ("": its beginning)."""
    if after and decimal(after, 16) is None:
        raise ValueError("not a cursor of this list")


def _stamped(rows: list[Any]) -> Iterator[tuple[int, str]]:
    """(stamp, id) of a reply WITHSCORES, which a client gives in pairs or flat."""
    pairs = zip(rows[::2], rows[1::2], strict=True) if rows and isinstance(rows[0], str) else rows
    return ((int(float(score)), member) for member, score in pairs if 0 <= float(score) < LEAST_TOO_HIGH)


def _refuse(answer: str, unknown: type[errors.StoreError]) -> None:
    if answer != "done":
        kinds = {
            "unknown": unknown,
            "pending": errors.AlreadyPendingError,
            "busy": errors.BeingAttemptedError,
            "finished": errors.FinishedDeliveryError,
            "disabled": errors.EndpointDisabledError,
        }
        raise kinds[answer]


def _told(entry: Entry) -> tuple[object, ...]:
    event = entry.event
    return event.id, int(entry.ran), event.json, event.lane, event.sequence


def _delivery(delivery_id: str, row: list[Any]) -> Delivery | None:
    """None for one that is not there, or has no readable event or status."""
    try:
        endpoint_id, status, created, finished, due, text, attempts = row
        event = Event.from_json(text)
    except ValueError:
        return None
    if status not in DELIVERY_STATUSES:
        return None
    return Delivery(
        id=delivery_id,
        endpoint_id=endpoint_id,
        event=event,
        status=status,
        created_at=stored_time(created) or rfc3339(0),
        finished_at=stored_time(finished),
        next_attempt_at=stored_time(due),
        attempts=tuple(filter(None, map(_attempt, attempts))),
    )


def _attempt(text: str) -> Attempt | None:
    """None for what the bridge did not write."""
    try:
        match json.loads(text):
            case [str(), int(), int() | None, str() | None, str()] as fields:
                return Attempt(*fields)
    except (ValueError, RecursionError):
        pass
    return None
