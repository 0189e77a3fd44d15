"""What the event routes' queries mean; each error names its field."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from bridge.events import LOG_TYPES
from bridge.web.problems import invalid

# Stricter than fromisoformat, which finds a year 1710 in Unix milliseconds. Without a zone: UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[-+ ]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOST_LIMIT = 1000
MOST_FILTERS = 1000
"""CVMs named by one subscription; more is a subscription to all."""


def limit(request: Request) -> int:
    text = request.query_params.get("limit", "100")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise invalid("limit", f"a whole number from 1 to {MOST_LIMIT}")
    return int(text)


def types(request: Request) -> frozenset[str] | None:
    wanted = request.query_params.getlist("type")
    for kind in wanted:
        if kind not in LOG_TYPES:
            raise invalid("type", f"one of {', '.join(LOG_TYPES)}")
    return frozenset(wanted) or None


def references(request: Request) -> list[str]:
    wanted = request.query_params.getlist("cvm")
    if len(wanted) > MOST_FILTERS:
        raise invalid("cvm", f"at most {MOST_FILTERS} of them")
    return wanted


def snapshots(request: Request) -> bool:
    text = request.query_params.get("snapshot", "1")
    if text not in ("0", "1"):
        raise invalid("snapshot", "0 or 1")
    return text == "1"


def since(request: Request) -> int | None:
    """Unix milliseconds of `since=`, an RFC 3339 time."""
    text = request.query_params.get("since")
    return None if text is None else moment("since", text)


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


def cursor(request: Request) -> str | None:
    """`Last-Event-ID`, else `last_event_id=`; never an error: a bad one is answered with a reset."""
    return request.headers.get("last-event-id") or request.query_params.get("last_event_id") or None
