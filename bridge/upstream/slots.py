"""The life of a slot in the leader's memory: one table of transitions. Redis keeps the deadline."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bridge.store.holdings import Holding


class Life(Enum):
    """Where a slot is in its life."""

    FREE = "free"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    QUARANTINED = "quarantined"


TRANSITIONS: dict[Life, frozenset[Life]] = {
    Life.FREE: frozenset({Life.OPENING, Life.QUARANTINED}),
    # Redis may refuse an opening slot, because an older deadline has not passed; the slot waits for that deadline.
    Life.OPENING: frozenset({Life.OPEN, Life.CLOSING, Life.QUARANTINED}),
    # Quarantined where upstream may not have heard the end of the stream.
    Life.OPEN: frozenset({Life.CLOSING, Life.QUARANTINED}),
    # Closed: free after the settling time, or after the deadline where Redis does not answer.
    Life.CLOSING: frozenset({Life.CLOSING, Life.FREE, Life.QUARANTINED}),
    Life.QUARANTINED: frozenset({Life.FREE}),
}


class IllegalTransitionError(RuntimeError):
    """the slot's life does not allow this step"""


@dataclass(slots=True)
class Slot:
    """One slot. Only its methods write its fields; all but `ripen` raise IllegalTransitionError.

    Times are monotonic. `until`: when upstream has certainly ended the stream in it; of a closing or quarantined slot,
    when it becomes free.
    """

    index: int
    life: Life = Life.FREE
    cvm_id: str | None = None
    until: float = 0.0
    opened_at: float = 0.0
    owner: tuple[str, int] = ("", 0)
    """Holder and epoch under which Redis has the slot."""
    taken_at: float = 0.0
    ended: bool = False
    """While it waits: no stream of ours is open in it, and only Redis may still have a record."""

    def take(self, cvm_id: str, owner: tuple[str, int], now: float, until: float) -> None:
        """A stream is about to be opened in it."""
        self._step(Life.OPENING)
        self.cvm_id, self.owner, self.taken_at, self.until, self.ended = cvm_id, owner, now, until, False

    def hold(self, now: float, until: float) -> None:
        """The stream is open, and upstream ends it by `until`."""
        self._step(Life.OPEN)
        self.opened_at, self.until = now, max(self.until, until)

    def release(self, until: float) -> None:
        """The stream has ended. Called again once Redis has answered, with the end of the settling time."""
        self._step(Life.CLOSING)
        self.until, self.ended = until, True

    def quarantine(self, until: float) -> None:
        """No stream may be opened in it before `until`, although none is open."""
        self._step(Life.QUARANTINED)
        self.until, self.ended = until, True

    def lose(self) -> None:
        """Upstream may not have heard the end of its stream: quarantined until upstream has certainly ended it."""
        self._step(Life.QUARANTINED)
        self.ended = False

    def load(self, holding: Holding, now: float) -> None:
        """An earlier term may still have a stream in it."""
        self.lose()
        self.cvm_id, self.owner, self.until = holding.cvm_id, (holding.holder, holding.epoch), now + holding.remaining
        self.taken_at = self.until - holding.lifetime

    def holding(self, now: float) -> Holding:
        """What Redis should have of it."""
        lost = self.life is Life.QUARANTINED and not self.ended
        times = self.until - self.taken_at, self.until - now
        return Holding(self.index, *self.owner, self.cvm_id or "", *times, quarantined=lost)

    @property
    def counts(self) -> bool:
        """Whether Redis has confirmed it and a stream may be open in it; not so of one that is being opened."""
        return self.life is Life.OPEN or (self.life is Life.QUARANTINED and not self.ended)

    def ripen(self, now: float) -> None:
        """Becomes free once its waiting time is over."""
        if self.life in (Life.CLOSING, Life.QUARANTINED) and self.until <= now:
            self._step(Life.FREE)
            self.cvm_id = None

    def _step(self, to: Life) -> None:
        if to not in TRANSITIONS[self.life]:
            raise IllegalTransitionError(f"slot {self.index}: {self.life.value} -> {to.value}")
        self.life = to

    @property
    def streams(self) -> bool:
        """Whether upstream may count a stream of ours in it."""
        return self.life is not Life.FREE
