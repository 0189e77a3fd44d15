"""What a reference meant last, for the time in which nobody can ask upstream: no leader, or no answer from upstream."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.events import dumps
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.web.streaming.shared_read import SharedRead

NAMES_SECONDS = 5.0
"""For which names are kept: made-up references must not have all of them read again and again."""


@dataclass(frozen=True, slots=True)
class LastNames:
    """The names in the snapshots, both ways, as of `read_at` (monotonic)."""

    read_at: float
    by_id: dict[str, str]
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class StandIns:
    def __init__(self, snapshots: Snapshots, lookups: ReferenceLookups, clock: Clock) -> None:
        self._snapshots = snapshots
        self._lookups = lookups
        self._clock = clock
        self._names: LastNames | None = None
        self._shared = SharedRead(self._read)

    async def find(self, reference: str) -> Answer | None:
        """The one CVM that had this name last, or that the last answer named; a 409 where there were several.

        Raises StoreError.
        """
        names, last = await self._current(), await self._lookups.last(reference)
        return stand_in(reference, names, last)

    async def _current(self) -> LastNames:
        names = self._names
        if names is not None and self._clock.monotonic() - names.read_at < NAMES_SECONDS:
            return names
        return await self._shared.get()

    async def _read(self) -> LastNames:
        names = LastNames(self._clock.monotonic(), await self._snapshots.names())
        for cvm_id, name in names.by_id.items():
            names.ids[name].append(cvm_id)
        self._names = names
        return names


def stand_in(reference: str, names: LastNames, last: Answer | None) -> Answer | None:
    """The names are as new as the last states; an answer of upstream may be a day old, but concerns every CVM."""
    named = names.ids.get(reference, [])
    if len(named) > 1:
        detail = f"{len(named)} CVMs had this name last; use the id of one of them"
        return Answer(reference, None, 409, dumps({"detail": detail}))
    if last is not None and last.cvm_id is None:
        return last
    if named:
        return Answer(reference, named[0])
    if last is None or (last.by_name and names.by_id.get(last.cvm_id or "", reference) != reference):
        return None  # that CVM has another name since
    return last
