"""Parts of webhook tests: a leader that writes events, endpoints, receivers inside the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.events import STATE, TRANSITION, Draft, Event, cvm_data
from bridge.store.connection import Backend
from bridge.store.deliveries import Attempt
from bridge.store.endpoint_notices import EndpointNotice
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import StoreUnavailableError
from bridge.store.lanes import Checkpoint, Claim, Claimed, Entry, Filled, Lanes, Result, Share, Verdict
from bridge.store.leadership import Leadership, Term
from bridge.store.limits import LaneLimits
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.notices import Notices
from bridge.store.snapshots import Snapshot
from bridge.webhooks.formats import Rendered
from bridge.webhooks.schedule import AttemptOutcome, InTime, check_in_time
from tests.servers import PATIENCE


def event(id: str = "1-1", cvm_id: str = "a", type: str = TRANSITION) -> Event:
    return Event(id, 1, type, cvm_id, "{}")


def entry(id: str = "1-1", cvm_id: str = "a", from_: str | None = "x", to: str | None = "y", **kind: str) -> Entry:
    return Entry(event(id, cvm_id, **kind), False, from_, to)


@dataclass
class Writer:
    """A leader that only writes the log."""

    backend: Backend
    term: Term
    position: WritePosition
    log_length: int = 1000
    count: int = 0

    @classmethod
    async def lead(cls, backend: Backend, holder: str = "one", log_length: int = 1000) -> Writer:
        """As a standby campaigns: again while Redis cannot be used, such as behind sentinels that just began."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    term = await Leadership(backend).acquire(holder, 3600, f"log-{holder}", "0-0")
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.1)
        assert isinstance(term, Term)
        return cls(backend, term, WritePosition(term.sequence, term.last_id), log_length)

    async def write(self, draft: Draft) -> str:
        """This event alone: snapshots stay as they are. Returns its id."""
        log_writer = LogWriter(self.backend, self.log_length)
        self.position = await log_writer.append_notice(self.term, self.position, draft, "0-1")
        return self.position.last_id

    async def append(
        self,
        cvm_id: str = "a",
        to: str | None = None,
        *,
        type: str = TRANSITION,
        name: str = "n",
        app_id: str | None = None,
    ) -> str:
        """One event; its `to` counts up where none is given. Returns its id."""
        self.count += 1
        status = to or str(self.count)
        raw = f'{{"status":"{status}"}}'
        data = cvm_data(cvm_id, name, (str(self.count - 1), status), "poll", raw, app_id=app_id)
        draft = Draft(type, cvm_id, "2026-11-24T16:00:00.000Z", data)
        snapshot = Snapshot(cvm_id, raw, status, name, "t", "t", app_id=app_id)
        self.position = await LogWriter(self.backend, self.log_length).append(
            self.term, self.position, draft, snapshot, ran=type != STATE
        )
        return self.position.last_id

    async def take_notices(self) -> list[str]:
        """Makes events of the notices about endpoints; their types."""
        found = [each for each in await Notices(self.backend).waiting() if isinstance(each, EndpointNotice)]
        for each in found:
            writer = LogWriter(self.backend, self.log_length)
            self.position = await writer.append_notice(self.term, self.position, each.draft, each.id)
        return [each.type for each in found]


def endpoint(id: str = "e", *, url: str = "", **given: Any) -> Endpoint:
    return Endpoint(id, url or f"sealed:http://{id}.test/", **given)


@dataclass
class Bench:
    """One Redis with lanes under small limits, filled by hand."""

    backend: Backend
    writer: Writer
    limits: LaneLimits = field(default_factory=LaneLimits)

    @property
    def lanes(self) -> Lanes:
        return Lanes(self.backend, self.limits)

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self.backend, self.limits)

    async def fill(self, *ids: str) -> Filled | None:
        """Queues everything that the log has after the checkpoint, for these endpoints or for all."""
        checkpoint = await self.lanes.checkpoint()
        assert checkpoint is not None
        entries, last = await self.lanes.read(checkpoint.id, 10_000)
        chosen = ids or tuple((await self.endpoints.all()).endpoints)
        return await self.lanes.fill(checkpoint, [Share(each, chosen) for each in entries], last or checkpoint.id, "")

    async def claim(self, most: int = 100, token: str = "t", lease: float = 5.0, share: int = 100) -> Claimed:
        return await self.lanes.claim(token, lease, most, share)

    async def checkpoint(self) -> Checkpoint:
        checkpoint = await self.lanes.checkpoint()
        assert checkpoint is not None
        return checkpoint


@dataclass(frozen=True)
class Answer(AttemptOutcome):
    """The outcome of an attempt that succeeded, unless a test gives another."""

    status_code: int | None = 200
    duration_ms: int = 1


@dataclass(frozen=True)
class Got:
    """One request as a receiver inside the process has it."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class FakePoster:
    """Answers with what `answer` returns, at once or once `gate` is set; `got` has every request in order."""

    def __init__(self, answer: Callable[[Got], Answer] = lambda got: Answer()) -> None:
        self.answer = answer
        self.got: list[Got] = []
        self.open = 0
        self.most_open = 0
        self.stalled: Callable[[Got], bool] = lambda got: False
        self.gate = asyncio.Event()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime) -> Answer:
        check_in_time(in_time)
        got = Got(url, headers, body)
        self.got.append(got)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(0)
            if self.stalled(got):
                await self.gate.wait()
            return self.answer(got)
        finally:
            self.open -= 1


def plain(format: str, event: Event, *, ran: bool) -> Rendered:
    return Rendered(event.json.encode(), {"content-type": "text/plain"})


def named(delivery_id: str, *_: object, phala: bool) -> dict[str, str]:
    return {"webhook-id": delivery_id}


def unsealed(text: str) -> str:
    return text.removeprefix("sealed:")


ATTEMPT = Attempt("2026-11-24T16:00:00.000Z", 7, 500, "http_5xx: no", "body").to_json()


async def bench(backend: Backend, **limits: int) -> Bench:
    return Bench(backend, await Writer.lead(backend), LaneLimits(**limits))


async def settle(made: Bench, claim: Claim, verdict: Verdict, wait: float = 0) -> str:
    (code,) = await made.lanes.settle([Result(claim, verdict, wait, 0.5, ATTEMPT)])
    return code


async def serve(made: Bench) -> list[tuple[str, str]]:
    """Delivers all that is due; (endpoint, the event's CVM) in the order of the attempts."""
    served: list[tuple[str, str]] = []
    while claims := (await made.claim(token=f"t{len(served)}")).claims:
        for claim in claims:
            served.append((claim.endpoint_id, claim.event.cvm_id))
            assert await settle(made, claim, "delivered") == "done"
    return served
