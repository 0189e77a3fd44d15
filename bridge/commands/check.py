"""`bridge check`: the settings in force, tests of Redis and upstream, the leader and the slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bridge import __version__
from bridge.clock import SystemClock
from bridge.commands.remedies import redis_remedy, slot_notes, version_lines
from bridge.config import Settings
from bridge.config_values import masked_url
from bridge.process.embedded import EmbeddedError, find_server, running_url
from bridge.process.redis_connection import connected
from bridge.process.secret_keys import KEY_REMEDY, found_keys
from bridge.process.signals import CommandError
from bridge.process.upstream import phala_client
from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.consumer_groups import MOST_GROUPS, look
from bridge.store.dispatchers import read_dispatching
from bridge.store.endpoint_notices import health_word
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreError
from bridge.store.key_check import KeyCheck, read_seen
from bridge.store.key_rotation import rotate
from bridge.store.leader_status import read_leader_status, read_polling, unmet_lines
from bridge.store.log import Log, Position
from bridge.store.log_readers import count_after
from bridge.store.memory import LEAST_MEMORY, read_memory_left
from bridge.store.replicas import Copies, read_copies
from bridge.store.server_clock import ServerClock
from bridge.store.slots import Slots
from bridge.store.versions import read_versions
from bridge.store.watches import Watches
from bridge.upstream.client import PhalaClient
from bridge.upstream.errors import NotFoundError, RateLimitedError, UnauthorizedError, UnreachableError, UpstreamError
from bridge.upstream.phala_webhook import Wanted, at_url, last_delivery, list_webhooks

Print = Callable[[str], None]

MOST_SKEW = 1.0
"""Seconds: people compare times by the second."""

MOST_POLLED = 20
"""CVMs that are listed with the reason why they are polled; further ones are only counted."""


ENDPOINTS_AT_ONCE = 500
MOST_TROUBLED = 20
"""Endpoints and consumer groups that are listed with what is wrong; further ones are only counted."""


async def run_check(settings: Settings, show: Print) -> bool:
    """Passes its findings to `show`, line by line; returns whether nothing is wrong. Tests upstream also if Redis is
    wrong."""
    _show_settings(settings, show)
    show("\nAccess")
    show(_access(settings))
    show("\nRedis")
    redis = await _check_redis(settings, show)
    show("\nUpstream")
    upstream = await _check_upstream(settings, show)
    return redis and upstream


def _show_settings(settings: Settings, show: Print) -> None:
    show("Settings in force")
    shown = settings.in_force()
    width = max(len(name) for name, _, _ in shown) + 2
    for name, value, origin in shown:
        show(f"  {name:<{width}}{value or '–':<42}  {origin}")


def _access(settings: Settings) -> str:
    if not settings.auth:
        return "  note     BRIDGE_AUTH=off: anyone who can reach the front end has full access"
    if not settings.tokens:
        return "  note     BRIDGE_TOKENS is not set: `bridge up` is open on loopback, `bridge web` does not start"
    followed = "" if settings.tokens_file is None else ", which follow BRIDGE_TOKENS_FILE as it changes"
    return f"  ok       {len(settings.tokens)} token(s){followed}"


async def _check_redis(settings: Settings, show: Print) -> bool:
    url = settings.redis_url or await running_url()
    if url is None:
        return _show_embedded(show)
    try:
        async with connected(url, settings.namespace) as backend:
            show(f"  ok       {await backend.version()} at {masked_url(url)}")
            await _show_clock(backend, show)
            show(_replicas(await read_copies(backend)))
            enough = await _check_memory(backend, show)
            await _show_bridge(backend, settings, show)
            show("\nWebhooks")
            await _show_endpoints(backend, show)
            return await _check_keys(backend, settings, show) and enough
    except (StoreError, CommandError) as error:
        show(f"  WRONG    {masked_url(url)}: {masked_url(str(error))}")
        for line in redis_remedy(str(error), url, settings.namespace):
            show(f"           {line}")
        return False


async def _check_keys(backend: Backend, settings: Settings, show: Print) -> bool:
    keys = settings.secret_key or (() if settings.redis_url else found_keys())
    endpoints = (await read_seen(backend)).endpoints
    if not keys:
        show(f"  note     BRIDGE_SECRET_KEY is not set: nothing tells whether it opens the {endpoints} endpoint(s)")
        return True
    fit = await KeyCheck(backend, Sealer(keys)).look()
    if fit.closed:
        show(f"  WRONG    {fit.trouble}")
        show(f"           {KEY_REMEDY}")
        return False
    show(f"  ok       the secret key opens what is sealed in {endpoints} endpoint(s)")
    if len(keys) > 1 and (old := (await rotate(backend, Sealer(keys), dry_run=True)).old):
        show(f"  note     {old} of them still need an older key of BRIDGE_SECRET_KEY: run `bridge keys rotate`")
    return True


async def _show_endpoints(backend: Backend, show: Print) -> None:
    """How many there are in each health; those in trouble one by one."""
    counts, troubled, after = Counter[str](), list[str](), ""
    while page := await Endpoints(backend).page(after, ENDPOINTS_AT_ONCE):
        for endpoint, health in page:
            word = health_word(endpoint, health)
            counts[word] += 1
            if word != "ok" and len(troubled) < MOST_TROUBLED:
                why = endpoint.disabled_reason or (health.failing_since and f"since {health.failing_since}")
                troubled.append(f"    {word} {endpoint.id}: {why or 'by a caller'}, {health.pending} waiting")
        after = page[-1][0].id
    if counts:
        show(f"  health   {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    for line in troubled:
        show(line)
    if (more := sum(counts.values()) - counts["ok"] - len(troubled)) > 0:
        show(f"    … and {more} more")


def _replicas(copies: Copies) -> str:
    if copies.connected is None:
        return "  note     Redis does not tell whether it has replicas: give the rights +info and +wait"
    if not copies.connected:
        return (
            "  ok       no replicas" if not copies.guarded else "  note     min-replicas-to-write is set: writes wait"
        )
    if copies.guarded:
        return f"  ok       {copies.connected} replica(s), min-replicas-to-write is set"
    return (
        f"  note     {copies.connected} replica(s), but min-replicas-to-write is not set: set it to 1 on every\n"
        "           server, or a primary that is cut off for long goes on beside a promoted replica"
    )


async def _check_memory(backend: Backend, show: Print) -> bool:
    left = await read_memory_left(backend)
    if left is None:
        return True
    if left >= LEAST_MEMORY:
        show(f"  ok       {left * 100:.0f} % of its maxmemory are free")
        return True
    show(
        f"  WRONG    only {left * 100:.0f} % of its maxmemory are free: webhooks wait, and a full Redis takes no events"
    )
    show("           raise `maxmemory`, or remove what else is in this Redis; keep `maxmemory-policy noeviction`")
    return False


def _show_embedded(show: Print) -> bool:
    try:
        show(f"  note     REDIS_URL is not set: `bridge up` would start {find_server()}; other commands do not start")
    except EmbeddedError as error:
        show(f"  WRONG    REDIS_URL is not set, and {error}")
        return False
    return True


async def _show_clock(backend: Backend, show: Print) -> None:
    clock = ServerClock(SystemClock())
    await clock.ask(backend)
    if abs(clock.skew) < MOST_SKEW:
        show("  ok       this machine's clock and Redis's agree")
        return
    side = "ahead of" if clock.skew > 0 else "behind"
    show(f"  note     this machine's clock is {abs(clock.skew):.1f} s {side} Redis's")
    show("           the bridge tells times by Redis's clock; set whichever is wrong, for example with NTP")


async def _show_bridge(backend: Backend, settings: Settings, show: Print) -> None:
    position = await Log(backend).position()
    show(f"  log      {f'sequence {position.sequence}, last id {position.id}' if position else 'has no event yet'}")
    status = await read_leader_status(backend)
    if not status:
        show("  leader   none: start `bridge upstream` (or `bridge up`), otherwise no event will come")
    else:
        show(f"  leader   {status.get('leader')}, epoch {status.get('epoch')}, as reported at {status.get('at')}")
        reason = status.get("budget_reason")
        for line in unmet_lines(status.get("unmet", {})):
            show(f"  note     BRIDGE_CVMS: {line}")
        show(f"  streams  {status.get('budget')} of {settings.max_streams} usable{f' ({reason})' if reason else ''}")
    await _show_groups(backend, settings, position, show)
    if trouble := (await read_dispatching(backend)).trouble:
        show(f"  webhooks {trouble}: start `bridge dispatcher` (or `bridge up`), otherwise nothing is delivered")
    for line in version_lines(await read_versions(backend), __version__):
        show(f"  {line}")
    slots = await Slots(backend).list(settings.max_streams)
    for slot in slots:
        held = f"  {slot.cvm_id}  by {slot.holder}  from {slot.since} until {slot.until}" if slot.cvm_id else ""
        show(f"  slot {slot.index + 1}   {slot.state}{held}")
    for note in slot_notes(slots, status, settings.max_streams):
        show(f"  note     {note}")
    streamed = {slot.cvm_id for slot in slots if slot.state == "held"}
    polled = await read_polling(backend, status, streamed) or {}
    watched = len(await Watches(backend).list("", 1000))
    show(f"  watches  {watched}{'+' if watched == 1000 else ''}, of which {len(polled)} polled")
    for cvm_id, reason in list(polled.items())[:MOST_POLLED]:
        show(f"    polled {cvm_id}: {reason}")
    if len(polled) > MOST_POLLED:
        show(f"    … and {len(polled) - MOST_POLLED} more")


async def _show_groups(backend: Backend, settings: Settings, position: Position | None, show: Print) -> None:
    """Those for which the log is kept, and those that it no longer waits for."""
    found = await look(backend)
    if not found.is_bounded:
        show(f"  note     more than {MOST_GROUPS} consumer groups read the log, which waits for all of them as if one")
        show("           had read nothing: remove those that nobody uses (XGROUP DESTROY)")
    idle = {group.name for group in found.judge(settings.group_idle).idle}
    troubled = []
    for group in found.groups:
        behind = await count_after(backend, group.delivered, position) if position else 0
        if group.name in idle:
            troubled.append(f"    idle {group.name}: the log does not wait for it")
        elif behind > settings.log_length:
            troubled.append(f"    late {group.name}: {behind} events to read, for which the log is kept")
    if found.groups:
        show(f"  groups   {len(found.groups)} consumer group(s) of the log")
    for line in troubled[:MOST_TROUBLED]:
        show(line)
    if (more := len(troubled) - MOST_TROUBLED) > 0:
        show(f"    … and {more} more")


async def _check_upstream(settings: Settings, show: Print) -> bool:
    if settings.api_key is None:
        show("  note     PHALA_CLOUD_API_KEY is not set: `bridge up` would simulate, `bridge upstream` does not start")
        return True
    try:
        async with phala_client(settings, SystemClock()) as client:
            page = await client.list_page(1)
            works, webhook = await _check_webhook(settings, client)
    except UpstreamError as error:
        show(f"  WRONG    {settings.api_prefix}: {error}")
        show(f"           {_correction(error)}")
        return False
    count = len(page.entries) if page.total is None else page.total
    show(f"  ok       {settings.api_prefix}: the key is valid, {count} CVM(s)")
    if webhook:
        show(f"  {'ok   ' if works else 'WRONG'}    {webhook}")
    return works


async def _check_webhook(settings: Settings, client: PhalaClient) -> tuple[bool, str]:
    """Whether nothing is wrong with the webhook of BRIDGE_PUBLIC_URL, and what there is to tell."""
    if settings.public_url is None:
        return True, ""
    if not settings.redis_url and not settings.secret_key:
        settings = settings.model_copy(update={"secret_key": found_keys()})
    wanted = Wanted.of(settings)
    if wanted is None:
        return False, "BRIDGE_PUBLIC_URL needs PHALA_WEBHOOK_SECRET or BRIDGE_SECRET_KEY: no webhook is registered"
    try:
        found = at_url(await list_webhooks(client), wanted)
        last = await last_delivery(client, found[0].id) if found else None
    except UpstreamError as error:
        return False, f"Phala Cloud's webhooks cannot be listed: {error}"
    if not found:
        return False, f"Phala Cloud has no webhook for {wanted.url}: a leading `bridge upstream` registers it"
    if not found[0].fits(wanted):
        return False, f"Phala Cloud's webhook for {wanted.url} has another secret or other events: is the key the same?"
    if not found[0].enabled:
        return False, f"Phala Cloud's webhook for {wanted.url} is disabled: enable it in Phala Cloud's console"
    if last is not None and not last.delivered:
        return False, f"Phala Cloud's last webhook, at {last.at}, did not reach {wanted.url}: {last.outcome}"
    return True, f"Phala Cloud's webhook for {wanted.url}: {f'delivered at {last.at}' if last else 'none was sent yet'}"


def _correction(error: UpstreamError) -> str:
    match error:
        case UnauthorizedError():
            return "PHALA_CLOUD_API_KEY is not accepted: is it complete, of this workspace, and not revoked?"
        case UnreachableError():
            return "is PHALA_CLOUD_API_PREFIX correct, and can this machine connect to it (DNS, proxy, firewall)?"
        case NotFoundError():
            return "PHALA_CLOUD_API_PREFIX is not the URL of a Phala Cloud API: does it end with /api/v1?"
        case RateLimitedError():
            return "there are too many requests with this key: wait a minute; does another program use it?"
    return "PHALA_CLOUD_API_PREFIX may be the URL of another service than Phala Cloud"
