"""Resolves references to canonical ids by the leader's answers; callers that wait for one reference share a request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import Response

from bridge.clock import Clock
from bridge.cvm_scope import EVERY_CVM, CvmScope
from bridge.events import usable_id
from bridge.reference_sets import Reference, ReferenceSet
from bridge.store.errors import TooManyLookupsError
from bridge.store.reference_lookups import Answer, ReferenceLookups
from bridge.store.watches import Watches
from bridge.web import metrics
from bridge.web.api.envelopes import CVM_ID
from bridge.web.api.stand_ins import StandIns
from bridge.web.api.visibility import Visibility, told_by
from bridge.web.http.access import ANYBODY, Principal
from bridge.web.http.allowance import Allowance
from bridge.web.http.parameters import REFERENCE, in_path
from bridge.web.http.problems import ProblemError, ProblemType, invalid, problem_response, unavailable
from bridge.web.http.responses import NO_STORE
from bridge.web.http.single_flight import SingleFlight

PATIENCE = 10.0
SOON = 2.0
"""Seconds after which the last known answer stands in for the leader's, where it may."""

ASK_AGAIN_EVERY = 1.0
"""Seconds between two reads of the answer; the message that it exists is only a hint."""


LOOK_UPS_AT_ONCE = 50
"""Of one request: the first refusal spares Redis the others. The leader asks upstream 20 times a second."""


