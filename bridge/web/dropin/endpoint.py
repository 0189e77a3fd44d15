"""`GET /api/v1/cvms/{ref}/state` as upstream serves it (`docs/contract.md#the-drop-in`), and the rest of `/api/v1/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.clock import Clock
from bridge.config import Settings
from bridge.events import usable_id
from bridge.phala_queries import UnprocessableError, pace
from bridge.reference_sets import ReferenceSet
from bridge.store.errors import StoreError
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watches
from bridge.web.api.references import Found, ReferenceRefusedError, References
from bridge.web.dropin import wire
from bridge.web.dropin.last_state import LastState
from bridge.web.dropin.operation import STATE_ROUTE
from bridge.web.dropin.passthrough import Passthrough
from bridge.web.dropin.state_reader import StateReader
from bridge.web.dropin.watchers import Watcher, Watchers
from bridge.web.http.access import Access, Principal
from bridge.web.http.capacity import Capacity
from bridge.web.http.problems import ProblemError
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.sse_response import HEADERS, SseResponse, with_headers

RETRY = {"Retry-After": "5"}
"""Seconds. A leader reads again every few seconds, and a standby takes over within ten."""

STREAM_HEADERS = [*HEADERS, (b"connection", b"close")]
"""The connection ends with the stream, so a client must not keep it for its next request."""


COVERS = (
    "This is a bridge. Of Phala Cloud's API it serves GET /api/v1/cvms/{cvm_id}/state only; for other routes use "
    "Phala Cloud itself, or set BRIDGE_PASSTHROUGH=on and bring a Phala key of your own"
)


@dataclass(eq=False, kw_only=True, slots=True)
class DropIn:
    """Both modes of the route. A plain ASGI callable, because the stream needs the connection itself.

    `run` keeps the timer, and `drain` ends the open streams.
    """

    settings: Settings
    clock: Clock
    hub: Hub
    access: Access
    capacity: Capacity
    snapshots: Snapshots
    watches: Watches
    lookups: ReferenceLookups
    references: References
    single_flight: SingleFlight
    states: StateReader = field(init=False)
    watchers: Watchers = field(init=False)
    passthrough: Passthrough | None = None

    operation = STATE_ROUTE

    def __post_init__(self) -> None:
        hub, buffer = self.hub, self.settings.subscriber_buffer
        self.states = StateReader(self.snapshots)
        self.watchers = Watchers(self.snapshots, hub.demand, self.clock, led=lambda: hub.led, buffer=buffer)
        for part in (self.states, self.watchers):
            hub.listeners.append(part.on_event)
            hub.on_reset.append(part.on_reset)
        if self.settings.passthrough:
            self.passthrough = Passthrough(self.settings.api_prefix, self.access, self.clock)

    def routes(self) -> list[Route]:
        """For all methods, because the refusal of a method has upstream's shape too."""
        return [Route(STATE_ROUTE.path, self), Route("/api/v1/{path:path}", OtherRoutes(self.passthrough))]

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        try:
            await self.watchers.run()
        finally:
            if self.passthrough is not None:
                await self.passthrough.aclose()

    async def drain(self, seconds: float) -> None:
        """Ends the streams over `seconds`, so that their clients ask again."""
        await self.watchers.drain(seconds)

    def close(self) -> None:
        """Ends waiting for first states at once, and relayed requests soon."""
        self.states.close()
        if self.passthrough is not None:
            self.passthrough.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        passthrough = self.passthrough
        key = passthrough.phala_key(request) if passthrough else None
        try:
            if passthrough is not None and key is not None and not self._has_access(request):
                return await self._for_phala_key(passthrough, request, key)
            return await self._for_token(request)
        except UnprocessableError as error:
            return wire.detail(422, error.detail)
        except ReferenceRefusedError as error:
            # The caller's own key may see a CVM that the bridge's key does not.
            return passthrough.relay(request, key) if passthrough and key else _upstream_error(error.answer)
        except ProblemError as error:
            return wire.refused(error, keyed="x-api-key" in request.headers or "authorization" in request.headers)
        except StoreError:
            return wire.detail(503, "The bridge cannot use Redis just now", RETRY)

    def _has_access(self, request: Request) -> bool:
        try:
            self.access.holder(request)
        except ProblemError:
            return False
        return True

    async def _for_token(self, request: Request) -> ASGIApp:
        if request.method != "GET":
            return wire.detail(405, "Method Not Allowed", {"Allow": "GET"})
        principal = self.access.holder(request)
        interval_and_timeout, reference = pace(request.query_params), str(request.path_params["ref"])
        if not _is_reference(reference):
            return wire.not_found(reference)
        return await self._serve(principal, reference, request.query_params.get("target"), interval_and_timeout)

    async def _for_phala_key(self, passthrough: Passthrough, request: Request, key: str) -> ASGIApp:
        """Answers for CVMs that upstream lets this key read, and relays everything else."""
        reference = str(request.path_params["ref"])
        try:
            interval_and_timeout = pace(request.query_params)
        except UnprocessableError:
            return passthrough.relay(request, key)
        if request.method != "GET" or not _is_reference(reference):
            return passthrough.relay(request, key)
        accepted = await passthrough.accept(key, reference)
        if not isinstance(accepted, str):
            return accepted or passthrough.relay(request, key)
        cvm_id = await self.references.resolve(accepted)
        principal = Principal(passthrough.name_of(key), False, ReferenceSet(cvm_ids=frozenset((cvm_id,))))
        return await self._serve(principal, cvm_id, request.query_params.get("target"), interval_and_timeout)

    async def _serve(self, principal: Principal, reference: str, target: str | None, pace: tuple[int, int]) -> ASGIApp:
        """Without `target` the answer is one JSON body; `pace`: interval and timeout, in seconds."""
        if target is None:
            found, snapshot = await self._find(principal, reference)
            answer = await self._immediate(found.cvm_ids[0], snapshot)
            answer.headers.update(found.headers)
            return answer
        self.capacity.check(principal.name)
        if self.watchers.follows(reference):
            await self.references.require(principal, Answer(reference, reference))
            found = Found([reference])
        else:
            found, _ = await self._find(principal, reference)
        return await self._stream(principal, found, target, *pace)

    async def _find(self, principal: Principal, reference: str) -> tuple[Found, Snapshot | None]:
        """Canonical id and snapshot of a CVM that exists as far as is known; it is watched from here on.

        Many callers at once cost Redis as much as one. Raises as `References.find`.
        """
        ask = self.single_flight.ask
        found = await self.references.find([reference], principal)
        cvm_id = found.cvm_ids[0]
        snapshot = await ask(("state", cvm_id), lambda: self._visit(cvm_id))
        if snapshot is None or not LastState.of(snapshot).gone:
            return found, snapshot
        answer = await ask(("gone", reference), lambda: self.references.ask_anew(reference))
        if answer.cvm_id is None:
            raise ReferenceRefusedError(answer)
        # The name belongs to another CVM now, or the CVM is there again.
        await self.references.require(principal, answer)
        if answer.cvm_id == cvm_id:
            await self.lookups.hint(cvm_id)
            return Found([cvm_id]), await self.states.wait(cvm_id, snapshot.event_id)
        return Found([answer.cvm_id]), await self._visit(answer.cvm_id)

    async def _visit(self, cvm_id: str) -> Snapshot | None:
        """The snapshot; makes or renews the watch, unless the CVM is gone."""
        snapshot = await self.states.get(cvm_id)
        if snapshot is None or not LastState.of(snapshot).gone:
            await self.watches.renew([cvm_id])
        return snapshot

    async def _immediate(self, cvm_id: str, snapshot: Snapshot | None) -> Response:
        if snapshot is None or (snapshot.status is None and snapshot.fresh):
            snapshot = await self.single_flight.ask(("first", cvm_id), lambda: self.states.wait(cvm_id))
        state, now = LastState.of(snapshot), self.clock.time()
        stale_reason = state.stale_reason(led=self.hub.led, now=now)
        if stale_reason is not None:
            return wire.detail(503, wire.stale_sentence(stale_reason), RETRY)
        if snapshot.raw_state is None:
            return wire.not_found(cvm_id)
        age = max(0, int(now - state.observed_at))
        headers = {"Age": str(age), "Cache-Control": "no-store"}
        return Response(snapshot.raw_state, 200, headers, "application/json")

    async def _stream(self, principal: Principal, found: Found, target: str, interval: int, timeout: int) -> ASGIApp:
        cvm_id, headers = found.cvm_ids[0], with_headers(STREAM_HEADERS, found.headers)
        # Not earlier: many callers may have waited above at the same time.
        self.capacity.take(principal.name)
        watcher = Watcher(principal.name, cvm_id, target, interval, timeout, self.clock.monotonic())
        watcher.limit, watcher.credential = principal.cvms, principal.credential
        self.watchers.enter(watcher)

        def ended() -> None:
            self.watchers.leave(watcher)
            self.capacity.release(watcher.name)

        try:
            await self.watchers.load(cvm_id)
        except BaseException:
            ended()
            raise
        begin = partial(self.watchers.begin, watcher)
        return SseResponse(b"", begin, ended, buffer=self.settings.subscriber_buffer, headers=headers)


@dataclass(eq=False, slots=True)
class OtherRoutes:
    """The rest of `/api/v1`: relayed for a caller with a Phala key if the passthrough is on, else 404."""

    passthrough: Passthrough | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, passthrough = Request(scope, receive), self.passthrough
        answer: ASGIApp = wire.detail(404, COVERS)
        if passthrough is not None and (key := passthrough.phala_key(request)) is not None:
            answer = passthrough.relay(request, key)
        elif passthrough is not None and not passthrough.is_own(request):
            answer = wire.detail(401, wire.NOT_AUTHENTICATED)
        await answer(scope, receive, send)


def _is_reference(text: str) -> bool:
    """Whether upstream can be asked about it; in a path, a dot segment would name another route."""
    return usable_id(text) is not None and text not in (".", "..")


def _upstream_error(answer: Answer) -> Response:
    """Upstream's error as it came, except a 401, which concerns the bridge's key and not the caller's."""
    if not answer.body or answer.status == 401:
        why = "unauthorized" if answer.status == 401 else "unreachable"
        return wire.detail(503, wire.stale_sentence(why), RETRY)
    return Response(answer.body, answer.status, {"Cache-Control": "no-store"}, answer.content_type)
