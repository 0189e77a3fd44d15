from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from bridge.cvm_scope import CvmScope
from bridge.events import Draft, Event
from bridge.reference_sets import ReferenceSet
from bridge.store.log import Position
from bridge.store.snapshots import Snapshot
from bridge.web.http.access import Credential
from bridge.web.streaming.frames import Frame
from bridge.web.streaming.hub import SLICES, Hub
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.sinks import AsgiSink
from bridge.web.streaming.subscriber import Start, Subscriber
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.sinks import PlainSink
from tests.virtual import VirtualClock, run_virtual


class ListSink(PlainSink):
    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.closed = False
        self.stuck = 0

    def send_all(self, frames: Iterable[Frame]) -> None:
        self.blocks += [frame.data for frame in frames]

    def write(self, data: bytes) -> None:
        self.blocks.append(data)

    def backlog(self) -> int:
        return self.stuck

    async def drained(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True

    def cut(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [
            line[4:].decode()
            for data in self.blocks
            if b"event: state" in data
            for line in data.split(b"\n")
            if line.startswith(b"id: ")
        ]


def hub_on(log: FakeLog, *, ring: int = 1000, log_length: int = 1000) -> Hub:
    return Hub(log, "/bridge/x", VirtualClock(), buffer=1000, log_length=log_length, ring=Ring(ring))


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


@given(
    actions=st.lists(st.sampled_from(["publish", "miss", "reconnect"]), min_size=1, max_size=40), ring=st.integers(1, 5)
)
def test_a_subscriber_that_reconnects_at_any_moment_gets_each_event_once(actions: list[str], ring: int) -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log, ring=ring)
        await hub.catch_up()
        cursor, seen = log.low_water_mark, list[str]()
        sink = ListSink()
        subscriber = connect(hub, sink, cursor)
        for action in actions:
            if action == "publish":
                await hub.receive(log.append())
            elif action == "miss":
                log.append()
            else:
                hub.leave(subscriber)
                await asyncio.sleep(0)
                seen += sink.ids
                cursor = seen[-1] if seen else cursor
                sink = ListSink()
                subscriber = connect(hub, sink, cursor)
        await hub.on_tick(log.log_id, len(log.events))
        await settle()
        assert seen + sink.ids == [event.id for event in log.events]

    run_virtual(scenario())


def connect(hub: Hub, sink: ListSink, cursor: str | None) -> Subscriber:
    subscriber = Subscriber(sink, snapshots=False)
    hub.enter(subscriber, cursor)
    return subscriber


def test_another_log_resets_all_subscribers() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.receive(log.append())
        sink = ListSink()
        connect(hub, sink, None)
        await settle()
        log.log_id, log.events = "another", []
        await hub.on_tick("another", 0)
        await settle()
        assert [b"event: reset" in data for data in sink.blocks] == [False, True, False]
        assert b"history_lost" in sink.blocks[1]

    run_virtual(scenario())


def test_a_slow_subscriber_is_cut_and_the_others_are_served() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        slow, quick = ListSink(), ListSink()
        connect(hub, slow, None)
        connect(hub, quick, None)
        await settle()
        slow.stuck = 5000
        await hub.receive(log.append())
        assert (slow.closed, slow.ids, quick.ids) == (True, [], ["1001-0"])

    run_virtual(scenario())


def test_a_subscriber_whose_filter_skips_many_events_gets_a_position() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log, log_length=100)
        await hub.catch_up()
        sink = ListSink()
        subscriber = Subscriber(sink, scope=CvmScope(ReferenceSet.parsed(["b"])))
        hub.enter(subscriber, Start(0, log.low_water_mark))
        await settle()
        for _ in range(11):
            await hub.receive(log.append("a"))
        for _ in range(SLICES):
            hub.beat()
        assert sink.blocks == [b'id: 1011-0\nevent: position\ndata: {"sequence":"11"}\n\n']

    run_virtual(scenario())


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


class UnbornLog(FakeLog):
    """A log that no leader has made yet."""

    born = False

    async def position(self) -> Position | None:
        return await super().position() if self.born else None


def test_a_subscriber_that_came_before_the_log_gets_its_first_events() -> None:
    async def scenario() -> None:
        log = UnbornLog()
        hub = hub_on(log)
        sink = ListSink()
        connect(hub, sink, None)
        await settle()
        log.born = True
        first, second = log.append(), log.append()
        await hub.receive(second)
        await settle()
        assert sink.ids == [first.id, second.id]

    run_virtual(scenario())


def test_a_subscriber_with_a_cursor_that_comes_before_the_feed_misses_nothing() -> None:
    async def scenario() -> None:
        log = FakeLog()
        expected = [log.append().id for _ in range(10)]
        hub = hub_on(log)
        sink = ListSink()
        connect(hub, sink, expected[3])
        await settle()
        await hub.catch_up()
        await settle()
        assert sink.ids == expected[4:]

    run_virtual(scenario())


