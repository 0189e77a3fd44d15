"""The front end's parts, put together."""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.clock import Clock
from bridge.config import Settings
from bridge.events import dumps
from bridge.host_lookup import HostLookup
from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from bridge.store.feed import Feed
from bridge.store.leader_status import LeaderStatus
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.web import metrics
from bridge.web.api import deliveries
from bridge.web.api.cvms import Cvms
from bridge.web.api.events import Api, json_response, on_refusal
from bridge.web.api.phala_webhooks import Hints
from bridge.web.api.references import References, UpstreamRefusalError
from bridge.web.api.webhook_secrets import Vault
from bridge.web.api.webhooks import EndpointRoutes
from bridge.web.dropin.front import DropIn
from bridge.web.http.access import Access
from bridge.web.http.capacity import Capacity
from bridge.web.http.problems import HANDLERS
from bridge.web.http.single_flight import SingleFlight
from bridge.web.pages.site import Site
from bridge.web.streaming.event_stream import jittered_retry
from bridge.web.streaming.feed_consumer import FeedConsumer
from bridge.web.streaming.hub import Hub

RESERVED_FILES = 200
"""Open files that are not subscribers: the listener, Redis, plain requests, logs."""


def cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Browsers of these origins may read and subscribe, with a cursor and a token. Plain ASGI: it costs no task."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Last-Event-ID", "Cache-Control", "Content-Type"],
            expose_headers=["Retry-After"],
            max_age=3600,
        )
    ]


def webhook_routes(
    settings: Settings, backend: Backend, clock: Clock, access: Access, references: References
) -> list[Route]:
    endpoints, vault = Endpoints(backend), Vault(settings.secret_key, clock)
    return [
        *EndpointRoutes(settings, access, references, Watches(backend), endpoints, vault, HostLookup(), clock).routes(),
        *deliveries.DeliveryRoutes(access, endpoints, Deliveries(backend), clock).routes(),
    ]


class Front:
    """One front end: its ASGI `app`, and `run`, the tasks that keep it at the end of the log."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        clock: Clock,
        *,
        open_access: bool = False,
        rng: random.Random | None = None,
        make_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        open_files: int | None = None,
    ) -> None:
        """`open_files`: how many the process may have; subscribers beyond that are refused and not left to fail."""
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._id = make_id()
        self._single_flight = SingleFlight("look-up")
        self._watches = Watches(backend)
        log = Log(backend)
        self.hub = Hub(
            log, backend.keys.source, clock, buffer=settings.subscriber_buffer, log_length=settings.log_length
        )
        lookups = ReferenceLookups(backend)
        self._references = references = References(lookups, self._watches, clock)
        self._hints = Hints(settings, lookups, clock)
        self.feed_consumer = FeedConsumer(
            self.hub, Feed(backend), references.answered, clock, period=settings.lease_seconds / 3
        )
        most = min(settings.max_subscribers, max(1, (open_files or sys.maxsize) - RESERVED_FILES))
        self.capacity = Capacity(most, settings.max_subscribers_per_token)
        access = Access(settings.tokens, open_access=open_access, clock=clock)
        snapshots = Snapshots(backend)
        cvms = Cvms(self._watches, snapshots, Slots(backend), LeaderStatus(backend))
        self.dropin = DropIn(
            settings,
            clock,
            self.hub,
            access=access,
            capacity=self.capacity,
            snapshots=snapshots,
            watches=self._watches,
            lookups=lookups,
            references=references,
            single_flight=self._single_flight,
        )
        api = Api(
            settings,
            access,
            self.hub,
            self.capacity,
            log,
            self._watches,
            cvms,
            references,
            self._single_flight,
            self._rng,
        )
        self._webhooks = webhook_routes(settings, backend, clock, access, references)
        self.draining = False
        self.app = self._build(api)

    def _build(self, api: Api) -> Starlette:
        own = [
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/v1/upstream/webhooks", self._hints.receive, methods=["POST"]),
            *Site(self._settings.namespace).routes(),
        ]
        app = Starlette(
            # In order: the streams first, for herds connect to them.
            routes=[*api.routes(), *self.dropin.routes(), *self._webhooks, *own],
            exception_handlers={**HANDLERS, **deliveries.HANDLERS, UpstreamRefusalError: on_refusal},
            middleware=cors(self._settings.cors_origins),
        )
        # A redirect would name our own scheme, which need not be what a proxy's client speaks, its token in the query.
        app.router.redirect_slashes = False
        return app

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.feed_consumer.follow(), name="feed")
                group.create_task(self.feed_consumer.beat(self._settings.heartbeat), name="heartbeat")
                group.create_task(self.feed_consumer.announce(self._watches, self._id), name="demand")
                group.create_task(self.dropin.run(), name="drop-in")
        finally:
            await self._single_flight.aclose()

    async def drain(self) -> None:
        """Readiness turns false and every subscriber is let go within BRIDGE_DRAIN_SECONDS."""
        self.draining = self.capacity.closing = True
        self._references.close()
        waits, seconds = iter(lambda: jittered_retry(self._rng), None), self._settings.drain_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hub.drain(seconds, waits), name="drain")
            group.create_task(self.dropin.drain(seconds), name="letting go of the drop-in's")

    async def _healthz(self, request: Request) -> Response:
        return json_response('{"status":"ok"}')

    async def _readyz(self, request: Request) -> Response:
        """Ready when Redis answers and the subscription lives; without a leader `degraded`."""
        if self.draining or not self.feed_consumer.ready:
            why = "draining" if self.draining else "no subscription to Redis"
            return json_response(dumps({"status": "unready", "reason": why}), 503)
        status = {"status": "ready"} if self.hub.led else {"status": "degraded", "reason": "no leader"}
        return json_response(dumps({**status, "sequence": str(self.hub.sequence)}))

    async def _metrics(self, request: Request) -> Response:
        return Response(metrics.exposition(), 200, {"Cache-Control": "no-store"}, CONTENT_TYPE_LATEST)
