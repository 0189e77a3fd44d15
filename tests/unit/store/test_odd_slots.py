"""Slot records that this version cannot read: each may stand for a stream, so none of them frees a slot sooner."""

from __future__ import annotations

import json
import logging

import pytest

from bridge.store.connection import Backend
from bridge.store.leadership import Leadership, Term
from bridge.store.slots import MOST_SLOTS, Slots
from tests.fakes import HandClock

LONGEST = 700.0
LASTING = 10 * LONGEST


async def lead(backend: Backend) -> Term:
    term = await Leadership(backend).acquire("one", LASTING, "log")
    assert isinstance(term, Term)
    return term


ODD = [
    "",
    "words",
    "[]",
    "7",
    "null",
    "{}",
    '{"v":2,"stream":{"cvm":"a"}}',
    '{"holder":"h","epoch":1,"cvm":"a","since":"noon","deadline":"midnight","closing":false}',
    '{"holder":"h","epoch":1,"cvm":"a","since":null,"deadline":null}',
    '{"holder":["h"],"epoch":{},"cvm":7,"since":1e999,"deadline":-1e999}',
    '{"holder":"h","epoch":1,"cvm":"a","since":0,"deadline":1e300}',
    '{"holder":"h","epoch":1,"cvm":"a","since":1795536000,"deadline":1795536060}',
    "[" * 2000,
]


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:40])
async def test_a_record_that_cannot_be_read_is_a_quarantine_of_the_longest_life(
    backend: Backend, clock: HandClock, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    slots, term = Slots(backend), await lead(backend)
    await backend.client.hset(backend.keys.slots, "0", text)
    (holding,) = await slots.holdings()
    assert 0 < holding.remaining <= LONGEST
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert [record.state for record in await slots.list()] == ["quarantined"] + ["free"] * 4
    assert await slots.take(term, 0, "b", 130) == pytest.approx(holding.remaining)
    assert await slots.take(term, 1, "c", 130) == 0
    clock.now += holding.remaining + 1
    assert await slots.take(term, 0, "b", 130) == 0


async def test_what_can_be_read_of_another_versions_record_counts(backend: Backend, clock: HandClock) -> None:
    slots, term = Slots(backend), await lead(backend)
    record = {"v": 2, "deadline": clock.ms + 60_000, "cvm": "a", "owner": {"name": "new"}}
    await backend.client.hset(backend.keys.slots, "3", json.dumps(record))
    (holding,) = await slots.holdings()
    assert (holding.index, holding.cvm_id) == (3, "a")
    assert holding.remaining == pytest.approx(60)
    assert await slots.take(term, 0, "a", 130) == pytest.approx(60), "no second stream of this CVM either"


async def test_a_slots_key_of_another_type_quarantines_all_of_them(backend: Backend, clock: HandClock) -> None:
    slots, term = Slots(backend), await lead(backend)
    await backend.client.set(backend.keys.slots, "not what belongs here")
    assert [record.state for record in await slots.list()] == ["quarantined"] * MOST_SLOTS
    assert await slots.take(term, 2, "a", 130) == pytest.approx(LONGEST)
    assert len(await slots.holdings()) == MOST_SLOTS
    clock.now += LONGEST + 1
    assert [record.state for record in await slots.list()] == ["free"] * MOST_SLOTS
    assert await slots.take(term, 2, "a", 130) == 0


@pytest.mark.parametrize("index", ["5", "-1", "00", "x", "1e1", "999999999999", ""])
async def test_a_field_that_names_no_slot_is_removed(backend: Backend, clock: HandClock, index: str) -> None:
    await backend.client.hset(backend.keys.slots, index, '{"deadline":9e14}')
    assert len(await Slots(backend).list()) == MOST_SLOTS
    assert await Slots(backend).holdings() == []
    assert not await backend.client.exists(backend.keys.slots)


async def test_looking_at_the_slots_writes_nothing(backend: Backend, clock: HandClock) -> None:
    """A front end of an older version must not rewrite a newer leader's records."""
    await backend.client.hset(backend.keys.slots, mapping={"0": '{"v":2}', "x": "y"})
    await Slots(backend).list()
    assert await backend.client.hgetall(backend.keys.slots) == {"0": '{"v":2}', "x": "y"}


async def test_freeing_and_holding_beside_odd_records_work(backend: Backend, clock: HandClock) -> None:
    slots, term = Slots(backend), await lead(backend)
    assert await slots.take(term, 1, "a", 130) == 0
    await backend.client.hset(backend.keys.slots, mapping={"0": "words", "x": "y"})
    await slots.hold(await slots.holdings())
    assert await slots.free(term, 1, 0.5)
    assert not await slots.free(term, 0, 0.5)
    assert [record.state for record in await slots.list()] == ["quarantined", "settling", "free", "free", "free"]
