"""Events are written in the order in which they were decided, each once, whatever Redis loses or leaves unanswered."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from bridge.clock import SystemClock
from bridge.events import DROPPED, STATE, TRANSITION
from bridge.store.connection import Backend
from bridge.store.errors import FencedError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.upstream.journal import Journal, Loss
from tests.backups import Backup
from tests.unit.upstream.recording import Process, seen, statuses, told


async def test_observations_that_waited_while_a_watch_was_dropped_write_nothing(backend: Backend) -> None:
    process = Process(backend)
    await process.lead()
    tracked, recorder = process.watch("a"), process.recorder
    await process.see("a", "running")
    _, late, *_ = await asyncio.gather(
        recorder.drop(tracked, 2**53),
        recorder.record(tracked, seen("stopped", 2)),
        recorder.mark_stale(tracked, "unreachable"),
        recorder.confirm(tracked, 3),
    )
    await recorder.flush()
    assert not late
    assert [event.type for event in await Log(backend).read("0-0", 9)] == [STATE, DROPPED]
    position, states = await Log(backend).snapshot()
    assert position is not None
    assert (position.sequence, states) == (2, {})


async def test_what_is_seen_while_redis_is_away_counts_at_once_and_is_written_when_it_is_back(backend: Backend) -> None:
    process = Process(backend)
    await process.lead()
    running = asyncio.create_task(process.recorder.run())
    process.backend.cut = "before"
    await process.see("a", "running", "stopping", "stopped")
    assert process.watch("a").status == "stopped"
    assert await told(backend) == []
    process.backend.cut = ""
    async with asyncio.timeout(5):
        while len(await told(backend)) < 3:  # noqa: ASYNC110 - a fake Redis has no event
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert await statuses(backend) == [(1, "running"), (2, "stopping"), (3, "stopped")]
    snapshot = (await Snapshots(backend).all())["a"]
    assert process.watch("a").seen.snapshot == snapshot


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_the_next_term_writes_what_the_last_one_could_not_once(backend: Backend, cut: str) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    process.backend.cut = cut
    await process.see("a", "stopping", "stopped")
    await process.try_to_write()
    process.backend.cut = ""
    await process.resign()
    assert await process.lead() is None
    await process.write()
    assert await statuses(backend) == [(1, "running"), (2, "stopping"), (3, "stopped")]


async def test_what_another_leader_saw_is_not_undone_by_what_was_seen_before(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    process, other = Process(backend), Process(backend, "other")
    await process.lead()
    await process.see("a", "running")
    await process.write()
    process.backend.cut = "before"
    await process.see("a", "stopping")
    await process.try_to_write()
    process.backend.cut = ""
    await process.resign()
    await other.lead()
    await other.resign()
    await process.lead()
    await process.write()
    assert await statuses(backend) == [(1, "running")]
    assert "changes that this process saw are not written" in caplog.text


async def test_a_lost_tail_is_written_again_under_new_numbers_and_ids(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The lost events had 3 and 4, the one that was sent 5; a gap tells those who had seen them all."""
    process = Process(backend)
    await process.lead()
    await process.see("a", "running", "stopping")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("b", "running")
    await process.see("a", "stopped")
    await process.write()
    before = await Log(backend).read("0-0", 9)
    await backup.restore(backend)
    await process.see("a", "starting")
    await process.write()
    assert await told(backend) == [
        (1, "a", STATE, "running"),
        (2, "a", TRANSITION, "stopping"),
        (7, "b", STATE, "running"),
        (8, "a", TRANSITION, "stopped"),
        (9, "a", TRANSITION, "starting"),
    ]
    after = await Log(backend).read("0-0", 9)
    assert not {event.id for event in after[2:]} & {event.id for event in before}
    assert [event.id for event in after] == sorted(event.id for event in after)
    assert caplog.text.count("Redis lost events that it had confirmed") == 1
    assert {name: each.seen.snapshot for name, each in process.watches.items()} == await Snapshots(backend).all()


async def test_a_renewal_finds_a_lost_tail_where_nothing_is_to_be_written(backend: Backend) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopping", "stopped")
    await process.write()

    async def renew() -> None:
        before = process.recorder.position
        process.recorder.compare(before, *await Leadership(backend).renew(process.term, 10, 3.3))
        await process.write()

    await renew()
    assert await statuses(backend) == [(1, "running"), (2, "stopping"), (3, "stopped")]
    await backup.restore(backend)
    await renew()
    await renew()
    assert await statuses(backend) == [(1, "running"), (5, "stopping"), (6, "stopped")]


@pytest.mark.parametrize("unanswered", [False, True])
async def test_a_lost_tail_is_written_again_by_the_next_term_before_what_waited(
    backend: Backend, unanswered: bool
) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopping")
    await process.write()
    process.backend.cut = "after" if unanswered else "before"
    await process.see("a", "stopped")
    await process.try_to_write()
    process.backend.cut = ""
    await backup.restore(backend)
    await process.resign()
    assert await process.lead() == Loss(1, 1, 0)
    await process.write()
    # The number of the event that got no answer was published, and is not used again either.
    assert await statuses(backend) == [(1, "running"), (5, "stopping"), (6, "stopped")]


