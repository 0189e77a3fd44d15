"""The store's promises on a real server: one atomic step, fences, floors, slots."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from bridge.events import Draft, entry_key
from bridge.store.connection import Backend, connect
from bridge.store.errors import FencedError, StillWantedError, StoreUnavailableError
from bridge.store.feed import Feed, Published, Subscribed
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watch, Watches
from tests.servers import Guarded, RealServer, cluster_url

DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1"}')
SECOND = Draft("cvm.readiness", "cvm-1", "2026-11-24T16:00:00.000Z", '{"ready":true}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running","x":1.10}', "running", "n", "t", "t")


@dataclass
class Writer:
    """A leader's pen: its term and where it stands."""

    backend: Backend
    term: Term
    written: WritePosition
    log_length: int = 100

    async def append(self, draft: Draft = DRAFT, second: Draft | None = None) -> WritePosition:
        log_writer = LogWriter(self.backend, self.log_length)
        self.written = await log_writer.append(self.term, self.written, draft, SNAPSHOT, ran=False, second=second)
        return self.written


async def lead(backend: Backend, holder: str = "one", last: str = "0-0") -> Writer:
    term = await Leadership(backend).acquire(holder, 10, f"log-{holder}", last)
    assert isinstance(term, Term)
    return Writer(backend, term, WritePosition(term.sequence, term.last_id))


async def test_an_event_is_in_the_log_the_snapshot_and_on_both_channels_with_one_id(backend: Backend) -> None:
    writer = await lead(backend)
    async with backend.client.pubsub() as channels:
        await channels.subscribe("{bridge}:events", "{bridge}:events:cvm-1")
        written = await writer.append()
        messages = [m["data"] async for m in _first(channels.listen(), 4) if m["type"] == "message"]
    (entry,) = await backend.client.xrange("{bridge}:log")
    state = json.loads(await backend.client.hget("{bridge}:state", "cvm-1"))
    assert entry[0] == state["event_id"] == written.last_id
    assert [json.loads(message)["id"] for message in messages] == [written.last_id] * 2
    assert {"id": written.last_id, **json.loads(entry[1]["event"])} == json.loads(messages[0])
    assert json.loads(messages[0])["sequence"] == "0000000000000001"
    assert (await Snapshots(backend).get(["cvm-1"]))["cvm-1"].raw_state == SNAPSHOT.raw_state


async def _first(source: AsyncIterator[dict[str, str]], count: int) -> AsyncIterator[dict[str, str]]:
    async for item in source:
        yield item
        count -= 1
        if not count:
            return


async def test_an_append_repeated_after_a_lost_reply_finds_itself_done(backend: Backend) -> None:
    writer = await lead(backend)
    log_writer, before = LogWriter(backend, 100), writer.written
    first = await log_writer.append(writer.term, before, DRAFT, SNAPSHOT, ran=False)
    again = await log_writer.append(writer.term, before, DRAFT, SNAPSHOT, ran=False)
    assert first == again
    assert len(await Log(backend).read("0-0", 10)) == 1


async def test_two_events_are_written_and_published_in_one_step_however_often_it_is_repeated(backend: Backend) -> None:
    writer = await lead(backend)
    before = await writer.append()
    async with backend.client.pubsub() as channels:
        await channels.subscribe("{bridge}:events", "{bridge}:events:cvm-1")
        written = await writer.append(second=SECOND)
        writer.written = before
        assert await writer.append(second=SECOND) == written
        messages = [m["data"] async for m in _first(channels.listen(), 6) if m["type"] == "message"]
    _, first, second = await Log(backend).read("0-0", 10)
    assert (first.type, first.sequence, second.type, second.sequence) == (DRAFT.type, 2, SECOND.type, 3)
    assert (written.sequence, written.last_id) == (3, second.id)
    assert messages == [first.json, first.json, second.json, second.json]
    assert (await Snapshots(backend).get(["cvm-1"]))["cvm-1"].event_id == second.id
    assert (await writer.append()).sequence == 4


