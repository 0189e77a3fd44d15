"""Consumer groups on the log of a real server: a queue that trimming waits for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from bridge.events import Draft
from bridge.store.connection import Backend
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot

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
