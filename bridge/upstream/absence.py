"""Whether a CVM is gone: what the state route's answers "not found" prove. Pure; times are monotonic seconds.

A proxy answers 404 too, and so does an upstream that has lost its data for a moment. `deleted` therefore needs Phala's
own words and a second witness (docs/contract.md#the-event).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

SEVERAL = 3
"""So many CVMs that are not found while no other one answers are a fault of upstream."""


def plain(reference: str) -> str:
    """A vm uuid has two spellings."""
    return reference.replace("-", "").lower()


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the workspace's CVMs, every page of it. `asked_at`: when its first page was asked for."""

    references: frozenset[str]
    """Every id and name of each CVM in it, `plain`."""
    asked_at: float


@dataclass(slots=True, kw_only=True)
class Absence:
    """The answers "not found" about one CVM since its last state. The reader adds them, the recorder ends them."""

    since: float = math.inf
    """When the first of them was made; infinite where there is none."""
    own_since: float = math.inf
    """The same for those in Phala's own words."""
    again: bool = False
    """Whether Phala's words came again, to a request that was sent at least one interval later."""

    def not_found(self, sent_at: float, made_at: float, interval: float, *, own: bool) -> None:
        """Upstream answered 404; `own`: in Phala's words."""
        self.since = min(self.since, made_at)
        if own:
            self.again = self.again or sent_at >= self.own_since + interval
            self.own_since = min(self.own_since, made_at)

    def settle(self) -> None:
        """A state was recorded, or the deletion."""
        self.since = self.own_since = math.inf
        self.again = False

    @property
    def is_missing(self) -> bool:
        return self.since < math.inf

    @property
    def is_suspected(self) -> bool:
        """Whether only the second witness may be missing."""
        return self.own_since < math.inf


@dataclass(slots=True, kw_only=True)
class Witnesses:
    """What upstream answered about the account's other CVMs."""

    answered_at: float = -math.inf
    """When the latest request was sent that the state route answered with a watched CVM's state. Streams do not count:
    an old one may be open to a server that is healthier than the one that answers now."""
    listing: Listing | None = None
    """The latest."""

    def answered(self, sent_at: float) -> None:
        """The state route answered with the state of a watched CVM."""
        self.answered_at = max(self.answered_at, sent_at)

    def prove(self, cvm_id: str, absence: Absence, *, alone: bool) -> bool:
        """Whether the CVM is gone. `alone`: no other CVM is watched that could answer.

        While no other CVM answers, absence from the list proves nothing before the second answer, and never in a term
        in which no CVM answered at all: prefix or key may be those of another account.
        """
        if not absence.is_suspected:
            return False
        answered = self.answered_at >= absence.own_since
        listing = self.listing if self.listing and self.listing.asked_at >= absence.own_since else None
        if absence.again and (answered or (alone and listing is not None)):
            return True
        unlisted = listing is not None and plain(cvm_id) not in listing.references
        return unlisted and (answered or (absence.again and self.answered_at > -math.inf))

    def accuse_upstream(self, absences: Iterable[Absence]) -> bool:
        """Whether the fault is upstream's: all watched CVMs, or several, are not found, and no other one answers.

        `absences`: of every watched CVM that is not deleted. Phala's own words accuse upstream once they came again.
        """
        count = unanswered = 0
        for absence in absences:
            count += 1
            heard = absence.again or not absence.is_suspected
            unanswered += absence.is_missing and heard and self.answered_at < absence.since
        return count > 0 and unanswered >= min(SEVERAL, count)
