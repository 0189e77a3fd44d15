"""`bridge keys`: seals webhooks anew, and deletes those whose key is lost."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable

from bridge.clock import SystemClock
from bridge.commands.asking import Output, progress
from bridge.config import Settings
from bridge.process.embedded import EmbeddedServer, running_url
from bridge.process.redis_connection import connected
from bridge.process.secret_keys import KEY_REMEDY, found_keys
from bridge.process.signals import CommandError
from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreError, UnopenedError
from bridge.store.key_rotation import rotate, unopened


async def run_rotate(settings: Settings, show: Callable[[str], None], *, dry_run: bool) -> None:
    """Raises CommandError, also if something still needs another key than the first."""
    sealer = _sealer(settings)
    if sealer is None:
        raise CommandError("BRIDGE_SECRET_KEY is not set: set it to the new key and the old ones, comma separated")
    async with _redis(settings) as backend, progress(_output(), SystemClock()):
        try:
            done = await rotate(backend, sealer, dry_run=dry_run)
        except UnopenedError as error:
            raise CommandError(f"{error}: {KEY_REMEDY}") from None
    show(f"{done.endpoints} webhook endpoint(s), {done.resealed} sealed anew with the first key")
    if done.closed:
        show(f"{done.closed} cannot be opened: {KEY_REMEDY}")
    if done.old:
        advice = "run this without --dry-run" if dry_run else "is an older key still the first of another process?"
        raise CommandError(f"{done.old} still need(s) another key than the first: {advice}")
    show("none needs another key than the first: the others may leave BRIDGE_SECRET_KEY")


async def run_forget(settings: Settings, show: Callable[[str], None], sure: Callable[[str], bool]) -> None:
    """Deletes the endpoints that no key opens, once the caller is sure. Raises CommandError."""
    async with _redis(settings) as backend:
        endpoints = Endpoints(backend)
        async with progress(_output(), SystemClock()):
            lost = await unopened(endpoints, _sealer(settings))
        if not lost:
            show("every webhook endpoint can be opened: nothing to delete")
        elif sure(f"Delete {len(lost)} webhook endpoint(s) that no key opens, with their deliveries: {_named(lost)}?"):
            for endpoint_id in lost:
                await endpoints.remove(endpoint_id)
            show(f"{len(lost)} webhook endpoint(s) deleted")


def _output() -> Output:
    return Output(is_terminal=sys.stdout.isatty(), progress="opening what is sealed in Redis")


def _named(ids: list[str]) -> str:
    return ", ".join(ids[:10]) + (", …" if len(ids) > 10 else "")


def _sealer(settings: Settings) -> Sealer | None:
    keys = settings.secret_key or found_keys()
    return Sealer(keys) if keys else None


@contextlib.asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Backend]:
    """The one that is set, or that of `bridge up`, which is started for the time if it does not run."""
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url or await running_url()
        if url is None:
            url = (await stack.enter_async_context(EmbeddedServer())).socket_url
        backend = await stack.enter_async_context(connected(url, settings.namespace))
        try:
            yield backend
        except UnopenedError:
            raise
        except StoreError as error:
            raise CommandError(str(error)) from None
