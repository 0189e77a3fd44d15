"""Waiting until a CVM is ready or has a status, for callers without a stream (`docs/contract.md#waiting`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from bridge.clock import Clock
from bridge.cvm_scope import CvmScope
from bridge.events import DELETED, NO_LEADER, SNAPSHOT, STATE, TRANSITION
from bridge.reference_sets import Reference
from bridge.store.log import Log
from bridge.store.snapshots import Snapshot, SnapshotHead, Snapshots
from bridge.store.watches import Watches
from bridge.waiting import MOST_LISTED, READY, SETTLE_SECONDS, STATUSES, Goal, Outcome, Waiting
from bridge.web.api import answers
from bridge.web.api.cvms import READ_AT_ONCE
from bridge.web.api.log_pages import REFUSALS
from bridge.web.api.references import LAST_KNOWN_HEADER, REF_OR_SET, Found, References, scope_of
from bridge.web.http.access import Principal
from bridge.web.http.capacity import Capacity
from bridge.web.http.operations import CVMS, Call, Operation, json_answer
from bridge.web.http.parameters import EXAMPLE_ID, TEXT, Parameter, chosen, last, reference
from bridge.web.http.problems import ProblemError, ProblemType, WaitedCvm, invalid
from bridge.web.http.responses import json_response
from bridge.web.http.single_flight import SingleFlight
from bridge.web.streaming.frames import snapshot_data
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.shared_read import SharedRead
from bridge.web.streaming.subscriber import Subscriber
from bridge.web.streaming.waiter import Crowd, Waiter

DEFAULT_TIMEOUT = 50
"""Seconds: proxies usually give up after 60 without a byte."""

MOST_TIMEOUT = 600


def _goal(values: list[str]) -> Goal:
    try:
        return Goal.parse(last(values) or READY)
    except ValueError as error:
        raise invalid("to", str(error)) from None


def _timeout(values: list[str]) -> int:
    text = last(values) or str(DEFAULT_TIMEOUT)
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MOST_TIMEOUT):
        raise invalid("timeout", f"a whole number of seconds from 0 to {MOST_TIMEOUT}")
    return int(text)


def _cursor(values: list[str]) -> str:
    """Empty without one; but a shell's variable that was not set must not mean that."""
    if values and not values[-1]:
        raise invalid("after", "a cursor, or nothing at all")
    return last(values)


TO = Parameter(
    "to",
    f"`{READY}`, or statuses with commas between them: {', '.join(STATUSES)}",
    _goal,
    {**TEXT, "default": READY},
    example="running",
)
TIMEOUT = Parameter(
    "timeout",
    "Seconds to wait; 0: only look",
    _timeout,
    {"type": "integer", "minimum": 0, "maximum": MOST_TIMEOUT, "default": DEFAULT_TIMEOUT},
)
CURSOR = Parameter(
    "after",
    "Only what comes after this cursor counts",
    _cursor,
    {**TEXT, "minLength": 1},
    example=EXAMPLE_ID,
    shared_as="after_cursor",
)