@pytest.mark.parametrize("more", [(), ("stopped",), ("stopped", "running")])
async def test_a_lost_tail_is_given_up_where_another_process_led_on(backend: Backend, more: tuple[str, ...]) -> None:
    """A front end that has seen 1, 2 and 3 of this process finds a gap, even if it got nothing of the other one."""
    process, other = Process(backend), Process(backend, "other")
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopping", "stopped")
    await process.write()
    await backup.restore(backend)
    await process.resign()
    await other.lead()
    await other.see("b", "running", *more)
    await other.write()
    await other.resign()
    assert await process.lead() is None
    await process.see("b", "starting")
    await process.write()
    assert (await statuses(backend))[-1] == (5, "starting")


async def test_a_standby_that_takes_over_a_log_without_its_end_uses_no_number_twice(backend: Backend) -> None:
    """The leader is gone, and with it what Redis lost; that is counted, and the numbers stay unused."""
    process, standby = Process(backend), Process(backend, "standby")
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopping", "stopped")
    await process.write()
    leadership = Leadership(backend)
    assert isinstance(await leadership.acquire("standby", 10, "log"), float)
    standby.journal.look(*leadership.others_log)
    await backup.restore(backend)
    await process.resign()
    assert await standby.lead() == Loss(1, 0, 2)
    await standby.see("b", "running")
    await standby.write()
    assert await statuses(backend) == [(1, "running"), (5, "running")]


def test_an_odd_record_of_the_log_is_passed_over() -> None:
    journal = Journal("/bridge/bridge")
    for record in (("", "", ""), ("log", "x", "1-0"), ("log", "7", "x")):
        journal.look(*record)
    assert journal.resume(Term("a", 1, "log", 3, "5-0", False), None) is None
    assert journal.position.next_sequence == 4


@pytest.mark.parametrize("wanted", [False, True])
async def test_the_end_of_a_watch_that_redis_lost_is_written_again(backend: Backend, wanted: bool) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    assert await process.recorder.drop(process.watches.pop("a"), 2**53)
    await backup.restore(backend)
    if wanted:
        await backend.client.zadd(backend.keys.watches, {"a": 2**53 + 1000})
    await process.see("b", "running")
    await process.write()
    assert [row[:3] for row in await told(backend)] == [(1, "a", STATE), (5, "a", DROPPED), (6, "b", STATE)]
    assert set(await Snapshots(backend).all()) == {"b"}
    assert (await backend.client.zscore(backend.keys.watches, "a") is not None) is wanted


async def test_events_older_than_memory_are_counted_as_gone_and_their_snapshots_written(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.upstream.journal.RECENT", 2)
    process = Process(backend)
    await process.lead()
    await process.see("b", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("b", "stopped")
    await process.see("a", "running", "stopping", "stopped")
    await process.write()
    await backup.restore(backend)
    process.recorder.compare(process.recorder.position, *await Leadership(backend).renew(process.term, 10, 3.3))
    await process.write()
    assert await statuses(backend) == [(1, "running"), (7, "stopping"), (8, "stopped")]
    assert {name: each.status for name, each in (await Snapshots(backend).all()).items()} == {
        "a": "stopped",
        "b": "stopped",
    }


async def test_a_tail_that_is_lost_twice_is_no_less_complete(backend: Backend) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopping", "stopped")
    await process.write()
    for expected in ([(5, "stopping"), (6, "stopped")], [(8, "stopping"), (9, "stopped")]):
        await backup.restore(backend)
        await process.resign()
        assert await process.lead() == Loss(1, 2, 0)
        await process.write()
        assert (await statuses(backend))[1:] == expected


async def test_a_stop_tells_what_it_could_not_write(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.recorder.finish(5)
    assert await statuses(backend) == [(1, "running")]
    assert "not written" not in caplog.text
    process.backend.cut = "before"
    await process.see("a", "stopped")
    await process.recorder.finish(0.01)
    assert "changes that this process saw are not written" in caplog.text


async def test_a_log_that_a_stranger_went_on_with_ends_the_term(backend: Backend) -> None:
    process = Process(backend)
    await process.lead()
    await process.see("a", "running", "stopped")
    await process.write()
    await backend.client.hset(backend.keys.meta, "last_id", "9999999999999-0")
    await process.see("a", "starting")
    with pytest.raises(FencedError, match="did not write"):
        await process.write()


async def test_observations_wait_only_while_very_much_is_unwritten(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.upstream.journal.WAITING", 2)
    process = Process(backend)
    await process.lead()
    await process.see("a", "running", "stopped")
    third = asyncio.create_task(process.see("a", "starting"))
    await asyncio.sleep(0)
    assert process.watch("a").status == "stopped"
    await process.write()
    await third
    await process.write()
    assert await statuses(backend) == [(1, "running"), (2, "stopped"), (3, "starting")]


async def test_metrics_tell_how_long_a_change_can_have_waited_and_nothing_of_a_first_sight(backend: Backend) -> None:
    def measured() -> list[float]:
        names = ("bridge_change_to_event_seconds_count", "bridge_change_to_event_seconds_sum")
        return [REGISTRY.get_sample_value(name, {"by": "poll"}) or 0.0 for name in names]

    process = Process(backend)
    await process.lead()
    before = measured()
    now = SystemClock().monotonic()
    for at, status in ((now - 40, "running"), (now - 30, "running"), (now - 1, "stopped")):
        await process.recorder.record(process.watch("a"), seen(status, at))
    await process.recorder.flush()
    count, total = (after - old for after, old in zip(measured(), before, strict=True))
    assert count == 1
    assert total == pytest.approx(30, abs=5)
