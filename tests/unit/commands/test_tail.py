"""`bridge tail`: what it writes and reports. No sockets, no waiting."""

from __future__ import annotations

import json

import httpx
import pytest

from bridge.commands.tail import Request, follow
from bridge.commands.terminal import event_line
from bridge.events import NOTICES
from bridge.process.signals import CommandError
from tests.unit.test_client import Bridge, EnoughError, client, event, stream

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


class Outcome:
    def __init__(self) -> None:
        self.written: list[str] = []
        self.complaints: list[str] = []


async def run(bridge: Bridge) -> Outcome:
    outcome = Outcome()
    with pytest.raises(EnoughError):
        await follow(Request("http://b"), outcome.written.append, outcome.complaints.append, client=client(bridge))
    return outcome


async def test_events_are_written_unchanged_and_positions_are_not() -> None:
    text = json.dumps(ENVELOPE)
    outcome = await run(Bridge(stream(event("5-0", text), event("9-0", '{"sequence":"9"}', "position"))))
    assert outcome.written == [text]


async def test_only_the_first_failure_is_reported_until_events_come_again() -> None:
    failures = [httpx.ConnectError("no")] * 5
    outcome = await run(Bridge(*failures, stream(event("5-0")), *failures[:2]))
    assert outcome.complaints == ["http://b cannot be reached (ConnectError); trying again"] * 2


async def test_a_final_refusal_is_one_line_with_the_reason() -> None:
    problem = {"title": "since is not valid", "detail": "not a time\nat all", "status": 422}
    with pytest.raises(CommandError, match=r"^the bridge answered 422: since is not valid: not a time\\nat all$"):
        await follow(Request("http://b"), print, print, client=client(Bridge(httpx.Response(422, json=problem))))


async def test_a_name_that_is_no_cvms_is_told_with_where_to_look() -> None:
    answer = httpx.Response(404, json={"message": "CVM not found", "details": [{"field": "cvm_id", "value": "web1"}]})
    with pytest.raises(CommandError, match=r"404: CVM not found: web1 \(`bridge cvms` lists"):
        await follow(Request("http://b", ("web1",)), print, print, client=client(Bridge(answer)))


async def test_an_invalid_url_and_an_invalid_token_are_one_line_that_does_not_show_the_token() -> None:
    for request, named in ((Request("http://b:notaport"), "--url"), (Request("http://b", token="canary\n"), "--token")):
        with pytest.raises(CommandError, match=f"^{named} must ") as raised:
            await follow(request, print, print)
        assert "canary" not in str(raised.value) + repr(request)


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


def test_a_webhook_of_phala_cloud_shows_its_type() -> None:
    assert shown("phala.cvm.updated", to=None).split() == ["16:01:59", "web-1", "phala.cvm.updated"]


def test_a_notice_tells_the_endpoint_and_what_became_of_it() -> None:
    about = {"endpoint_id": "wh_1", "url": "https://chat.example/…", "description": "deploys", "reason": "410 \x1b[2J"}
    lines = [bare(event_line(json.dumps({**ENVELOPE, "type": kind, "data": about}))) for kind in NOTICES]
    assert all("deploys" in line and "(https://chat.example/…, 410 " in line and "\x1b" not in line for line in lines)
    assert [line.partition("webhook: ")[2].partition(" (")[0] for line in lines] == [
        "failing",
        "disabled",
        "recovered",
        "a delivery was given up",
    ]


async def test_types_are_asked_for() -> None:
    bridge = Bridge()
    with pytest.raises(EnoughError):
        await follow(Request("http://b", types=("a.b", "c.d")), print, print, client=client(bridge))
    assert bridge.requests[0].url.raw_path == b"/v1/events?type=a.b&type=c.d"


def test_a_name_cannot_write_to_the_terminal() -> None:
    line = shown(name="evil\x1b[2J\r\n")
    assert "\x1b" not in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["", "nonsense\x1b", '{"data": 5}', '{"type": null, "data": {"state": []}}'])
def test_an_event_of_unknown_form_is_still_one_harmless_line(text: str) -> None:
    line = bare(event_line(text))
    assert "\n" not in line
    assert "\x1b" not in line
