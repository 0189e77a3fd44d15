"""Which CVMs are to be followed because somebody here asked for them by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable


class Demand:
    """Counts who asks for each CVM. `changed` is set when a count moved; who announces it clears it."""

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
