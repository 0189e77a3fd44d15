"""Consumer groups on the log of a real server: a queue that trimming waits for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from bridge.commands.check import run_check
from bridge.config import Settings
from bridge.events import Draft
from bridge.store.connection import Backend, connect
from bridge.store.errors import StoreUnavailableError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from tests.lanes import bench, endpoint
from tests.servers import RealServer, cluster_url

LOG = "{bridge}:log"
DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1"}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running"}', "running", "n", "t", "t")


@dataclass
class Leader:
    """It writes as a leader does: one writer for a whole term, which looks at the groups every five seconds."""

    backend: Backend
    term: Term
    log_length: int
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.written = WritePosition(self.term.sequence, self.term.last_id)
        self.look()

    def look(self) -> None:
        """The next append looks, as after five seconds."""
        self.writer = LogWriter(self.backend, self.log_length)

    async def append(self, count: int) -> None:
        for _ in range(count):
            self.written = await self.writer.append(self.term, self.written, DRAFT, SNAPSHOT, ran=False)
            self.ids.append(self.written.last_id)

    async def take(self, group: str, count: int) -> list[str]:
        """As a consumer does: what is next, and the acknowledgement."""
        answer = await self.backend.client.xreadgroup(group, "worker", {LOG: ">"}, count=count, block=1)
        found = [entry_id for _, entries in answer or () for entry_id, _ in entries]
        if found:
            assert await self.backend.client.xack(LOG, group, *found) == len(found)
        return found

    async def length(self) -> int:
        return int(await self.backend.client.xlen(LOG))


async def lead(backend: Backend, log_length: int) -> Leader:
    term = await Leadership(backend).acquire("one", 60, "log")
    assert isinstance(term, Term)
    return Leader(backend, term, log_length)


@pytest.fixture
async def leader(backend: Backend) -> Leader:
    return await lead(backend, 20)


def sha1(name: bytes) -> str:
    return hashlib.sha1(name, usedforsecurity=False).hexdigest()[:12]


def lost() -> float:
    return REGISTRY.get_sample_value("bridge_log_trimmed_unread_total", {"reader": "groups"}) or 0.0


async def test_a_group_that_lags_gets_every_event_once_and_in_order_while_the_log_is_many_times_its_length(
    leader: Leader,
) -> None:
    before = lost()
    await leader.backend.client.xgroup_create(LOG, "queue", "$", mkstream=True)
    got: list[str] = []
    for count in (3, 40, 1, 60, 30):
        await leader.append(count)
        got += await leader.take("queue", 7)
    assert await leader.length() == 134 - 3, "of what it had been given when the leader looked"
    position = await Log(leader.backend).position()
    assert position is not None
    assert position.low_water_sequence == 3
    leader.look()
    await leader.append(1)
    assert await leader.length() == 135 - len(got)
    while found := await leader.take("queue", 11):
        got += found
    assert got == leader.ids
    leader.look()
    await leader.append(1)
    assert await leader.length() == 20
    assert await leader.take("queue", 100) == leader.ids[-1:]
    assert lost() == before


async def test_beyond_ten_times_the_length_each_group_that_lost_events_is_named_with_how_many(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    before, client = lost(), leader.backend.client
    odd = b"odd \xff\n" + b"x" * 500
    for name in ("slow", odd, odd[:-1] + b"y", "quick"):
        await client.xgroup_create(LOG, name, "0", mkstream=True)
    await leader.append(200)
    assert len(await leader.take("quick", 190)) == 190  # read between two looks, it still counts as read
    await leader.take(odd, 10)  # type: ignore[arg-type]
    await leader.append(30)
    assert await leader.length() == 200
    assert lost() - before == 30
    told = {record.__dict__["group"]: record.__dict__["events"] for record in caplog.records}
    long = "odd \\xff\\x0a" + "x" * 94 + "... (506 bytes, SHA-1 {})"
    assert told == {"slow": 1, long.format(sha1(odd)): 1, long.format(sha1(odd[:-1] + b"y")): 1}
    assert await leader.take("quick", 1000) == leader.ids[190:]
    assert await leader.take("slow", 1000) == leader.ids[30:], "the others are there, in order"


async def test_a_redis_that_groups_have_filled_goes_on_once_the_log_may_be_trimmed(own_server: RealServer) -> None:
    backend = connect(own_server.url, "bridge")
    leader, client = await lead(backend, 20), backend.client
    await client.xgroup_create(LOG, "forgotten", "0", mkstream=True)
    await leader.append(60)
    await client.xgroup_create(LOG, "reader", leader.ids[-3])
    await client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailableError):
        await leader.append(1)
    await client.xgroup_destroy(LOG, "forgotten")
    leader.look()
    await leader.append(5)
    assert await leader.length() == 20
    await client.config_set("maxmemory", 0)
    assert await leader.take("reader", 10) == leader.ids[-7:]
    position = await Log(backend).position()
    assert position is not None
    assert (position.sequence, position.low_water_sequence) == (65, 45)
    await backend.close()


async def test_trimming_waits_for_webhooks_and_groups_alike(backend: Backend) -> None:
    made = await bench(backend)
    made.writer.log_length = 3
    await made.endpoints.create(endpoint())
    for _ in range(4):
        await made.writer.append()
    await backend.client.xgroup_create(LOG, "queue", "0")
    for _ in range(8):
        await made.writer.append()
    await made.fill()
    await made.writer.append()
    assert await backend.client.xlen(LOG) == 13, "the group has read nothing"
    await backend.client.xreadgroup("queue", "c", {LOG: ">"})
    await made.writer.append()
    assert await backend.client.xlen(LOG) == 3
    for _ in range(5):
        await made.writer.append()
    await backend.client.xreadgroup("queue", "c", {LOG: ">"})
    await made.writer.append()
    assert await backend.client.xlen(LOG) > 3, "webhooks have not read it"


async def test_a_group_that_is_made_before_the_bridge_ever_ran_gets_the_first_event(backend: Backend) -> None:
    await backend.client.xgroup_create(LOG, "queue", "$", mkstream=True)
    leader = await lead(backend, 3)
    await leader.append(5)
    assert await leader.take("queue", 10) == leader.ids


async def test_events_of_a_log_whose_record_was_lost_are_gone_and_its_groups_stay(leader: Leader) -> None:
    await leader.append(3)
    await leader.backend.client.xgroup_create(LOG, "queue", "0")
    await leader.backend.client.delete(leader.backend.keys.meta, leader.backend.keys.leader)
    new = await lead(leader.backend, 20)
    assert new.term.born
    await new.append(2)
    assert await new.take("queue", 10) == new.ids


async def test_bridge_check_names_groups_for_which_the_log_is_kept_and_idle_ones(
    leader: Leader, redis_url: str
) -> None:
    await leader.append(20)
    for name in ("late", "idle", "reader"):
        await leader.backend.client.xgroup_create(LOG, name, "0")
    await leader.append(30)
    assert len(await leader.take("reader", 100)) == 50
    await leader.backend.client.hset(leader.backend.keys.seen_groups, "idle", "0-0 1")
    told: list[str] = []
    await run_check(Settings(redis_url=redis_url, log_length=20), told.append)
    groups = told.index("  groups   3 consumer group(s) of the log")
    assert set(told[groups + 1 : groups + 3]) == {
        "    late late: 50 events to read, for which the log is kept",
        "    idle idle: the log does not wait for it",
    }
    assert "reader" not in "".join(told)


async def test_groups_work_in_a_cluster(redis_cluster: RealServer) -> None:
    backend = connect(cluster_url(redis_cluster), "bridge")
    leader = await lead(backend, 3)
    await backend.client.xgroup_create(LOG, "queue", "0", mkstream=True)
    await leader.append(40)
    assert await leader.length() == 30
    assert await leader.take("queue", 100) == leader.ids[10:]
    await backend.close()
