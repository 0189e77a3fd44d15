"""`GET /api/v1/cvms/{ref}/state` as upstream serves it (contract section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.clock import Clock
from bridge.events import usable_id
from bridge.phala_queries import UnprocessableError, pace
from bridge.store.errors import StoreError
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.web.api.references import ReferenceRefusedError, References
from bridge.web.dropin import wire
from bridge.web.dropin.known import Known
from bridge.web.dropin.passthrough import Passthrough
from bridge.web.dropin.states import States
from bridge.web.dropin.watchers import Watcher, Watchers
from bridge.web.http.access import Access, Principal
from bridge.web.http.capacity import Capacity
from bridge.web.http.problems import ProblemError
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.sse_response import HEADERS, SseResponse

RETRY = {"Retry-After": "5"}
"""Seconds: a leader reads again every few seconds, and a standby takes over within ten."""

STREAM_HEADERS = [*HEADERS, (b"connection", b"close")]
"""The connection ends with the stream: a client must not keep it for its next request."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the drop-in stands on. `led`: whether a leader was heard lately; `low_water`: see SseResponse."""

    clock: Clock
    access: Access
    capacity: Capacity
    watches: Watches
    lookups: ReferenceLookups
    references: References
    states: States
    watchers: Watchers
    single_flight: SingleFlight
    passthrough: Passthrough | None
    led: Callable[[], bool]
    low_water: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A valid query. Without `target` the immediate mode; seconds."""

    target: str | None
    interval: int
    timeout: int

    @classmethod
    def read(cls, request: Request) -> Wanted:
        """Raises UnprocessableError. What upstream does not know it does not mind either."""
        return cls(request.query_params.get("target"), *pace(request.query_params))


class StateEndpoint:
    """Both modes. A plain ASGI callable: the stream needs the connection itself."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        passthrough = self._parts.passthrough
        key = passthrough.foreign_key(request) if passthrough else None
        try:
            if passthrough is not None and key is not None and not self._is_holder(request):
                return await self._for_stranger(passthrough, request, key)
            return await self._for_holder(request)
        except UnprocessableError as error:
            return wire.json_response({"detail": error.detail}, 422)
        except ReferenceRefusedError as error:
            # What the bridge's key cannot see the caller's own may.
            return passthrough.relay(request) if passthrough and key else _passed_on(error.answer)
        except ProblemError as error:
            return wire.refused(error, keyed="x-api-key" in request.headers or "authorization" in request.headers)
        except StoreError:
            return wire.detail(503, "The bridge cannot use Redis just now", RETRY)

    def _is_holder(self, request: Request) -> bool:
        try:
            self._parts.access.holder(request)
        except ProblemError:
            return False
        return True

    async def _for_holder(self, request: Request) -> ASGIApp:
        if request.method != "GET":
            return wire.detail(405, "Method Not Allowed", {"Allow": "GET"})
        principal = self._parts.access.holder(request)
        wanted, reference = Wanted.read(request), str(request.path_params["ref"])
        if not _can_name(reference):
            return wire.not_found(reference)
        return await self._serve(principal, reference, wanted)

    async def _for_stranger(self, passthrough: Passthrough, request: Request, key: str) -> ASGIApp:
        """A Phala key of the caller's own: what upstream lets it read is read here, all else is upstream's."""
        reference = str(request.path_params["ref"])
        try:
            wanted = Wanted.read(request)
        except UnprocessableError:
            return passthrough.relay(request)
        if request.method != "GET" or not _can_name(reference):
            return passthrough.relay(request)
        accepted = await passthrough.accept(key, reference)
        if not isinstance(accepted, str):
            return accepted or passthrough.relay(request)
        cvm_id = await self._parts.references.resolve(accepted)
        principal = Principal(passthrough.name_of(key), False, frozenset((cvm_id,)))
        return await self._serve(principal, cvm_id, wanted)

    async def _serve(self, principal: Principal, reference: str, wanted: Wanted) -> ASGIApp:
        if wanted.target is None:
            return await self._immediate(*await self._find(principal, reference))
        self._parts.capacity.check(principal.name)
        if self._parts.watchers.follows(reference):
            _check_scope(principal, reference)
            return await self._stream(principal, reference, wanted)
        cvm_id, _ = await self._find(principal, reference)
        return await self._stream(principal, cvm_id, wanted)

    async def _find(self, principal: Principal, reference: str) -> tuple[str, Snapshot | None]:
        """Canonical id and last state of a CVM that exists as far as is known, and is watched from here on.

        A herd costs Redis what one caller costs. Raises as `References.resolve`.
        """
        parts = self._parts
        cvm_id = await parts.single_flight.ask(("reference", reference), lambda: parts.references.resolve(reference))
        _check_scope(principal, cvm_id)
        snapshot = await parts.single_flight.ask(("state", cvm_id), lambda: self._visit(cvm_id))
        if snapshot is None or not Known.of(snapshot).gone:
            return cvm_id, snapshot
        answer = await parts.single_flight.ask(("gone", reference), lambda: parts.references.ask_anew(reference))
        if answer.cvm_id is None:
            raise ReferenceRefusedError(answer)
        # A name that another CVM has by now, or one that is there again.
        _check_scope(principal, answer.cvm_id)
        if answer.cvm_id == cvm_id:
            await parts.lookups.hint(cvm_id)
            return cvm_id, await parts.states.newer(cvm_id, snapshot.event_id)
        return answer.cvm_id, await self._visit(answer.cvm_id)

    async def _visit(self, cvm_id: str) -> Snapshot | None:
        """The last state; the watch is made or renewed, but not for a CVM that is gone."""
        snapshot = await self._parts.states.get(cvm_id)
        if snapshot is None or not Known.of(snapshot).gone:
            await self._parts.watches.renew([cvm_id])
        return snapshot

    async def _immediate(self, cvm_id: str, snapshot: Snapshot | None) -> Response:
        if snapshot is None or (snapshot.status is None and snapshot.fresh):
            snapshot = await self._parts.single_flight.ask(("first", cvm_id), lambda: self._parts.states.first(cvm_id))
        known, now = Known.of(snapshot), self._parts.clock.time()
        doubt = known.doubt(led=self._parts.led(), now=now)
        if doubt is not None:
            return wire.detail(503, wire.stale_sentence(doubt), RETRY)
        if snapshot.raw_state is None:
            return wire.not_found(cvm_id)
        age = max(0, int(now - known.observed_at))
        headers = {"Age": str(age), "Cache-Control": "no-store"}
        return Response(snapshot.raw_state, 200, headers, "application/json")

    async def _stream(self, principal: Principal, cvm_id: str, wanted: Wanted) -> ASGIApp:
        assert wanted.target is not None
        parts, name = self._parts, principal.name
        # Asked last: many may have waited above at the same time.
        parts.capacity.take(name)
        now = parts.clock.monotonic()
        watcher = Watcher(name, cvm_id, wanted.target, wanted.interval, wanted.timeout, now)
        parts.watchers.enter(watcher)

        def ended() -> None:
            parts.watchers.leave(watcher)
            parts.capacity.release(name)

        try:
            await parts.watchers.load(cvm_id)
        except BaseException:
            ended()
            raise
        return SseResponse(
            b"",
            lambda sink: parts.watchers.begin(watcher, sink),
            ended,
            low_water=parts.low_water,
            headers=STREAM_HEADERS,
        )


def _can_name(reference: str) -> bool:
    """Whether it is worth a question: nothing is called so otherwise, and a dot segment would ask another route."""
    return usable_id(reference) is not None and reference not in (".", "..")


def _check_scope(principal: Principal, cvm_id: str) -> None:
    principal.require(cvm_id)


def _passed_on(answer: Answer) -> Response:
    """Upstream's error as it came. Its 401 is about the bridge's key, not the caller's."""
    if not answer.body or answer.status == 401:
        why = "unauthorized" if answer.status == 401 else "unreachable"
        return wire.detail(503, wire.stale_sentence(why), RETRY)
    return Response(answer.body, answer.status, {"Cache-Control": "no-store"}, answer.content_type)
