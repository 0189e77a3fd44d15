"""A front end without its socket, for tests of the webhook routes on a real Redis."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.config_values import Allowlist
from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend, connect
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.web.app import FrontEnd

KEY = new_key()
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()
URL = "http://127.0.0.1:9/hook"
TOKENS = "root:root-token:admin reader:read-token:read one:one-token:read:cvm-1 some:some-token:admin:cvm-1"

READER = {"Authorization": "Bearer read-token"}


class Api(httpx.AsyncClient):
    """A front end without its socket, asked as `root`; `stored` is what Redis has of an endpoint."""

    backend: Backend
    asgi: httpx.ASGITransport

    async def made(self, **fields: Any) -> dict[str, Any]:
        answer = await self.post("/v1/webhooks", json={"url": URL, **fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def shown(self, endpoint_id: str) -> dict[str, Any]:
        answer = await self.get(f"/v1/webhooks/{endpoint_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def stored(self, endpoint_id: str) -> Endpoint:
        found = await Endpoints(self.backend).get(endpoint_id)
        assert found is not None
        return found[0]

    async def secrets(self, endpoint_id: str) -> list[tuple[str, bool]]:
        """Its signing secrets in their order, and whether each one ends."""
        sealer = Sealer([SecretStr(KEY)])
        stored = await self.stored(endpoint_id)
        return [(sealer.open(each.text), each.expires_at_ms is not None) for each in stored.secrets_sealed]


@asynccontextmanager
async def front(redis_url: str, *, clock: Clock | None = None, **given: Any) -> AsyncIterator[Api]:
    chosen = {"tokens": TOKENS, "secret_key": KEY, "webhook_allow": with_loopback(Allowlist()), **given}
    settings = Settings(**chosen)
    backend = connect(redis_url, settings.namespace)
    try:
        app = FrontEnd(settings, backend, clock or SystemClock()).app
        headers = {"Authorization": "Bearer root-token"}
        asgi = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with Api(transport=asgi, base_url="http://bridge", headers=headers) as client:
            client.backend, client.asgi = backend, asgi
            yield client
    finally:
        await backend.close()


def fields(answer: httpx.Response) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:bridge:problem:invalid"
    return [error["field"] for error in answer.json()["errors"]]
