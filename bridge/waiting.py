"""Waiting until CVMs are ready or have a status: the decision, for the route and the command. Pure.

What is known of a CVM comes as `type` and `data` of envelopes, in the order of the log (`docs/contract.md#waiting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from bridge.events import (
    DELETED,
    DROPPED,
    FRESH,
    NO_LEADER,
    NOT_SEEN,
    READINESS,
    RUNNING,
    SNAPSHOT,
    STALE,
    STATE,
    TRANSITION,
    entry_key,
)

READY = "ready"
ERROR = "error"
BOOT_ERROR = "boot_error"

STATUSES = (*(RUNNING, "stopped", "exited", ERROR, DELETED), *("provisioning", "starting", "stopping", "restarting"))
"""Those that can be waited for: a word that upstream does not have would be waited for in vain."""

STARTING = ("provisioning", "starting", "restarting")

MOST_LISTED = 100
"""CVMs that an answer shows."""

SETTLE_SECONDS = 0.5
"""After `watch.fresh`: by then the change that was missed has come too, if there was one."""

RECOVERING = "recovering"
NO_OPERATIONS = "no_operations"
"""Upstream tells nothing of operations, so that nobody knows whether a running CVM is ready."""


class Outcome(Enum):
    REACHED = "reached"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Goal:
    """Ready, or one of `statuses`; empty: ready."""

    statuses: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Raises ValueError with words that complete an error line about the field that held the text."""
        words = frozenset(text.split(","))
        if words == {READY}:
            return cls()
        if not words <= frozenset(STATUSES):
            raise ValueError(f"{READY}, or statuses with commas between them: {', '.join(STATUSES)}")
        return cls(words)

    def __str__(self) -> str:
        return ",".join(sorted(self.statuses)) or READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One CVM. `stale`: why the bridge cannot vouch for it, None while it can; `since`: of the status, RFC 3339.

    `status_counts`, `ready_counts`, `boot_error_counts`: whether these may decide. What was so before the cursor of a
    wait may not.
    """

    cvm_id: str
    name: str | None = None
    status: str | None = None
    since: str | None = None
    ready: bool | None = None
    boot_error: str | None = None
    boot_progress: str | None = None
    stale: str | None = NOT_SEEN
    status_counts: bool = False
    ready_counts: bool = False
    boot_error_counts: bool = False

    def after(self, kind: str, data: Mapping[str, Any], time: str | None) -> Member:
        """As of this event, for which `time` is RFC 3339. Unknown types tell nothing."""
        named = replace(self, name=_text(data.get("name")) or self.name)
        if kind in (TRANSITION, STATE):
            return named._observed(data, time, arrived=kind == TRANSITION or data.get("from") is None)
        if kind == READINESS:
            # Without `was_ready` upstream tells of operations for the first time, and nothing has changed.
            changed = data.get("was_ready") is not None
            stale = None if self.stale == NOT_SEEN else self.stale
            return replace(named, ready=_flag(data), ready_counts=self.ready_counts or changed, stale=stale)
        if kind == STALE:
            return replace(named, stale=_text(data.get("reason")) or "unknown")
        return replace(named, stale=RECOVERING) if kind == FRESH else self

    def _observed(self, data: Mapping[str, Any], time: str | None, *, arrived: bool) -> Member:
        """`arrived`: the status is new, or the CVM is."""
        known = replace(self, status=_text(data.get("to")), ready=_flag(data), stale=None, **_boot(data.get("state")))
        if arrived:
            return replace(known, since=time, status_counts=True, ready_counts=True, boot_error_counts=True)
        # A boot error that comes while the CVM starts is new; one that a resting CVM has is of an earlier start.
        return replace(known, boot_error_counts=self.boot_error_counts or known.status in STARTING)

    def as_of_snapshot(self, data: Mapping[str, Any], *, counts: bool) -> Member:
        """`data` is that of a `cvm.snapshot`; it replaces what was known."""
        return Member(
            cvm_id=self.cvm_id,
            name=_text(data.get("name")),
            status=_text(data.get("to")),
            since=_text(data.get("since")),
            ready=_flag(data),
            stale=None if data.get("fresh") is True else _text(data.get("stale_reason")) or "unknown",
            status_counts=counts,
            ready_counts=counts,
            boot_error_counts=counts,
            **_boot(data.get("state")),
        )


def judge(goal: Goal, member: Member) -> tuple[Outcome, str]:
    """The outcome for one CVM, and the reason: of a failure; or why the bridge cannot tell, empty while it can."""
    if member.stale is not None:
        return Outcome.UNDECIDED, member.stale
    if _is_there(goal, member):
        return Outcome.REACHED, member.status or ""
    if reason := _failure(goal, member):
        return Outcome.FAILED, reason
    unknown = not goal.statuses and member.status == RUNNING and member.ready is None
    return Outcome.UNDECIDED, NO_OPERATIONS if unknown else ""


def _is_there(goal: Goal, member: Member) -> bool:
    if goal.statuses:
        return member.status_counts and member.status in goal.statuses
    return member.ready_counts and member.ready is True


def _failure(goal: Goal, member: Member) -> str:
    """Why it can no longer come true; empty while it can. A CVM in trouble may still be waited for to be deleted."""
    if member.status == DELETED:
        return DELETED if member.status_counts else ""
    if goal.statuses & {ERROR, DELETED}:
        return ""
    if member.status == ERROR and member.status_counts:
        return ERROR
    has_boot_error = member.boot_error is not None and member.boot_error_counts
    return BOOT_ERROR if has_boot_error and member.status != RUNNING else ""


class Waiting:
    """A wait for the CVMs of one reference: at every moment, what the events until then make of it.

    All CVMs must be there at the same moment, at least one; with `any_of` one must. Of a set (`is_set`) members come
    and go; a deleted one has left, unless it is waited for. `after`, a cursor: only what comes as an event counts.
    """

    def __init__(
        self, goal: Goal, *, after: str = "", cursor_of: str | None = None, is_set: bool = False, any_of: bool = False
    ) -> None:
        """`cursor_of`: the CVM whose state the cursor's event told; the empty text: of none; None: not known.

        The readiness that follows from that state has the next id, and was there with it: it is not new.
        """
        self.goal = goal
        self.members: dict[str, Member] = {}
        self._after_cursor = bool(after)
        self._second = _next_id(after)
        self._cursor_of = cursor_of
        self._is_set = is_set
        self._any_of = any_of
        self._judged: dict[str, Outcome] = {}
        self._counts = dict.fromkeys(Outcome, 0)
        self._unsettled: dict[str, float] = {}
        """When the state of a CVM counts whose watch has recovered."""

    def take(self, kind: str, data: Mapping[str, Any], time: str | None, now: float, entry_id: str = "") -> None:
        """The next event, with its id, or a snapshot. `now`: monotonic seconds, as in `settle`."""
        cvm_id = _text(data.get("cvm_id"))
        if cvm_id is None:
            return
        before = self.members.get(cvm_id) or Member(cvm_id=cvm_id)
        if kind == SNAPSHOT:
            self._put(before.as_of_snapshot(data, counts=not self._after_cursor), now)
        elif kind == DROPPED:
            self._drop(before, now)
        elif kind in (TRANSITION, STATE, READINESS, STALE, FRESH):
            if kind == READINESS and entry_id == self._second and self._cursor_of in (None, cvm_id):
                data = {**data, "was_ready": None}
            self._put(before.after(kind, data, time), now)

    def forget(self) -> None:
        """History was lost: snapshots of all members follow."""
        for cvm_id in list(self.members):
            self.remove(cvm_id)

    def settle(self, now: float, *, led: bool) -> None:
        """What recovered or had no leader counts once it is sure; call it every `SETTLE_SECONDS` while `is_unsettled`.

        `led`: whether a leader leads.
        """
        for cvm_id, due in list(self._unsettled.items()):
            member = self.members[cvm_id]
            if now >= due if member.stale == RECOVERING else led:
                self._put(replace(member, stale=None), now)

    @property
    def is_unsettled(self) -> bool:
        return bool(self._unsettled)

    @property
    def is_leaderless(self) -> bool:
        """Whether something waits for a leader."""
        return any(self.members[cvm_id].stale == NO_LEADER for cvm_id in self._unsettled)

    @property
    def outcome(self) -> Outcome:
        count, reached, failed = len(self.members), self._counts[Outcome.REACHED], self._counts[Outcome.FAILED]
        if self._any_of:
            if reached:
                return Outcome.REACHED
            return Outcome.FAILED if count and failed == count else Outcome.UNDECIDED
        if failed:
            return Outcome.FAILED
        return Outcome.REACHED if count and reached == count else Outcome.UNDECIDED

    def deciding(self) -> list[tuple[Member, Outcome, str]]:
        """The members with the wait's outcome, and why."""
        verdicts = ((each, *judge(self.goal, each)) for each in self.members.values())
        return [verdict for verdict in verdicts if verdict[1] is self.outcome]

    @property
    def cannot_tell(self) -> str:
        """Why the bridge cannot tell an outcome at the moment; empty if it can, and there is none yet."""
        if self.outcome is not Outcome.UNDECIDED:
            return ""
        if not self.members:
            return "" if self._is_set else NOT_SEEN
        return next((reason for _, _, reason in self.deciding() if reason), "")

    def _put(self, member: Member, now: float) -> None:
        self.remove(member.cvm_id)
        if self._is_set and member.status == DELETED and DELETED not in self.goal.statuses:
            return
        outcome = self._judged[member.cvm_id] = judge(self.goal, member)[0]
        self.members[member.cvm_id] = member
        self._counts[outcome] += 1
        if member.stale in (RECOVERING, NO_LEADER):
            self._unsettled[member.cvm_id] = now + SETTLE_SECONDS

    def _drop(self, member: Member, now: float) -> None:
        """The watch ended. That of a deleted CVM tells nothing new."""
        if member.status == DELETED:
            return
        if self._is_set:
            self.remove(member.cvm_id)
        else:
            self._put(replace(member, stale="not_watched"), now)

    def remove(self, cvm_id: str) -> None:
        """A member has left, if it was one."""
        if self.members.pop(cvm_id, None) is not None:
            self._counts[self._judged.pop(cvm_id)] -= 1
            self._unsettled.pop(cvm_id, None)


def _next_id(cursor: str) -> str | None:
    """The id that directly follows; None for what is no cursor."""
    try:
        milliseconds, counter = entry_key(cursor)
    except ValueError:
        return None
    return f"{milliseconds}-{counter + 1}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _flag(data: Mapping[str, Any]) -> bool | None:
    value = data.get("ready")
    return value if isinstance(value, bool) else None


def _boot(state: object) -> dict[str, Any]:
    """Its progress and its error, as far as the state has them."""
    fields = state if isinstance(state, dict) else {}
    error = fields.get("boot_error")
    return {
        "boot_error": str(error) if error else None,
        "boot_progress": _text(fields.get("boot_progress")) or _text(fields.get("shutdown_progress")),
    }
