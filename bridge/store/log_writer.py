"""Writing the log, the leader's side: each event exactly once, fenced and numbered."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.clock import Clock, SystemClock
from bridge.events import Draft, entry_key
from bridge.store.connection import Backend, load_script
from bridge.store.consumer_groups import GROUP_IDLE, MOST_GROUPS, ConsumerGroups
from bridge.store.errors import FencedError, LostTailError, StillWantedError, StoreError
from bridge.store.leadership import Term
from bridge.store.snapshots import Snapshot
from bridge.store.trim_losses import TrimLosses

logger = logging.getLogger(__name__)

REFRESH_AT_ONCE = 200
"""Snapshots per script: well under Lua's argument limit, and short enough not to block the server."""


REFUSALS = {
    "replaced": ("Redis lost the log, and there is a new one",),
    "foreign": ("the log has an event that this process did not write",),
}
"""Why an append was refused although no other process leads."""


def _lost(sequence: str, last_id: str) -> StoreError:
    try:
        entry_key(last_id)
        return LostTailError(int(sequence), last_id)
    except ValueError:
        return StoreError("the record of the log could not be read")  # the next term mends it


@dataclass(frozen=True, slots=True)
class WritePosition:
    """The log's last event, which the next one follows. Where Redis has lost later ones, `used` is the highest number
    and the highest id that these had: subscribers may have seen both, so neither is used again.
    """

    sequence: int
    last_id: str
    used: tuple[int, str] = (0, "0-0")
    first_id: str = field(default="", compare=False)
    """Of the events that were written in one step, the first one's id; "" where its reply was lost."""

    @property
    def next_sequence(self) -> int:
        return max(self.sequence, self.used[0]) + 1

    @property
    def highest_id(self) -> str:
        return max(self.last_id, self.used[1], key=entry_key)


class LogWriter:
    """Appends events of one term. Repeating an append whose reply was lost is safe: it is not written twice."""

    _append = load_script("group_rules", "append")
    _refresh = load_script("refresh")

    def __init__(
        self, backend: Backend, log_length: int, group_idle: float = GROUP_IDLE, clock: Clock | None = None
    ) -> None:
        """`group_idle`: BRIDGE_GROUP_IDLE, seconds."""
        clock = clock or SystemClock()
        self._backend = backend
        self._log_length = log_length
        self._groups = ConsumerGroups(backend, group_idle, clock)
        self._losses = TrimLosses(clock)

    async def append(
        self,
        term: Term,
        written: WritePosition,
        draft: Draft,
        snapshot: Snapshot,
        *,
        ran: bool,
        second: Draft | None = None,
    ) -> WritePosition:
        """Event, the `second` one that follows from it, and snapshot in one step; the position of the last. Raises
        FencedError, LostTailError, StoreUnavailableError (then call again as it was).
        """
        return await self._write(term, written, draft, snapshot.head(), ran, 0, second)

    async def append_notice(self, term: Term, written: WritePosition, draft: Draft, notice_id: str) -> WritePosition:
        """The event, and the end of the notice that it is made of, in one step. Raises as `append` does."""
        return await self._write(term, written, draft, "", False, None, notice_id=notice_id)

    async def drop(
        self, term: Term, written: WritePosition, draft: Draft, wanted_before_ms: int | None
    ) -> WritePosition:
        """The event, and the end of watch and snapshot; None: the watch itself stays. Raises as `append` does, and
        StillWantedError if it was wanted later.
        """
        return await self._write(term, written, draft, "", False, wanted_before_ms)

    async def _write(
        self,
        term: Term,
        written: WritePosition,
        draft: Draft,
        head: str,
        ran: bool,
        cutoff: int | None,
        second: Draft | None = None,
        notice_id: str = "",
    ) -> WritePosition:
        keys = self._backend.keys
        sequence = written.next_sequence
        last_sequence = sequence + (second is not None)
        # A log that has never been full is not trimmed.
        read = await self._groups.position() if last_sequence > self._log_length else ""
        names = [keys.leader, keys.meta, keys.log, keys.state, keys.watches, keys.pins]
        names += [keys.webhooks, keys.webhook_endpoints, keys.notices]
        arguments: list[object] = [term.holder, term.epoch, term.log_id, sequence, written.highest_id]
        arguments += [draft.envelope(keys.source, sequence), draft.cvm_id, head, self._log_length]
        arguments += [keys.events, keys.events_of(draft.cvm_id) if draft.cvm_id else "", int(ran)]
        arguments += ["" if cutoff is None else cutoff, written.sequence, written.last_id]
        arguments += [second.envelope(keys.source, sequence + 1) if second else ""]
        arguments += [notice_id, read, MOST_GROUPS]
        answer = await self._backend.run(self._append, names, arguments)
        if answer[0]:
            first_id = ""
            if len(answer) > 1:
                first_id = str(answer[1])
                groups = [(str(name), int(count)) for name, count in answer[3]]
                self._losses.add(int(answer[2]), [each for each in groups if not self._groups.is_idle(each[0])])
            return WritePosition(last_sequence, str(answer[0]), first_id=first_id)
        if answer[1] == "wanted":
            raise StillWantedError
        if answer[1] == "lost":
            raise _lost(answer[2], answer[3])
        raise FencedError(*REFUSALS.get(answer[1], ()))

    async def refresh(self, term: Term, snapshots: Iterable[Snapshot]) -> None:
        """Writes snapshots that are newer than the stored ones without an event. Raises FencedError."""
        keys = self._backend.keys
        waiting = list(snapshots)
        for start in range(0, len(waiting), REFRESH_AT_ONCE):
            arguments: list[object] = [term.holder, term.epoch]
            for snapshot in waiting[start : start + REFRESH_AT_ONCE]:
                arguments += [snapshot.cvm_id, snapshot.to_json(), snapshot.event_id]
            if not await self._backend.run(self._refresh, [keys.leader, keys.state, keys.watches], arguments):
                raise FencedError
