"""The hub with a log that fails in every way: no subscriber loses an event without a `reset`.

The model is a client's: what it read, block by block, over all of its connections. Since its last `reset` it must have
seen exactly the log's events of its filter, once and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from bridge.cvm_scope import CvmScope
from bridge.events import Event, entry_key
from bridge.reference_sets import ReferenceSet
from bridge.store.errors import StoreError
from bridge.store.snapshots import Snapshot
from bridge.web.http.event_filter import EventFilter
from bridge.web.streaming.frames import Frame
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.ring import Ring
from bridge.web.streaming.subscriber import Begin, Subscriber
from tests.unit.web.streaming.fake_log import FakeLog
from tests.unit.web.streaming.sinks import PlainSink
from tests.virtual import VirtualClock, VirtualLoop, assert_no_task_left

BUFFER = 2000
LOG_LENGTH = 30
APPS = {"a": "app_1", "b": "1"}


def references(texts: str | None) -> ReferenceSet | None:
    return None if texts is None else ReferenceSet.parsed(texts.split())


class MovingLog(FakeLog):
    """Not there yet; its answers take time, and its snapshots are heavy."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.takes = False, 0.0

    def states(self) -> dict[str, Snapshot]:
        raw = f'{{"status":"running","filling":"{"x" * 500}"}}'
        return {
            event.cvm_id: Snapshot(event.cvm_id, raw, "running", event.name, "t", "t", app_id=event.app_id)
            for event in self.whole
        }


class Connection(PlainSink):
    """A sink whose client may stop reading; a cut loses the bytes that it did not take."""

    def __init__(self) -> None:
        self.taken, self.waiting, self.open = b"", b"", True
        self._reads = asyncio.Event()
        self._reads.set()

    def reads(self, *, on: bool) -> None:
        (self._reads.set if on else self._reads.clear)()
        if on:
            self.taken, self.waiting = self.taken + self.waiting, b""

    def send_all(self, frames: Iterable[Frame]) -> None:
        self.write(b"".join(frame.data for frame in frames))

    def write(self, data: bytes) -> None:
        if self.open:
            self.waiting += data
            assert len(self.waiting) < 3 * BUFFER
            self.reads(on=self._reads.is_set())

    def backlog(self) -> int:
        return len(self.waiting)

    async def drained(self) -> None:
        await self._reads.wait()

    def close(self) -> None:
        self.open = False

    def cut(self) -> None:
        self.open, self.waiting = False, b""


class Client:
    """What one client read. `base`: the id after which it must have seen every event, None until it has a cursor."""

    def __init__(self, scope: CvmScope, types: frozenset[str] | None, *, snapshots: bool) -> None:
        self.scope, self.types, self.snapshots = scope, types, snapshots
        self.cursor: str | None = None
        self.since: int | None = None
        self.base: str | None = None
        self.seen: list[str] = []
        self.connection = Connection()
        self.subscriber = Subscriber(self.connection)
        self._parsed = 0

    def connect(self, hub: Hub, begin: Begin) -> None:
        self.connection, self._parsed = Connection(), 0
        if self.base is None and isinstance(begin, str):
            self.base = begin
        elif isinstance(begin, int):
            self.base = f"{begin - 1}-{2**64 - 1}"
        self.subscriber = Subscriber(
            self.connection, scope=self.scope, filter=EventFilter(types=self.types), snapshots=self.snapshots
        )
        hub.enter(self.subscriber, begin)

    def read(self) -> None:
        *blocks, _ = self.connection.taken[self._parsed :].split(b"\n\n")
        self._parsed += sum(len(block) + 2 for block in blocks)
        for block in blocks:
            fields = dict(
                line.partition(": ")[::2] for line in block.decode().split("\n") if not line.startswith((":", "retry"))
            )
            self._take(fields["event"], fields.get("id"))

    def _take(self, name: str, entry_id: str | None) -> None:
        if name == "reset":
            self.base, self.seen = None, []
        if entry_id is None:
            return
        self.cursor = entry_id
        if name in ("state", "transition"):
            assert self.base is not None, "an event before the cursor that it follows"
            self.seen.append(entry_id)
        elif self.base is None:
            self.base = entry_id

    def _wants(self, event: Event) -> bool:
        """By each reference alone."""
        sets = [each for each in (self.scope.named, self.scope.limit) if each is not None]
        cvm = event.cvm_id, event.app_id, event.name
        in_scope = all(any(reference.matches(*cvm) for reference in references) for references in sets)
        return in_scope and (self.types is None or event.type in self.types)

    def check(self, log: MovingLog) -> None:
        assert self.base is not None
        assert self.seen == [
            event.id for event in log.whole if entry_key(event.id) > entry_key(self.base) and self._wants(event)
        ]


