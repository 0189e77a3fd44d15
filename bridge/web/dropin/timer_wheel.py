"""Thousands of timers for the price of a dictionary."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from bridge.clock import Clock, set_within

T = TypeVar("T", bound=Hashable)

ROUNDING = 1e-6
"""Of a step: 10.0 seconds are 200 steps of 0.05, although floats may add up to a little more."""

STEP = 0.05
"""Seconds: items that fall due within one step fall due together, never early."""


class TimerWheel(Generic[T]):
    """Each item has at most one time. A removed item leaves nothing behind, so clients may vanish at no cost."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[T, None]] = {}
        self._slot_of: dict[T, int] = {}
        self._wakes_at = float("-inf")
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._slot_of)

    def put(self, item: T, due: float) -> None:
        """Sets the item's time, in monotonic seconds; an earlier setting no longer counts."""
        self.remove(item)
        slot = math.ceil(due / STEP - ROUNDING)
        self._slots.setdefault(slot, {})[item] = None
        self._slot_of[item] = slot
        if due < self._wakes_at:
            self._woken.set()

    def remove(self, item: T) -> None:
        """Does nothing if the item has no time."""
        slot = self._slot_of.pop(item, None)
        if slot is None:
            return
        del self._slots[slot][item]
        if not self._slots[slot]:
            del self._slots[slot]

    def next_due(self) -> float | None:
        """When `take` next finds something. Items are due within half a minute, so the slots are a few hundred."""
        return min(self._slots) * STEP if self._slots else None

    def take(self, now: float) -> list[T]:
        """Removes and returns the items that are due, the earlier first."""
        found: list[T] = []
        for slot in sorted(slot for slot in self._slots if slot * STEP <= now):
            found += self._slots.pop(slot)
        for item in found:
            del self._slot_of[item]
        return found

    async def wait(self, clock: Clock) -> list[T]:
        """As `take`, but waits until an item is due. For one task at a time."""
        while not (found := self.take(clock.monotonic())):
            due = self.next_due()
            self._wakes_at = float("inf") if due is None else due
            await set_within(self._woken, None if due is None else max(0.0, due - clock.monotonic()))
            self._wakes_at = float("-inf")
            self._woken.clear()
        return found
