"""The public keys that verify `v1a` signatures, for anybody who has their address (`docs/contract.md#webhooks`)."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from bridge.sealing import SealError
from bridge.store.endpoint_record import ID_PATTERN, Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import UnknownEndpointError, UnopenedError
from bridge.web.api import answers
from bridge.web.api.webhook_secrets import WebhookSecrets
from bridge.web.http.operations import WEBHOOKS, Answer, Call, Content, Operation
from bridge.web.http.page_turns import PageTurns
from bridge.web.http.parameters import in_path
from bridge.web.http.problems import ProblemType
from bridge.webhook_keys import public_text

PATH = "/.well-known/bridge/webhook-keys"

MEDIA_TYPE = "application/jwk-set+json"

KEPT_SECONDS = 300
"""For which receivers and proxies may keep the answer."""

READS_AT_ONCE = 4
"""Anybody may ask, and Redis shall have no more to do for them than this."""


def keys_url(endpoint: Endpoint, public_url: str | None) -> str | None:
    """A path alone where `public_url` (BRIDGE_PUBLIC_URL) is not known; None without `v1a`."""
    path = f"{PATH}/{endpoint.id}.{endpoint.keys_suffix}"
    return f"{public_url or ''}{path}" if "v1a" in endpoint.signatures else None


@dataclass(frozen=True, slots=True)
class PublicKeyRoutes:
    """They need no token. A caller without an address learns nothing, not even which endpoints there are."""

    endpoints: Endpoints
    secrets: WebhookSecrets
    turns: PageTurns

    @Operation(
        f"GET {PATH}/{{name}}",
        WEBHOOKS,
        {200: Answer("A JWK set", {MEDIA_TYPE: Content(schema=answers.JwkSet)})},
        (in_path("name", "The end of an endpoint's `public_keys_url`", answers.KEYS_NAME),),
        refusals=(ProblemType.NO_SUCH_ENDPOINT, ProblemType.NO_SECRET_KEY, ProblemType.UNAVAILABLE),
    )
    async def get_public_keys(self, call: Call) -> Response:
        """The public keys of an endpoint.

        Needs no token, but the address that the endpoint's `public_keys_url` shows. It may be kept for five minutes.
        """
        endpoint = await self._found(call.path("name"))
        try:
            found = self.secrets.public_keys(endpoint)
        except SealError:
            raise UnopenedError from None
        keys = answers.JwkSet(keys=[_jwk(key, end) for key, end in found])
        return Response(keys.json_text(), 200, {"Cache-Control": f"public, max-age={KEPT_SECONDS}"}, MEDIA_TYPE)

    async def _found(self, name: str) -> Endpoint:
        """The same error for all that has no such address."""
        endpoint_id, _, suffix = name.partition(".")
        if not re.fullmatch(ID_PATTERN, endpoint_id) or not suffix:
            raise UnknownEndpointError
        async with self.turns.take():
            endpoint = await self.endpoints.registration(endpoint_id)
        fits = hmac.compare_digest(suffix.encode(), endpoint.keys_suffix.encode())
        if not fits or "v1a" not in endpoint.signatures:
            raise UnknownEndpointError
        return endpoint


def _jwk(key: bytes, ends_at_ms: int | None) -> answers.Jwk:
    known: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": public_text(key)}
    known["x"] = base64.urlsafe_b64encode(key).decode().rstrip("=")
    if ends_at_ms is not None:
        known["exp"] = ends_at_ms // 1000
    return answers.Jwk.model_construct(**known)
