"""The store where time matters: a Redis whose clock the test stops, runs and sets back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bridge.events import Draft, entry_key
from bridge.store.connection import Backend
from bridge.store.errors import FencedError, LostTailError, StillWantedError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from tests.fakes import HandClock

DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1"}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running"}', "running", "n", "t", "t")


async def lead(backend: Backend, holder: str = "one", last_id: str = "0-0", log_id: str = "b") -> Term:
    term = await Leadership(backend).acquire(holder, 10, log_id, last_id)
    assert isinstance(term, Term)
    return term


def start(term: Term) -> WritePosition:
    return WritePosition(term.sequence, term.last_id)


async def append(backend: Backend, term: Term, written: WritePosition, log_length: int = 100) -> WritePosition:
    return await LogWriter(backend, log_length).append(term, written, DRAFT, SNAPSHOT, ran=False)


async def test_ids_grow_while_the_clock_stands_and_when_it_steps_back(backend: Backend, clock: HandClock) -> None:
    term = await lead(backend)
    written = start(term)
    ids = [written.last_id]
    for step in (0.0, 0.0, 0.001, -3600.0, 0.0, 3600.5):
        clock.now += step
        written = await append(backend, term, written)
        ids.append(written.last_id)
    assert [entry_key(one) for one in ids] == sorted({entry_key(one) for one in ids})
    assert ids[-1] == f"{clock.ms}-0"
    assert [event.sequence for event in await Log(backend).read("0-0", 10)] == [1, 2, 3, 4, 5, 6]


async def test_ids_stay_above_what_the_leader_wrote_to_a_primary_that_is_gone(
    backend: Backend, clock: HandClock
) -> None:
    term = await lead(backend)
    lost = WritePosition(7, f"{clock.ms + 60_000}-4")
    with pytest.raises(LostTailError) as found:
        await append(backend, term, lost)
    assert (found.value.sequence, found.value.last_id) == (term.sequence, term.last_id)
    again = WritePosition(term.sequence, term.last_id, used=(lost.sequence, lost.last_id))
    written = await append(backend, term, again)
    assert written == WritePosition(8, f"{clock.ms + 60_000}-5")
    assert await append(backend, term, again) == written


@pytest.mark.parametrize("ahead", [-1, 0, 5000])
async def test_a_log_born_after_a_flush_honours_no_cursor_of_the_old_one(
    backend: Backend, clock: HandClock, ahead: int
) -> None:
    written = f"{clock.ms + ahead}-3"
    term = await lead(backend, last_id=written)
    position = await Log(backend).position()
    assert position is not None
    assert (position.id, position.sequence, position.trimmed) == (position.low_water_mark, 0, False)
    assert entry_key(position.low_water_mark) > entry_key(written)
    first = await append(backend, term, start(term))
    assert first.sequence == 1
    assert entry_key(first.last_id) > entry_key(position.low_water_mark)


async def test_a_new_log_whose_reply_was_lost_is_reported_again(backend: Backend) -> None:
    first, again = await lead(backend), await lead(backend)
    assert (first.born, again.born) == (True, True)
    assert (await lead(backend, log_id="later")).born is False


async def test_a_lease_ends_at_its_time_and_the_sequence_goes_on(backend: Backend, clock: HandClock) -> None:
    old = await lead(backend)
    written = await append(backend, old, start(old))
    clock.now += 9.9
    assert await Leadership(backend).acquire("two", 10, "other") == pytest.approx(0.1)
    await Leadership(backend).renew(old, 10, 3.3)
    clock.now += 9.9
    assert isinstance(await Leadership(backend).acquire("two", 10, "other"), float)
    clock.now += 0.1
    new = await lead(backend, "two")
    assert (new.epoch, new.log_id, new.sequence, new.last_id) == (old.epoch + 1, "b", 1, written.last_id)
    assert (await append(backend, new, start(new))).sequence == 2


async def test_a_leader_whose_lease_ran_out_goes_on_while_no_other_came(backend: Backend, clock: HandClock) -> None:
    term = await lead(backend)
    clock.now += 3600
    await Leadership(backend).renew(term, 10, 3.3)
    assert isinstance(await Leadership(backend).acquire("two", 10, "other"), float)


@pytest.mark.parametrize("way", ["append", "drop", "refresh", "renew", "take"])
async def test_who_led_before_a_flush_can_do_nothing_although_the_epochs_are_equal(backend: Backend, way: str) -> None:
    old = await lead(backend)
    await backend.client.execute_command("FLUSHALL")
    new = await lead(backend, "two", log_id="second")
    assert new.epoch == old.epoch
    log_writer = LogWriter(backend, 100)
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: log_writer.append(old, start(old), DRAFT, SNAPSHOT, ran=False),
        "drop": lambda: log_writer.drop(old, start(old), DRAFT, 2**50),
        "refresh": lambda: log_writer.refresh(old, [SNAPSHOT]),
        "renew": lambda: Leadership(backend).renew(old, 10, 1),
        "take": lambda: Slots(backend).take(old, 0, "cvm-1", 60),
    }
    with pytest.raises(FencedError):
        await attempts[way]()
    await Leadership(backend).resign(old)
    await Leadership(backend).renew(new, 10, 1)
    assert await Log(backend).read("0-0", 10) == []


async def test_another_leaders_event_with_the_same_number_is_not_taken_for_ones_own(backend: Backend) -> None:
    old = await lead(backend)
    new = await lead(backend, "one")
    await append(backend, new, start(new))
    with pytest.raises(FencedError):
        await append(backend, old, start(old))
    with pytest.raises(FencedError):
        await append(backend, await lead(backend, "one"), start(new))
    assert len(await Log(backend).read("0-0", 10)) == 1


@pytest.mark.parametrize("length", [1, 2, 5])
async def test_every_trim_moves_the_floor_to_the_newest_entry_that_is_gone(backend: Backend, length: int) -> None:
    term = await lead(backend)
    written, ids = start(term), [start(term).last_id]
    for number in range(1, 8):
        written = await append(backend, term, written, length)
        ids.append(written.last_id)
        position = await Log(backend).position()
        assert position is not None
        gone = max(0, number - length)
        assert (position.low_water_mark, position.low_water_sequence) == (ids[gone], gone)
        assert position.trimmed is (gone > 0)
        assert [event.id for event in await Log(backend).read(position.low_water_mark, 100)] == ids[gone + 1 :]


async def test_a_log_made_much_shorter_is_trimmed_a_thousand_at_once(backend: Backend) -> None:
    term = await lead(backend)
    written = start(term)
    for _ in range(1205):
        written = await append(backend, term, written, 5000)
    written = await append(backend, term, written, 10)
    position = await Log(backend).position()
    assert position is not None
    assert position.low_water_sequence == 1000
    await append(backend, term, written, 10)
    position = await Log(backend).position()
    assert position is not None
    assert position.low_water_sequence == 1197
    assert [event.sequence for event in await Log(backend).read("0-0", 100)] == list(range(1198, 1208))


async def test_a_strangers_entry_is_passed_over_and_does_not_stop_the_writer(
    backend: Backend, clock: HandClock
) -> None:
    term = await lead(backend)
    written = await append(backend, term, start(term), 2)
    await backend.client.xadd("{bridge}:log", {"x": "y"}, id=f"{clock.ms + 9000}-0")
    written = await append(backend, term, written, 2)
    assert entry_key(written.last_id) > (clock.ms + 9000, 0)
    assert [event.sequence for event in await Log(backend).read("0-0", 10)] == [2]
    assert (await append(backend, term, written, 2)).sequence == 3


async def test_only_an_exact_id_finds_an_event(backend: Backend, clock: HandClock) -> None:
    clock.now += 0.001
    term = await lead(backend)
    written = await append(backend, term, start(term))
    milliseconds, counter = entry_key(written.last_id)
    log = Log(backend)
    found = await log.find(written.last_id)
    assert found is not None
    assert found.id == written.last_id
    for near in (f"{milliseconds}", f"{milliseconds}-{counter + 1}", f"{milliseconds}-{2**64 - 1}"):
        assert await log.find(near) is None
    for bad in ("", "$", f"{milliseconds}-{2**64}"):
        with pytest.raises(ValueError, match="not a log id"):
            await log.find(bad)


async def test_a_watch_wanted_since_the_look_or_pinned_is_kept(backend: Backend, clock: HandClock) -> None:
    term, watches, log_writer = await lead(backend), Watches(backend), LogWriter(backend, 100)
    await watches.want("cvm-1")
    written = await append(backend, term, start(term))
    with pytest.raises(StillWantedError):
        await log_writer.drop(term, written, DRAFT, clock.ms - 1)
    await watches.pin("cvm-1")
    with pytest.raises(StillWantedError):
        await log_writer.drop(term, written, DRAFT, clock.ms)
    assert (await Log(backend).position()).sequence == 1  # type: ignore[union-attr]
    await watches.unpin("cvm-1")
    gone = await log_writer.drop(term, written, DRAFT, clock.ms)
    assert gone.sequence == 2
    assert await log_writer.drop(term, written, DRAFT, clock.ms) == gone
    await log_writer.refresh(term, [SNAPSHOT])
    assert (await Log(backend).snapshot())[1] == {}


async def test_a_refreshed_snapshot_that_arrives_late_undoes_no_event(backend: Backend) -> None:
    term, watches, log_writer = await lead(backend), Watches(backend), LogWriter(backend, 100)
    await watches.want("cvm-1")
    first = await append(backend, term, start(term))
    late = replace(SNAPSHOT, status="old", event_id=first.last_id)
    second = await append(backend, term, first)
    await log_writer.refresh(term, [late])
    stored = (await Log(backend).snapshot())[1]["cvm-1"]
    assert (stored.status, stored.event_id) == (SNAPSHOT.status, second.last_id)
    await log_writer.refresh(term, [replace(late, event_id=second.last_id)])
    assert (await Log(backend).snapshot())[1]["cvm-1"].status == "old"


async def test_a_slot_is_free_exactly_at_its_deadline(backend: Backend, clock: HandClock) -> None:
    term, slots = await lead(backend), Slots(backend)
    assert await slots.take(term, 3, "a", 130) == 0
    clock.now += 129.999
    assert await slots.take(term, 3, "b", 130) == pytest.approx(0.001)
    assert await slots.take(term, 1, "a", 130) == pytest.approx(0.001)
    clock.now += 0.001
    assert [record.state for record in await slots.list()] == ["free"] * 5
    assert await slots.take(term, 3, "b", 130) == 0
    assert await slots.take(term, 1, "a", 130) == 0


async def test_a_slot_told_about_names_holder_and_times(backend: Backend, clock: HandClock) -> None:
    term, slots = await lead(backend), Slots(backend)
    await slots.take(term, 0, "a", 130)
    clock.now += 30
    held = (await slots.list())[0]
    assert (held.state, held.cvm_id, held.holder, held.epoch) == ("held", "a", "one", 1)
    assert (held.since, held.until, held.remaining) == ("2026-11-24T16:00:00.000Z", "2026-11-24T16:02:10.000Z", 100)
    assert await slots.free(term, 0, 2) is True
    settling = (await slots.list())[0]
    assert (settling.state, settling.remaining) == ("settling", 2)


async def test_settling_never_lengthens_a_slots_life(backend: Backend, clock: HandClock) -> None:
    term, slots = await lead(backend), Slots(backend)
    await slots.take(term, 0, "a", 130)
    clock.now += 129.5
    await slots.free(term, 0, 2)
    assert (await slots.list())[0].remaining == pytest.approx(0.5)


async def test_only_who_took_a_slot_frees_it_also_when_fenced(backend: Backend, clock: HandClock) -> None:
    old, slots = await lead(backend), Slots(backend)
    await slots.take(old, 0, "a", 130)
    clock.now += 11
    new = await lead(backend, "two")
    again = Term("one", new.epoch, new.log_id, 0, "0-0", False)
    for stranger in (new, again):
        assert await slots.free(stranger, 0, 0) is False
    assert (await slots.list())[0].state == "quarantined"
    assert await slots.free(old, 0, 0) is True
    assert await slots.take(new, 0, "a", 130) == 0
    assert await slots.free(old, 0, 0) is False
    assert (await slots.list())[0].state == "held"


async def test_slots_above_a_smaller_limit_are_still_told(backend: Backend) -> None:
    term, slots = await lead(backend), Slots(backend)
    await slots.take(term, 4, "a", 130)
    assert [record.state for record in await slots.list(2)] == ["free"] * 4 + ["held"]
    assert await slots.take(term, 0, "a", 130) > 0


async def test_an_announcement_that_is_not_renewed_ends_and_is_swept(backend: Backend, clock: HandClock) -> None:
    watches = Watches(backend)
    await watches.announce("a", {"cvm-1": 2, "app_1": 4}, 15)
    clock.now += 10
    await watches.announce("b", {"cvm-1": 1, "cvm-2": 1, "name:web-*": 1, "app_1": 2}, 15)
    await watches.announce("idle", {}, 15)
    assert (await watches.survey()).sets == {"app_1": 6, "name:web-*": 1}
    clock.now += 5
    survey = await watches.survey()
    assert survey.demand == {"cvm-1": 1, "cvm-2": 1}
    assert survey.sets == {"app_1": 2, "name:web-*": 1}
    await watches.sweep()
    assert sorted(await backend.client.hkeys("{bridge}:demand")) == ["b", "idle"]


async def test_the_watch_list_pages_by_id_and_shows_pins(backend: Backend) -> None:
    watches = Watches(backend)
    await watches.change_config_pins(["c"])
    assert [await watches.pin("a"), await watches.pin("a"), await watches.want("b"), await watches.want("b")] == [
        True,
        False,
        True,
        False,
    ]
    await watches.announce("front", {"b": 3}, 15)
    listed = await watches.list()
    assert [(w.cvm_id, w.pinned, w.pinned_by_config, w.subscribers) for w in listed] == [
        ("a", True, False, 0),
        ("b", False, False, 3),
        ("c", True, True, 0),
    ]
    assert [w.cvm_id for w in await watches.list(after="a", limit=1)] == ["b"]
    assert [await watches.unpin("a"), await watches.unpin("nobody")] == [True, False]
    assert (await watches.survey()).watches["a"] == 0


@pytest.mark.parametrize("raw", ['{"status":"a","x":1.10,"y":1e5,"z":[{"event_id":"}"}]}', None])
def test_a_snapshot_keeps_upstreams_text_through_redis(raw: str | None) -> None:
    snapshot = Snapshot("c", raw, "deleted", 'n"\u2028\ud800', "s", "o", "5-0", False, "unreachable", True)
    text = snapshot.to_json()
    assert text.isascii()
    assert Snapshot.from_json("c", text) == snapshot
    assert json.loads(text)["state"] == (None if raw is None else json.loads(raw))


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state":', '{"state":1}', DEEP, '{"state":' + DEEP])
def test_what_is_no_snapshot_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words vary
        Snapshot.from_json("c", text)


async def test_an_event_after_an_append_without_an_awaited_answer_is_not_taken_for_it(backend: Backend) -> None:
    term = await lead(backend)
    await append(backend, term, start(term))
    other = Draft("cvm.state", "cvm-2", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-2"}')
    with pytest.raises(FencedError):
        await LogWriter(backend, 100).append(term, start(term), other, SNAPSHOT, ran=False)
    assert [event.cvm_id for event in await Log(backend).read("0-0", 9)] == ["cvm-1"]
