"""When each CVM was last confirmed, beside the snapshots: a state that does not change costs next to no writing.

Two private hashes. `rounds` has the time of each round: all members of the round were confirmed then or later. The
CVMs of one batch are the members of one round, so that a batch in which all of them were confirmed costs one number.
`confirmed` has a field for each CVM with its round, its own time, or both; the later one counts, and the snapshot's
`observed_at` if it is later still. Times are milliseconds since the Unix epoch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.clock import rfc3339
from bridge.store.connection import Backend, load_script
from bridge.store.errors import FencedError
from bridge.store.foreign import TIME_DIGITS, decimal
from bridge.store.leadership import Term

CLOCK_STEP = 1.0
"""Seconds. When the wall clock was set by more, all times are written anew: old ones could lie in the future."""

NEVER = -math.inf


class Rounds:
    """The content of both hashes, in monotonic seconds. Decides which fields a confirmation changes; no I/O."""

    def __init__(self, own: Mapping[str, float]) -> None:
        """`own`: what is known of each CVM."""
        self._own = dict(own)
        self._round_of: dict[str, int] = {}
        self._rounds: dict[int, _Round] = {}
        self._changed_cvms: set[str] = set()
        self._changed_rounds: set[int] = set()

    def confirmed_at(self, cvm_id: str) -> float:
        """As the hashes tell it; NEVER if they do not."""
        own, number = self._own.get(cvm_id, NEVER), self._round_of.get(cvm_id)
        return own if number is None else max(own, self._rounds[number].at)

    def confirm(self, confirmed: Mapping[str, float]) -> None:
        """These were confirmed at these times."""
        by_time: dict[float, list[str]] = defaultdict(list)
        for cvm_id, at in confirmed.items():
            if at > self.confirmed_at(cvm_id):
                by_time[at].append(cvm_id)
        # The latest first: who was read after a batch was sent is not late for its round.
        for at in sorted(by_time, reverse=True):
            self._confirm_together(at, by_time[at])

    def forget(self, cvm_id: str) -> None:
        self._leave_round(cvm_id)
        self._own.pop(cvm_id, None)

    def _confirm_together(self, at: float, cvm_ids: list[str]) -> None:
        if len(cvm_ids) == 1:
            self._own[cvm_ids[0]] = at
            self._changed_cvms.add(cvm_ids[0])
            return
        number = self._begin_round(at, cvm_ids)
        for cvm_id in cvm_ids:
            if self._round_of.get(cvm_id) != number:
                self._leave_round(cvm_id)
                self._round_of[cvm_id] = number
                self._rounds[number].members.add(cvm_id)

    def _begin_round(self, at: float, cvm_ids: list[str]) -> int:
        """The number of a round at `at` of which all members were confirmed: the round that most of them are in,
        without those who were not confirmed; a new one if these would be the most.
        """
        present = Counter(self._round_of[each] for each in cvm_ids if each in self._round_of)
        number, count = next(iter(present.most_common(1)), (-1, 0))
        if number >= 0:
            members, together = self._rounds[number].members, set(cvm_ids)
            late = [each for each in members if each not in together and self.confirmed_at(each) < at]
            if len(late) > count:
                number = -1
            else:
                for each in late:
                    self._own[each] = self.confirmed_at(each)
                    self._leave_round(each)
        if number < 0:
            number = next(each for each in range(len(self._rounds) + 1) if each not in self._rounds)
        self._rounds.setdefault(number, _Round()).at = at
        self._changed_rounds.add(number)
        return number

    def _leave_round(self, cvm_id: str) -> None:
        self._changed_cvms.add(cvm_id)
        number = self._round_of.pop(cvm_id, None)
        if number is None:
            return
        self._rounds[number].members.discard(cvm_id)
        if not self._rounds[number].members:
            del self._rounds[number]
            self._changed_rounds.add(number)

    def changes(self, ms_at_zero: float, *, whole: bool) -> tuple[dict[str, str], dict[str, str]]:
        """The fields of `rounds` and of `confirmed` that changed since the last call, or all that there are; the text
        is empty where the field is to be deleted. `ms_at_zero`: the wall time at monotonic zero, milliseconds.
        """
        rounds = set(self._rounds) if whole else self._changed_rounds
        cvm_ids = {*self._own, *self._round_of} if whole else self._changed_cvms
        self._changed_rounds, self._changed_cvms = set(), set()

        def ms(at: float) -> str:
            return str(round(ms_at_zero + at * 1000))

        def text(cvm_id: str) -> str:
            number, own = self._round_of.get(cvm_id), self._own.get(cvm_id)
            later = number is None or (own is not None and own > self._rounds[number].at)
            parts = ["" if number is None else f"#{number}", ms(own) if own is not None and later else ""]
            return " ".join(part for part in parts if part)

        times = {str(each): ms(self._rounds[each].at) if each in self._rounds else "" for each in rounds}
        return times, {cvm_id: text(cvm_id) for cvm_id in cvm_ids}


@dataclass(slots=True)
class _Round:
    at: float = NEVER
    members: set[str] = field(default_factory=set)


class Confirmations:
    """The leader's side, for one term. The recorder tells what was confirmed, one task writes it."""

    _confirm = load_script("confirm")

    def __init__(self, backend: Backend, term: Term, known: Mapping[str, float]) -> None:
        """`known`: when each CVM was confirmed as far as Redis has it, in monotonic seconds."""
        self._backend = backend
        self._term = term
        self._rounds = Rounds(known)
        self._waiting: dict[str, float] = {}
        self._forgotten: set[str] = set()
        self._revision = 0
        self._ms_at_zero = 0.0

    def add(self, cvm_id: str, at: float) -> None:
        """It was confirmed at `at`, monotonic seconds; the next `write` writes it."""
        self._waiting[cvm_id] = at

    def forget(self, cvm_id: str) -> None:
        """The watch has ended."""
        self._waiting.pop(cvm_id, None)
        self._forgotten.add(cvm_id)

    async def write(self, wall: float, monotonic: float) -> None:
        """Writes what waits; the arguments are the same moment by two clocks, in seconds.

        Raises FencedError. After a StoreUnavailableError the next call puts right what Redis may lack.
        """
        waiting, self._waiting = self._waiting, {}
        for cvm_id in self._forgotten:
            self._rounds.forget(cvm_id)
        self._forgotten.clear()
        self._rounds.confirm(waiting)
        ms_at_zero = (wall - monotonic) * 1000
        stepped = abs(ms_at_zero - self._ms_at_zero) > CLOCK_STEP * 1000
        self._ms_at_zero = ms_at_zero
        if not await self._write(whole=stepped or not self._revision):
            await self._write(whole=True)

    async def _write(self, *, whole: bool) -> bool:
        """False: Redis has something else than what was written last, so that all must be written."""
        times, cvms = self._rounds.changes(self._ms_at_zero, whole=whole)
        if not (times or cvms or whole):
            return True
        expected, self._revision = "" if whole else str(self._revision), self._revision + 1
        keys = self._backend.keys
        arguments: list[object] = [self._term.holder, self._term.epoch, expected, self._revision, len(times)]
        for fields in (times, cvms):
            arguments += [part for name_and_text in fields.items() for part in name_and_text]
        answer = int(await self._backend.run(self._confirm, [keys.leader, keys.rounds, keys.confirmed], arguments))
        if answer == 0:
            raise FencedError
        return answer > 0


def confirmed_times(confirmed: Mapping[str, str], rounds: Mapping[str, str]) -> dict[str, str]:
    """RFC 3339 times by CVM; fields that the bridge did not write are left out."""
    found = {}
    for cvm_id, text in confirmed.items():
        parts = (rounds.get(part[1:], "") if part.startswith("#") else part for part in text.split(" "))
        times = [time for part in parts if (time := decimal(part, TIME_DIGITS)) is not None]
        if times:
            found[cvm_id] = rfc3339(max(times) / 1000)
    return found
