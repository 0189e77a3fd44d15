"""The routes of watched CVMs and of the slots (`docs/contract.md#http`)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.responses import Response

from bridge.cvm_scope import CvmScope
from bridge.events import NOT_SEEN
from bridge.store.connection import Backend
from bridge.store.leader_status import read_leader_status, read_polling
from bridge.store.slots import SlotRecord, Slots
from bridge.store.snapshots import Snapshot, SnapshotHead, Snapshots
from bridge.store.watches import Watch, Watches
from bridge.web.api import answers
from bridge.web.api.references import LAST_KNOWN_HEADER, REF, Found, References, scope_of
from bridge.web.http.operations import CVMS, NO_BODY, Call, Operation, Resource, json_answer
from bridge.web.http.page_turns import PAGE_BYTES, PageTurns
from bridge.web.http.parameters import AFTER, CVMS_NAMED, LIMIT, READY
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.http.responses import Shape, Verbatim, empty_response, json_response, page_response
from bridge.web.streaming.frames import freshness
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.shared_read import SharedRead

READ_AT_ONCE = 50
"""Snapshots that a page reads at once, before it looks how large they are."""

MOST_LOOKED_AT = 5000
"""CVMs that a page with a filter looks at; one with fewer items than asked for may have a `next`."""

CVM = Resource("/v1/cvms/{ref}", CVMS, (REF,))


@dataclass(slots=True)
class _Page:
    """What was asked for: at most `size` items, of those that are `ready` (None: all)."""

    size: int
    ready: bool | None
    counts: answers.CvmCounts | None = None
    progress: answers.CvmProgress | None = None

    def told(self) -> Mapping[str, Shape | None]:
        return {"counts": self.counts, "progress": self.progress}


@dataclass(frozen=True, slots=True, kw_only=True)
class CvmRoutes:
    """Without a leader (`hub.led`) every CVM is shown as stale and every taken slot as quarantined."""

    hub: Hub
    watches: Watches
    snapshots: Snapshots
    slots: Slots
    backend: Backend
    references: References
    page_turns: PageTurns
    directory: SharedRead[list[SnapshotHead]]
    """Of all watched CVMs, by ascending id."""

    @Operation(
        "GET /v1/cvms",
        CVMS,
        {200: json_answer("A page", answers.CvmPage, LAST_KNOWN_HEADER)},
        scope="read",
        parameters=(CVMS_NAMED, READY, LIMIT, AFTER),
    )
    async def list_cvms(self, call: Call) -> Response:
        """Watched CVMs.

        With `cvm` an answer counts the CVMs of all pages, by `ready` and by status.
        """
        page = _Page(call.get(LIMIT), {"true": True, "false": False}.get(call.get(READY) or ""))
        named, principal = call.get(CVMS_NAMED), call.principal
        found = await self.references.find_all(named, principal) if named else None
        scope = scope_of(found, principal)
        async with self.page_turns.take():
            if found is not None or (principal.cvms is not None and not principal.cvms.is_fixed):
                return await self._selected(scope, found, call.get(AFTER), page)
            after, most = call.get(AFTER), page.size if page.ready is None else MOST_LOOKED_AT
            if principal.cvms is None:
                page.progress = await self._progress()
                watches = await self.watches.list(after, most + 1)
                following = watches[most - 1].cvm_id if len(watches) > most else None
                return await self._page(watches[:most], following, page)
            ids = sorted(cvm_id for cvm_id in principal.cvms.cvm_ids if cvm_id > after)
            following = ids[most - 1] if len(ids) > most else None
            return await self._page(await self.watches.some(ids[:most]), following, page)

    async def _progress(self) -> answers.CvmProgress | None:
        status = await read_leader_status(self.backend) if self.hub.led else {}
        known, found = status.get("known"), status.get("found")
        return (
            None if known is None or found is None or known >= found else answers.CvmProgress(known=known, found=found)
        )

    async def _selected(self, scope: CvmScope, found: Found | None, after: str, page: _Page) -> Response:
        """A page of the CVMs that names, apps or patterns select: what these compare is read of every CVM."""
        heads = await self._heads(scope)
        if page.ready is not None:
            heads = [each for each in heads if each.ready is page.ready]
        ids = [each.cvm_id for each in heads if each.cvm_id > after]
        following = ids[page.size - 1] if len(ids) > page.size else None
        if found is not None:
            page.counts = _counted(heads)
        watches = await self.watches.some(ids[: page.size])
        return await self._page(watches, following, page, found.headers if found else {})

    async def _heads(self, scope: CvmScope) -> list[SnapshotHead]:
        """By ascending id, those of the watched CVMs of a scope; one that was not seen yet has neither app nor name."""
        ids = scope.cvm_ids
        if ids is None:
            return [each for each in await self.directory.get() if scope.has(each)]
        return await read_heads(self.watches, self.snapshots, sorted(ids))

    async def _page(
        self, watches: Sequence[Watch], following: str | None, page: _Page, headers: Mapping[str, str] | None = None
    ) -> Response:
        """As many as fit; `following` is `next` where that is all of them."""
        texts, size, streamed = [], 0, await self._streamed()
        for start in range(0, len(watches), READ_AT_ONCE):
            some = watches[start : start + READ_AT_ONCE]
            for watch, cvm in zip(some, await self._shown(some, streamed), strict=True):
                if page.ready is not None and cvm.ready is not page.ready:
                    continue
                texts.append(cvm.json_text())
                size += len(texts[-1])
                if size >= PAGE_BYTES or len(texts) == page.size:
                    following = following if watch is watches[-1] else watch.cvm_id
                    return page_response(texts, following, headers, more=page.told())
        return page_response(texts, following, headers, more=page.told())

    @CVM("GET", {200: json_answer("The CVM", answers.Cvm, LAST_KNOWN_HEADER)}, ProblemType.NOT_WATCHED, scope="read")
    async def get_cvm(self, call: Call) -> Response:
        """One watched CVM."""
        found = await self.references.find([call.path("ref")], call.principal)
        return await self._one(found.cvm_ids[0], call, headers=found.headers)

    @CVM(
        "PUT",
        {200: json_answer("It was pinned already", answers.Cvm), 201: json_answer("It is pinned", answers.Cvm)},
        scope="admin",
    )
    async def pin_cvm(self, call: Call) -> Response:
        """Watch a CVM.

        It is watched even without subscribers.
        """
        cvm_id = await self.references.resolve(call.path("ref"), call.principal)
        added = await self.watches.pin(cvm_id)
        return await self._one(cvm_id, call, 201 if added else 200)

    @CVM("DELETE", {204: NO_BODY}, ProblemType.NOT_WATCHED, ProblemType.PINNED_BY_CONFIG, scope="admin")
    async def unpin_cvm(self, call: Call) -> Response:
        """Stop watching a CVM.

        It is followed as long as it has subscribers.
        """
        cvm_id = await self.references.resolve(call.path("ref"), call.principal)
        if (await self._watch(cvm_id, call)).pinned_by_config:
            raise ProblemError(ProblemType.PINNED_BY_CONFIG, "remove it from BRIDGE_CVMS")
        await self.watches.unpin(cvm_id)
        return empty_response()

    @Operation("GET /v1/slots", CVMS, {200: json_answer("All of them", answers.Slots)}, scope="read all")
    async def list_slots(self, call: Call) -> Response:
        """The upstream streams.

        The holder of each stream that the account may have open, and why the other CVMs are polled.
        """
        led = self.hub.led
        status: Mapping[str, object] = await read_leader_status(self.backend) if led else {}
        items, slots = [], await self.slots.list()
        for slot in slots:
            state = slot.state if led or slot.state == "free" else "quarantined"
            about: dict[str, Any] = {**asdict(slot), "state": state, "epoch": slot.epoch or None}
            items.append(answers.Slot.model_construct(**about))
        shown: dict[str, Any] = {name: status.get(name) for name in answers.Slots.model_fields}
        polling = await read_polling(self.backend, status, _streamed(slots))
        shown |= {"items": items, "next": None, "polling": polling}
        return json_response(answers.Slots.model_construct(**shown))

    async def _one(
        self, cvm_id: str, call: Call, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        watch = await self._watch(cvm_id, call)
        return json_response((await self._shown([watch], await self._streamed()))[0], status, headers)

    async def _watch(self, cvm_id: str, call: Call) -> Watch:
        """Raises ProblemError 404."""
        watch = await self.watches.get(cvm_id)
        if watch is None:
            raise ProblemError(ProblemType.NOT_WATCHED, f"PUT /v1/cvms/{call.path('ref')} watches it")
        return watch

    async def _streamed(self) -> set[str | None]:
        return _streamed(await self.slots.list()) if self.hub.led else set()

    async def _shown(self, watches: Sequence[Watch], streamed: set[str | None]) -> list[answers.Cvm]:
        led, snapshots = self.hub.led, await self.snapshots.get([watch.cvm_id for watch in watches])
        return [_cvm(watch, snapshots.get(watch.cvm_id), streamed, led=led) for watch in watches]


async def read_heads(
    watches: Watches, snapshots: Snapshots, cvm_ids: Sequence[str] | None = None
) -> list[SnapshotHead]:
    """Of the watched ones among these CVMs, or of all, in ascending order. Raises StoreError."""
    if cvm_ids is None:
        watched = [each.cvm_id for each in await watches.list(limit=sys.maxsize)]
    else:
        known = await watches.existing(cvm_ids)
        watched = [each for each in cvm_ids if each in known]
    heads = await snapshots.heads(watched)
    return [heads.get(each) or SnapshotHead(each, None, None, None, None) for each in watched]


def _counted(heads: Sequence[SnapshotHead]) -> answers.CvmCounts:
    by_status = Counter(each.status for each in heads if each.status is not None)
    ready = sum(each.ready is True for each in heads)
    return answers.CvmCounts(all=len(heads), ready=ready, by_status=dict(by_status.most_common()))


def _streamed(slots: Iterable[SlotRecord]) -> set[str | None]:
    return {slot.cvm_id for slot in slots if slot.state == "held"}


def _cvm(watch: Watch, snapshot: Snapshot | None, streamed: set[str | None], *, led: bool) -> answers.Cvm:
    last = snapshot or Snapshot(watch.cvm_id, None, None, None, None, None, fresh=False, stale_reason=NOT_SEEN)
    shown: dict[str, Any] = {
        **asdict(last),
        **freshness(last, led=led),
        "followed_by": ("stream" if watch.cvm_id in streamed else "poll") if led else None,
        "pinned": watch.pinned,
        "subscribers": watch.subscribers,
        "event_id": last.event_id or None,
        "state": Verbatim(last.raw_state) if last.raw_state else None,
    }
    return answers.Cvm.model_construct(**shown)
