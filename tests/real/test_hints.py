"""Phala Cloud's own webhooks at the bridge: a polled CVM is read at once, and each is an event."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from bridge.commands.check import run_check
from bridge.config import Settings
from bridge.events import STATE
from bridge.phala_signature import sign
from bridge.sealing import new_key
from bridge.simulator.world import World
from bridge.store import notices
from tests.bridges import sse, whole
from tests.real.fronts import Front, played
from tests.servers import free_port

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="


async def test_a_signed_hint_has_the_cvm_read_and_a_forged_or_old_one_is_401(redis_url: str) -> None:
    settings = {"max_streams": 0, "poll_interval": 3600.0, "webhook_secret": SECRET}
    async with whole(redis_url, cvms=1, settings=settings) as bridge:
        await bridge.until_seen(1)
        cvm_id, url = bridge.ids[0], f"{bridge.url}/v1/upstream/webhooks"
        await bridge.patch(cvm_id, status="stopped")
        sent: dict[str, object] = {"url": url, "secret": SECRET, "event": "cvm.stopped", "cvm": cvm_id}
        forged = await bridge.control("POST", "/webhooks/send", json={**sent, "secret": "whsec_b3RoZXI="})
        old = await bridge.control("POST", "/webhooks/send", json={**sent, "timestamp": str(int(time.time()) - 301)})
        assert (forged["status"], old["status"]) == (401, 401)
        assert (await bridge.control("POST", "/webhooks/send", json=sent))["status"] == 204

        async def read() -> bool:
            return any(json.loads(event.json)["data"].get("to") == "stopped" for event in await bridge.log())

        await bridge.until(read, "the hint")


async def test_a_webhook_has_a_new_replica_enter_the_open_stream_of_its_app_at_once(redis_url: str) -> None:
    first = World(seed=7, cvms=1, frozen=True).cvms[0]  # as `whole` makes it
    async with whole(redis_url, cvms=2, settings={"cvms": (), "webhook_secret": SECRET}) as bridge:
        url = f"{bridge.url}/v1/events?cvm=app_{first.app_id}&type={STATE}"
        stream = asyncio.create_task(sse(bridge.http, url, 3))
        await bridge.until_seen(1)
        items = (await bridge.control("PUT", f"/apps/{first.vm_uuid}/replicas", json={"replicas": 2}))["items"]
        sent = {"url": f"{bridge.url}/v1/upstream/webhooks", "secret": SECRET, "event": "cvm.created"}
        for cvm_id in (bridge.ids[1], items[1]["vm_uuid"]):
            await bridge.control("POST", "/webhooks/send", json={**sent, "cvm": cvm_id})
        (beginning, _, _), *came = await stream
        assert beginning == "position"
        assert [event["subject"] for _, _, event in came] == [first.vm_uuid, items[1]["vm_uuid"]]
        assert {event["data"]["app_id"] for _, _, event in came} == {first.app_id}


async def test_each_webhook_is_an_event_once_for_streams_pages_and_channels(redis_url: str) -> None:
    settings = {"max_streams": 0, "poll_interval": 3600.0, "webhook_secret": SECRET}
    async with whole(redis_url, cvms=2, settings=settings) as bridge:
        await bridge.until_seen(2)
        target = f"{bridge.url}/v1/upstream/webhooks"
        sent = {"url": target, "secret": SECRET, "event": "cvm.update.pending_approval", "cvm": bridge.ids[1]}
        before, channel = (await bridge.log())[-1].id, bridge.backend.client.pubsub()
        await channel.subscribe(bridge.backend.keys.events_of(bridge.ids[1]))
        await channel.get_message(timeout=10)
        for id in ("evt_1", "evt_2", "evt_1"):
            assert (await bridge.control("POST", "/webhooks/send", json={**sent, "id": id}))["status"] == 204
        found = await sse(bridge.http, f"{bridge.url}/v1/events", 2, headers={"Last-Event-ID": before})
        assert [(event, data["type"], data["subject"]) for event, _, data in found] == [
            ("phala", "phala.cvm.update.pending_approval", bridge.ids[1])
        ] * 2
        for _, _, data in found:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=10)
            assert message is not None
            assert json.loads(message["data"]) == data
        await channel.aclose()
        notices = [data["data"].pop("notice") for _, _, data in found]
        cvm = await bridge.cvm(bridge.ids[1])
        assert found[0][2]["data"] == {name: cvm[name] for name in ("cvm_id", "name", "app_id")}
        assert [(notice["id"], notice["data"]["cvm_name"]) for notice in notices] == [
            ("evt_1", cvm["name"]),
            ("evt_2", cvm["name"]),
        ]
        for kind, count in (("phala.*", 2), ("phala.cvm.updated", 0)):
            page = await bridge.http.get(f"{bridge.url}/v1/events?type={kind}", headers={"Accept": "application/json"})
            assert len(page.json()["items"]) == count
        for cvm_id, count in zip(bridge.ids, (0, 2), strict=True):
            path = f"/v1/cvms/{cvm_id}/events?type=phala.*"
            page = await bridge.http.get(f"{bridge.url}{path}", headers={"Accept": "application/json"})
            assert len(page.json()["items"]) == count
        assert (await bridge.http.get(f"{bridge.url}/v1/events?type=phala.")).status_code == 422


async def test_the_bridge_registers_itself_at_phala_cloud_and_check_tells_whether_it_works(redis_url: str) -> None:
    port, lines = free_port(), list[str]()
    given: dict[str, Any] = {"secret_key": new_key(), "public_url": f"http://127.0.0.1:{port}"}
    settings = {"max_streams": 0, "poll_interval": 3600.0, **given}
    async with whole(redis_url, cvms=1, settings=settings, port=port) as bridge:
        await bridge.until_seen(1)
        listed = f"{bridge.sim.api_prefix}/workspace/webhooks"

        async def registered() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await bridge.http.get(listed, headers={"X-API-Key": "key"})).json()
            return found

        (hook,) = await bridge.until(registered, "the webhook")
        await bridge.patch(bridge.ids[0], status="stopped")

        async def told() -> bool:
            return {"phala.cvm.stopped", "cvm.transition"} <= {event.type for event in await bridge.log()}

        await bridge.until(told, "the webhook's event, and what its hint had read")
        checked = Settings(**{"api_key": "key", "api_prefix": bridge.sim.api_prefix, "redis_url": redis_url, **given})
        assert await run_check(checked, lines.append)
        assert any("ok" in line and f"webhook for {hook['url']}: delivered at" in line for line in lines), lines
        other = Settings(**{**checked.model_dump(), "secret_key": new_key()})
        assert not await run_check(other, lines.append)
        assert "has another secret" in "".join(lines)


async def test_while_no_leader_writes_them_phala_cloud_is_asked_to_send_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MOST_NOTICES", 1)

    async def scenario(web: Front) -> None:
        async def send(id: str, event: str = "cvm.updated") -> int:
            body = json.dumps({"id": id, "event": event, "data": {"cvm_id": "cvm-1"}}).encode()
            seconds = str(int(time.time()))
            signed = {"X-Webhook-Timestamp": seconds, "X-Webhook-Signature": sign(SECRET, seconds, body)}
            answer = await web.http.post(f"{web.url}/v1/upstream/webhooks", content=body, headers=signed)
            return answer.status_code

        assert [await send(id) for id in ("evt_1", "evt_2", "evt_1")] == [204, 503, 204]
        assert await send("evt_3", "CVM*") == 204  # a hint alone
        (waiting,) = await notices.Notices(web.backend).waiting()
        assert isinstance(waiting, notices.PhalaNotice)
        assert waiting.name == "evt_1"

    await played(redis_url, scenario, webhook_secret=SECRET)


async def test_without_a_secret_there_is_no_such_route(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        assert (await bridge.http.post(f"{bridge.url}/v1/upstream/webhooks")).status_code == 404