async def test_another_step_under_the_numbers_of_two_events_is_refused(backend: Backend) -> None:
    writer = await lead(backend)
    before = writer.written
    await writer.append(second=SECOND)
    for second in (None, DRAFT):
        writer.written = before
        with pytest.raises(FencedError):
            await writer.append(second=second)
    assert len(await Log(backend).read("0-0", 10)) == 2


async def test_a_spent_epoch_writes_nothing_and_the_sequence_goes_on(backend: Backend) -> None:
    old = await lead(backend)
    await old.append()
    await Leadership(backend).resign(old.term)
    new = await lead(backend, "two")
    for refused in (old.append(), Leadership(backend).renew(old.term, 10, 1), Slots(backend).take(old.term, 0, "c", 5)):
        with pytest.raises(FencedError):
            await refused
    assert (await new.append()).sequence == 2


async def test_only_one_leads_at_a_time(backend: Backend) -> None:
    await lead(backend)
    wait = await Leadership(backend).acquire("two", 10, "b")
    assert isinstance(wait, float)
    assert 0 < wait <= 10


async def test_a_flush_fences_and_the_new_log_starts_at_one_above_the_old_ids(backend: Backend) -> None:
    old = await lead(backend)
    last = await old.append()
    await backend.client.flushall()
    with pytest.raises(FencedError):
        await old.append()
    future = f"{entry_key(last.last_id)[0] + 60_000}-0"
    new = await lead(backend, "one", future)
    assert new.term.born
    written = await new.append()
    assert written.sequence == 1
    assert entry_key(written.last_id) > entry_key(future)


async def test_a_promoted_replica_without_the_last_writes_uses_no_number_twice(backend: Backend) -> None:
    writer = await lead(backend)
    await writer.append()
    used = (5, f"{entry_key(writer.written.last_id)[0] + 60_000}-3")
    writer.written = replace(writer.written, used=used)
    written = await writer.append()
    assert written.sequence == 6
    assert entry_key(written.last_id) > entry_key(used[1])


async def test_the_floor_is_the_newest_entry_that_is_gone(backend: Backend) -> None:
    writer = await lead(backend)
    writer.log_length = 3
    ids = [(await writer.append()).last_id for _ in range(5)]
    position = await Log(backend).position()
    assert position is not None
    assert (position.low_water_mark, position.low_water_sequence, position.trimmed) == (ids[1], 2, True)
    assert [event.id for event in await Log(backend).read("0-0", 10)] == ids[2:]


async def test_script_flush_heals(backend: Backend) -> None:
    writer = await lead(backend)
    await writer.append()
    await backend.client.script_flush()
    assert (await writer.append()).sequence == 2


async def test_a_watch_wanted_meanwhile_is_not_dropped(backend: Backend) -> None:
    writer, watches = await lead(backend), Watches(backend)
    await writer.append()
    await watches.want("cvm-1")
    with pytest.raises(StillWantedError):
        await LogWriter(backend, 100).drop(writer.term, writer.written, DRAFT, 5)
    writer.written = await LogWriter(backend, 100).drop(writer.term, writer.written, DRAFT, 2**50)
    assert await watches.get("cvm-1") is None
    await LogWriter(backend, 100).refresh(writer.term, [SNAPSHOT])
    assert await Snapshots(backend).all() == {}


async def test_a_slot_is_held_until_it_is_freed_and_never_two_for_one_cvm(backend: Backend) -> None:
    writer, slots = await lead(backend), Slots(backend)
    assert await slots.take(writer.term, 0, "a", 60) == 0
    assert 50 < await slots.take(writer.term, 0, "b", 60) <= 60
    assert await slots.take(writer.term, 1, "a", 60) > 0
    assert await slots.free(writer.term, 0, 0) is True
    assert await slots.free(writer.term, 0, 0) is False
    assert await slots.take(writer.term, 1, "a", 60) == 0


