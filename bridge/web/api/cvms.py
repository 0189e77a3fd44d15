"""Watched CVMs as the API shows them (contract section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.events import dumps
from bridge.store.leader_status import LeaderStatus
from bridge.store.slots import Slots
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watch, Watches
from bridge.web.streaming.frames import freshness


class Cvms:
    """Reads what the store knows; `led` says whether a leader is heard."""

    def __init__(self, watches: Watches, snapshots: Snapshots, slots: Slots, leader_status: LeaderStatus) -> None:
        self._watches = watches
        self._snapshots = snapshots
        self._slots = slots
        self._leader_status = leader_status

    async def page(self, after: str, limit: int, *, led: bool) -> tuple[list[str], str | None]:
        """Encoded CVMs by ascending id, and where the next page begins."""
        watches = await self._watches.list(after, limit + 1)
        shown = watches[:limit]
        return await self.encode(shown, led=led), shown[-1].cvm_id if len(watches) > limit else None

    async def get(self, cvm_id: str, *, led: bool) -> str | None:
        """One encoded CVM; None where it is not watched."""
        watch = await self._watches.get(cvm_id)
        return None if watch is None else (await self.encode([watch], led=led))[0]

    async def encode(self, watches: Iterable[Watch], *, led: bool) -> list[str]:
        watches = list(watches)
        snapshots = await self._snapshots.get([watch.cvm_id for watch in watches])
        streamed = {slot.cvm_id for slot in await self._slots.list() if slot.state == "held"} if led else set()
        return [_cvm(watch, snapshots.get(watch.cvm_id), streamed, led=led) for watch in watches]

    async def slots(self, *, led: bool) -> dict[str, object]:
        """The slots, and in the leader's own words why the other CVMs are polled."""
        leader_status: Mapping[str, object] = await self._leader_status.read() if led else {}
        items = [
            {
                "index": slot.index,
                "state": slot.state if led or slot.state == "free" else "quarantined",
                "cvm_id": slot.cvm_id,
                "holder": slot.holder,
                "epoch": slot.epoch or None,
                "since": slot.since,
                "until": slot.until,
            }
            for slot in await self._slots.list()
        ]
        told = {
            key: leader_status.get(key) for key in ("leader", "epoch", "budget", "budget_reason", "blocked", "polling")
        }
        return {"items": items, "next": None, **told}


def _cvm(watch: Watch, snapshot: Snapshot | None, streamed: set[str | None], *, led: bool) -> str:
    followed = ("stream" if watch.cvm_id in streamed else "poll") if led else None
    known = snapshot or Snapshot(watch.cvm_id, None, None, None, None, None, fresh=False, stale_reason="not_seen_yet")
    head = {
        "cvm_id": watch.cvm_id,
        "name": known.name,
        "status": known.status,
        "since": known.since,
        "observed_at": known.observed_at,
        **freshness(known, led=led),
        "followed_by": followed,
        "pinned": watch.pinned,
        "subscribers": watch.subscribers,
        "event_id": known.event_id or None,
    }
    return f'{dumps(head)[:-1]},"state":{known.raw_state or "null"}}}'
