"""From references to canonical ids: one CVM has many names."""

from __future__ import annotations

import logging
import re

from bridge.events import usable_id
from bridge.store.reference_lookups import Answer
from bridge.upstream.client import Listed
from bridge.upstream.errors import AccountEffect, ForeignNotFoundError, UnparsableError, UpstreamError
from bridge.upstream.leader_context import LeaderContext

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a look-up waits for its turn; upstream may have asked for a longer pause."""

_VM_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

LISTED_FOR = 60.0
"""Seconds for which the list of CVMs is reused when a state does not carry its id."""


class Resolver:
    """Asks upstream which CVM a reference names. Redis keeps the answers for a minute; only the list is kept here."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._listed: list[Listed] = []
        self._listed_at = float("-inf")

    async def look_up(self, reference: str) -> Answer:
        """The canonical id, or upstream's refusal, for a front end: a 4xx of Phala's unchanged, else 503.

        While the account is blocked or upstream is down, it is not asked on behalf of every caller, but for one probe
        now and then: without watches nothing else would find out that it answers again.
        """
        if not await self._context.turn(PATIENCE):
            return Answer(reference, None, 503)
        try:
            return Answer(reference, await self.resolve(reference, ours=False))
        except UpstreamError as error:
            if error.status is not None and 400 <= error.status < 500 and not isinstance(error, ForeignNotFoundError):
                body = error.body.decode("utf-8", "replace")
                return Answer(reference, None, error.status, body, error.content_type or "text/plain")
            return Answer(reference, None, 503, "", "text/plain")

    async def resolve(self, reference: str, *, ours: bool) -> str:
        """The canonical id: the state's `id`, else the list's `vm_uuid`, else the reference if it is such an id itself.

        A name or an app id never becomes a watch: its CVM would be watched twice once it can be resolved. `ours`: the
        reference is configured, so that a 403 counts against the account (see `LeaderContext.apply`). Raises
        UpstreamError; its effect on the account has been applied then.
        """
        try:
            reading = await self._context.client.read_state(reference)
        except UnparsableError as error:
            # The key works. If the list names the CVM, it is watched, and the watch becomes stale.
            self._context.budget.authorized()
            logger.warning("the state of a reference is not valid", extra={"reason": str(error)})
            if (listed := await self._by_list(reference)) is None:
                raise
            return listed
        except UpstreamError as error:
            self._context.apply(error, reference, ours=ours)
            raise
        self._context.budget.authorized()
        if found := reading.state.cvm_id or await self._by_list(reference) or _itself(reference):
            return found
        raise UnparsableError("neither the state nor the list tells the CVM's id")

    async def _by_list(self, reference: str) -> str | None:
        now = self._context.clock.monotonic()
        if now - self._listed_at > LISTED_FOR:
            try:
                self._listed, self._listed_at = await self._context.client.list_cvms(), now
            except UpstreamError as error:
                # The state route has just accepted the key: a list that refuses it does not concern the account.
                if error.rule.account is AccountEffect.SLOW_DOWN:
                    self._context.apply(error, "*", ours=False)
        named = (each for each in self._listed if reference in (each.vm_uuid, each.hashed_id, each.name))
        found = {each.vm_uuid for each in named if usable_id(each.vm_uuid)}
        return found.pop() if len(found) == 1 else None


def _itself(reference: str) -> str | None:
    return reference if _VM_UUID.fullmatch(reference) else None
