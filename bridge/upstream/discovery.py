"""`BRIDGE_CVMS`: the references that are always watched, and `*`, every CVM of the workspace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.backoff import Backoff
from bridge.clock import set_within
from bridge.events import usable_id
from bridge.store.errors import StoreUnavailableError
from bridge.store.watches import Watches
from bridge.upstream import metrics
from bridge.upstream.client import Listed
from bridge.upstream.errors import ForbiddenError, UpstreamError
from bridge.upstream.leader_context import TURN_EVERY, LeaderContext
from bridge.upstream.listing import Directory, key_of
from bridge.upstream.reader import observed
from bridge.upstream.resolver import Resolved, Resolver
from bridge.upstream.tracked import NEVER, Tracked
from bridge.upstream.workspace import EVERYTHING, Workspace

logger = logging.getLogger(__name__)

LIST_EVERY = 30.0
"""Seconds between two listings: how late a new CVM is found under `*`."""

PAGES_PER_SECOND = 5.0
"""How fast a list of very many pages is asked for, on average: a quarter of the requests that are sent at most."""

RESOLVE_EVERY = 60.0
"""The same without `*`: how late a name is found to have moved."""

LIST_PATIENCE = 3.0
"""Seconds after which the state route is asked for names, while the list has holes."""

REFUSED_FIRST, REFUSED_LONGEST = 30.0, 300.0
"""Seconds until a reference is asked for again that upstream refused, at first and at last."""

FAILED_FIRST, FAILED_LONGEST = 2.0, 10.0
"""The same where there was no answer; while upstream is down, the breaker bounds these requests."""

FEW, MANY = 8, 200
"""Questions under way at the same time, before and after upstream accepted the first one. Twenty a second that take ten
seconds each are two hundred."""


@dataclass(slots=True, kw_only=True)
class Question:
    """A reference that the state route must resolve."""

    listed: bool
    """Whether it is a key of the list."""
    listed_as: str | None = None
    """The list's `vm_uuid`."""
    app_id: str | None = None
    """The list's."""
    name: str | None
    """The configured reference that it is asked for; None for `*`."""
    due: float = NEVER
    running: bool = False
    refused: bool = False
    """Whether the last answer was a definite no."""
    refusals: Backoff = field(default_factory=lambda: Backoff(first=REFUSED_FIRST, longest=REFUSED_LONGEST))
    failures: Backoff = field(default_factory=lambda: Backoff(first=FAILED_FIRST, longest=FAILED_LONGEST))


