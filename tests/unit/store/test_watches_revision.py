"""A survey that is known is read again after any change, and after nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from bridge.store.connection import Backend
from bridge.store.watches import Watches
from tests.fakes import HandClock

Change = Callable[[Watches], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "a new watch": lambda watches: watches.want("new"),
    "a pin of a watch": lambda watches: watches.pin("old"),
    "an unpin": lambda watches: watches.unpin("pinned"),
    "config pins": lambda watches: watches.change_config_pins(["old"]),
    "more demand": lambda watches: watches.announce("front", {"old": 2}, 15),
    "demand for a set": lambda watches: watches.announce("front", {"old": 1, "app_1": 1}, 15),
    "another front end": lambda watches: watches.announce("other", {"old": 1}, 15),
    "a front end that ends": lambda watches: watches.retire("front"),
}


async def prepared(backend: Backend) -> Watches:
    watches = Watches(backend)
    await watches.want("old")
    await watches.pin("pinned")
    await watches.announce("front", {"old": 1}, 15)
    return watches


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_every_change_of_watches_pins_and_demand_is_in_the_next_survey(backend: Backend, change: Change) -> None:
    watches = await prepared(backend)
    known = await watches.survey()
    await change(watches)
    found = await watches.survey(known)
    assert found.revision != known.revision
    assert found == await Watches(backend).survey()


async def test_demand_that_is_announced_again_or_a_watch_that_is_renewed_is_no_change(backend: Backend) -> None:
    watches = await prepared(backend)
    known = await watches.survey()
    await watches.announce("front", {"old": 1}, 15)
    await watches.want("old")
    await watches.sweep()
    assert (await watches.survey(known)).revision == known.revision


async def test_demand_that_expired_is_a_change_once_it_is_swept(backend: Backend, clock: HandClock) -> None:
    watches = await prepared(backend)
    known = await watches.survey()
    clock.now += 16
    await watches.sweep()
    assert (await watches.survey(known)).demand == {}


async def test_an_announcement_that_was_swept_is_a_change_when_it_comes_again(
    backend: Backend, clock: HandClock
) -> None:
    watches = await prepared(backend)
    clock.now += 16
    await Watches(backend).sweep()
    known = await watches.survey()
    await watches.announce("front", {"old": 1}, 15)
    assert (await watches.survey(known)).demand == {"old": 1}


async def test_after_a_flush_everything_is_read(backend: Backend) -> None:
    watches = await prepared(backend)
    known = await watches.survey()
    await backend.client.flushall()
    assert (await watches.survey(known)).watches == {}
    await backend.client.zadd(backend.keys.watches, {"of an older version": 1})
    assert list((await watches.survey(await watches.survey(known))).watches) == ["of an older version"]
