"""Phala Cloud's own webhooks: the envelope, its signature, and one POST per lifecycle change where that is
asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from bridge.phala_signature import sign
from bridge.simulator.simulator import Simulator
from bridge.simulator.world import Change, Cvm, dumps, timestamp

#: Webhooks that wait for a slow receiver; what comes on top is lost, as upstream would give up too.
MAX_WAITING = 1000

#: Seconds for one POST.
POST_TIMEOUT = 5.0


class Hook(BaseModel):
    """Where to send webhooks of itself; `events` None: all."""

    model_config = ConfigDict(extra="forbid")

    url: str
    secret: str
    events: list[str] | None = None


@dataclass(frozen=True)
class Posting:
    """One webhook, ready to be sent."""

    id: str
    event: str
    body: bytes


def event_of(change: Change) -> str | None:
    """The lifecycle event of a change; most changes are none."""
    if change.before == change.after:
        return None
    match change.after:
        case None:
            return None if change.before == "deleted" else "cvm.deleted"
        case "deleted":
            return "cvm.deleted"
        case "running":
            started = "cvm.restarted" if change.restarting else "cvm.started"
            return started if change.ran else "cvm.created"
        case "stopped" | "exited":
            return "cvm.stopped"
        case "error" if not change.ran:
            return "cvm.create_failed"
    return None


def posting(cvm: Cvm, event: str, hook_id: str, now: float, error: str | None = None) -> Posting:
    """The envelope of upstream's webhooks; `error` only where there is one."""
    data = {"cvm_id": cvm.cvm_id, "cvm_name": cvm.name, "app_id": cvm.app_id, "status": cvm.status}
    if error is not None:
        data["error"] = error
    workspace = {"id": "ws_simulated", "name": "simulated"}
    envelope = {"id": hook_id, "event": event, "version": "1", "created_at": timestamp(now)}
    return Posting(hook_id, event, dumps(envelope | {"workspace": workspace, "data": data}))


def headers(what: Posting, secret: str, seconds: str) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-Webhook-Id": what.id,
        "X-Webhook-Event": what.event,
        "X-Webhook-Timestamp": seconds,
        "X-Webhook-Signature": sign(secret, seconds, what.body),
    }


class Hooks:
    """Sends webhooks, one after the other, each once: a receiver that was down has missed it."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._random = simulator.world.hook_ids
        self._waiting: deque[tuple[Hook, Posting]] = deque(maxlen=MAX_WAITING)
        self._awake = asyncio.Event()
        self.hook: Hook | None = None
        simulator.listeners.append(self._note)

    def new_id(self) -> str:
        return f"evt_{self._random.getrandbits(64):016x}"

    def _note(self, change: Change) -> None:
        event = event_of(change)
        if self.hook is None or event is None or (self.hook.events is not None and event not in self.hook.events):
            return
        error = change.cvm.fields.get("boot_error") if event == "cvm.create_failed" else None
        what = posting(change.cvm, event, self.new_id(), self._simulator.now(), error)
        self._waiting.append((self.hook, what))
        self._awake.set()

    async def run(self) -> None:
        """Sends what waits, for ever."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                hook, what = self._waiting.popleft()
                await self.post(hook.url, what, headers(what, hook.secret, self._seconds()))

    def _seconds(self) -> str:
        """Real time: receivers refuse what is older than five minutes."""
        return str(int(self._simulator.clock.time()))

    def headers(self, what: Posting, secret: str, seconds: str | None = None) -> dict[str, str]:
        """The headers of a webhook sent now, or at another time."""
        return headers(what, secret, self._seconds() if seconds is None else seconds)

    async def post(self, url: str, what: Posting, fields: dict[str, str]) -> dict[str, Any]:
        """One attempt; says what came of it and never raises for a receiver's faults."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=POST_TIMEOUT) as client:
                answer = await client.post(url, content=what.body, headers=fields)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return {"id": what.id, "status": None, "error": type(error).__name__}
        return {"id": what.id, "status": answer.status_code, "error": None}
