"""From upstream to every kind of consumer, on a real Redis and real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import redis.asyncio as redis

from bridge.store.log import HIGHEST_ID
from tests.bridges import Whole, sse, whole

STATUSES = ("stopping", "stopped", "starting", "running")


async def _collect_channel(url: str, events: list[dict[str, Any]], count: int, ready: asyncio.Event) -> None:
    client = redis.Redis.from_url(url, decode_responses=True)
    async with client.pubsub() as channel:
        await channel.subscribe("{bridge}:events")
        ready.set()
        async for message in channel.listen():
            if message["type"] == "message":
                events.append(json.loads(message["data"]))
            if len(events) == count:
                break
    await client.aclose()


async def test_twelve_cvms_times_four_transitions_reach_sse_pubsub_and_log_alike(redis_url: str) -> None:
    async with whole(redis_url, cvms=12) as bridge:
        await bridge.until_seen(12)
        published: list[dict[str, Any]] = []
        ready, total = asyncio.Event(), 12 * len(STATUSES)
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            group.create_task(_collect_channel(redis_url, published, total, ready))
            await ready.wait()
            stream = group.create_task(sse(bridge.http, f"{bridge.url}/v1/events", 12 + total))
            await asyncio.sleep(0.3)
            for status in STATUSES:
                await _all_become(bridge, status)
        logged = [json.loads(event.json) for event in (await bridge.log())[-total:]]
        served = [data for _, _, data in stream.result()[12:]]
        assert served == published == logged
        sequences = [int(event["sequence"]) for event in logged]
        assert sequences == list(range(sequences[0], sequences[0] + total))
        for cvm_id in bridge.ids:
            told = [event["data"]["to"] for event in logged if event["subject"] == cvm_id]
            assert told == list(STATUSES)


async def _all_become(bridge: Whole, status: str) -> None:
    for cvm_id in bridge.ids:
        await bridge.patch(cvm_id, status=status)

    async def arrived() -> bool:
        latest = {event.cvm_id: event for event in await bridge.log()}
        return all(json.loads(event.json)["data"]["to"] == status for event in latest.values())

    await bridge.until(arrived, status)


async def test_a_subscriber_that_reconnects_at_every_boundary_sees_each_event_once(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        cvm_id = bridge.ids[0]
        cursor = (await sse(bridge.http, f"{bridge.url}/v1/events", 1))[0][1]
        for status in STATUSES * 2:
            await _all_become(bridge, status)
        expected = [event.id for event in await bridge.log() if event.id > cursor]
        seen: list[str] = []
        while len(seen) < len(expected):
            headers = {"Last-Event-ID": cursor}
            ((_, cursor, data),) = await sse(bridge.http, f"{bridge.url}/v1/events", 1, headers=headers)
            assert data["subject"] == cvm_id
            seen.append(cursor)
        assert seen == expected


async def test_a_stream_begins_with_retry_and_only_the_last_snapshot_carries_an_id(redis_url: str) -> None:
    async with whole(redis_url, cvms=3) as bridge:
        await bridge.until_seen(3)
        async with bridge.http.stream("GET", f"{bridge.url}/v1/events") as response:
            text = ""
            async for chunk in response.aiter_text():
                text += chunk
                if text.count("\n\n") == 3:
                    break
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert text.startswith("retry: ")
        assert [("id: " in block) for block in text.split("\n\n")[:3]] == [False, False, True]


async def test_bad_cursors_get_a_reset_and_then_snapshots(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        for cursor, reason in (
            ("1-0", "history_lost"),
            ("rubbish", "unknown_cursor"),
            ("9" * 13 + "-0", "unknown_cursor"),
            (HIGHEST_ID, "unknown_cursor"),
        ):
            events = await sse(bridge.http, f"{bridge.url}/v1/events?last_event_id={cursor}", 2)
            assert [name for name, _, _ in events] == ["reset", "snapshot"]
            assert events[0][2]["type"] == "log.reset"
            assert events[0][2]["data"]["reason"] == reason
            without = await sse(bridge.http, f"{bridge.url}/v1/events?last_event_id={cursor}&snapshot=0", 2)
            assert [name for name, _, _ in without] == ["reset", "position"]


async def test_wrong_queries_are_422_and_name_the_field(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        for query, field in (
            ("since=yesterday", "since"),
            ("type=cvm.explosion", "type"),
            ("snapshot=maybe", "snapshot"),
            ("limit=0", "limit"),
            ("colour=red", "colour"),
        ):
            answer = await bridge.http.get(f"{bridge.url}/v1/events?{query}")
            assert answer.status_code == 422
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["errors"][0]["field"] == field
        for bad in ("0", "1001", "ten", "-1"):
            answer = await bridge.http.get(f"{bridge.url}/v1/cvms?limit={bad}")
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "limit")


async def test_an_unknown_cvm_is_upstreams_own_404(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        direct = await bridge.http.get(f"{bridge.sim.api_prefix}/cvms/nobody/state", headers={"X-API-Key": "k"})
        for path in ("/v1/cvms/nobody", "/v1/cvms/nobody/events"):
            answer = await bridge.http.get(f"{bridge.url}{path}")
            assert (answer.status_code, answer.json()) == (404, direct.json())


async def test_a_subscription_by_name_makes_the_watch_and_one_cvm_one_watch(redis_url: str) -> None:
    async with whole(redis_url, cvms=2, settings={"cvms": (), "watch_linger": 0.5}) as bridge:
        cvm = bridge.sim.simulator.world.cvms[0]
        events = await sse(bridge.http, f"{bridge.url}/v1/cvms/{cvm.name}/events", 2)
        assert [name for name, _, _ in events] == ["position", "state"]
        assert events[1][2]["subject"] == cvm.vm_uuid
        items = (await bridge.http.get(f"{bridge.url}/v1/cvms")).json()["items"]
        assert [item["cvm_id"] for item in items] == [cvm.vm_uuid]

        async def dropped() -> bool:
            return [event.type for event in await bridge.log()][-1] == "watch.dropped"

        await bridge.until(dropped, "the watch ends after its linger time")


async def test_pins_are_put_and_deleted_but_not_those_of_the_configuration(redis_url: str) -> None:
    async with whole(redis_url, cvms=2, settings={"cvms": ()}) as bridge:
        cvm_id = bridge.ids[1]
        assert (await bridge.http.put(f"{bridge.url}/v1/cvms/{cvm_id}")).status_code == 201
        assert (await bridge.http.put(f"{bridge.url}/v1/cvms/{cvm_id}")).status_code == 200
        assert (await bridge.http.delete(f"{bridge.url}/v1/cvms/{cvm_id}")).status_code == 204
    async with whole(redis_url, cvms=1, settings={"namespace": "pinned"}) as bridge:
        await bridge.until_seen(1)
        assert (await bridge.http.delete(f"{bridge.url}/v1/cvms/{bridge.ids[0]}")).status_code == 409


async def test_a_flushed_redis_is_a_new_log_and_subscribers_are_told(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        old = (await bridge.log())[-1]
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(sse(bridge.http, f"{bridge.url}/v1/events", 2))
            await asyncio.sleep(0.3)
            await bridge.backend.client.flushall()
        assert [name for name, _, _ in stream.result()] == ["snapshot", "reset"]
        await bridge.until_seen(1)
        new = (await bridge.log())[0]
        assert new.sequence == 1
        assert new.id > old.id


async def test_a_deleted_cvm_is_one_transition_to_deleted(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        await bridge.control("DELETE", f"/cvms/{bridge.ids[0]}?push=1")

        async def gone() -> bool:
            return (await bridge.log())[-1].type == "cvm.transition"

        await bridge.until(gone, "deleted")
        await asyncio.sleep(0.6)
        last = json.loads((await bridge.log())[-1].json)
        assert (last["data"]["from"], last["data"]["to"], last["data"]["state"]) == ("running", "deleted", None)


async def test_heads_answer_without_a_stream(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge, httpx.AsyncClient() as http:
        answer = await http.head(f"{bridge.url}/v1/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await http.get(f"{bridge.url}/healthz")).status_code == 200


async def test_a_large_workspace_is_followed_while_it_is_still_being_found_out(redis_url: str) -> None:
    async with whole(redis_url, cvms=120) as bridge:

        async def listed() -> int:
            answer = await bridge.http.get(f"{bridge.url}/v1/cvms", params={"limit": 1000})
            return len(answer.json()["items"])

        assert 0 < await bridge.until(listed, "the first") < 120


async def test_each_cvm_has_a_stream_or_a_reason_why_it_is_polled(redis_url: str) -> None:
    async with whole(redis_url, cvms=8) as bridge:
        await bridge.until_seen(8)
        ids = set(bridge.ids)
        gone = bridge.ids[7]
        await bridge.control("DELETE", f"/cvms/{gone}?push=1")

        async def told() -> dict[str, Any] | None:
            slots: dict[str, Any] = (await bridge.http.get(f"{bridge.url}/v1/slots")).json()
            held = {slot["cvm_id"] for slot in slots["items"] if slot["state"] == "held"}
            polling = slots["polling"] or {}
            complete = len(held) == 5 and held.isdisjoint(polling) and held | set(polling) == ids
            return slots if complete and polling.get(gone) == "deleted" else None

        slots = await bridge.until(told, "five streams and three reasons")
        assert set(slots["polling"].values()) == {"deleted", "all slots are taken"}
        assert (slots["budget"], slots["blocked"]) == (5, False)
