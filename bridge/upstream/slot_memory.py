"""What a standby remembers of the slots: Redis can lose them just when their holder is frozen. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bridge.store.holdings import Holding

NOTICED = 1.0
"""Seconds by which a deadline may seem to move because an answer was slow."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A slot that was held, and its deadline by this process's own monotonic clock."""

    holding: Holding
    until: float

    @property
    def taken_at(self) -> float:
        return self.until - self.holding.lifetime

    def at(self, now: float) -> Holding:
        return replace(self.holding, remaining=self.until - now)


@dataclass(slots=True)
class SlotMemory:
    """The slots as last seen held, by index and epoch: of each only the latest stream, until its deadline."""

    _seen: dict[tuple[int, str, int], _Seen] = field(default_factory=dict)

    def see(self, holdings: Iterable[Holding], now: float) -> list[Holding]:
        """Takes a look at all records. Returns what Redis once had and now lacks."""
        found = {holding.index: holding for holding in holdings}
        for holding in found.values():
            self._take(holding, now)
        self._seen = {key: seen for key, seen in self._seen.items() if seen.until > now}
        return [seen.at(now) for key, seen in self._seen.items() if _lacks(found.get(key[0]), seen, now)]

    def held(self, now: float) -> list[Holding]:
        """What may still be open."""
        return [seen.at(now) for seen in self._seen.values() if seen.until > now]

    def _take(self, holding: Holding, now: float) -> None:
        for earlier in [key for key in self._seen if key[0] == holding.index and key[2] < holding.epoch]:
            del self._seen[earlier]  # a later term takes a slot only once it is free
        key, until = (holding.index, holding.holder, holding.epoch), now + holding.remaining
        known = self._seen.get(key)
        if holding.closed:
            # Unless the record is from before the stream: Redis went back to an older one.
            if known is not None and known.taken_at < until:
                del self._seen[key]
        elif known is None or until > known.until - NOTICED:
            self._seen[key] = _Seen(holding, until)


def _lacks(found: Holding | None, seen: _Seen, now: float) -> bool:
    if found is None or (found.epoch, found.holder) != (seen.holding.epoch, seen.holding.holder):
        return True  # an earlier term's record: a later one's is remembered instead of this
    return found.closed or now + found.remaining < seen.until - NOTICED
