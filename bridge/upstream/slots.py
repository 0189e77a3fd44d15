"""The life of a slot in the leader's memory: one table of transitions; Redis keeps the deadline."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Life(Enum):
    """Where a slot is in its life."""

    FREE = "free"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    QUARANTINED = "quarantined"


TRANSITIONS: dict[Life, frozenset[Life]] = {
    Life.FREE: frozenset({Life.OPENING, Life.QUARANTINED}),
    # An opening slot that Redis refuses (somebody's deadline has not passed) waits that deadline out.
    Life.OPENING: frozenset({Life.OPEN, Life.CLOSING, Life.QUARANTINED}),
    Life.OPEN: frozenset({Life.CLOSING}),
    # Closed: free after the settling time, or in quarantine until the deadline where Redis could not be told.
    Life.CLOSING: frozenset({Life.FREE, Life.QUARANTINED}),
    Life.QUARANTINED: frozenset({Life.FREE}),
}


class IllegalTransitionError(RuntimeError):
    """a slot was asked for a step that its life does not have"""


@dataclass(slots=True)
class Slot:
    """One slot. `until` is monotonic: when a closing or quarantined one is free, when an open one must have ended."""

    index: int
    life: Life = Life.FREE
    cvm_id: str | None = None
    until: float = 0.0
    opened_at: float = 0.0
    owner: tuple[str, int] = ("", 0)
    """Holder and epoch under which Redis has it."""

    def step(self, to: Life) -> None:
        """Raises IllegalTransitionError."""
        if to not in TRANSITIONS[self.life]:
            raise IllegalTransitionError(f"slot {self.index}: {self.life.value} -> {to.value}")
        self.life = to
        if to is Life.FREE:
            self.cvm_id = None

    def ripen(self, now: float) -> None:
        """Becomes free once its waiting time is over."""
        if self.life in (Life.CLOSING, Life.QUARANTINED) and self.until <= now:
            self.step(Life.FREE)

    @property
    def streams(self) -> bool:
        """Whether upstream may count a stream of ours in it."""
        return self.life is not Life.FREE
