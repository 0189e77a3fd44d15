"""The webhook of Phala Cloud that calls this bridge: registered once, and found again by its URL.

Which secret it has stands in its name, so that nothing about it is kept here: a bridge that ended between two requests,
or lost its Redis, goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from bridge.backoff import Backoff
from bridge.config import Settings
from bridge.upstream import metrics
from bridge.upstream.client import PhalaClient
from bridge.upstream.errors import RateLimitedError, UnparsableError, UpstreamError
from bridge.upstream.leader_context import LeaderContext

logger = logging.getLogger(__name__)

EVENTS = tuple(
    f"cvm.{event}"
    for event in (
        "created",
        "started",
        "create_failed",
        "restarted",
        "updated",
        "stopped",
        "deleted",
        "update.pending_approval",
    )
)

ROUTE = "/v1/upstream/webhooks"

LOOK_EVERY = 3600.0
LOOK_AGAIN = 60.0
"""Seconds after a change: a former leader may have made the same one."""

FAILED_FIRST, FAILED_LONGEST = 30.0, 3600.0
"""Seconds until the next look where one failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The webhook that there should be."""

    url: str
    namespace: str
    secret: str = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Wanted | None:
        """None where none is to be registered, or nothing could verify it."""
        secrets = settings.phala_secrets
        if settings.public_url is None or not secrets:
            return None
        return cls(url=settings.public_url + ROUTE, namespace=settings.namespace, secret=secrets[0])

    @property
    def name(self) -> str:
        """Tells the secret from others."""
        return f"bridge {self.namespace} {hashlib.sha256(self.secret.encode()).hexdigest()[:6]}"

    def body(self) -> dict[str, object]:
        return {"url": self.url, "events": list(EVENTS), "name": self.name, "secret": self.secret}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One of the workspace's webhooks, as Phala Cloud lists it."""

    id: str
    url: str
    name: str | None
    secret: str | None = field(repr=False)
    events: frozenset[str]
    enabled: bool

    def fits(self, wanted: Wanted) -> bool:
        """One that somebody disabled fits too: it is left so."""
        return self.events >= set(EVENTS) and (wanted.secret == self.secret or wanted.name == self.name)


def at_url(hooks: Iterable[Registered], wanted: Wanted) -> list[Registered]:
    """Those that call this bridge, the one to keep first."""
    found = [each for each in hooks if each.url.rstrip("/") == wanted.url]
    return sorted(found, key=lambda each: (not each.fits(wanted), not each.enabled, each.id))


async def list_webhooks(client: PhalaClient) -> list[Registered]:
    """Raises UpstreamError."""
    answer = await client.webhooks("GET")
    if not isinstance(answer, list):
        raise UnparsableError("the list of webhooks is none")
    return [each for item in answer if isinstance(item, dict) and (each := _registered(item))]


@dataclass(frozen=True, slots=True)
class LastDelivery:
    """What became of the last webhook that Phala Cloud sent."""

    at: str
    delivered: bool
    outcome: str


async def last_delivery(client: PhalaClient, webhook_id: str) -> LastDelivery | None:
    """None if none was sent yet. Raises UpstreamError."""
    answer = await client.webhooks("GET", f"/{quote(webhook_id, safe='')}/deliveries?limit=20")
    items = [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []
    if not items:
        return None
    last = max(items, key=lambda item: str(item.get("created_at")))
    status = last.get("response_status")
    delivered = isinstance(status, int) and 200 <= status < 300
    return LastDelivery(
        str(last.get("created_at")), delivered, f"{status or ''} {last.get('error_message') or ''}".strip()
    )


def _registered(item: dict[str, Any]) -> Registered | None:
    def text(name: str) -> str | None:
        return value if isinstance(value := item.get(name), str) else None

    id, url, events = text("id"), text("url"), item.get("events")
    if id is None or url is None or id in ("", ".", ".."):
        return None
    return Registered(
        id=id,
        url=url,
        name=text("name"),
        secret=text("secret"),
        events=frozenset(each for each in events if isinstance(each, str)) if isinstance(events, list) else frozenset(),
        enabled=item.get("enabled") is not False,
    )


class PhalaWebhook:
    """One standing task of one term. Whatever fails, the bridge goes on without the webhook."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._backoff = Backoff(first=FAILED_FIRST, longest=FAILED_LONGEST)
        self._told = ""
        self._made: object = None
        """The id of the one that this term made: whatever Phala Cloud then lists of it, it is not made again."""

    async def run(self) -> None:
        """Never returns."""
        wanted = Wanted.of(self._context.settings)
        if wanted is None:
            if self._context.settings.public_url is not None:
                self._tell(
                    "BRIDGE_PUBLIC_URL needs PHALA_WEBHOOK_SECRET or BRIDGE_SECRET_KEY: no webhook is registered"
                )
                metrics.count_registration(False)
            await asyncio.Event().wait()
        assert wanted is not None
        clock = self._context.clock
        while True:
            try:
                wait = LOOK_AGAIN if await self._look(wanted) else LOOK_EVERY
            except UpstreamError as error:
                if isinstance(error, RateLimitedError):
                    self._context.apply(error, ROUTE)
                self._tell(f"Phala Cloud's webhook could not be registered: {error}")
                metrics.count_registration(False)
                wait = self._backoff.fail(clock.monotonic(), self._context.rng, error.retry_after or 0.0)
            else:
                self._backoff.heal()
            await clock.sleep(wait)

    async def _look(self, wanted: Wanted) -> bool:
        """Whether something was changed. Raises UpstreamError.

        What must go goes first: where that fails, there are not two.
        """
        client = self._context.client
        await self._context.turn()
        found = at_url(await list_webhooks(client), wanted)
        kept = next((each for each in found if each.fits(wanted) or each.id == self._made), None)
        gone = [each for each in found if each is not kept]
        for each in gone:
            await self._context.turn()
            await client.webhooks("DELETE", f"/{quote(each.id, safe='')}")
        if kept is None:
            await self._context.turn()
            answer = await client.webhooks("POST", body=wanted.body())
            self._made = answer.get("id") if isinstance(answer, dict) else None
            logger.info("Phala Cloud sends its webhooks to this bridge", extra={"url": wanted.url})
        works = kept is None or kept.enabled
        metrics.count_registration(works)
        if works:
            self._told = ""
        else:
            self._tell("Phala Cloud's webhook for this bridge is disabled: enable it in Phala Cloud's console")
        return kept is None or bool(gone)

    def _tell(self, trouble: str) -> None:
        if trouble != self._told:
            logger.warning("%s", trouble)
        self._told = trouble
