"""Slots and the lease when Redis was flushed or its clock stepped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.store.connection import Backend
from bridge.store.errors import FencedError
from bridge.store.holdings import Holding
from bridge.store.leadership import Leadership, Term
from bridge.store.slots import Slots
from tests.fakes import HandClock


async def lead(backend: Backend, holder: str) -> Term:
    term = await Leadership(backend).acquire(holder, 10, f"log of {holder}")
    assert isinstance(term, Term)
    return term


async def test_a_lease_lasts_no_longer_than_its_length_although_the_clock_stepped_back(
    backend: Backend, clock: HandClock
) -> None:
    await lead(backend, "one")
    clock.now -= 3600
    assert await Leadership(backend).acquire("two", 60, "b") == pytest.approx(10)
    clock.now += 10
    assert (await lead(backend, "two")).ran_out == "one"


async def test_who_takes_over_learns_how_the_lead_ended_and_how_old_the_log_is(
    backend: Backend, clock: HandClock
) -> None:
    first = await lead(backend, "one")
    assert (first.ran_out, first.age) == ("", 0)
    await Leadership(backend).resign(first)
    clock.now += 3
    second = await lead(backend, "two")
    assert second.ran_out == ""
    assert second.age == pytest.approx(3)


async def test_a_vanished_holders_slot_is_free_after_its_whole_life_although_the_clock_stepped_back(
    backend: Backend, clock: HandClock
) -> None:
    slots = Slots(backend)
    await slots.take(await lead(backend, "one"), 0, "a", 130)
    clock.now -= 3600
    assert (await slots.list())[0].remaining == pytest.approx(130)
    assert isinstance(await Leadership(backend).acquire("two", 10, "b"), float)
    clock.now += 10
    term = await lead(backend, "two")
    assert await slots.take(term, 0, "b", 130) == pytest.approx(130)
    clock.now += 131
    assert await slots.take(term, 0, "b", 130) == 0


async def test_what_redis_forgot_is_held_again_under_its_old_holder_who_alone_frees_it(
    backend: Backend, clock: HandClock
) -> None:
    slots = Slots(backend)
    old = await lead(backend, "one")
    await slots.take(old, 2, "a", 130)
    held = [holding for holding in await slots.holdings() if not holding.closed]
    clock.now += 30
    await backend.client.flushall()
    new = await lead(backend, "two")
    await slots.hold([Holding(2, *each) for each in [(old.holder, old.epoch, "a", 130.0, 100.0)]])
    assert [held[0].remaining, held[0].index] == [pytest.approx(130), 2]
    assert await slots.take(new, 2, "b", 130) == pytest.approx(100)
    assert await slots.take(new, 0, "a", 130) == pytest.approx(100)
    assert await slots.free(new, 2, 0) is False
    assert await slots.free(old, 2, 0) is True


async def test_holding_neither_shortens_a_slot_nor_touches_another_holders_or_a_closed_one(
    backend: Backend, clock: HandClock
) -> None:
    slots = Slots(backend)
    term = await lead(backend, "one")
    for index in range(3):
        await slots.take(term, index, f"cvm-{index}", 50)
    await slots.free(term, 2, 1)
    await slots.hold(
        [
            Holding(0, "one", term.epoch, "cvm-0", 130, 20),
            Holding(1, "stranger", 7, "cvm-1", 130, 120),
            Holding(2, "one", term.epoch, "cvm-2", 130, 120),
        ]
    )
    assert [round(record.remaining) for record in await slots.list()] == [50, 50, 1, 0, 0]
    await slots.hold([Holding(0, "one", term.epoch, "cvm-0", 130, 120)])
    assert (await slots.list())[0].remaining == pytest.approx(120)


async def test_who_asks_for_the_lead_again_after_a_lost_answer_still_learns_whose_lease_ran_out(
    backend: Backend, clock: HandClock
) -> None:
    await lead(backend, "one")
    clock.now += 11
    assert (await lead(backend, "two")).ran_out == "one"
    again = await lead(backend, "two")
    assert again.ran_out == "one"
    await Leadership(backend).resign(again)
    assert (await lead(backend, "three")).ran_out == ""


async def test_a_renewal_writes_the_held_slots_again_and_marks_those_that_nobody_uses(
    backend: Backend, clock: HandClock
) -> None:
    slots, term = Slots(backend), await lead(backend, "one")
    await slots.take(term, 0, "a", 145)
    held = (await slots.holdings())[0]
    await backend.client.delete(backend.keys.slots)
    await Leadership(backend).renew(term, 10, 3, [held])
    assert await slots.holdings() == [held]
    await Leadership(backend).renew(term, 10, 3, [replace(held, quarantined=True)])
    assert (await slots.list())[0].state == "quarantined"
    clock.now += 10
    await slots.free(term, 0, 0.5)
    await Leadership(backend).renew(term, 10, 3, [replace(held, remaining=135)])
    assert (await slots.list())[0].state == "settling", "this renewal was on its way while the slot was freed"
    clock.now += 1
    await Leadership(backend).renew(term, 10, 3, [replace(held, remaining=145)])
    assert (await slots.list())[0].state == "held", "another stream of the same CVM"


async def test_a_fenced_leader_renews_no_slots(backend: Backend) -> None:
    slots, term = Slots(backend), await lead(backend, "one")
    await backend.client.flushall()
    with pytest.raises(FencedError):
        await Leadership(backend).renew(term, 10, 3, [Holding(0, "one", 1, "a", 145, 145)])
    assert await slots.holdings() == []


async def test_a_slot_of_a_term_that_redis_went_back_to_is_held_again(backend: Backend, clock: HandClock) -> None:
    slots, term = Slots(backend), await lead(backend, "one")
    await slots.take(term, 0, "a", 145)
    clock.now += 5
    older = await backend.client.hgetall(backend.keys.slots)
    await slots.free(term, 0, 0.5)
    clock.now += 1
    await slots.take(term, 0, "b", 145)
    held = (await slots.holdings())[0]
    await backend.client.hset(backend.keys.slots, mapping=older)
    await Leadership(backend).renew(term, 10, 3, [held])
    assert (await slots.list())[0].cvm_id == "b"
