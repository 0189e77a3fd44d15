"""Parameters of the routes: each declared once, with the bounds that the document shows and the parser applies.

Beside them, the whole query of the event routes. Each error names its parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request

from bridge.events import ANY_PHALA, LOG_TYPES, MAX_ID_LENGTH, PHALA_TYPE, is_log_type
from bridge.reference_sets import Kind, Reference, parse
from bridge.web.http.event_filter import EventFilter
from bridge.web.http.problems import check_names, invalid

T = TypeVar("T")
Json = dict[str, Any]

TEXT: Json = {"type": "string"}

MOST_LIMIT = 1000
DEFAULT_LIMIT = 100

# Stricter than fromisoformat, which finds a year 1710 in Unix milliseconds. Without a zone: UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[-+ ]\d\d:\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOST_FILTERS = 1000
"""CVMs named by one subscription; a subscriber that wants more subscribes to all."""

MOST_PATTERNS = 100
"""Patterns among them: each is compared with each name."""

SHARED_QUERIES = 64
SHARED_QUERY_BYTES = 512
"""Parsed queries that are kept, and the longest one: ten thousand clients that reconnect send the same few."""

LOG_TYPE_NAMES = f"one of {', '.join((*LOG_TYPES, ANY_PHALA))}, or a type phala.<event>"
LOG_TYPE: Json = {"anyOf": [{**TEXT, "enum": list(LOG_TYPES)}, {**TEXT, "pattern": f"^{PHALA_TYPE}$"}]}
"""What filters take: a type of the log, `phala.*` for all of Phala Cloud's own webhooks among them."""

REFERENCE: Json = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
EXAMPLE_ID = "1795536119319-0"


def last(values: list[str]) -> str:
    """The last of a repeated parameter; empty if it is absent."""
    return values[-1] if values else ""


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """`parse` takes the query's values of this name, in order, and raises ProblemError 422."""

    name: str
    description: str
    parse: Callable[[list[str]], T]
    schema: Json = field(default_factory=lambda: TEXT)
    _: KW_ONLY
    where: Literal["query", "path", "header"] = "query"
    required: bool = False
    example: str | None = None
    is_reference: bool = False
    shared_as: str = ""
    """Its name among the document's parameters, if another one has the same `name`."""

    def read(self, query: QueryParams) -> T:
        """Raises ProblemError 422."""
        return self.parse(query.getlist(self.name))


def in_path(name: str, description: str, example: str, schema: Json = TEXT, **more: Any) -> Parameter[str]:
    return Parameter(name, description, last, schema, where="path", required=True, example=example, **more)


def in_header(name: str, description: str, **more: Any) -> Parameter[str]:
    return Parameter(name, description, last, where="header", **more)


def chosen(name: str, description: str, choices: tuple[T, ...]) -> Parameter[T | None]:
    """One of `choices`, which are texts; None if it is absent."""

    def parse(values: list[str]) -> T | None:
        for choice in choices:
            if values and values[-1] == choice:
                return choice
        if values:
            raise invalid(name, f"one of {', '.join(map(str, choices))}")
        return None

    return Parameter(name, description, parse, {**TEXT, "enum": list(choices)})


def _limit(values: list[str]) -> int:
    text = values[-1] if values else str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LIMIT and len(text) < 9):
        raise invalid("limit", f"a whole number from 1 to {MOST_LIMIT}")
    return int(text)


LIMIT = Parameter(
    "limit",
    "The largest number of items in a page",
    _limit,
    {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT},
)
READY = chosen("ready", "Only CVMs that are ready (`true`), or that are not (`false`)", ("true", "false"))
AFTER = Parameter("after", "`next` of the page before", last)


# The event routes


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


def reference(field: str, text: str) -> Reference:
    """Raises ProblemError 422 for `field`."""
    try:
        return parse(text)
    except ValueError as error:
        raise invalid(field, str(error)) from None


def check_patterns(references: Iterable[Reference]) -> None:
    """Raises ValueError with words that complete an error line."""
    if sum(each.kind is Kind.NAME for each in references) > MOST_PATTERNS:
        raise ValueError(f"at most {MOST_PATTERNS} patterns of names")


def _references(wanted: list[str]) -> tuple[Reference, ...]:
    if len(wanted) > MOST_FILTERS:
        raise invalid("cvm", f"at most {MOST_FILTERS} of them")
    found = tuple(dict.fromkeys(reference("cvm", each) for each in wanted))
    try:
        check_patterns(found)
    except ValueError as error:
        raise invalid("cvm", str(error)) from None
    return found


def _types(wanted: list[str]) -> frozenset[str] | None:
    for kind in wanted:
        if not is_log_type(kind):
            raise invalid("type", LOG_TYPE_NAMES)
    return frozenset(wanted) or None


def _snapshots(values: list[str]) -> bool:
    if values and values[-1] not in ("0", "1"):
        raise invalid("snapshot", "0 or 1")
    return not values or values[-1] == "1"


def _several(item: Json) -> Json:
    return {"type": "array", "items": item, "maxItems": MOST_FILTERS}


CVM = Parameter(
    "cvm",
    "Only these CVMs; may be repeated: an id, a name, `app_…` (all CVMs of that app), `name:web-*` (a pattern of names "
    "with `*` and `?`), `*`. CVMs of an app or a pattern come and go meanwhile. Each is watched from then on",
    _references,
    _several(REFERENCE),
    is_reference=True,
)
CVMS_NAMED = Parameter(
    "cvm",
    "Only these of the watched CVMs; may be repeated: an id, a name, `app_…`, `name:web-*`, `*`",
    _references,
    _several(REFERENCE),
    is_reference=True,
    shared_as="listed_cvm",
)
TYPE = Parameter(
    "type",
    "Only these types; may be repeated. Without it all but `endpoint.*` and `delivery.given_up`. Snapshots and resets "
    "come regardless",
    _types,
    _several(LOG_TYPE),
)
LAST_EVENT_ID_HEADER = in_header(
    "Last-Event-ID",
    "Continue after this event without losing one. A browser's EventSource sends it by itself",
    example=EXAMPLE_ID,
    shared_as="last_event_id_header",
)
LAST_EVENT_ID = Parameter("last_event_id", "The same, for clients that cannot send the header", last)


def time_parameter(name: str, description: str, **more: Any) -> Parameter[int | None]:
    """Unix milliseconds, or None if it is absent."""

    def parse(values: list[str]) -> int | None:
        return moment(name, values[-1]) if values else None

    schema = {**TEXT, "format": "date-time"}
    return Parameter(name, description, parse, schema, example="2026-11-24T16:00:00Z", **more)


SINCE = time_parameter("since", "All events since this time")
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

    cvms: tuple[Reference, ...]
    filter: EventFilter
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
        filter=EventFilter(types=TYPE.read(query)),
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
