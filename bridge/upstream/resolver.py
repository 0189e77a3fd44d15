"""From references to canonical ids: one CVM has many names."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from bridge.store.reference_lookups import Answer
from bridge.upstream.client import Reading
from bridge.upstream.errors import ForeignNotFoundError, UnparsableError, UpstreamError
from bridge.upstream.leader_context import LeaderContext
from bridge.upstream.reader import observed
from bridge.upstream.workspace import Workspace

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a look-up waits for its turn; upstream may have asked for a longer pause."""

_VM_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

LISTED_FOR = 60.0
"""Seconds for which the list of CVMs is reused when a state does not carry its id."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The CVM that a reference names. `reading`: its state; None where upstream's answer was none."""

    cvm_id: str
    reading: Reading | None


class Resolver:
    """Asks upstream which CVM a reference names. Redis keeps the answers for a minute."""

    def __init__(self, context: LeaderContext, workspace: Workspace) -> None:
        self._context = context
        self._workspace = workspace

    async def look_up(self, reference: str) -> Answer:
        """The canonical id, or upstream's refusal, for a front end: a 4xx of Phala's unchanged, else 503.

        The state of a watched CVM is recorded. While the account is blocked or upstream is down, it is not asked on
        behalf of every caller, but for one probe now and then: without watches nothing else would find out that it
        answers again.
        """
        context = self._context
        if not await context.turn(0.0 if context.budget.is_held else PATIENCE):
            return Answer(reference, None, 503)
        try:
            resolved = await self.resolve(reference, ours=False)
        except UpstreamError as error:
            if error.status is not None and 400 <= error.status < 500 and not isinstance(error, ForeignNotFoundError):
                body = error.body.decode("utf-8", "replace")
                return Answer(reference, None, error.status, body, error.content_type or "text/plain")
            return Answer(reference, None, 503, "", "text/plain")
        tracked = context.watches.get(resolved.cvm_id)
        if tracked is not None and resolved.reading is not None:
            await observed(context, tracked, resolved.reading)
        by_name = resolved.reading is not None and resolved.reading.state.name == reference
        return Answer(reference, resolved.cvm_id, by_name=by_name)

    async def resolve(self, reference: str, *, ours: bool, listed_as: str | None = None) -> Resolved:
        """By the state's `id`, else the list's `vm_uuid`, else the reference if it is such an id itself.

        A name or an app id never becomes a watch: its CVM would be watched twice once it can be resolved. `ours`: the
        reference is configured, so that a 403 counts against the account (see `LeaderContext.apply`). `listed_as`: the
        list's `vm_uuid`, where it is known. Raises UpstreamError; its effect on the account has been applied then.
        """
        context = self._context
        try:
            reading = await context.client.read_state(reference)
        except UnparsableError as error:
            # The key works. If the list names the CVM, it is watched, and the watch becomes stale.
            context.budget.authorized()
            logger.warning("the state of a reference is not valid", extra={"reason": str(error)})
            watched = reference if reference in context.watches else None
            known = listed_as or watched or await self._by_list(reference)
            if known is None:
                raise
            return Resolved(known, None)
        except UpstreamError as error:
            context.apply(error, reference, ours=ours)
            raise
        context.answered(reading)
        found = reading.state.cvm_id or listed_as or await self._by_list(reference) or _itself(reference)
        if found is None:
            raise UnparsableError("neither the state nor the list tells the CVM's id")
        return Resolved(found, reading)

    async def _by_list(self, reference: str) -> str | None:
        since = self._context.clock.monotonic() - LISTED_FOR
        directory = await self._workspace.listed_since(since, patience=0.0)
        key = directory.find(reference) if directory else None
        if directory is None or key is None:
            return None
        return self._workspace.canonical(key) or (key if key in directory.uuids else None)


def _itself(reference: str) -> str | None:
    return reference if _VM_UUID.fullmatch(reference) else None
