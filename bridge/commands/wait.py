"""`bridge wait`: until CVMs are ready or have a status. The decision is `bridge.waiting`'s, as that of the route is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import quote

from bridge.client import (
    AnswerError,
    BridgeError,
    Client,
    Interruption,
    RefusedError,
    UnavailableError,
    UnreachableError,
)
from bridge.client_events import Reset
from bridge.commands.terminal import as_object, bridge_client, trouble_line
from bridge.events import SNAPSHOT, dumps, entry_key
from bridge.printable import printable
from bridge.reference_sets import parse
from bridge.waiting import MOST_LISTED, SETTLE_SECONDS, Goal, Member, Outcome, Waiting

LOOK_EVERY = 2.0
"""Seconds between two questions whether there is a leader again: no event tells it."""

LAST_LOOK_SECONDS = 5.0
"""For the answer to the last question, when the time is over."""


class Code(Enum):
    """How it ends, and the exit status."""

    REACHED = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    CANNOT_TELL = 4


WORDS = {
    Code.REACHED: "reached",
    Code.FAILED: "failed to reach",
    Code.USAGE: "refused:",
    Code.TIMEOUT: "not in time:",
    Code.CANNOT_TELL: "cannot tell about",
}
"""For people, before what is waited for."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to wait for, and at which bridge. `timeout`: seconds; 0 only looks. `after`: a cursor, or empty."""

    url: str
    references: tuple[str, ...]
    goal: Goal
    timeout: float
    token: str | None = field(default=None, repr=False)
    after: str = ""
    any_of: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a wait ended: for one reference, or for all. `cursor`: a wait after it misses nothing; empty: not known.

    `cvms`: those that decided, as the command prints them.
    """

    code: Code
    reason: str = ""
    cursor: str = ""
    cvms: tuple[Mapping[str, Any], ...] = ()

    def to_json(self, goal: Goal) -> str:
        head = {"outcome": self.code.name.lower(), "to": str(goal), "reason": self.reason}
        return dumps({**head, "cursor": self.cursor or None, "cvms": self.cvms})

    def to_line(self, goal: Goal) -> str:
        """For people."""
        names = [str(each.get("name") or each.get("cvm_id")) for each in self.cvms]
        about = f": {', '.join(names[:10])}{' …' if len(names) > 10 else ''}" if names else ""
        reason = f" ({self.reason})" if self.reason else ""
        return printable(f"{WORDS[self.code]} {goal}{about}{reason}")


Show = Callable[[Member], None]
Write = Callable[[str], None]


async def wait(order: Order, show: Show, complain: Write, *, client: Client | None = None) -> Verdict:
    """The verdict, in time. `show` gets each member that changed, `complain` one line per interruption.

    Raises CommandError for a URL or a token that no request can have.
    """
    async with client or bridge_client("wait", order.url, order.token) as bridge:
        waits = [ReferenceWait(bridge, each, order, show, complain) for each in order.references]
        try:
            if not order.timeout:
                raise TimeoutError
            async with asyncio.timeout(order.timeout):
                found = await _all_of(waits, any_of=order.any_of)
        except TimeoutError:
            found = await asyncio.gather(*(each.at_the_end() for each in waits))
    return combined(found, any_of=order.any_of)


async def _all_of(waits: list[ReferenceWait], *, any_of: bool) -> list[Verdict]:
    """The verdicts until they decide."""
    found: list[Verdict] = []
    tasks = [asyncio.create_task(each.run(), name=f"wait for {each.reference}") for each in waits]
    try:
        for done in asyncio.as_completed(tasks):
            found.append(await done)
            if (found[-1].code is Code.REACHED) is any_of:
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return found


def combined(found: list[Verdict], *, any_of: bool) -> Verdict:
    """One verdict of all; the cursor is the earliest, so that a wait after it misses nothing of any reference."""
    order = [Code.REACHED, Code.USAGE, Code.CANNOT_TELL, Code.TIMEOUT, Code.FAILED]
    if not any_of:
        order = [Code.USAGE, Code.FAILED, Code.CANNOT_TELL, Code.TIMEOUT, Code.REACHED]
    code = min((each.code for each in found), key=order.index)
    deciding = [each for each in found if each.code is code]
    cursors = [each.cursor for each in found]
    return Verdict(
        code=code,
        reason=next((each.reason for each in deciding if each.reason), ""),
        cursor=min(cursors, key=entry_key) if all(cursors) else "",
        cvms=tuple(cvm for each in deciding for cvm in each.cvms),
    )


class ReferenceWait:
    """The wait for one reference: its stream, and questions where no event would tell."""

    def __init__(self, bridge: Client, reference: str, order: Order, show: Show, complain: Write) -> None:
        self.reference = reference
        self._bridge, self._order = bridge, order
        self._show, self._complain = show, complain
        self._clock = bridge.clock
        self._shown: dict[str, Member] = {}
        self._is_set = parse(reference).is_set
        self._waiting = Waiting(order.goal, after=order.after, is_set=self._is_set, any_of=order.any_of)
        self._cursor = order.after
        self._found: Verdict | None = None

    async def run(self) -> Verdict:
        """Until it is decided; also if the bridge refuses, but not while it cannot be reached."""
        tasks = [asyncio.create_task(each) for each in (self._follow(), self._look_again())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._found = done.pop().result()
        except RefusedError as error:
            self._found = self._refused(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return self._found

    async def at_the_end(self) -> Verdict:
        """What was found; else what the bridge makes of it now that the time is over."""
        if self._found is not None:
            return self._found
        try:
            async with asyncio.timeout(LAST_LOOK_SECONDS):
                found = await self._look()
            # What the stream was told last is older, so that nothing can have come in between.
            decided = found.code in (Code.REACHED, Code.FAILED)
            return found if decided else replace(found, cursor=self._cursor or found.cursor)
        except RefusedError as error:
            return self._refused(error)
        except (BridgeError, TimeoutError) as error:
            return self._verdict(Code.CANNOT_TELL, str(error) or "no answer")

    # Events

    async def _follow(self) -> Verdict:
        """Begins with what the bridge tells of the moment, and goes on with every event after it."""
        while True:
            begun = await self._begun()
            if begun.code is not Code.TIMEOUT:
                return begun
            self._cursor = self._order.after or begun.cursor
            if verdict := self._decided() or await self._events():
                return verdict
            self._waiting.forget()
            self._cursor = ""

    async def _events(self) -> Verdict | None:
        """None: history was lost, so that it begins anew."""
        bridge, after = self._bridge, self._order.after
        async with bridge.events(self.reference, after=self._cursor, on_interruption=self._interrupted) as events:
            async for event in events:
                if isinstance(event, Reset):
                    return self._verdict(Code.CANNOT_TELL, event.reason or "history_lost") if after else None
                self._waiting.take(event.type, event.data, event.time, self._clock.monotonic(), event.cursor)
                self._show_change(str(event.data.get("cvm_id")))
                self._cursor = event.cursor
                if verdict := self._decided():
                    return verdict
        raise AssertionError("events end only when they are closed")

    def _show_change(self, cvm_id: str) -> None:
        member = self._waiting.members.get(cvm_id)
        if member is not None and member != self._shown.get(cvm_id):
            self._shown[cvm_id] = member
            self._show(member)

    def _decided(self) -> Verdict | None:
        outcome = self._waiting.outcome
        if not self._cursor or outcome is Outcome.UNDECIDED:
            return None
        code = Code.REACHED if outcome is Outcome.REACHED else Code.FAILED
        reason = "" if code is Code.REACHED else self._waiting.deciding()[0][2]
        return self._verdict(code, reason)

    def _interrupted(self, interruption: Interruption) -> None:
        if interruption.tries == 1:
            self._complain(f"{trouble_line(interruption.error, self._order.url)}; trying again")

    # Questions

    async def _look_again(self) -> Verdict:
        """What counts without another event: a watch that has recovered, and a leader that is there again."""
        looked_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(SETTLE_SECONDS)
            now = self._clock.monotonic()
            self._waiting.settle(now, led=False)
            if verdict := self._decided():
                return verdict
            if self._waiting.is_leaderless and now - looked_at >= LOOK_EVERY:
                looked_at = now
                if (found := await self._look_or_nothing()).code in (Code.REACHED, Code.FAILED):
                    return found

    async def _look_or_nothing(self) -> Verdict:
        try:
            return await self._look()
        except BridgeError:
            return self._verdict(Code.CANNOT_TELL)

    async def _look(self) -> Verdict:
        """What the route of the same name answers at once. Raises BridgeError where it answers nothing about this."""
        order = self._order
        query = [("to", str(order.goal)), ("timeout", "0")]
        query += [("after", order.after)] if order.after else []
        query += [("any", "true")] if order.any_of else []
        path = f"/v1/cvms/{quote(self.reference, safe='')}/wait"
        try:
            return _answered(Code.REACHED, await self._bridge.request("GET", path, query=[*query]))
        except AnswerError as error:
            code = _CODES.get(error.type.rpartition(":")[2])
            if code is None:
                raise
            return _answered(code, error.problem)

    async def _begun(self) -> Verdict:
        """The verdict of the moment, a timeout if there is none yet, with the members. It tries until it has one."""
        complained = False
        while True:
            try:
                # The look comes first: it has the CVMs watched, and its cursor is older than what is told of them.
                found = await self._look()
                if found.code in (Code.TIMEOUT, Code.CANNOT_TELL):
                    await self._add_members()
                    return replace(found, code=Code.TIMEOUT)
                return found
            except (UnreachableError, UnavailableError) as error:
                if not complained:
                    self._complain(f"{trouble_line(error, self._order.url)}; trying again")
                complained = True
                await self._clock.sleep(
                    max(LOOK_EVERY, error.retry_after if isinstance(error, AnswerError) and error.retry_after else 0.0)
                )

    async def _add_members(self) -> None:
        async for cvm in self._bridge.items("/v1/cvms", [("cvm", self.reference)]):
            self._waiting.take(SNAPSHOT, {**cvm, "to": cvm.get("status")}, None, self._clock.monotonic())
            self._show_change(str(cvm.get("cvm_id")))

    # Verdicts

    def _verdict(self, code: Code, reason: str = "") -> Verdict:
        deciding = self._waiting.deciding()[:MOST_LISTED]
        return Verdict(
            code=code,
            reason=reason,
            cursor=self._cursor,
            cvms=tuple(
                _shown(member, why if outcome is not Outcome.REACHED else "") for member, outcome, why in deciding
            ),
        )

    def _refused(self, error: RefusedError) -> Verdict:
        """Upstream knows no such CVM, or several; the request was wrong; or the token was."""
        if error.status == 404:
            return self._verdict(Code.FAILED, str(error))
        wrong = error.status in (400, 409, 422)
        return self._verdict(Code.USAGE if wrong else Code.CANNOT_TELL, str(error))


_CODES = {"wait-failed": Code.FAILED, "wait-timeout": Code.TIMEOUT, "cannot-tell": Code.CANNOT_TELL}


def _answered(code: Code, body: object) -> Verdict:
    found = as_object(body)
    items = tuple(as_object(each) for each in found.get("items", ()))
    reason = next((str(each["reason"]) for each in items if each.get("reason")), "")
    return Verdict(
        code=code, reason=reason or str(found.get("detail", "")), cursor=str(found.get("cursor", "")), cvms=items
    )


def _shown(member: Member, reason: str) -> dict[str, Any]:
    names = ("cvm_id", "name", "status", "ready", "since")
    return {**{name: getattr(member, name) for name in names}, "reason": reason, "boot_error": member.boot_error}
