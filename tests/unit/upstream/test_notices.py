"""Phala Cloud's own webhooks become events: each once, in order, whatever becomes of replies, leaders and Redis."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.clock import unix
from bridge.events import STATE, TRANSITION
from bridge.store import notices
from bridge.store.connection import Backend
from bridge.store.errors import StoreError, TooManyNoticesError
from bridge.store.log import HIGHEST_ID, Log
from bridge.store.notices import Notices, PhalaNotice
from bridge.store.snapshots import Snapshots
from tests.backups import Backup
from tests.fakes import HandClock, fake_backend, redis_time
from tests.unit.upstream.recording import Process, leading, told

UPDATED = "phala.cvm.updated"


def notice(name: str, cvm_id: str = "a") -> PhalaNotice:
    envelope = {"id": name, "event": "cvm.updated", "data": {"cvm_id": cvm_id}}
    found = PhalaNotice.of(json.dumps(envelope))
    assert found is not None
    return found


async def names(backend: Backend) -> list[tuple[int, str]]:
    """Number and name of each event that was made of a notice."""
    return [
        (event.sequence, json.loads(event.json)["data"]["notice"]["id"])
        for event in await Log(backend).read("0-0", 999)
        if event.type == UPDATED
    ]


async def test_a_notice_is_one_event_in_its_order_and_leaves_the_state_as_it_was(backend: Backend) -> None:
    process, left = await leading(backend), Notices(backend)
    before = (await Snapshots(backend).all())["a"]
    assert [await left.leave(notice(name)) for name in ("evt_1", "evt_2", "evt_1")] == [True, True, False]
    await process.see("a", "stopped")
    await process.take_notices()
    await process.take_notices()
    assert not await left.leave(notice("evt_2"))
    await process.take_notices()
    assert await told(backend) == [
        (1, "a", STATE, "running"),
        (2, "a", TRANSITION, "stopped"),
        (3, "a", UPDATED, None),
        (4, "a", UPDATED, None),
    ]
    assert await names(backend) == [(3, "evt_1"), (4, "evt_2")]
    after = (await Snapshots(backend).all())["a"]
    assert (before.status, after.status, after.event_id) == ("running", "stopped", (await Log(backend).latest(3))[0].id)
    assert process.watch("a").seen.snapshot == after


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("new_term", [False, True])
@pytest.mark.parametrize("other_led", [False, True])
async def test_it_is_written_once_whatever_became_of_the_reply(
    backend: Backend, cut: str, *, new_term: bool, other_led: bool
) -> None:
    process, other = await leading(backend), Process(backend, "other")
    await Notices(backend).leave(notice("evt_1"))
    taking = asyncio.create_task(process.take_notices())
    while not process.recorder._writing.locked():  # noqa: ASYNC110 - the fake answers in so many steps of the loop
        await asyncio.sleep(0)
    process.backend.cut = cut
    await asyncio.sleep(0.01)
    taking.cancel()
    await asyncio.wait([taking])
    process.backend.cut = ""
    if new_term or other_led:
        await process.resign()
    if other_led:
        await other.lead()
        await other.take_notices()
        await other.resign()
    if new_term or other_led:
        assert await process.lead() is None
    await process.take_notices()
    assert await names(backend) == [(2, "evt_1")]
    await process.see("a", "stopped")
    await process.write()
    assert (await told(backend))[2:] == [(3, "a", TRANSITION, "stopped")]


@pytest.mark.parametrize("found_by", ["a new term", "the lease", "the next write", "the next notice"])
@pytest.mark.parametrize("left_before", [False, True])
async def test_what_redis_lost_of_it_is_written_again_once(
    backend: Backend, *, found_by: str, left_before: bool
) -> None:
    """`left_before`: what Redis is back at has the notice; else it has lost that too."""
    process = await leading(backend)
    backup = await Backup.of(backend)
    await Notices(backend).leave(notice("evt_1"))
    if left_before:
        backup = await Backup.of(backend)
    await process.take_notices()
    await backup.restore(backend)
    if found_by == "a new term":
        await process.resign()
        await process.lead()
    elif found_by == "the lease":
        process.recorder.compare(process.recorder.position, 1, (await Log(backend).latest(1))[0].id)
    elif found_by == "the next write":
        await process.see("a", "stopped")
    else:
        await Notices(backend).leave(notice("evt_2"))
    await process.take_notices()
    await process.take_notices()
    assert [name for _, name in await names(backend)] == ["evt_1", "evt_2"][: 1 + (found_by == "the next notice")]
    sent = found_by.startswith("the next")
    assert (await names(backend))[0] == (4 + sent, "evt_1")  # after one number that nothing had
    await process.see("a", "stopped")
    await process.write()
    assert (await Snapshots(backend).all())["a"].event_id == (await Log(backend).latest(1))[0].id


STEPS = st.lists(
    st.sampled_from(["leave", "again", "take", "see", "cut before", "cut after", "heal", "lead"]), max_size=25
)


@settings(max_examples=20)
@given(STEPS)
def test_any_life_of_two_leaders_writes_each_notice_once_and_in_order(steps: list[str]) -> None:
    async def life() -> None:
        backend = fake_backend()
        processes, left = [Process(backend, "one"), Process(backend, "two")], 0
        await processes[0].lead()
        for number, step in enumerate(steps):
            leader = processes[0]
            match step.split():
                case ["leave"]:
                    left += 1
                    await Notices(backend).leave(notice(f"evt_{left}"))
                case ["again"]:
                    await Notices(backend).leave(notice(f"evt_{max(left, 1)}"))
                    left = max(left, 1)
                case ["take"]:
                    await leader.try_to_take_notices()
                case ["see"]:
                    await leader.see("a", f"status {number}")
                case ["cut", when]:
                    leader.backend.cut = when
                case ["heal"]:
                    leader.backend.cut = ""
                case ["lead"]:
                    leader.backend.cut = ""
                    await leader.resign()
                    processes.reverse()
                    await processes[0].lead()
        processes[0].backend.cut = ""
        await processes[0].take_notices()
        assert [name for _, name in await names(backend)] == [f"evt_{number + 1}" for number in range(left)]
        assert [sequence for sequence, *_ in await told(backend)] == list(range(1, len(await told(backend)) + 1))
        await backend.close()

    asyncio.run(life())


async def test_a_former_leader_takes_none(backend: Backend) -> None:
    process, other = await leading(backend), Process(backend, "other")
    await process.resign()
    await other.lead()
    await Notices(backend).leave(notice("evt_1"))
    with pytest.raises(StoreError):
        await process.take_notices()
    assert await names(backend) == []


async def test_what_waits_and_what_is_remembered_is_bounded_and_dated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_NOTICES", 3)
    monkeypatch.setattr(notices, "MOST_KNOWN", 2)
    clock = HandClock()
    with redis_time(clock):
        backend = fake_backend()
        left = Notices(backend)
        for number in range(3):
            clock.now += 1
            assert await left.leave(notice(f"evt_{number}"))
        with pytest.raises(TooManyNoticesError):
            await left.leave(notice("evt_3"))
        assert not await left.leave(notice("evt_2"))
        assert await backend.client.zrange(backend.keys.known_notices, 0, -1) == ["evt_1", "evt_2"]
        await backend.client.delete(backend.keys.notices)
        clock.now += notices.KNOWN_SECONDS
        assert await left.leave(notice("evt_2"))
        assert await backend.client.zrange(backend.keys.known_notices, 0, -1) == ["evt_2"]
        await backend.close()


async def test_what_no_bridge_left_there_is_removed(backend: Backend) -> None:
    client, keys, left = backend.client, backend.keys, Notices(backend)
    for _ in range(2 * notices.READ_AT_ONCE):
        await client.xadd(keys.notices, {"x": "y"})
    await client.xadd(keys.notices, {"envelope": '{"id":"evt_0","event":"../cvm.state"}'})
    await left.leave(notice("evt_1"))
    assert [each.name for each in await left.waiting() if isinstance(each, PhalaNotice)] == ["evt_1"]
    assert await client.xlen(keys.notices) == 1


@pytest.mark.parametrize("id", [f"{(1 << 64) - 1}-{(1 << 64) - 9}", HIGHEST_ID])
async def test_a_strangers_entry_far_ahead_keeps_none_from_its_turn(backend: Backend, id: str) -> None:
    process, left = await leading(backend), Notices(backend)
    before = await backend.now_ms()
    await left.leave(notice("evt_1"))
    await backend.client.xadd(backend.keys.notices, {"x": "y"}, id=id)
    if id != HIGHEST_ID:
        await left.leave(notice("evt_2"))
    for _ in range(2):
        await process.take_notices()
    assert await left.leave(notice("evt_3"))
    await process.take_notices()
    assert [each for _, each in await names(backend)] == ["evt_1", *["evt_2"][id == HIGHEST_ID :], "evt_3"]
    after = await backend.now_ms()
    for event in await Log(backend).latest(2):
        assert before <= 1000 * unix(json.loads(event.json)["time"]) <= after


async def test_a_change_waits_for_one_notice_and_not_for_all_that_wait(backend: Backend) -> None:
    process, left = await leading(backend), Notices(backend)
    for number in range(9):
        await left.leave(notice(f"evt_{number}"))
    taking = asyncio.create_task(process.take_notices())
    while process.recorder.position.sequence < 3:  # noqa: ASYNC110 - the fake answers in so many steps of the loop
        await asyncio.sleep(0)
    await process.see("a", "stopped")
    await taking
    assert [each[2] for each in await told(backend)].index(TRANSITION) <= 4


@pytest.mark.parametrize(
    ("event", "type"),
    [
        ("cvm.updated", UPDATED),
        ("cvm.update.pending_approval", "phala.cvm.update.pending_approval"),
        ("a", "phala.a"),
        ("", None),
        ("*", None),
        ("cvm.*", None),
        ("cvm..x", None),
        ("CVM.x", None),
        ("cvm.x\n", None),
        ("a.b.c.d.e.f", None),
        ("x" * 41, None),
        (7, None),
    ],
)
def test_a_name_is_bounded_and_stays_behind_its_prefix(event: object, type: str | None) -> None:
    found = PhalaNotice.of(json.dumps({"id": "evt_1", "event": event}))
    assert (found.type if found else None) == type


@pytest.mark.parametrize(
    "text",
    ['{"id":"evt_1"}', '{"event":"a"}', '{"id":"","event":"a"}', '{"id":["evt"],"event":"a"}', "[]", "7", "", "{",
     '{"id":"evt_1","event":"a","x":NaN}', f'{{"id":"evt_1","event":"a","x":{"[" * 99}{"]" * 99}}}'],
)  # fmt: skip
def test_what_cannot_be_an_event_is_no_notice(text: str) -> None:
    assert PhalaNotice.of(text) is None


def test_the_envelope_is_kept_as_it_came_on_one_line() -> None:
    found = PhalaNotice.of('{ "id": "evt_1",\n "event": "a", "n": 1.10, "u": "\\u00e9é" }')
    assert found is not None
    assert (found.envelope, found.reference) == ('{ "id": "evt_1",  "event": "a", "n": 1.10, "u": "\\u00e9é" }', None)
