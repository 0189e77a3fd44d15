"""A bridge with an hour behind it: CVMs that changed, endpoints that are well, failing and disabled, and deliveries.

Tests look at it in a browser, and the pictures of the README are made of it (`python -m tests.screenshots`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import rfc3339
from bridge.config_values import Allowlist
from bridge.events import FRESH, READINESS, STALE, TRANSITION, Draft, cvm_data, dumps, readiness_data, watch_data
from bridge.sealing import Sealer, new_key
from bridge.simulator.world import Cvm, World
from bridge.store.connection import connect
from bridge.store.deliveries import Attempt
from bridge.store.lanes import Claim, Result, Share, Verdict
from bridge.store.leadership import Leadership
from bridge.store.limits import LaneLimits
from bridge.store.log_writer import LogWriter
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from tests.bridges import SEED, Whole, whole
from tests.lanes import Bench, Writer, endpoint

KEY = new_key()

HOUR = [
    (2900, "running", "restarting"),
    (2860, "restarting", "starting"),
    (2700, "starting", "running"),
    (1500, "running", "stopping"),
    (1440, "stopping", "stopped"),
    (700, "stopped", "starting"),
    (560, "starting", "running"),
]
"""How long ago, in seconds, and the transition."""

RECEIVERS = {
    "wh_deploys": ("Deploy pipeline", "https://ci.example.com/hooks/phala", 204, None),
    "wh_pager": ("On-call pager", "https://pager.example.com/v2/events", 503, "http_5xx: 503 Service Unavailable"),
    "wh_chat": ("Team chat", "https://chat.example.com/hook/T0/B1/secret", 410, "gone: 410 Gone"),
}
"""Description, URL, and how it answers."""


@dataclass
class Demonstration:
    bridge: Whole
    changed: str
    """The CVM with a history."""

    async def dispatch(self, *, working: bool) -> None:
        """A dispatcher is taken to be at work for an hour, or to be missing for long."""
        seen = round(time.time() * 1000) + 3_600_000 if working else 1_795_536_000_000
        await self.bridge.backend.client.hset("{bridge}:webhooks", "seen", str(seen))


@asynccontextmanager
async def demonstration(redis_url: str, cvms: int = 9) -> AsyncIterator[Demonstration]:
    world = World(seed=SEED, cvms=cvms, frozen=True)
    await _past(redis_url, world.cvms)
    settings = {"secret_key": KEY, "webhook_allow": with_loopback(Allowlist())}
    async with whole(redis_url, cvms=cvms, settings=settings, operations=True) as bridge:
        await bridge.until_seen(cvms)
        await bridge.until_streamed(3)
        await bridge.patch(bridge.ids[2], status="stopped")
        await bridge.patch(bridge.ids[3], status="error")
        await bridge.until(lambda: _has(bridge, "error"), "the error")
        made = Demonstration(bridge, bridge.ids[0])
        await made.dispatch(working=True)
        yield made


async def _has(bridge: Whole, status: str) -> bool:
    answer = await bridge.http.get(f"{bridge.url}/v1/cvms")
    return status in [item["status"] for item in answer.json()["items"]]


async def _past(redis_url: str, cvms: list[Cvm]) -> None:
    """The log and the webhooks of an hour, written as leader and dispatcher of before."""
    backend = connect(redis_url, "bridge")
    try:
        writer = await Writer.lead(backend)
        bench, sealer = Bench(backend, writer, LaneLimits(failures=2)), Sealer([SecretStr(KEY)])
        for name, (description, url, _, _) in RECEIVERS.items():
            await bench.endpoints.create(endpoint(name, url=sealer.seal(url), description=description))
        await Watches(backend).renew([cvm.vm_uuid for cvm in cvms])
        for cvm in cvms[:2]:
            await _history(writer, cvm)
        checkpoint = await bench.checkpoint()
        entries, last = await bench.lanes.read(checkpoint.id, 1000)
        wanted = [Share(each, sorted(RECEIVERS)) for each in entries if each.event.type == TRANSITION]
        await bench.lanes.fill(checkpoint, wanted, last or checkpoint.id, "")
        for number in range(8):
            claims = (await bench.claim(token=f"t{number}")).claims
            await bench.lanes.settle([_result(claim) for claim in claims])
        await bench.endpoints.disable("wh_chat", "the receiver answered 410 Gone")
        since = int(time.time() * 1000) - 5_400_000
        health = {"told": 1, "failing_since": since}
        await backend.client.hset("{bridge}:webhooks:health:wh_pager", mapping=health)
        await Leadership(backend).resign(writer.term)
    finally:
        await backend.close()


async def _history(writer: Writer, cvm: Cvm) -> None:
    was_ready = True
    for ago, before, after in HOUR:
        ready = after == "running"
        data = cvm_data(cvm.vm_uuid, cvm.name, (before, after), "stream", dumps({"status": after}), ready=ready)
        change = None if ready == was_ready else (was_ready, ready)
        await _write(writer, cvm, ago, after, TRANSITION, data, change)
        was_ready = ready
    await _write(writer, cvm, 300, "running", STALE, watch_data(cvm.vm_uuid, cvm.name, "unreachable", app_id=None))
    await _write(writer, cvm, 240, "running", FRESH, watch_data(cvm.vm_uuid, cvm.name, app_id=None))


async def _write(
    writer: Writer, cvm: Cvm, ago: float, status: str, type: str, data: str, change: tuple[bool, bool] | None = None
) -> None:
    """An event and the snapshot behind it, and the `change` of readiness that follows."""
    at = rfc3339(time.time() - ago)
    snapshot = Snapshot(cvm.vm_uuid, dumps({"status": status}), status, cvm.name, at, at, ready=status == "running")
    second = None
    if change:
        told = readiness_data(cvm.vm_uuid, cvm.name, change, status, app_id=None, operation=None)
        second = Draft(READINESS, cvm.vm_uuid, at, told)
    log_writer, draft = LogWriter(writer.backend, writer.log_length), Draft(type, cvm.vm_uuid, at, data)
    writer.position = await log_writer.append(writer.term, writer.position, draft, snapshot, ran=True, second=second)


def _result(claim: Claim) -> Result:
    _, _, status, error = RECEIVERS[claim.endpoint_id]
    attempt = Attempt(rfc3339(time.time() - 60), 82, status, error, "" if error is None else "try again later")
    verdict: Verdict = "delivered" if error is None else "failed"
    return Result(claim, verdict, 0 if error is None else 300, 0.5, attempt.to_json())
