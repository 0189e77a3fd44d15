"""The store on real servers that are killed, restarted, cut off, flushed, read-only or written to by strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bridge.events import Draft, entry_key, parse_state
from bridge.store.connection import Backend, connect
from bridge.store.errors import FencedError, StoreUnavailableError, TooManyLookupsError
from bridge.store.feed import Answered, Feed, Message, Published, Subscribed, Tick, subscription
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.reference_lookups import MOST_LOOKUPS, Answer, ReferenceLookups
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watches
from tests.servers import Guarded, RealServer, cluster_url

RAW = parse_state('{"status":"running","x":1.10,"y":1e5,"n":"\u2028\\u0000\\ud800 ü😀","z":' + "9" * 40 + "}").raw
DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", f'{{"cvm_id":"cvm-1","state":{RAW}}}')
SNAPSHOT = Snapshot("cvm-1", RAW, "running", 'n"\u2028\ud800', "s", "o", "", False, "unreachable", True)


async def lead(backend: Backend, holder: str = "one") -> Term:
    term = await Leadership(backend).acquire(holder, 10, f"log-{holder}")
    assert isinstance(term, Term)
    return term


def start(term: Term) -> WritePosition:
    return WritePosition(term.sequence, term.last_id)


async def append(backend: Backend, term: Term, written: WritePosition) -> WritePosition:
    return await LogWriter(backend, 100).append(term, written, DRAFT, SNAPSHOT, ran=True)


async def persistently(backend: Backend, term: Term, written: WritePosition) -> WritePosition:
    """As the recorder does it: the same append again until Redis answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await append(backend, term, written)
            except StoreUnavailableError:
                await asyncio.sleep(0.02)


async def heard(messages: AsyncIterator[Message]) -> Message:
    async with asyncio.timeout(20):
        return await anext(messages)


async def test_upstreams_text_comes_back_character_for_character(backend: Backend) -> None:
    term = await lead(backend)
    written = await append(backend, term, start(term))
    (event,) = await Log(backend).latest(5)
    assert RAW in event.json
    snapshot = (await Snapshots(backend).all())["cvm-1"]
    assert (snapshot.raw_state, snapshot.name, snapshot.event_id) == (RAW, SNAPSHOT.name, written.last_id)
    await LogWriter(backend, 100).refresh(term, [snapshot])
    assert (await Snapshots(backend).all())["cvm-1"] == snapshot


async def test_repeating_an_append_many_times_at_once_writes_and_publishes_it_once(backend: Backend) -> None:
    term = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    places = await asyncio.gather(*(append(backend, term, start(term)) for _ in range(20)))
    assert len(set(places)) == 1
    await append(backend, term, places[0])
    published = [
        message for message in [await heard(messages), await heard(messages)] if isinstance(message, Published)
    ]
    assert [message.event.sequence for message in published] == [1, 2]
    await messages.aclose()


async def test_many_campaigns_at_once_make_one_leader_and_one_log(backend: Backend) -> None:
    terms = await asyncio.gather(
        *(Leadership(backend).acquire(f"holder-{number}", 10, f"log-{number}") for number in range(20))
    )
    (term,) = [term for term in terms if isinstance(term, Term)]
    position = await Log(backend).position()
    assert position is not None
    assert position.log_id == term.log_id


async def test_many_takers_at_once_never_get_one_slot_or_one_cvm_twice(backend: Backend) -> None:
    term, slots = await lead(backend), Slots(backend)
    lookups = [(index, f"cvm-{cvm}") for index in range(5) for cvm in range(5)]
    waits = await asyncio.gather(*(slots.take(term, index, cvm, 60) for index, cvm in lookups))
    taken = [lookup for lookup, wait in zip(lookups, waits, strict=True) if wait == 0]
    assert len({index for index, _ in taken}) == len({cvm for _, cvm in taken}) == len(taken)
    held = [(record.index, record.cvm_id) for record in await slots.list() if record.state == "held"]
    assert sorted(held) == sorted(taken)


