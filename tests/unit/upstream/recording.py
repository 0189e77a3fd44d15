"""Parts of the recorder's tests: one process's journal and recorder, a way to Redis to cut, what the log has."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from bridge.clock import SystemClock
from bridge.events import Draft, parse_state, phala_data
from bridge.store.confirmations import Confirmations
from bridge.store.connection import Backend
from bridge.store.endpoint_notices import EndpointNotice
from bridge.store.errors import StoreUnavailableError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter
from bridge.store.notices import Notices
from bridge.upstream.journal import Journal, Loss
from bridge.upstream.recorder import Recorder
from bridge.upstream.tracked import Observation, Tracked

T = TypeVar("T")


class Line(Backend):
    """A way to Redis that can be cut: at once, or after the command was executed. Others go on meanwhile."""

    cut = ""

    async def call(self, command: Awaitable[T]) -> T:
        if self.cut == "before":
            command.close()  # type: ignore[attr-defined]
            raise StoreUnavailableError
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            command.close()  # type: ignore[attr-defined]
            raise
        done = await super().call(command)
        if self.cut == "after":
            raise StoreUnavailableError
        return done


class Process:
    """One process's journal, and the recorder of its present term."""

    def __init__(self, backend: Backend, name: str = "one") -> None:
        self.backend = Line(backend.client, "bridge")
        self.name = name
        self.journal = Journal(backend.keys.source)
        self.watches: dict[str, Tracked] = {}
        self.terms = 0
        self._made_at = 0.0

    async def lead(self) -> Loss | None:
        """A new term. Resumes as the leader does."""
        self.terms += 1
        term = await Leadership(self.backend).acquire(f"{self.name}{self.terms}", 10, "log")
        assert isinstance(term, Term)
        loss = self.journal.resume(term, await Log(self.backend).find(term.last_id))
        writer, confirmations = LogWriter(self.backend, 100), Confirmations(self.backend, term, {})
        clock, rng = SystemClock(), random.Random(1)
        self.recorder = Recorder(writer, confirmations, term, clock, self.journal, self.watches, rng)
        self.term = term
        return loss

    async def resign(self) -> None:
        await Leadership(self.backend).resign(self.term)

    def watch(self, name: str) -> Tracked:
        return self.watches.setdefault(name, Tracked(name))

    async def see(self, name: str, *statuses: str) -> None:
        for status in statuses:
            self._made_at += 1
            await self.recorder.record(self.watch(name), seen(status, self._made_at))

    async def see_operation(self, name: str, status: str, *, in_progress: bool) -> None:
        """A state that tells of operations itself: where both change, it is a transition and its readiness."""
        self._made_at += 1
        observation = seen(status, self._made_at, in_progress=in_progress)
        await self.recorder.record(self.watch(name), observation)

    async def write(self) -> None:
        await self.recorder.flush()

    async def take_notices(self) -> None:
        """As `NoticeIntake` does it, with subjects that are known."""
        notices = Notices(self.backend)
        drafts = {
            each.id: each.draft
            if isinstance(each, EndpointNotice)
            else Draft(each.type, each.reference or each.name, each.time, phala_data(None, None, None, each.envelope))
            for each in await notices.waiting()
        }
        await self.recorder.take_notices(notices, drafts)

    async def try_to_write(self) -> None:
        """As the term's task does it, until the term is over."""
        await self._try(self.recorder.flush())

    async def try_to_take_notices(self) -> None:
        await self._try(self.take_notices())

    async def _try(self, work: Coroutine[Any, Any, None]) -> None:
        writing = asyncio.create_task(work)
        await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.wait([writing])


async def leading(backend: Backend) -> Process:
    """A leader that has written the first state of "a"."""
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    return process


def seen(status: str, at: float, name: str = "a", **fields: Any) -> Observation:
    state = parse_state(json.dumps({"id": name, "status": status, **fields}))
    return Observation(state=state, by="poll", sent_at=at, made_at=at)


async def told(backend: Backend) -> list[tuple[int, str, str, str | None]]:
    """Number, CVM, type and status of each event of the log."""
    events = await Log(backend).read("0-0", 99)
    return [(e.sequence, e.cvm_id, e.type, json.loads(e.json)["data"].get("to")) for e in events]


async def statuses(backend: Backend) -> list[tuple[int, str | None]]:
    return [(sequence, status) for sequence, _, _, status in await told(backend)]
