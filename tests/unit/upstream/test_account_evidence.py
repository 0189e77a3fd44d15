"""An account is not blocked, and no pin is lost, by an answer that says nothing against the key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.upstream.errors import UnauthorizedError, UnparsableError
from bridge.upstream.resolver import Resolver
from bridge.upstream.workspace import Workspace
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.unit.upstream.test_answers import leading
from tests.virtual import run_virtual


async def test_a_state_that_is_not_valid_shows_that_the_key_is_accepted_again(backend: Backend) -> None:
    context = await leading(backend, UnparsableError(status=200))
    context.budget.unauthorized(900.0, context.rng, "x", at_once=True)
    assert (await Resolver(context, Workspace(context)).look_up("b")).status == 503
    assert not context.budget.is_blocked


class NoBatches(ModelClient):
    """The batch route takes no API key; the state route does."""

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        await self._reach()
        raise UnauthorizedError(status=401)


def test_a_batch_route_that_refuses_the_key_leaves_look_ups_answered() -> None:
    run_virtual(_without_batches())


async def _without_batches() -> None:
    names = [f"cvm-{number}" for number in range(6)]
    chosen, blocked = Settings(cvms=tuple(names), poll_interval=10, stream_timeout=60), 0
    async with one_leader(chosen, Cloud([*names, "new"]), NoBatches) as (_, _, upstream):
        await asyncio.sleep(60)
        for _ in range(300):
            await asyncio.sleep(1)
            assert upstream.context is not None
            blocked += upstream.context.budget.is_blocked
    assert blocked == 0
