"""`BRIDGE_CVMS`: the references that are always watched, and `*`, every CVM of the workspace."""

from __future__ import annotations

import logging

from bridge.events import usable_id
from bridge.store.errors import StoreUnavailableError
from bridge.store.watches import Watches
from bridge.upstream.client import Listed
from bridge.upstream.errors import UpstreamError
from bridge.upstream.resolver import Resolver
from bridge.upstream.term import Reign

logger = logging.getLogger(__name__)

LIST_EVERY = 30.0
"""Seconds between two listings: how late a new CVM is found under `*`."""

RESOLVE_EVERY = 60.0
RETRY_EVERY = 5.0
EVERYTHING = "*"


class Discovery:
    """Keeps the configured pins true: names move, CVMs come and go."""

    def __init__(self, reign: Reign, resolver: Resolver, watches: Watches) -> None:
        self._reign = reign
        self._resolver = resolver
        self._watches = watches
        self._canonical: dict[str, str] = {}
        self._complained: set[str] = set()

    async def run(self) -> None:
        """Never returns; trouble at upstream keeps the pins as they were and is tried again soon."""
        while True:
            complete = await self._round()
            every = LIST_EVERY if EVERYTHING in self._reign.settings.cvms else RESOLVE_EVERY
            await self._reign.clock.sleep(every if complete else RETRY_EVERY)

    async def _round(self) -> bool:
        wanted: set[str] = set()
        complete = True
        try:
            for reference in self._reign.settings.cvms:
                found = await self._everything() if reference == EVERYTHING else await self._one(reference)
                complete = complete and found is not None
                wanted |= found or set()
            if complete or wanted:
                await self._watches.set_config_pins(wanted if complete else wanted | set(self._canonical.values()))
            elif not self._reign.settings.cvms:
                await self._watches.set_config_pins([])
        except StoreUnavailableError:
            return False
        return complete

    async def _one(self, reference: str) -> set[str] | None:
        answer = await self._resolver.resolve(reference)
        if answer.cvm_id is not None:
            self._canonical[reference] = answer.cvm_id
            self._complained.discard(reference)
            return {answer.cvm_id}
        if reference not in self._complained:
            extra = {"reference": reference, "status": answer.status}
            logger.warning("a CVM of BRIDGE_CVMS cannot be found", extra=extra)
        self._complained.add(reference)
        # It may have been deleted: what it named last is followed on.
        known = self._canonical.get(reference)
        return {known} if known else None

    async def _everything(self) -> set[str] | None:
        try:
            listed = await self._reign.client.list_cvms()
        except UpstreamError as error:
            if EVERYTHING not in self._complained:
                logger.warning("the CVMs cannot be listed", extra={"reason": error.reason, "error": str(error)})
            self._complained.add(EVERYTHING)
            return None
        self._complained.discard(EVERYTHING)
        found = [await self._canonical_of(entry) for entry in listed]
        return {cvm_id for cvm_id in found if cvm_id is not None}

    async def _canonical_of(self, entry: Listed) -> str | None:
        key = usable_id(entry.vm_uuid) or usable_id(entry.hashed_id)
        if key is None:
            return None
        if key not in self._canonical:
            if key in self._reign.watches:
                self._canonical[key] = key
            else:
                answer = await self._resolver.resolve(key)
                if answer.cvm_id is None:
                    return None
                self._canonical[key] = answer.cvm_id
        return self._canonical[key]
