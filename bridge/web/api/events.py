"""The event routes: SSE streams and their tokens, and pages of the log (`docs/contract.md#the-sse-stream`)."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.config import Settings
from bridge.cvm_scope import CvmScope
from bridge.events import Event, dumps
from bridge.store.errors import StoreError
from bridge.store.watches import Watches
from bridge.web.api import answers, samples
from bridge.web.api.log_pages import LogPages
from bridge.web.api.references import (
    LAST_KNOWN_HEADER,
    REF_OR_SET,
    Found,
    ReferenceRefusedError,
    References,
    problem_of,
    scope_of,
)
from bridge.web.http.access import STREAM_TOKEN_SECONDS, Access, Principal
from bridge.web.http.capacity import Capacity
from bridge.web.http.operations import EVENTS, Answer, Call, Content, Operation, json_answer, routes
from bridge.web.http.parameters import CVM, STREAM_PARAMETERS, EventQuery, cursor, event_query, reference
from bridge.web.http.problems import COME_BACK, ProblemError, ProblemType, invalid, no_redis
from bridge.web.http.responses import NO_STORE, json_response, page_response
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.event_stream import EventStream
from bridge.web.streaming.frames import block, retry_line
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.subscriber import Begin, Subscriber

logger = logging.getLogger(__name__)

COME_BACK_MS = 10_000
"""A client waits this long after a passing problem, give or take a half: those that were refused together must not
return together."""

DESCRIPTION = """Server-sent events; with `Accept: application/json`, one page of the log instead.

Without a cursor the stream begins with a `snapshot` of each watched CVM in scope, with a cursor it begins with the \
missed events. Changes follow as they happen, and a comment every few seconds. A client that reconnects with the last \
`id:` it saw gets every event once, in order. A cursor that the log cannot honour gets one `reset` and then snapshots.

`position` is a cursor without news. A front end that is full or without Redis answers 200 with an event named after \
the problem and a `retry:`, because a browser's EventSource gives up for good at any other status; \
`Accept: text/event-stream;status=1` gets a 503 instead."""

