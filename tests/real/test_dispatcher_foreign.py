"""Foreign data in Redis: log entries that the bridge did not write, and lane keys with values of another form."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from bridge.clock import SystemClock
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Deliveries
from bridge.store.errors import StoreError
from bridge.store.lanes import Lanes, Result, Share
from bridge.webhooks.endpoint_cache import EndpointCache
from bridge.webhooks.enqueuer import Enqueuer
from tests.lanes import ATTEMPT, Bench, bench, endpoint, serve, settle, unsealed
from tests.real.test_dispatcher import sending
from tests.receivers import Hit
from tests.servers import RealServer

ROOT = "{bridge}:webhooks"


def enqueuer(made: Bench) -> Enqueuer:
    return Enqueuer(made.lanes, EndpointCache(made.endpoints, unsealed), SystemClock())


async def order(made: Bench, lane: str = "a") -> list[str]:
    """Delivers all that is due; the `to` of this lane's events as they were attempted."""
    found: list[str] = []
    while claims := (await made.claim(token=f"t{len(found)}")).claims:
        for claim in claims:
            found += [claim.event.id] if claim.lane == lane else []
            await settle(made, claim, "delivered")
    return found


@pytest.mark.parametrize("high", ["17955361193190000", "9999999999999999999", "18446744073709551615"])
async def test_foreign_entries_with_ids_from_far_ahead_are_skipped_and_order_is_kept(
    backend: Backend, high: str
) -> None:
    made = await bench(backend)
    made.writer.log_length = 5
    await made.endpoints.create(endpoint("before"))
    ids = [await made.writer.append()]
    await backend.client.xadd("{bridge}:log", {"x": "y"}, id=f"{high}-1")
    known = enqueuer(made)
    await known.catch_up()
    await made.endpoints.create(endpoint("after"))
    ids += [await made.writer.append() for _ in range(4)]
    await known.catch_up()
    await backend.client.xadd("{bridge}:log", {"event": "{}"})
    await enqueuer(made).catch_up()
    ids += [await made.writer.append() for _ in range(4)]  # the log is trimmed, too
    await enqueuer(made).catch_up()
    assert ids[1].startswith(f"{high}-")
    assert list(dict.fromkeys(await order(made))) == ids
    for name, count in (("before", 9), ("after", 8)):
        found, _ = await Deliveries(backend).page(name)
        assert [each.event.id for each in found] == ids[-count:][::-1]
    assert (await Deliveries(backend).recover("before", 0)).complete