class FanOut(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner(loop_factory=VirtualLoop)
        self.clients: list[Client] = []
        self.messages: list[Callable[[], Awaitable[None]]] = []
        self.breaks = self.healed = 0
        self.loop.run(self._begin())

    async def _begin(self) -> None:
        self.log = MovingLog()
        self.hub = Hub(self.log, "/bridge/x", VirtualClock(), buffer=BUFFER, log_length=LOG_LENGTH, ring=Ring(4))
        self.something = asyncio.Event()
        self.following = asyncio.create_task(self._follow(), name="follower")

    async def _follow(self) -> None:
        """As the feed consumer: one message after the other; a new subscription begins with the log."""
        while True:
            try:
                self.something.clear()
                while self.healed < self.breaks:
                    subscription = self.breaks
                    await self.hub.catch_up()
                    self.healed = subscription
                while self.messages and self.healed == self.breaks:
                    await self.messages.pop(0)()
                await self.something.wait()
            except StoreError:
                self._break()
                await asyncio.sleep(0.5)

    def _break(self) -> None:
        self.breaks += 1
        self.messages.clear()
        self.something.set()

    def _tell(self, message: Callable[[], Awaitable[None]]) -> None:
        if self.healed == self.breaks:
            self.messages.append(message)
            self.something.set()

    def _tick(self) -> None:
        at = self.log.at()
        self._tell(lambda: self.hub.on_tick(at.log_id, at.sequence, at.id))

    def _append(self, cvm_id: str, kind: str, name: str | None = None, *, published: bool) -> None:
        event = self.log.append(cvm_id, kind, APPS.get(cvm_id), name)
        if published:
            self._tell(lambda: self.hub.receive(event))

    def _at_once(self, call: Callable[..., object], *arguments: object) -> None:
        """Inside the loop, and nothing else runs meanwhile."""

        async def inside() -> None:
            call(*arguments)

        self.loop.run(inside())

    def _pass(self, seconds: float) -> None:
        self.loop.run(asyncio.sleep(seconds))
        for client in self.clients:
            client.read()

    # What the log does

    @rule(
        count=st.integers(1, 12),
        cvm_id=st.sampled_from("abc"),
        kind=st.sampled_from(["cvm.state", "cvm.transition"]),
        name=st.sampled_from(["web-1", "api-1", None]),
        published=st.sampled_from([True, True, False]),
    )
    def append(self, count: int, cvm_id: str, kind: str, name: str | None, *, published: bool) -> None:
        for _ in range(count):
            self._append(cvm_id, kind, name, published=published)

    @rule()
    def tick(self) -> None:
        if self.log.made and not self.log.failing:
            self._tick()

    @rule()
    def subscription_breaks(self) -> None:
        self._break()

    @rule(count=st.integers(1, 20))
    def trim(self, count: int) -> None:
        self.log.trim(count)

    @rule(count=st.integers(1, 4), sequel=st.integers(0, 6))
    def fail_over(self, count: int, sequel: int) -> None:
        """Connections do not outlive it."""
        self.log.lose(count)
        self._break()
        for _ in range(sequel):
            self._append("a", "cvm.state", published=True)

    @precondition(lambda self: self.log.made)
    @rule(sequel=st.integers(0, 15), published=st.booleans(), gone=st.booleans())
    def flush(self, sequel: int, *, published: bool, gone: bool) -> None:
        self.log.begin()
        self.log.made = not gone
        for _ in range(sequel):
            self._append("b", "cvm.state", published=published)

    @rule(failing=st.booleans(), takes=st.sampled_from([0.0, 0.01, 0.3]))
    def redis(self, *, failing: bool, takes: float) -> None:
        self.log.failing, self.log.takes = failing, takes

    # What clients do

    @rule(
        named=st.sampled_from([None, "a", "b c", "z", "*", "name:web-*", "app_1 a", "app_1 name:web-?"]),
        limit=st.sampled_from([None, None, "a b", "name:*-1", "app_1", "c name:web-*"]),
        types=st.sampled_from([None, frozenset(["cvm.transition"])]),
        snapshots=st.booleans(),
        begin=st.sampled_from(["none", "event", "low water", "time"]),
        back=st.integers(0, 12),
    )
    def enter(
        self,
        named: str | None,
        limit: str | None,
        types: frozenset[str] | None,
        *,
        snapshots: bool,
        begin: str,
        back: int,
    ) -> None:
        client = Client(CvmScope(references(named), references(limit)), types, snapshots=snapshots)
        events = self.log.whole
        if begin == "event" and events:
            client.cursor = events[-1 - min(back, len(events) - 1)].id
        elif begin == "low water":
            client.cursor = self.log.low_water_mark
        elif begin == "time" and events:
            client.since = min(int(events[0].id[:-2]) + 5 * back, int(events[-1].id[:-2]))
        self._at_once(client.connect, self.hub, client.since if client.cursor is None else client.cursor)
        self.clients.append(client)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9))
    def reconnect(self, which: int) -> None:
        self._at_once(self._reconnect, self.clients[which % len(self.clients)])

    def _reconnect(self, client: Client) -> None:
        self.hub.leave(client.subscriber)
        client.read()
        client.connection.cut()
        client.connect(self.hub, client.since if client.cursor is None else client.cursor)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9), on=st.booleans())
    def read(self, which: int, *, on: bool) -> None:
        client = self.clients[which % len(self.clients)]
        client.connection.reads(on=on)
        client.read()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.01, 0.35, 2.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule()
    def beat(self) -> None:
        for _ in range(20):
            self._at_once(self.hub.beat)

    # What must hold

    def _at_rest(self) -> None:
        """Redis answers, the feed got a tick, and all clients read."""
        self.log.failing, self.log.takes, self.log.made = False, 0.0, True
        for client in self.clients:
            client.connection.reads(on=True)
        self._pass(5)
        self._tick()
        self._pass(5)

    @rule()
    def all_have_all(self) -> None:
        self._at_rest()
        self._pass(100)
        for client in self.clients:
            if not client.connection.open:
                self._at_once(self._reconnect, client)
        self._pass(5)
        for client in self.clients:
            assert (client.connection.open, client.subscriber.live) == (True, True)
            client.check(self.log)

    def teardown(self) -> None:
        try:
            self.all_have_all()
            self.loop.run(self._end())
        finally:
            self.following.cancel()
            self.loop.close()

    async def _end(self) -> None:
        for client in self.clients:
            self.hub.leave(client.subscriber)
        assert self.hub.present == 0
        assert self.hub.demand.counts() == {}
        self.following.cancel()
        await assert_no_task_left({asyncio.current_task()})


FanOut.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_no_subscriber_loses_an_event_without_being_told = FanOut.TestCase