async def test_a_take_repeated_after_a_lost_reply_has_its_slot(backend: Backend) -> None:
    writer, slots = await lead(backend), Slots(backend)
    assert [await slots.take(writer.term, 0, "a", 60) for _ in range(2)] == [0, 0]
    await slots.free(writer.term, 0, 60)
    assert await slots.take(writer.term, 0, "a", 60) > 0


async def test_a_watch_tells_its_pins_and_subscribers(backend: Backend) -> None:
    watches = Watches(backend)
    assert (await watches.existing(["c"]), await watches.get("c")) == (set(), None)
    await watches.change_config_pins(["c", "d"])
    await watches.announce("front", {"c": 2}, 60)
    assert await watches.get("c") == Watch("c", pinned=True, pinned_by_config=True, subscribers=2)
    await watches.change_config_pins([], ["c"])
    assert await watches.config_pins() == {"d"}
    assert await watches.get("c") == Watch("c", pinned=False, pinned_by_config=False, subscribers=2)


async def test_a_vanished_holders_slot_is_quarantined_until_it_frees_it_itself(backend: Backend) -> None:
    old, slots = await lead(backend), Slots(backend)
    await slots.take(old.term, 0, "a", 60)
    await Leadership(backend).resign(old.term)
    new = await lead(backend, "two")
    assert (await slots.list())[0].state == "quarantined"
    assert await slots.take(new.term, 0, "a", 60) > 0
    assert await slots.free(new.term, 0, 0) is False
    assert await slots.free(old.term, 0, 0) is True
    assert await slots.take(new.term, 0, "a", 60) == 0
    assert (await slots.list())[0].state == "held"


async def test_many_callers_that_ask_for_one_reference_make_one_lookup(backend: Backend) -> None:
    lookups, watches = ReferenceLookups(backend), Watches(backend)
    assert [await lookups.ask("web") for _ in range(3)] == [None] * 3
    assert (await watches.survey()).lookups == ("web",)
    await lookups.answer(Answer("web", "cvm-1"))
    assert await lookups.ask("web") == Answer("web", "cvm-1")
    assert (await watches.survey()).lookups == ()


async def test_demand_counts_over_front_ends_and_ends_with_them(backend: Backend) -> None:
    watches = Watches(backend)
    await watches.announce("a", {"cvm-1": 2}, 60)
    await watches.announce("b", {"cvm-1": 1}, 60)
    await watches.announce("gone", {"cvm-1": 7}, 0)
    assert (await watches.survey()).demand == {"cvm-1": 3}
    await watches.retire("b")
    assert (await watches.survey()).demand == {"cvm-1": 2}


async def test_a_killed_server_ends_the_feed_and_a_restarted_one_has_everything(own_server: RealServer) -> None:
    backend = connect(own_server.url, "bridge")
    writer = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await anext(messages), Subscribed)
    written = await writer.append()
    published = await anext(messages)
    assert isinstance(published, Published)
    assert published.event.id == written.last_id
    await backend.client.publish("{bridge}:events", "rubbish")
    await writer.append()
    assert isinstance(await anext(messages), Published)
    own_server.kill()
    with pytest.raises(StoreUnavailableError):
        await anext(messages)
    own_server.restart()
    assert (await writer.append()).sequence == 3
    await backend.close()


async def test_a_cluster_serves_log_feed_and_snapshot(redis_cluster: RealServer) -> None:
    backend = connect(cluster_url(redis_cluster), "bridge")
    writer = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await anext(messages), Subscribed)
    await writer.append()
    assert isinstance(await anext(messages), Published)
    await messages.aclose()
    position, snapshots = await Log(backend).snapshot()
    assert position is not None
    assert (position.sequence, list(snapshots)) == (1, ["cvm-1"])
    await backend.close()


async def test_a_sentinels_failover_is_survived(redis_guarded: Guarded) -> None:
    backend = connect(redis_guarded.url, "bridge")
    writer = await lead(backend)
    await writer.append()
    await backend.client.wait(1, 5000)
    redis_guarded.primary.kill()
    while True:
        try:
            written = await writer.append()
            break
        except StoreUnavailableError:
            continue
    assert written.sequence == 2
    await backend.close()
