"""Slots in Redis: at most `BRIDGE_MAX_STREAMS` records, each with a deadline at which upstream has certainly closed.

A slot is free exactly when its deadline has passed. That one rule covers the clean release (the deadline becomes the
end of the settling time), the quarantine after a holder that vanished (nothing to do) and the crash of all processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bridge.clock import rfc3339
from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError
from bridge.store.leadership import Term

MOST_SLOTS = 5

SlotState = Literal["free", "held", "settling", "quarantined"]


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot as stored in Redis; times RFC 3339, `remaining` seconds until the deadline (0: free)."""

    index: int
    state: SlotState
    cvm_id: str | None = None
    holder: str | None = None
    epoch: int = 0
    since: str | None = None
    until: str | None = None
    remaining: float = 0.0


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


class Slots:
    """Taken and freed by script; times are the Redis server's, so that no two clocks have to agree."""

    _take = load_script("take_slot")
    _free = load_script("free_slot")
    _hold = load_script("hold_slots")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def take(self, term: Term, index: int, cvm_id: str, lifetime: float) -> float:
        """Takes slot `index` for `lifetime` seconds. Returns 0, or the seconds after which to try again.

        Raises FencedError.
        """
        keys = self._backend.keys
        arguments = [term.holder, term.epoch, index, cvm_id, int(lifetime * 1000)]
        done, wait = await self._backend.run(self._take, [keys.leader, keys.slots], arguments)
        if int(done) < 0:
            raise FencedError
        return 0.0 if int(done) == 1 else max(int(wait) / 1000, 0.001)

    async def free(self, term: Term, index: int, settling: float) -> bool:
        """The stream in it is closed: free after `settling` seconds. A fenced holder may still do this."""
        arguments = [term.holder, term.epoch, index, int(settling * 1000)]
        return bool(await self._backend.run(self._free, [self._backend.keys.slots], arguments))

    async def hold(self, holdings: Iterable[Holding]) -> None:
        """Restores records that Redis lost or shortened (a flush, a clock that jumped); no slot is free sooner by it.

        Needs no lead: the leader from before a flush writes this for the present one.
        """
        arguments: list[object] = []
        for each in holdings:
            times = [int(each.lifetime * 1000), int(each.remaining * 1000)]
            arguments += [each.index, each.holder, each.epoch, each.cvm_id, *times]
        if arguments:
            await self._backend.run(self._hold, [self._backend.keys.slots], arguments)

    async def holdings(self) -> list[Holding]:
        """All records, by index."""
        now = await self._backend.now_ms()
        raw = await self._backend.call(self._backend.client.hgetall(self._backend.keys.slots))
        return [_holding(index, json.loads(raw[str(index)]), now) for index in sorted(map(int, raw))]

    async def list(self, size: int = MOST_SLOTS) -> list[SlotRecord]:
        """All slots by index, with holders and deadlines."""
        keys = self._backend.keys
        now = await self._backend.now_ms()
        async with self._backend.transaction() as pipe:
            pipe.execute_command("HGETALL", keys.slots)
            pipe.hmget(keys.leader, ["holder", "epoch"])
            raw, (holder, epoch) = await self._backend.call(pipe.execute())
        records = {int(index): json.loads(text) for index, text in raw.items()}
        leader = (holder, int(epoch or 0))
        count = max([size, *(index + 1 for index in records)])
        return [_record(index, records.get(index), now, leader) for index in range(count)]


def _holding(index: int, fields: dict[str, Any], now: int) -> Holding:
    deadline, since = float(fields["deadline"]), float(fields["since"])
    lifetime = (deadline - since) / 1000
    # More is left than the whole lifetime: the server's clock stepped back.
    remaining = min((deadline - now) / 1000, lifetime)
    closed = bool(fields.get("closing"))
    return Holding(index, str(fields["holder"]), int(fields["epoch"]), str(fields["cvm"]), lifetime, remaining, closed)


def _record(index: int, fields: dict[str, Any] | None, now: int, leader: tuple[str | None, int]) -> SlotRecord:
    if fields is None or (holding := _holding(index, fields, now)).remaining <= 0:
        return SlotRecord(index, "free")
    state: SlotState = "held" if (holding.holder, holding.epoch) == leader else "quarantined"
    if holding.closed:
        state = "settling"
    times = rfc3339(float(fields["since"]) / 1000), rfc3339(now / 1000 + holding.remaining), holding.remaining
    return SlotRecord(index, state, holding.cvm_id, holding.holder, holding.epoch, *times)
