"""The hub when Redis contradicts it, when events are large, and with a single reader."""

from __future__ import annotations

import asyncio

from bridge.cvm_scope import EVERY_CVM, CvmScope
from bridge.events import Draft, Event
from bridge.reference_sets import ReferenceSet
from bridge.store.errors import StoreUnavailableError
from bridge.store.log import Position
from bridge.store.snapshots import Snapshot
from bridge.web.http.event_filter import EventFilter
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.subscriber import Start, Subscriber
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.test_hub import ListSink, SnapshotLog, connect, hub_on, settle
from tests.virtual import VirtualClock, run_virtual

STATES = EventFilter(types=frozenset({"cvm.state"}))


def test_the_only_subscriber_is_cut_if_it_is_slow_and_the_feed_continues() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        slow, filtered = ListSink(), ListSink()
        connect(hub, slow, None)
        hub.enter(Subscriber(filtered, scope=CvmScope(ReferenceSet.parsed(["a"])), filter=STATES, snapshots=False))
        slow.stuck = filtered.stuck = 5000
        await hub.receive(log.append())
        await hub.receive(log.append())
        assert (slow.closed, filtered.closed, hub.present, hub.sequence) == (True, True, 0, 2)

    run_virtual(scenario())


def test_a_replay_whose_events_are_filtered_out_gets_positions() -> None:
    async def scenario() -> None:
        log = FakeLog()
        for _ in range(3000):
            log.append("a")
        hub = hub_on(log, ring=10, log_length=10_000)
        await hub.catch_up()
        sink = ListSink()
        subscriber = Subscriber(sink, scope=CvmScope(ReferenceSet.parsed(["b"])))
        hub.enter(subscriber, Start(0, log.low_water_mark))
        await asyncio.sleep(1)
        written = [block.split(b"\n")[0].decode() for block in sink.blocks]
        assert written == ["id: 2000-0", "id: 3000-0", "id: 4000-0"]
        assert (subscriber.live, subscriber.sent) == (True, 3000)

    run_virtual(scenario())


class GoneLog(FakeLog):
    """Redis was emptied while the feed was silent."""

    gone = False

    async def position(self) -> Position | None:
        return None if self.gone else await super().position()

    async def read(self, after: str, count: int) -> list[Event]:
        return [] if self.gone else await super().read(after, count)

    async def find(self, entry_id: str) -> Event | None:
        return None if self.gone else await super().find(entry_id)


def test_a_subscriber_after_a_flush_of_redis_is_reset_once_and_gets_no_lost_events() -> None:
    async def scenario() -> None:
        for ring in (5, 1000):
            log = GoneLog()
            hub = hub_on(log, ring=ring)
            await hub.catch_up()
            for _ in range(20):
                await hub.receive(log.append())
            log.gone = True
            without, lost = ListSink(), ListSink()
            hub.enter(Subscriber(without))
            connect(hub, lost, "77-0")
            await asyncio.sleep(60)
            assert without.blocks == [b'id: 0-0\nevent: position\ndata: {"sequence":"0"}\n\n']
            assert [b"event: reset" in block for block in lost.blocks] == [True, False]
            log.gone, log.log_id, log.events = False, "another", []
            await hub.on_tick("another", 0)
            await asyncio.sleep(1)
            assert b"history_lost" in without.blocks[1]
            assert b"history_lost" in lost.blocks[2]
            await hub.receive(log.append())
            assert (without.ids, lost.ids) == (["1021-0"], ["1021-0"])

    run_virtual(scenario())


def test_a_log_that_fell_behind_the_feed_resets_each_subscriber_once() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log, ring=5)
        await hub.catch_up()
        for _ in range(20):
            await hub.receive(log.append())
        del log.events[10:]
        sink = ListSink()
        connect(hub, sink, None)  # at the feed's position
        late = ListSink()
        hub.enter(Subscriber(late))
        await asyncio.sleep(3)
        assert len(late.blocks) < 20
        await hub.on_tick(log.log_id, 10, "1010-0")
        await asyncio.sleep(3)
        assert b"history_lost" in late.blocks[-2]
        assert b"id: 1010-0" in late.blocks[-1]
        assert hub.present == 2

    run_virtual(scenario())


class SlowToAppearLog(FakeLog):
    """Made, with events, between two questions about it."""

    asked = 0

    async def position(self) -> Position | None:
        self.asked += 1
        return await super().position() if self.asked > 2 else None


