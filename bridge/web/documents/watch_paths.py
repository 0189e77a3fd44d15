"""The operations of events, CVMs and slots (contract section 6)."""

from __future__ import annotations

from bridge.web.api import samples
from bridge.web.documents.operations import CVMS, EVENTS, LOOKED_UP, looked_up, operation
from bridge.web.documents.parts import EMPTY, READ, TOKEN, answer, refusals
from bridge.web.documents.schemas import Json, ref

# Events

STREAM_SAYS = """Server-sent events; with `Accept: application/json`, one page of the log instead.

Without a cursor the stream begins with a `snapshot` of each watched CVM in scope, with one it begins with what was \
missed; then come the changes as they happen, and a comment every few seconds. Whoever reconnects with the last `id:` \
it saw gets every event once, in order. A cursor that the log cannot honour gets one `reset` and then snapshots.

`position` is a cursor without news. A front end that is full or without Redis answers 503; a browser, whose \
EventSource would give up for good, gets an `overloaded` or `unavailable` event with a `retry:`."""


def _stream_answer(source: str) -> Json:
    texts = {name: {"summary": says, "value": text} for name, (says, text) in samples.streams(source).items()}
    page = {"items": [samples.transition(source)], "next": None}
    return {
        "description": "The stream, or a page of the log",
        "headers": {
            "Cache-Control": {"schema": {"type": "string", "const": "no-store"}},
            "X-Accel-Buffering": {"description": "Of the stream", "schema": {"type": "string", "const": "no"}},
        },
        "content": {
            "text/event-stream": {"schema": {"type": "string"}, "examples": texts},
            "application/json": {"schema": ref("EventPage"), "example": page},
        },
    }


def events(source: str) -> Json:
    ways = ("type", "last_event_id_header", "last_event_id", "since", "snapshot", "limit", "after")
    slugs = ("history-lost", "too-many-streams", "overloaded")
    answers = {"200": _stream_answer(source), **looked_up(*slugs)}
    one = "As `GET /v1/events` for one CVM. It is watched from here on, for as long as somebody subscribes."
    return {
        "/v1/events": {
            "get": operation(
                EVENTS,
                "streamEvents",
                "Follow all CVMs, or some",
                answers,
                says=STREAM_SAYS,
                takes=("cvm", *ways),
                security=READ,
            )
        },
        "/v1/cvms/{ref}/events": {
            "get": operation(
                EVENTS, "streamCvmEvents", "Follow one CVM", answers, says=one, takes=("ref", *ways), security=READ
            )
        },
        "/v1/stream-tokens": {
            "post": operation(
                EVENTS,
                "makeStreamToken",
                "A token for a browser's EventSource",
                {"201": answer("Good for 60 seconds", "StreamToken"), **refusals("unauthorized", "invalid")},
                says="A browser cannot send headers with an EventSource: it passes this as `?access_token=`. It reads "
                "what the token reads that it was made with, and opens connections; one that is open lives on.",
                security=TOKEN,
            )
        },
    }


# CVMs and slots


def cvms() -> Json:
    return {
        "/v1/cvms": {"get": _list()},
        "/v1/cvms/{ref}": {"get": _get(), "put": _pin(), "delete": _unpin()},
        "/v1/slots": {"get": _slots()},
    }


def _list() -> Json:
    answers = {"200": answer("A page", "CvmPage"), **refusals("unauthorized", "invalid", "unavailable")}
    return operation(CVMS, "listCvms", "Watched CVMs", answers, takes=("limit", "after"), security=READ)


def _get() -> Json:
    answers = {"200": answer("The CVM", "Cvm"), **looked_up("not-watched")}
    return operation(CVMS, "getCvm", "One watched CVM", answers, takes=("ref",), security=READ)


def _pin() -> Json:
    answers = {"200": answer("It was pinned already", "Cvm"), "201": answer("It is pinned", "Cvm"), **looked_up()}
    says = "Whether or not anybody subscribes to it. Needs the scope `admin`."
    return operation(CVMS, "pinCvm", "Watch a CVM", answers, says=says, takes=("ref",), security=TOKEN)


def _unpin() -> Json:
    answers = {"204": EMPTY, **looked_up("not-watched", "pinned-by-config")}
    says = "It is followed for as long as somebody subscribes to it. Needs the scope `admin`."
    return operation(CVMS, "unpinCvm", "Watch it no longer", answers, says=says, takes=("ref",), security=TOKEN)


def _slots() -> Json:
    answers = {"200": answer("All of them", "Slots"), **refusals(*LOOKED_UP)}
    says = "Who holds each of the streams that the account may have open, and why the other CVMs are polled."
    return operation(CVMS, "listSlots", "The upstream streams", answers, says=says, security=READ)
