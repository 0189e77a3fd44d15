"""When trimming waits for a consumer group, and when it no longer does."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from bridge.clock import SystemClock
from bridge.events import Draft
from bridge.store.connection import Backend
from bridge.store.consumer_groups import LOOK_EVERY, WELCOME, Group, Seen, judge
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from bridge.store.trim_losses import TrimLosses
from tests.fakes import CountedCalls, HandClock, fake_backend, redis_time

DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1"}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running"}', "running", "n", "t", "t")
DAY = 86_400.0
EXAMPLES = os.environ.get("MODEL_EXAMPLES")
WEEK_MS = int(7 * DAY * 1000)


def group(delivered: str, name: str = "k") -> Group:
    return Group(name, delivered)


@pytest.mark.parametrize(
    ("groups", "position"),
    [
        ((), ""),
        ((group("5-0"),), "5-0"),
        ((group("9-0", "a"), group("10-0", "b")), "9-0"),
        ((group("9-1", "a"), group("9-0", "b"), group("20-0", "c")), "9-0"),
        ((group("18446744073709551615-18446744073709551615"),), "18446744073709551615-18446744073709551615"),
        ((group("0-0"),), "0-0"),
    ],
    ids=str,
)
def test_trimming_waits_for_the_slowest_group(groups: tuple[Group, ...], position: str) -> None:
    assert judge(groups, {}, "10-0", 0, WEEK_MS).position == position


@pytest.mark.parametrize(
    ("seen", "delivered", "idle"),
    [
        (None, "5-0", False),
        (Seen("5-0", 1), "5-0", True),
        (Seen("5-0", 2), "5-0", False),
        (Seen("4-0", 1), "5-0", False),
        (Seen("5-0", 1), "10-0", False),
        (Seen("5-0", 1), "11-0", False),
        (Seen("5-0", WEEK_MS * 9), "5-0", False),
    ],
    ids=["new", "for a week", "a little less", "it was given something", "it has all", "beyond the end", "clock back"],
)
def test_a_group_is_idle_that_could_read_for_a_week_and_was_given_nothing(
    seen: Seen | None, delivered: str, idle: bool
) -> None:
    found = judge([group(delivered)], {"k": seen} if seen else {}, "10-0", WEEK_MS + 1, WEEK_MS)
    assert [each.name for each in found.idle] == ["k"] * idle
    assert found.position == ("" if idle else delivered)


@pytest.mark.parametrize("text", ["", "5-0", "5-0 ", "5-0 x", "5-0 -1", "5-0 99999999999999999999", " "])
def test_what_no_bridge_remembered_is_as_if_the_group_were_new(text: str) -> None:
    assert Seen.parse(text) is None


class Steps(SystemClock):
    """A monotonic clock that stands still until it is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Bridge:
    """A leader on a fake server whose clock the test holds."""

    backend: Backend
    clock: HandClock
    keep: int = 3
    steps: Steps = field(default_factory=Steps)
    written: WritePosition = field(default_factory=lambda: WritePosition(0, "0-0"))
    term: Term | None = None
    leads_from: float = 0.0

    async def lead(self, holder: str = "one") -> None:
        if self.term:
            await Leadership(self.backend).resign(self.term)
        term = await Leadership(self.backend).acquire(holder, 1e6, "log")
        assert isinstance(term, Term)
        self.term, self.written = term, WritePosition(term.sequence, term.last_id, self.written.used)
        self.writer, self.leads_from = LogWriter(self.backend, self.keep, clock=self.steps), self.steps.now

    def wait(self, seconds: float) -> None:
        """On the server's clock and on the leader's own."""
        self.clock.now += seconds
        self.steps.now += seconds

    def look(self) -> None:
        """The next append looks at the groups."""
        self.steps.now += LOOK_EVERY

    async def append(self, count: int = 1) -> list[str]:
        ids = []
        for _ in range(count):
            assert self.term
            self.written = await self.writer.append(self.term, self.written, DRAFT, SNAPSHOT, ran=False)
            ids.append(self.written.last_id)
        return ids

    async def read(self, name: str, count: int = 1000) -> list[str]:
        answer = await self.backend.client.xreadgroup(name, "c", {self.backend.keys.log: ">"}, count=count)
        return [entry_id for _, entries in answer for entry_id, _ in entries]

    async def create(self, name: str, after: str = "0") -> None:
        await self.backend.client.xgroup_create(self.backend.keys.log, name, after)

    async def log(self) -> list[str]:
        return [entry_id for entry_id, _ in await self.backend.client.xrange(self.backend.keys.log)]


