"""Seals everything anew with the first key, so that older keys are needed no more (`bridge keys rotate`)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import BrokenEndpointError, UnknownEndpointError
from bridge.store.key_check import KeyCheck
from bridge.store.sealing_key import openers


@dataclass(frozen=True, slots=True)
class Rotation:
    """Endpoints: all, those sealed anew, those of which something still needs another key than the first, and those
    among them of which no key at hand opens something."""

    endpoints: int
    resealed: int
    old: int
    closed: int


async def rotate(backend: Backend, sealer: Sealer, *, dry_run: bool = False) -> Rotation:
    """Beside running processes: each endpoint is compared and set. `dry_run` only counts.

    Once nothing needs an older key, the older keys' check values go too. Raises UnopenedError, StoreError.
    """
    check = KeyCheck(backend, sealer)
    endpoints, done = Endpoints(backend, key=check), set[str]()
    while True:
        due = [] if dry_run else [each.id for each in await _all(endpoints) if _needs_old(each, sealer)]
        for endpoint_id in due:
            with contextlib.suppress(UnknownEndpointError, BrokenEndpointError):
                done.add((await endpoints.change(endpoint_id, lambda known: known)).id)
        now = await endpoints.all()
        old = [each for each in now.endpoints.values() if _needs_old(each, sealer)]
        # Where an endpoint has changed since, perhaps by a process that seals with an older key: once more.
        if dry_run or old or await check.retire(now.revision):
            closed = sum(_is_closed(each, sealer) for each in old)
            return Rotation(len(now.endpoints), len(done - {each.id for each in old}), len(old), closed)


async def unopened(endpoints: Endpoints, sealer: Sealer | None) -> list[str]:
    """The ids of the endpoints of which no key opens something; of all without a sealer."""
    return [each.id for each in await _all(endpoints) if sealer is None or _is_closed(each, sealer)]


async def _all(endpoints: Endpoints) -> list[Endpoint]:
    return list((await endpoints.all()).endpoints.values())


def _needs_old(endpoint: Endpoint, sealer: Sealer) -> bool:
    return openers(endpoint, sealer) != {sealer.first}


def _is_closed(endpoint: Endpoint, sealer: Sealer) -> bool:
    return None in openers(endpoint, sealer)
