"""What operators and load balancers ask a front end: whether it lives, whether it is ready, and its figures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from bridge.exposition import exposition
from bridge.store.connection import Backend
from bridge.store.dispatchers import read_dispatching
from bridge.store.errors import StoreError
from bridge.store.key_check import Fit, KeyCheck
from bridge.store.leader_status import read_leader_status, unmet_note
from bridge.web import metrics
from bridge.web.api import answers
from bridge.web.http.capacity import Capacity
from bridge.web.http.operations import OPERATION, Call, Operation, json_answer, text_answer
from bridge.web.http.responses import NO_STORE, json_response
from bridge.web.http.single_flight import SingleFlight
from bridge.web.http.tokens_file import TokensFile
from bridge.web.streaming.feed_consumer import FeedConsumer
from bridge.web.streaming.hub import Hub


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRoutes:
    """They need no token or are asked often, so callers at the same moment share what is asked of Redis."""

    backend: Backend
    hub: Hub
    feed_consumer: FeedConsumer
    capacity: Capacity
    keys: KeyCheck | None
    tokens_file: TokensFile | None
    single_flight: SingleFlight

    @Operation("GET /healthz", OPERATION, {200: json_answer("Alive", answers.Health)})
    async def get_health(self, call: Call) -> Response:
        """Liveness."""
        return json_response(answers.Health(status="ok"))

    @Operation(
        "GET /readyz",
        OPERATION,
        {
            200: json_answer("Ready, perhaps degraded", answers.Readiness),
            503: json_answer("Not ready", answers.Readiness),
        },
    )
    async def get_readiness(self, call: Call) -> Response:
        """Readiness."""
        if reason := self._why_unready():
            return json_response(answers.Readiness(status="unready", reason=reason), 503)
        sequence = str(self.hub.sequence)
        reason, note = await self._why_degraded()
        status: Literal["degraded", "ready"] = "degraded" if reason else "ready"
        return json_response(answers.Readiness(status=status, reason=reason or note, sequence=sequence))

    def _why_unready(self) -> str:
        if self.capacity.closing:
            return "draining"
        if not self.feed_consumer.readable:
            return "Redis does not answer"
        return self._fit.trouble if self._fit.wrong else ""

    @property
    def _fit(self) -> Fit:
        return self.keys.fit if self.keys else Fit()

    async def _why_degraded(self) -> tuple[str, str]:
        """And, where nothing is wrong, which references of `BRIDGE_CVMS` name no CVM."""
        if not self.hub.led:
            return "no leader", ""
        if not self.feed_consumer.arrives:
            return "nothing comes through the subscription to Redis", ""
        if self.tokens_file is not None and self.tokens_file.is_broken:
            return "BRIDGE_TOKENS_FILE cannot be used, the tokens stay as they were", ""
        try:
            status = await self.single_flight.ask(("leader status",), lambda: read_leader_status(self.backend))
            fault = "upstream unreachable" if status.get("unreachable") else str(status.get("fault", ""))
            reason = fault or self._fit.trouble or await self._missing_dispatcher()
            return reason, unmet_note(status.get("unmet", {}))
        except StoreError:
            return "Redis does not answer", ""

    async def _missing_dispatcher(self) -> str:
        """Since when; "" if none is missing. Raises StoreError."""
        return await self.single_flight.ask(("dispatchers",), self._look_for_dispatcher)

    async def _look_for_dispatcher(self) -> str:
        trouble = (await read_dispatching(self.backend)).trouble
        metrics.DISPATCHER_MISSING.set(bool(trouble))
        return trouble

    @Operation(
        "GET /metrics",
        OPERATION,
        {200: text_answer("In Prometheus's text format", "text/plain")},
        scope="read all",
        uses_redis=False,
    )
    async def get_metrics(self, call: Call) -> Response:
        """Prometheus metrics.

        `BRIDGE_PROBE_PORT` serves them without a token.
        """
        if self.feed_consumer.readable:  # a scrape does not wait for a Redis that hangs
            with contextlib.suppress(StoreError):
                await self._missing_dispatcher()
        return Response(exposition(), 200, NO_STORE, CONTENT_TYPE_LATEST)