async def test_every_script_survives_a_server_that_forgot_them(backend: Backend) -> None:
    term, watches = await lead(backend), Watches(backend)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: append(backend, term, start(term)),
        "renew": lambda: Leadership(backend).renew(term, 10, 1.5),
        "refresh": lambda: LogWriter(backend, 100).refresh(term, [SNAPSHOT]),
        "take": lambda: Slots(backend).take(term, 0, "c", 60),
        "free": lambda: Slots(backend).free(term, 0, 0),
        "ask": lambda: ReferenceLookups(backend).ask("web"),
        "resign": lambda: Leadership(backend).resign(term),
        "acquire": lambda: lead(backend, "two"),
    }
    await watches.want("cvm-1")
    for step in steps.values():
        await backend.client.execute_command("SCRIPT FLUSH")
        await step()
    assert (await Log(backend).position()).sequence == 1  # type: ignore[union-attr]


async def test_the_feed_tells_events_ticks_and_answers_and_passes_over_garbage(backend: Backend) -> None:
    term = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    garbage: list[str | bytes] = [
        "",
        "null",
        "[]",
        "5",
        "{}",
        b"\xff\xfe\x00",
        "[" * 50_000,
        '{"id":"1-0","sequence":1e999,"type":"","subject":""}',
        '{"birth":"b","sequence":Infinity,"id":"1-0","period":1}',
        '{"birth":"b","sequence":1,"id":"1-0","period":NaN}',
        '{"birth":"b","sequence":1,"id":"1-0","period":-1}',
        '{"birth":"b","sequence":1,"id":"1-0","period":null}',
    ]
    for text in garbage:
        await backend.client.publish("{bridge}:events", text)
        await backend.client.publish("{bridge}:tick", text)
    written = await append(backend, term, start(term))
    published = await heard(messages)
    assert isinstance(published, Published)
    assert (published.event.id, published.event.sequence) == (written.last_id, 1)
    assert [published.event] == await Log(backend).latest(1)
    await Leadership(backend).renew(term, 10, 1.5)
    assert await heard(messages) == Tick("log-one", 1, written.last_id, 1.5)
    await ReferenceLookups(backend).answer(Answer("wéb {x}", "cvm-1"))
    assert await heard(messages) == Answered("wéb {x}")
    await messages.aclose()


async def test_a_feed_whose_connection_is_cut_fails_or_subscribes_again(backend: Backend) -> None:
    term = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    await backend.client.client_kill_filter(_type="pubsub")
    try:
        assert isinstance(await heard(messages), Subscribed)
    except StoreUnavailableError:
        messages = Feed(backend).messages()
        assert isinstance(await heard(messages), Subscribed)
    await append(backend, term, start(term))
    assert isinstance(await heard(messages), Published)
    await messages.aclose()


async def test_a_lookup_a_watch_and_a_hint_wake_the_leader(backend: Backend) -> None:
    calls = subscription(backend, backend.keys.wake_channel)
    waiting = asyncio.ensure_future(heard_wake(calls))
    await waiting
    for step in (ReferenceLookups(backend).ask("web"), Watches(backend).want("c"), ReferenceLookups(backend).hint("c")):
        await step
        await heard_wake(calls)
    assert (await Watches(backend).survey()).hints == ("c",)
    await ReferenceLookups(backend).forget_hints(("c",))
    assert (await Watches(backend).survey()).hints == ()
    await calls.aclose()


async def heard_wake(calls: AsyncIterator[object]) -> None:
    async with asyncio.timeout(20):
        await anext(calls)


