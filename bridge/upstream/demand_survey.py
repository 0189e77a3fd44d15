"""What front ends ask of the leader: CVMs to follow, references to look up, hints."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from bridge.clock import set_within
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.feed import subscription
from bridge.store.notices import NOTICE_LEFT
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.watches import WATCH_CHANGED, Survey, Watches
from bridge.upstream import metrics
from bridge.upstream.discovery import Discovery
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.resolver import Resolver
from bridge.upstream.tracked import NEVER, Tracked

logger = logging.getLogger(__name__)

SURVEY_EVERY = 1.0
SURVEY_AFTER = 0.2
"""Seconds between two surveys at least, however often front ends wake the leader."""

WHOLE_EVERY = 10.0
"""Seconds after which watches, pins and demand are read although their revision is the same: a front end may have ended
between a change and the new revision, or be of a version that had none."""

LOOKUPS_AT_ONCE = 8
"""Unknown references looked up at the same time; the others wait."""

HINTS_AT_ONCE = 8
"""Hints about unknown references that are followed at the same time; the others wait."""


class DemandSurvey:
    """Two standing tasks of one term, `run` and `listen`, and those of the look-ups in the leader's group.

    `noticed` is set where a message tells of a notice.
    """

    def __init__(
        self,
        context: LeaderContext,
        backend: Backend,
        group: asyncio.TaskGroup,
        resolver: Resolver,
        discovery: Discovery,
        noticed: asyncio.Event,
    ) -> None:
        self._context = context
        self._discovery = discovery
        self._backend = backend
        self._group = group
        self._resolver = resolver
        self._watches = Watches(backend)
        self._lookups = ReferenceLookups(backend)
        self._noticed = noticed
        self._woken = asyncio.Event()
        self._answering: set[str] = set()
        self._following: set[str] = set()
        self._known: Survey | None = None
        """The last survey; None where everything must be read."""
        self._whole_at = self._kept_at = NEVER
        self._wanted: set[str] | None = None
        """By pins or demand, at the last survey; None before this term's first."""

    async def run(self) -> None:
        """Never returns."""
        while True:
            self._woken.clear()
            try:
                await self._survey(self._context.clock.monotonic())
            except StoreUnavailableError:
                logger.info("demand could not be read: Redis does not answer")
            await self._context.clock.sleep(SURVEY_AFTER)
            await set_within(self._woken, SURVEY_EVERY - SURVEY_AFTER)

    async def listen(self) -> None:
        """Never returns."""
        while True:
            try:
                async with contextlib.aclosing(subscription(self._backend, self._backend.keys.wake_channel)) as wakes:
                    async for _, why in wakes:
                        if why == NOTICE_LEFT:
                            self._noticed.set()
                            continue
                        if why == WATCH_CHANGED:
                            self._whole_at = NEVER
                        self._woken.set()
            except StoreUnavailableError:
                await self._context.clock.sleep(SURVEY_EVERY)

    async def _survey(self, now: float) -> None:
        before = self._known if now < self._whole_at + WHOLE_EVERY else None
        if before is None:
            self._whole_at = now
        survey = await self._watches.survey(before)
        for reference in survey.lookups:
            if reference not in self._answering and len(self._answering) < LOOKUPS_AT_ONCE:
                self._answering.add(reference)
                self._group.create_task(self._answer(reference), name=f"lookup {reference}")
        changed = before is None or survey.revision is None or survey.revision != before.revision
        if changed:
            self._apply(survey, now)
        self._known = survey
        await self._take_hints(survey.hints)
        if changed or now >= self._kept_at + SURVEY_EVERY:
            self._kept_at = now
            self._count_subscribers(survey)
            if self._context.membership.is_complete:
                await self._drop_unwanted(survey, await self._begin_linger(survey))
            metrics.WATCHES.set(len(self._context.watches))

    def _apply(self, survey: Survey, now: float) -> None:
        for cvm_id in survey.watches:
            if cvm_id not in self._context.watches:
                self._context.watches[cvm_id] = Tracked.loaded(cvm_id, None, now)
        pins = survey.pins | survey.config_pins
        for tracked in self._context.watches.values():
            tracked.demand.pinned = tracked.cvm_id in pins

    def _count_subscribers(self, survey: Survey) -> None:
        """Who belongs to a set changes without another survey."""
        membership = self._context.membership
        membership.demand(survey.sets)
        for tracked in self._context.watches.values():
            tracked.demand.subscribers = survey.demand.get(tracked.cvm_id, 0) + membership.subscribers(tracked)

    async def _answer(self, reference: str) -> None:
        try:
            await self._lookups.answer(await self._resolver.look_up(reference))
        except StoreUnavailableError:
            logger.info("the answer to a look-up could not be written: Redis does not answer")
        finally:
            self._answering.discard(reference)
            self._woken.set()

    async def _take_hints(self, hints: tuple[str, ...]) -> None:
        """Hints are removed from Redis before they are acted on: one that arrives meanwhile stays there, as do those
        about unknown references for which there is no room."""
        watches = self._context.watches
        known = [reference for reference in hints if reference in watches]
        unknown = [reference for reference in hints if reference not in watches and reference not in self._following]
        unknown = unknown[: HINTS_AT_ONCE - len(self._following)]
        with contextlib.suppress(StoreUnavailableError):  # they may be removed even if the reply was lost
            await self._lookups.forget_hints((*known, *unknown))
        now = self._context.clock.monotonic()
        for reference in known:
            if tracked := watches.get(reference):
                tracked.reads.hint(now, first=True)
        for reference in unknown:
            self._following.add(reference)
            self._group.create_task(self._follow_hint(reference), name=f"hint {reference}")

    async def _follow_hint(self, reference: str) -> None:
        """A hint may name the CVM by another reference, or tell of a new one, which matters to sets alone."""
        now = self._context.clock.monotonic()
        try:
            answer = await self._resolver.look_up(reference)
            if answer.cvm_id is not None and answer.cvm_id not in self._context.watches:
                await self._discovery.consider(reference, answer.cvm_id)
        finally:
            self._following.discard(reference)
            self._woken.set()
        tracked = self._context.watches.get(answer.cvm_id or "")
        if tracked is not None and tracked.reads.served_at < now:
            tracked.reads.hint(self._context.clock.monotonic(), first=True)

    async def _begin_linger(self, survey: Survey) -> set[str]:
        """Marks as wanted now what pins and demand have just left: their linger time begins. Returns these.

        While something is wanted its watch cannot end, and its time is not written again and again. A time of 0 stands
        for a linger time that was taken from the watch. A term's first survey cannot tell what has just been left, and
        takes everything for it that is not wanted.
        """
        members = (each.cvm_id for each in self._context.watches.values() if each.demand.subscribers)
        wanted = {*survey.demand, *members, *survey.pins, *survey.config_pins}
        left = (survey.watches.keys() if self._wanted is None else self._wanted) - wanted
        begun = {cvm_id for cvm_id in left if survey.watches.get(cvm_id)}
        if due := begun.union(cvm_id for cvm_id in wanted if not survey.watches.get(cvm_id)):
            await self._watches.renew(due)
            self._whole_at = NEVER
        self._wanted = wanted
        return begun

    async def _drop_unwanted(self, survey: Survey, begun: set[str]) -> None:
        """`begun`: those whose linger time begins with this survey."""
        cutoff = survey.now_ms - int(self._context.settings.watch_linger * 1000)
        for tracked in list(self._context.watches.values()):
            if tracked.demand.pinned or tracked.demand.subscribers or tracked.cvm_id in begun:
                continue
            if survey.watches.get(tracked.cvm_id, 0) > cutoff:
                continue
            self._whole_at = NEVER  # it ends, or was wanted again since
            if await self._context.recorder.drop(tracked, cutoff):
                self._context.watches.pop(tracked.cvm_id, None)
                logger.info("watch ended: nothing demands this CVM any more", extra={"cvm_id": tracked.cvm_id})
