"""Which CVMs and sets must be watched because subscribers of this front end asked for them by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable


class WatchDemand:
    """Counts the subscribers of each CVM and set. A change of a count sets `changed`; the feed consumer clears it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def add(self, references: Iterable[str]) -> None:
        for reference in references:
            self._counts[reference] += 1
            self.changed.set()

    def remove(self, references: Iterable[str]) -> None:
        for reference in references:
            self._counts[reference] -= 1
            if not self._counts[reference]:
                del self._counts[reference]
            self.changed.set()

    def counts(self) -> dict[str, int]:
        return dict(self._counts)