class Discovery:
    """Keeps the configured pins up to date: names move, CVMs come and go."""

    def __init__(self, context: LeaderContext, resolver: Resolver, workspace: Workspace, watches: Watches) -> None:
        self._context = context
        self._resolver = resolver
        self._workspace = workspace
        self._watches = watches
        self._everything = EVERYTHING in context.settings.cvms
        self._names = [each for each in context.settings.cvms if each != EVERYTHING]
        self._found: dict[str, str] = {}
        """The CVM that each configured reference named last."""
        self._questions: dict[str, Question] = {}
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
        """Never returns. A round that is late is not made up for."""
        every = LIST_EVERY if self._everything else RESOLVE_EVERY
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_for_ever(group), name="questions")
            self._count_unresolved()
            while True:
                began = self._context.clock.monotonic()
                await self._round(group, every)
                every = max(every, self._workspace.pages / PAGES_PER_SECOND)
                await self._context.clock.sleep(max(0.0, began + every - self._context.clock.monotonic()))

    async def _round(self, group: asyncio.TaskGroup, every: float) -> None:
        """Lists, resolves and pins. What has no definite answer stays pinned."""
        directory = None
        self._named.clear()
        if self._everything or self._names:
            now = self._context.clock.monotonic()
            listing = group.create_task(
                self._workspace.listed_since(now, every, judges_key=self._everything), name="list"
            )
            await asyncio.wait({listing}, timeout=LIST_PATIENCE)
            if not listing.done():
                self._look_for_names(None, [name for name in self._names if name not in self._found])
            directory = await listing
        self._look_for_names(directory, self._names)
        await self._settle(directory)

    # Who is looked for

    def _take_entry(self, entry: Listed) -> None:
        """A page of the list names a CVM."""
        key = key_of(entry)
        if not self._everything or key is None:
            return
        if cvm_id := self._workspace.canonical(key):
            self._named.add(cvm_id)
        else:
            self._ask(key, Question(listed=True, listed_as=usable_id(entry.vm_uuid), app_id=entry.app_id, name=None))

    def _look_for_names(self, directory: Directory | None, names: Iterable[str]) -> None:
        """The list names most references; the state route is asked for the others."""
        for name in names:
            key = directory.find(name) if directory else None
            cvm_id = self._workspace.canonical(key) if key else None
            if cvm_id is not None:
                self._resolved(name, cvm_id)
            elif directory is not None and key is not None:
                listed_as = key if key in directory.uuids else None
                self._ask(key, Question(listed=True, listed_as=listed_as, name=name))
            else:
                self._ask(name, Question(listed=False, name=name))

    def _ask(self, reference: str, question: Question) -> None:
        if reference not in self._questions:
            self._questions[reference] = question
            self._asked.set()

    async def _ask_for_ever(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._asked.clear()
            now = self._context.clock.monotonic()
            running = sum(each.running for each in self._questions.values())
            due = (key for key, each in self._questions.items() if not each.running and each.due <= now)
            reference = next(due, None) if running < (MANY if self._answered else FEW) else None
            if reference is None:
                await set_within(self._asked, TURN_EVERY if self._questions else RESOLVE_EVERY)
                continue
            question = self._questions[reference]
            question.running = True
            await self._context.turn()
            group.create_task(self._resolve(reference, question), name=f"resolve {reference}")

    async def _resolve(self, reference: str, question: Question) -> None:
        try:
            ours = question.name is not None
            resolved = await self._resolver.resolve(reference, ours=ours, listed_as=question.listed_as)
        except UpstreamError as error:
            self._refused(reference, question, error)
            return
        finally:
            question.running = False
        self._answered = True
        self._questions.pop(reference, None)
        if question.listed:
            self._workspace.learn(reference, resolved.cvm_id)
        if question.name is not None:
            self._resolved(question.name, resolved.cvm_id)
        await self._adopt(resolved, question.app_id)

    def _refused(self, reference: str, question: Question, error: UpstreamError) -> None:
        now, rng = self._context.clock.monotonic(), self._context.rng
        # One forbidden CVM of the list is not ours.
        question.refused = error.is_definite or (question.name is None and isinstance(error, ForbiddenError))
        backoff = question.refusals if question.refused else question.failures
        question.due = now + backoff.fail(now, rng, error.retry_after or 0.0)
        if question.name is not None and question.name not in self._complained:
            extra = {"reference": question.name, "reason": error.reason, "error": str(error)}
            logger.warning("a reference of BRIDGE_CVMS cannot be resolved", extra=extra)
            self._complained.add(question.name)

    def _resolved(self, name: str, cvm_id: str) -> None:
        self._found[name] = cvm_id
        self._questions.pop(name, None)
        self._complained.discard(name)
        self._count_unresolved()

    def _count_unresolved(self) -> None:
        metrics.UNRESOLVED.set(sum(name not in self._found for name in self._names))

    # Pins

    async def _adopt(self, resolved: Resolved, app_id: str | None) -> None:
        """Pins the CVM and records its state. Where Redis does not answer, the next round pins it."""
        try:
            await self._watches.change_config_pins([resolved.cvm_id])
        except StoreUnavailableError:
            return
        if resolved.reading is not None:
            now = self._context.clock.monotonic()
            tracked = self._context.watches.setdefault(resolved.cvm_id, Tracked.loaded(resolved.cvm_id, None, now))
            if app_id:
                self._context.recorder.name_app(tracked, app_id)
            await observed(self._context, tracked, resolved.reading)

    async def _settle(self, directory: Directory | None) -> None:
        """Pins what was found. What is not found is unpinned in the second complete round, or once it is deleted."""
        self._forget_unlisted(directory)
        wanted, complete = self._wanted(directory)
        try:
            pinned = await self._watches.config_pins()
            lacking = pinned - wanted
            gone = {each for each in lacking - self._named if self._is_gone(each)}
            if complete and self._believes(directory, lacking - gone):
                gone |= lacking & self._lacking
                self._lacking = lacking - gone
            if gone or not wanted <= pinned:
                await self._watches.change_config_pins(wanted - pinned, gone)
        except StoreUnavailableError:
            logger.info("the pins of BRIDGE_CVMS could not be written: Redis does not answer")

    def _believes(self, directory: Directory | None, lacking: set[str]) -> bool:
        """Whether nobody is let go for an empty list alone: where CVMs are gone, the state route says so too."""
        doubts = self._everything and directory is not None and not directory.keys and bool(lacking)
        if doubts and not self._doubts_list:
            logger.error(
                "upstream's list names no CVM: none is let go before it is deleted", extra={"cvms": len(lacking)}
            )
        self._doubts_list = doubts
        return not doubts

    def _forget_unlisted(self, directory: Directory | None) -> None:
        """Nobody is asked for who is not in the list any more."""
        for key in [key for key, each in self._questions.items() if each.listed and not each.running]:
            if directory is not None and key not in directory.keys:
                del self._questions[key]

    def _is_gone(self, cvm_id: str) -> bool:
        tracked = self._context.watches.get(cvm_id)
        return tracked is not None and tracked.gone

    def _wanted(self, directory: Directory | None) -> tuple[set[str], bool]:
        """The CVMs to pin, as far as they are known, and whether these are all."""
        if not self._everything and not self._names:
            return set(), True
        wanted = set(self._found.values())
        # An upstream at fault (another key, another prefix) refuses names that are there.
        complete = not self._context.fault and (directory is not None or not self._everything)
        for name in self._names:
            key = directory.find(name) if directory else None
            question = self._questions.get(name if key is None else key)
            complete = complete and (question is None or question.refused or name in self._found)
        for key in directory.keys if directory and self._everything else ():
            cvm_id, question = self._workspace.canonical(key), self._questions.get(key)
            if cvm_id is not None:
                wanted.add(cvm_id)
            else:
                complete = complete and question is not None and question.refused
        return wanted, complete