async def test_a_log_that_can_take_no_more_is_read_to_its_end(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    event = await made.writer.append()
    await backend.client.xadd("{bridge}:log", {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    await enqueuer(made).catch_up()
    await enqueuer(made).catch_up()
    assert await order(made) == [event]


OWN_KEYS = ["due:e", "busy:e", "claims:e", "health:e", "pending:e", "delivered:e", "skipped:e", "lane:e:a"]


async def spoil(backend: Backend, key: str) -> None:
    await backend.client.set(f"{ROOT}:{key}", "not what belongs here")


@pytest.mark.parametrize("key", OWN_KEYS)
async def test_an_endpoint_whose_keys_are_broken_costs_the_others_nothing(backend: Backend, key: str) -> None:
    made = await bench(backend)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    for cvm in ("a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    claims = (await made.claim()).claims
    assert len(claims) == 4
    await spoil(backend, key)
    kept = dict(zip(claims, await made.lanes.extend(claims, 5), strict=True))
    codes = await made.lanes.settle([Result(claim, "delivered", 0, 0.5, ATTEMPT) for claim in claims])
    for claim, code in zip(claims, codes, strict=True):
        assert claim.endpoint_id == "e" or (kept[claim], code) == (True, "done")
    for turn in range(3):
        later = [await made.writer.append(cvm) for cvm in ("a", "b")]
        await made.fill()
        await made.lanes.sweep(["e", "f"])
        found = (await made.claim(token=f"later {turn}")).claims
        assert sorted(claim.event.id for claim in found if claim.endpoint_id == "f") == sorted(later)
        for claim in found:
            await made.lanes.settle([Result(claim, "delivered", 0, 0.5, ATTEMPT)])


async def test_a_broken_lane_costs_its_endpoints_other_lanes_nothing_even_behind_a_breaker(backend: Backend) -> None:
    made = await bench(backend, failures=2, probe_first_ms=0)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "b", "c"):
        await made.writer.append(cvm)
    await made.fill()
    for claim in (await made.claim()).claims:
        await settle(made, claim, "failed")
    await spoil(backend, "lane:e:a")
    probes = [(await made.claim(token=f"{turn}")).claims for turn in range(2)]
    (probe,) = probes[0] or probes[1]
    assert probe.lane in "bc"
    assert await settle(made, probe, "delivered") == "closed"
    assert [lane for _, lane in await serve(made)] == ["c" if probe.lane == "b" else "b"]


async def test_a_result_that_cannot_be_recorded_holds_back_its_lane_until_the_key_is_repaired(backend: Backend) -> None:
    faults: list[tuple[str, str, str]] = []
    made = await bench(backend, quarantine_ms=0)
    lanes = Lanes(backend, made.limits, lambda *fault: faults.append(fault))
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append(cvm) for cvm in ("a", "a", "b")]
    await made.fill()
    first, other = sorted((await made.claim()).claims, key=lambda claim: claim.lane)
    await spoil(backend, f"attempts:{first.delivery_id}")
    results = [Result(claim, "delivered", 0, 0.5, ATTEMPT) for claim in (first, other)]
    assert await lanes.settle(results) == ["broken", "done"]
    (fault,) = faults
    assert fault[:2] == ("e", "a")
    assert "WRONGTYPE" in fault[2]
    await backend.client.delete(f"{ROOT}:attempts:{first.delivery_id}")
    assert await order(made) == ids[:2]
    assert {each.status for each in (await Deliveries(backend).page("e"))[0]} == {"delivered"}


async def test_what_a_broken_lane_cannot_take_is_listed_and_everything_else_is_queued_once(backend: Backend) -> None:
    made = await bench(backend, quarantine_ms=0)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    await spoil(backend, "lane:e:a")
    ids = [await made.writer.append(cvm) for cvm in ("a", "b", "a", "b", "c")]
    await enqueuer(made).catch_up()
    found = {each.event.id: each.status for each in (await Deliveries(backend).page("e"))[0]}
    assert found == dict(zip(ids, ["skipped", "pending", "skipped", "pending", "pending"], strict=True))
    assert len(await serve(made)) == 5 + 3
    await backend.client.delete(f"{ROOT}:lane:e:a")
    assert (await Deliveries(backend).recover("e", 0)).queued == 2
    assert await order(made) == [ids[0], ids[2]]
    await made.endpoints.remove("e")
    await made.endpoints.remove("f")
    assert await backend.client.keys(f"{ROOT}:*:*") == []


async def test_text_for_numbers_in_a_delivery_holds_back_its_lane_alone(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append(cvm) for cvm in ("a", "b")]
    await made.fill()
    await backend.client.hset(f"{ROOT}:delivery:e-{ids[0]}", "k", "x")
    assert await serve(made) == [("e", "b")]


@pytest.mark.parametrize("text", ["x", "[]", "{}"])
async def test_an_endpoint_that_cannot_be_read_does_not_hide_the_others(backend: Backend, text: str) -> None:
    made = await bench(backend)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    known = await made.endpoints.all()
    await backend.client.hset(f"{ROOT}:endpoints", "e", text)
    assert list((await made.endpoints.all()).endpoints) == ["f"]
    await made.endpoints.disable("e")  # as whatever touches it: from now on it counts as changed
    assert list((await made.endpoints.all(known)).endpoints) == ["f"]
    await made.writer.append()
    await enqueuer(made).catch_up()
    assert await serve(made) == [("f", "a")]


async def test_a_checkpoint_with_text_for_numbers_stops_nothing(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await backend.client.hset(ROOT, "stamp", "x")
    event = await made.writer.append()
    await enqueuer(made).catch_up()
    assert await order(made) == [event]


@pytest.mark.parametrize("share", [0, 1])
async def test_a_fill_that_ends_in_its_middle_is_done_again_and_queues_each_event_once(
    backend: Backend, share: int
) -> None:
    made = await bench(backend)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    ids = [await made.writer.append() for _ in range(2)]
    checkpoint = await made.checkpoint()
    entries, last = await made.lanes.read(checkpoint.id, 10)
    shares = [Share(entry, ["e", "f"]) for entry in entries]
    await spoil(backend, f"event:{ids[share]}")  # refused in the step itself: no one endpoint's trouble
    with pytest.raises(StoreError):
        await made.lanes.fill(checkpoint, shares, last or "", "")
    await backend.client.delete(f"{ROOT}:event:{ids[share]}")
    await enqueuer(made).catch_up()
    assert await order(made) == [each for each in ids for _ in "ef"]


async def test_a_server_without_memory_loses_no_delivery(own_server: RealServer) -> None:
    backend = connect(own_server.url, "bridge")
    made = await bench(backend)
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    ids = [await made.writer.append() for _ in range(3)]
    own_server.call("CONFIG", "SET", "maxmemory", 1)
    for _ in range(2):
        with pytest.raises(StoreError):
            await enqueuer(made).catch_up()
    own_server.call("CONFIG", "SET", "maxmemory", 0)
    await enqueuer(made).catch_up()
    assert await order(made) == [each for each in ids for _ in "ef"]
    await backend.close()


def broken() -> float:
    return REGISTRY.get_sample_value("bridge_webhook_broken_lanes_total") or 0.0


async def test_a_dispatcher_whose_results_are_refused_goes_on_with_everything_else(redis_url: str) -> None:
    async with sending(redis_url) as stage:
        before = broken()

        async def answer(hit: Hit) -> int:
            if (hit.path, hit.cvm_id) == ("/e", "a"):
                await spoil(stage.backend, f"attempts:{hit.id}")
            return 204

        stage.receiver.answer = answer
        await stage.register("e", "f")
        await stage.append(*("abc" * 4))
        await stage.receiver.until(lambda: len(stage.receiver.accepted) >= 12 + 8 + 1, "all but one lane")
        for path, cvm in (("/e", "b"), ("/e", "c"), ("/f", "a"), ("/f", "b"), ("/f", "c")):
            assert len(stage.receiver.order(path, cvm)) == 4
        assert stage.receiver.order("/e", "a") == ["1"]
        assert broken() > before
