"""Phala Cloud's own webhooks: a hint that a CVM changed, never a state (contract section 6)."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response

from bridge import phala_signature
from bridge.clock import Clock
from bridge.config import Settings
from bridge.events import usable_id
from bridge.store.reference_lookups import ReferenceLookups
from bridge.web.http.problems import ProblemError
from bridge.web.http.request_bodies import read_body


class Hints:
    """`POST /v1/upstream/webhooks`: verified by its signature alone, no token."""

    def __init__(self, settings: Settings, lookups: ReferenceLookups, clock: Clock) -> None:
        self._secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        self._lookups = lookups
        self._clock = clock

    async def receive(self, request: Request) -> Response:
        """204 whether or not the CVM is watched; 401 where forged or old; 404 where no secret is set."""
        if self._secret is None:
            raise ProblemError(404, "not-found", "No such route", detail="PHALA_WEBHOOK_SECRET is not set")
        body = await read_body(request)
        self._verify(self._secret, request, body)
        cvm_id = _cvm_id(body)
        if cvm_id is not None:
            await self._lookups.hint(cvm_id)
        return Response(None, 204, {"Cache-Control": "no-store"})

    def _verify(self, secret: str, request: Request, body: bytes) -> None:
        timestamp = request.headers.get("x-webhook-timestamp", "")
        signature = request.headers.get("x-webhook-signature", "")
        genuine = phala_signature.verify(secret, timestamp, body, signature)
        off = phala_signature.seconds_off(timestamp, self._clock.time())
        if not genuine or off is None or off > phala_signature.TOLERANCE:
            raise ProblemError(401, "bad-signature", "The webhook's signature or time is not right")


def _cvm_id(body: bytes) -> str | None:
    try:
        return usable_id(json.loads(body)["data"]["cvm_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
