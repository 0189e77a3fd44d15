from __future__ import annotations

import asyncio

from bridge.events import DROPPED, FRESH, STALE, STATE, TRANSITION, cvm_data
from bridge.web.dropin.watchers import SETTLE, Watcher
from bridge.web.http.access import Credential
from tests.unit.web.dropin.stage import FakeSink, Stage
from tests.virtual import run_virtual


def test_the_state_comes_at_once_at_each_interval_and_sooner_on_change() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            _, sink = await stage.watch(interval=6)
            await asyncio.sleep(13)
            stage.becomes("stopping")
            await asyncio.sleep(6)
            stage.becomes("stopped")
            await asyncio.sleep(60)
            assert [(at, name, data.get("status")) for at, name, data in sink.events] == [
                (0.0, "state", "running"),
                (6.0, "state", "running"),
                (12.0, "state", "running"),
                (13.0, "state", "stopping"),
                (18.0, "state", "stopping"),
                (19.0, "state", "stopped"),
                (19.0, "complete", "stopped"),
            ]
            assert sink.events[-1][2] == {"status": "stopped", "elapsed": 19.0, "target": "stopped"}
            assert b'{"status":"stopped","n":1.10}' in sink.text
            assert sink.closed
            assert (len(stage.watchers), stage.watchers.scheduled, stage.demand.counts()) == (0, 0, {})

    run_virtual(scenario())


def test_a_target_that_is_met_already_completes_at_once() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot("running")
            _, sink = await stage.watch("running")
            assert sink.names == [(0.0, "state"), (0.0, "complete")]
            assert sink.closed

    run_virtual(scenario())


def test_each_caller_has_its_own_timeout() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            sinks = [(await stage.watch(timeout=timeout, interval=30))[1] for timeout in (10, 60, 61)]
            await asyncio.sleep(100)
            assert [sink.names[-1] for sink in sinks] == [(10.0, "timeout"), (60.0, "timeout"), (61.0, "timeout")]
            assert [len(sink.names) for sink in sinks] == [2, 3, 4]
            assert sinks[0].events[-1][2] == {
                "error": "Timeout waiting for status 'stopped'",
                "elapsed": 10.0,
                "target": "stopped",
            }
            assert all(sink.closed for sink in sinks)

    run_virtual(scenario())


def test_a_deletion_ends_the_stream_with_an_error() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            _, sink = await stage.watch("deleted")
            await asyncio.sleep(1)
            stage.becomes(None)
            assert sink.names == [(0.0, "state"), (1.0, "error")]
            assert sink.events[-1][2]["error"] == "CVM not found"
            assert sink.closed

    run_virtual(scenario())


def test_a_stale_state_is_an_error_event_and_the_stream_continues() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            _, sink = await stage.watch(interval=10)
            await asyncio.sleep(1)
            stage.publish(STALE, "unreachable")
            await asyncio.sleep(10)
            stage.publish(FRESH)
            stage.becomes("stopped")
            names = [(0.0, "state"), (1.0, "error"), (10.0, "error"), (11.0, "state"), (11.0, "complete")]
            assert sink.names == names
            assert sink.events[1][2]["message"] == "unreachable"

    run_virtual(scenario())


def test_a_recovery_is_sent_soon_but_never_before_the_missed_transition() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot("stopped", stale="unreachable")
            _, sink = await stage.watch("stopped", interval=30)
            assert sink.names == [(0.0, "error")]
            await asyncio.sleep(2)
            stage.publish(FRESH)
            assert sink.names == [(0.0, "error")]
            await asyncio.sleep(SETTLE + 0.1)
            assert sink.names == [(0.0, "error"), (2.5, "state"), (2.5, "complete")]

    run_virtual(scenario())


def test_without_a_leader_an_old_state_is_not_sent_as_current() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            stage.led = False
            _, sink = await stage.watch()
            await asyncio.sleep(16)
            stage.led = True
            await asyncio.sleep(5)
            names = [(0.0, "state"), (5.0, "state"), (10.0, "state"), (15.0, "error"), (20.0, "state")]
            assert sink.names == names
            assert sink.events[3][2]["message"] == "no_leader"

    run_virtual(scenario())


def test_an_unseen_cvm_sends_nothing_until_it_is_observed() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            _, sink = await stage.watch("running", timeout=20)
            await asyncio.sleep(7)
            stage.publish(DROPPED)
            stage.becomes("running")
            assert sink.names == [(7.0, "state"), (7.0, "complete")]
            _, late = await stage.watch("running", timeout=20, cvm_id="b")
            await asyncio.sleep(30)
            assert late.names == [(27.0, "timeout")]

    run_virtual(scenario())


