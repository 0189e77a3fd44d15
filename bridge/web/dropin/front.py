"""The drop-in put together, and the rest of `/api/v1/`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.web.api.references import References
from bridge.web.dropin import wire
from bridge.web.dropin.endpoint import Parts, StateEndpoint
from bridge.web.dropin.operation import STATE_ROUTE
from bridge.web.dropin.passthrough import Passthrough
from bridge.web.dropin.states import States
from bridge.web.dropin.watchers import Watchers
from bridge.web.http.access import Access
from bridge.web.http.capacity import Capacity
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.sse_response import LOW_WATER

COVERS = (
    "This is a bridge. Of Phala Cloud's API it serves GET /api/v1/cvms/{cvm_id}/state only; for other routes use "
    "Phala Cloud itself, or set BRIDGE_PASSTHROUGH=on and bring a Phala key of your own"
)


class DropIn:
    """`routes` serve; `run` is its timer; `drain` ends what is open."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        hub: Hub,
        *,
        access: Access,
        capacity: Capacity,
        snapshots: Snapshots,
        watches: Watches,
        lookups: ReferenceLookups,
        references: References,
        single_flight: SingleFlight,
    ) -> None:
        buffer = settings.subscriber_buffer
        self._passthrough = Passthrough(settings.api_prefix, access, clock) if settings.passthrough else None
        self._states = States(snapshots)
        self.watchers = Watchers(snapshots, hub.demand, clock, led=lambda: hub.led, buffer=buffer)
        for part in (self._states, self.watchers):
            hub.listeners.append(part.heard)
            hub.on_reset.append(part.forget)
        self._parts = Parts(
            clock=clock,
            access=access,
            capacity=capacity,
            watches=watches,
            lookups=lookups,
            references=references,
            states=self._states,
            watchers=self.watchers,
            single_flight=single_flight,
            passthrough=self._passthrough,
            led=lambda: hub.led,
            low_water=min(LOW_WATER, buffer // 2),
        )

    operation = STATE_ROUTE

    def routes(self) -> list[Route]:
        """Every method: what upstream would not take is answered in upstream's shape too."""
        return [
            Route(STATE_ROUTE.path, StateEndpoint(self._parts)),
            Route("/api/v1/{path:path}", Rest(self._passthrough)),
        ]

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        try:
            await self.watchers.run()
        finally:
            if self._passthrough is not None:
                await self._passthrough.aclose()

    async def drain(self, seconds: float) -> None:
        """Streams end over `seconds`, each told to ask again; who waits for a first state waits no longer."""
        self._states.close()
        if self._passthrough is not None:
            self._passthrough.let_go()
        await self.watchers.let_go(seconds)


class Rest:
    """What the drop-in is not: relayed for a caller with a Phala key where that is allowed, else 404."""

    def __init__(self, passthrough: Passthrough | None) -> None:
        self._passthrough = passthrough

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    def _answer(self, request: Request) -> ASGIApp:
        passthrough = self._passthrough
        if passthrough is not None and passthrough.foreign_key(request) is not None:
            return passthrough.relay(request)
        if passthrough is not None and not passthrough.is_own(request):
            return wire.detail(401, wire.NOT_AUTHENTICATED)
        return wire.detail(404, COVERS)
