"""References that cannot be resolved yet, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.config import Settings
from bridge.events import parse_state
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.upstream.client import ListPage, Reading, StreamEvent
from bridge.upstream.errors import UnparsableError
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

REFERENCES = tuple(f"vm_{number}" for number in range(4))


class Maintained(ModelClient):
    """Takes another form of reference too, and answers with a page for people while `closed`. A state has its `id` if
    `named`."""

    closed = True
    named = True

    def _page(self) -> None:
        if self.closed:
            raise UnparsableError("not a JSON object")

    async def read_state(self, ref: str) -> Reading:
        self._page()
        reading = await super().read_state(ref.removeprefix("vm_"))
        return reading if self.named else Reading(parse_state('{"status":"running"}'), reading.sent_at, reading.made_at)

    async def list_page(self, number: int) -> ListPage:
        self._page()
        return await super().list_page(number)

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        self._page()
        ref = ref.removeprefix("vm_")
        async with super().stream(ref, target=target, interval=interval, timeout=timeout) as events:
            yield events


@pytest.mark.parametrize("named", [True, False])
def test_a_page_for_people_at_the_start_makes_no_watch_under_a_reference(named: bool) -> None:
    run_virtual(_start_behind_a_page(named))


async def _start_behind_a_page(named: bool) -> None:
    cloud = Cloud([reference.removeprefix("vm_") for reference in REFERENCES])
    async with one_leader(Settings(cvms=REFERENCES), cloud, Maintained) as (client, backend, _):
        client.named = named
        await asyncio.sleep(30)
        assert (await Watches(backend).survey()).watches == {}
        client.closed = False
        await asyncio.sleep(90)
        expected = set(cloud.status) if named else set()
        assert (await Snapshots(backend).all()).keys() == set(cloud.open) == expected
    assert cloud.broken == []
