"""The front end: its parts, its routes and its tasks."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from bridge.clock import Clock
from bridge.config import Settings, Token
from bridge.host_lookup import HostLookup
from bridge.reference_sets import ReferenceSet
from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.delivery_search import DeliverySearch
from bridge.store.endpoints import Endpoints
from bridge.store.feed import Feed
from bridge.store.key_check import KeyCheck
from bridge.store.leadership import read_lease
from bridge.store.limits import LaneLimits
from bridge.store.log import Log
from bridge.store.notices import Notices
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.web.api.cvms import CvmRoutes, read_heads
from bridge.web.api.deliveries import DeliveryRoutes
from bridge.web.api.endpoint_owners import EndpointOwners
from bridge.web.api.events import EventRoutes
from bridge.web.api.health import HealthRoutes
from bridge.web.api.log_pages import LogPages
from bridge.web.api.phala_webhooks import PhalaWebhooks
from bridge.web.api.public_keys import READS_AT_ONCE, PublicKeyRoutes
from bridge.web.api.references import LAST_KNOWN, ReferenceRefusedError, References, on_refused_reference
from bridge.web.api.stand_ins import StandIns
from bridge.web.api.token_cvms import TokenCvms
from bridge.web.api.visibility import Visibility
from bridge.web.api.waits import WaitRoutes
from bridge.web.api.webhook_secrets import WebhookSecrets
from bridge.web.api.webhooks import WebhookRoutes
from bridge.web.dropin.endpoint import DropIn
from bridge.web.http.access import Access
from bridge.web.http.capacity import Capacity
from bridge.web.http.operations import Operation, declared, routes
from bridge.web.http.page_turns import PageTurns
from bridge.web.http.problems import HANDLERS
from bridge.web.http.same_origin import SameOrigin
from bridge.web.http.single_flight import SingleFlight
from bridge.web.http.tokens_file import TokensFile
from bridge.web.http.trace_headers import PARENT, STATE, TraceHeaders
from bridge.web.pages.site import Site
from bridge.web.streaming.event_stream import jittered_retry
from bridge.web.streaming.feed_consumer import FeedConsumer
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.shared_read import SharedRead

logger = logging.getLogger(__name__)

TRACED = (PARENT.decode(), STATE.decode())
"""Headers that a page of an allowed origin may send; it may read the first one of an answer."""

RESERVED_FILES = 200
"""Open files for everything but subscribers: the listener, Redis, plain requests, logs."""


class FrontEnd:
    """One front end: its ASGI `app`, and `run`, the tasks that keep it at the end of the log."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        clock: Clock,
        *,
        open_access: bool = False,
        loopback_only: bool = False,
        open_files: int | None = None,
    ) -> None:
        """`loopback_only`: access is open, but only this machine can connect (see `SameOrigin`).

        `open_files`, the limit of the process, lowers the limit on subscribers, so that none lacks a file.
        """
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self._rng = random.Random()
        self._single_flight = SingleFlight("look-up")
        self._page_turns = PageTurns()
        self._log, self._snapshots = Log(backend), Snapshots(backend)
        self._watches, self._lookups = Watches(backend), ReferenceLookups(backend)
        self._keys = KeyCheck(backend, Sealer(settings.secret_key)) if settings.secret_key else None
        self._endpoints = Endpoints(backend, LaneLimits.of(settings), key=self._keys)

        buffer, log_length = settings.subscriber_buffer, settings.log_length
        self.hub = Hub(self._log, backend.keys.source, clock, buffer=buffer, log_length=log_length)
        self._references = self._make_references()
        self.feed_consumer = self._make_feed_consumer()
        most = min(settings.max_subscribers, max(1, (open_files or sys.maxsize) - RESERVED_FILES))
        self.capacity = Capacity(most, settings.max_subscribers_per_token)

        self._access = access = Access(settings.tokens, open_access=open_access, clock=clock)
        followed = None if open_access else settings.tokens_file
        self._tokens_file = None if followed is None else TokensFile(followed, self._change_tokens)
        self._health = self._make_health()
        self._owners = EndpointOwners(access, self._endpoints, clock)
        self._token_cvms = TokenCvms(access, self._references, self._end_beyond)
        self._open_access = open_access
        self.dropin = self._make_dropin()
        # In order: the streams first, because thousands of clients reconnect to them at the same moment.
        plain = [route for part in self._plain_parts() for route in routes(part, access)]
        all_routes = [*self._make_event_routes().routes(), *self.dropin.routes(), *plain]
        self.app = _application(all_routes, settings.cors_origins, self._rng, clock, loopback_only=loopback_only)

    def _make_health(self) -> HealthRoutes:
        return HealthRoutes(
            backend=self._backend,
            hub=self.hub,
            feed_consumer=self.feed_consumer,
            capacity=self.capacity,
            keys=self._keys,
            tokens_file=self._tokens_file,
            single_flight=self._single_flight,
        )

    def _make_references(self) -> References:
        return References(
            self._lookups,
            self._watches,
            self._clock,
            self._single_flight,
            StandIns(self._snapshots, self._lookups, self._clock),
            visibility=Visibility(self._snapshots, self._single_flight),
            led=lambda: self.hub.led,
            per_minute=self._settings.lookups_per_minute,
        )

    def _make_feed_consumer(self) -> FeedConsumer:
        return FeedConsumer(
            self.hub,
            Feed(self._backend),
            partial(read_lease, self._backend),
            self._references.answered,
            self._clock,
            period=self._settings.lease_seconds / 3,
        )

    def _make_event_routes(self) -> EventRoutes:
        return EventRoutes(
            settings=self._settings,
            access=self._access,
            hub=self.hub,
            capacity=self.capacity,
            pages=LogPages(self._log, self._page_turns),
            watches=self._watches,
            references=self._references,
            single_flight=self._single_flight,
            rng=self._rng,
        )

    def _make_dropin(self) -> DropIn:
        return DropIn(
            settings=self._settings,
            clock=self._clock,
            hub=self.hub,
            access=self._access,
            capacity=self.capacity,
            snapshots=self._snapshots,
            watches=self._watches,
            lookups=self._lookups,
            references=self._references,
            single_flight=self._single_flight,
        )

    def _plain_parts(self) -> tuple[object, ...]:
        """The owners of the plain routes, which need no connection of their own."""
        settings, backend, clock = self._settings, self._backend, self._clock
        limits, secrets = LaneLimits.of(settings), WebhookSecrets(settings.secret_key, clock)
        directory = SharedRead(partial(read_heads, self._watches, self._snapshots))
        return (
            CvmRoutes(
                hub=self.hub,
                watches=self._watches,
                snapshots=self._snapshots,
                slots=Slots(backend),
                backend=backend,
                references=self._references,
                page_turns=self._page_turns,
                directory=directory,
            ),
            WaitRoutes(
                hub=self.hub,
                capacity=self.capacity,
                clock=clock,
                log=self._log,
                snapshots=self._snapshots,
                watches=self._watches,
                references=self._references,
                single_flight=self._single_flight,
                directory=directory,
            ),
            WebhookRoutes(
                settings=settings,
                references=self._references,
                watches=self._watches,
                endpoints=self._endpoints,
                secrets=secrets,
                resolve=HostLookup(),
                clock=clock,
                owners=self._owners,
            ),
            PublicKeyRoutes(self._endpoints, secrets, PageTurns(READS_AT_ONCE)),
            PhalaWebhooks(settings.phala_secrets, self._lookups, Notices(backend), clock),
            DeliveryRoutes(
                self._endpoints, Deliveries(backend, limits), DeliverySearch(backend, limits), clock, self._page_turns
            ),
            self._health,
            Site(settings.namespace, operations()),
        )

    @property
    def probe_app(self) -> Starlette:
        """Health and metrics alone, for a port that only operators reach: no route needs a token."""
        anybody = Access((), open_access=True, clock=self._clock)
        return Starlette(routes=routes(self._health, anybody), exception_handlers=HANDLERS)

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.feed_consumer.follow(), name="feed")
                group.create_task(self.feed_consumer.look(), name="look at the log")
                group.create_task(self.feed_consumer.beat(self._settings.heartbeat), name="heartbeat")
                group.create_task(self.feed_consumer.announce(self._watches, uuid.uuid4().hex), name="demand")
                group.create_task(self.dropin.run(), name="drop-in")
                if not self._open_access:
                    group.create_task(self._owners.run(), name="owners of endpoints")
                    group.create_task(self._token_cvms.run(), name="CVMs of tokens")
                if self._tokens_file is not None:
                    group.create_task(self._tokens_file.run(self._clock), name="tokens file")
                if self._keys is not None:
                    group.create_task(self._keys.follow(self._clock), name="secret keys")
        finally:
            await self._single_flight.aclose()

    def _change_tokens(self, tokens: tuple[Token, ...]) -> None:
        """Ends the streams of tokens that have gone or changed; the clients come back, and get what holds now."""
        if changed := self._access.change(tokens):
            self.hub.end_revoked(self._waits())
            self.dropin.watchers.end_revoked()
            self._token_cvms.tokens_changed.set()
            logger.info("tokens changed", extra={"changed": sorted(changed), "tokens": len(tokens)})

    def _end_beyond(self, cvms: Mapping[str, ReferenceSet]) -> None:
        """Ends streams that began with other CVMs than their tokens have now; the clients come back."""
        self.hub.end_beyond(cvms, self._waits())
        self.dropin.watchers.end_beyond(cvms)

    def _waits(self) -> Iterator[int]:
        """Milliseconds after which each of the clients that are let go shall come back."""
        return iter(lambda: jittered_retry(self._rng), None)

    async def drain(self, seconds: float) -> None:
        """Ends every subscriber's connection within `seconds`, and serves other requests for as long.

        `/readyz` is 503 from now on. Afterwards nothing here waits for anybody any more.
        """
        self.capacity.closing = True
        waits = self._waits()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hub.drain(seconds, waits), name="drain")
            group.create_task(self.dropin.drain(seconds), name="drain of the drop-in")
            group.create_task(self._clock.sleep(seconds), name="drain's end")
        self._references.close()
        self.dropin.close()


