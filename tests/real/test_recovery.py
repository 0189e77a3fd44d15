"""What `recover` sends again, on a real server: what was lost alone, or all of a period."""

from __future__ import annotations

from dataclasses import replace

from bridge.clock import rfc3339
from bridge.events import entry_key
from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.lanes import Verdict
from bridge.store.limits import LaneLimits
from tests.lanes import Bench, Writer, bench, endpoint, serve, settle

SENT = "{bridge}:webhooks:sent:e"


async def _one(made: Bench, verdict: Verdict, cvm_id: str = "a") -> str:
    """An event whose only attempt came to that; its id."""
    event_id = await made.writer.append(cvm_id)
    await made.fill()
    (claim,) = (await made.claim(token=event_id)).claims
    assert await settle(made, claim, verdict) == "done"
    return event_id


async def _forget_all(made: Bench) -> None:
    """The history of endpoint e ends, as it does after a week or a thousand deliveries."""
    made.limits = replace(made.limits, keep_ms=-1)
    await made.lanes.sweep(["e"])
    assert (await Deliveries(made.backend).page("e"))[0] == []


async def test_what_was_delivered_beyond_the_history_is_not_sent_again(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    for _ in range(5):
        await _one(made, "delivered")
    lost = [await _one(made, "given_up") for _ in range(2)]
    for _ in range(5):
        await _one(made, "delivered", "b")
    await _forget_all(made)
    answer = await Deliveries(backend).recover("e", 0)
    assert (answer.queued, answer.complete, answer.next) == (2, True, None)
    order: list[tuple[str, bool]] = []
    while claims := (await made.claim(token=str(len(order)))).claims:
        order += [(claim.event.id, claim.replay) for claim in claims]
        for claim in claims:
            await settle(made, claim, "delivered")
    assert order == [(event_id, False) for event_id in lost]
    await _forget_all(made)
    assert (await Deliveries(backend).recover("e", 0)).queued == 0


async def test_what_the_version_before_queued_and_what_was_sent_twice_is_marked_too(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    events = [await _one(made, "delivered") for _ in range(2)]
    await backend.client.hdel(f"{{bridge}}:webhooks:event:{events[0]}", "seq")
    await Deliveries(backend).retry(f"e-{events[1]}")
    (claim,) = (await made.claim()).claims
    await settle(made, claim, "given_up")
    await _forget_all(made)
    assert (await Deliveries(backend).recover("e", 0)).queued == 0


async def test_marks_hold_for_many_groups_of_sequences_and_are_small(backend: Backend) -> None:
    made = await bench(backend, finished=10, lost=5)
    await made.endpoints.create(endpoint())
    made.writer.log_length = 10_000
    lost = 0
    for turn in range(8):
        for number in range(400):
            await made.writer.append(f"cvm-{number % 100}")
        await made.fill()
        while claims := (await made.claim(token=str(turn))).claims:
            for position, claim in enumerate(claims):
                given_up = turn == 4 and position == 0
                lost += given_up
                await settle(made, claim, "given_up" if given_up else "delivered")
    assert lost > 5
    assert (await Deliveries(backend).recover("e", 0)).queued == lost
    assert await backend.client.hlen(SENT) == 4
    assert await backend.client.memory_usage(SENT, samples=0) < 2_000


async def test_all_sends_the_whole_period_again_and_says_so(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    ids = [await _one(made, "delivered") for _ in range(3)]
    await _forget_all(made)
    ids += [await _one(made, verdict) for verdict in ("delivered", "given_up")]
    assert (await deliveries.recover("e", 0, all=True)).queued == 5
    assert (await deliveries.recover("e", 0, all=True)).queued == 0, "they wait already"
    got: list[tuple[str, bool]] = []
    while claims := (await made.claim(token=str(len(got)))).claims:
        got += [(claim.event.id, claim.replay) for claim in claims]
        assert [await settle(made, claim, "delivered") for claim in claims] == ["done"]
    assert got == [(event_id, True) for event_id in ids]
    await _one(made, "given_up")
    assert (await deliveries.recover("e", 0)).queued == 1
    assert [claim.replay for claim in (await made.claim()).claims] == [False]


async def test_a_retry_of_what_was_delivered_is_a_replay_and_of_what_was_lost_is_none(backend: Backend) -> None:
    made, deliveries = await bench(backend), Deliveries(backend)
    await made.endpoints.create(endpoint())
    for verdict, replay in (("delivered", True), ("given_up", False)):
        event_id = await _one(made, verdict)  # type: ignore[arg-type]
        await deliveries.retry(f"e-{event_id}")
        (claim,) = (await made.claim(token=verdict)).claims
        assert claim.replay is replay
        await settle(made, claim, "delivered")


async def test_a_whole_period_that_is_too_long_goes_on_at_its_next_time(backend: Backend) -> None:
    made = await bench(backend, pending=2)
    await made.endpoints.create(endpoint())
    ids = [await _one(made, "delivered", f"cvm-{number}") for number in range(5)]
    deliveries, since, sent = Deliveries(backend, made.limits), 0, 0
    while True:
        answer = await deliveries.recover("e", since, all=True)
        sent += len(await serve(made))
        if answer.next is None:
            break
        expected = entry_key(ids[sent])[0]
        assert answer.next == rfc3339(expected / 1000)
        since = expected
    assert answer.complete
    assert 5 <= sent < 10


async def test_a_new_log_has_marks_of_its_own(backend: Backend) -> None:
    """Its sequences begin again: what the old log's deliveries come to meanwhile marks nothing of it."""
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    for _ in range(2):
        await _one(made, "delivered")
    await made.writer.append("waits")
    await made.fill()
    await backend.client.delete("{bridge}:meta", "{bridge}:leader", "{bridge}:log")
    made.writer = await Writer.lead(backend, "two")
    for _ in range(3):
        await _one_or_two(made)
    await _forget_all(made)
    assert (await Deliveries(backend).recover("e", 0)).queued == 3


async def _one_or_two(made: Bench) -> None:
    """An event that is given up, and what else waits that is delivered."""
    await made.writer.append()
    await made.fill()
    for claim in (await made.claim(token=str(made.writer.count))).claims:
        await settle(made, claim, "given_up" if claim.lane == "a" else "delivered")


async def test_marks_end_with_the_events_of_the_log_and_with_the_endpoint(backend: Backend) -> None:
    made = await bench(backend)
    await made.endpoints.create(endpoint())
    await backend.client.hset(SENT, mapping={"log": "log-one", "0": "o", "7": "1"})
    await backend.client.hset("{bridge}:meta", "floor_sequence", "1536")
    await made.lanes.sweep(["e"])
    assert await backend.client.hgetall(SENT) == {"log": "log-one", "7": "1"}
    await made.endpoints.remove("e")
    assert await backend.client.exists(SENT) == 0


async def test_damaged_marks_cost_no_delivery_and_begin_anew(backend: Backend) -> None:
    made = await bench(backend, keep_ms=LaneLimits().keep_ms)
    await made.endpoints.create(endpoint())
    await backend.client.set(SENT, "x")
    await made.lanes.sweep(["e"])
    await backend.client.set(SENT, "x")
    await _one(made, "delivered")
    await _forget_all(made)
    await backend.client.hset(SENT, "0", "\x00ä not marks")
    await _one(made, "delivered")
    await _forget_all(made)
    assert (await Deliveries(backend).recover("e", 0)).queued == 1
