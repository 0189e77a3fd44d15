"""The wait route on a Redis inside the process, in virtual time; the test is the leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bridge.config import Settings, Token
from bridge.events import FRESH, STALE, Draft, dumps
from bridge.reference_sets import ReferenceSet
from bridge.store.connection import Backend
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.reference_lookups import Answer as LookedUp
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.web.app import FrontEnd
from tests.fakes import fake_backend
from tests.schemas import check_answer
from tests.unit.test_waiting import Told, about, changed, readiness
from tests.virtual import VirtualClock, run_virtual

A, B = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2))
NOW = "2026-11-24T16:00:00.000Z"

TOKENS = (
    Token("all", SecretStr("secret"), "read", frozenset()),
    Token("one", SecretStr("only-a"), "read", frozenset([A])),
)


@dataclass
class Bridge:
    """A front end whose log the test writes."""

    front: FrontEnd
    http: httpx.AsyncClient
    writer: LogWriter
    term: Term
    backend: Backend
    written: WritePosition
    snapshots: dict[str, Snapshot] = field(default_factory=dict)

    async def tell(self, *told: Told) -> str:
        """Writes the events; returns the last one's id."""
        for kind, data in told:
            cvm_id = data["cvm_id"]
            last = self.snapshots.get(cvm_id) or Snapshot(cvm_id, None, None, "web-1", NOW, NOW)
            app_id = data.get("app_id", last.app_id)
            fields = {name: getattr(last, name) for name in ("raw_state", "status", "ready")}
            if "state" in data:
                fields = {"raw_state": data["state"] and dumps(data["state"]), "status": data["to"]}
            fields["ready"] = data.get("ready", last.ready)
            stale = data["reason"] if kind == STALE else None if kind == FRESH or "state" in data else last.stale_reason
            made = Snapshot(
                cvm_id,
                **fields,
                name="web-1",
                app_id=app_id,
                since=NOW,
                observed_at=NOW,
                fresh=not stale,
                stale_reason=stale,
            )
            self.snapshots[cvm_id] = made
            draft = Draft(kind, cvm_id, NOW, dumps(data))
            self.written = await self.writer.append(self.term, self.written, draft, made, ran=True)
            await self.front.hub.catch_up()
        return self.written.last_id

    async def get(self, query: str = "", cvm_id: str = A, token: str = "secret") -> httpx.Response:
        path = f"/v1/cvms/{cvm_id}/wait"
        answer = await self.http.get(f"{path}{query}", headers={"Authorization": f"Bearer {token}"})
        check_answer("GET", path, answer.status_code, answer.headers["content-type"], answer.json())
        return answer

    async def waits(self, query: str = "", **given: str) -> asyncio.Task[httpx.Response]:
        """A request that waits already."""
        before = self.front.hub.present
        task = asyncio.create_task(self.get(query, **given))
        await until(lambda: self.front.hub.present > before or task.done())
        return task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the front end sets no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def bridge(**settings: Any) -> AsyncIterator[Bridge]:
    backend, clock = fake_backend(), VirtualClock()
    front = FrontEnd(Settings(tokens=TOKENS, **settings), backend, clock)
    front.hub.led_until = float("inf")
    await Watches(backend).renew([A, B])
    term = await Leadership(backend).acquire("test", 1e6, "birth")
    assert isinstance(term, Term)
    transport = httpx.ASGITransport(front.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Bridge(front, http, LogWriter(backend, 1000), term, backend, WritePosition(term.sequence, term.last_id))
        assert (front.hub.present, front.capacity.open, front.hub.demand.counts()) == (0, 0, {})
    await backend.close()


def played(scenario: Callable[[Bridge], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with bridge(**settings) as made:
            await scenario(made)

    run_virtual(run())


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, end of the problem's type, reason of the first CVM."""
    body = answer.json()
    return answer.status_code, body.get("type", "").rpartition(":")[2], (body.get("items") or [{}])[0].get("reason", "")


RUNNING, STARTING = changed(None, "running", A, ready=True), changed(None, "starting", A, ready=False)


def test_what_is_so_already_is_answered_at_once_and_what_is_not_when_it_comes() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        waiting = await bridge.waits("?to=running")
        assert bridge.front.hub.demand.counts() == {A: 1}
        assert bridge.front.capacity.open == 1
        event_id = await bridge.tell(changed("starting", "running", A, ready=True))
        answer = await waiting
        assert told(answer) == (200, "", "")
        assert answer.json()["cursor"] == event_id
        assert [(item["cvm_id"], item["status"]) for item in answer.json()["items"]] == [(A, "running")]
        assert told(await bridge.get()) == (200, "", "")
        assert told(await bridge.get("?timeout=0&to=stopped")) == (408, "wait-timeout", "")
        await bridge.tell(changed("running", "stopped", A, ready=False))
        assert told(await bridge.get("?timeout=0")) == (408, "wait-timeout", ""), "the front end's snapshots are older"
        assert told(await bridge.get("?to=stopped")) == (200, "", "")

    played(scenario)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([changed("starting", "error", A)], "error"),
        ([changed("starting", "starting", A, boot_error="no image")], "boot_error"),
        ([changed("starting", "deleted", A)], "deleted"),
    ],
)
def test_it_fails_at_once_with_the_reason_when_it_cannot_come_true(events: list[Told], reason: str) -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        waiting = await bridge.waits()
        event_id = await bridge.tell(*events)
        for answer in (await waiting, await bridge.get()):
            assert told(answer) == (409, "wait-failed", reason)
            assert reason in answer.json()["detail"]
            assert answer.json()["cursor"] == event_id
        assert told(await bridge.get("?to=error,deleted&timeout=0"))[0] == (408 if reason == "boot_error" else 200)

    played(scenario)


def test_time_out_is_408_with_a_cursor_from_which_nothing_is_missed() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        began = asyncio.get_running_loop().time()
        waiting = await bridge.waits("?timeout=30")
        await bridge.tell(changed("starting", "starting", A, boot_progress="pulling"))
        answer = await waiting
        assert told(answer) == (408, "wait-timeout", "")
        assert 30 <= asyncio.get_running_loop().time() - began < 31
        await bridge.tell(changed("starting", "running", A, ready=True), changed("running", "stopped", A, ready=False))
        assert told(await bridge.get(f"?to=running&after={answer.json()['cursor']}")) == (200, "", "")

    played(scenario)


def test_after_a_cursor_the_state_of_before_does_not_count_and_the_passing_one_after_it_does() -> None:
    async def scenario(bridge: Bridge) -> None:
        cursor = await bridge.tell(RUNNING)
        for to in ("ready", "running"):
            assert told(await bridge.get(f"?to={to}&after={cursor}&timeout=0")) == (408, "wait-timeout", "")
        ready, running, stopped = [
            await bridge.waits(f"?to={to}&after={cursor}&timeout=600") for to in ("ready", "running", "stopped")
        ]
        await bridge.tell(readiness(False, True, A), readiness(True, False, A))
        assert told(await ready) == (200, "", "")
        await bridge.tell(changed("running", "stopped", A, ready=False), changed("stopped", "starting", A, ready=False))
        assert told(await stopped) == (200, "", "")
        await bridge.tell(changed("starting", "running", A, ready=True))
        assert told(await running) == (200, "", "")
        assert told(await bridge.get(f"?to=stopped&after={cursor}&timeout=0")) == (200, "", ""), "from the log"

    played(scenario)


def test_a_cursor_that_cannot_be_honoured_is_410_and_names_the_field() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(RUNNING)
        for cursor in ("nonsense", "99999999999999-0", "1-1"):
            answer = await bridge.get(f"?after={cursor}")
            assert answer.status_code == 410
            assert answer.json()["errors"][0]["field"] == "after"

    played(scenario)


@pytest.mark.parametrize(
    "query", ["to=runing", "timeout=601", "timeout=-1", "timeout=1.5", "timeout=x", "unknown=1", "after="]
)
def test_bad_input_is_422_and_names_the_field(query: str) -> None:
    async def scenario(bridge: Bridge) -> None:
        answer = await bridge.get(f"?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == query.partition("=")[0]

    played(scenario)


def test_the_bridge_cannot_tell_while_it_does_not_vouch_and_tells_as_soon_as_it_does() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(RUNNING, about(STALE, A, reason="unreachable"))
        answer = await bridge.get("?timeout=3")
        assert told(answer) == (503, "cannot-tell", "unreachable")
        assert int(answer.headers["retry-after"]) >= 1
        waiting, missed = await bridge.waits(), await bridge.waits("?to=stopped")
        await bridge.tell(about(FRESH, A))
        assert told(await waiting) == (200, "", "")
        await bridge.tell(changed("running", "stopped", A, ready=False))
        assert told(await missed) == (200, "", "")
        assert told(await bridge.get("?timeout=0", cvm_id=B)) == (503, "cannot-tell", "")

    played(scenario)


def test_without_a_leader_nobody_can_tell_and_with_one_it_is_told_at_once() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(RUNNING)
        bridge.front.hub.led_until = float("-inf")
        assert told(await bridge.get("?timeout=3")) == (503, "cannot-tell", "no_leader")
        waiting = await bridge.waits()
        await asyncio.sleep(5)
        assert not waiting.done()
        bridge.front.hub.led_until = float("inf")
        assert told(await waiting) == (200, "", "")

    played(scenario)


def test_a_limited_token_waits_for_its_own_cvms_only_and_no_longer_than_they_are_its_own() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        assert (await bridge.get(cvm_id=B, token="only-a")).status_code == 403
        waiting = await bridge.waits(token="only-a")
        bridge.front.hub.end_beyond({"one": ReferenceSet.parsed([B])}, iter([1000]))
        assert told(await waiting)[:2] == (503, "unavailable")

    played(scenario)


def test_a_name_that_a_deleted_cvm_had_is_the_new_ones() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING, changed("starting", "deleted", A), changed(None, "running", B, ready=True))
        lookups = ReferenceLookups(bridge.backend)
        await lookups.answer(LookedUp("web-1", A, by_name=True))
        waiting = asyncio.create_task(bridge.get(cvm_id="web-1"))
        while await lookups.find("web-1") is not None:  # noqa: ASYNC110 - Redis sets no event
            await asyncio.sleep(0.001)
        await lookups.answer(LookedUp("web-1", B, by_name=True))
        assert [item["cvm_id"] for item in (await waiting).json()["items"]] == [B]

    played(scenario)


def test_waits_count_as_streams_do() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        waiting = await bridge.waits()
        assert told(await bridge.get())[:2] == (429, "too-many-streams")
        await bridge.tell(changed("starting", "running", A, ready=True))
        assert told(await waiting)[0] == 200
        assert told(await bridge.get())[0] == 200

    played(scenario, max_subscribers_per_token=1)


def test_a_drain_ends_waits_with_a_time_to_come_back_and_the_cursor() -> None:
    async def scenario(bridge: Bridge) -> None:
        cursor = await bridge.tell(STARTING)
        waiting = [await bridge.waits() for _ in range(3)]
        await bridge.front.drain(2.0)
        for answer in [await each for each in waiting]:
            assert told(answer)[:2] == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["cursor"] == cursor

    played(scenario)


def test_a_client_that_leaves_ends_its_wait() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        gone, sent = asyncio.Event(), []

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": f"/v1/cvms/{A}/wait", "query_string": b"timeout=600"}
        head = {"headers": [(b"x-api-key", b"secret"), (b"host", b"localhost")], "http_version": "1.1"}
        task = asyncio.create_task(bridge.front.app({**scope, **head}, receive, send))
        await asyncio.sleep(1)
        assert bridge.front.hub.present == 1
        gone.set()
        await task
        assert asyncio.get_running_loop().time() < 3

    played(scenario)


def test_a_head_request_does_not_wait() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        answer = await bridge.http.head(f"/v1/cvms/{A}/wait", headers={"X-API-Key": "secret"})
        assert answer.status_code == 408
        assert asyncio.get_running_loop().time() < 1

    played(scenario)


def test_many_waits_for_one_cvm_are_all_told_by_one_event() -> None:
    async def scenario(bridge: Bridge) -> None:
        await bridge.tell(STARTING)
        waiting = [asyncio.create_task(bridge.get("?timeout=600")) for _ in range(100)]
        await until(lambda: bridge.front.hub.present == 100)
        await bridge.tell(changed("starting", "running", A, ready=True))
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    played(scenario)
