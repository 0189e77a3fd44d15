"""What one process wrote to the log last, and what it has still to write, over all its terms.

Pure. The recorder adds what it decided and reports what Redis answered. A change that was seen while Redis was away is
written when Redis is back; events that Redis had confirmed and then lost are written again, under new numbers. Both
only while no other process has led meanwhile: its observations are newer.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from dataclasses import dataclass, replace

from bridge.events import Draft, Event, ObservedBy, entry_key
from bridge.store.errors import FencedError
from bridge.store.leadership import Term
from bridge.store.log_writer import WritePosition
from bridge.store.snapshots import Snapshot
from bridge.upstream import metrics

logger = logging.getLogger(__name__)

RECENT = 1000
"""Written events that are kept. A replica lags by fewer; a restarted server may lack more, up to its last save."""

RECENT_CHARACTERS = 16_000_000
WAITING = 10_000
"""Events that may wait for Redis; beyond that, observations wait for their turn."""

WAITING_CHARACTERS = 64_000_000
"""A state may have a megabyte; thousands of ordinary ones fit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append, the `second` one that follows from it (both are written in one step), and the snapshot after
    them. Without a snapshot the watch ends, unless it was wanted since `wanted_before_ms`; None: the event and the end
    of the snapshot alone. `notice_id`: it is made of that notice, and changes neither watch nor snapshot. `by`: what
    showed the change, and `before`: when the CVM was last seen without it, monotonic."""

    draft: Draft
    snapshot: Snapshot | None
    ran: bool = False
    wanted_before_ms: int | None = None
    second: Draft | None = None
    notice_id: str = ""
    by: ObservedBy | None = None
    before: float = 0.0

    @property
    def drafts(self) -> tuple[Draft, ...]:
        return (self.draft,) if self.second is None else (self.draft, self.second)

    @property
    def size(self) -> int:
        return len(self.draft.data) * (1 if self.snapshot is None else 2)


@dataclass(frozen=True, slots=True)
class _Written:
    """`follows`: the log's end before it; `sequence`: the number of its last event."""

    entry: Entry
    follows: WritePosition
    sequence: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Redis lost the events after `sequence`: `again` of them are written again, `gone` is nowhere any more."""

    sequence: int
    again: int
    gone: int

    def report(self) -> None:
        metrics.LOST.inc(self.again + self.gone)
        fields = {"after_sequence": self.sequence, "written_again": self.again, "gone": self.gone}
        logger.error("Redis lost events that it had confirmed: a replica without them, or a restart", extra=fields)


class Journal:
    """One process's. Appends come one at a time: `send`, then `confirm`, or `send` again, or `rewind`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._term: Term | None = None
        self.position = WritePosition(0, "0-0")
        """What Redis has for all that is known."""
        self._written: deque[_Written] = deque()
        self._waiting: deque[Entry] = deque()
        self._waits: Counter[str] = Counter()
        self._written_size = self._waiting_size = 0
        self._others = ("", 0, "0-0")
        self._sent: Entry | None = None
        """What Redis may have although its answer did not arrive."""
        self._highest_sent = 0

    # Within a term

    @property
    def next(self) -> Entry | None:
        """The entry to append next."""
        return self._waiting[0] if self._waiting else None

    @property
    def waiting(self) -> tuple[Entry, ...]:
        """What is to be appended, in order."""
        return tuple(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= WAITING or self._waiting_size >= WAITING_CHARACTERS

    def waits(self, cvm_id: str) -> bool:
        """Whether an event of this CVM is still to be written that its snapshot includes."""
        return self._waits[cvm_id] > 0

    def add(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._count(entry, 1)

    def send(self, entry: Entry) -> None:
        """The entry goes to Redis, which may write it whether its answer arrives or not."""
        self._sent, self._highest_sent = entry, self.position.next_sequence + len(entry.drafts) - 1

    def confirm(self, entry: Entry, position: WritePosition) -> None:
        """Redis has it. It is the next one that waits, or one that did not wait (the end of a watch)."""
        if self.next is entry:
            self._count(self._waiting.popleft(), -1)
        self._written.append(_Written(entry, self.position, position.sequence))
        self._sent, self.position = None, position
        self._written_size += entry.size
        while len(self._written) > RECENT or self._written_size > RECENT_CHARACTERS:
            self._written_size -= self._written.popleft().entry.size

    def keep_watch(self, entry: Entry) -> None:
        """The watch was wanted again since it ended: what waits next is the event alone."""
        assert self.next is entry
        self._waiting[0] = replace(entry, wanted_before_ms=None)

    def rewind(self, sequence: int, last_id: str) -> Loss:
        """Redis has nothing after this event: what was written after it waits again, before all else.

        One number stays unused: a front end that has seen all that was lost finds the gap too, and starts over. Raises
        FencedError if that is not where one of this process's steps ended, as far as it remembers them.
        """
        at, kept = self.position, [each for each in self._written if each.sequence <= sequence]
        lost = list(self._written)[len(kept) :]
        oldest = lost[0].follows if lost else at
        is_older = sequence < oldest.sequence
        if sequence >= at.sequence or not (is_older or (sequence, last_id) == (oldest.sequence, oldest.last_id)):
            raise FencedError("the log has an event that this process did not write")
        self._written = deque(kept)
        self._written_size = sum(each.entry.size for each in kept)
        for each in reversed(lost):
            self._waiting.appendleft(each.entry)
            self._count(each.entry, 1)
        used = (max(at.next_sequence - 1, self._highest_sent) + 1, at.highest_id)
        self._sent, self.position = None, WritePosition(sequence, last_id, used)
        return Loss(sequence, sum(len(each.entry.drafts) for each in lost), oldest.sequence - sequence)

    def _count(self, entry: Entry, step: int) -> None:
        self._waiting_size += step * entry.size
        if entry.notice_id:
            return
        self._waits[entry.draft.cvm_id] += step
        if not self._waits[entry.draft.cvm_id]:
            del self._waits[entry.draft.cvm_id]

    # From one term to the next

    def look(self, log_id: str, sequence: str, last_id: str) -> None:
        """Another process leads, and its log is as far as this: subscribers may have seen it all."""
        with contextlib.suppress(ValueError):
            entry_key(last_id)
            self._others = (log_id, int(sequence), last_id)

    @property
    def is_unsure(self) -> bool:
        """Whether the log's last event is needed to begin the next term: it may be the one that was sent last."""
        return self._sent is not None

    def resume(self, term: Term, last: Event | None) -> Loss | None:
        """Goes on in a new term. `last`: the log's last event, if `is_unsure`. What waits is kept, and what Redis lost
        waits again, unless another process led meanwhile or the log is another one.
        """
        past, self._term = self._term, term
        found = WritePosition(term.sequence, term.last_id)
        if self._sent is not None and last is not None and last.json == self._json(self._sent, last.id):
            self.confirm(self._sent, found)
        at = self.position
        is_same = (at.sequence, at.last_id) == (found.sequence, found.last_id)
        if past is not None and term.follows(past):
            if is_same:
                return None
            try:
                return self.rewind(found.sequence, found.last_id)
            except FencedError:
                pass
        # Numbers and ids that subscribers may have seen are not used again in the same log.
        same_log = past is not None and past.log_id == term.log_id
        self.give_up("another process led meanwhile" if same_log else "Redis has another log now")
        used, used_id = max(at.next_sequence - 1, self._highest_sent) if same_log else 0, at.highest_id
        if same_log and (used > found.sequence or (used == found.sequence and not is_same)):
            used += 1  # as in `rewind`: subscribers may have seen other events under these numbers
        log_id, seen, seen_id = self._others
        lost = seen - found.sequence if log_id == term.log_id else 0
        if lost > 0:
            # One more, as in `rewind`.
            used, used_id = max(used, seen + 1), max(used_id, seen_id, key=entry_key)
        self.position = replace(found, used=(used, used_id))
        self._highest_sent = 0
        return Loss(found.sequence, 0, lost) if lost > 0 else None

    def _json(self, entry: Entry, entry_id: str) -> str:
        """As the log has the entry's last event, if it was appended."""
        return f'{{"id":"{entry_id}",{entry.drafts[-1].envelope(self._source, self._highest_sent)[1:]}'

    def give_up(self, why: str) -> None:
        """What waits is written by nobody. A notice that Redis lost together with its event counts too; one that Redis
        has again is written by the next leader, and nobody can tell the two apart."""
        if events := sum(len(entry.drafts) for entry in self._waiting):
            metrics.UNWRITTEN.inc(events)
            logger.error("changes that this process saw are not written", extra={"events": events, "why": why})
        self._waiting.clear()
        self._written.clear()
        self._waits.clear()
        self._written_size = self._waiting_size = 0
        self._sent = None
