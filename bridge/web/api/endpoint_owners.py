"""Whose an endpoint is, and what its owner lets it get (`docs/contract.md#webhooks`).

Dispatchers have no tokens. A front end therefore stores with each endpoint which CVMs its owner may see: when the
endpoint is made, at the front end's start, because its tokens may be other ones than before, and when tokens change or
their names move.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from bridge.clock import Clock
from bridge.reference_sets import ReferenceSet
from bridge.store.endpoint_record import Endpoint, stored_references
from bridge.store.endpoints import Endpoints
from bridge.store.errors import BrokenEndpointError, StoreError, UnknownEndpointError
from bridge.web.http.access import ANYBODY, UNSETTLED, Access, Principal

logger = logging.getLogger(__name__)

COMPARE_EVERY = 1.0
"""Seconds between two comparisons in memory; only a difference costs Redis anything."""

Reach = ReferenceSet | None
"""CVMs that a token may see; None: all."""


def owned(endpoint: Endpoint, principal: Principal) -> Endpoint:
    """The endpoint as its maker's."""
    owner = "" if principal == ANYBODY else principal.name
    return replace(endpoint, owner=owner, reach=_stored(principal.cvms))


def may_have(principal: Principal, endpoint: Endpoint) -> bool:
    """Whether the endpoint is there for the caller: its own, or any if it may see all CVMs."""
    return principal.cvms is None or (endpoint.owner == principal.name and not endpoint.broken)


class EndpointOwners:
    """Writes `reach` of endpoints. Front ends with other tokens leave alone what this one wrote, until they start."""

    def __init__(self, access: Access, endpoints: Endpoints, clock: Clock) -> None:
        self._access = access
        self._endpoints = endpoints
        self._clock = clock
        self._written: Mapping[str, Reach] | None = None
        self._doubtful: set[str] = set()
        """Owners whose endpoints are looked at once more."""

    async def run(self) -> None:
        """Never returns; ends by cancellation."""
        waits = False
        while True:
            try:
                await self.write()
                waits = False
            except StoreError as error:
                if not waits:
                    logger.info("the owners of endpoints wait for Redis", extra={"error": str(error)})
                waits = True
            await self._clock.sleep(COMPARE_EVERY)

    def made(self, endpoint: Endpoint) -> None:
        """After its creation: has it looked at once more if its owner, or what its names mean, changed meanwhile."""
        if self._access.reaches.get(endpoint.owner, None) != _read(endpoint.reach):
            self._doubtful.add(endpoint.owner)

    async def write(self) -> None:
        """Brings the endpoints of tokens whose CVMs changed up to date. Raises StoreError, after a part of them."""
        reaches, doubtful = self._access.reaches, self._doubtful
        owners = None if self._written is None else _differing(self._written, reaches) | doubtful
        if owners is not None and not owners:
            return
        self._doubtful = set()  # before the read: what is made from now on is looked at the next time
        try:
            for endpoint in (await self._endpoints.all()).endpoints.values():
                if endpoint.owner and (owners is None or endpoint.owner in owners):
                    await self._clip(endpoint, reaches)
        except StoreError:
            self._doubtful |= doubtful
            raise
        self._written = reaches

    async def _clip(self, endpoint: Endpoint, reaches: Mapping[str, Reach]) -> None:
        # The endpoints of a limited token that is gone get nothing. Those of one without limits stay, as any
        # administrator's: a renamed token must not silence them.
        present = _read(endpoint.reach)
        reach = reaches.get(endpoint.owner, None if present is None else ReferenceSet())
        if reach is UNSETTLED or reach == present:
            return
        with suppress(UnknownEndpointError, BrokenEndpointError):
            await self._endpoints.change(
                endpoint.id, lambda old: replace(old, reach=_stored(reach)) if old.owner == endpoint.owner else old
            )
            about = {
                "endpoint": endpoint.id,
                "owner": endpoint.owner,
                "cvms": "all" if reach is None else len(reach.texts),
            }
            logger.info("an endpoint gets what its owner may see now", extra=about)


def _differing(before: Mapping[str, Reach], now: Mapping[str, Reach]) -> set[str]:
    """The tokens that see other CVMs than before."""
    names = before.keys() | now.keys()
    return {each for each in names if before.get(each, UNSETTLED) != now.get(each, UNSETTLED)}


def _stored(reach: Reach) -> tuple[str, ...] | None:
    return None if reach is None else tuple(sorted(reach.texts))


def _read(reach: tuple[str, ...] | None) -> Reach:
    return None if reach is None else stored_references(reach)
