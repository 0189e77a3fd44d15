"""Slots in Redis: at most `BRIDGE_MAX_STREAMS` records, each with a deadline at which upstream has certainly closed.

A slot is free exactly when its deadline has passed. That one rule covers the clean release (the deadline becomes the
end of the settling time), the quarantine after a holder that vanished (nothing to do) and the crash of all processes.
A record that cannot be read is no reason to free a slot either (`scripts/slot_rules.lua`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.clock import rfc3339
from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError, UnconfirmedError
from bridge.store.holdings import Holding, packed
from bridge.store.leadership import Term
from bridge.store.replicas import run_copied

logger = logging.getLogger(__name__)

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


class Slots:
    """Taken and freed by script; times are the Redis server's, so that no two clocks have to agree."""

    _take = load_script("slot_rules", "take_slot")
    _free = load_script("slot_rules", "free_slot")
    _hold = load_script("slot_rules", "hold_slots")
    _read = load_script("slot_rules", "read_slots")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def take(self, term: Term, index: int, cvm_id: str, lifetime: float, confirm_ms: int = 0) -> float:
        """Takes slot `index` for `lifetime` seconds. Returns 0, or the seconds after which to try again.

        Raises FencedError, and UnconfirmedError where it is taken but no replica has that within `confirm_ms`.
        """
        keys = self._backend.keys
        arguments = [term.holder, term.epoch, index, cvm_id, int(lifetime * 1000)]
        answer = run_copied(self._backend, self._take, [keys.leader, keys.slots], arguments, confirm_ms)
        (done, wait), copies = await answer
        if int(done) < 0:
            raise FencedError
        if int(done) == 1 and copies.confirmed == 0:
            raise UnconfirmedError
        return 0.0 if int(done) == 1 else max(int(wait) / 1000, 0.001)

    async def free(self, term: Term, index: int, settling: float) -> bool:
        """The stream in it is closed: free after `settling` seconds. A fenced holder may still do this."""
        arguments = [term.holder, term.epoch, index, int(settling * 1000)]
        return bool(await self._backend.run(self._free, [self._backend.keys.slots], arguments))

    async def hold(self, holdings: Iterable[Holding]) -> None:
        """Restores records that Redis lost or shortened (a flush, a clock that jumped); no slot is free sooner by it.

        Needs no lead: the leader from before a flush writes this for the present one, and so does a standby.
        """
        if arguments := packed(holdings):
            await self._backend.run(self._hold, [self._backend.keys.slots], arguments)

    async def holdings(self, *, settle: bool = True) -> list[Holding]:
        """All records, by index. `settle`, for the leader: what cannot be read is rewritten as a quarantine."""
        found = await self._stored(settle=settle)
        if found.odd and settle:
            logger.error("slots that cannot be read are quarantined", extra={"slots": sorted(found.odd)})
        return [holding for _, holding in sorted(found.holdings.items())]

    async def list(self, size: int = MOST_SLOTS) -> list[SlotRecord]:
        """All slots by index, with holders and deadlines."""
        found = await self._stored(settle=False)
        count = max([size, *(index + 1 for index in found.holdings)])
        return [_record(index, found) for index in range(count)]

    async def _stored(self, *, settle: bool) -> _Stored:
        keys = self._backend.keys
        now, *leader, rows, odd = await self._backend.run(self._read, [keys.slots, keys.leader], [int(settle)])
        holdings = {}
        for index, holder, epoch, cvm_id, since, deadline, closed, lost in zip(*[iter(rows)] * 8, strict=True):
            lifetime, remaining = int(deadline) - int(since), int(deadline) - int(now)
            holdings[int(index)] = Holding(
                int(index), holder, int(epoch), cvm_id, lifetime / 1000, remaining / 1000, bool(closed), bool(lost)
            )
        return _Stored(int(now) / 1000, (leader[0], leader[1]), holdings, odd)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The hash as of `now`, the server's time. `leader`: holder and epoch, as text. `odd`: what could not be read."""

    now: float
    leader: tuple[str, str]
    holdings: Mapping[int, Holding]
    odd: Sequence[str]


def _record(index: int, found: _Stored) -> SlotRecord:
    holding = found.holdings.get(index)
    if holding is None or holding.remaining <= 0:
        return SlotRecord(index, "free")
    leads = (holding.holder, str(holding.epoch)) == found.leader
    state: SlotState = "held" if leads and not holding.quarantined else "quarantined"
    if holding.closed:
        state = "settling"
    until = found.now + holding.remaining
    times = rfc3339(until - holding.lifetime), rfc3339(until), holding.remaining
    return SlotRecord(index, state, holding.cvm_id, holding.holder, holding.epoch, *times)
