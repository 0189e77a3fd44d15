"""The keys that seal: where `bridge up` keeps its own, and whether a role's keys open what Redis holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from bridge.process.embedded import state_directory
from bridge.process.signals import CommandError
from bridge.sealing import KeyFileError, Sealer, kept_key
from bridge.store.connection import Backend
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreError
from bridge.store.key_check import KeyCheck

ASK_SECONDS = 2.0
"""For so long a start waits for Redis. A key that is wrong is told later then, while the role runs."""

FORGET = "if the key is lost, `bridge keys forget` deletes them"
KEY_REMEDY = f"set BRIDGE_SECRET_KEY to the key that sealed them, or to several, comma separated; {FORGET}"


def key_file() -> Path:
    """Where `bridge up` keeps its key."""
    return state_directory() / "secret.key"


def found_keys() -> tuple[SecretStr, ...]:
    """The key of `bridge up`, if it has one yet. Raises CommandError."""
    return (_kept(key_file()),) if key_file().exists() else ()


async def own_key(backend: Backend) -> SecretStr:
    """The key of `bridge up`, which is made if there is none. Raises CommandError, also if Redis holds what only a lost
    file's key opens."""
    if found := found_keys():
        return found[0]
    if sealed := await _endpoints(backend):
        raise CommandError(
            f"{key_file()} is gone, and {sealed} webhook endpoint(s) in Redis are sealed with the key that was in it: "
            f"restore it, or set BRIDGE_SECRET_KEY to that key; {FORGET}"
        )
    return _kept(key_file())


def _kept(path: Path) -> SecretStr:
    try:
        return kept_key(path)
    except KeyFileError as error:
        raise CommandError(str(error)) from None


async def refuse_unopened(keys: Sequence[SecretStr], backend: Backend, name: str = "BRIDGE_SECRET_KEY") -> None:
    """Raises CommandError if there are keys and they do not open what is sealed in Redis. `name`: where they are."""
    if not keys:
        return
    trouble = ""
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(ASK_SECONDS):
            trouble = (await KeyCheck(backend, Sealer(keys)).look()).told(name)
    if trouble:
        raise CommandError(f"{trouble}: {KEY_REMEDY}")


async def _endpoints(backend: Backend) -> int:
    """How many can be read, as far as Redis tells."""
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(ASK_SECONDS):
            return len((await Endpoints(backend).all()).endpoints)
    return 0
