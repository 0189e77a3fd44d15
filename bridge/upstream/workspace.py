"""The workspace's list of CVMs, asked for page by page: who is there, whom a reference names, and hints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bridge.backoff import Backoff
from bridge.reference_sets import EVERYTHING
from bridge.upstream import metrics
from bridge.upstream.absence import Listing, plain
from bridge.upstream.client import Listed
from bridge.upstream.errors import AccountEffect, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.listing import Directory, ListPass, key_of
from bridge.upstream.tracked import NEVER

logger = logging.getLogger(__name__)

PAGES_AT_ONCE = 4
TURN_PATIENCE = 10.0
"""Seconds that a page waits for its turn, at least."""

LONGEST_PAGE_WAIT = 8.0
"""Seconds until a page that failed is asked for again, at most."""


class Workspace:
    """One term's passes over the list, one at a time."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._lock = asyncio.Lock()
        self._directory: Directory | None = None
        self._asked_at = NEVER
        self.pages = 1
        """How many the list has."""
        self._canonical: dict[str, str] = {}
        """The ids of CVMs by the keys under which the list names them; of no more CVMs than are listed."""
        self._told: dict[str, tuple[str | None, ...]] = {}
        """The listed and the known status and name of the CVMs that differed; such a difference is a hint once."""
        self._complained = False
        self._incomplete = False
        self._gate = asyncio.Semaphore(PAGES_AT_ONCE)
        self.on_entry: Callable[[Listed], None] = lambda entry: None
        """Called with each listed CVM that has a key, in the middle of a pass."""

    def learn(self, key: str, cvm_id: str) -> None:
        """The state showed the id of the CVM that is listed as `key`."""
        self._canonical[key] = cvm_id

    def canonical(self, key: str) -> str | None:
        """The id of the CVM that is listed as `key`; None where no state has shown it yet."""
        return self._canonical.get(key) or (key if key in self._context.watches else None)

    async def listed_since(self, moment: float, patience: float, *, judges_key: bool = False) -> Directory | None:
        """The whole list, asked for at `moment` or later (monotonic). A page that fails is asked for again for
        `patience` seconds; None where the list has holes then. Without patience, the end of another pass is not waited
        for either.

        `judges_key`: a list that refuses the key counts against the account.
        """
        if not patience and self._lock.locked():
            return self._directory if self._asked_at >= moment else None
        async with self._lock:
            if self._asked_at < moment:
                await self._pass(self._context.clock.monotonic(), patience, judges_key=judges_key)
            return self._directory if self._asked_at >= moment else None

    async def _pass(self, now: float, patience: float, *, judges_key: bool) -> None:
        made, until = ListPass(), now + patience
        if not await self._follow(made, until, judges_key=judges_key):
            return
        self._complained = False
        unnamed = made.unnamed if made.is_steady else 0
        metrics.UNLISTED.set(unnamed)
        if unnamed and not self._incomplete:
            extra = {"listed": len(made.entries), "unlisted": unnamed}
            logger.error(
                "upstream's list does not name all of its CVMs: those are not found, and none is let go", extra=extra
            )
        self._incomplete = unnamed > 0
        if made.is_steady and not unnamed:
            self._keep(Directory.of(made.entries.values()), now)

    def _keep(self, directory: Directory, asked_at: float) -> None:
        self._directory, self._asked_at = directory, asked_at
        self._canonical = {key: cvm_id for key, cvm_id in self._canonical.items() if key in directory.keys}
        self._told = {cvm_id: told for cvm_id, told in self._told.items() if cvm_id in self._context.watches}
        ids = (plain(name) for name in (*directory.references, *self._canonical.values()))
        self._context.witnesses.listing = Listing(frozenset(ids), asked_at)

    async def _follow(self, made: ListPass, until: float, *, judges_key: bool) -> bool:
        """Asks for every page. False: some had no answer."""

        async def ask(number: int) -> bool:
            return number > made.end or await self._page(made, number, until, judges_key=judges_key)

        number, answered = 1, await ask(1)
        while answered and made.last is None and number < made.end:
            number += 1
            answered = await ask(number)
        if not answered or made.last is None:
            return answered
        self.pages = min(made.last, made.end)
        return all(await asyncio.gather(*map(ask, range(2, self.pages + 1))))

    async def _page(self, made: ListPass, number: int, until: float, *, judges_key: bool) -> bool:
        """Asks for one page until there is an answer, whose entries are used at once. False: there was none."""
        clock, backoff = self._context.clock, Backoff(longest=LONGEST_PAGE_WAIT)
        while True:
            async with self._gate:
                if not await self._context.turn(max(TURN_PATIENCE, until - clock.monotonic())):
                    return False
                sent_at = clock.monotonic()
                try:
                    page = await self._context.client.list_page(number)
                    break
                except UpstreamError as error:
                    self._failed(error, number, judges_key=judges_key)
                    wait = backoff.fail(clock.monotonic(), self._context.rng, error.retry_after or 0.0)
            if backoff.until >= until:
                return False
            await clock.sleep(wait)
        self._context.budget.breaker.answered()
        made.add(number, page)
        for entry in page.entries:
            if key := key_of(entry):
                self._hint(key, entry, sent_at)
                await self._tell(key, entry, sent_at)
                self.on_entry(entry)
        return True

    def _failed(self, error: UpstreamError, number: int, *, judges_key: bool) -> None:
        if not self._complained:
            extra = {"page": number, "reason": error.reason, "error": str(error)}
            logger.warning("the CVMs cannot be listed", extra=extra)
        self._complained = True
        if judges_key or error.rule.account in (AccountEffect.NOTHING, AccountEffect.SLOW_DOWN):
            self._context.apply(error, EVERYTHING)

    async def _tell(self, key: str, entry: Listed, sent_at: float) -> None:
        """Its app and name, and while the batch route tells nothing of it, whether an operation is in progress."""
        tracked, recorder = self._context.watches.get(self.canonical(key) or ""), self._context.recorder
        if tracked is None:
            return
        recorder.identify(tracked, entry.app_id, entry.name)
        if entry.told is not None and sent_at > tracked.batch.told_at + self._context.pace.silence:
            await recorder.tell(tracked, entry.told, entry.status, sent_at)

    def _hint(self, key: str, entry: Listed, sent_at: float) -> None:
        """A listed status or name that differs from the known one has the state read. The two routes may word a status
        differently: the same difference causes no second read.
        """
        tracked = self._context.watches.get(self.canonical(key) or "")
        if tracked is None or tracked.status is None or entry.status is None or sent_at < tracked.seen.changed_at:
            return
        own = tracked.seen.state.name if tracked.seen.state else None
        told = entry.status, tracked.status, entry.name, own
        if entry.status == tracked.status and (own is None or entry.name in (None, own)):
            self._told.pop(tracked.cvm_id, None)
        elif self._told.get(tracked.cvm_id) != told:
            self._told[tracked.cvm_id] = told
            tracked.reads.hint(self._context.clock.monotonic())
