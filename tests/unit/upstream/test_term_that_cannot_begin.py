"""A term that cannot begin, for any reason: the lease is given back, the probe tells why, and it is tried again."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from bridge.process.probe import create_app
from bridge.store.leadership import Leadership
from bridge.upstream.slot_handover import SlotHandover
from bridge.upstream.slots import Slot
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import Replicas
from tests.virtual import VirtualClock, run_virtual


class Unreadable:
    """In the place of `SlotHandover.load`, until it is mended."""

    def __init__(self) -> None:
        self.tries = 0
        self.mended = False
        self._load = SlotHandover.load

    async def load(self, handover: SlotHandover) -> list[Slot]:
        if self.mended:
            return await self._load(handover)
        self.tries += 1
        raise ValueError("words where numbers belong")


async def readiness(replicas: Replicas) -> tuple[int, dict[str, str]]:
    upstream = replicas.all[0].upstream
    app = create_app(replicas.plain, lambda: "leader" if upstream.leading else "standby", lambda: upstream.trouble)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://probe") as http:
        answer = await http.get("/readyz")
        return answer.status_code, answer.json()


def test_a_term_that_cannot_begin_is_resigned_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Unreadable()

    async def load(handover: SlotHandover) -> list[Slot]:
        return await fault.load(handover)

    monkeypatch.setattr(SlotHandover, "load", load)

    async def scenario() -> None:
        with redis_time(VirtualClock()):
            replicas = Replicas(Cloud(["a"]))
            replicas.start(0)
            await asyncio.sleep(60)
            status, body = await readiness(replicas)
            assert status == 503
            assert "words where numbers belong" in body["reason"]
            assert 4 <= fault.tries <= 12, "it goes on, and not in a hurry"
            # Nobody holds the lease between two tries: another replica may be able to lead.
            other = fake_backend(replicas.redis)
            assert not isinstance(await Leadership(other).acquire("another", 0.5, "log"), float)
            await other.close()
            fault.mended = True
            await asyncio.sleep(20)
            assert replicas.leader is not None
            assert await readiness(replicas) == (200, {"status": "ready", "role": "leader"})
            await replicas.end()

    run_virtual(scenario())
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {record.message for record in told} == {"a term could not begin"}
