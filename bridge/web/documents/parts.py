"""What OpenAPI operations are made of: parameters, bodies and answers, each in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from bridge.events import LOG_TYPES
from bridge.phala_queries import DEFAULT_INTERVAL, DEFAULT_TIMEOUT
from bridge.store.deliveries import STATUSES
from bridge.store.endpoints import ID_PATTERN
from bridge.web.api.envelopes import CVM_ID, ENTRY_ID
from bridge.web.documents.problems import PREFIX, PROBLEMS
from bridge.web.documents.schemas import Json, ref
from bridge.web.http.queries import MOST_FILTERS, MOST_LIMIT

PROBLEM = "application/problem+json"

READ: list[Json] = [{"bearer": []}, {"apiKey": []}, {"streamToken": []}]
"""What reads: a token, or a stream token in the query."""

TOKEN: list[Json] = [{"bearer": []}, {"apiKey": []}]

REFERENCE = {"type": "string", "minLength": 1, "maxLength": 256}
TIME = {"type": "string", "format": "date-time"}


def _query(name: str, description: str, schema: Json, **more: Any) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


def _path(name: str, description: str, schema: Json, example: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def _several(item: Json) -> Json:
    return {"schema": {"type": "array", "items": item, "maxItems": MOST_FILTERS}, "style": "form", "explode": True}


PARAMETERS: Mapping[str, Json] = {
    "ref": _path("ref", "An id or a name: whatever Phala Cloud takes for a CVM", REFERENCE, CVM_ID),
    "endpoint_id": _path(
        "id", "The endpoint's id", {"type": "string", "pattern": ID_PATTERN}, "wh_19b1f3c0a5d2b8e7c1a94f"
    ),
    "delivery_id": _path("id", "The delivery's id", {"type": "string"}, f"wh_19b1f3c0a5d2b8e7c1a94f-{ENTRY_ID}"),
    "limit": _query(
        "limit", "The most of a page", {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": 100}
    ),
    "after": _query("after", "`next` of the page before", {"type": "string"}),
    "cvm": {
        "name": "cvm",
        "in": "query",
        "description": "Only these CVMs, by id or name; may be repeated. Each is watched from here on",
        **_several(REFERENCE),
    },
    "type": {
        "name": "type",
        "in": "query",
        "description": "Only these types; may be repeated. Snapshots and resets come regardless",
        **_several({"type": "string", "enum": list(LOG_TYPES)}),
    },
    "last_event_id_header": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Go on after this event, losing none. A browser's EventSource sends it by itself",
        "schema": {"type": "string"},
        "example": ENTRY_ID,
    },
    "last_event_id": _query("last_event_id", "The same, where no header can be sent", {"type": "string"}),
    "since": _query("since", "Everything since this time", TIME, example="2026-11-24T16:00:00Z"),
    "snapshot": _query(
        "snapshot",
        "`0`: no snapshots at the beginning, only the position",
        {"type": "string", "enum": ["0", "1"], "default": "1"},
    ),
    "status": _query("status", "Only deliveries in this state", {"type": "string", "enum": list(STATUSES)}),
    "target": _query(
        "target", "Wait, over SSE, until the CVM has this status; without it, the state now", {"type": "string"}
    ),
    "interval": _query(
        "interval",
        "Seconds between two `state` events",
        {"type": "integer", "minimum": 5, "maximum": 30, "default": DEFAULT_INTERVAL},
    ),
    "timeout": _query(
        "timeout",
        "Seconds after which the stream ends",
        {"type": "integer", "minimum": 10, "maximum": 600, "default": DEFAULT_TIMEOUT},
    ),
}


def parameters(names: Iterable[str]) -> list[Json]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def json_body(name: str, *, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": ref(name)}}}


def answer(description: str, name: str, example: object = None, **more: Any) -> Json:
    """JSON of this schema."""
    content: Json = {"schema": ref(name)}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}, **more}


EMPTY: Json = {"description": "Done; there is no body"}

LOCATION = {"headers": {"Location": {"description": "Where it is to be found", "schema": {"type": "string"}}}}

RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}


def refusals(*slugs: str) -> Json:
    """Answers by status, each with the problems that it may be."""
    ordered = sorted(slugs, key=lambda slug: PROBLEMS[slug].status)
    found = {}
    for status, group in groupby(ordered, key=lambda slug: PROBLEMS[slug].status):
        found[str(status)] = _refusal(status, list(group))
    found["default"] = {"$ref": "#/components/responses/Problem"}
    return found


def _refusal(status: int, slugs: list[str]) -> Json:
    examples = {slug: {"$ref": f"#/components/examples/{slug}"} for slug in slugs}
    made: Json = {
        "description": ". ".join(PROBLEMS[slug].when for slug in slugs),
        "content": {PROBLEM: {"schema": ref("Problem"), "examples": examples}},
    }
    return {**made, "headers": RETRY_AFTER} if status in (429, 503) else made


def problem_examples() -> Json:
    """One of each kind, by slug."""
    return {
        slug: {"summary": known.when, "value": _example(slug, known.status or 503)} for slug, known in PROBLEMS.items()
    }


def _example(slug: str, status: int) -> Json:
    made: Json = {"type": PREFIX + slug, "title": PROBLEMS[slug].when.replace("`", ""), "status": status}
    if slug == "invalid":
        detail = "a whole number from 1 to 1000"
        made |= {"title": "limit is not valid", "detail": detail, "errors": [{"field": "limit", "detail": detail}]}
    return made