@pytest.fixture
async def bridge(backend: Backend, clock: HandClock) -> Bridge:
    made = Bridge(backend, clock)
    await made.lead()
    return made


async def test_a_group_that_reads_nothing_for_a_week_is_set_aside_and_told_by_name(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    await bridge.append(3)
    await bridge.create("dead\nü")
    await bridge.append(5)
    assert len(await bridge.log()) == 8
    for holder in ("two", "three", "four"):  # a new leader, as in a week of deploys, does not begin to count anew
        bridge.wait(2 * DAY)
        await bridge.lead(holder)
        await bridge.append()
        assert len(await bridge.log()) > 8
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    bridge.wait(DAY)
    for _ in range(2):
        await bridge.append()
        bridge.look()
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.__dict__["group"] == "dead\\x0a\\xc3\\xbc"
    assert len(await bridge.log()) == 3
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert await bridge.read("dead\nü") == await bridge.log()
    bridge.look()
    ids = await bridge.append(9)
    assert await bridge.read("dead\nü") == ids


async def test_after_a_week_without_redis_the_log_waits_until_consumers_can_be_back(bridge: Bridge) -> None:
    await bridge.append(3)
    await bridge.create("q", "$")
    ids = await bridge.append(9)
    bridge.look()
    ids += await bridge.append()
    bridge.wait(8 * DAY)
    await bridge.lead("two")
    ids += await bridge.append()
    bridge.wait(WELCOME - 1)
    ids += await bridge.append()
    assert await bridge.read("q") == ids


async def test_a_group_that_had_read_all_before_a_quiet_month_is_not_idle(bridge: Bridge) -> None:
    await bridge.append(4)
    await bridge.create("q")
    bridge.look()
    await bridge.append()
    await bridge.read("q")
    bridge.wait(30 * DAY)
    ids = await bridge.append(9)
    bridge.wait(6 * DAY)
    ids += await bridge.append(9)
    assert await bridge.read("q") == ids


async def test_appends_cost_one_command_each_and_a_look_every_five_seconds(clock: HandClock) -> None:
    backend = CountedCalls()
    bridge = Bridge(backend, clock)
    await bridge.lead()
    await bridge.append(3)
    await bridge.create("q")
    counts = []
    for _ in range(3):
        before = backend.calls
        await bridge.append(20)
        counts.append(backend.calls - before)
        bridge.look()
    assert counts == [22, 21, 21], "the first look also writes what it saw"
    await backend.close()


async def test_what_is_remembered_of_groups_ends_with_them(bridge: Bridge) -> None:
    keys, client = bridge.backend.keys, bridge.backend.client
    await bridge.append(3)
    await bridge.create("q")
    await client.hset(keys.seen_groups, mapping={"x": "words", "y": "1-0 5"})
    await bridge.append()
    assert [Seen.parse(text) for text in await client.hvals(keys.seen_groups)] == [Seen("0-0", bridge.clock.ms)]
    await bridge.read("q")
    bridge.look()
    await bridge.append()
    assert not await client.exists(keys.seen_groups)


async def test_more_groups_than_are_looked_at_hold_the_log_and_are_told_once(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bridge.store.consumer_groups.MOST_GROUPS", 2)
    monkeypatch.setattr("bridge.store.log_writer.MOST_GROUPS", 2)
    await bridge.append(3)
    for name in "abc":
        await bridge.create(name, "$")
    before = missed()
    for _ in range(28):
        await bridge.append()
        bridge.look()
    assert len(await bridge.log()) == 30
    assert missed() - before == 1
    assert [record.__dict__.get("most") for record in caplog.records if record.levelname == "ERROR"] == [2, None]


def missed() -> float:
    return REGISTRY.get_sample_value("bridge_log_trimmed_unread_total", {"reader": "groups"}) or 0.0


def test_lines_about_losses_are_bounded_and_tell_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    clock, before = Steps(), missed()
    losses = TrimLosses(clock)
    for _ in range(170):
        losses.add(1, [("name", 1), ("other", 2)])
        clock.now += 1
    clock.now += 10
    for _ in range(5):
        losses.add(0, [])
    told = [(record.__dict__.get("group"), record.__dict__["events"]) for record in caplog.records]
    assert told[::3] == [(None, 1), (None, 60), (None, 60), (None, 49)], "each minute those since the last line"
    assert told[1::3] == [("name", 1), ("name", 60), ("name", 60), ("name", 49)]
    assert len(told) == 12
    assert missed() - before == 340
    caplog.clear()
    for number in range(30):
        losses.add(0, [(f"{number} {group}", 1) for group in range(1000)])
        clock.now += 60
    assert len(caplog.records) == 30 * 100
    assert len(losses._log_throttle._told_at) <= 1100


STEPS = st.lists(
    st.sampled_from(
        [
            ("append", 1),
            ("append", 3),
            ("append", 9),
            ("look", 0),
            ("look", 0),
            ("lead", 0),
            ("days", 4),
            ("days", 8),
            ("new a", 0),
            ("new b", 0),
            ("new b", 1),
            ("end a", 0),
            ("read a", 3),
            ("read a", 20),
            ("read b", 1),
            ("read b", 2),
        ]
    ),
    min_size=20,
    max_size=30,
)


class Lives:
    """What must hold of a log and its groups, told without looking at how it is done."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.ids: list[str] = []
        """Every event there ever was."""
        self.read: dict[str, int] = {}
        """Events that each group has behind it."""
        self.since: dict[str, tuple[int, int]] = {}
        """What it had read at the last looks that found it behind, and when the first of these was."""
        self.waited_for: set[str] = set()
        self.looks = True

    async def do(self, step: str, number: int) -> None:
        bridge, name = self.bridge, step[-1]
        if step == "append":
            for _ in range(number):
                await self.append()
        elif step in ("look", "lead"):
            bridge.look() if step == "look" else await bridge.lead("two")
            self.looks = True
        elif step == "days":
            bridge.wait(number * DAY)
            self.looks = True
        elif step.startswith("new") and name not in self.read and self.ids:
            await bridge.create(name, "0" if number else "$")
            self.read[name] = 0 if number else len(self.ids)
        elif step.startswith("end") and name in self.read:
            await bridge.backend.client.xgroup_destroy(bridge.backend.keys.log, name)
            del self.read[name]
            self.waited_for.discard(name)
        elif step.startswith("read") and name in self.read:
            found = await bridge.read(name, number)
            left = [each for each in await bridge.log() if self.ids.index(each) >= self.read[name]]
            assert found == left[:number]
            self.read[name] = self.ids.index(found[-1]) + 1 if found else self.read[name]

    def look(self) -> None:
        self.looks, self.waited_for = False, set()
        is_new = self.bridge.steps.now - self.bridge.leads_from < WELCOME
        for name, read in self.read.items():
            behind, before = read < len(self.ids), self.since.pop(name, None)
            if behind:
                now = self.bridge.clock.ms
                self.since[name] = before if before and before[0] == read else (read, now)
            if is_new or not behind or self.bridge.clock.ms - self.since[name][1] < WEEK_MS:
                self.waited_for.add(name)
        self.since = {name: each for name, each in self.since.items() if name in self.read}

    async def append(self) -> None:
        keep, before, gone = self.bridge.keep, missed(), len(self.ids) - len(await self.bridge.log())
        looked = self.looks and len(self.ids) >= keep
        if looked:
            self.look()
        self.ids += await self.bridge.append()
        log = await self.bridge.log()
        assert log == self.ids[-len(log) :]
        assert min(len(self.ids), keep) <= len(log) <= 10 * keep
        now_gone = len(self.ids) - len(log)
        lost = {name: max(0, now_gone - max(gone, read)) for name, read in self.read.items()}
        told = missed() - before
        # A group that was made after the last look may lose something untold.
        assert max((lost[name] for name in self.waited_for), default=0) <= told <= max(lost.values(), default=0)
        assert not told or len(log) == 10 * keep, "nobody loses anything sooner"
        if looked and len(log) > keep:
            assert min((self.read[name] for name in self.waited_for), default=len(self.ids)) <= now_gone, "no more"


@settings(max_examples=int(EXAMPLES or "15"), derandomize=not EXAMPLES)
@given(steps=STEPS)
def test_in_any_life_trimming_waits_for_groups_up_to_ten_times_and_no_longer(steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        clock = HandClock()
        with redis_time(clock):
            bridge = Bridge(fake_backend(), clock, keep=1)
            await bridge.lead()
            lives = Lives(bridge)
            for step in steps:
                await lives.do(*step)
            await bridge.backend.close()

    asyncio.run(live())
