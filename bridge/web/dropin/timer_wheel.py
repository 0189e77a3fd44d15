"""When things are due: thousands of timers for the price of a dictionary."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

ROUNDING = 1e-6
"""Of a step: 10.0 seconds are 200 steps of 0.05, whatever floats make of it."""

STEP = 0.05
"""Seconds: what falls due within one step falls due together, never early."""


class Wheel(Generic[T]):
    """Each item has at most one time. Removing costs nothing later: a client that vanishes leaves no entry behind."""

    def __init__(self, step: float = STEP) -> None:
        self._step = step
        self._slots: dict[int, dict[T, None]] = {}
        self._slot_of: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def put(self, item: T, due: float) -> None:
        """Instead of the time that it had."""
        self.remove(item)
        slot = math.ceil(due / self._step - ROUNDING)
        self._slots.setdefault(slot, {})[item] = None
        self._slot_of[item] = slot

    def remove(self, item: T) -> None:
        """Does nothing where it has no time."""
        slot = self._slot_of.pop(item, None)
        if slot is None:
            return
        del self._slots[slot][item]
        if not self._slots[slot]:
            del self._slots[slot]

    def next_due(self) -> float | None:
        """When `take` next finds something. Items are due within half a minute, so the slots are few hundreds."""
        return min(self._slots) * self._step if self._slots else None

    def take(self, now: float) -> list[T]:
        """What is due, the earlier first; it has no time any more."""
        found: list[T] = []
        for slot in sorted(slot for slot in self._slots if slot * self._step <= now):
            found += self._slots.pop(slot)
        for item in found:
            del self._slot_of[item]
        return found
