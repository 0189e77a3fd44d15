"""The simulator's webhooks: sent on request, and with each change of a CVM's life."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from bridge.phala_signature import sign
from bridge.simulator.server import serve
from bridge.simulator.world import Cvm, World
from tests.real.waiting import until
from tests.receivers import Receiver, receiving

SECRET = "whsec_dGVzdA=="


@dataclass(frozen=True)
class Stage:
    control: httpx.AsyncClient
    cvm: Cvm
    receiver: Receiver


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """A CVM that does nothing by itself, and a receiver."""
    world = World(seed=7, cvms=1, frozen=True)
    async with (
        serve(world=world, time_scale=0.02) as running,
        httpx.AsyncClient(base_url=running.control, trust_env=False) as control,
        receiving() as receiver,
    ):
        yield Stage(control, running.simulator.world.cvms[0], receiver)


async def test_a_webhook_is_sent_on_request_and_signed() -> None:
    async with staged() as stage:
        body = {"url": stage.receiver.url, "secret": SECRET, "event": "cvm.stopped", "cvm": stage.cvm.name}
        sent = (await stage.control.post("/webhooks/send", json=body)).json()
        forged = {**body, "timestamp": "1", "signature": "sha256=00", "id": "evt_mine"}
        await stage.control.post("/webhooks/send", json=forged)
        nowhere = (await stage.control.post("/webhooks/send", json={**body, "url": "http://127.0.0.1:1/"})).json()
    genuine, bad = stage.receiver.hits
    headers, others = httpx.Headers(genuine.headers), httpx.Headers(bad.headers)
    assert (sent["status"], sent["error"], sent["id"]) == (204, None, genuine.id)
    assert headers["x-webhook-signature"] == sign(SECRET, headers["x-webhook-timestamp"], genuine.body)
    assert (others["x-webhook-timestamp"], others["x-webhook-signature"], bad.id) == ("1", "sha256=00", "evt_mine")
    assert (nowhere["status"], nowhere["error"]) == (None, "ConnectError")


async def test_each_lifecycle_change_sends_its_webhook() -> None:
    async with staged() as stage:
        await stage.control.put("/webhooks", json={"url": stage.receiver.url, "secret": SECRET})
        for status in ("stopping", "stopped", "starting", "running"):
            await stage.control.patch(f"/cvms/{stage.cvm.vm_uuid}", json={"status": status})
        await stage.control.delete(f"/cvms/{stage.cvm.vm_uuid}")
        await until(lambda: len(stage.receiver.hits) == 3)
    events = [json.loads(hit.body)["event"] for hit in stage.receiver.hits]
    assert events == ["cvm.stopped", "cvm.started", "cvm.deleted"]