@given(common=st.integers(0, 5), lost=st.integers(1, 5), anew=st.integers(0, 12), published=st.booleans())
def test_a_log_that_continues_without_its_last_events_resets_all_subscribers(
    common: int, lost: int, anew: int, published: bool
) -> None:
    """As with a replica that was promoted without the last writes."""

    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        sink = ListSink()
        connect(hub, sink, None)
        await settle()
        for _ in range(common + lost):
            await hub.receive(log.append())
        del log.events[common:]
        for number in range(anew):
            text = Draft("cvm.state", "a", "t", "{}").envelope("/bridge/x", common + number + 1)
            log.events.append(Event.from_log(f"{5000 + number}-0", text))
            if published:
                await hub.receive(log.events[-1])
        position = await log.position()
        assert position is not None
        await hub.on_tick(position.log_id, position.sequence, position.id)
        await settle()
        written = b"".join(sink.blocks)
        assert written.count(b"history_lost") == 1
        assert hub.last_id == position.id

    run_virtual(scenario())


def test_an_event_of_another_publisher_is_ignored() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.receive(log.append())
        text = Draft("cvm.state", "a", "t", "{}").envelope("/bridge/x", 2)
        await hub.receive(Event.from_log("rubbish", text))
        assert (hub.sequence, hub.last_id) == (1, "1001-0")

    run_virtual(scenario())


def test_filling_a_hole_larger_than_the_buffer_cuts_no_subscriber_that_reads() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        sent: list[bytes] = []

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            sent.append(message["body"])

        sink = AsgiSink(64 * 1024)
        pump = asyncio.create_task(sink.pump(send))
        subscriber = Subscriber(sink)
        hub.enter(subscriber)
        await settle()
        for _ in range(200):
            log.append()
        await hub.on_tick(log.log_id, 200)
        await settle()
        await ended(pump)
        assert b"".join(sent).count(b"event: state") == 200

    run_virtual(scenario())


class SnapshotLog(FakeLog):
    """Forty CVMs, more than a subscriber's buffer holds."""

    async def snapshot(self) -> tuple[Position | None, dict[str, Snapshot]]:
        raw = '{"status":"running"}'
        states = {
            f"cvm-{number:02}": Snapshot(f"cvm-{number:02}", raw, "running", None, "t", "t") for number in range(40)
        }
        return await self.position(), states


def test_a_snapshot_larger_than_the_buffer_does_not_make_a_subscriber_slow() -> None:
    async def scenario() -> None:
        log = SnapshotLog()
        hub = hub_on(log)
        await hub.catch_up()
        sent: list[bytes] = []
        reads = asyncio.Event()

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            await reads.wait()
            sent.append(message["body"])

        sink = AsgiSink(500)
        pump = asyncio.create_task(sink.pump(send))
        subscriber = Subscriber(sink)
        hub.enter(subscriber)
        await settle()
        await hub.receive(log.append())
        reads.set()
        await settle()
        await ended(pump)
        text = b"".join(sent)
        assert text.count(b"event: snapshot") == 40
        assert text.count(b"id: ") == 2
        assert text.count(b"event: state") == 1

    run_virtual(scenario())


def test_a_drain_ends_the_subscribers_evenly_with_a_retry_for_each() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        sinks = [ListSink() for _ in range(100)]
        for sink in sinks:
            connect(hub, sink, None)
        await settle()
        drain = asyncio.create_task(hub.drain(5.0, iter(range(1000, 2000))))
        await asyncio.sleep(2.5)
        assert 45 <= sum(sink.closed for sink in sinks) <= 55
        await drain
        assert VirtualClock().monotonic() <= 5.0
        assert all(sink.closed and sink.blocks[-1].startswith(b"retry: ") for sink in sinks)
        assert len({sink.blocks[-1] for sink in sinks}) == 100
        assert hub.present == 0

    run_virtual(scenario())


def test_a_named_cvm_is_demand_and_a_tokens_limit_is_not() -> None:
    async def scenario() -> None:
        hub = hub_on(FakeLog())
        await hub.catch_up()
        hub.enter(Subscriber(ListSink(), scope=CvmScope(limit=ReferenceSet.parsed(["a", "b"])), snapshots=False))
        hub.enter(Subscriber(ListSink(), snapshots=False))
        assert (hub.demand.counts(), hub.demand.changed.is_set()) == ({}, False)
        named = Subscriber(ListSink(), scope=CvmScope(ReferenceSet.parsed(["a"])), snapshots=False)
        hub.enter(named)
        assert (hub.demand.counts(), hub.demand.changed.is_set()) == ({"a": 1}, True)
        hub.leave(named)
        hub.leave(named)
        assert hub.demand.counts() == {}

    run_virtual(scenario())


def test_a_subscription_ends_with_its_token_also_one_that_comes_too_late() -> None:
    async def scenario() -> None:
        log = FakeLog()
        hub = hub_on(log)
        await hub.catch_up()
        old, other, late = ListSink(), ListSink(), ListSink()
        credential = Credential()
        hub.enter(Subscriber(old, credential=credential), log.low_water_mark)
        hub.enter(Subscriber(other, credential=Credential()), log.low_water_mark)
        await settle()
        credential.revoked = True
        hub.end_revoked(iter([777]))
        assert (old.closed, old.blocks[-1]) == (True, b"retry: 777\n")
        hub.enter(Subscriber(late, credential=credential), log.low_water_mark)
        assert late.closed
        assert late.blocks[0].startswith(b"retry: ")
        await hub.receive(log.append("cvm-1"))
        await settle()
        assert (len(other.ids), old.ids, late.ids, hub.present) == (1, [], [], 1)

    run_virtual(scenario())
