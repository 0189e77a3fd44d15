"""Publications get lost in every way while commands work: each event reaches the subscribers once, in order, soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.store.errors import StoreUnavailableError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick
from bridge.store.leadership import Lease
from bridge.web.streaming.feed_consumer import FeedConsumer
from bridge.web.streaming.feed_health import FeedHealth
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.test_hub import ListSink, connect, ended, hub_on
from tests.virtual import VirtualClock, run_virtual

PERIOD = 10.0 / 3
PROMISED = 1.0
"""Seconds that an event may be late."""

WAYS = ("up", "deaf", "silent", "refused")
"""Of a subscription: it works, it is confirmed and brings nothing, it is not even confirmed, it breaks."""


class Wire(Feed):
    """A subscription in one of WAYS."""

    def __init__(self) -> None:
        self.way = "up"
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def messages(self) -> AsyncGenerator[Message, None]:
        self._messages = asyncio.Queue()
        if self.way == "refused":
            raise StoreUnavailableError("refused")
        if self.way != "silent":
            yield Subscribed()
        while (message := await self._messages.get()) is not None:
            yield message
        raise StoreUnavailableError("the subscription broke")

    def become(self, way: str) -> None:
        self.way = way
        if way == "refused":
            self._messages.put_nowait(None)

    def publish(self, message: Message) -> None:
        if self.way == "up":
            self._messages.put_nowait(message)


class Stage:
    """A front end's feed, a leader that renews its lease, and a subscriber."""

    def __init__(self) -> None:
        self.log, self.wire, self.clock = FakeLog(), Wire(), VirtualClock()
        self.hub = hub_on(self.log)
        self.leads = True
        self.lease = Lease("1", 0.0)
        self.consumer = FeedConsumer(self.hub, self.wire, self._read_lease, lambda _: None, self.clock, period=PERIOD)
        self.sink = ListSink()
        self.back_at = 0.0
        self.written: list[tuple[float, str]] = []

    async def _read_lease(self) -> Lease:
        if self.log.failing:
            raise StoreUnavailableError("away")
        return self.lease

    async def lead(self) -> None:
        while True:
            if self.leads:
                self.lease = Lease("1", self.clock.time() + 3 * PERIOD)
                at = self.log.at()
                self.wire.publish(Tick(at.log_id, at.sequence, at.id, PERIOD))
            await asyncio.sleep(PERIOD)

    def append(self, *, lost: bool = False) -> None:
        event = self.log.append()
        self.written.append((self.clock.monotonic(), event.id))
        if not lost:
            self.wire.publish(Published(event))

    def redis(self, *, away: bool) -> None:
        self.log.failing, self.back_at = away, self.clock.monotonic()
        if away:
            self.wire.become("refused")

    def check(self) -> None:
        now = self.clock.monotonic()
        ids = [entry_id for _, entry_id in self.written]
        assert self.sink.ids == ids[: len(self.sink.ids)]
        due = [entry_id for at, entry_id in self.written if max(at, self.back_at) + PROMISED + 0.02 < now]
        assert self.log.failing or len(self.sink.ids) >= len(due)


async def played(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    stage = Stage()
    tasks = [asyncio.create_task(each) for each in (stage.lead(), stage.consumer.follow(), stage.consumer.look())]
    await asyncio.sleep(0.1)
    connect(stage.hub, stage.sink, stage.log.low_water_mark)
    await asyncio.sleep(0.1)
    await scenario(stage)
    for task in tasks:
        await ended(task)


STEPS = st.one_of(
    st.tuples(st.just("append"), st.booleans()),
    st.tuples(st.just("wire"), st.sampled_from(WAYS)),
    st.tuples(st.just("redis"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.01, 0.4, 1.1, 3.0, 30.0])),
)


@given(steps=st.lists(STEPS, max_size=40))
def test_each_event_comes_once_in_order_and_late_by_a_second_at_most(steps: list[tuple[str, object]]) -> None:
    async def scenario(stage: Stage) -> None:
        for name, value in steps:
            if name == "append":
                stage.append(lost=bool(value))
            elif name == "wire" and not stage.log.failing:
                stage.wire.become(str(value))
            elif name == "redis":
                stage.redis(away=bool(value))
            elif name == "pass":
                assert isinstance(value, float)
                await asyncio.sleep(value)
                stage.check()
        stage.redis(away=False)
        stage.wire.become("up")
        await asyncio.sleep(40)
        stage.check()
        assert (stage.consumer.readable, stage.consumer.arrives, stage.hub.led) == (True, True, True)

    run_virtual(played(scenario))


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_dead_subscription_is_told_the_leader_is_known_and_nothing_is_repeated_when_it_heals(way: str) -> None:
    async def scenario(stage: Stage) -> None:
        assert (stage.consumer.readable, stage.consumer.arrives, stage.hub.led) == (True, True, True)
        stage.wire.become(way)
        seen = []
        for _ in range(100):
            stage.append()
            await asyncio.sleep(1.1)
            seen.append((stage.consumer.readable, stage.consumer.arrives, stage.hub.led))
        assert set(seen[1:]) == {(True, False, True)}
        assert stage.sink.ids == [entry_id for _, entry_id in stage.written]
        stage.wire.become("up")
        await asyncio.sleep(15)
        stage.append()
        await asyncio.sleep(0.01)
        assert (stage.consumer.readable, stage.consumer.arrives, stage.hub.led) == (True, True, True)
        assert stage.sink.ids == [entry_id for _, entry_id in stage.written]

    run_virtual(played(scenario))


@pytest.mark.parametrize("way", ["deaf", "silent"])
def test_ticks_that_do_not_come_while_the_lease_is_renewed_tell_of_a_dead_subscription(way: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.wire.become(way)
        await asyncio.sleep(3 * PERIOD)
        assert (stage.consumer.arrives, stage.hub.led) == (False, True)
        stage.leads = False
        await asyncio.sleep(4 * PERIOD)
        assert not stage.hub.led

    run_virtual(played(scenario))


def test_answers_about_references_do_not_put_off_the_look_for_a_lost_event() -> None:
    async def scenario(stage: Stage) -> None:
        await asyncio.sleep(0.1)
        stage.append(lost=True)
        for _ in range(15):
            stage.wire.publish(Answered("web"))
            await asyncio.sleep(0.1)
            stage.check()

    run_virtual(played(scenario))


def test_without_a_leader_a_quiet_subscription_is_none_that_died() -> None:
    async def scenario(stage: Stage) -> None:
        stage.leads = False
        seen = []
        for _ in range(60):
            await asyncio.sleep(1)
            seen.append(stage.consumer.arrives)
        assert (all(seen), stage.hub.led, stage.consumer.readable) == (True, False, True)

    run_virtual(played(scenario))


def test_what_was_read_before_the_subscription_stood_tells_nothing_about_it() -> None:
    health = FeedHealth(PERIOD)
    health.subscribe(0.0)
    health.look(0.0)
    health.answer(0.1, heard_at=health.heard_at, news=True)
    assert (health.readable, health.arrives(0.1)) == (True, False)
    health.confirm(0.2)
    assert health.arrives(5.0)