ANY = chosen("any", "`true`: one CVM of a set is enough", ("true", "false"))


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitRoutes:
    """A wait takes a place in `capacity`, as a stream does."""

    hub: Hub
    capacity: Capacity
    clock: Clock
    log: Log
    snapshots: Snapshots
    watches: Watches
    references: References
    single_flight: SingleFlight
    directory: SharedRead[list[SnapshotHead]]
    """Of all watched CVMs."""
    crowd: Crowd = field(default_factory=Crowd)

    @Operation(
        "GET /v1/cvms/{ref}/wait",
        CVMS,
        {200: json_answer("It is so", answers.Waited, LAST_KNOWN_HEADER)},
        parameters=(REF_OR_SET, TO, TIMEOUT, CURSOR, ANY),
        scope="read",
        refusals=(
            ProblemType.WAIT_TIMEOUT,
            ProblemType.WAIT_FAILED,
            ProblemType.HISTORY_LOST,
            ProblemType.UNKNOWN_CURSOR,
            ProblemType.TOO_MANY_STREAMS,
            ProblemType.OVERLOADED,
            ProblemType.CANNOT_TELL,
        ),
    )
    async def wait_for_cvm(self, call: Call) -> Response:
        """Wait until a CVM is ready, or has a status.

        Answers at once if it is so already, unless `after` is given: then only what comes after that cursor counts, so
        that the `running` of before a deploy is not taken for the new one. Fails at once when it can no longer come
        true: `error`, a `boot_error`, `deleted`, unless these are waited for. The CVM is watched meanwhile. Of `app_…`
        and `name:…` all CVMs must be there at the same moment, at least one; new ones count as they come.
        """
        seconds, after, name = call.get(TIMEOUT), call.get(CURSOR), call.principal.name
        named = reference("ref", call.path("ref"))
        waiting = Waiting(
            call.get(TO),
            after=after,
            cursor_of=await self._cursor_of(after),
            is_set=named.is_set,
            any_of=call.get(ANY) == "true",
        )
        found = await self._found(named, call.principal)
        scope = scope_of(found, call.principal)
        self.capacity.check(name)
        if wanted := scope.demands.cvm_ids:
            await self.single_flight.ask(("renew", wanted), lambda: self.watches.renew(wanted))
        if after:
            await self._add_members(waiting, scope)
        self.hub.check_patterns(scope)
        # Checked again and taken here, because other requests may have been served while this one waited above.
        self.capacity.take(name)
        waiter = Waiter(waiting, self.clock, self.crowd, cursor=after, begun_at=self.hub.last_id)
        subscriber = Subscriber(waiter, scope=scope, token=name, credential=call.principal.credential)
        try:
            self.hub.enter(subscriber, after or None)
            await self._wait(call, waiter, 0 if call.request.method == "HEAD" else seconds)
            if subscriber.live and not waiter.is_over:
                waiter.cursor = self.hub.last_id
        finally:
            self.hub.leave(subscriber)
            self.capacity.release(name)
            waiter.release()
        return self._answer(waiter, found)

    async def _found(self, named: Reference, principal: Principal) -> Found:
        """A name that a deleted CVM had may be another one's by now."""
        found = await self.references.find_all([named], principal)
        if named.is_set or found.cvm_ids == [named.text]:
            return found
        gone = [
            each for each in await self._snapshots_of(found.cvm_ids) if each.status == DELETED and not each.raw_state
        ]
        if not gone:
            return found
        answer = await self.single_flight.ask(("gone", named.text), lambda: self.references.ask_anew(named.text))
        if answer.cvm_id is None:
            return found
        await self.references.require(principal, answer)
        return Found([answer.cvm_id])

    async def _cursor_of(self, after: str) -> str:
        """The CVM whose state the cursor's event told; empty: of none."""
        try:
            event = await self.single_flight.ask(("event", after), lambda: self.log.find(after)) if after else None
        except ValueError:
            return ""  # what is no cursor gets its refusal where every cursor is looked up
        return event.cvm_id if event is not None and event.type in (TRANSITION, STATE) else ""

    async def _add_members(self, waiting: Waiting, scope: CvmScope) -> None:
        """What the stream does not tell: the members, and what is known of them; a few states at a time."""
        ids = await self._members(scope)
        for start in range(0, len(ids), READ_AT_ONCE):
            _add(waiting, await self._snapshots_of(ids[start : start + READ_AT_ONCE]), led=self.hub.led)

    async def _members(self, scope: CvmScope) -> list[str]:
        if (ids := scope.cvm_ids) is not None:
            return sorted(ids)
        return [each.cvm_id for each in await self.directory.get() if scope.has(each)]

    async def _snapshots_of(self, cvm_ids: Sequence[str]) -> list[Snapshot]:
        wanted = tuple(cvm_ids)
        found = await self.single_flight.ask(("snapshots", wanted), lambda: self.snapshots.get(wanted))
        return list(found.values())

    async def _wait(self, call: Call, waiter: Waiter, seconds: float) -> None:
        """Until it is over or `seconds` are; not before all that there is has been considered."""
        deadline, waiting = self.clock.monotonic() + seconds, waiter.waiting
        while not waiter.is_over:
            left = max(deadline - self.clock.monotonic(), 0.0)
            if waiter.is_live and not left:
                return
            pause = left if waiter.is_live else None
            if waiting.is_unsettled and (pause is None or pause > SETTLE_SECONDS):
                pause = SETTLE_SECONDS
            if not await waiter.nap(call.request.receive, pause):
                return
            if waiting.is_unsettled:
                waiter.settle(led=self.hub.led)

    def _answer(self, waiter: Waiter, found: Found) -> Response:
        """Raises ProblemError for every outcome but success."""
        items = _items(waiter.waiting)
        if waiter.outcome is Outcome.REACHED:
            return json_response(answers.Waited(cursor=waiter.cursor, items=items), headers=found.headers)
        if waiter.reset is not None:
            kind = REFUSALS[waiter.reset]
            raise ProblemError(kind, faults=[("after", kind.title)])
        kind, detail = self._problem(waiter)
        retry_after = 1 if kind is ProblemType.OVERLOADED else None
        more = {"cursor": waiter.cursor, "items": items}
        raise ProblemError(kind, detail, retry_after=retry_after, headers=found.headers, more=more)

    def _problem(self, waiter: Waiter) -> tuple[ProblemType, str | None]:
        """Type and detail."""
        waiting = waiter.waiting
        if waiter.outcome is Outcome.FAILED:
            member, _, reason = waiting.deciding()[0]
            words = f": {member.boot_error}" if member.boot_error else ""
            return ProblemType.WAIT_FAILED, f"{member.name or member.cvm_id}: {reason}{words}"
        if waiter.is_crowded:
            return ProblemType.OVERLOADED, "too many CVMs are waited for at the moment: name fewer"
        if waiter.is_ended:
            stopping = self.capacity.closing
            if stopping:
                return ProblemType.OVERLOADED, "it is shutting down"
            return ProblemType.UNAVAILABLE, "what this token may see has changed, ask again"
        if reason := waiting.cannot_tell or ("" if self.hub.led else NO_LEADER):
            return ProblemType.CANNOT_TELL, reason
        return ProblemType.WAIT_TIMEOUT, None


def _add(waiting: Waiting, snapshots: Sequence[Snapshot], *, led: bool) -> None:
    for snapshot in snapshots:
        state = json.loads(snapshot.raw_state, parse_int=str) if snapshot.raw_state else None
        waiting.take(SNAPSHOT, {**snapshot_data(snapshot, led=led), "state": state}, None, 0.0)


def _items(waiting: Waiting) -> list[WaitedCvm]:
    return [
        WaitedCvm(
            cvm_id=member.cvm_id,
            name=member.name,
            status=member.status,
            ready=member.ready,
            since=member.since,
            reason="" if outcome is Outcome.REACHED else reason,
            boot_error=member.boot_error,
        )
        for member, outcome, reason in waiting.deciding()[:MOST_LISTED]
    ]
