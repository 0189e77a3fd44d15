"""What the list tells of apps and operations: it counts while the batch route tells nothing, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.config import Settings
from bridge.readiness import Operation, Told
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.upstream.client import Listed
from bridge.upstream.errors import BatchAbsentError, ServerError, UpstreamError
from tests.fakes import fake_backend
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

SETTINGS = Settings(cvms=("*",), poll_interval=10)
LISTED = 35.0
"""Seconds until a list is there that was asked for after this moment."""


class Teller(ModelClient):
    """`listed`, `batched`: whether an operation is in progress, as each of the routes tells it; None: it does not."""

    listed: bool | None = False
    batched: bool | None = None
    trouble: type[UpstreamError] | None = None
    """Of the batch route."""

    def _listed(self, name: str, status: str) -> Listed:
        told = None if self.listed is None else Told(Operation() if self.listed else None)
        return Listed(vm_uuid=name, name=name, status=status, app_id=f"app-{name}", told=told)

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        if self.trouble is not None:
            raise self.trouble
        told = {} if self.batched is None else {"in_progress": self.batched}
        return {name: answer | told for name, answer in (await super().batch(ids)).items()}


async def _ready(backend: Backend) -> bool | None:
    return (await Snapshots(backend).get(["a"]))["a"].ready


@pytest.mark.parametrize("trouble", [None, BatchAbsentError, ServerError])
def test_operations_are_taken_from_the_list_while_the_batch_route_tells_nothing(
    trouble: type[UpstreamError] | None,
) -> None:
    async def scenario() -> None:
        async with one_leader(SETTINGS, Cloud(["a"]), Teller) as (client, backend, _):
            client.trouble = trouble
            for listed in (False, True, False):
                client.listed = listed
                await asyncio.sleep(LISTED)
                assert await _ready(backend) is not listed

    run_virtual(scenario())


@pytest.mark.parametrize("trouble", [None, BatchAbsentError, ServerError])
def test_the_list_counts_again_once_the_batch_route_has_told_nothing_for_some_time(
    trouble: type[UpstreamError] | None,
) -> None:
    async def scenario() -> None:
        async with one_leader(SETTINGS, Cloud(["a"]), Teller) as (client, backend, _):
            client.batched, client.listed = True, False
            await asyncio.sleep(LISTED)
            assert await _ready(backend) is False
            client.batched, client.trouble = None, trouble
            await asyncio.sleep(3 * SETTINGS.poll_interval + LISTED)
            assert await _ready(backend) is True

    run_virtual(scenario())


def test_a_list_that_contradicts_the_batch_route_causes_no_event_also_after_a_takeover() -> None:
    async def scenario() -> None:
        cloud, backend = Cloud(["a"]), fake_backend()
        for _ in range(2):
            async with one_leader(SETTINGS, cloud, Teller, backend) as (client, _, _):
                client.batched, client.listed = True, False
                await asyncio.sleep(300)
        ready = [json.loads(event.json)["data"]["ready"] for event in await Log(backend).read("0-0", 99)]
        assert ready[-1] is False
        assert len(ready) <= 2
        await backend.close()

    run_virtual(scenario())


def test_the_app_that_the_list_tells_is_in_the_first_event() -> None:
    async def scenario() -> None:
        async with one_leader(SETTINGS, Cloud(["a"]), Teller) as (_, backend, _):
            await asyncio.sleep(LISTED)
            (event,) = [event for event in await Log(backend).read("0-0", 99) if event.type == "cvm.state"]
            assert json.loads(event.json)["data"]["app_id"] == "app-a"

    run_virtual(scenario())
