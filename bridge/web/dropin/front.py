"""The drop-in's parts put together, and the other routes of `/api/v1/`."""

from __future__ import annotations

from dataclasses import dataclass

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
from bridge.web.dropin.endpoint import StateEndpoint
from bridge.web.dropin.operation import STATE_ROUTE
from bridge.web.dropin.passthrough import Passthrough
from bridge.web.dropin.state_reader import StateReader
from bridge.web.dropin.watchers import Watchers
from bridge.web.http.access import Access
from bridge.web.http.capacity import Capacity
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.hub import Hub

COVERS = (
    "This is a bridge. Of Phala Cloud's API it serves GET /api/v1/cvms/{cvm_id}/state only; for other routes use "
    "Phala Cloud itself, or set BRIDGE_PASSTHROUGH=on and bring a Phala key of your own"
)


class DropIn:
    """The drop-in's `routes`; `run` keeps its timer, and `drain` ends its open streams."""

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
        self._states = StateReader(snapshots)
        self._watchers = Watchers(snapshots, hub.demand, clock, led=lambda: hub.led, buffer=buffer)
        for part in (self._states, self._watchers):
            hub.listeners.append(part.on_event)
            hub.on_reset.append(part.on_reset)
        self._endpoint = StateEndpoint(
            clock=clock,
            access=access,
            capacity=capacity,
            watches=watches,
            lookups=lookups,
            references=references,
            states=self._states,
            watchers=self._watchers,
            single_flight=single_flight,
            passthrough=self._passthrough,
            led=lambda: hub.led,
            buffer=buffer,
        )

    operation = STATE_ROUTE

    def routes(self) -> list[Route]:
        """For all methods, because the refusal of a method has upstream's shape too."""
        return [
            Route(STATE_ROUTE.path, self._endpoint),
            Route("/api/v1/{path:path}", OtherRoutes(self._passthrough)),
        ]

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        try:
            await self._watchers.run()
        finally:
            if self._passthrough is not None:
                await self._passthrough.aclose()

    async def drain(self, seconds: float) -> None:
        """Ends the streams over `seconds`, so that their clients ask again, and waiting for first states at once."""
        self._states.close()
        if self._passthrough is not None:
            self._passthrough.drain()
        await self._watchers.drain(seconds)


@dataclass(eq=False, slots=True)
class OtherRoutes:
    """The rest of `/api/v1`: relayed for a caller with a Phala key if the passthrough is on, else 404."""

    passthrough: Passthrough | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    def _answer(self, request: Request) -> ASGIApp:
        passthrough = self.passthrough
        if passthrough is not None and passthrough.phala_key(request) is not None:
            return passthrough.relay(request)
        if passthrough is not None and not passthrough.is_own(request):
            return wire.detail(401, wire.NOT_AUTHENTICATED)
        return wire.detail(404, COVERS)
