"""Phala Cloud's own webhooks: an event each, and a hint that a CVM changed; never a state (`docs/contract.md#http`)."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field

from starlette.responses import Response

from bridge import phala_signature, tracing
from bridge.clock import Clock
from bridge.events import usable_id
from bridge.store.notices import Notices, PhalaNotice
from bridge.store.reference_lookups import ReferenceLookups
from bridge.web.api.envelopes import PhalaEnvelope
from bridge.web.http.operations import NO_BODY, WEBHOOKS, Call, Operation
from bridge.web.http.parameters import in_header
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.http.request_bodies import read_body
from bridge.web.http.responses import empty_response

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PhalaWebhooks:
    """Verified by their signature; they carry no token."""

    secrets: tuple[str, ...] = field(repr=False)
    lookups: ReferenceLookups
    notices: Notices
    clock: Clock

    @Operation(
        "POST /v1/upstream/webhooks",
        WEBHOOKS,
        {204: NO_BODY},
        parameters=(
            in_header("X-Webhook-Timestamp", "Unix seconds, at most five minutes from now", required=True),
            in_header(
                "X-Webhook-Signature",
                "`sha256=` and the HMAC-SHA256, keyed with the webhook's secret, of `timestamp.body`",
                required=True,
            ),
        ),
        body=PhalaEnvelope,
        refusals=(ProblemType.BAD_SIGNATURE, ProblemType.NOT_FOUND, ProblemType.TOO_LARGE, ProblemType.UNAVAILABLE),
    )
    async def receive_phala_webhook(self, call: Call) -> Response:
        """Phala Cloud's own webhooks.

        Each becomes one event, `phala.` and Phala Cloud's name of it, however often it is sent; and it is a hint: the
        leader reads the CVM at once. 404 unless `PHALA_WEBHOOK_SECRET` or `BRIDGE_PUBLIC_URL` is set.
        """
        if not self.secrets:
            raise ProblemError(ProblemType.NOT_FOUND, "neither PHALA_WEBHOOK_SECRET nor BRIDGE_PUBLIC_URL is set")
        body, headers = await read_body(call.request), call.request.headers
        timestamp, signature = headers.get("x-webhook-timestamp", ""), headers.get("x-webhook-signature", "")
        genuine = any(phala_signature.verify(each, timestamp, body, signature) for each in self.secrets)
        off = phala_signature.seconds_off(timestamp, self.clock.time())
        if not genuine or off is None or off > phala_signature.TOLERANCE:
            raise ProblemError(ProblemType.BAD_SIGNATURE)
        if notice := _notice(body):
            await self.notices.leave(notice)
        else:
            logger.warning("a genuine webhook of Phala Cloud cannot be an event: it is only a hint")
        if (cvm_id := _cvm_id(body)) is not None:
            await self.lookups.hint(cvm_id)
        return empty_response()


def _notice(body: bytes) -> PhalaNotice | None:
    try:
        return PhalaNotice.of(body.decode(), trace=tracing.current.get())
    except UnicodeDecodeError:
        return None


def _cvm_id(body: bytes) -> str | None:
    try:
        return usable_id(json.loads(body)["data"]["cvm_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
