"""The routes of webhook endpoints (contract sections 6 and 8).

An endpoint that names CVMs has them watched from here on; the dispatchers keep that up
(`webhooks/endpoint_watches.py`).
Making and changing needs the scope `admin`; reading is for every token that is not restricted to CVMs: an endpoint
and its deliveries may be about any of them.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.addresses import Resolve, UrlRefusedError, check_url
from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.endpoints import ID_PATTERN, Endpoint, Endpoints, Health, new_endpoint_id
from bridge.store.errors import EndpointExistsError, UnknownEndpointError
from bridge.store.watches import Watches
from bridge.web.api.deliveries import answer, require_all_cvms
from bridge.web.api.references import References, UpstreamRefusalError
from bridge.web.api.webhook_models import HIDDEN, Change, Nothing, Registration, Rotation
from bridge.web.api.webhook_secrets import Vault
from bridge.web.http import queries
from bridge.web.http.access import Access, Principal
from bridge.web.http.problems import check_query, invalid
from bridge.web.http.request_bodies import read_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndpointRoutes:
    """What is registered, changed and shown."""

    settings: Settings
    access: Access
    references: References
    watches: Watches
    endpoints: Endpoints
    vault: Vault
    resolve: Resolve
    clock: Clock

    def routes(self) -> list[Route]:
        one = "/v1/webhooks/{id}"
        return [
            Route("/v1/webhooks", self.make, methods=["POST"]),
            Route("/v1/webhooks", self.list, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(one, self.put, methods=["PUT"]),
            Route(one, self.patch, methods=["PATCH"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/rotate-secret", self.rotate, methods=["POST"]),
            Route(f"{one}/enable", self.enable, methods=["POST"]),
        ]

    # Reading

    async def list(self, request: Request) -> Response:
        require_all_cvms(self.access.reader(request))
        check_query(request, ("limit", "after"))
        size = queries.limit(request)
        found = await self.endpoints.page(request.query_params.get("after", ""), size + 1)
        following = found[size - 1][0].id if len(found) > size else None
        return answer({"items": [self._shown(*each) for each in found[:size]], "next": following})

    async def get(self, request: Request) -> Response:
        require_all_cvms(self.access.reader(request))
        check_query(request, ())
        return answer(self._shown(*await self._known(request.path_params["id"])))

    async def _known(self, endpoint_id: str) -> tuple[Endpoint, Health]:
        found = await self.endpoints.get(endpoint_id)
        if found is None:
            raise UnknownEndpointError
        return found

    def _shown(self, endpoint: Endpoint, health: Health, secret: str | None = None) -> dict[str, object]:
        """`secret` only where it was just made or given."""
        shown: dict[str, object] = {
            "id": endpoint.id,
            "url": self.vault.shown_url(endpoint),
            "description": endpoint.description,
            "cvms": endpoint.cvms,
            "from": endpoint.from_,
            "to": endpoint.to,
            "types": endpoint.types,
            "format": endpoint.format,
            "headers": dict.fromkeys(endpoint.headers_sealed, HIDDEN),
            "enabled": endpoint.enabled,
            "disabled_reason": endpoint.disabled_reason,
            "created_at": endpoint.created_at,
            "pending": health.pending,
            "last_success_at": health.last_success_at,
            "last_failure_at": health.last_failure_at,
            "failing_since": health.failing_since,
        }
        return shown if secret is None else {**shown, "secret": secret}

    # Making and changing

    def _writer(self, request: Request) -> Principal:
        """Raises ProblemError 401, 403, or 503 where nothing could be kept secret."""
        principal = require_all_cvms(self.access.admin(request))
        check_query(request, ())
        self.vault.check()
        return principal

    async def make(self, request: Request) -> Response:
        principal = self._writer(request)
        given = await read_model(request, Registration)
        endpoint_id = new_endpoint_id(round(self.clock.time() * 1000))
        return await self._made(await self._drafted(endpoint_id, given), given, principal)

    async def put(self, request: Request) -> Response:
        """201 where it was made, with its secret; 200 where it was there and is now as given, whatever it was."""
        principal = self._writer(request)
        endpoint_id = request.path_params["id"]
        if not re.fullmatch(ID_PATTERN, endpoint_id):
            raise invalid("id", "1 to 64 letters, digits, dashes or underscores")
        given = await read_model(request, Registration)
        draft = await self._drafted(endpoint_id, given)
        try:
            return await self._made(draft, given, principal)
        except EndpointExistsError:
            await self.endpoints.change(endpoint_id, lambda old: self._replaced(old, draft, given.secret))
        await self._switch(endpoint_id, given.enabled)
        await self.watches.renew(draft.cvms)
        _note("an endpoint was replaced", endpoint_id, principal)
        return answer(self._shown(*await self._known(endpoint_id)))

    async def _made(self, draft: Endpoint, given: Registration, principal: Principal) -> Response:
        """201, and the secret shown this once. Raises EndpointExistsError."""
        secret = given.secret or self.vault.new_secret()
        endpoint = await self.endpoints.create(self.vault.with_secret(draft, secret))
        await self.watches.renew(endpoint.cvms)
        _note("an endpoint was made", endpoint.id, principal)
        return answer(self._shown(endpoint, Health(0), secret), 201, {"Location": f"/v1/webhooks/{endpoint.id}"})

    def _replaced(self, old: Endpoint, new: Endpoint, secret: str | None) -> Endpoint:
        """The old secret stays, unless another one is given: then that is a rotation."""
        kept = replace(new, secrets_sealed=old.secrets_sealed)
        return kept if secret is None or self.vault.signs_with(old, secret) else self.vault.rotated(kept, secret)

    async def patch(self, request: Request) -> Response:
        principal = self._writer(request)
        endpoint_id = request.path_params["id"]
        given = await read_model(request, Change)
        await self._known(endpoint_id)
        fields = await self._fields(given, given.model_fields_set)
        await self.endpoints.change(endpoint_id, lambda old: replace(old, **fields))
        if "enabled" in given.model_fields_set:
            await self._switch(endpoint_id, given.enabled)
        await self.watches.renew(fields.get("cvms", ()))
        _note("an endpoint was changed", endpoint_id, principal)
        return answer(self._shown(*await self._known(endpoint_id)))

    async def _drafted(self, endpoint_id: str, given: Registration) -> Endpoint:
        """Without a secret."""
        every = set(Registration.model_fields) - {"secret"}
        return Endpoint(endpoint_id, enabled=given.enabled, **await self._fields(given, every))

    async def _fields(self, given: Registration | Change, names: set[str]) -> dict[str, Any]:
        """These of the given fields as they rest in Redis. Raises ProblemError where one does not hold."""
        plain = {name: getattr(given, name) for name in names - {"url", "headers", "cvms", "enabled"}}
        fields = {
            name: tuple(dict.fromkeys(it)) if isinstance(it, Sequence) and not isinstance(it, str) else it
            for name, it in plain.items()
        }
        if "url" in names:
            await self._check_url(given.url)
            fields["url_sealed"] = self.vault.seal(given.url)
        if "headers" in names:
            fields["headers_sealed"] = self.vault.seal_values(given.headers)
        if "cvms" in names:
            fields["cvms"] = await self._resolved(given.cvms)
        return fields

    async def _check_url(self, url: str) -> None:
        try:
            await check_url(url, self.settings.webhook_allow, self.resolve)
        except UrlRefusedError as error:
            raise invalid("url", error.reason) from None

    async def _resolved(self, given: Sequence[str]) -> tuple[str, ...]:
        """Canonical ids, each once. What upstream says against a reference is this field's fault."""
        try:
            found = await asyncio.gather(*(self.references.resolve(reference) for reference in dict.fromkeys(given)))
        except UpstreamRefusalError as error:
            if error.answer.status not in (404, 409, 422):
                raise
            raise invalid("cvms", "one of them is not known upstream, or names several CVMs") from None
        return tuple(dict.fromkeys(found))

    async def delete(self, request: Request) -> Response:
        principal = require_all_cvms(self.access.admin(request))
        check_query(request, ())
        endpoint_id = request.path_params["id"]
        if not await self.endpoints.remove(endpoint_id):
            raise UnknownEndpointError
        _note("an endpoint was removed", endpoint_id, principal)
        return Response(None, 204, {"Cache-Control": "no-store"})

    async def enable(self, request: Request) -> Response:
        principal = require_all_cvms(self.access.admin(request))
        check_query(request, ())
        await read_model(request, Nothing, optional=True)
        endpoint_id = request.path_params["id"]
        await self.endpoints.enable(endpoint_id)
        _note("an endpoint was enabled", endpoint_id, principal)
        return answer(self._shown(*await self._known(endpoint_id)))

    async def _switch(self, endpoint_id: str, enabled: bool) -> None:
        """Only where it is otherwise: what was disabled keeps its reason, an open breaker stays open."""
        endpoint, _ = await self._known(endpoint_id)
        if enabled and not endpoint.enabled:
            await self.endpoints.enable(endpoint_id)
        elif endpoint.enabled and not enabled:
            await self.endpoints.disable(endpoint_id)

    async def rotate(self, request: Request) -> Response:
        principal = self._writer(request)
        given = await read_model(request, Rotation, optional=True)
        secret, endpoint_id = given.secret or self.vault.new_secret(), request.path_params["id"]
        await self.endpoints.change(endpoint_id, lambda old: self.vault.rotated(old, secret))
        _note("an endpoint's secret was rotated", endpoint_id, principal)
        return answer(self._shown(*await self._known(endpoint_id), secret))


def _note(what: str, endpoint_id: str, principal: Principal) -> None:
    logger.info(what, extra={"endpoint": endpoint_id, "by": principal.name})
