"""The history of deliveries, and what a caller may have tried again, on a real server."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.config import Settings
from bridge.events import entry_key
from bridge.store.connection import Backend
from bridge.store.deliveries import Attempt, Deliveries
from bridge.store.endpoints import Health
from bridge.store.errors import (
    AlreadyPendingError,
    BeingAttemptedError,
    EndpointDisabledError,
    FinishedDeliveryError,
    UnknownDeliveryError,
    UnknownEndpointError,
)
from bridge.store.lanes import Result, Verdict
from bridge.store.limits import LaneLimits
from tests.lanes import ATTEMPT, Bench, Writer, bench, endpoint, serve, settle


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
    swept = await made.lanes.sweep(["e"])
    assert (swept.pending, swept.repaired) == (1, 1)
    swept = await made.lanes.sweep(["e"])
    assert (swept.pending, swept.repaired) == (1, 0)
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


async def test_the_last_two_attempts_keep_what_the_receiver_answered(backend: Backend) -> None:
    made = await bench(backend, attempts=4)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    for number in range(7):
        (claim,) = (await made.claim()).claims
        attempt = Attempt(
            f"at {number}", 1, None if number % 2 else 500, 'http: "x/ä"', f'answer/ä" {number}'
        ).to_json()
        await made.lanes.settle([Result(claim, "failed", 0, 0.5, attempt)])
        (delivery,) = (await Deliveries(backend).page("e"))[0]
        bodies = [each.response_body for each in delivery.attempts]
        assert bodies == ([""] * 4 + [f'answer/ä" {each}' for each in range(number + 1)][-2:])[-len(bodies) :]
    assert [(each.at, each.status_code, each.error) for each in delivery.attempts] == [
        (f"at {number}", None if number % 2 else 500, 'http: "x/ä"') for number in (3, 4, 5, 6)
    ]


async def test_a_test_that_is_answered_410_ends_with_its_endpoint(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    test = await Deliveries(backend).test("e", "2026-11-24T16:00:00.000Z")
    (claim,) = (await made.claim()).claims
    assert await settle(made, claim, "gone") == "disabled"
    delivery = await Deliveries(backend).get(test)
    assert delivery is not None
    assert (delivery.status, len(delivery.attempts)) == ("given_up", 1)
    known = await made.endpoints.get("e")
    assert known is not None
    assert (known[0].disabled_reason, known[1].pending) == ("the receiver answered 410 Gone", 0)


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
        keys = await backend.client.keys("{bridge}:webhooks:*")
        sizes.append(sum(":health:" not in key for key in keys))  # an endpoint has that one while it fails
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


async def test_attempts_before_and_after_a_retry_are_told_in_their_order(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    delivery = f"e-{await made.writer.append()}"
    await made.fill()
    verdicts: list[Verdict] = ["delivered", "delivered", "failed", "delivered"]
    for number, verdict in enumerate(verdicts):
        if number in (1, 2):
            await deliveries.retry(delivery)
        (claim,) = (await made.claim()).claims
        attempt = Attempt(f"at {number}", 1, 200, None, "").to_json()
        await made.lanes.settle([Result(claim, verdict, 0, 0.5, attempt)])
        found = await deliveries.get(delivery)
        assert found is not None
        assert [each.at for each in found.attempts] == [f"at {each}" for each in range(number + 1)]


async def test_a_retry_of_a_waiting_delivery_ends_its_wait_and_nobodys_turn(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    for _ in range(2):
        await made.writer.append()
    await made.fill()
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "failed", wait=3600)
    assert (await made.claim()).claims == []
    second = (await deliveries.page("e"))[0][0].id
    with pytest.raises(AlreadyPendingError):
        await deliveries.retry(second)
    assert (await deliveries.retry(claim.delivery_id)).next_attempt_at is not None
    (again,) = (await made.claim(token="other")).claims
    assert (again.delivery_id, again.failures) == (claim.delivery_id, 1)
    await made.endpoints.disable("e")
    with pytest.raises(EndpointDisabledError):
        await deliveries.retry(second)


async def test_a_retry_asks_a_receiver_whose_breaker_is_open(backend: Backend) -> None:
    made, deliveries = await bench(backend, failures=2), Deliveries(backend)
    await made.endpoints.create(endpoint())
    for cvm in ("a", "b"):
        await made.writer.append(cvm)
    await made.fill()
    claims = (await made.claim()).claims
    assert [await settle(made, claim, "failed", wait=3600) for claim in claims] == ["done", "opened"]
    assert (await made.claim()).claims == []
    health = await _health(made)
    assert health.breaker_open
    assert health.held_until is not None
    await deliveries.retry(claims[1].delivery_id)
    (probe,) = (await made.claim()).claims
    assert probe.delivery_id == claims[1].delivery_id
    await settle(made, probe, "delivered")
    health = await _health(made)
    assert (health.breaker_open, health.held_until) == (False, None)


async def _health(made: Bench) -> Health:
    found = await made.endpoints.get("e")
    assert found is not None
    return found[1]


async def test_a_canceled_delivery_lets_the_next_of_its_lane_go(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(4)]
    await made.fill()
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "failed", wait=3600)
    for _ in range(2):  # a caller may ask again
        assert (await deliveries.cancel(claim.delivery_id)).status == "skipped"
    await deliveries.cancel(f"e-{ids[2]}")
    order = []
    while claims := (await made.claim()).claims:
        order += [each.event.id for each in claims]
        assert [await settle(made, each, "delivered") for each in claims] == ["done"]
    assert order == [ids[1], ids[3]]
    with pytest.raises(FinishedDeliveryError):
        await deliveries.cancel(f"e-{ids[1]}")
    with pytest.raises(UnknownDeliveryError):
        await deliveries.cancel("nothing")
    assert (await deliveries.retry(claim.delivery_id)).status == "pending"
    assert [each.event.id for each in (await made.claim()).claims] == [ids[0]]


async def test_an_attempt_that_is_under_way_is_not_canceled(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    await made.writer.append()
    await made.fill()
    (claim,) = (await made.claim()).claims
    with pytest.raises(BeingAttemptedError):
        await deliveries.cancel(claim.delivery_id)
    assert await settle(made, claim, "failed", wait=3600) == "done"
    assert (await deliveries.cancel(claim.delivery_id)).status == "skipped"
    swept = await made.lanes.sweep(["e"])
    assert (swept.pending, swept.repaired) == (0, 0)


async def test_a_frozen_dispatchers_result_changes_no_canceled_delivery(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(2)]
    await made.fill()
    (frozen,) = (await made.claim(token="frozen", lease=0)).claims
    assert (await deliveries.cancel(frozen.delivery_id)).status == "skipped"
    (quick,) = (await made.claim(token="quick")).claims
    assert quick.event.id == ids[1]
    assert await settle(made, frozen, "delivered") == "lost"
    assert await made.lanes.extend([frozen, quick], 5) == [False, True]
    assert await settle(made, quick, "delivered") == "done"
    assert [each.status for each in (await deliveries.page("e"))[0]] == ["delivered", "skipped"]


async def test_a_delivery_of_a_disabled_endpoint_can_be_canceled(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(2)]
    await made.fill()
    await made.endpoints.disable("e")
    assert (await deliveries.cancel(f"e-{ids[0]}")).status == "skipped"
    await made.endpoints.enable("e")
    assert [each.event.id for each in (await made.claim()).claims] == [ids[1]]


async def test_recovery_queues_only_the_missed_events_of_that_time(backend: Backend) -> None:
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


async def test_recovery_does_not_overtake_what_is_not_queued_yet(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await made.writer.append() for _ in range(3)]
    since = entry_key(ids[0])[0] + 1
    while entry_key(ids[-1])[0] < since:
        ids.append(await made.writer.append())
    await deliveries.recover("e", since)
    await made.fill()
    order = []
    while claims := (await made.claim()).claims:
        order.append(claims[0].event.id)
        await settle(made, claims[0], "delivered")
    assert order == ids


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


async def test_the_settings_bound_what_waits_and_what_is_kept(backend: Backend) -> None:
    settings = Settings(webhook_pending=12, webhook_history=10)
    made = Bench(backend, await Writer.lead(backend), LaneLimits.of(settings))
    await made.endpoints.create(endpoint())
    for number in range(40):
        await made.writer.append(f"cvm-{number}")
    await made.fill()
    counts = Counter(each.status for each in (await Deliveries(backend).page("e"))[0])
    assert counts == {"pending": 12, "skipped": 9}
    await serve(made)
    counts = Counter(each.status for each in (await Deliveries(backend).page("e"))[0])
    assert counts == {"delivered": 1, "skipped": 9}
