"""`BRIDGE_CVMS`, the references that are always watched, and the members of its sets and of subscribers' sets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

from bridge.backoff import Backoff
from bridge.clock import set_within
from bridge.events import usable_id
from bridge.reference_sets import parse
from bridge.store.errors import StoreUnavailableError
from bridge.store.watches import Watches
from bridge.upstream import metrics
from bridge.upstream.client import Listed
from bridge.upstream.errors import ForbiddenError, UpstreamError
from bridge.upstream.leader_context import TURN_EVERY, LeaderContext
from bridge.upstream.listing import Directory, key_of
from bridge.upstream.reader import observed
from bridge.upstream.resolver import PATIENCE, Resolved, Resolver
from bridge.upstream.tracked import NEVER, Tracked
from bridge.upstream.workspace import Workspace

logger = logging.getLogger(__name__)

LIST_EVERY = 30.0
"""Seconds between two listings: how late a new member of a set is found."""

PAGES_PER_SECOND = 5.0
"""How fast a list of very many pages is asked for, on average: a quarter of the requests that are sent at first."""

RESOLVE_EVERY = 60.0
"""The same without sets: how late a name is found to have moved."""

GATHER = 0.5
"""Seconds in which several new sets are one occasion to look for their members."""

LIST_PATIENCE = 3.0
"""Seconds after which the state route is asked for names, while the list has holes."""

REFUSED_FIRST, REFUSED_LONGEST = 30.0, 300.0
"""Seconds until a reference is asked for again that upstream refused, at first and at last."""

FAILED_FIRST, FAILED_LONGEST = 2.0, 10.0
"""The same where there was no answer; while upstream is down, the breaker bounds these requests."""

FEW, MANY = 8, 200
"""Questions under way at the same time, before and after upstream accepted the first one. Twenty a second that take ten
seconds each are two hundred."""


NO_MEMBER = "no CVM matches it yet"
WORDS = {"conflict": "several CVMs match it", "not_found": "upstream finds no such CVM"}
"""What is wrong with a reference, by the reason of upstream's refusal."""


@dataclass(slots=True, kw_only=True)
class Question:
    """A reference that the state route must resolve."""

    entry: Listed | None = None
    """The list's, of which it is the key."""
    name: str | None
    """The configured reference that it is asked for; None for sets."""
    due: float = NEVER
    running: bool = False
    refused: bool = False
    """Whether the last answer was a definite no."""
    reason: str = ""
    """Why there was no answer."""
    refusals: Backoff = field(default_factory=lambda: Backoff(first=REFUSED_FIRST, longest=REFUSED_LONGEST))
    failures: Backoff = field(default_factory=lambda: Backoff(first=FAILED_FIRST, longest=FAILED_LONGEST))


