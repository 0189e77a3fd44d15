"""Phala Cloud's own webhooks: on request, one POST per lifecycle change."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field

from bridge.phala_signature import sign
from bridge.simulator.simulator import Simulator
from bridge.simulator.world import Change, Cvm, dumps, timestamp, visible

#: Webhooks that wait for a slow receiver; the oldest beyond are dropped.
MAX_WAITING = 1000

#: Deliveries of a registered webhook that are kept.
MAX_DELIVERIES = 100

#: Seconds for one POST.
POST_TIMEOUT = 5.0


class WebhookTarget(BaseModel):
    """Where lifecycle webhooks go; `events` None: all of them."""

    model_config = ConfigDict(extra="forbid")

    url: str
    secret: str
    events: list[str] | None = None


class NewWebhook(BaseModel):
    """The body of `POST /workspace/webhooks`."""

    url: str
    events: list[str]
    name: str | None = Field(default=None, max_length=100)
    secret: str | None = None


@dataclass
class Registered:
    """One that a user registered; its secret is shown once."""

    id: str
    user: str
    target: WebhookTarget
    name: str | None
    created_at: str
    enabled: bool = True
    deliveries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_DELIVERIES))

    def shown(self, *, secret: bool = False) -> dict[str, Any]:
        return {
            "id": self.id,
            "url": self.target.url,
            "secret": self.target.secret if secret else None,
            "events": self.target.events,
            "name": self.name,
            "enabled": self.enabled,
            "created_at": self.created_at,
            "updated_at": self.created_at,
        }


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
        self._waiting: deque[tuple[WebhookTarget, Webhook, Registered | None]] = deque(maxlen=MAX_WAITING)
        self._awake = asyncio.Event()
        self.target: WebhookTarget | None = None
        self.registered: dict[str, Registered] = {}
        simulator.listeners.append(self._enqueue)

    def new(self, cvm: Cvm, event: str, error: str | None, webhook_id: str | None = None) -> Webhook:
        """A webhook of now, with a random id unless one is given."""
        webhook_id = webhook_id or f"evt_{self._simulator.world.webhook_ids.getrandbits(64):016x}"
        return webhook(cvm, event, webhook_id, self._simulator.now(), error)

    def _enqueue(self, change: Change) -> None:
        event = event_of(change)
        if event is not None:
            self.send(change.cvm, event, change.cvm.fields.get("boot_error") if event == "cvm.create_failed" else None)

    def send(self, cvm: Cvm, event: str, error: str | None = None, webhook_id: str | None = None) -> None:
        """Sends it to every target that wants it."""
        targets: list[tuple[WebhookTarget, Registered | None]] = [(self.target, None)] if self.target else []
        targets += [
            (each.target, each) for each in self.registered.values() if each.enabled and visible(cvm, each.user)
        ]
        message = self.new(cvm, event, error, webhook_id) if targets else None
        for target, registered in targets:
            if message is not None and (target.events is None or event in target.events):
                self._waiting.append((target, message, registered))
                self._awake.set()

    def register(self, user: str, body: NewWebhook) -> Registered:
        number = self._simulator.world.webhook_ids.getrandbits(64)
        target = WebhookTarget(url=body.url, secret=body.secret or f"whsec_{number:032x}", events=body.events)
        made = Registered(f"wh_{number:016x}", user, target, body.name, timestamp(self._simulator.now()))
        self.registered[made.id] = made
        return made

    async def run(self) -> None:
        """Sends waiting webhooks until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                target, message, registered = self._waiting.popleft()
                result = await self.post(target.url, message, headers(message, target.secret, self.timestamp()))
                if registered is not None:
                    registered.deliveries.appendleft(self._delivery(target, message, result))

    def _delivery(self, target: WebhookTarget, message: Webhook, result: dict[str, Any]) -> dict[str, Any]:
        now, status = timestamp(self._simulator.now()), result["status"]
        delivered = status is not None and status < 300
        return {
            "snowflake_id": self._simulator.world.webhook_ids.getrandbits(63),
            "event_id": message.id,
            "event_type": message.event,
            "status": "delivered" if delivered else "failed",
            "attempts": 1,
            "request_url": target.url,
            "response_status": status or 0,
            "error_message": result["error"] or "",
            "duration_ms": 0,
            "created_at": now,
            "delivered_at": now if delivered else None,
            "original_event_id": "",
        }

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
