"""What a process knows of a slot, and how it passes that to the scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """The record of a slot that was ever taken; seconds. `remaining` is below 0 once the deadline has passed."""

    index: int
    holder: str
    epoch: int
    cvm_id: str
    lifetime: float
    remaining: float
    closed: bool = False
    quarantined: bool = False
    """Its holder knows of no stream in it, but upstream may have one."""


def packed(holdings: Iterable[Holding]) -> list[object]:
    """The arguments of `hold_slots` in `scripts/slot_rules.lua`."""
    arguments: list[object] = []
    for each in holdings:
        times = [int(each.lifetime * 1000), int(each.remaining * 1000)]
        arguments += [each.index, each.holder, each.epoch, each.cvm_id, *times, int(each.quarantined)]
    return arguments
