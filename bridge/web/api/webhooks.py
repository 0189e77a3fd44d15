"""The routes of webhook endpoints (`docs/contract.md#webhooks`).

An endpoint that names CVMs has them watched from its registration on; the dispatchers renew these watches
(`webhooks/dispatcher.py`). Creating and changing needs the scope `admin`. For a token that is limited to CVMs there
are only the endpoints that it made (`endpoint_owners.py`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from secrets import token_hex
from typing import Any

from starlette.responses import Response

from bridge.addresses import Resolve, UrlRefusedError, check_url
from bridge.clock import Clock, rfc3339
from bridge.config import Settings
from bridge.reference_sets import parse
from bridge.sealing import SealError
from bridge.store.endpoint_notices import about_endpoint, health_word
from bridge.store.endpoint_record import ID_PATTERN, Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints, Health
from bridge.store.errors import BrokenEndpointError, EndpointExistsError, UnknownEndpointError
from bridge.store.watches import Watches
from bridge.web.api import answers
from bridge.web.api.deliveries import ENDPOINT_ID
from bridge.web.api.endpoint_owners import EndpointOwners, may_have, owned
from bridge.web.api.idempotency import IDEMPOTENCY_KEY, IdempotencyKey, idempotency_key
from bridge.web.api.public_keys import keys_url
from bridge.web.api.references import ReferenceRefusedError, References
from bridge.web.api.webhook_models import HIDDEN, EmptyBody, EndpointChange, EndpointRegistration, SecretRotation
from bridge.web.api.webhook_secrets import WebhookSecrets
from bridge.web.http.access import Principal
from bridge.web.http.operations import LOCATION, NO_BODY, WEBHOOKS, Call, Resource, json_answer
from bridge.web.http.parameters import AFTER, LIMIT, moment
from bridge.web.http.problems import ProblemType, invalid
from bridge.web.http.responses import empty_response, json_response, page_response
from bridge.webhook_keys import public_text

logger = logging.getLogger(__name__)

ENDPOINTS = Resource("/v1/webhooks", WEBHOOKS)
ENDPOINT = Resource("/v1/webhooks/{id}", WEBHOOKS, (ENDPOINT_ID,), (ProblemType.NO_SUCH_ENDPOINT,))
BROKEN_OR_NO_KEY = (ProblemType.ENDPOINT_BROKEN, ProblemType.NO_SECRET_KEY)
FULL_OR_NO_KEY = (ProblemType.TOO_MANY_ENDPOINTS, ProblemType.NO_SECRET_KEY)

MOST_LOOKED_AT = 1000
"""Endpoints that one page of a limited token looks through for its own; it may be empty and have a `next`."""

REPEATED_MS = 86_400_000
"""For so long a repetition of the request that made an endpoint shows its secret again."""

ID_DIGITS = 23
"""As many as other ids that the bridge makes have."""

SHOWN = json_answer("The endpoint", answers.Endpoint)
MADE = json_answer("Made, with its secret", answers.EndpointWithSecret, LOCATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRoutes:
    """Registration, change and removal of endpoints."""

    settings: Settings
    references: References
    watches: Watches
    endpoints: Endpoints
    secrets: WebhookSecrets
    resolve: Resolve
    clock: Clock
    owners: EndpointOwners

    @ENDPOINTS(
        "POST",
        {200: json_answer("A repetition, later: the endpoint as it is now", answers.Endpoint, LOCATION), 201: MADE},
        ProblemType.ENDPOINT_BROKEN,
        ProblemType.NO_SUCH_ENDPOINT,
        *FULL_OR_NO_KEY,
        scope="admin",
        parameters=(IDEMPOTENCY_KEY,),
        body=EndpointRegistration,
    )
    async def make_endpoint(self, call: Call) -> Response:
        """Register a URL.

        Only this answer shows the signing secret. With an `Idempotency-Key` it may be repeated, and shows the secret
        for 24 hours, unless that is rotated.
        """
        self.secrets.check()
        key = idempotency_key(call)
        given = await call.body(EndpointRegistration)
        if key is None:
            endpoint_id = _new_id(round(self.clock.time() * 1000))
            return await self._made(await self._drafted(endpoint_id, given, call.principal), given, call)
        endpoint_id = f"wh_{key.id_part(ID_DIGITS)}"
        if await self.endpoints.get(endpoint_id) is None:
            draft = await self._drafted(endpoint_id, given, call.principal)
            with contextlib.suppress(EndpointExistsError):
                return await self._made(draft, given, call, key)
        return await self._repeated(endpoint_id, given, call, key)

    @ENDPOINTS("GET", {200: json_answer("A page", answers.EndpointPage)}, scope="read", parameters=(LIMIT, AFTER))
    async def list_endpoints(self, call: Call) -> Response:
        """Registered URLs."""
        size, principal = call.get(LIMIT), call.principal
        look_at = size + 1 if principal.cvms is None else MOST_LOOKED_AT
        read = await self.endpoints.page(call.get(AFTER), look_at)
        found = [each for each in read if may_have(principal, each[0])]
        last = found[size - 1] if len(found) > size else read[-1] if len(read) == look_at else None
        return page_response((self._shown(*each, principal) for each in found[:size]), last and last[0].id)

    @ENDPOINT("GET", {200: SHOWN}, scope="read")
    async def get_endpoint(self, call: Call) -> Response:
        """One endpoint."""
        return await self._answered(call)

    @ENDPOINTS(
        "PUT /{id}",
        {200: json_answer("It existed, and is now as given", answers.Endpoint), 201: MADE},
        *FULL_OR_NO_KEY,
        ProblemType.NO_SUCH_ENDPOINT,
        scope="admin",
        parameters=(ENDPOINT_ID,),
        body=EndpointRegistration,
    )
    async def put_endpoint(self, call: Call) -> Response:
        """Register or replace under an id of your own.

        May be repeated. A replaced endpoint keeps its secret unless another is given; one that is broken is made anew.
        """
        self.secrets.check()
        endpoint_id = call.path("id")
        if not re.fullmatch(ID_PATTERN, endpoint_id):
            raise invalid("id", "1 to 64 letters, digits, dashes or underscores")
        given = await call.body(EndpointRegistration)
        draft = await self._drafted(endpoint_id, given, call.principal)
        try:
            return await self._made(draft, given, call)
        except EndpointExistsError:
            pass
        try:
            changed = await self._change(call, lambda old: self._replaced(old, draft, given.secret))
        except BrokenEndpointError:
            await self._known(call)  # only an administrator may make it anew
            await self.endpoints.remove(endpoint_id)
            return await self._made(draft, given, call)
        await self._switch(call, given.enabled)
        await self.watches.renew(changed.demands.cvm_ids)
        _log("an endpoint was replaced", endpoint_id, call)
        return await self._answered(call)

    @ENDPOINT("PATCH", {200: SHOWN}, *BROKEN_OR_NO_KEY, scope="admin", body=EndpointChange)
    async def change_endpoint(self, call: Call) -> Response:
        """Change some of its fields. A `url` on another host drops the headers unless they are sent again."""
        self.secrets.check()
        endpoint_id = call.path("id")
        given = await call.body(EndpointChange)
        await self._known(call)
        fields = await self._fields(given, given.model_fields_set, call.principal)
        changed = await self._change(call, lambda old: self._changed(old, given, fields))
        if "enabled" in given.model_fields_set:
            await self._switch(call, given.enabled)
        await self.watches.renew(changed.demands.cvm_ids if "cvms" in fields else ())
        _log("an endpoint was changed", endpoint_id, call)
        return await self._answered(call)

    @ENDPOINT("DELETE", {204: NO_BODY}, scope="admin")
    async def remove_endpoint(self, call: Call) -> Response:
        """Remove it with its deliveries."""
        await self._known(call)
        if not await self.endpoints.remove(call.path("id")):
            raise UnknownEndpointError
        _log("an endpoint was removed", call.path("id"), call)
        return empty_response()

    @ENDPOINT(
        "POST /rotate-secret",
        {200: json_answer("The endpoint, with the new secret", answers.EndpointWithSecret)},
        *BROKEN_OR_NO_KEY,
        scope="admin",
        body=SecretRotation,
        body_required=False,
    )
    async def rotate_secret(self, call: Call) -> Response:
        """A new signing secret, and a new key pair if the endpoint has one.

        The old ones still sign, beside the new ones, for `overlap_seconds`.
        """
        self.secrets.check()
        given = await call.body(SecretRotation)
        secret = given.secret or self.secrets.new_secret()
        await self._change(call, lambda old: self.secrets.rotated(old, secret, given.overlap_seconds))
        _log("an endpoint's secret was rotated", call.path("id"), call)
        return await self._answered(call, secret)

    @ENDPOINT(
        "POST /enable", {200: SHOWN}, ProblemType.ENDPOINT_BROKEN, scope="admin", body=EmptyBody, body_required=False
    )
    async def enable_endpoint(self, call: Call) -> Response:
        """Deliver to it again."""
        await call.body(EmptyBody)
        if (await self._known(call))[0].broken:
            raise BrokenEndpointError
        await self.endpoints.enable(call.path("id"))
        _log("an endpoint was enabled", call.path("id"), call)
        return await self._answered(call)

    async def _answered(self, call: Call, secret: str | None = None) -> Response:
        """The endpoint as it is now. Raises UnknownEndpointError."""
        return json_response(self._shown(*await self._known(call), call.principal, secret))

    async def _known(self, call: Call) -> tuple[Endpoint, Health]:
        """Raises UnknownEndpointError, also if it is not the caller's."""
        found = await self.endpoints.get(call.path("id"))
        if found is None or not may_have(call.principal, found[0]):
            raise UnknownEndpointError
        return found

    async def _change(self, call: Call, edit: Callable[[Endpoint], Endpoint]) -> Endpoint:
        """Raises UnknownEndpointError, also if it is not the caller's; BrokenEndpointError."""

        def edited(old: Endpoint) -> Endpoint:
            if not may_have(call.principal, old):
                raise UnknownEndpointError
            return edit(old)

        return await self.endpoints.change(call.path("id"), edited)

    def _shown(
        self, endpoint: Endpoint, health: Health, principal: Principal, secret: str | None = None
    ) -> answers.Endpoint:
        """`secret` only in the answer to the request that made or gave it."""
        shown: dict[str, Any] = {
            **asdict(endpoint),
            **asdict(health),
            "health": health_word(endpoint, health),
            "url": self.secrets.shown_url(endpoint, path=principal.admin),
            "headers": dict.fromkeys(endpoint.headers_sealed, HIDDEN),
            "public_keys": self._public_keys(endpoint),
            "public_keys_url": keys_url(endpoint, self.settings.public_url),
            "owner": endpoint.owner or None,
            "limited_to": endpoint.reach,
            "created_at": endpoint.created_at or None,
        }
        if secret is None:
            return answers.Endpoint.model_construct(**shown)
        return answers.EndpointWithSecret.model_construct(**shown, secret=secret)

    def _public_keys(self, endpoint: Endpoint) -> list[answers.PublicKey] | None:
        try:
            found = self.secrets.public_keys(endpoint)
        except SealError:
            return None
        ends = [(public_text(key), None if end is None else rfc3339(end / 1000)) for key, end in found]
        return [answers.PublicKey(key=key, expires_at=end) for key, end in ends]

    async def _made(
        self, draft: Endpoint, given: EndpointRegistration, call: Call, key: IdempotencyKey | None = None
    ) -> Response:
        """201 with the secret, which is shown only now. Raises EndpointExistsError or TooManyEndpointsError."""
        secret = given.secret or self.secrets.new_secret()
        sealed = (SealedSecret(self.secrets.seal(secret)),)
        request = key.mark(given, secret) if key else ""
        made = replace(draft, secrets_sealed=sealed, request=request)
        endpoint = await self.endpoints.create(owned(self.secrets.with_keys(made), call.principal))
        self.owners.made(endpoint)
        await self.watches.renew(endpoint.demands.cvm_ids)
        _log("an endpoint was made", endpoint.id, call)
        return json_response(
            self._shown(endpoint, Health(0), call.principal, secret), 201, {"Location": f"/v1/webhooks/{endpoint.id}"}
        )

    async def _repeated(
        self, endpoint_id: str, given: EndpointRegistration, call: Call, key: IdempotencyKey
    ) -> Response:
        """201 with the secret for a day, then 200 without. Raises ProblemError 422 for another body.

        Raises UnknownEndpointError if it is removed meanwhile.
        """
        found = await self.endpoints.get(endpoint_id)
        if found is None:
            raise UnknownEndpointError
        endpoint, health = found
        if endpoint.broken:
            raise BrokenEndpointError
        if not may_have(call.principal, endpoint) or not key.is_of(endpoint.request, given):
            raise invalid(IDEMPOTENCY_KEY.name, "another request was made with this key")
        secret = self.secrets.current(endpoint)
        is_new = self.clock.time() * 1000 - moment("created_at", endpoint.created_at) < REPEATED_MS
        shows = secret is not None and is_new and key.made_with(endpoint.request, secret)
        shown = self._shown(endpoint, health, call.principal, secret if shows else None)
        return json_response(shown, 201 if shows else 200, {"Location": f"/v1/webhooks/{endpoint_id}"})

    def _changed(self, old: Endpoint, given: EndpointChange, fields: Mapping[str, Any]) -> Endpoint:
        """The header values are not shown: a caller that may only change the URL must not have them sent elsewhere."""
        elsewhere = "url" in given.model_fields_set and self.secrets.leads_elsewhere(old, given.url)
        return self.secrets.with_keys(replace(old, **{"headers_sealed": {}, **fields} if elsewhere else fields))

    def _replaced(self, old: Endpoint, new: Endpoint, secret: str | None) -> Endpoint:
        """`new` with the old secret and key pair; another secret that is given is a rotation."""
        kept = replace(
            new,
            secrets_sealed=old.secrets_sealed,
            keys_sealed=old.keys_sealed,
            keys_suffix=old.keys_suffix,
            owner=old.owner,
            reach=old.reach,
        )
        kept = self.secrets.with_keys(kept)
        return kept if secret is None or self.secrets.signs_with(old, secret) else self.secrets.rotated(kept, secret)

    async def _drafted(self, endpoint_id: str, given: EndpointRegistration, principal: Principal) -> Endpoint:
        """The endpoint without a secret. Raises as `_fields`."""
        every = set(EndpointRegistration.model_fields) - {"secret"}
        return Endpoint(endpoint_id, enabled=given.enabled, **await self._fields(given, every, principal))

    async def _fields(self, given: EndpointChange, names: set[str], principal: Principal) -> dict[str, Any]:
        """The fields of these names, as they are stored in Redis. Raises ProblemError 403, 422 or 503."""
        plain = {name: getattr(given, name) for name in names - {"url", "headers", "cvms", "enabled"}}
        fields = {name: tuple(dict.fromkeys(it)) if isinstance(it, list) else it for name, it in plain.items()}
        if "url" in names:
            try:
                await check_url(given.url, self.settings.webhook_allow, self.resolve)
            except UrlRefusedError as error:
                raise invalid("url", error.reason) from None
            fields["url_sealed"] = self.secrets.seal(given.url)
        if "headers" in names:
            fields["headers_sealed"] = {name: self.secrets.seal(value) for name, value in given.headers.items()}
        if "cvms" in names:
            fields["cvms"] = await self._resolved(given.cvms, principal)
        return fields

    async def _resolved(self, given: Sequence[str], principal: Principal) -> tuple[str, ...]:
        """Canonical ids and sets, each once. A reference that upstream refuses is a fault of this field."""
        sets = [each for each in given if parse(each).is_set]
        names = tuple(dict.fromkeys(each for each in given if not parse(each).is_set))
        try:
            found = await self.references.resolve_all(names, principal)
        except ReferenceRefusedError as error:
            if error.answer.status not in (404, 409, 422):
                raise
            raise invalid("cvms", "upstream does not know one of them, or one names several CVMs") from None
        return tuple(dict.fromkeys([*found, *sets]))

    async def _switch(self, call: Call, enabled: bool) -> None:
        """Only if it is not so already: a disabled endpoint keeps its reason, an open breaker stays open."""
        endpoint, _ = await self._known(call)
        if enabled and not endpoint.enabled:
            await self.endpoints.enable(endpoint.id)
        elif endpoint.enabled and not enabled:
            url = self.secrets.shown_url(endpoint, path=False)
            await self.endpoints.disable(endpoint.id, about=about_endpoint(url, endpoint.description))


def _new_id(ms: int) -> str:
    """A random id that sorts by the time (Unix milliseconds) it was made at."""
    return f"wh_{ms:011x}{token_hex(6)}"


def _log(message: str, endpoint_id: str, call: Call) -> None:
    logger.info(message, extra={"endpoint": endpoint_id, "by": call.principal.name})
