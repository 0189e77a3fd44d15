"""`bridge cvms`: what it asks, prints and ends with, on a bridge of scripted answers. No sockets, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from bridge.commands import asking
from bridge.commands.asking import Output, progress
from bridge.commands.cvms import Selection, list_cvms
from bridge.commands.cvms_command import cvms_command
from tests.unit.commands.test_tail import bare
from tests.unit.test_client import Bridge, client
from tests.virtual import VirtualClock, run_virtual

WEB = {
    "cvm_id": "0e4b",
    "name": "web-1",
    "status": "running",
    "ready": True,
    "since": "2026-11-24T16:01:59.319Z",
    "fresh": True,
    "followed_by": "stream",
    "state": {"status": "running"},
}
API = {
    "cvm_id": "77aa",
    "name": "api\x1b[2J",
    "status": "starting",
    "ready": False,
    "operation": {"type": "updating"},
    "fresh": False,
    "stale_reason": "no_leader",
}


def page(*items: dict[str, Any], following: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"items": items, "next": following})


def invoked(
    monkeypatch: pytest.MonkeyPatch, command: click.Command, bridge: Bridge, *arguments: str, given: str | None = None
) -> Result:
    """The command in a pipe."""
    monkeypatch.setattr(asking, "bridge_client", lambda *_: client(bridge))
    return CliRunner().invoke(command, [*arguments], input=given)


def shown(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of each line on the terminal."""
    return [line.split() for line in bare(capsys.readouterr().out).splitlines()]


def test_a_pipe_gets_each_cvm_of_every_page_as_the_api_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(page(WEB, following="0e4b"), page(API))
    result = invoked(monkeypatch, cvms_command, bridge, "--cvm", "name:*", "--cvm", "web-1", "--not-ready")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [WEB, API]
    first, second = (each.url.params for each in bridge.requests)
    assert (first.get_list("cvm"), first["ready"], "after" in first) == (["name:*", "web-1"], "false", False)
    assert (second["after"], second.get_list("cvm")) == ("0e4b", ["name:*", "web-1"])


async def test_a_terminal_gets_a_table_in_which_no_name_is_a_control_sequence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with client(Bridge(page(WEB, API, {"cvm_id": "f00"}))) as bridge:
        await list_cvms(bridge, Output(is_terminal=True), Selection())
    assert shown(capsys) == [
        ["NAME", "STATUS", "READY", "SINCE", "FOLLOWED", "BY", "FRESH", "ID"],
        ["web-1", "running", "yes", "2026-11-24", "16:01:59", "stream", "yes", "0e4b"],
        ["api\\x1b[2J", "starting", "updating", "–", "–", "no_leader", "77aa"],
        ["–", "not", "seen", "yet", "–", "–", "–", "–", "f00"],
    ]


def test_a_status_selects_what_the_route_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoked(monkeypatch, cvms_command, Bridge(page(WEB, API)), "--status", "error", "--status", "starting")
    assert [json.loads(line)["cvm_id"] for line in result.stdout.splitlines()] == ["77aa"]


@pytest.mark.parametrize(
    ("answer", "status", "line"),
    [
        (httpx.ConnectError("no"), 4, "http://b cannot be reached (ConnectError): is `bridge up` running?"),
        (httpx.Response(200, json=[]), 4, "http://b cannot be reached (the answer is no page of a list)"),
        (httpx.Response(503, json={"title": "no Redis"}), 4, "the bridge answered 503: no Redis"),
        (httpx.Response(401, json={"title": "no token"}), 4, "no token: pass --token or set BRIDGE_TOKEN"),
        (httpx.Response(404, json={"title": "no such CVM"}), 1, "the bridge answered 404: no such CVM"),
        (httpx.Response(422, json={"title": "cvm is wrong"}), 2, "the bridge answered 422: cvm is wrong"),
    ],
)
def test_an_error_is_one_line_with_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, status: int, line: str
) -> None:
    result = invoked(monkeypatch, cvms_command, Bridge(answer), "--url", "http://b/")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (status, "", 1)
    assert line in result.stderr


def test_a_page_that_fails_after_others_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(page(WEB, following="0e4b"), httpx.ReadError("cut"))
    result = invoked(monkeypatch, cvms_command, bridge)
    assert (result.exit_code, result.stdout.count("\n")) == (4, 1)


def test_an_answer_that_cannot_be_written_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(asking, "write_line", write)
    result = invoked(monkeypatch, cvms_command, Bridge(page(WEB)))
    assert (result.exit_code, result.stderr) == (4, "No space left on device\n")


def test_wrong_arguments_are_told_without_the_token() -> None:
    for arguments in (["--url", "ftp://b"], ["--token", "canary\n"]):
        result = CliRunner().invoke(cvms_command, arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "canary" not in result.stderr


def test_what_takes_longer_than_a_second_tells_its_progress_and_takes_it_away_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(seconds: float, is_terminal: Callable[[], bool] = lambda: True) -> str:
        async def scenario() -> None:
            monkeypatch.setattr("sys.stderr.isatty", is_terminal)
            async with progress(Output(is_terminal=False, progress="waiting"), clock := VirtualClock()):
                await clock.sleep(seconds)

        run_virtual(scenario())
        return capsys.readouterr().err

    assert told(2.5) == "\r\x1b[K… waiting (1 s)\r\x1b[K… waiting (2 s)\r\x1b[K"
    assert told(0.9) == ""
    assert told(2.5, lambda: False) == ""
