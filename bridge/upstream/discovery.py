"""`BRIDGE_CVMS`: the references that are always watched, and `*`, every CVM of the workspace."""

from __future__ import annotations

import asyncio
import logging

from bridge.events import usable_id
from bridge.store.errors import StoreUnavailableError
from bridge.store.watches import Watches
from bridge.upstream.backoff import Backoff
from bridge.upstream.client import Listed
from bridge.upstream.errors import ForbiddenError, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.resolver import Resolver
from bridge.upstream.second_witness import listing

logger = logging.getLogger(__name__)

LIST_EVERY = 30.0
"""Seconds between two listings: how late a new CVM is found under `*`."""

RESOLVE_EVERY = 60.0
RETRY_EVERY = 5.0
EVERYTHING = "*"

AT_ONCE = 8
"""Listed CVMs resolved at the same time, as far as the budget of requests allows."""


class Discovery:
    """Keeps the configured pins up to date: names move, CVMs come and go."""

    def __init__(self, context: LeaderContext, resolver: Resolver, watches: Watches) -> None:
        self._context = context
        self._resolver = resolver
        self._watches = watches
        self._canonical: dict[str, str] = {}
        self._complained: set[str] = set()

    async def run(self) -> None:
        """Never returns. An upstream error removes no pin and is tried again with a growing backoff."""
        every = LIST_EVERY if EVERYTHING in self._context.settings.cvms else RESOLVE_EVERY
        backoff = Backoff()
        while True:
            if await self.round():
                backoff.heal()
                wait = every
            else:
                wait = backoff.fail(self._context.clock.monotonic(), self._context.rng, RETRY_EVERY)
            await self._context.clock.sleep(wait)

    async def round(self) -> bool:
        """Resolves each reference once. False: some had no definite answer; what was pinned before stays pinned."""
        context, wanted, complete = self._context, set[str](), True
        for reference in context.settings.cvms:
            found = await self._everything() if reference == EVERYTHING else await self._one(reference)
            complete = complete and found is not None
            wanted |= found or set()
            if context.budget.is_blocked:
                complete = False  # the references behind this one were not asked for
                break
        return await self._pin(wanted, whole=complete) and complete

    async def _pin(self, cvm_ids: set[str], *, whole: bool) -> bool:
        """False: Redis does not answer."""
        try:
            await self._watches.set_config_pins(cvm_ids, whole=whole)
        except StoreUnavailableError:
            return False
        return True

    async def _one(self, reference: str) -> set[str] | None:
        """The CVM that the reference names, or named last (it may have been deleted). None: no definite answer."""
        await self._context.turn()
        try:
            found = self._canonical[reference] = await self._resolver.resolve(reference, ours=True)
        except UpstreamError as error:
            if reference not in self._complained:
                extra = {"reference": reference, "reason": error.reason, "error": str(error)}
                logger.warning("a reference of BRIDGE_CVMS cannot be resolved", extra=extra)
            self._complained.add(reference)
            known = self._canonical.get(reference)
            return ({known} if known else set()) if error.is_definite else None
        self._complained.discard(reference)
        return {found}

    async def _everything(self) -> set[str] | None:
        await self._context.turn()
        asked_at = self._context.clock.monotonic()
        try:
            listed = await self._context.client.list_cvms()
        except UpstreamError as error:
            if EVERYTHING not in self._complained:
                logger.warning("the CVMs cannot be listed", extra={"reason": error.reason, "error": str(error)})
            self._complained.add(EVERYTHING)
            self._context.apply(error, EVERYTHING)
            return None
        self._complained.discard(EVERYTHING)
        self._context.witnesses.listing = listing(listed, asked_at)
        found, complete = set[str](), True
        while listed:
            # A blocked account gets one request at a time.
            count = 1 if self._context.budget.is_blocked else AT_ONCE
            some, listed = await asyncio.gather(*map(self._canonical_of, listed[:count])), listed[count:]
            ids = set[str]().union(*(each for each in some if each is not None))
            complete = complete and None not in some
            found |= ids
            # To resolve a large workspace takes minutes; CVMs are watched as they are found.
            if not ids <= self._context.watches.keys() and not await self._pin(ids, whole=False):
                return None
            if self._context.budget.is_blocked:
                return None
        if not complete:
            await self._pin(found, whole=False)
        return found if complete else None

    async def _canonical_of(self, entry: Listed) -> set[str] | None:
        """The CVM of a list entry; empty where it has none. None: no definite answer."""
        key = usable_id(entry.vm_uuid) or usable_id(entry.hashed_id)
        if key is None:
            return set()
        if key not in self._canonical:
            if key in self._context.watches:
                self._canonical[key] = key
            else:
                # Waits until the budget allows a request: the start of a large workspace must not flood upstream.
                await self._context.turn()
                try:
                    self._canonical[key] = await self._resolver.resolve(key, ours=False)
                except UpstreamError as error:
                    # One forbidden CVM of the list is not ours.
                    return set() if error.is_definite or isinstance(error, ForbiddenError) else None
        return {self._canonical[key]}
