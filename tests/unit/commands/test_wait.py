"""`bridge wait`: its verdicts, exit statuses and lines, on a bridge of scripted answers. No sockets, no waiting."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from bridge.client import Client
from bridge.commands import wait as waiting
from bridge.commands.terminal import progress_line
from bridge.commands.wait import Code, Order, Verdict, combined, wait
from bridge.commands.wait_command import wait_command
from bridge.events import FRESH, NO_LEADER, RESET, SNAPSHOT, SSE_EVENTS, STALE
from bridge.waiting import Goal, Member
from tests.unit.commands.test_tail import bare
from tests.unit.test_waiting import Told, about, changed, readiness, snapshot
from tests.virtual import VirtualClock, run_virtual

Answer = Callable[[httpx.Request], httpx.Response]


class Bridge:
    """The snapshots at the beginning of `told` are listed, the events after them streamed, to each reference its own.

    Each event's number is its cursor. `look`: the answer of the wait route, by default that the time is over.
    `cuts`: a connection ends after each event. None to tell: nothing listens.
    """

    def __init__(
        self,
        *told: list[Told] | None,
        names: tuple[str, ...] = ("web-1",),
        look: httpx.Response | None = None,
        cuts: bool = False,
    ) -> None:
        self.requests: list[httpx.Request] = []
        self._told = dict(zip(names, told, strict=True))
        self._begins = dict.fromkeys(names, 0)
        self._look, self._cuts = look, cuts

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        name = request.url.params.get("cvm") or request.url.path.split("/")[3]
        if (told := self._told[name]) is None:
            raise httpx.ConnectError("no")
        first = self._begins[name]
        listed = list(itertools.takewhile(lambda each: each[0] == SNAPSHOT, told[first:]))
        if request.url.path == "/v1/cvms":
            items = [{**data, "status": data["to"]} for _, data in listed]
            return httpx.Response(200, json={"items": items, "next": None})
        if request.url.path.endswith("/events"):
            begin = int(request.headers["last-event-id"].partition("-")[0])
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=self._body(name, begin))
        if self._look is not None:
            return httpx.Response(self._look.status_code, content=self._look.content)
        problem = {"type": "urn:bridge:problem:wait-timeout", "cursor": f"{first + len(listed)}-0"}
        return httpx.Response(408, json=problem)

    async def _body(self, name: str, begin: int) -> AsyncIterator[bytes]:
        told = self._told[name] or []
        for number in range(begin, len(told)):
            if told[number][0] == RESET:
                self._begins[name] = number + 1
            yield block(told[number], number + 1)
            if self._cuts:
                return
        await asyncio.Event().wait()


def block(told: Told, number: int) -> bytes:
    kind, data = told
    envelope = {"id": f"{number}-0", "type": kind, "time": "2026-11-24T16:01:00.000Z", "data": data}
    return f"id: {number}-0\nevent: {SSE_EVENTS[kind]}\ndata: {json.dumps(envelope)}\n\n".encode()


class Heard:
    def __init__(self) -> None:
        self.shown: list[Member] = []
        self.complaints: list[str] = []
        self.seconds = 0.0


def waited(bridge: Answer, *references: str, to: str = "ready", **given: Any) -> tuple[Verdict, Heard]:
    """In virtual time."""
    heard = Heard()

    async def scenario() -> Verdict:
        order = Order(
            url="http://b", references=references or ("web-1",), goal=Goal.parse(to), **{"timeout": 60.0, **given}
        )
        made = Client("http://b", transport=httpx.MockTransport(bridge), clock=VirtualClock(), rng=random.Random(1))
        found = await wait(order, heard.shown.append, heard.complaints.append, client=made)
        heard.seconds = asyncio.get_running_loop().time()
        for _ in range(20):  # httpx leaves the end of a body that is not read to its end to the loop
            await asyncio.sleep(0)
        return found

    return run_virtual(scenario()), heard


RUNNING, STARTING = snapshot("running", ready=True), snapshot("starting", ready=False)


def test_what_is_so_already_and_what_comes_true_end_it_with_the_cursor() -> None:
    found, _ = waited(Bridge([RUNNING]))
    assert (found.code, found.cursor, [each["status"] for each in found.cvms]) == (Code.REACHED, "1-0", ["running"])
    found, heard = waited(Bridge([STARTING, changed("starting", "running", ready=True)]))
    assert (found.code, found.cursor) == (Code.REACHED, "2-0")
    assert [member.status for member in heard.shown] == ["starting", "running"]


def test_what_can_no_longer_come_true_fails_with_the_reason() -> None:
    found, _ = waited(Bridge([STARTING, changed("starting", "starting", boot_error="no image")]))
    assert (found.code, found.reason, found.cvms[0]["boot_error"]) == (Code.FAILED, "boot_error", "no image")


def test_when_the_time_is_over_the_bridge_is_asked_a_last_time() -> None:
    found, heard = waited(Bridge([STARTING]), timeout=30.0)
    assert (found.code, found.cursor) == (Code.TIMEOUT, "1-0")
    assert 30 <= heard.seconds < 36
    body = {"type": "urn:bridge:problem:cannot-tell", "detail": "unreachable", "cursor": "1-0"}
    found, _ = waited(Bridge([STARTING], look=httpx.Response(503, json=body)))
    assert (found.code, found.reason) == (Code.CANNOT_TELL, "unreachable")


def test_a_timeout_of_zero_only_looks() -> None:
    bridge = Bridge([], look=httpx.Response(200, json={"cursor": "7-0", "items": [{"cvm_id": "a", "reason": ""}]}))
    found, _ = waited(bridge, timeout=0.0, to="running", after="3-0", any_of=True)
    assert (found.code, found.cursor) == (Code.REACHED, "7-0")
    assert [str(each.url.query, "ascii") for each in bridge.requests] == ["to=running&timeout=0&after=3-0&any=true"]


def test_without_a_bridge_it_tries_until_the_time_is_over() -> None:
    found, heard = waited(Bridge(None), timeout=60.0)
    assert found.code is Code.CANNOT_TELL
    assert heard.complaints == ["http://b cannot be reached (ConnectError); trying again"]
    assert heard.seconds >= 60


def test_a_bridge_that_is_killed_in_the_middle_is_resumed_at_the_cursor() -> None:
    told = [
        STARTING,
        changed("starting", "starting"),
        about(STALE, reason="rate_limited"),
        changed("starting", "running"),
    ]
    bridge = Bridge(told, cuts=True)
    assert waited(bridge, to="running")[0].code is Code.REACHED
    resumed = [each.headers["last-event-id"] for each in bridge.requests if each.url.path.endswith("/events")]
    assert resumed == ["1-0", "2-0", "3-0"]


def test_after_a_cursor_only_what_comes_counts() -> None:
    told = [RUNNING, changed("running", "running", ready=True), readiness(False, True), readiness(True, False)]
    found, heard = waited(Bridge(told), after="1-0")
    assert (found.code, found.cursor) == (Code.REACHED, "4-0")
    assert [member.ready for member in heard.shown] == [True, False, True]


def test_lost_history_begins_anew_without_a_cursor_and_with_one_nobody_can_tell() -> None:
    lost = (RESET, {"reason": "history_lost"})
    assert waited(Bridge([STARTING, lost, RUNNING]))[0].code is Code.REACHED
    found, _ = waited(Bridge([STARTING, lost, RUNNING]), after="1-0")
    assert (found.code, found.reason) == (Code.CANNOT_TELL, "history_lost")


def test_a_recovered_watch_counts_a_moment_later_and_a_leader_that_is_back_when_it_is_asked_about() -> None:
    stale: dict[str, Any] = {"fresh": False, "stale_reason": "unreachable"}
    found, heard = waited(Bridge([snapshot("running", ready=True, **stale), about(FRESH)]))
    assert (found.code, heard.seconds < 2) == (Code.REACHED, True)
    # No event tells that a leader leads.
    bridge = Bridge([snapshot("running", ready=True, **stale | {"stale_reason": NO_LEADER})])
    looks = iter([httpx.Response(408, json={"type": "wait-timeout", "cursor": "1-0"})])
    now = httpx.Response(200, json={"cursor": "7-0", "items": []})

    def led(request: httpx.Request) -> httpx.Response:
        return next(looks, now) if request.url.path.endswith("/wait") else bridge(request)

    found, heard = waited(led)
    assert (found.code, found.cursor, 2 <= heard.seconds < 4) == (Code.REACHED, "7-0", True)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, Code.CANNOT_TELL), (403, Code.CANNOT_TELL), (404, Code.FAILED), (409, Code.USAGE), (422, Code.USAGE)],
)
def test_a_refusal_ends_it_at_once(status: int, code: Code) -> None:
    found, heard = waited(Bridge([], look=httpx.Response(status, json={"title": "No"})))
    assert (found.code, found.reason, heard.seconds) == (code, f"the bridge answered {status}: No", 0.0)


def test_several_references_are_waited_for_together() -> None:
    def both(told: list[Told], **given: Any) -> Verdict:
        return waited(Bridge([RUNNING], told, names=("a", "b")), "a", "b", **given)[0]

    b = snapshot("starting", "b", ready=False)
    found = both([b, changed("starting", "running", "b", ready=True)])
    assert (found.code, len(found.cvms), found.cursor) == (Code.REACHED, 2, "1-0")
    assert both([b], any_of=True).code is Code.REACHED
    assert both([snapshot("error", "b")]).code is Code.FAILED
    assert both([b]).code is Code.TIMEOUT


def test_all_members_of_a_set_count_those_that_come_too() -> None:
    told = [RUNNING, snapshot("starting", "b", ready=False), changed(None, "starting", "c", ready=False)]
    told += [changed("starting", "running", each, ready=True) for each in ("b", "c")]
    found, _ = waited(Bridge(told, names=("app_4d6a",)), "app_4d6a")
    assert (found.code, found.cursor, len(found.cvms)) == (Code.REACHED, "5-0", 3)


def test_one_verdict_is_made_of_several() -> None:
    made = [Verdict(code=code, cursor=f"{number}-0") for number, code in enumerate(Code, 5)]
    assert combined(made, any_of=True).code is Code.REACHED
    assert combined(made, any_of=False).code is Code.USAGE
    assert combined(made[:2], any_of=False).code is Code.FAILED
    assert combined(made, any_of=True).cursor == "5-0"
    assert combined([*made, Verdict(code=Code.CANNOT_TELL)], any_of=True).cursor == ""


# The command line


def run(*arguments: str, bridge: Bridge | None = None, monkeypatch: pytest.MonkeyPatch | None = None) -> Result:
    if monkeypatch is not None and bridge is not None:
        made = Client("http://b", transport=httpx.MockTransport(bridge))
        monkeypatch.setattr(waiting, "bridge_client", lambda *given: made)
    return CliRunner().invoke(wait_command, [*arguments])


def test_exit_status_and_one_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (Bridge([RUNNING]), "10m", 0, "reached"),
        (Bridge([snapshot("error")]), "10m", 1, "failed"),
        (Bridge([STARTING]), "0", 3, "timeout"),
        (Bridge([], look=httpx.Response(503)), "0", 4, "cannot_tell"),
    ]
    for bridge, timeout, status, outcome in cases:
        result = run("web-1", "--timeout", timeout, bridge=bridge, monkeypatch=monkeypatch)
        assert (result.exit_code, result.stdout.count("\n")) == (status, 1)
        assert json.loads(result.stdout)["outcome"] == outcome


def test_the_line_for_people_tells_what_was_waited_for() -> None:
    made = Verdict(code=Code.FAILED, reason="boot_error", cvms=({"name": "web-1"},))
    assert made.to_line(Goal()) == "failed to reach ready: web-1 (boot_error)"
    assert all(Verdict(code=code).to_line(Goal()).endswith(" ready") for code in Code)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "REF"),
        (("name:",), "REF"),
        (("web-1", "--to", "runing"), "--to"),
        (("web-1", "--timeout", "25h"), "--timeout"),
        (("web-1", "--timeout", "soon"), "--timeout"),
        (("web-1", "--after", ""), "--after"),
        (("web-1", "--after", "null"), "--after"),
        (("web-1", "--url", "nowhere"), "--url"),
    ],
)
def test_wrong_arguments_are_exit_status_2_and_name_the_argument(arguments: tuple[str, ...], named: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr.strip().splitlines()[-1]


def test_a_line_of_progress_shows_status_progress_and_since_when_and_is_harmless() -> None:
    member = Member(
        cvm_id="a",
        name="web\x1b[2J",
        status="starting",
        since="2026-11-24T16:00:00Z",
        ready=False,
        boot_progress="pulling",
    )
    line = bare(progress_line(member, "2026-11-24T16:01:00Z"))
    assert "\x1b" not in line
    assert line.split()[2:] == ["starting,", "not", "ready", "pulling", "since", "16:00:00", "not_seen_yet"]