class ReferenceRefusedError(Exception):
    """Upstream refused the reference; its answer is passed on unchanged."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("upstream refused the reference")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Found:
    """Canonical ids and sets.

    `last_known`: upstream could not be asked about a name, and what it meant last stands in.
    """

    cvm_ids: list[str]
    last_known: bool = False
    sets: tuple[Reference, ...] = ()

    @property
    def named(self) -> ReferenceSet:
        """All of them as one set."""
        return ReferenceSet(cvm_ids=frozenset(self.cvm_ids)) | ReferenceSet.of(self.sets)

    @property
    def headers(self) -> dict[str, str]:
        """What an answer tells about it."""
        return {LAST_KNOWN: "last-known"} if self.last_known else {}


@dataclass(frozen=True, slots=True)
class Looked:
    """The answer that one reference got."""

    cvm_id: str
    answer: Answer
    last_known: bool


LAST_KNOWN = "Bridge-Reference"
LAST_KNOWN_HEADER = {
    LAST_KNOWN: {
        "description": "Upstream could not be asked which CVM this is: what the reference meant last stands in",
        "schema": {"type": "string", "const": "last-known"},
    }
}

REF = in_path(
    "ref", "An id or a name: any reference that Phala Cloud accepts for a CVM", CVM_ID, REFERENCE, is_reference=True
)
REF_OR_SET = in_path(
    "ref",
    "The same, or many CVMs: `app_…` (all of that app), `name:web-*` (all whose name fits), `*`",
    CVM_ID,
    REFERENCE,
    is_reference=True,
    shared_as="ref_or_set",
)


class References:
    """`resolve` and `ask` wait at most `PATIENCE` seconds for a leader."""

    def __init__(
        self,
        lookups: ReferenceLookups,
        watches: Watches,
        clock: Clock,
        single_flight: SingleFlight,
        stand_ins: StandIns,
        *,
        visibility: Visibility,
        led: Callable[[], bool],
        per_minute: int,
    ) -> None:
        """`per_minute`: look-ups of unknown references for each token."""
        self._visibility = visibility
        self._stand_ins = stand_ins
        self._led = led
        self._allowance = Allowance(per_minute, clock)
        self._lookups = lookups
        self._watches = watches
        self._clock = clock
        self._single_flight = single_flight
        # Only waiting callers hold the values: an entry is gone with the last of them.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closed = False

    def answered(self, reference: str) -> None:
        """The leader answered: waiting callers read the answer from Redis."""
        if (event := self._waiting.pop(reference, None)) is not None:
            event.set()

    def close(self) -> None:
        """Ends all waiting, because the front end stops."""
        self._closed = True
        for reference in list(self._waiting):
            self.answered(reference)

    async def resolve(self, reference: str, principal: Principal = ANYBODY) -> str:
        """The canonical id. Raises as `resolve_all`."""
        return (await self.resolve_all([reference], principal))[0]

    async def resolve_all(self, references: Sequence[str], principal: Principal = ANYBODY) -> list[str]:
        """The canonical ids, in order, as upstream has them now; ids that are watched cost one round trip in all.

        Raises ProblemError (403, 422, 429, 503), StoreError or ReferenceRefusedError.
        """
        return (await self._resolve(references, principal, last_known=False)).cvm_ids

    async def find(self, references: Sequence[str], principal: Principal) -> Found:
        """As `resolve_all`, for reading: what a reference meant last stands in while upstream cannot be asked."""
        return await self._resolve(references, principal, last_known=True)

    async def find_all(self, references: Sequence[Reference], principal: Principal) -> Found:
        """As `find`, and sets stay what they are: whose CVMs belong to them, and may be seen, each event tells."""
        found = await self.find([each.text for each in references if not each.is_set], principal)
        return replace(found, sets=tuple(each for each in references if each.is_set))

    async def require(self, principal: Principal, answer: Answer) -> None:
        """For the CVM that upstream has named. Raises ProblemError 403 or 503, StoreError."""
        if answer.cvm_id is not None:
            await self._visibility.require(principal, [answer.cvm_id], told_by(answer))

    async def _resolve(self, references: Sequence[str], principal: Principal, *, last_known: bool) -> Found:
        if any(usable_id(reference) is None for reference in references):
            raise invalid("cvm", "a reference has 1 to 256 printable characters")
        if not references:
            return Found([])
        # Callers that ask for the same at the same moment share one question.
        wanted = tuple(references)
        watched = await self._single_flight.ask(("watched", wanted), lambda: self._watches.existing(wanted))
        unknown = [each for each in dict.fromkeys(wanted) if each not in watched]
        found: dict[str, Looked] = {}
        for start in range(0, len(unknown), LOOK_UPS_AT_ONCE):
            found |= await self._look_up_all(
                unknown[start : start + LOOK_UPS_AT_ONCE], principal, last_known=last_known
            )
        cvm_ids = [found[each].cvm_id if each in found else each for each in wanted]
        told = {cvm_id: identity for each in found.values() for cvm_id, identity in told_by(each.answer).items()}
        await self._visibility.require(principal, cvm_ids, told)
        return Found(cvm_ids, any(each.last_known for each in found.values()))

    async def _look_up_all(
        self, references: Sequence[str], principal: Principal, *, last_known: bool
    ) -> dict[str, Looked]:
        """All of them at once; raises the first refusal."""
        asking = [asyncio.ensure_future(self._look_up(each, principal, last_known=last_known)) for each in references]
        try:
            return dict(zip(references, await asyncio.gather(*asking), strict=True))
        finally:
            for each in asking:
                each.cancel()

    async def _look_up(self, reference: str, principal: Principal, *, last_known: bool) -> Looked:
        # By token, because each has an allowance: nobody is refused for another's.
        question = partial(self._answer_or_last if last_known else self._answer, reference, principal)
        key = ("reference", reference, principal.name, last_known)
        answer, stands_in = await self._single_flight.ask(key, question)
        if answer.cvm_id is not None:
            return Looked(answer.cvm_id, answer, stands_in)
        if answer.is_final and principal.cvms is not None:
            principal.refuse()  # the same answer as for another's CVM: it tells nothing about what exists
        raise ReferenceRefusedError(answer)

    async def _answer(self, reference: str, principal: Principal) -> tuple[Answer, bool]:
        if (known := await self._lookups.find(reference)) is not None:
            return known, False
        self._allow(principal)
        return await self.ask(reference), False

    async def _answer_or_last(self, reference: str, principal: Principal) -> tuple[Answer, bool]:
        """The answer, and whether it is the last known one: that comes before a wait for a leader that is away."""
        known = await self._lookups.find(reference)
        if asks_first := known is None and self._led():
            self._allow(principal)
            with suppress(ProblemError):
                known = await self.ask(reference, SOON)
        if known is not None and known.is_about_reference:
            return known, False
        last = await self._stand_ins.find(reference)
        # To a limited token, a name that others have must look like one that nobody has.
        if last is not None and await self._may_see(principal, last):
            return last, True
        if known is None:
            if not asks_first:
                self._allow(principal)
            known = await self.ask(reference)
        return known, False

    async def _may_see(self, principal: Principal, last: Answer) -> bool:
        if last.cvm_id is None:
            return principal.cvms is None
        return await self._visibility.may_see(principal, [last.cvm_id], told_by(last))

    def _allow(self, principal: Principal) -> None:
        """Raises ProblemError 429. An administrator has no limit of its own; the leader has a budget for all."""
        wait = 0.0 if principal.admin else self._allowance.take(principal.name)
        if wait:
            detail = f"BRIDGE_LOOKUPS_PER_MINUTE is {self._allowance.per_minute}"
            raise ProblemError(ProblemType.TOO_MANY_LOOKUPS, detail, retry_after=math.ceil(wait))

    async def ask(self, reference: str, patience: float = PATIENCE) -> Answer:
        """Upstream's answer about a reference, at most a minute old. Raises ProblemError 503 or StoreError."""
        outcome = "unanswered"
        try:
            answer = await self._ask(reference, patience)
            outcome = "refused" if answer.cvm_id is None else "found"
            return answer
        finally:
            metrics.LOOKUPS.labels(outcome).inc()

    async def _ask(self, reference: str, patience: float) -> Answer:
        deadline = self._clock.monotonic() + patience
        while not self._closed and self._clock.monotonic() < deadline:
            # Before the read, so that an answer that comes in between is not missed.
            event = self._waiting.setdefault(reference, asyncio.Event())
            try:
                answer = await self._lookups.ask(reference)
                if answer is not None:
                    return answer
                async with asyncio.timeout(ASK_AGAIN_EVERY):
                    await event.wait()
            except TimeoutError:
                continue
            except TooManyLookupsError as error:
                raise unavailable("too many unknown references are being looked up") from error
        if self._closed:
            raise unavailable("this front end is shutting down")
        raise unavailable("no leader has answered about this reference; is `bridge upstream` running?", 5)

    async def ask_anew(self, reference: str) -> Answer:
        """As `ask`, for a reference whose CVM was deleted since it was found."""
        answer = await self.ask(reference)
        if answer.cvm_id is None:
            return answer
        await self._lookups.forget(reference)
        return await self.ask(reference)


def scope_of(found: Found | None, principal: Principal) -> CvmScope:
    """What a request that names this gets; None: it names nothing in particular."""
    if found is None and principal.cvms is None:
        return EVERY_CVM
    return CvmScope(found.named if found else None, principal.cvms)


def problem_of(error: ReferenceRefusedError) -> ProblemError:
    """For clients that cannot be shown upstream's own answer."""
    status = error.answer.status
    if error.answer.is_final:
        return ProblemError(ProblemType.UPSTREAM, status=status)
    if status in (401, 403):
        return ProblemError(ProblemType.UPSTREAM, "upstream refuses the bridge's own API key")
    return ProblemError(ProblemType.UPSTREAM, status=429 if status == 429 else None)


async def on_refused_reference(request: Request, error: Exception) -> Response:
    """Upstream's own answer where it is about the reference; else a passing problem, which tells nothing more."""
    assert isinstance(error, ReferenceRefusedError)
    answer = error.answer
    if answer.is_final and answer.body:
        return Response(answer.body, answer.status, NO_STORE, media_type=answer.content_type)
    return problem_response(problem_of(error))
