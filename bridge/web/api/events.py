"""The routes of `/v1` (contract section 6)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.config import Settings
from bridge.events import Event, dumps, entry_key
from bridge.store.errors import StoreError
from bridge.store.log import Log
from bridge.store.watches import Watches
from bridge.web.api.cvms import Cvms
from bridge.web.api.references import References, UpstreamRefusalError, refusal_response
from bridge.web.http import queries
from bridge.web.http.access import EXPIRED, Access, Principal
from bridge.web.http.capacity import Capacity
from bridge.web.http.problems import ProblemError, check_query, invalid
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.event_stream import EventStream, Subscription
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.subscriber import Begin

SCAN_PAGES = 20
"""Pages of the log read for one filtered JSON page; the client goes on from `next`."""


def json_response(text: str, status: int = 200) -> Response:
    return Response(text, status, {"Cache-Control": "no-store"}, "application/json")


def not_watched(reference: str) -> ProblemError:
    return ProblemError(404, "not-watched", "This CVM is not watched", detail=f"PUT /v1/cvms/{reference} watches it")


@dataclass(frozen=True, slots=True)
class Api:
    """The `/v1` routes over what the store and the hub know."""

    settings: Settings
    access: Access
    hub: Hub
    capacity: Capacity
    log: Log
    watches: Watches
    cvms: Cvms
    references: References
    single_flight: SingleFlight
    rng: random.Random

    def routes(self) -> list[Route]:
        return [
            Route("/v1/events", EventsEndpoint(self), methods=["GET"]),
            Route("/v1/cvms/{ref}/events", EventsEndpoint(self), methods=["GET"]),
            Route("/v1/cvms", self.list_cvms, methods=["GET"]),
            Route("/v1/cvms/{ref}", self.get_cvm, methods=["GET"]),
            Route("/v1/cvms/{ref}", self.pin, methods=["PUT"]),
            Route("/v1/cvms/{ref}", self.unpin, methods=["DELETE"]),
            Route("/v1/slots", self.slots, methods=["GET"]),
            Route("/v1/stream-tokens", self.stream_token, methods=["POST"]),
        ]

    # Watches

    async def list_cvms(self, request: Request) -> Response:
        principal = self.access.reader(request)
        check_query(request, ("limit", "after"))
        after, size = request.query_params.get("after", ""), queries.limit(request)
        if principal.cvms is None:
            items, following = await self.cvms.page(after, size, led=self.hub.led)
        else:
            ids = sorted(cvm_id for cvm_id in principal.cvms if cvm_id > after)
            found = [await self.cvms.get(cvm_id, led=self.hub.led) for cvm_id in ids[:size]]
            items = [item for item in found if item is not None]
            following = ids[size - 1] if len(ids) > size else None
        return json_response(f'{{"items":[{",".join(items)}],"next":{dumps(following)}}}')

    async def get_cvm(self, request: Request) -> Response:
        principal = self.access.reader(request)
        check_query(request, ())
        cvm_id = await self._resolve(request.path_params["ref"], principal)
        found = await self.cvms.get(cvm_id, led=self.hub.led)
        if found is None:
            raise not_watched(request.path_params["ref"])
        return json_response(found)

    async def pin(self, request: Request) -> Response:
        principal = self.access.admin(request)
        check_query(request, ())
        cvm_id = await self._resolve(request.path_params["ref"], principal)
        added = await self.watches.pin(cvm_id)
        return json_response(await self.cvms.get(cvm_id, led=self.hub.led) or "{}", 201 if added else 200)

    async def unpin(self, request: Request) -> Response:
        principal = self.access.admin(request)
        check_query(request, ())
        reference = request.path_params["ref"]
        cvm_id = await self._resolve(reference, principal)
        watch = await self.watches.get(cvm_id)
        if watch is None:
            raise not_watched(reference)
        if watch.pinned_by_config:
            raise ProblemError(409, "pinned-by-config", "BRIDGE_CVMS pins this CVM", detail="take it out there")
        await self.watches.unpin(cvm_id)
        return Response(None, 204, {"Cache-Control": "no-store"})

    async def _resolve(self, reference: str, principal: Principal) -> str:
        # A herd that asks for one CVM costs one question.
        cvm_id = await self.single_flight.ask(("reference", reference), lambda: self.references.resolve(reference))
        if not principal.may_see(cvm_id):
            raise ProblemError(403, "forbidden", "This token may not see this CVM")
        return cvm_id

    async def slots(self, request: Request) -> Response:
        principal = self.access.reader(request)
        check_query(request, ())
        if principal.cvms is not None:
            raise ProblemError(403, "forbidden", "This token sees some CVMs only, the slots tell of all")
        return json_response(dumps(await self.cvms.slots(led=self.hub.led)))

    async def stream_token(self, request: Request) -> Response:
        principal = self.access.holder(request)
        check_query(request, ())
        token, seconds = self.access.stream_token(principal)
        return json_response(dumps({"access_token": token, "expires_in": seconds}), 201)

    # Events

    async def scope_of(
        self, request: Request, query: queries.EventQuery, principal: Principal
    ) -> frozenset[str] | None:
        """Canonical ids that the request asks for and the token allows; None: all."""
        wanted = query.cvms
        if "ref" in request.path_params:
            if wanted:
                raise invalid("cvm", "the path names the CVM already")
            wanted = (request.path_params["ref"],)
        if not wanted:
            return principal.cvms
        found = [asyncio.ensure_future(self._resolve(reference, principal)) for reference in wanted]
        try:
            return frozenset(await asyncio.gather(*found))
        finally:
            for resolving in found:
                resolving.cancel()

    async def page(self, request: Request, query: queries.EventQuery, scope: frozenset[str] | None) -> Response:
        """One page of the log as JSON, oldest first; `next` continues it."""
        size, kinds = query.limit, query.types
        after = await self._page_start(query.after or queries.cursor(request, query), query.since)
        items: list[Event] = []
        more = True
        for _ in range(SCAN_PAGES):
            events = await self.log.read(after, queries.MOST_LIMIT)
            more = len(events) == queries.MOST_LIMIT
            for event in events:
                after = event.id
                if (scope is None or event.cvm_id in scope) and (kinds is None or event.type in kinds):
                    items.append(event)
                if len(items) == size:
                    more = more or event is not events[-1]
                    break
            if len(items) == size or not more:
                break
        bodies = ",".join(event.json for event in items)
        return json_response(f'{{"items":[{bodies}],"next":{dumps(after if more else None)}}}')

    async def _page_start(self, after: str | None, since: int | None) -> str:
        position = await self.log.position()
        low_water_mark = position.low_water_mark if position else "0-0"
        if after is None:
            return low_water_mark if since is None else f"{max(since - 1, 0)}-{2**64 - 1}"
        try:
            lost = entry_key(after) < entry_key(low_water_mark)
        except ValueError as error:
            raise invalid("after", "an event's id") from error
        if lost:
            raise ProblemError(410, "history-lost", "The log no longer has what follows this cursor", field="after")
        return after


class EventsEndpoint:
    """SSE, or one page of JSON, by `Accept`. A plain ASGI callable: the stream needs the connection itself."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except (ProblemError, StoreError) as error:
            if not (_is_passing(error) and _is_browser(request)):
                raise
            response = _come_back(error)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> ASGIApp:
        api = self._api
        principal = api.access.reader(request)
        query = queries.event_query(request.scope["query_string"])
        try:
            wanted = await api.scope_of(request, query, principal)
        except UpstreamRefusalError as error:
            return refusal_response(error)
        if _prefers_json(request):
            return await api.page(request, query, wanted)
        named = wanted is not None and wanted is not principal.cvms
        begin: Begin = queries.cursor(request, query) or query.since
        subscription = Subscription(principal.name, wanted, query.types, query.snapshots, begin, named)
        if wanted is not None and named and request.method == "GET":
            api.capacity.check(principal.name)
            await api.single_flight.ask(("renew", wanted), lambda: api.watches.renew(wanted))
        # Asked last: many may have waited above at the same time.
        api.capacity.take(principal.name)
        return EventStream(api.hub, api.capacity, subscription, settings=api.settings, rng=api.rng)


def _prefers_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


def _is_passing(error: ProblemError | StoreError) -> bool:
    """A page whose token ran out while it was away hears so, fetches another and comes back."""
    return isinstance(error, StoreError) or error.status in (429, 503) or error.slug == EXPIRED


def _is_browser(request: Request) -> bool:
    return "sec-fetch-mode" in request.headers or "origin" in request.headers


def _come_back(error: ProblemError | StoreError) -> Response:
    """For passing trouble only: a browser's EventSource gives up for good at any status but 200."""
    name, detail = "unavailable", "Redis cannot be used just now"
    if isinstance(error, ProblemError):
        name, detail = error.slug, str(error.body.get("detail", error.body["title"]))
    body = f"retry: 10000\nevent: {name}\ndata: {dumps({'detail': detail})}\n\n"
    return Response(body, 200, {"Cache-Control": "no-store"}, "text/event-stream")


async def on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, UpstreamRefusalError)
    return refusal_response(error)