def test_events_of_a_log_made_during_the_initial_snapshot_come_once() -> None:
    async def scenario() -> None:
        log = SlowToAppearLog()
        for _ in range(3):
            log.append()
        hub = hub_on(log)
        sink = ListSink()
        subscriber = Subscriber(sink)
        hub.enter(subscriber)
        await settle()
        await hub.receive(log.append())
        await settle()
        assert sink.blocks[0].startswith(b"id: 1003-0\nevent: position\n")
        assert sink.ids == ["1004-0"]

    run_virtual(scenario())


class HeavyLog(FakeLog):
    def append(
        self, cvm_id: str = "a", kind: str = "cvm.state", app_id: str | None = None, name: str | None = None
    ) -> Event:
        sequence = self.events[-1].sequence + 1 if self.events else 1
        text = Draft(kind, cvm_id, "t", f'"{"x" * 400}"').envelope("/bridge/x", sequence)
        self.events.append(Event.from_log(f"{1000 + sequence}-0", text))
        return self.events[-1]


class UnreadSink(ListSink):
    """A client that reads nothing until the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()

    async def drained(self) -> None:
        if self.held:
            await self.reads.wait()

    @property
    def held(self) -> int:
        return sum(len(block) for block in self.blocks)


def test_a_replay_holds_at_most_a_buffer_for_a_client_that_does_not_read() -> None:
    async def scenario() -> None:
        for ring in (1000, 3):
            log = HeavyLog()
            ids = [log.append().id for _ in range(300)]
            hub = hub_on(log, ring=ring)  # a buffer of 1000 bytes
            await hub.catch_up()
            sink = UnreadSink()
            sink.reads.set()
            connect(hub, sink, ids[0])
            await asyncio.sleep(1)
            assert sink.ids == ids[1:]
            unread = UnreadSink()
            connect(hub, unread, ids[0])
            await asyncio.sleep(1)
            assert unread.held <= 1000
            await asyncio.sleep(100)
            assert (unread.closed, hub.present) == (True, 1)

    run_virtual(scenario())


def test_a_large_initial_snapshot_is_whole_and_waits_in_pieces_of_a_buffer() -> None:
    async def scenario() -> None:
        log = SnapshotLog()
        hub = hub_on(log)
        await hub.catch_up()
        some = ReferenceSet.parsed([*(f"cvm-{number:02}" for number in range(3, 30)), "nobody"])
        for scope in (EVERY_CVM, CvmScope(some)):
            sink = UnreadSink()
            hub.enter(Subscriber(sink, scope=scope))
            await asyncio.sleep(1)
            assert 0 < sink.held < 2000
            sink.reads.set()
            await asyncio.sleep(1)
            written = b"".join(sink.blocks)
            assert written.count(b"event: snapshot") == (27 if scope.named else 40)
            assert written.count(b"id: ") == 1
            assert b"id: 1000-0" in written.split(b"\n\n")[-2]

    run_virtual(scenario())


def test_history_lost_during_the_initial_snapshot_starts_it_again() -> None:
    async def scenario() -> None:
        log = SnapshotLog()
        hub = hub_on(log)
        await hub.catch_up()
        sink = UnreadSink()
        hub.enter(Subscriber(sink))
        await asyncio.sleep(1)
        log.log_id = "another"
        await hub.on_tick("another", 0)
        sink.reads.set()
        await asyncio.sleep(5)
        written = b"".join(sink.blocks).partition(b"event: reset")
        assert b"id: " not in written[0]
        assert written[2].count(b"event: snapshot") == 40

    run_virtual(scenario())


class FailingLog(FakeLog):
    failing = False

    async def snapshot(self) -> tuple[Position | None, dict[str, Snapshot]]:
        if self.failing:
            raise StoreUnavailableError("away")
        return await super().snapshot()


def test_a_failing_redis_ends_the_subscribers_that_need_it_and_no_others() -> None:
    async def scenario() -> None:
        log = FailingLog()
        hub = hub_on(log)
        await hub.catch_up()
        there, comes = ListSink(), ListSink()
        connect(hub, there, None)
        log.failing = True
        hub.enter(Subscriber(comes))
        await settle()
        await hub.receive(log.append())
        assert (there.ids, there.closed, comes.closed, hub.present) == (["1001-0"], False, True, 1)

    run_virtual(scenario())


def test_a_drain_ends_replays_too_and_leaves_no_task() -> None:
    async def scenario() -> None:
        log = HeavyLog()
        first = log.append().id
        for _ in range(50):
            log.append()
        hub = Hub(log, "/bridge/x", VirtualClock(), buffer=1000, log_length=1000, ring=Ring(3))
        await hub.catch_up()
        settling, live = UnreadSink(), ListSink()
        connect(hub, settling, first)
        connect(hub, live, None)
        await asyncio.sleep(1)
        await hub.drain(1.0, iter(range(1, 100)))
        for sink in (settling, live):
            assert sink.closed
            assert sink.blocks[-1].startswith(b"retry: ")
        assert hub.present == 0

    run_virtual(scenario())


def numbered(sequence: int, milliseconds: int) -> Event:
    text = Draft("cvm.state", "a", "t", "{}").envelope("/bridge/x", sequence)
    return Event.from_log(f"{milliseconds}-0", text)


def test_after_a_failover_no_initial_snapshot_shows_the_lost_history() -> None:
    """The sequence is the same and the last initial snapshot is recent, but the event is another one."""

    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        await hub.receive(log.append())
        sink, late = ListSink(), ListSink()
        hub.enter(Subscriber(sink))
        await settle()
        log.events = [numbered(1, 5000)]
        await hub.on_tick(log.log_id, 1, "5000-0")
        hub.enter(Subscriber(late))
        await settle()
        assert [block.split(b"\n")[0] for block in sink.blocks[::2]] == [b"id: 1001-0", b"id: 5000-0"]
        assert [block.split(b"\n")[0] for block in late.blocks] == [b"id: 5000-0"]

    run_virtual(scenario())


def test_a_cursor_of_a_log_ahead_of_the_feed_gets_no_lost_events() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        for _ in range(10):
            await hub.receive(log.append())
        log.log_id, log.low_water_mark, log.events = (
            "another",
            "4999-0",
            [numbered(number, 4999 + number) for number in (1, 2)],
        )
        sink = ListSink()
        connect(hub, sink, "5000-0")
        await asyncio.sleep(0.1)
        await hub.on_tick("another", 2, "5001-0")
        await asyncio.sleep(5)
        assert sink.ids == []
        assert b"history_lost" in sink.blocks[-2]
        assert b"id: 5001-0" in sink.blocks[-1]

    run_virtual(scenario())


def test_a_time_without_a_log_begins_with_a_position_and_gets_its_first_event() -> None:
    async def scenario() -> None:
        log = GoneLog()
        log.gone = True
        hub = hub_on(log)
        sink = ListSink()
        hub.enter(Subscriber(sink), 1001)
        await settle()
        log.gone = False
        await hub.receive(log.append())
        await settle()
        assert sink.blocks[0].startswith(b"id: 0-0\nevent: position\n")
        assert sink.ids == ["1001-0"]

    run_virtual(scenario())


class LosingLog(FakeLog):
    """The last event that was read from it is lost just after."""

    loses = False

    async def read(self, after: str, count: int) -> list[Event]:
        found = await super().read(after, count)
        if self.loses and len(found) > 1:
            del self.events[-1]
        return found


def test_a_replay_does_not_run_ahead_of_the_feed() -> None:
    """Otherwise its last event could be lost before the feed reads it, and the event with its number be skipped."""

    async def scenario() -> None:
        log = LosingLog()
        for _ in range(10):
            log.append()
        hub = hub_on(log, ring=2)
        await hub.catch_up()
        log.append()  # published, and yet to arrive
        sink = ListSink()
        log.loses = True
        connect(hub, sink, "1003-0")
        await settle()
        log.loses = False
        log.events.append(numbered(11, 5000))
        await hub.receive(log.events[-1])
        await settle()
        assert sink.ids == [f"{number}-0" for number in range(1004, 1011)] + ["5000-0"]

    run_virtual(scenario())


def test_an_initial_snapshot_ahead_of_the_feed_makes_the_feed_catch_up_first() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        early, late = ListSink(), ListSink()
        connect(hub, early, None)
        event = log.append()
        hub.enter(Subscriber(late))
        await settle()
        await hub.receive(event)
        assert (early.ids, late.ids, hub.sequence) == (["1001-0"], [], 1)
        assert late.blocks[0].startswith(b"id: 1001-0\nevent: position\n")

    run_virtual(scenario())
