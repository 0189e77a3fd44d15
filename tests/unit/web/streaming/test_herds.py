"""Many subscribers that need the same at the same moment: Redis is asked a few times, not once for each."""

from __future__ import annotations

import asyncio
from collections import Counter

from bridge.events import entry_key
from bridge.store.log import Position
from bridge.store.snapshots import Snapshot
from bridge.web.streaming.subscriber import Subscriber
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.test_hub import ListSink, hub_on, settle
from tests.virtual import run_virtual


class CountedLog(FakeLog):
    """Counts what it is asked. Sixty CVMs, more than a subscriber's buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def position(self) -> Position | None:
        self.asked["position"] += 1
        return await super().position()

    async def snapshot(self) -> tuple[Position | None, dict[str, Snapshot]]:
        self.asked["states"] += 1
        position = await super().position()
        raw = '{"status":"running"}'
        names = [f"cvm-{number:02}" for number in range(60)] if position else []
        return position, {name: Snapshot(name, raw, "running", None, "t", "t") for name in names}


def test_a_herd_without_cursors_costs_a_few_reads_while_events_flow() -> None:
    async def scenario() -> None:
        log = CountedLog()
        log.takes = 0.2
        hub = hub_on(log)
        await hub.catch_up()
        await hub.receive(log.append())
        sinks = [ListSink() for _ in range(300)]
        for number, sink in enumerate(sinks):
            hub.enter(Subscriber(sink))
            if number % 30 == 0:
                await hub.receive(log.append())
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        last = log.append()
        await hub.receive(last)
        assert log.asked["states"] <= 3
        for sink in sinks:
            text = b"".join(sink.blocks)
            assert text.count(b"event: snapshot") == 60
            cursor = text.partition(b"id: ")[2].partition(b"\n")[0].decode()
            assert sink.ids == [event.id for event in log.events if entry_key(event.id) > entry_key(cursor)]

    run_virtual(scenario())


def test_subscribers_of_a_log_that_is_gone_are_reset_by_a_few_reads() -> None:
    async def scenario() -> None:
        log = CountedLog()
        hub = hub_on(log)
        await hub.receive(log.append())
        for number in range(400):
            hub.enter(Subscriber(ListSink(), snapshots=number % 2 == 0))
        await asyncio.sleep(1)
        log.asked.clear()
        log.takes = 0.01
        log.begin()
        await hub.on_tick(log.log_id, 0, log.at().id)
        await asyncio.sleep(5)
        assert log.asked["states"] <= 3
        assert log.asked["position"] <= 10
        assert all(subscriber.live for subscriber in hub._present)

    run_virtual(scenario())


def test_a_subscriber_without_snapshots_reads_no_state() -> None:
    async def scenario() -> None:
        log = CountedLog()
        hub = hub_on(log)
        await hub.catch_up()
        hub.enter(Subscriber(ListSink(), snapshots=False))
        log.begin()
        await hub.on_tick(log.log_id, 0, log.at().id)
        await asyncio.sleep(5)
        assert log.asked["states"] == 0

    run_virtual(scenario())


def test_one_failed_read_answers_every_subscriber_that_waits_for_it() -> None:
    async def scenario() -> None:
        log = CountedLog()
        hub = hub_on(log)
        await hub.catch_up()
        log.takes, log.failing = 5.0, True  # as Redis that is frozen: a call gives up after five seconds
        sinks = [ListSink() for _ in range(50)]
        for sink in sinks:
            hub.enter(Subscriber(sink))
        await asyncio.sleep(5.1)
        assert all(sink.closed for sink in sinks)
        assert log.asked["states"] == 1

    run_virtual(scenario())


def test_a_subscriber_that_is_not_live_yet_gets_heartbeats() -> None:
    async def scenario() -> None:
        log = CountedLog()
        hub = hub_on(log)
        await hub.catch_up()
        log.takes = 100.0
        sink = ListSink()
        hub.enter(Subscriber(sink))
        await settle()
        for _ in range(20):
            hub.beat()
        assert sink.blocks == [b":0\n"]
        await asyncio.sleep(300)

    run_virtual(scenario())
