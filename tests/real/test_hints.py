"""Phala Cloud's own webhooks at the bridge: a polled CVM is read at once."""

from __future__ import annotations

import json
import time

from tests.bridges import whole

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
            return bool(json.loads((await bridge.log())[-1].json)["data"]["to"] == "stopped")

        await bridge.until(read, "the hint")


async def test_without_a_secret_there_is_no_such_route(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        assert (await bridge.http.post(f"{bridge.url}/v1/upstream/webhooks")).status_code == 404