class Discovery:
    """Keeps the configured pins and the members of sets up to date: names move, CVMs come and go."""

    def __init__(self, context: LeaderContext, resolver: Resolver, workspace: Workspace, watches: Watches) -> None:
        self._context = context
        self._membership = context.membership
        self._resolver = resolver
        self._workspace = workspace
        self._watches = watches
        self._found: dict[str, str] = {}
        """The CVM that each configured name named last."""
        self._questions: dict[str, Question] = {}
        self._urgent: dict[str, Question] = {}
        """Those of them whose CVMs are in motion."""
        self._running = 0
        self._asked = asyncio.Event()
        self._answered = False
        self._lacking: set[str] = set()
        """Pins that the last complete round did not find."""
        self._named: set[str] = set()
        """CVMs that a page named in the present round, whether or not others failed."""
        self._doubts_list = False
        self._complained: set[str] = set()
        workspace.on_entry = self._take_entry

    async def run(self) -> None:
        """Never returns. A round that is late is not made up for; a new set takes the last list, if it is not old."""
        is_due = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_for_ever(group), name="questions")
            self._count_unresolved()
            while True:
                self._membership.changed.clear()
                if is_due:
                    began = self._context.clock.monotonic()
                await self._round(group, self._every(), began, counts=is_due)
                left = began + self._every() - self._context.clock.monotonic()
                is_due = left <= 0 or not await set_within(self._membership.changed, left)
                if not is_due:
                    await self._context.clock.sleep(GATHER)

    def _every(self) -> float:
        every = LIST_EVERY if self._membership.stands else RESOLVE_EVERY
        return max(every, self._workspace.pages / PAGES_PER_SECOND)

    async def _round(self, group: asyncio.TaskGroup, every: float, since: float, *, counts: bool) -> None:
        """Lists, resolves and pins. What has no definite answer stays pinned. `counts`: the list is a new one, so that
        nobody is let go for one list that two rounds took.
        """
        directory, names = None, self._membership.names
        self._named.clear()
        if self._membership.stands or names:
            judges_key = bool(self._membership.configured)
            listing = group.create_task(self._workspace.listed_since(since, every, judges_key=judges_key), name="list")
            await asyncio.wait({listing}, timeout=LIST_PATIENCE)
            if not listing.done():
                self._look_for_names(None, [name for name in names if name not in self._found])
            directory = await listing
        for entry in directory.entries.values() if directory else ():
            self._take_entry(entry)  # pages may have come before a set stood
        self._look_for_names(directory, names)
        await self._settle(directory, counts=counts)

    # Who is looked for

    def _take_entry(self, entry: Listed) -> None:
        """The list names a CVM."""
        key = key_of(entry)
        if key is None or not self._membership.wants(entry):
            return
        if cvm_id := self._workspace.canonical(key):
            self._named.add(cvm_id)
            self._membership.listed(cvm_id)
        else:
            self._ask(key, Question(entry=entry, name=None))

    async def consider(self, reference: str, cvm_id: str) -> None:
        """A hint is about a CVM that is not watched: a member of a set is watched at once. Where upstream does not
        tell its app now, the next list does.
        """
        if not self._membership.stands or not await self._context.turn(PATIENCE):
            return
        try:
            entry = await self._context.client.read_listed(reference)
        except UpstreamError as error:
            self._context.apply(error, reference, ours=False)
            logger.info("a hint could not be followed", extra={"reference": reference, "reason": error.reason})
            return
        if self._membership.wants(entry):
            await self._adopt(Resolved(cvm_id, None), entry)

    def _look_for_names(self, directory: Directory | None, names: Iterable[str]) -> None:
        """The list names most references; the state route is asked for the others."""
        for name in names:
            key = directory.find(name) if directory else None
            cvm_id = self._workspace.canonical(key) if key else None
            if cvm_id is not None:
                self._resolved(name, cvm_id)
            elif directory is not None and key is not None:
                self._ask(key, Question(entry=directory.entries[key], name=name))
            else:
                self._ask(name, Question(name=name))

    def _ask(self, reference: str, question: Question) -> None:
        if reference not in self._questions:
            self._questions[reference] = question
            if question.entry is not None and question.entry.in_motion:
                self._urgent[reference] = question
            self._context.unresolved += question.entry is not None
            self._asked.set()

    def _forget(self, reference: str) -> None:
        question = self._questions.pop(reference, None)
        self._urgent.pop(reference, None)
        self._context.unresolved -= question is not None and question.entry is not None

    def _next(self, now: float) -> str | None:
        """What is asked for next: first the CVMs that the list shows in motion."""
        due = chain(self._urgent.items(), self._questions.items())
        return next((key for key, each in due if not each.running and each.due <= now), None)

    async def _ask_for_ever(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._asked.clear()
            now = self._context.clock.monotonic()
            reference = self._next(now) if self._running < (MANY if self._answered else FEW) else None
            if reference is None:
                await set_within(self._asked, TURN_EVERY if self._questions else RESOLVE_EVERY)
                continue
            question = self._questions[reference]
            question.running = True
            self._running += 1
            await self._context.turn()
            group.create_task(self._resolve(reference, question), name=f"resolve {reference}")

    async def _resolve(self, reference: str, question: Question) -> None:
        try:
            ours, entry = question.name is not None, question.entry
            listed_as = usable_id(entry.vm_uuid) if entry else None
            resolved = await self._resolver.resolve(reference, ours=ours, listed_as=listed_as)
        except UpstreamError as error:
            self._refused(reference, question, error)
            return
        finally:
            question.running = False
            self._running -= 1
        self._answered = True
        self._forget(reference)
        if entry is not None:
            self._workspace.learn(reference, resolved.cvm_id)
        if question.name is not None:
            self._resolved(question.name, resolved.cvm_id)
        await self._adopt(resolved, entry, pinned=question.name is not None)

    def _refused(self, reference: str, question: Question, error: UpstreamError) -> None:
        now, rng = self._context.clock.monotonic(), self._context.rng
        # One forbidden CVM of the list is not ours.
        question.refused = error.is_definite or (question.name is None and isinstance(error, ForbiddenError))
        question.reason = error.reason
        backoff = question.refusals if question.refused else question.failures
        question.due = now + backoff.fail(now, rng, error.retry_after or 0.0)
        if question.name is not None and question.name not in self._complained:
            extra = {"reference": question.name, "reason": error.reason, "error": str(error)}
            logger.warning("a reference of BRIDGE_CVMS cannot be resolved", extra=extra)
            self._complained.add(question.name)

    def _resolved(self, name: str, cvm_id: str) -> None:
        self._found[name] = cvm_id
        self._forget(name)
        self._complained.discard(name)
        self._count_unresolved()

    def _count_unresolved(self) -> None:
        metrics.UNRESOLVED.set(sum(name not in self._found for name in self._membership.names))

    # Pins

    async def _adopt(self, resolved: Resolved, entry: Listed | None, *, pinned: bool = False) -> None:
        """Has the CVM watched and records its state. Where Redis does not answer, the next round does it."""
        cvm_id = resolved.cvm_id
        try:
            if pinned or (entry is not None and self._membership.pins(entry)):
                await self._watches.change_config_pins([cvm_id])
            elif entry is not None and self._membership.demands(entry):
                await self._watches.renew([cvm_id])
            else:
                return  # no set wants it any more
        except StoreUnavailableError:
            return
        tracked = self._track(cvm_id, entry)
        if resolved.reading is not None:
            await observed(self._context, tracked, resolved.reading)

    def _track(self, cvm_id: str, entry: Listed | None) -> Tracked:
        """Its first state shall tell its app, by which it belongs to a set."""
        now = self._context.clock.monotonic()
        tracked = self._context.watches.setdefault(cvm_id, Tracked.loaded(cvm_id, None, now))
        if entry is not None:
            self._context.recorder.identify(tracked, entry.app_id, entry.name)
            self._membership.listed(cvm_id)
        return tracked

    async def _settle(self, directory: Directory | None, *, counts: bool) -> None:
        """Pins what was found. What is not found is unpinned in the second complete round, or once it is deleted."""
        self._forget_unlisted(directory)
        members, complete = self._wanted(directory)
        wanted = {*members, *self._found.values()} if self._is_configured else set[str]()
        await self._settle_demanded(directory, counts=counts)
        self._tell_unmet(directory)
        try:
            pinned = await self._watches.config_pins()
            lacking = pinned - wanted
            gone = {each for each in lacking - self._named if self._is_gone(each)}
            if counts and complete and self._believes(directory, lacking - gone):
                gone |= lacking & self._lacking
                self._lacking = lacking - gone
            if gone or not wanted <= pinned:
                await self._watches.change_config_pins(wanted - pinned, gone)
            for cvm_id in members.keys() - pinned:
                self._track(cvm_id, members[cvm_id])
        except StoreUnavailableError:
            logger.info("the pins of BRIDGE_CVMS could not be written: Redis does not answer")

    async def _settle_demanded(self, directory: Directory | None, *, counts: bool) -> None:
        """Watches the members of subscribers' sets that are not, and forgets those that the list has lost."""
        if directory is None or not self._membership.is_demanded:
            return
        members, complete = self._members(directory, self._membership.demands)
        if counts and complete and directory.keys and not self._context.fault:
            self._membership.settle(members.keys(), self._context.watches.values())
        missing = members.keys() - self._context.watches.keys()
        try:
            await self._watches.renew(missing)
            for cvm_id in missing:
                self._track(cvm_id, members[cvm_id])
        except StoreUnavailableError:
            logger.info("members of sets could not be watched: Redis does not answer")

    def _believes(self, directory: Directory | None, lacking: set[str]) -> bool:
        """Whether nobody is let go for an empty list alone: where CVMs are gone, the state route says so too."""
        empty = bool(self._membership.configured) and directory is not None and not directory.keys
        doubts = empty and bool(lacking)
        if doubts and not self._doubts_list:
            logger.error(
                "upstream's list names no CVM: none is let go before it is deleted", extra={"cvms": len(lacking)}
            )
        self._doubts_list = doubts
        return not doubts

    def _forget_unlisted(self, directory: Directory | None) -> None:
        """Nobody is asked for who is not in the list any more, or whom no set wants any more."""
        for key in [key for key, each in self._questions.items() if each.entry is not None and not each.running]:
            question = self._questions[key]
            unwanted = question.name is None and question.entry and not self._membership.wants(question.entry)
            if directory is not None and (key not in directory.keys or unwanted):
                self._forget(key)

    def _is_gone(self, cvm_id: str) -> bool:
        tracked = self._context.watches.get(cvm_id)
        return tracked is not None and tracked.gone

    @property
    def _is_configured(self) -> bool:
        return bool(self._membership.configured or self._membership.names)

    def _wanted(self, directory: Directory | None) -> tuple[dict[str, Listed], bool]:
        """The members of the sets of `BRIDGE_CVMS`, and whether these and the CVMs of its names are all."""
        membership = self._membership
        if not self._is_configured:
            return {}, True
        # An upstream at fault (another key, another prefix) refuses names that are there.
        complete = not self._context.fault and (directory is not None or not membership.configured)
        for name in membership.names:
            key = directory.find(name) if directory else None
            question = self._questions.get(name if key is None else key)
            complete = complete and (question is None or question.refused or name in self._found)
        members, all_known = self._members(directory, membership.pins) if directory else ({}, True)
        return members, complete and all_known

    def _members(self, directory: Directory, belongs: Callable[[Listed], bool]) -> tuple[dict[str, Listed], bool]:
        """Those of the listed CVMs that belong, by canonical id as far as it is known, and whether these are all."""
        members, complete = dict[str, Listed](), True
        for key, entry in directory.entries.items():
            if not belongs(entry):
                continue
            cvm_id, question = self._workspace.canonical(key), self._questions.get(key)
            if cvm_id is not None:
                members[cvm_id] = entry
            else:
                complete = complete and question is not None and question.refused
        return members, complete

    def _tell_unmet(self, directory: Directory | None) -> None:
        """Tells which references of `BRIDGE_CVMS` name no CVM; sets only where the list is known."""
        unmet = {
            name: WORDS.get(question.reason, question.reason)
            for name in self._membership.names
            if (question := self._questions.get(name)) is not None and question.refused and name not in self._found
        }
        if directory is None:
            unmet |= {text: why for text, why in self._context.unmet.items() if parse(text).is_set}
        else:
            unmet |= dict.fromkeys(self._membership.without_members(directory.entries.values()), NO_MEMBER)
        for text in unmet.keys() - self._context.unmet.keys():
            if unmet[text] == NO_MEMBER:
                logger.warning("a reference of BRIDGE_CVMS matches no CVM yet", extra={"reference": text})
        self._context.unmet = unmet