async def test_answers_are_believed_for_a_minute_and_errors_for_five_seconds(backend: Backend) -> None:
    lookups = ReferenceLookups(backend)
    refused = Answer("gone", None, 404, '{"detail":"ü\u2028"}', "application/problem+json")
    await lookups.answer(refused)
    await lookups.answer(Answer("web", "cvm-1"))
    assert await lookups.ask("gone") == refused
    assert 0 < await backend.client.ttl("{bridge}:answer:gone") <= 5
    assert 5 < await backend.client.ttl("{bridge}:answer:web") <= 60
    await backend.client.delete("{bridge}:answer:gone")
    assert await lookups.ask("gone") is None
    assert (await Watches(backend).survey()).lookups == ("gone",)


async def test_a_scan_of_random_names_is_stopped_and_known_ones_are_still_answered(backend: Backend) -> None:
    lookups = ReferenceLookups(backend)
    await asyncio.gather(*(lookups.ask(f"name-{number}") for number in range(50)))
    (asked_at,) = {int(score) for _, score in await backend.client.zrange("{bridge}:wishes", 0, 0, withscores=True)}
    more = [f"more-{number}" for number in range(MOST_LOOKUPS - 50)]
    await backend.client.zadd("{bridge}:wishes", dict.fromkeys(more, asked_at))
    with pytest.raises(TooManyLookupsError):
        await lookups.ask("one more")
    assert await lookups.ask("name-7") is None
    await lookups.answer(Answer("name-7", "cvm-7"))
    assert await lookups.ask("name-7") == Answer("name-7", "cvm-7")
    assert await lookups.ask("one more") is None


async def test_a_read_only_server_and_one_without_its_primary_are_waited_for(own_server: RealServer) -> None:
    backend = connect(own_server.url, "bridge")
    term = await lead(backend)
    own_server.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError):
        await append(backend, term, start(term))
    with pytest.raises(StoreUnavailableError):
        await Watches(backend).announce("front", {}, 15)
    own_server.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    with pytest.raises(StoreUnavailableError):
        await Log(backend).position()
    own_server.call("REPLICAOF", "NO", "ONE")
    assert (await append(backend, term, start(term))).sequence == 1
    await backend.close()


async def test_a_silent_server_is_given_up_and_the_repeated_append_is_the_same_event(own_server: RealServer) -> None:
    patient = connect(own_server.url, "bridge")
    term = await lead(patient)
    backend = Backend(patient.client, "bridge", call_timeout=0.2)
    own_server.freeze()
    with pytest.raises(StoreUnavailableError):
        await append(backend, term, start(term))
    own_server.thaw()
    written = await persistently(patient, term, start(term))
    assert written.sequence == 1
    assert [event.id for event in await Log(patient).read("0-0", 10)] == [written.last_id]
    await patient.close()


async def kept(backend: Backend) -> tuple[object, object, object]:
    states = [record.state for record in await Slots(backend).list()]
    return await Log(backend).snapshot(), await Watches(backend).list(), states


async def test_a_killed_and_restarted_server_keeps_log_lease_slots_and_watches(own_server: RealServer) -> None:
    backend = connect(own_server.url, "bridge")
    term = await lead(backend)
    written = await append(backend, term, start(term))
    await Slots(backend).take(term, 2, "cvm-1", 60)
    await Watches(backend).pin("cvm-1")
    before = (
        await Log(backend).snapshot(),
        await Watches(backend).list(),
        [r.state for r in await Slots(backend).list()],
    )
    own_server.kill()
    with pytest.raises(StoreUnavailableError):
        await append(backend, term, written)
    own_server.start()
    after = (
        await Log(backend).snapshot(),
        await Watches(backend).list(),
        [r.state for r in await Slots(backend).list()],
    )
    assert after == before
    assert isinstance(await Leadership(backend).acquire("two", 10, "b"), float)
    assert (await append(backend, term, written)).sequence == 2
    await backend.close()


