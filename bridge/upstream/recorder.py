"""From observations to the log: decided when they arrive, written in this order, each event exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from dataclasses import replace

from bridge import tracing
from bridge.clock import Clock, rfc3339
from bridge.events import DROPPED, READINESS, STATE, TRANSITION, Draft, names_of, watch_data
from bridge.readiness import Told
from bridge.store.confirmations import Confirmations
from bridge.store.errors import LostTailError, StillWantedError, StoreError, StoreUnavailableError
from bridge.store.leadership import Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.notices import Notices
from bridge.tracing import Span
from bridge.upstream import metrics
from bridge.upstream.changes import Step, grow_stale, is_late, observe, tell
from bridge.upstream.journal import Entry, Journal
from bridge.upstream.stored_snapshots import StoredSnapshots
from bridge.upstream.tracked import Observation, Tracked

logger = logging.getLogger(__name__)

CHANGES = {TRANSITION, STATE, READINESS}

RETRY_EVERY = 0.2
"""Seconds between two tries of a write while Redis does not answer; the lease bounds them."""


class Recorder:
    """One term's events. An observation counts at once, whether Redis answers or not: no stream waits for Redis, and
    nothing that it shows is lost. `run` writes; what a term could not write, the journal has for the next one.

    Methods that write raise FencedError when the term is over.
    """

    def __init__(
        self,
        log_writer: LogWriter,
        confirmations: Confirmations,
        term: Term,
        clock: Clock,
        journal: Journal,
        watches: Mapping[str, Tracked],
        rng: random.Random,
    ) -> None:
        """`rng` makes the ids of traces."""
        self._log_writer = log_writer
        self._confirmations = confirmations
        self._stored = StoredSnapshots()
        self._term = term
        self._clock = clock
        self._journal = journal
        self._watches = watches
        self._rng = rng
        self._writing = asyncio.Lock()
        self._decided = asyncio.Event()
        self._progress = asyncio.Event()
        self._dropping: set[str] = set()
        self._snapshots_lost = False
        self._named: set[str] = set()
        """CVMs whose apps or names the snapshots in Redis lack."""
        self._decided.set()  # an earlier term may have left something

    @property
    def position(self) -> WritePosition:
        """The log's last event, for all that is known."""
        return self._journal.position

    # Deciding

    async def record(self, tracked: Tracked, observation: Observation) -> bool:
        """Applies an observation. False: it was late, or the watch has ended, and nothing changed.

        Waits while very much waits for Redis, and while the watch may be ending.
        """
        await self._turn(tracked)
        seen = tracked.seen
        if seen.dropped or is_late(tracked, observation):
            return False
        since = seen.snapshot.since if seen.snapshot else None
        steps, after = observe(tracked, observation, rfc3339(self._clock.time()))
        self._add(tracked, *steps, seen=observation)
        seen.apply(observation, after, changed=after.since != since)
        tracked.operations.observed(observation)
        tracked.absence.settle()
        self._confirmed(tracked)
        return True

    async def confirm(self, tracked: Tracked, made_at: float) -> None:
        """Nothing has changed, as an unchanged batch answer shows; not where the state route finds no such CVM."""
        await self._turn(tracked)
        snapshot = None if tracked.absence.is_missing else tracked.seen.snapshot
        if tracked.seen.dropped or snapshot is None or not snapshot.fresh or made_at < tracked.seen.made_at:
            return
        observed_at = rfc3339(self._clock.time() - self._clock.monotonic() + made_at)
        tracked.seen.snapshot, tracked.seen.confirmed_at = replace(snapshot, observed_at=observed_at), made_at
        self._confirmed(tracked)

    async def tell(self, tracked: Tracked, told: Told, status: str | None, asked_at: float) -> None:
        """Applies what the batch route or the list tells of operations, if it counts: see `Tracked.takes`."""
        await self._turn(tracked)
        if tracked.seen.dropped or not tracked.takes(told, status, asked_at):
            return
        step, after = tell(tracked, told, rfc3339(self._clock.time()))
        if step is not None:
            self._add(tracked, step)
        elif after is not None:
            tracked.seen.note(after)

    def identify(self, tracked: Tracked, app_id: str | None, name: str | None) -> None:
        """The list tells app and name. That is no event: an app never changes, and a state tells its name itself, but
        for one that has none.
        """
        listed, snapshot, state = tracked.operations, tracked.seen.snapshot, tracked.seen.state
        listed.app_id, listed.name = app_id or listed.app_id, name or listed.name
        if snapshot is None or snapshot.status is None or tracked.gone:
            return
        named = snapshot.name if state is not None and state.name is not None else listed.name or snapshot.name
        after = replace(snapshot, app_id=snapshot.app_id or listed.app_id, name=named)
        if after != snapshot:
            tracked.seen.note(after)
            self._named.add(tracked.cvm_id)

    async def mark_stale(self, tracked: Tracked, reason: str) -> None:
        """Makes the watch stale, unless it is."""
        await self._turn(tracked)
        step = grow_stale(tracked, reason, rfc3339(self._clock.time()))
        if step is not None and not tracked.seen.dropped:
            self._add(tracked, step)
            logger.warning("watch is stale", extra={"cvm_id": tracked.cvm_id, "reason": reason})

    async def _turn(self, tracked: Tracked) -> None:
        """No await between its return and the decision: the order of decisions is the order of the log."""
        while self._journal.is_full or tracked.cvm_id in self._dropping:
            await self._progress.wait()

    def _confirmed(self, tracked: Tracked) -> None:
        self._confirmations.add(tracked.cvm_id, tracked.seen.confirmed_at)
        self._stored.confirmed(tracked, self._clock.monotonic())

    def _add(self, tracked: Tracked, *steps: Step, seen: Observation | None = None) -> None:
        """All of one observation, `seen`: one trace."""
        if not steps:
            return
        known = tracked.status is not None
        trace, before = tracing.begin(self._rng), tracked.seen.confirmed_at
        for step in steps:
            snapshot = replace(step.snapshot, event_id="")
            tracked.seen.decide(snapshot)
            draft, second = replace(step.draft, trace=trace), step.second and replace(step.second, trace=trace)
            changed = seen.by if seen and known and draft.type in CHANGES else None
            entry = Entry(draft, snapshot, step.ran, second=second, by=changed, before=before)
            self._journal.add(entry)
            for each in entry.drafts:
                logger.debug("a change was observed", extra=_fields(each))
        if tracing.are_exported():
            now, age = self._clock.time(), self._clock.monotonic() - seen.sent_at if seen else 0.0
            about = {"cvm_id": tracked.cvm_id, **({"observed_by": seen.by} if seen else {})}
            tracing.finished(Span(name="observe", trace=trace, began=now - age, ended=now, about=about))
        self._decided.set()

    # Writing

    async def run(self) -> None:
        """Writes what is decided, for ever."""
        while True:
            await self._decided.wait()
            self._decided.clear()
            async with self._writing:
                await self._write_all()

    async def drop(self, tracked: Tracked, wanted_before_ms: int) -> bool:
        """Ends the watch. False: there is new demand for it."""
        async with self._writing:
            self._dropping.add(tracked.cvm_id)
            try:
                while True:
                    await self._write_all()
                    last, now = tracked.seen.snapshot, rfc3339(self._clock.time())
                    name, app_id = (last.name, last.app_id) if last else (None, None)
                    data = watch_data(tracked.cvm_id, name, app_id=app_id)
                    draft = Draft(DROPPED, tracked.cvm_id, now, data, trace=tracing.begin(self._rng))
                    entry = Entry(draft, None, False, wanted_before_ms)
                    if await self._write(entry):
                        tracked.seen.dropped = True
                        self._confirmations.forget(tracked.cvm_id)
                        self._stored.forget(tracked.cvm_id)
                        self._named.discard(tracked.cvm_id)
                        return True
            except StillWantedError:
                return False
            finally:
                self._dropping.discard(tracked.cvm_id)
                self._advance()

    async def take_notices(self, notices: Notices, drafts: Mapping[str, Draft]) -> None:
        """Writes the events that are made of notices, by their ids, once for each: as far as they still wait.

        Read anew in the turn of writing, in which all that was written before is gone; and again where Redis has lost
        events: it may have notices again whose events are then written from memory.
        """
        async with self._writing:
            lost = True
            while lost:
                await self._write_all()
                waiting = {each.id: drafts[each.id] for each in await notices.waiting() if each.id in drafts}
                lost = False
                for notice_id, draft in waiting.items():
                    if lost := not await self._write(Entry(draft, None, notice_id=notice_id)):
                        break
                    await self._write_all()  # a change waits for one notice, not for all

    async def flush(self) -> None:
        """Writes all events, then what was confirmed since the last flush, and a snapshot that has grown old. Raises
        StoreUnavailableError.

        In this order: a state that Redis has must not be confirmed by one that it does not have yet.
        """
        async with self._writing:
            await self._write_all()
            now, named = self._clock.monotonic(), frozenset(self._named)
            due = self._stored.due(now)
            snapshots = [due] if due else []
            wanted = map(self._watches.get, self._watches if self._snapshots_lost else named)
            snapshots += [each.seen.snapshot for each in wanted if each and each.seen.snapshot]
            await self._confirmations.write(self._clock.time(), now)
            await self._log_writer.refresh(self._term, snapshots)
            self._snapshots_lost = False
            self._named -= named

    def compare(self, before: WritePosition, sequence: int, last_id: str) -> None:
        """The log ends here, as Redis told after `before` was its end: if it lacks events, they are written again.

        Where a write is under way, that one finds out.
        """
        is_behind = sequence <= before.sequence and (sequence, last_id) != (before.sequence, before.last_id)
        if is_behind and before == self.position and not self._writing.locked():
            self._rewind(sequence, last_id)
            self._decided.set()

    async def finish(self, seconds: float) -> None:
        """Before the lead is handed over: what is decided is written, unless Redis takes longer."""
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(seconds):
                await self.flush()
        self._journal.give_up("this process ends")

    async def _write_all(self) -> None:
        while (entry := self._journal.next) is not None:
            try:
                await self._write(entry)
            except StillWantedError:
                self._journal.keep_watch(entry)

    async def _write(self, entry: Entry) -> bool:
        """Tries until Redis answers. False: Redis has lost events, which are to be written first."""
        began = self._clock.time()
        while True:
            self._journal.send(entry)
            try:
                position = await self._send(entry)
                break
            except StoreUnavailableError:
                await self._clock.sleep(RETRY_EVERY)
            except LostTailError as lost:
                self._rewind(lost.sequence, lost.last_id)
                return False
        self._journal.confirm(entry, position)
        self._written(entry, position)
        if tracing.are_exported() and (trace := entry.draft.trace):
            ids = {"event": position.last_id, **_fields(entry.draft)}
            inner, ended = trace.child(self._rng), self._clock.time()
            span = Span(name="append", trace=inner, parent_id=trace.span_id, began=began, ended=ended, about=ids)
            tracing.finished(span)
        return True

    async def _send(self, entry: Entry) -> WritePosition:
        writer, term, at = self._log_writer, self._term, self._journal.position
        if entry.notice_id:
            return await writer.append_notice(term, at, entry.draft, entry.notice_id)
        if entry.snapshot is None:
            return await writer.drop(term, at, entry.draft, entry.wanted_before_ms)
        return await writer.append(term, at, entry.draft, entry.snapshot, ran=entry.ran, second=entry.second)

    def _written(self, entry: Entry, position: WritePosition) -> None:
        ids = (position.first_id, position.last_id)[-len(entry.drafts) :]
        for draft, event_id in zip(entry.drafts, ids, strict=True):
            metrics.EVENTS.labels(names_of(draft.type)[-1]).inc()  # `phala.*` is an open set
            logger.info("an event was written", extra={"event": event_id, **_fields(draft)})
        if entry.by:
            metrics.CHANGE.labels(entry.by).observe(self._clock.monotonic() - entry.before)
        self._advance()
        cvm_id = entry.draft.cvm_id
        if entry.snapshot is not None and not self._journal.waits(cvm_id) and (tracked := self._watches.get(cvm_id)):
            tracked.seen.written(position.last_id)
            self._stored.stored(tracked, self._clock.monotonic())

    def _rewind(self, sequence: int, last_id: str) -> None:
        loss = self._journal.rewind(sequence, last_id)
        loss.report()
        self._snapshots_lost = self._snapshots_lost or loss.gone > 0

    def _advance(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


def _fields(draft: Draft) -> dict[str, str]:
    """Of a log line about an event."""
    about = {"endpoint": draft.endpoint_id} if draft.endpoint_id else {"cvm_id": draft.cvm_id}
    return {"type": draft.type, **about, **({"trace_id": draft.trace.trace_id} if draft.trace else {})}
