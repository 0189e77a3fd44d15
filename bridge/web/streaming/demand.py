"""Which CVMs must be watched because subscribers of this front end asked for them by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable


class WatchDemand:
    """Counts the subscribers of each CVM. A change of a count sets `changed`; the feed consumer clears it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def add(self, cvm_ids: Iterable[str]) -> None:
        for cvm_id in cvm_ids:
            self._counts[cvm_id] += 1
            self.changed.set()

    def remove(self, cvm_ids: Iterable[str]) -> None:
        for cvm_id in cvm_ids:
            self._counts[cvm_id] -= 1
            if not self._counts[cvm_id]:
                del self._counts[cvm_id]
            self.changed.set()

    def counts(self) -> dict[str, int]:
        return dict(self._counts)