ANSWER = Answer(
    "The stream, or a page of the log",
    {
        "text/event-stream": Content(examples=samples.streams),
        "application/json": Content(
            schema=answers.EventPage, example=lambda source: {"items": [samples.transition(source)], "next": None}
        ),
    },
    {
        "Cache-Control": {"schema": {"type": "string", "const": "no-store"}},
        "X-Accel-Buffering": {"description": "Of the stream", "schema": {"type": "string", "const": "no"}},
        **LAST_KNOWN_HEADER,
    },
)
REFUSALS = (ProblemType.HISTORY_LOST, ProblemType.UNKNOWN_CURSOR, ProblemType.TOO_MANY_STREAMS, ProblemType.OVERLOADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRoutes:
    """Both event routes are this one ASGI callable, because a stream needs the connection itself."""

    stream = Operation(
        "GET /v1/events",
        EVENTS,
        {200: ANSWER},
        id="streamEvents",
        summary="Follow all CVMs, or some",
        description=DESCRIPTION,
        scope="read",
        parameters=(CVM, *STREAM_PARAMETERS),
        refusals=REFUSALS,
    )
    stream_cvm = Operation(
        "GET /v1/cvms/{ref}/events",
        EVENTS,
        {200: ANSWER},
        id="streamCvmEvents",
        summary="Follow one CVM, or the CVMs of one reference",
        description="As `GET /v1/events` for one CVM, which is watched from then on, as long as it has subscribers. "
        "`app_…` and `name:…` stand for all of their CVMs, which come and go meanwhile.",
        scope="read",
        parameters=(REF_OR_SET, *STREAM_PARAMETERS),
        refusals=REFUSALS,
    )

    settings: Settings
    access: Access
    hub: Hub
    capacity: Capacity
    pages: LogPages
    watches: Watches
    references: References
    single_flight: SingleFlight
    rng: random.Random

    def routes(self) -> list[Route]:
        streams = [Route(each.path, self, methods=[each.method]) for each in (self.stream, self.stream_cvm)]
        return [*streams, *routes(self, self.access)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except (ProblemError, StoreError, ReferenceRefusedError) as error:
            final = isinstance(error, ReferenceRefusedError) and error.answer.is_final
            problem = _problem_of(error)
            if final or problem.type not in COME_BACK or not _takes_events_only(request):
                raise
            response = self._come_back(problem)
        except Exception:
            if not _takes_events_only(request):
                raise
            logger.exception("a stream could not begin because of a fault in the bridge")
            response = self._come_back(ProblemError(ProblemType.INTERNAL, "the bridge's log has the reason"))
        await response(scope, receive, send)

    def _come_back(self, problem: ProblemError) -> Response:
        """A passing problem as an event, and when to come back."""
        wait = retry_line(self.rng.randint(COME_BACK_MS // 2, COME_BACK_MS * 3 // 2))
        detail = dumps({"detail": problem.detail or problem.title})
        return Response(wait + block(problem.type.slug, detail), 200, NO_STORE, "text/event-stream")

    async def _respond(self, request: Request) -> ASGIApp:
        """SSE, or one page of JSON, by `Accept`."""
        principal = self.access.reader(request)
        query = event_query(request.scope["query_string"])
        found = await self._named(request, query, principal)
        scope = scope_of(found, principal)
        headers = found.headers if found else {}
        if _prefers_json(request):
            return await self._page(request, query, scope, headers)
        begin: Begin = cursor(request, query) or query.since
        subscribe = partial(
            Subscriber,
            scope=scope,
            filter=query.filter,
            snapshots=query.snapshots,
            token=principal.name,
            credential=principal.credential,
        )
        if (wanted := scope.demands.cvm_ids) and request.method == "GET":
            self.capacity.check(principal.name)
            await self.single_flight.ask(("renew", wanted), lambda: self.watches.renew(wanted))
        self.hub.check_patterns(scope)
        # Checked again and taken here, because other requests may have been served while this one waited above.
        self.capacity.take(principal.name)
        return EventStream(self.hub, self.capacity, subscribe, begin, principal.name, self.settings, self.rng, headers)

    async def _named(self, request: Request, query: EventQuery, principal: Principal) -> Found | None:
        """The CVMs that the request names; None: none in particular. Raises as `References.find`."""
        wanted = query.cvms
        if "ref" in request.path_params:
            if wanted:
                raise invalid("cvm", "the path names the CVM already")
            wanted = (reference("ref", request.path_params["ref"]),)
        return await self.references.find_all(wanted, principal) if wanted else None

    async def _page(self, request: Request, query: EventQuery, scope: CvmScope, headers: Mapping[str, str]) -> Response:
        """One page of the log as JSON, oldest first. Raises ProblemError (410, 503) or StoreError."""
        by_cursor = query.after or cursor(request, query)
        named = "after" if query.after else "last_event_id" if by_cursor else "since"

        def wants(event: Event) -> bool:
            return scope.has(event) and query.filter.lets_through(event)

        items, following = await self.pages.read(by_cursor or query.since, wants, query.limit, named=named)
        return page_response(items, following, headers)

    @Operation(
        "POST /v1/stream-tokens",
        EVENTS,
        {201: json_answer(f"Valid for {STREAM_TOKEN_SECONDS} seconds", answers.StreamToken)},
        scope="token",
        uses_redis=False,
    )
    async def make_stream_token(self, call: Call) -> Response:
        """A token for a browser's EventSource.

        A browser cannot send headers with an EventSource: it passes this token as `?access_token=`. The token reads
        what its maker may read, and opens connections, which may outlive it.
        """
        token, seconds = self.access.stream_token(call.principal)
        return json_response(answers.StreamToken(access_token=token, expires_in=seconds), 201)


def _prefers_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


def _takes_events_only(request: Request) -> bool:
    """A client that asks for `text/event-stream` may not look at the status; `;status=1` tells that it does."""
    accept = request.headers.get("accept", "")
    return "text/event-stream" in accept and not re.search(r"text/event-stream\s*;\s*status=1", accept)


def _problem_of(error: ProblemError | StoreError | ReferenceRefusedError) -> ProblemError:
    if isinstance(error, ReferenceRefusedError):
        return problem_of(error)
    return error if isinstance(error, ProblemError) else no_redis()
