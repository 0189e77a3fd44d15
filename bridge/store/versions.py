"""Which roles run, and of which version: each process leaves both, and anybody may read them."""

from __future__ import annotations

import contextlib

from bridge.clock import Clock
from bridge.store.connection import Backend, load_script
from bridge.store.errors import StoreError
from bridge.store.foreign import names

SEEN_SECONDS = 60
"""After so many seconds a process is forgotten that does not tell its version any more."""

TELL_EVERY = 20.0
"""Seconds."""

MOST_READ = 100
"""Roles and versions; there are a handful, unless somebody else wrote them."""

_tell = load_script("tell_version")


async def tell_version(backend: Backend, role: str, version: str) -> None:
    """Raises StoreError."""
    await backend.run(_tell, [backend.keys.versions], [f"{role} {version}", SEEN_SECONDS])


async def keep_version_told(backend: Backend, role: str, version: str, clock: Clock) -> None:
    """Never returns. Where Redis takes nothing, the roles themselves tell it."""
    while True:
        with contextlib.suppress(StoreError):
            await tell_version(backend, role, version)
        await clock.sleep(TELL_EVERY)


async def read_versions(backend: Backend) -> list[tuple[str, str]]:
    """Role and version of the processes of the last minute, sorted, each pair once. Raises StoreError."""
    since = await backend.now_ms() - SEEN_SECONDS * 1000
    command = backend.client.zrangebyscore(backend.keys.versions, since, "+inf", start=0, num=MOST_READ)
    pairs = (each.partition(" ") for each in names(await backend.call(command)))
    return sorted((role, version) for role, _, version in pairs if version)
