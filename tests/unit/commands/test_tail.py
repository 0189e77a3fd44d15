"""`bridge tail`: its requests, its lines, and when it tries again or ends. No sockets, no waiting."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator

import httpx
import pytest

from bridge.commands.tail import Request, follow
from bridge.commands.terminal import event_line
from bridge.process.signals import CommandError

DATA = {"cvm_id": "0e4b", "name": "web-1", "from": "starting", "to": "running", "state": {"status": "running"}}
ENVELOPE = {
    "specversion": "1.0",
    "id": "1795536119319-0",
    "type": "cvm.transition",
    "subject": "0e4b",
    "time": "2026-11-24T16:01:59.319Z",
    "sequence": "0000000000000042",
    "data": DATA,
}


class EnoughError(Exception):
    """the script of answers is over"""


class Naps:
    """A clock whose sleeps return at once and are remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def time(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)


Answer = httpx.Response | Exception


class Bridge:
    """Answers in order, remembers the requests, then raises EnoughError."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self._answers:
            raise EnoughError
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def stream(*blocks: str, then: Exception | None = None) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block.encode()
        if then is not None:
            raise then

    return httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, content=body())


def event(entry_id: str, data: str = "{}", name: str = "transition") -> str:
    return f"id: {entry_id}\nevent: {name}\ndata: {data}\n\n"


class Outcome:
    def __init__(self) -> None:
        self.written: list[str] = []
        self.complaints: list[str] = []
        self.naps = Naps()


async def run(bridge: Bridge, request: Request, ended: type[Exception] = EnoughError) -> Outcome:
    outcome = Outcome()
    client = httpx.AsyncClient(transport=httpx.MockTransport(bridge))
    with pytest.raises(ended):
        await follow(
            request,
            outcome.written.append,
            outcome.complaints.append,
            client=client,
            clock=outcome.naps,
            rng=random.Random(1),
        )
    return outcome


async def test_events_are_written_unchanged() -> None:
    text = json.dumps(ENVELOPE)
    outcome = await run(Bridge(stream(event("5-0", text))), Request("http://b"))
    assert outcome.written == [text]


async def test_a_reconnect_sends_the_last_id_and_no_since() -> None:
    bridge = Bridge(stream(event("5-0"), event("6-0"), then=httpx.ReadError("cut")))
    outcome = await run(bridge, Request("http://b", since="2026-11-24T16:00:00Z"))
    first, second = bridge.requests
    assert first.url.params["since"] == "2026-11-24T16:00:00Z"
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "6-0"
    assert "since" not in second.url.params
    assert len(outcome.written) == 2


async def test_a_position_moves_the_cursor_and_shows_nothing() -> None:
    bridge = Bridge(stream(event("9-0", '{"sequence":"9"}', "position")))
    outcome = await run(bridge, Request("http://b"))
    assert outcome.written == []
    assert bridge.requests[1].headers["last-event-id"] == "9-0"


async def test_a_snapshot_that_breaks_off_is_requested_again() -> None:
    bridge = Bridge(stream("retry: 2000\n\nevent: snapshot\ndata: {}\n\n", then=httpx.ReadError("cut")))
    await run(bridge, Request("http://b"))
    assert "last-event-id" not in bridge.requests[1].headers


async def test_a_single_cvm_is_requested_on_its_own_route_and_several_by_filter() -> None:
    one, two = Bridge(), Bridge()
    await run(one, Request("http://b", ("web 1/x",)))
    await run(two, Request("http://b", ("a", "b")))
    assert one.requests[0].url.raw_path == b"/v1/cvms/web%201%2Fx/events"
    assert two.requests[0].url.raw_path == b"/v1/events?cvm=a&cvm=b"


async def test_the_token_goes_into_a_header_and_not_into_the_address() -> None:
    bridge = Bridge()
    await run(bridge, Request("http://b", token="canary"))
    assert bridge.requests[0].headers["authorization"] == "Bearer canary"
    assert "canary" not in str(bridge.requests[0].url)
    assert "canary" not in repr(Request("http://b", token="canary"))


async def test_waits_grow_while_nothing_answers_and_only_the_first_failure_is_reported() -> None:
    outcome = await run(Bridge(*[httpx.ConnectError("no")] * 8), Request("http://b"))
    assert len(outcome.complaints) == 1
    assert 0.25 <= outcome.naps.taken[0] <= 0.5
    assert 7.5 <= outcome.naps.taken[-1] <= 15
    assert all(nap <= 15 for nap in outcome.naps.taken)


async def test_waits_begin_small_again_once_events_came() -> None:
    failures = [httpx.ConnectError("no")] * 5
    outcome = await run(Bridge(*failures, stream(event("5-0")), *failures[:1]), Request("http://b"))
    assert outcome.naps.taken[5] <= 0.5
    assert len(outcome.complaints) == 2


async def test_it_waits_as_long_as_the_bridge_asks_for() -> None:
    overloaded = httpx.Response(503, headers={"Retry-After": "7"}, json={"title": "Too many subscribers"})
    asked = stream("retry: 4000\n" + event("5-0"))
    outcome = await run(Bridge(overloaded, asked), Request("http://b"))
    assert outcome.naps.taken == [7.0, 4.0]
    assert "Too many subscribers" in outcome.complaints[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_final_refusal_is_one_line_with_the_reason(status: int) -> None:
    problem = {"title": "since is not valid", "detail": "not a time\nat all", "status": status}
    client = httpx.AsyncClient(transport=httpx.MockTransport(Bridge(httpx.Response(status, json=problem))))
    with pytest.raises(CommandError) as raised:
        await follow(Request("http://b"), print, print, client=client, clock=Naps())
    assert str(status) in str(raised.value)
    assert "since is not valid" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"detail": [1]}', b"x" * 100_000])
async def test_an_error_without_a_problem_is_shown_by_its_status(body: bytes) -> None:
    client = httpx.AsyncClient(transport=httpx.MockTransport(Bridge(httpx.Response(404, content=body))))
    with pytest.raises(CommandError, match=r"^the bridge answered 404$"):
        await follow(Request("http://b"), print, print, client=client, clock=Naps())


async def test_an_answer_that_is_not_an_event_stream_is_tried_again() -> None:
    outcome = await run(Bridge(httpx.Response(200, text="<html>")), Request("http://b"))
    assert len(outcome.complaints) == 1


async def test_an_invalid_url_ends_it() -> None:
    await run(Bridge(), Request("http://b:notaport"), CommandError)


def bare(line: str) -> str:
    for code in (1, 2, 31, 32, 33, 35, 36):
        line = line.replace(f"\x1b[{code}m", "")
    return line.replace("\x1b[0m", "")


def shown(kind: str = "cvm.transition", **data: object) -> str:
    envelope = {**ENVELOPE, "type": kind, "data": {**DATA, **data}}
    return bare(event_line(json.dumps(envelope)))


def test_a_transition_shows_time_name_and_both_states() -> None:
    assert shown().split() == ["16:01:59", "web-1", "starting", "→", "running"]


def test_a_first_sight_a_deletion_and_a_stale_watch_are_readable() -> None:
    assert "unseen → running" in bare(event_line(json.dumps({**ENVELOPE, "data": {**DATA, "from": None}})))
    assert "→ deleted" in shown(to="deleted", state=None)
    assert "stale (unreachable)" in shown("watch.stale", reason="unreachable")


def test_a_state_event_shows_its_progress() -> None:
    state = {"status": "starting", "boot_progress": "pulling image"}
    line = shown("cvm.state", to="starting", state=state)
    assert line.endswith("starting  pulling image")


def test_a_name_cannot_write_to_the_terminal() -> None:
    line = shown(name="evil\x1b[2J\r\n")
    assert "\x1b" not in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["", "nonsense\x1b", '{"data": 5}', '{"type": null, "data": {"state": []}}'])
def test_an_event_of_unknown_form_is_still_one_harmless_line(text: str) -> None:
    line = bare(event_line(text))
    assert "\n" not in line
    assert "\x1b" not in line
