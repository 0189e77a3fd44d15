"""Lanes, history and the log's patience on real servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as redis
from prometheus_client import REGISTRY

from bridge.clock import SystemClock
from bridge.events import TRANSITION, Draft, cvm_data, entry_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Attempt, Deliveries
from bridge.store.endpoint_record import Endpoint
from bridge.store.errors import EndpointExistsError, StoreUnavailableError, UnknownEndpointError
from bridge.store.lanes import Claimed, Share
from bridge.store.log import Log
from bridge.webhooks.endpoint_cache import EndpointCache
from bridge.webhooks.enqueuer import Enqueuer
from tests.lanes import Bench, Writer, bench, endpoint, serve, settle, unsealed
from tests.servers import Guarded, RealServer, cluster_url


async def test_a_lane_lends_its_head_alone_and_others_do_not_wait_for_it(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append(cvm) for cvm in ("a", "a", "b")]
    await made.fill()
    first = await made.claim()
    assert sorted(claim.event.id for claim in first.claims) == [ids[0], ids[2]]
    assert (await made.claim(token="other")).claims == []
    assert first.wait is not None
    assert first.wait <= 5
    head = next(claim for claim in first.claims if claim.lane == "a")
    assert await settle(made, head, "delivered") == "done"
    assert [claim.event.id for claim in (await made.claim()).claims] == [ids[1]]
    assert head.ran is True


async def test_a_settled_delivery_stays_settled_when_its_result_comes_again(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    (claim,) = (await made.claim()).claims
    assert [await settle(made, claim, "delivered") for _ in range(2)] == ["done", "lost"]
    delivery = await Deliveries(backend).get(claim.delivery_id)
    assert delivery is not None
    assert delivery.attempts == (Attempt("2026-11-24T16:00:00.000Z", 7, 500, "http_5xx: no", "body"),)


async def test_a_claim_that_ran_out_is_lent_to_another_and_the_first_changes_nothing_more(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    (slow,) = (await made.claim(token="slow", lease=0)).claims
    (quick,) = (await made.claim(token="quick")).claims
    assert slow.delivery_id == quick.delivery_id
    assert await settle(made, slow, "delivered") == "lost"
    assert await made.lanes.extend([slow, quick], 5) == [False, True]
    assert await settle(made, quick, "delivered") == "done"


async def test_a_place_that_moved_and_endpoints_that_changed_refuse_a_fill(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    checkpoint = await made.checkpoint()
    assert (await made.fill()) is not None
    assert await made.lanes.fill(checkpoint, [], checkpoint.last_id, "") is None
    checkpoint = await made.checkpoint()
    await made.endpoints.create(endpoint("f"))
    assert await made.lanes.fill(checkpoint, [], checkpoint.last_id, "") is None


async def test_the_first_endpoint_begins_at_the_logs_end(backend: Backend) -> None:
    made = await bench(backend)
    for _ in range(3):
        last = await made.writer.append()
    known = await made.endpoints.create(endpoint())
    assert (known.created_after, known.created_log_id, (await made.checkpoint()).id) == (last, "log-one", last)
    with pytest.raises(EndpointExistsError):
        await made.endpoints.create(endpoint())
    await made.endpoints.remove("e")
    last = await made.writer.append()
    await made.endpoints.create(endpoint())
    assert (await made.checkpoint()).id == last


@pytest.mark.parametrize(
    "text",
    [
        '{"sequence":1e999,"type":"t","subject":"s","data":{}}',
        ' {"sequence":"1","type":"t","subject":"s","data":{}}',
        "[1]",
        "",
    ],
)
async def test_a_foreign_entry_neither_ends_the_reader_nor_holds_a_lane(backend: Backend, text: str) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    checkpoint = await made.checkpoint()
    await backend.client.xadd("{bridge}:log", {"event": text})
    entries, last = await made.lanes.read(checkpoint.id, 10)
    assert (entries, last is None) == ([], False)


async def test_a_state_with_a_number_of_any_length_reaches_its_endpoints(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    checkpoint = await made.checkpoint()
    data = cvm_data("a", "n", ("x", "y"), "poll", '{"status":"y","many":' + "9" * 5000 + "}")
    text = Draft(TRANSITION, "a", "2026-11-24T16:00:00.000Z", data).envelope("s", 1)
    await backend.client.xadd("{bridge}:log", {"event": text, "ran": "1"})
    (entry,), _ = await made.lanes.read(checkpoint.id, 10)
    assert (entry.from_, entry.to, entry.event.cvm_id) == ("x", "y", "a")


async def test_a_flush_and_a_log_born_anew_are_honest_starts(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    await backend.client.delete("{bridge}:meta", "{bridge}:leader")
    made.writer = await Writer.lead(backend, "two")
    ids = [await made.writer.append("b") for _ in range(2)]
    checkpoint = await made.checkpoint()
    assert checkpoint.log_id == "log-two"
    assert entry_key(checkpoint.id) < entry_key(ids[0])
    await made.fill()
    assert sorted(await serve(made)) == [("e", "a"), ("e", "b"), ("e", "b")]
    (claim,) = (await _after_one_more(made)).claims
    await backend.client.flushall()
    assert await settle(made, claim, "delivered") == "lost"
    assert await made.lanes.extend([claim], 5) == [False]
    assert (await made.claim()).claims == []
    assert await made.lanes.checkpoint() is None
    assert (await made.endpoints.all()).endpoints == {}


async def _after_one_more(made: Bench) -> Claimed:
    await made.writer.append()
    await made.fill()
    return await made.claim()


async def test_scripts_that_the_server_forgot_are_loaded_again(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await backend.client.script_flush()
    await made.fill()
    await backend.client.script_flush()
    assert await serve(made) == [("e", "a")]


async def test_no_more_than_the_cap_at_once_and_one_at_a_time_behind_an_open_breaker(backend: Backend) -> None:
    made = await bench(backend, concurrency=3, failures=4, probe_first_ms=0)
    await made.endpoints.create(endpoint())
    for number in range(8):
        await made.writer.append(f"cvm-{number}")
    await made.fill()
    claims = list((await made.claim()).claims)
    assert len(claims) == 3
    assert (await made.claim()).claims == []
    codes = [await settle(made, claim, "failed", 3600) for claim in claims]
    claims = list((await made.claim()).claims)
    codes += [await settle(made, claim, "failed", 3600) for claim in claims]
    assert codes == ["done", "done", "done", "opened", "done", "done"]
    (probe,) = (await made.claim()).claims
    assert probe.lane == "cvm-6"
    assert (await made.claim()).claims == []
    assert await settle(made, probe, "delivered") == "closed"
    assert len((await made.claim()).claims) == 3


async def test_one_lanes_failures_alone_open_no_breaker(backend: Backend) -> None:
    made = await bench(backend, failures=2)
    await made.endpoints.create(endpoint())
    await made.writer.append("a")
    await made.fill()
    for _ in range(5):
        (claim,) = (await made.claim()).claims
        assert await settle(made, claim, "failed") == "done"
    await made.writer.append("b")
    await made.fill()
    assert {claim.lane for claim in (await made.claim()).claims} == {"a", "b"}


@pytest.mark.parametrize(("away_ms", "due"), [(0, {"a", "b"}), (60_000, set())])
async def test_an_endpoint_that_is_back_gets_what_waits_at_once(backend: Backend, away_ms: int, due: set[str]) -> None:
    made = await bench(backend, away_ms=away_ms)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    for claim in (await made.claim()).claims:
        await settle(made, claim, "failed", 3600)
    await made.writer.append("c")
    await made.fill()
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "delivered")
    assert {claim.lane for claim in (await made.claim()).claims} == due


async def test_a_test_that_passes_makes_what_waits_due(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append("a")
    await made.fill()
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "failed", 3600)
    await Deliveries(backend).test("e", "2026-11-24T16:00:00.000Z")
    (tested,) = (await made.claim()).claims
    await settle(made, tested, "delivered")
    assert [claim.lane for claim in (await made.claim()).claims] == ["a"]


async def test_a_change_is_one_step_and_keeps_what_is_not_the_callers(backend: Backend) -> None:
    made = await bench(backend)
    known = await made.endpoints.create(endpoint(enabled=False, disabled_reason="why"))

    def edit(old: Endpoint) -> Endpoint:
        return replace(old, description=old.description + "x", created_at="never", enabled=True)

    await made.endpoints.change("e", lambda old: replace(old, description="meanwhile"))
    changed = await made.endpoints.change("e", edit)
    assert changed == replace(known, description="meanwhilex", enabled=False, disabled_reason="why")
    assert (await made.endpoints.get("e") or (None,))[0] == changed
    with pytest.raises(UnknownEndpointError):
        await made.endpoints.change("nobody", edit)
    assert [each.id for each, _ in await made.endpoints.page()] == ["e"]


async def test_the_rest_of_an_event_that_was_trimmed_is_not_taken_for_the_next_events(backend: Backend) -> None:
    made = await bench(backend)
    made.writer.log_length = 1
    for name in ("a", "b"):
        await made.endpoints.create(endpoint(name))
    await made.writer.append("x")
    checkpoint = await made.checkpoint()
    entries, _ = await made.lanes.read(checkpoint.id, 1)
    assert await made.lanes.fill(checkpoint, [Share(entries[0], ["a"])], checkpoint.id, "a") is not None
    kept = [await made.writer.append(f"cvm-{number}") for number in range(10)]
    await Enqueuer(made.lanes, EndpointCache(made.endpoints, unsealed), SystemClock()).catch_up()
    found, _ = await Deliveries(backend).page("a")
    assert sorted(each.event.id for each in found) == sorted([entries[0].event.id, *kept])


async def test_a_delivery_that_was_removed_by_hand_does_not_stop_the_filling(backend: Backend) -> None:
    made = await bench(backend, pending=1)
    await made.endpoints.create(endpoint())
    first = await made.writer.append()
    await made.fill()
    await backend.client.delete(f"{{bridge}}:webhooks:delivery:e-{first}")
    second = await made.writer.append()
    filled = await made.fill()
    assert filled is not None
    assert (filled.queued, filled.beyond) == (1, 0)
    assert [claim.event.id for claim in (await made.claim()).claims] == [second]


@pytest.mark.parametrize("changes", [12_000, 1])
async def test_an_endpoint_set_read_from_changes_equals_the_whole_one(backend: Backend, changes: int) -> None:
    made = await bench(backend, changes=changes)
    known = await made.endpoints.all()
    for name in ("e", "f", "g", "h"):
        await made.endpoints.create(endpoint(name))
        known = await made.endpoints.all(known)
    assert known == await made.endpoints.all()
    await made.endpoints.change("e", lambda old: replace(old, description="x"))
    await made.endpoints.disable("f", "why")
    await made.endpoints.remove("g")
    after = await made.endpoints.all(known)
    assert after == await made.endpoints.all()
    assert after.endpoints["h"] == known.endpoints["h"]
    assert list(after.endpoints) != list(known.endpoints)
    await backend.client.flushall()
    made.writer = await Writer.lead(backend, "two")
    for name in ("x", "y", "z"):
        await made.endpoints.create(endpoint(name))
    assert set((await made.endpoints.all(after)).endpoints) == {"x", "y", "z"}
    for name in ("x", "y", "z"):
        await made.endpoints.remove(name)
    assert (await made.endpoints.all(after)).endpoints == {}


async def test_an_endpoint_set_from_a_lost_master_is_read_whole(backend: Backend, redis_url: str) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint("e"))
    state = await _dumped(redis_url)
    await made.endpoints.create(endpoint("lost"))
    await made.endpoints.remove("e")
    known = await made.endpoints.all()
    await backend.client.flushall()
    for key, value in state.items():  # a replica without the last changes was promoted
        await backend.client.restore(key, 0, value)
    await made.endpoints.create(endpoint("new"))
    assert set((await made.endpoints.all(known)).endpoints) == {"e", "new"}


async def _dumped(redis_url: str) -> dict[bytes, bytes]:
    raw: Any
    async with redis.Redis.from_url(redis_url) as raw:
        return {key: await raw.dump(key) for key in await raw.keys()}


def unread() -> float:
    return REGISTRY.get_sample_value("bridge_log_trimmed_unread_total", {"reader": "webhooks"}) or 0.0


async def test_trimming_waits_for_webhooks_up_to_ten_times_the_length(backend: Backend) -> None:
    made = await bench(backend)
    made.writer.log_length = 3
    before = unread()
    for _ in range(5):
        await made.writer.append()
    assert await backend.client.xlen("{bridge}:log") == 3
    await made.endpoints.create(endpoint())
    for _ in range(10):
        await made.writer.append()
    assert await backend.client.xlen("{bridge}:log") == 10
    await made.fill()
    await made.writer.append()
    assert await backend.client.xlen("{bridge}:log") == 3
    for _ in range(40):
        await made.writer.append()
    assert await backend.client.xlen("{bridge}:log") == 30
    assert unread() - before == 11
    position = await Log(backend).position()
    checkpoint = await made.checkpoint()
    assert position is not None
    assert checkpoint.trimmed
    assert entry_key(checkpoint.id) < entry_key(position.low_water_mark)


async def test_lanes_work_in_a_cluster(redis_cluster: RealServer) -> None:
    backend = connect(cluster_url(redis_cluster), "bridge")
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    assert sorted(await serve(made)) == [("e", "a"), ("e", "a"), ("e", "b")]
    assert [each.status for each in (await Deliveries(backend).page("e"))[0]] == ["delivered"] * 3
    assert await made.lanes.lateness() == 0
    await backend.close()


async def test_lanes_survive_a_failover(redis_guarded: Guarded) -> None:
    backend = connect(redis_guarded.url, "bridge")
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    (claim,) = (await made.claim()).claims
    await backend.client.wait(1, 5000)
    redis_guarded.primary.kill()
    while True:
        try:
            code = await settle(made, claim, "delivered")
            break
        except StoreUnavailableError:
            continue
    assert code == "done"
    await made.writer.append()
    await made.fill()
    assert await serve(made) == [("e", "a")]
    await backend.close()


async def test_an_endpoints_own_limits_hold_for_all_dispatchers_together(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint(concurrency=2))
    await made.endpoints.create(endpoint("f", rate=0.01))
    for cvm in ("a", "b", "c"):
        await made.writer.append(cvm)
    await made.fill()
    first = (await made.claim(token="one")).claims
    assert sorted(claim.endpoint_id for claim in first) == ["e", "e", "f"]
    assert (await made.claim(token="two")).claims == []
    for claim in first:
        assert await settle(made, claim, "delivered") == "done"
    (last,) = (await made.claim(token="two")).claims
    assert last.endpoint_id == "e"
    await settle(made, last, "delivered")
    rest = await made.claim(token="one")
    assert rest.claims == []
    assert rest.wait is not None
    assert 60 < rest.wait <= 100
    await made.endpoints.change("f", lambda old: replace(old, rate=None))
    assert [claim.endpoint_id for claim in (await made.claim()).claims] == ["f", "f"]
