from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from bridge.store.errors import StoreUnavailableError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick
from bridge.web import metrics
from bridge.web.streaming.feed_consumer import FeedConsumer
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.test_hub import ListSink, connect, ended, hub_on, settle
from tests.virtual import VirtualClock, run_virtual


class ScriptedFeed(Feed):
    """Each subscription yields one script's messages, then is silent; None in a script breaks it."""

    def __init__(self, *scripts: list[Message | float | None]) -> None:
        self.scripts = list(scripts)
        self.subscriptions = 0

    async def messages(self) -> AsyncGenerator[Message, None]:
        self.subscriptions += 1
        for step in self.scripts.pop(0) if self.scripts else []:
            if step is None:
                raise StoreUnavailableError
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step
        await asyncio.Event().wait()


def consumer_on(log: FakeLog, feed: Feed, answered: list[str] | None = None) -> FeedConsumer:
    references: list[str] = [] if answered is None else answered
    return FeedConsumer(hub_on(log), feed, nobody_leads, references.append, VirtualClock(), period=2.0)


async def nobody_leads() -> None: ...


def test_a_subscription_without_ticks_is_replaced_and_the_missed_events_are_read() -> None:
    async def scenario() -> None:
        log = FakeLog()
        first = log.append()
        feed = ScriptedFeed([Subscribed(), Published(first)], [Subscribed()])
        consumer = consumer_on(log, feed)
        following = asyncio.create_task(consumer.follow())
        sink = ListSink()
        connect(consumer._hub, sink, None)
        await settle()
        missed = log.append()
        await asyncio.sleep(5.9)
        assert (feed.subscriptions, sink.ids) == (1, [])
        await asyncio.sleep(0.2)
        await settle()
        assert (feed.subscriptions, sink.ids) == (2, [missed.id])
        await ended(following)

    run_virtual(scenario())


def test_a_front_end_that_finds_no_log_has_a_position_once_it_had_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would be told that it has another Redis than the leader."""
    shown: list[float] = []
    monkeypatch.setattr(metrics, "position", lambda: shown.append(asyncio.get_running_loop().time()))

    class NoLog(FakeLog):
        async def position(self) -> None:
            return None

    async def scenario() -> None:
        following = asyncio.create_task(consumer_on(NoLog(), ScriptedFeed([Subscribed()])).follow())
        await asyncio.sleep(5.9)
        assert shown == []
        await asyncio.sleep(0.2)
        assert len(shown) == 1
        await ended(following)

    run_virtual(scenario())


def test_without_ticks_there_is_no_leader_and_the_subscription_is_replaced() -> None:
    async def scenario() -> None:
        log = FakeLog()
        tick = Tick("b", 0, "1000-0", 2.0)
        ticks: list[Message | float | None] = [tick, 2.0]
        feed = ScriptedFeed([Subscribed(), *ticks * 50])
        consumer = consumer_on(log, feed)
        following = asyncio.create_task(consumer.follow())
        await asyncio.sleep(99)
        assert (feed.subscriptions, consumer._hub.led, consumer.arrives) == (1, True, True)
        await asyncio.sleep(7)
        assert (feed.subscriptions, consumer._hub.led) == (2, False)
        await ended(following)

    run_virtual(scenario())


def test_an_unconfirmed_subscription_brings_nothing() -> None:
    async def scenario() -> None:
        feed = ScriptedFeed([Subscribed()], [], [5.0, Subscribed()])
        consumer = consumer_on(FakeLog(), feed)
        following = asyncio.create_task(consumer.follow())
        seen = []
        for wait in (6.1, 6.0, 5.0):
            await asyncio.sleep(wait)
            seen.append((feed.subscriptions, consumer.arrives))
        # The second got no answer in three periods, the third gets one after five seconds.
        assert seen == [(2, True), (3, False), (3, True)]
        await ended(following)

    run_virtual(scenario())


def test_a_broken_subscription_brings_nothing_until_the_next_one_is_confirmed() -> None:
    async def scenario() -> None:
        feed = ScriptedFeed([Subscribed(), 1.0, None], [Subscribed()])
        consumer = consumer_on(FakeLog(), feed)
        following = asyncio.create_task(consumer.follow())
        seen = []
        for wait in (0.5, 0.7, 0.6):
            await asyncio.sleep(wait)
            seen.append(consumer.arrives)
        assert seen == [True, False, True]
        await ended(following)

    run_virtual(scenario())


def test_each_answer_of_the_leader_is_passed_on() -> None:
    async def scenario() -> None:
        answered: list[str] = []
        consumer = consumer_on(FakeLog(), ScriptedFeed([Subscribed(), Answered("web-1"), Answered("web-2")]), answered)
        following = asyncio.create_task(consumer.follow())
        await settle()
        assert answered == ["web-1", "web-2"]
        await ended(following)

    run_virtual(scenario())
