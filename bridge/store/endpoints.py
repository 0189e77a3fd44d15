"""Webhook endpoints in Redis: registrations, whether each is enabled, and its health (`docs/contract.md#webhooks`)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from bridge.clock import rfc3339
from bridge.store.connection import Backend, load_script
from bridge.store.endpoint_record import BROKEN, ID_PATTERN, MOST_ENDPOINTS, Endpoint
from bridge.store.errors import BrokenEndpointError, EndpointExistsError, TooManyEndpointsError, UnknownEndpointError
from bridge.store.foreign import stored_time
from bridge.store.lane_repair import run_lane_script
from bridge.store.limits import LaneLimits
from bridge.store.sealing_key import AnyKey, SealingKey, resealed
from bridge.store.unread import read_unread

logger = logging.getLogger(__name__)

MOST_OF_ONE = 1_000
"""Endpoints that a token which is limited to CVMs may make: no team takes them all from the others."""


@dataclass(frozen=True, slots=True)
class Health:
    """How many deliveries wait, in lanes or in the log, and when attempts last succeeded and failed (RFC 3339).

    `postponed_since`, `postponed_reason`: since its last attempt, those that were due could not be made.
    """

    pending: int
    postponed_reason: str | None = None
    last_success_at: str | None = None
    last_failure_at: str | None = None
    failing_since: str | None = None
    postponed_since: str | None = None
    _: KW_ONLY
    failing: bool = False
    """`endpoint.failing` was told since the last success."""
    breaker_open: bool = False
    held_until: str | None = None
    """In the future: until then its breaker or its `Retry-After` lets no attempt through but a requested test."""


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """All endpoints as of one revision; the revision moves with every change to any of them.

    `broken`: ids of those whose record cannot be read, which are not among the others.
    """

    revision: int
    endpoints: Mapping[str, Endpoint]
    broken: frozenset[str] = frozenset()


class Endpoints:
    """Every change is one atomic step that moves the revision and wakes the dispatchers. What seals gives its `key`."""

    _create = load_script("lane_rules", "log_rules", "create_endpoint")
    _change = load_script("lane_rules", "change_endpoint")
    _switch = load_script("lane_rules", "notice_rules", "switch_endpoint")
    _remove = load_script("lane_rules", "remove_endpoint")
    _endpoint_set = load_script("lane_rules", "endpoint_set")
    _health = load_script("lane_rules", "endpoint_health")
    _ids = load_script("lane_rules", "endpoint_ids")

    def __init__(self, backend: Backend, limits: LaneLimits | None = None, key: SealingKey | None = None) -> None:
        self._backend = backend
        self._lane_limits = limits or LaneLimits()
        self._limits = self._lane_limits.to_json()
        self._key = key or AnyKey()

    async def create(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with its `created_*`. Raises EndpointExistsError, TooManyEndpointsError, UnopenedError."""
        endpoint = replace(endpoint, created_at=rfc3339(await self._backend.now_ms() / 1000))
        # The script finds the log's end, so that no event can come in between.
        switched = int(endpoint.enabled), endpoint.disabled_reason or ""
        counted = "" if endpoint.reach is None else endpoint.owner
        rest = *switched, MOST_ENDPOINTS, *endpoint.own_limits, counted, MOST_OF_ONE, self._key.id
        while (answer := await self._run(self._create, endpoint.id, endpoint.head(), *rest)) == "unregistered":
            await self._key.register()
        if answer == "exists":
            raise EndpointExistsError
        if answer == "full":
            raise TooManyEndpointsError
        return replace(endpoint, created_after=str(answer[0]), created_log_id=str(answer[1]))

    async def get(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        return (await self._load([endpoint_id])).get(endpoint_id)

    async def page(self, after: str = "", limit: int = 100) -> list[tuple[Endpoint, Health]]:
        """At most `limit` endpoints with ids above `after`, ascending; broken ones too."""
        ids = await self.ids(after, limit)
        found = await self._load(ids)
        return [found[each] for each in ids if each in found]

    async def ids(self, after: str, limit: int) -> list[str]:
        """At most `limit` ids above `after`, ascending; of broken ones too."""
        ids, removed = await self._run(self._ids, after, limit)
        if int(removed):
            logger.error("registrations in Redis without a usable name were removed", extra={"count": int(removed)})
        return list(ids)

    async def change(self, endpoint_id: str, edit: Callable[[Endpoint], Endpoint]) -> Endpoint:
        """Reads, edits and writes as one step; `edit` may be called again.

        All that is sealed in it is sealed with this process's first key then.
        Raises UnknownEndpointError, BrokenEndpointError, UnopenedError.

        What `edit` returns as `id`, `created_*`, `request`, `enabled` and `disabled_reason` is ignored.
        """
        while True:
            stored, old = await self._registered(endpoint_id)
            if old.broken:
                raise BrokenEndpointError
            kept = {name: getattr(old, name) for name in _KEPT}
            new = replace(edit(old), **kept)
            text = resealed(new, self._key.renewed).to_json()
            arguments = endpoint_id, stored, text, *new.own_limits, self._key.id
            done, disabled = await self._run(self._change, *arguments)
            if done == "unregistered":
                await self._key.register()
            elif done:
                return Endpoint.from_json(endpoint_id, text, disabled)

    async def registration(self, endpoint_id: str) -> Endpoint:
        """Without its health, and always shown as enabled: at the same small cost however much waits for it.

        Raises UnknownEndpointError.
        """
        return (await self._registered(endpoint_id))[1]

    async def enable(self, endpoint_id: str) -> None:
        """Continues with the pending deliveries at once and forgets earlier failures. Raises UnknownEndpointError."""
        if not await self._run(self._switch, endpoint_id, 1, "", ""):
            raise UnknownEndpointError

    async def disable(self, endpoint_id: str, reason: str | None = None, about: str = "") -> None:
        """Keeps pending deliveries; new events are listed as skipped. Raises UnknownEndpointError.

        `about`: what notices show of it, as JSON.
        """
        if not await self._run(self._switch, endpoint_id, 0, reason or "", about):
            raise UnknownEndpointError

    async def remove(self, endpoint_id: str) -> bool:
        """Removes it with all its deliveries. False if there was no such endpoint."""
        return bool(await self._run(self._remove, endpoint_id))

    async def all(self, known: EndpointSet | None = None) -> EndpointSet:
        """All endpoints as of one moment; given `known`, only the changes since are read."""
        revision, whole, *rest = await self._run(self._endpoint_set, known.revision if known else 0)
        if int(whole):
            texts, disabled = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in rest)
            return _endpoint_set(int(revision), {}, ((each, text, disabled.get(each)) for each, text in texts.items()))
        changes = list(zip(*[iter(rest[0])] * 3, strict=True))
        before = {**known.endpoints, **dict.fromkeys(known.broken)} if known else {}
        return _endpoint_set(int(revision), before, changes)

    async def _registered(self, endpoint_id: str) -> tuple[str, Endpoint]:
        """Its JSON, and the endpoint. Raises UnknownEndpointError."""
        ((registered, stored, *_),) = await self._run(self._health, endpoint_id)
        if not int(registered):
            raise UnknownEndpointError
        return stored, _read(endpoint_id, stored, None)

    async def _load(self, ids: list[str]) -> dict[str, tuple[Endpoint, Health]]:
        if not ids:
            return {}
        rows = await self._run(self._health, *ids)
        unread = await read_unread(self._backend, self._lane_limits)
        found = {}
        for endpoint_id, (registered, text, disabled, pending, *times, why, told, open_, held) in zip(
            ids, rows, strict=True
        ):
            if int(registered):
                endpoint = _read(endpoint_id, text, disabled)
                waiting = int(pending) + unread.count(endpoint)
                health = Health(
                    waiting,
                    why,
                    *map(stored_time, times),
                    failing=told is not None,
                    breaker_open=open_ is not None,
                    held_until=stored_time(held),
                )
                found[endpoint_id] = endpoint, health
        return found

    async def _run(self, script: Any, *arguments: object) -> Any:
        given = [self._limits, self._backend.keys.webhook_wake_channel, *arguments]
        return await run_lane_script(self._backend, script, given)


