"""The query of the event routes; each error names its field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from starlette.datastructures import QueryParams
from starlette.requests import Request

from bridge.events import LOG_TYPES, MAX_ID_LENGTH
from bridge.web.http.parameters import AFTER, LIMIT, TEXT, Json, Parameter, in_header, last
from bridge.web.http.problems import check_names, invalid

# Stricter than fromisoformat, which finds a year 1710 in Unix milliseconds. Without a zone: UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[-+ ]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOST_FILTERS = 1000
"""CVMs named by one subscription; a subscriber that wants more subscribes to all."""

SHARED_QUERIES = 64
SHARED_QUERY_BYTES = 512
"""Parsed queries that are kept, and the longest one: ten thousand clients that reconnect send the same few."""

REFERENCE: Json = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
EXAMPLE_ID = "1795536119319-0"


def moment(field: str, text: str) -> int:
    """Unix milliseconds of an RFC 3339 time. Raises ProblemError 422 for `field`."""
    # A plus sign in a query that was not escaped arrives as a space.
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        found = datetime.fromisoformat(f"{match[1]}T{match[2]}{(match[3] or 'Z').replace(' ', '+')}".upper())
        return max(0, (found - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, OverflowError) as error:
        raise invalid(field, "an RFC 3339 time, such as 2026-11-24T16:00:00Z") from error


def _references(wanted: list[str]) -> tuple[str, ...]:
    if len(wanted) > MOST_FILTERS:
        raise invalid("cvm", f"at most {MOST_FILTERS} of them")
    return tuple(dict.fromkeys(wanted))


def _types(wanted: list[str]) -> frozenset[str] | None:
    for kind in wanted:
        if kind not in LOG_TYPES:
            raise invalid("type", f"one of {', '.join(LOG_TYPES)}")
    return frozenset(wanted) or None


def _snapshots(values: list[str]) -> bool:
    if values and values[-1] not in ("0", "1"):
        raise invalid("snapshot", "0 or 1")
    return not values or values[-1] == "1"


def _several(item: Json) -> Json:
    return {"type": "array", "items": item, "maxItems": MOST_FILTERS}


CVM = Parameter(
    "cvm",
    "Only these CVMs, by id or name; may be repeated. Each is watched from then on",
    _references,
    _several(REFERENCE),
    is_reference=True,
)
TYPE = Parameter(
    "type",
    "Only these types; may be repeated. Snapshots and resets come regardless",
    _types,
    _several({**TEXT, "enum": list(LOG_TYPES)}),
)
LAST_EVENT_ID_HEADER = in_header(
    "Last-Event-ID",
    "Continue after this event without losing one. A browser's EventSource sends it by itself",
    example=EXAMPLE_ID,
    shared_as="last_event_id_header",
)
LAST_EVENT_ID = Parameter("last_event_id", "The same, for clients that cannot send the header", last)
SINCE = Parameter(
    "since",
    "All events since this time",
    lambda values: moment("since", values[-1]) if values else None,
    {"type": "string", "format": "date-time"},
    example="2026-11-24T16:00:00Z",
)
SNAPSHOT = Parameter(
    "snapshot",
    "`0`: no snapshots at the beginning, only the position",
    _snapshots,
    {"type": "string", "enum": ["0", "1"], "default": "1"},
)

STREAM_PARAMETERS = (TYPE, LAST_EVENT_ID_HEADER, LAST_EVENT_ID, SINCE, SNAPSHOT, LIMIT, AFTER)
"""Of both event routes."""

_KNOWN = [each.name for each in (CVM, *STREAM_PARAMETERS) if each.where == "query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """The parsed query of an event route. Times are Unix milliseconds."""

    cvms: tuple[str, ...]
    types: frozenset[str] | None
    snapshots: bool
    since: int | None
    last_event_id: str
    limit: int
    after: str


def event_query(raw: bytes) -> EventQuery:
    """Raises ProblemError 422, also for an unknown parameter."""
    return _remembered(raw) if len(raw) <= SHARED_QUERY_BYTES else _event_query(raw)


def _event_query(raw: bytes) -> EventQuery:
    query = QueryParams(raw)
    check_names(query, _KNOWN)
    return EventQuery(
        cvms=CVM.read(query),
        types=TYPE.read(query),
        snapshots=SNAPSHOT.read(query),
        since=SINCE.read(query),
        last_event_id=LAST_EVENT_ID.read(query),
        limit=LIMIT.read(query),
        after=AFTER.read(query),
    )


_remembered = lru_cache(SHARED_QUERIES)(_event_query)


def cursor(request: Request, query: EventQuery) -> str | None:
    """`Last-Event-ID`, else `last_event_id=`. A malformed cursor is no error: its answer is a reset."""
    return request.headers.get("last-event-id") or query.last_event_id or None
