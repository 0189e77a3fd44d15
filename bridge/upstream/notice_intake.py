"""Makes events of the notices that other processes left, in their order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import replace

from bridge import tracing
from bridge.clock import set_within
from bridge.events import Draft, phala_data, usable_id
from bridge.store.connection import Backend
from bridge.store.endpoint_notices import EndpointNotice
from bridge.store.errors import StoreUnavailableError
from bridge.store.notices import READ_AT_ONCE, Notices, PhalaNotice
from bridge.upstream import metrics
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.resolver import Resolver

logger = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between two looks, if no message on the wake channel brings one forward."""

RESOLVE_WITHIN = 3.0
"""Seconds for which the notices at the front wait until their CVMs' canonical ids are known."""


class NoticeIntake:
    """One standing task of one term."""

    def __init__(self, context: LeaderContext, backend: Backend, resolver: Resolver) -> None:
        self._context = context
        self._notices = Notices(backend)
        self._source = backend.keys.source
        self._resolver = resolver
        self.woken = asyncio.Event()
        """Set where a notice may have come."""

    async def run(self) -> None:
        """Never returns."""
        while True:
            self.woken.clear()
            try:
                while await self._take() == READ_AT_ONCE:
                    pass
                await self._count_untold()
            except StoreUnavailableError:
                logger.info("notices could not be read: Redis does not answer")
            await set_within(self.woken, LOOK_EVERY)

    async def _take(self) -> int:
        waiting = await self._notices.waiting()
        if waiting:
            drafts = {each.id: each.draft for each in waiting if isinstance(each, EndpointNotice)}
            webhooks = [each for each in waiting if isinstance(each, PhalaNotice)]
            ids = await self._canonical({each.reference for each in webhooks if each.reference})
            drafts |= {each.id: self._draft(each, ids.get(each.reference or "")) for each in webhooks}
            traced = {each: self._traced(each, draft) for each, draft in drafts.items()}
            await self._context.recorder.take_notices(self._notices, traced)
        return len(waiting)

    async def _count_untold(self) -> None:
        if untold := await self._notices.take_untold():
            metrics.UNTOLD.inc(untold)
            logger.error("endpoints were disabled and no event tells it: too many waited", extra={"count": untold})

    async def _canonical(self, references: Iterable[str]) -> dict[str, str]:
        """The ids of the CVMs that these references name; those that no answer names in time keep their reference."""
        found = {reference: reference for reference in references}

        async def resolve(reference: str) -> None:
            answer = await self._resolver.look_up(reference)
            found[reference] = answer.cvm_id or reference

        unknown = [reference for reference in found if reference not in self._context.watches]
        tasks = [asyncio.create_task(resolve(each), name=f"subject {each}") for each in unknown]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=RESOLVE_WITHIN)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return found

    def _draft(self, notice: PhalaNotice, cvm_id: str | None) -> Draft:
        """The CVM's name and app are those that the bridge knows, else those that the webhook has. One that names no
        CVM has its own name for a subject."""
        data = notice.fields.get("data")
        told = data if isinstance(data, dict) else {}
        tracked = self._context.watches.get(cvm_id or "")
        snapshot = tracked.seen.snapshot if tracked else None
        name = (snapshot and snapshot.name) or usable_id(told.get("cvm_name"))
        app_id = (snapshot and snapshot.app_id) or (usable_id(told.get("app_id")) or "").removeprefix("app_") or None
        text = phala_data(cvm_id, name, app_id, notice.envelope)
        return Draft(notice.type, cvm_id or notice.name, notice.time, text, trace=notice.trace)

    def _traced(self, notice_id: str, draft: Draft) -> Draft:
        """With a trace, of its own if it came with none: made of the notice's id, because the leader that sends it and
        the one that sends it again after a lost reply must write the same.
        """
        if draft.trace:
            return draft
        return replace(draft, trace=tracing.begin(random.Random(f"{self._source}/{notice_id}")))
