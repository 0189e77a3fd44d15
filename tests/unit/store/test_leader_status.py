"""What a leader tells about itself is written when it changes, and lasts for a minute after its last word."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from bridge.store.connection import Backend
from bridge.store.errors import FencedError
from bridge.store.leader_status import LeaderStatus, LeaderStatusWriter, read_leader_status, read_polling
from bridge.store.leadership import Leadership, Term
from bridge.store.watches import Watches
from tests.fakes import HandClock

WALL = 1_795_536_000.0
NAMES = [f"cvm-{number:03}" for number in range(300)]


def status(budget: int = 5, **exceptions: str) -> LeaderStatus:
    return LeaderStatus({"budget": budget}, "all slots are taken", exceptions)


async def writer(backend: Backend, holder: str = "one") -> LeaderStatusWriter:
    term = await Leadership(backend).acquire(holder, 10, "log")
    assert isinstance(term, Term)
    return LeaderStatusWriter(backend, term)


async def polling(backend: Backend, *streamed: str) -> dict[str, str] | None:
    return await read_polling(backend, await read_leader_status(backend), streamed)


async def calls(backend: Backend, leading: LeaderStatusWriter, told: LeaderStatus, seconds: range) -> list[int]:
    """The seconds at which something was written."""
    found = []
    for second in seconds:
        with patch.object(backend, "run", wraps=backend.run) as run:
            await leading.write(told, WALL + second, float(second))
        found += [second] * run.call_count
    return found


async def test_each_polled_cvm_has_its_reason_although_only_exceptions_are_stored(backend: Backend) -> None:
    await Watches(backend).renew(NAMES)
    leading = await writer(backend)
    await leading.write(LeaderStatus({}, "all slots are taken", {"cvm-007": "deleted"}), WALL, 0.0)
    told = await polling(backend, "cvm-001", "cvm-002")
    assert told is not None
    assert set(told) == {*NAMES} - {"cvm-001", "cvm-002"}
    assert (told.pop("cvm-007"), set(told.values())) == ("deleted", {"all slots are taken"})
    assert len(await backend.client.get(backend.keys.leader_status)) < 200


async def test_an_unchanged_status_is_only_prolonged(backend: Backend) -> None:
    leading = await writer(backend)
    told = status(a="deleted")
    assert await calls(backend, leading, told, range(60)) == [0, 20, 40]
    text = await backend.client.get(backend.keys.leader_status)
    assert await backend.client.ttl(backend.keys.leader_status) > 50
    await leading.write(told, WALL + 61, 61.0)
    assert await backend.client.get(backend.keys.leader_status) == text


async def test_changes_are_written_and_reasons_that_end_too(backend: Backend) -> None:
    await Watches(backend).renew("abc")
    leading = await writer(backend)
    await leading.write(status(a="deleted", b="backing off"), WALL, 0.0)
    await leading.write(status(4, b="backing off"), WALL, 1.0)
    assert await polling(backend) == {"a": "all slots are taken", "b": "backing off", "c": "all slots are taken"}
    await leading.write(status(4, b="deleted", c="backing off"), WALL, 2.0)
    assert (await read_leader_status(backend))["budget"] == 4
    assert await polling(backend) == {"a": "all slots are taken", "b": "deleted", "c": "backing off"}


@pytest.mark.parametrize("lost", ["notes", "notes:polling", "damaged"])
async def test_what_redis_lost_is_written_anew(backend: Backend, lost: str) -> None:
    await Watches(backend).renew("ab")
    leading = await writer(backend)
    await leading.write(status(a="deleted"), WALL, 0.0)
    if lost == "damaged":
        await backend.client.set(backend.keys.polling, "x")
    else:
        await backend.client.delete(f"{{bridge}}:{lost}")
    await leading.write(status(a="deleted"), WALL, 30.0)
    assert await polling(backend) == {"a": "deleted", "b": "all slots are taken"}


async def test_a_new_leader_tells_nothing_of_the_last_one_and_that_one_nothing_more(
    backend: Backend, clock: HandClock
) -> None:
    await Watches(backend).renew("ab")
    old = await writer(backend)
    await old.write(status(a="deleted"), WALL, 0.0)
    clock.now += 11
    await (await writer(backend, "two")).write(status(3), WALL, 0.0)
    with pytest.raises(FencedError):
        await old.write(status(2), WALL, 1.0)
    assert await polling(backend) == dict.fromkeys("ab", "all slots are taken")


async def test_the_status_of_an_earlier_release_is_read(backend: Backend) -> None:
    await backend.client.set(backend.keys.leader_status, '{"budget":5,"polling":{"a":"deleted"}}')
    assert await polling(backend) == {"a": "deleted"}
    await backend.client.set(backend.keys.leader_status, "{")
    assert (await read_leader_status(backend), await polling(backend)) == ({}, None)