async def test_an_empty_restart_fences_the_leader_and_makes_a_new_log(server_binary: Path) -> None:
    with RealServer(server_binary, tcp=True) as server:
        backend = connect(server.url, "bridge")
        term = await lead(backend)
        written = await append(backend, term, start(term))
        server.restart()
        with pytest.raises(FencedError):
            await persistently(backend, term, written)
        again = await Leadership(backend).acquire("one", 10, "second", written.last_id)
        assert isinstance(again, Term)
        assert again.born
        reborn = await append(backend, again, start(again))
        assert reborn.sequence == 1
        assert entry_key(reborn.last_id) > entry_key(written.last_id)
        await backend.close()


async def test_a_cluster_subscribes_before_anything_else_was_asked_of_it(redis_cluster: RealServer) -> None:
    backend = connect(cluster_url(redis_cluster), "bridge")
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    term = await lead(backend)
    written = await append(backend, term, start(term))
    assert isinstance(await heard(messages), Published)
    await Leadership(backend).renew(term, 10, 1)
    assert await heard(messages) == Tick("log-one", 1, written.last_id, 1)
    assert await Slots(backend).take(term, 0, "c", 60) == 0
    assert (await Slots(backend).list())[0].state == "held"
    await Watches(backend).change_config_pins(["c"])
    assert await ReferenceLookups(backend).ask("web") is None
    await ReferenceLookups(backend).answer(Answer("web", "c"))
    assert await heard(messages) == Answered("web")
    assert (await Watches(backend).survey()).config_pins == {"c"}
    redis_cluster.call("SCRIPT", "FLUSH")
    assert (await append(backend, term, written)).sequence == 2
    await messages.aclose()
    await backend.close()


async def test_a_dead_cluster_is_out_of_reach_like_any_other_server(redis_cluster: RealServer) -> None:
    backend = connect(cluster_url(redis_cluster), "bridge")
    term = await lead(backend)
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    redis_cluster.kill()
    with pytest.raises(StoreUnavailableError):
        await heard(messages)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await append(backend, term, start(term))
        with pytest.raises(StoreUnavailableError):
            await Log(backend).snapshot()
        with pytest.raises(StoreUnavailableError):
            await heard(Feed(backend).messages())
    await backend.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/m",
                                 "unix:///nowhere/s"])  # fmt: skip
async def test_a_server_that_never_was_is_out_of_reach(url: str) -> None:
    backend = connect(url, "bridge")
    with pytest.raises(StoreUnavailableError):
        await backend.ping()
    with pytest.raises(StoreUnavailableError):
        await heard(Feed(backend).messages())
    await backend.close()


async def test_a_dead_sentinel_before_a_living_one_does_not_matter(redis_guarded: Guarded) -> None:
    backend = connect(redis_guarded.url.replace("sentinel://", "sentinel://127.0.0.1:1,"), "bridge")
    term = await lead(backend)
    assert (await append(backend, term, start(term))).sequence == 1
    await backend.close()


async def test_after_a_failover_log_and_feed_go_on_and_ids_grow(redis_guarded: Guarded) -> None:
    backend = connect(redis_guarded.url, "bridge")
    term = await lead(backend)
    written = await append(backend, term, start(term))
    await backend.client.wait(1, 5000)
    messages = Feed(backend).messages()
    assert isinstance(await heard(messages), Subscribed)
    redis_guarded.primary.kill()
    second = await persistently(backend, term, written)
    assert second.sequence == 2
    assert entry_key(second.last_id) > entry_key(written.last_id)
    try:
        assert isinstance(await heard(messages), Subscribed)
    except StoreUnavailableError:
        messages = Feed(backend).messages()
        assert isinstance(await heard(messages), Subscribed)
    await append(backend, term, second)
    assert isinstance(await heard(messages), Published)
    assert [event.sequence for event in await Log(backend).read("0-0", 10)] == [1, 2, 3]
    assert json.loads(await backend.client.hget("{bridge}:state", "cvm-1"))["state"]["status"] == "running"
    await messages.aclose()
    await backend.close()