_KEPT = ("created_at", "created_after", "created_log_id", "request")


def _endpoint_set(
    revision: int, before: Mapping[str, Endpoint | None], rows: Iterable[tuple[str, str | None, str | None]]
) -> EndpointSet:
    """`before` (None: broken) with these changes of (id, JSON or None, reason or None)."""
    found = dict(before)
    for endpoint_id, text, disabled in rows:
        found.pop(endpoint_id, None)
        if text is not None and re.fullmatch(ID_PATTERN, endpoint_id):
            endpoint = _read(endpoint_id, text, disabled)
            found[endpoint_id] = None if endpoint.broken else endpoint
    usable = {each: endpoint for each, endpoint in found.items() if endpoint is not None}
    return EndpointSet(revision, usable, frozenset(found.keys() - usable.keys()))


def _read(endpoint_id: str, text: str | None, disabled: str | None) -> Endpoint:
    """A broken one, with an error line, where the JSON is damaged or there is none."""
    try:
        return Endpoint.from_json(endpoint_id, text or "", disabled)
    except (ValueError, KeyError, TypeError) as error:
        logger.error(
            "an endpoint's record cannot be read: it gets nothing until it is deleted or registered again",
            extra={"endpoint": endpoint_id, "kind": type(error).__name__},
        )
        return Endpoint(endpoint_id, "", types=(), enabled=False, disabled_reason=BROKEN)
