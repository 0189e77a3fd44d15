"""What the event routes' queries mean; each error names its field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from starlette.datastructures import QueryParams
from starlette.requests import Request

from bridge.events import LOG_TYPES
from bridge.web.http.problems import check_names, invalid

# Stricter than fromisoformat, which finds a year 1710 in Unix milliseconds. Without a zone: UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[-+ ]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOST_LIMIT = 1000
MOST_FILTERS = 1000
"""CVMs named by one subscription; more is a subscription to all."""

HERD_QUERIES = 64
HERD_QUERY_BYTES = 512
"""Queries that are remembered, and the longest one: a herd asks the same ten thousand times."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What the query of an event route asks for. Times are Unix milliseconds."""

    cvms: tuple[str, ...]
    types: frozenset[str] | None
    snapshots: bool
    since: int | None
    last_event_id: str | None
    limit: int
    after: str | None


def event_query(raw: bytes) -> EventQuery:
    """Raises ProblemError 422, also for a parameter that there is not."""
    return _remembered(raw) if len(raw) <= HERD_QUERY_BYTES else _event_query(raw)


def _event_query(raw: bytes) -> EventQuery:
    query = QueryParams(raw)
    check_names(query, ("cvm", "type", "last_event_id", "since", "snapshot", "limit", "after"))
    since = query.get("since")
    return EventQuery(
        _references(query),
        _types(query),
        _snapshots(query),
        None if since is None else moment("since", since),
        query.get("last_event_id") or None,
        _limit(query),
        query.get("after") or None,
    )


_remembered = lru_cache(HERD_QUERIES)(_event_query)


def limit(request: Request) -> int:
    return _limit(request.query_params)


def _limit(query: QueryParams) -> int:
    text = query.get("limit", "100")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise invalid("limit", f"a whole number from 1 to {MOST_LIMIT}")
    return int(text)


def _types(query: QueryParams) -> frozenset[str] | None:
    wanted = query.getlist("type")
    for kind in wanted:
        if kind not in LOG_TYPES:
            raise invalid("type", f"one of {', '.join(LOG_TYPES)}")
    return frozenset(wanted) or None


def _references(query: QueryParams) -> tuple[str, ...]:
    wanted = query.getlist("cvm")
    if len(wanted) > MOST_FILTERS:
        raise invalid("cvm", f"at most {MOST_FILTERS} of them")
    return tuple(dict.fromkeys(wanted))


def _snapshots(query: QueryParams) -> bool:
    text = query.get("snapshot", "1")
    if text not in ("0", "1"):
        raise invalid("snapshot", "0 or 1")
    return text == "1"


def moment(field: str, text: str) -> int:
    """Unix milliseconds of an RFC 3339 time."""
    # A plus sign in a query that was not escaped arrives as a space.
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        found = datetime.fromisoformat(f"{match[1]}T{match[2]}{(match[3] or 'Z').replace(' ', '+')}".upper())
        return max(0, (found - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, OverflowError) as error:
        raise invalid(field, "an RFC 3339 time, such as 2026-11-24T16:00:00Z") from error


def cursor(request: Request, query: EventQuery) -> str | None:
    """`Last-Event-ID`, else `last_event_id=`; never an error: a bad one is answered with a reset."""
    return request.headers.get("last-event-id") or query.last_event_id
