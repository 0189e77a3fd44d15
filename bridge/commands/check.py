"""`bridge check`: what is in force, whether Redis and upstream can be had, who leads and who holds the slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.embedded import EmbeddedError, answers, find_server, state_directory
from bridge.process.errors import StartError
from bridge.process.redis_connection import connected
from bridge.store.connection import Backend
from bridge.store.errors import StoreError
from bridge.store.leader_status import LeaderStatus
from bridge.store.log import Log
from bridge.store.slots import Slots
from bridge.store.watches import Watches
from bridge.upstream.client import PhalaClient
from bridge.upstream.errors import NotFoundError, RateLimitedError, UnauthorizedError, UnreachableError, UpstreamError

Say = Callable[[str], None]

MOST_POLLED = 20
"""CVMs whose reason for being polled is listed; the rest is counted."""


async def run_check(settings: Settings, say: Say) -> bool:
    """Says everything it finds, the worst included, and returns whether all is well."""
    _say_settings(settings, say)
    say("\nAccess")
    _say_access(settings, say)
    say("\nRedis")
    redis = await _check_redis(settings, say)
    say("\nUpstream")
    upstream = await _check_upstream(settings, say)
    return redis and upstream


def _say_settings(settings: Settings, say: Say) -> None:
    say("Settings in force")
    for name, value, origin in settings.in_force():
        say(f"  {name:<26}{value or '–':<42}  {origin}")


def _say_access(settings: Settings, say: Say) -> None:
    if not settings.auth:
        say("  note     BRIDGE_AUTH=off: whoever reaches the front end may everything")
    elif not settings.tokens:
        say("  note     BRIDGE_TOKENS is not set: `bridge up` is open on loopback, `bridge web` refuses to start")
    else:
        say(f"  ok       {len(settings.tokens)} token(s)")


async def _check_redis(settings: Settings, say: Say) -> bool:
    url = settings.redis_url or await _embedded_url()
    if url is None:
        return _say_embedded(say)
    try:
        async with connected(url, settings.namespace) as backend:
            say(f"  ok       {await backend.version()} at {masked_url(url)}")
            await _say_bridge(backend, settings, say)
    except (StoreError, StartError) as error:
        say(f"  WRONG    {masked_url(url)}: {masked_url(str(error))}")
        say("           is it running, is REDIS_URL right, and do host, port, user and password fit?")
        return False
    return True


async def _embedded_url() -> str | None:
    """The server of a `bridge up` that runs just now; one with its socket elsewhere is not found."""
    socket = state_directory() / "redis" / "s.sock"
    return f"unix://{socket}?db=0" if await answers(socket) else None


def _say_embedded(say: Say) -> bool:
    try:
        say(f"  note     REDIS_URL is not set: `bridge up` would start {find_server()}; the other commands refuse")
    except EmbeddedError as error:
        say(f"  WRONG    REDIS_URL is not set, and {error}")
        return False
    return True


async def _say_bridge(backend: Backend, settings: Settings, say: Say) -> None:
    position = await Log(backend).position()
    say(f"  log      {f'sequence {position.sequence}, last id {position.id}' if position else 'none yet'}")
    notes = await LeaderStatus(backend).read()
    if not notes:
        say("  leader   none: no `bridge upstream` (or `bridge up`) leads, so no event will come")
    else:
        say(f"  leader   {notes.get('leader')}, epoch {notes.get('epoch')}, last heard of at {notes.get('at')}")
        reason = notes.get("budget_reason")
        say(f"  streams  {notes.get('budget')} of {settings.max_streams} usable{f' ({reason})' if reason else ''}")
    await _say_slots(backend, settings, say)
    await _say_polled(notes, backend, say)


async def _say_slots(backend: Backend, settings: Settings, say: Say) -> None:
    for slot in await Slots(backend).list(settings.max_streams):
        held = f"  {slot.cvm_id}  by {slot.holder}  from {slot.since} until {slot.until}" if slot.cvm_id else ""
        say(f"  slot {slot.index + 1}   {slot.state}{held}")


async def _say_polled(notes: dict[str, Any], backend: Backend, say: Say) -> None:
    raw = notes.get("polling")
    polled: dict[str, Any] = raw if isinstance(raw, dict) else {}
    watched = len(await Watches(backend).list("", 1000))
    say(f"  watches  {watched}{'+' if watched == 1000 else ''}, of which {len(polled)} polled")
    for cvm_id, reason in list(polled.items())[:MOST_POLLED]:
        say(f"    polled {cvm_id}: {reason}")
    if len(polled) > MOST_POLLED:
        say(f"    … and {len(polled) - MOST_POLLED} more")


async def _check_upstream(settings: Settings, say: Say) -> bool:
    if settings.api_key is None:
        say("  note     PHALA_CLOUD_API_KEY is not set: `bridge up` would simulate, `bridge upstream` refuses to start")
        return True
    client = PhalaClient(settings.api_prefix, settings.api_key.get_secret_value(), clock=SystemClock())
    try:
        listed = await client.list_cvms()
    except UpstreamError as error:
        say(f"  WRONG    {settings.api_prefix}: {error}")
        say(f"           {_mending(error)}")
        return False
    finally:
        await client.aclose()
    say(f"  ok       {settings.api_prefix}: the key is good, {len(listed)} CVM(s)")
    return True


def _mending(error: UpstreamError) -> str:
    match error:
        case UnauthorizedError():
            return "PHALA_CLOUD_API_KEY is not accepted: is it whole, of this workspace, and not revoked?"
        case UnreachableError():
            return "is PHALA_CLOUD_API_PREFIX right, and may this machine connect there (DNS, proxy, firewall)?"
        case NotFoundError():
            return "PHALA_CLOUD_API_PREFIX leads to no Phala Cloud API: does it end in /api/v1?"
        case RateLimitedError():
            return "too many requests with this key: wait a minute; does something else use it?"
    return "PHALA_CLOUD_API_PREFIX may lead to something else than Phala Cloud"
