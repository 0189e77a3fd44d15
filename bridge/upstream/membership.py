"""Which CVMs belong to the sets that `BRIDGE_CVMS` and subscribers name, by the list and the states. Does no I/O."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Set
from itertools import islice

from bridge.reference_sets import Reference, ReferenceIndex, parse
from bridge.upstream.client import Listed
from bridge.upstream.tracked import Tracked

logger = logging.getLogger(__name__)

MOST_SETS = 1000
"""Different sets of subscribers that count; each pattern is tried with every name of the workspace."""

NEW_AT_ONCE = 50
"""New sets that are taken in one step: fifty patterns and ten thousand names are tried in a tenth of a second."""


MOST_COUNTED = 20_000
"""Apps and names whose subscribers are kept: those of a very large workspace, about which every survey asks."""


class Membership:
    """One term's. The survey writes what is demanded, discovery what the list lacks."""

    def __init__(self, configured: Iterable[str]) -> None:
        """`configured`: `BRIDGE_CVMS`."""
        references = [parse(text) for text in configured]
        self.names = [each.text for each in references if not each.is_set]
        self.configured = [each for each in references if each.is_set]
        self._pinned: ReferenceIndex[Reference] = ReferenceIndex()
        for reference in self.configured:
            self._pinned.setdefault(reference, reference)
        self._demanded: ReferenceIndex[Reference] = ReferenceIndex()
        self._subscribers: dict[Reference, int] = {}
        """Of the same sets."""
        self._counted: dict[tuple[str | None, str | None], int] = {}
        """By app and name: how many of these subscribers, as they are now, name such a CVM by a set."""
        self.changed = asyncio.Event()
        """A set is demanded that was not before: its members are to be found."""
        self._lacking: set[str] = set()
        self._unlisted: set[str] = set()
        """Demanded members that the last complete list lacked, and those that the last two lacked."""
        self._complained = False
        self.is_complete = False
        """Whether all sets were taken once: before, nobody can tell who is in none of them."""

    def demand(self, sets: Mapping[str, int]) -> None:
        """These are the subscribers' sets now, each with how many ask for it. Of new ones it takes some at a time."""
        now, before = {parse(text): count for text, count in sets.items()}, self._subscribers.copy()
        for gone in self._subscribers.keys() - now.keys():
            del self._subscribers[gone]
            self._demanded.discard(gone)
        room = min(MOST_SETS - len(self._subscribers), NEW_AT_ONCE)
        for new in list(islice((each for each in now if each not in self._subscribers), room)):
            self._demanded.setdefault(new, new)
            self._subscribers[new] = now[new]
            self.changed.set()
        self._subscribers = {each: now[each] for each in self._subscribers}
        if self._subscribers != before:
            self._counted.clear()
        self.is_complete = self.is_complete or len(self._subscribers) >= min(len(now), MOST_SETS)
        if len(now) > MOST_SETS and not self._complained:
            self._complained = True
            logger.error("subscribers name too many sets: further ones find no new members", extra={"most": MOST_SETS})

    @property
    def stands(self) -> bool:
        """Whether there is any set, so that the list must be asked for."""
        return bool(self.configured or self._subscribers)

    @property
    def is_demanded(self) -> bool:
        return bool(self._subscribers)

    def pins(self, entry: Listed) -> bool:
        """Whether `BRIDGE_CVMS` names it by a set."""
        return any(True for _ in self._pinned.matching(None, entry.app_id, entry.name))

    def demands(self, entry: Listed) -> bool:
        """Whether a subscriber names it by a set."""
        return any(True for _ in self._demanded.matching(None, entry.app_id, entry.name))

    def wants(self, entry: Listed) -> bool:
        return self.stands and (self.pins(entry) or self.demands(entry))

    def without_members(self, entries: Iterable[Listed]) -> list[str]:
        """The sets of `BRIDGE_CVMS` to which none of these belongs, in their order."""
        found = {each for entry in entries for each in self._pinned.matching(None, entry.app_id, entry.name)}
        return [each.text for each in self.configured if each not in found]

    def subscribers(self, tracked: Tracked) -> int:
        """How many name the CVM by a set that it is a member of: not once it is deleted, or the list has lost it."""
        if not self._subscribers or tracked.gone or tracked.cvm_id in self._unlisted:
            return 0
        identity = _identity(tracked)
        if (count := self._counted.get(identity)) is None:
            if len(self._counted) >= MOST_COUNTED:
                self._counted.clear()
            count = sum(self._subscribers[each] for each in self._demanded.matching(None, *identity))
            self._counted[identity] = count
        return count

    def settle(self, listed: Set[str], watches: Iterable[Tracked]) -> None:
        """A complete list has these demanded members, by canonical id. One that is not among them twice in a row is a
        member no longer.
        """
        candidates = (each for each in watches if any(True for _ in self._demanded.matching(None, *_identity(each))))
        lacking = {each.cvm_id for each in candidates} - listed
        self._unlisted, self._lacking = lacking & self._lacking, lacking

    def listed(self, cvm_id: str) -> None:
        """A page names this member."""
        self._lacking.discard(cvm_id)
        self._unlisted.discard(cvm_id)


def _identity(tracked: Tracked) -> tuple[str | None, str | None]:
    """App and name: as this term's list told them last, else as the snapshot has them."""
    snapshot, listed = tracked.seen.snapshot, tracked.operations
    app_id, name = (snapshot.app_id, snapshot.name) if snapshot else (None, None)
    return listed.app_id or app_id, listed.name or name
