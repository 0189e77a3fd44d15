"""Lanes, history and the log's patience on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from bridge.events import entry_key
from bridge.store.connection import Backend, connect
from bridge.store.deliveries import Attempt, Deliveries
from bridge.store.endpoints import Endpoint
from bridge.store.errors import (
    AlreadyPendingError,
    EndpointDisabledError,
    EndpointExistsError,
    StoreUnavailableError,
    UnknownDeliveryError,
    UnknownEndpointError,
)
from bridge.store.lanes import Claim, Claimed, Result, Verdict
from bridge.store.limits import Limits
from bridge.store.log import Log
from tests.lanes import Bench, Writer, endpoint
from tests.servers import Guarded, RealServer, cluster_url

ATTEMPT = Attempt("2026-11-24T16:00:00.000Z", 7, 500, "http_5xx: no", "body").to_json()


async def bench(backend: Backend, **limits: int) -> Bench:
    return Bench(backend, await Writer.lead(backend), Limits(**limits))


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[Backend]:
    made = connect(redis_url, "bridge")
    yield made
    await made.close()


async def settle(made: Bench, claim: Claim, verdict: Verdict, wait: float = 0) -> str:
    (code,) = await made.lanes.settle([Result(claim, verdict, wait, 0.5, ATTEMPT)])
    return code


async def serve(made: Bench) -> list[tuple[str, str]]:
    """Delivers all that is due; (endpoint, the event's CVM) in the order of the attempts."""
    served: list[tuple[str, str]] = []
    while claims := (await made.claim(token=f"t{len(served)}")).claims:
        for claim in claims:
            served.append((claim.endpoint_id, claim.event.cvm_id))
            assert await settle(made, claim, "delivered") == "done"
    return served


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


async def test_what_was_settled_once_is_settled_whoever_says_it_again(backend: Backend) -> None:
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
    place = await made.place()
    assert (await made.fill()) is not None
    assert await made.lanes.fill(place, [], place.last_id, "") is None
    place = await made.place()
    await made.endpoints.create(endpoint("f"))
    assert await made.lanes.fill(place, [], place.last_id, "") is None


async def test_the_first_endpoint_begins_at_the_logs_end(backend: Backend) -> None:
    made = await bench(backend)
    for _ in range(3):
        last = await made.writer.append()
    known = await made.endpoints.create(endpoint())
    assert (known.created_after, known.created_birth, (await made.place()).id) == (last, "birth-one", last)
    with pytest.raises(EndpointExistsError):
        await made.endpoints.create(endpoint())
    await made.endpoints.remove("e")
    last = await made.writer.append()
    await made.endpoints.create(endpoint())
    assert (await made.place()).id == last


async def test_a_flush_and_a_log_born_anew_are_honest_starts(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    await backend.client.delete("{bridge}:meta", "{bridge}:leader")
    made.writer = await Writer.lead(backend, "two")
    ids = [await made.writer.append("b") for _ in range(2)]
    place = await made.place()
    assert place.birth == "birth-two"
    assert entry_key(place.id) < entry_key(ids[0])
    await made.fill()
    assert sorted(await serve(made)) == [("e", "a"), ("e", "b"), ("e", "b")]
    (claim,) = (await _after_one_more(made)).claims
    await backend.client.flushall()
    assert await settle(made, claim, "delivered") == "lost"
    assert await made.lanes.extend([claim], 5) == [False]
    assert (await made.claim()).claims == []
    assert await made.lanes.place() is None
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


async def test_history_is_bounded_and_what_was_lost_outlasts_what_was_delivered(backend: Backend) -> None:
    made = await bench(backend, finished=5, lost=4)
    await made.endpoints.create(endpoint())
    deliveries = Deliveries(backend)
    verdicts: list[Verdict] = ["given_up", "given_up", *["delivered"] * 6]  # type: ignore[list-item]
    for verdict in verdicts:
        await made.writer.append()
        await made.fill()
        (claim,) = (await made.claim()).claims
        await settle(made, claim, verdict)
    found, cursor = await deliveries.page("e")
    assert [each.status for each in found] == ["delivered"] * 3 + ["given_up"] * 2
    assert cursor is None
    assert await backend.client.keys("{bridge}:webhooks:event:*") != []
    keys = await backend.client.keys("{bridge}:webhooks:delivery:*")
    assert len(keys) == 5
    await made.endpoints.remove("e")
    left = await backend.client.keys("{bridge}:webhooks:*")
    assert left == []


async def test_old_history_ends_and_forgotten_lanes_are_put_back_by_a_sweep(backend: Backend) -> None:
    made = await bench(backend, keep_ms=0)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    (claim, _) = (await made.claim()).claims
    await settle(made, claim, "delivered")
    await backend.client.delete("{bridge}:webhooks:busy:e", "{bridge}:webhooks:due")
    assert await made.lanes.sweep(["e"]) == (1, 1)
    assert await made.lanes.sweep(["e"]) == (1, 0)
    assert len((await Deliveries(backend).page("e"))[0]) == 1
    assert len((await made.claim()).claims) == 1


async def test_a_delivery_whose_event_was_removed_by_hand_does_not_hold_its_lane(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(2)]
    await made.fill()
    await backend.client.delete(f"{{bridge}}:webhooks:event:{ids[0]}")
    assert [claim.event.id for claim in (await made.claim()).claims] == [ids[1]]
    assert [each.event.id for each in (await Deliveries(backend).page("e"))[0]] == [ids[1]]


async def test_the_last_attempts_are_kept(backend: Backend) -> None:
    made = await bench(backend, attempts=3)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    for number in range(5):
        (claim,) = (await made.claim()).claims
        attempt = Attempt(f"at {number}", 1, None, "timeout: no", "").to_json()
        await made.lanes.settle([Result(claim, "failed", 0, 0.5, attempt)])
    (delivery,) = (await Deliveries(backend).page("e"))[0]
    assert [each.at for each in delivery.attempts] == ["at 2", "at 3", "at 4"]
    assert (await made.claim()).claims[0].failures == 5


async def test_the_memory_of_history_reaches_a_plateau(backend: Backend) -> None:
    made = await bench(backend, finished=40, lost=20, failures=10_000)
    made.writer.log_length = 20
    for name in ("e", "f"):
        await made.endpoints.create(endpoint(name))
    sizes = []
    for turn in range(12):
        for number in range(20):
            await made.writer.append(f"cvm-{number % 7}")
        await made.fill()
        verdict: Verdict = "given_up" if turn % 3 == 0 else "delivered"
        while claims := (await made.claim(token=str(turn))).claims:
            await made.lanes.settle([Result(claim, verdict, 0, 0.5, ATTEMPT) for claim in claims])
        sizes.append(len(await backend.client.keys("{bridge}:webhooks:*")))
    assert len(set(sizes[4:])) == 1
    for name in ("e", "f"):
        assert len((await Deliveries(backend).page(name))[0]) == 40


async def test_beyond_the_most_that_may_wait_the_oldest_is_skipped_but_never_one_in_flight(backend: Backend) -> None:
    made = await bench(backend, pending=3)
    await made.endpoints.create(endpoint())
    await made.writer.append("a")
    await made.fill()
    (claim,) = (await made.claim()).claims
    for _ in range(4):
        await made.writer.append("a")
    filled = await made.fill()
    assert filled is not None
    assert (filled.queued, filled.beyond) == (4, 2)
    assert await settle(made, claim, "delivered") == "done"
    found, _ = await Deliveries(backend).page("e")
    assert [each.status for each in found] == ["pending", "pending", "skipped", "skipped", "delivered"]


async def test_a_page_is_newest_first_by_status_and_goes_on_at_its_cursor(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append(f"cvm-{number}") for number in range(7)]
    await made.fill()
    for claim in (await made.claim(most=3)).claims:
        await settle(made, claim, "delivered")
    deliveries, seen, after = Deliveries(backend), [], ""
    while True:
        found, cursor = await deliveries.page("e", after=after, limit=2)
        seen += [each.event.id for each in found]
        if cursor is None:
            break
        after = cursor
    assert seen == ids[::-1]
    assert len((await deliveries.page("e", status="delivered"))[0]) == 3
    assert len((await deliveries.page("e", status="pending"))[0]) == 4
    assert await deliveries.page("nobody") == ([], None)
    with pytest.raises(ValueError, match="cursor"):
        await deliveries.page("e", after="x")


async def test_a_retry_goes_to_its_lanes_end_with_the_same_id(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(2)]
    await made.fill()
    (claim,) = (await made.claim()).claims
    with pytest.raises(AlreadyPendingError):
        await deliveries.retry(claim.delivery_id)
    await settle(made, claim, "given_up")
    assert (await deliveries.retry(claim.delivery_id)).status == "pending"
    order = []
    for _ in range(2):
        (again,) = (await made.claim()).claims
        order.append(again.event.id)
        await settle(made, again, "delivered")
    assert order == ids[::-1]
    assert again.delivery_id == claim.delivery_id
    with pytest.raises(UnknownDeliveryError):
        await deliveries.retry("nothing")
    await made.endpoints.disable("e")
    with pytest.raises(EndpointDisabledError):
        await deliveries.retry(claim.delivery_id)


async def test_recovery_queues_what_was_missed_of_that_time_and_nothing_else(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.writer.append("old")
    await made.endpoints.create(endpoint(to=("1", "2", "3", "4", "5")))
    await made.writer.append("sent")
    await made.fill()
    await serve(made)
    await made.endpoints.disable("e", "why")
    missed = [await made.writer.append(cvm) for cvm in ("b", "c", "d", "unwanted")]
    await made.fill()
    with pytest.raises(EndpointDisabledError):
        await deliveries.recover("e", 0)
    await made.endpoints.enable("e")
    until = entry_key(missed[2])[0]
    after = entry_key(missed[0])[0]
    assert after <= until
    first = await deliveries.recover("e", 0, after - 1)
    assert first.queued == 0
    whole = await deliveries.recover("e", 0, until)
    assert (whole.queued, whole.complete) == (3, True)
    assert [cvm for _, cvm in sorted(await serve(made))] == ["b", "c", "d"]
    with pytest.raises(UnknownEndpointError):
        await deliveries.recover("nobody", 0)


async def test_a_full_endpoint_recovers_as_much_as_may_wait(backend: Backend) -> None:
    made = await bench(backend, pending=2)
    await made.endpoints.create(endpoint(enabled=False))
    for number in range(3):
        await made.writer.append(f"cvm-{number}")
    await made.fill()
    await made.endpoints.enable("e")
    deliveries = Deliveries(backend, made.limits)
    assert (await deliveries.recover("e", 0)).complete is False
    assert [cvm for _, cvm in sorted(await serve(made))] == ["cvm-0", "cvm-1"]
    assert (await deliveries.recover("e", 0)).queued == 1


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


def unread() -> float:
    return REGISTRY.get_sample_value("bridge_log_trimmed_unread_total") or 0.0


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
    place = await made.place()
    assert position is not None
    assert place.trimmed
    assert entry_key(place.id) < entry_key(position.floor)


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