def test_one_read_serves_all_callers_that_come_together() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            found = await asyncio.gather(*[stage.watch() for _ in range(100)])
            assert stage.snapshots.reads == 1
            assert stage.demand.counts() == {"a": 100}
            assert all(len(sink.names) == 1 for _, sink in found)

    run_virtual(scenario())


def test_an_event_that_overtakes_the_read_is_not_undone_by_it() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot("running")
            watcher = Watcher("t", "a", "gone", 5, 300, 0.0)
            stage.watchers.enter(watcher)
            reading = asyncio.create_task(stage.watchers.load("a"))
            await asyncio.sleep(0)
            stage.becomes("stopped")
            await reading
            sink = FakeSink(stage.clock)
            stage.watchers.begin(watcher, sink)
            assert [data["status"] for _, _, data in sink.events] == ["stopped"]

    run_virtual(scenario())


def test_an_event_that_was_read_already_is_not_sent_again() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot("running")
            stage.sequence -= 1
            _, sink = await stage.watch()
            stage.becomes("running")
            assert len(sink.names) == 1

    run_virtual(scenario())


def test_lost_history_is_read_again_even_if_redis_is_away_at_first() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot("running")
            _, sink = await stage.watch("stopped", interval=30)
            await asyncio.sleep(1)
            stage.snapshot("stopped")
            stage.snapshots.away = True
            stage.watchers.on_reset()
            await asyncio.sleep(3)
            assert sink.names == [(0.0, "state")]
            stage.snapshots.away = False
            await asyncio.sleep(2)
            assert [name for _, name in sink.names] == ["state", "state", "complete"]

    run_virtual(scenario())


def test_an_event_that_no_bridge_wrote_is_ignored() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            _, sink = await stage.watch()
            for data in ("{}", "[]", "7", '{"state":{}}'):
                stage._event(TRANSITION, data, "a")
            stage.becomes("stopped")
            assert [name for _, name in sink.names] == ["state", "state", "complete"]

    run_virtual(scenario())


def test_a_client_that_does_not_read_is_cut_and_forgotten() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            _, slow = await stage.watch()
            _, quick = await stage.watch()
            slow.stuck = 1001
            stage.becomes("stopping")
            assert slow.was_cut
            assert len(slow.names) == 1
            assert len(quick.names) == 2
            assert len(stage.watchers) == 1
            assert stage.watchers.scheduled == 1

    run_virtual(scenario())


def test_a_drain_makes_each_client_ask_again_spread_over_its_time() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            sinks = [(await stage.watch())[1] for _ in range(4)]
            late = Watcher("t", "a", "stopped", 5, 300, 0.0)
            stage.watchers.enter(late)
            await stage.watchers.drain(5)
            assert [sink.names[-1] for sink in sinks] == [(float(at), "timeout") for at in range(4)]
            assert all(sink.closed for sink in sinks)
            sink = FakeSink(stage.clock)
            stage.watchers.begin(late, sink)
            assert [name for _, name in sink.names] == ["timeout"]
            assert (len(stage.watchers), stage.watchers.scheduled) == (0, 0)

    run_virtual(scenario())


def test_five_thousand_clients_that_vanish_leave_nothing_behind() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            for _ in range(5000):
                watcher, _ = await stage.watch()
                stage.watchers.leave(watcher)
            assert (len(stage.watchers), stage.watchers.scheduled, stage.demand.counts()) == (0, 0, {})
            assert not stage.watchers.follows("a")

    run_virtual(scenario())


def test_the_first_observation_is_sent_at_once() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            _, sink = await stage.watch("running")
            stage._event(STATE, cvm_data("a", None, (None, "starting"), "poll", '{"status":"starting"}'), "a")
            assert [data["status"] for _, _, data in sink.events] == ["starting"]

    run_virtual(scenario())


def test_a_stream_ends_with_its_token_also_one_that_has_not_begun() -> None:
    async def scenario() -> None:
        async with Stage() as stage:
            stage.snapshot()
            watcher, sink = await stage.watch()
            _, other = await stage.watch()
            late, late_sink = Watcher("t", "a", "stopped", 5, 300, 0.0), FakeSink(stage.clock)
            stage.watchers.enter(late)
            watcher.credential = late.credential = Credential()
            watcher.credential.revoked = True
            stage.watchers.end_revoked()
            stage.watchers.begin(late, late_sink)
            assert [name for _, name in sink.names] == ["state", "timeout"]
            assert [name for _, name in late_sink.names] == ["timeout"]
            assert (sink.closed, late_sink.closed, other.closed) == (True, True, False)
            assert len(stage.watchers) == 1

    run_virtual(scenario())
