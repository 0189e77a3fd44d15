"""Public keys: what requests without a token may cost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from starlette.requests import Request

from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import UnknownEndpointError
from bridge.web.api.public_keys import READS_AT_ONCE, PublicKeyRoutes
from bridge.web.api.webhook_secrets import WebhookSecrets
from bridge.web.http.access import ANYBODY
from bridge.web.http.operations import Call
from bridge.web.http.page_turns import PageTurns
from tests.virtual import VirtualClock, run_virtual


class SlowRedis:
    """Knows no endpoint, and takes a second to say so."""

    now = most = asked = 0

    async def registration(self, endpoint_id: str) -> Endpoint:
        self.now += 1
        self.asked += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(1)
        self.now -= 1
        raise UnknownEndpointError


def test_however_many_ask_few_reads_run_at_once_and_names_that_cannot_be_cost_none() -> None:
    async def scenario() -> None:
        redis = SlowRedis()
        routes: Any = PublicKeyRoutes(
            cast(Endpoints, redis), WebhookSecrets((), VirtualClock()), PageTurns(READS_AT_ONCE)
        )

        async def ask(name: str) -> None:
            call = Call(
                routes.get_public_keys.operation, Request({"type": "http", "path_params": {"name": name}}), ANYBODY
            )
            with pytest.raises(UnknownEndpointError):
                await routes.get_public_keys(call)

        await asyncio.gather(*(ask(f"e{number}.x") for number in range(5 * READS_AT_ONCE)))
        assert (redis.most, redis.asked) == (READS_AT_ONCE, 5 * READS_AT_ONCE)
        await asyncio.gather(*(ask(name) for name in ("", ".", "e", "e.", ".x", "e/x.y", "e" * 65 + ".x")))
        assert redis.asked == 5 * READS_AT_ONCE

    run_virtual(scenario())