PARTS = (
    EventRoutes,
    CvmRoutes,
    WaitRoutes,
    WebhookRoutes,
    PublicKeyRoutes,
    PhalaWebhooks,
    DeliveryRoutes,
    DropIn,
    HealthRoutes,
    Site,
)
"""Every class with routes, in the order of the document."""


def operations() -> list[Operation]:
    """The declarations of all routes; only the relay below `/api/v1/` is in no document."""
    return [operation for part in PARTS for operation in declared(part)]


class _Application(Starlette):
    """Traces are outermost: also the answer to a fault of the bridge gives the trace back."""

    def __init__(self, rng: random.Random, clock: Clock, **parts: Any) -> None:
        super().__init__(**parts)
        self._rng, self._clock = rng, clock

    def build_middleware_stack(self) -> ASGIApp:
        return TraceHeaders(super().build_middleware_stack(), self._rng, self._clock)


def _application(
    all_routes: list[Route], origins: tuple[str, ...], rng: random.Random, clock: Clock, *, loopback_only: bool
) -> Starlette:
    """`origins` are those whose pages may read and subscribe, with a cursor and a token."""
    # Plain ASGI: it costs no task.
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["Authorization", "X-API-Key", "Last-Event-ID", "Cache-Control", "Content-Type", *TRACED],
        expose_headers=["Retry-After", LAST_KNOWN, TRACED[0]],
        max_age=3600,
    )
    handlers = {**HANDLERS, ReferenceRefusedError: on_refused_reference}
    same_origin = Middleware(SameOrigin, allowed=origins, loopback_only=loopback_only)
    outer = [cors, same_origin] if origins else [same_origin]
    app = _Application(rng, clock, routes=all_routes, exception_handlers=handlers, middleware=outer)
    # A redirect would contain this server's scheme, which may differ from the proxy's, and the token of the query.
    app.router.redirect_slashes = False
    return app
