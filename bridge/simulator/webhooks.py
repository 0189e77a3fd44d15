"""Phala Cloud's own webhooks: on request, one POST per lifecycle change."""

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

#: Webhooks that wait for a slow receiver; the oldest beyond are dropped.
MAX_WAITING = 1000

#: Seconds for one POST.
POST_TIMEOUT = 5.0


class WebhookTarget(BaseModel):
    """Where lifecycle webhooks go; `events` None: all of them."""

    model_config = ConfigDict(extra="forbid")

    url: str
    secret: str
    events: list[str] | None = None


@dataclass(frozen=True)
class Webhook:
    """One webhook, ready to be sent."""

    id: str
    event: str
    body: bytes


def event_of(change: Change) -> str | None:
    """The lifecycle event of a change; None for most changes."""
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


def webhook(cvm: Cvm, event: str, webhook_id: str, now: float, error: str | None = None) -> Webhook:
    """A webhook in Phala Cloud's envelope."""
    data = {"cvm_id": cvm.cvm_id, "cvm_name": cvm.name, "app_id": cvm.app_id, "status": cvm.status}
    if error is not None:
        data["error"] = error
    workspace = {"id": "ws_simulated", "name": "simulated"}
    envelope = {"id": webhook_id, "event": event, "version": "1", "created_at": timestamp(now)}
    return Webhook(webhook_id, event, dumps(envelope | {"workspace": workspace, "data": data}))


def headers(message: Webhook, secret: str, seconds: str) -> dict[str, str]:
    """`seconds`: Unix time, which is signed too."""
    return {
        "Content-Type": "application/json",
        "X-Webhook-Id": message.id,
        "X-Webhook-Event": message.event,
        "X-Webhook-Timestamp": seconds,
        "X-Webhook-Signature": sign(secret, seconds, message.body),
    }


class WebhookSender:
    """Sends webhooks one after the other, each once, without a retry."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._waiting: deque[tuple[WebhookTarget, Webhook]] = deque(maxlen=MAX_WAITING)
        self._awake = asyncio.Event()
        self.target: WebhookTarget | None = None
        simulator.listeners.append(self._enqueue)

    def new(self, cvm: Cvm, event: str, error: str | None, webhook_id: str | None = None) -> Webhook:
        """A webhook of now, with a random id unless one is given."""
        webhook_id = webhook_id or f"evt_{self._simulator.world.webhook_ids.getrandbits(64):016x}"
        return webhook(cvm, event, webhook_id, self._simulator.now(), error)

    def _enqueue(self, change: Change) -> None:
        event = event_of(change)
        if self.target is None or event is None or (self.target.events is not None and event not in self.target.events):
            return
        error = change.cvm.fields.get("boot_error") if event == "cvm.create_failed" else None
        self._waiting.append((self.target, self.new(change.cvm, event, error)))
        self._awake.set()

    async def run(self) -> None:
        """Sends waiting webhooks until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                target, message = self._waiting.popleft()
                await self.post(target.url, message, headers(message, target.secret, self.timestamp()))

    def timestamp(self) -> str:
        """Now, in real time, because receivers refuse webhooks that are older than five minutes."""
        return str(int(self._simulator.clock.time()))

    async def post(self, url: str, message: Webhook, fields: dict[str, str]) -> dict[str, Any]:
        """One attempt; returns its result and raises nothing if the receiver fails."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=POST_TIMEOUT) as client:
                answer = await client.post(url, content=message.body, headers=fields)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return {"id": message.id, "status": None, "error": type(error).__name__}
        return {"id": message.id, "status": answer.status_code, "error": None}
