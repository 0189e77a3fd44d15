"""References to canonical ids: many names, one CVM."""

from __future__ import annotations

import logging

from bridge.clock import Clock
from bridge.events import usable_id
from bridge.store.reference_lookups import Answer
from bridge.upstream.client import Listed, PhalaClient
from bridge.upstream.errors import UnparsableError, UpstreamError

logger = logging.getLogger(__name__)

LISTED_FOR = 60.0
"""Seconds for which the list of CVMs is believed when a state does not carry its id."""


class Resolver:
    """Asks upstream what a reference means. The answers' minute of life is Redis's; only the list is kept here."""

    def __init__(self, client: PhalaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._listed: list[Listed] = []
        self._listed_at = float("-inf")

    async def resolve(self, reference: str) -> Answer:
        """The canonical id: the state's `id`, else the list's `vm_uuid`, else the reference; or upstream's error."""
        try:
            reading = await self._client.read_state(reference)
        except UnparsableError as error:
            # It exists, but says nothing sensible: watch it under its own name, and say that it is stale.
            logger.warning("a reference's state cannot be read", extra={"reason": str(error)})
            return Answer(reference, await self._by_list(reference))
        except UpstreamError as error:
            return refusal(reference, error)
        return Answer(reference, reading.state.cvm_id or await self._by_list(reference))

    async def _by_list(self, reference: str) -> str:
        for listed in await self._list():
            if reference in (listed.vm_uuid, listed.hashed_id, listed.name) and usable_id(listed.vm_uuid):
                return str(listed.vm_uuid)
        return reference

    async def _list(self) -> list[Listed]:
        now = self._clock.monotonic()
        if now - self._listed_at > LISTED_FOR:
            try:
                self._listed, self._listed_at = await self._client.list_cvms(), now
            except UpstreamError:
                return self._listed
        return self._listed


def refusal(reference: str, error: UpstreamError) -> Answer:
    """Upstream's error as the front ends pass it on: as it came, or 502/503 where it sent none."""
    if error.status is not None and 400 <= error.status < 500:
        return Answer(
            reference, None, error.status, error.body.decode("utf-8", "replace"), error.content_type or "text/plain"
        )
    return Answer(reference, None, 503, "", "text/plain")
