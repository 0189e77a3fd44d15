"""`bridge webhooks`: what it asks, prints and ends with, on a bridge of scripted answers. No sockets, no waiting."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from click.testing import Result

from bridge.commands.asking import Exit, Output
from bridge.commands.webhooks import add_endpoint, list_endpoints, send_test, show_endpoint
from bridge.commands.webhooks_command import webhooks_command
from tests.unit.commands.test_cvms import invoked, page, shown
from tests.unit.test_client import CANARY, Bridge, Naps, client

ENDPOINT = {
    "id": "wh_1",
    "url": "https://example.com/cvm",
    "description": "",
    "cvms": ["0e4b", "name:web-*"],
    "ready": None,
    "format": "standard",
    "headers": {"X-Team": "***"},
    "enabled": True,
    "health": "ok",
    "pending": 3,
    "last_success_at": "2026-11-24T16:01:59.319Z",
}


def delivery(status: str = "delivered", **attempt: Any) -> dict[str, Any]:
    attempts = [{"at": "2026-11-24T16:01:59.319Z", "duration_ms": 82, **attempt}] if attempt else []
    event = {"type": "webhook.test"}
    return {"id": "wh_1-7-0", "endpoint_id": "wh_1", "status": status, "event": event, "attempts": attempts}


def ok(body: Any = None, status: int = 200) -> httpx.Response:
    return httpx.Response(status) if body is None else httpx.Response(status, json=body)


NOT_THERE = httpx.Response(404, json={"title": "no such endpoint"})
DISABLED = httpx.Response(409, json={"title": "the endpoint is disabled"})


def run(monkeypatch: pytest.MonkeyPatch, bridge: Bridge, *arguments: str, given: str | None = None) -> Result:
    return invoked(monkeypatch, webhooks_command, bridge, *arguments, given=given)


def asked(bridge: Bridge) -> list[tuple[str, str, Any]]:
    """(method, path, body) of each request."""
    return [(each.method, each.url.path, json.loads(each.content or b"null")) for each in bridge.requests]


DEED: dict[str, tuple[list[str], httpx.Response, tuple[str, str, Any]]] = {
    "list": (["list"], page(ENDPOINT), ("GET", "/v1/webhooks", None)),
    "add": (
        ["add", "https://example.com/cvm", "--to", "running", "--cvm", "*", "--not-ready", "--format", "slack"],
        ok({**ENDPOINT, "secret": "whsec_x"}, 201),
        (
            "POST",
            "/v1/webhooks",
            {"url": "https://example.com/cvm", "to": ["running"], "cvms": ["*"], "ready": False, "format": "slack"},
        ),
    ),
    "put": (
        ["add", "https://example.com/cvm", "--id", "mine"],
        ok(ENDPOINT),
        ("PUT", "/v1/webhooks/mine", {"url": "https://example.com/cvm"}),
    ),
    "retry": (["retry", "wh_1-7-0"], ok(delivery("pending"), 202), ("POST", "/v1/deliveries/wh_1-7-0/retry", None)),
    "recover": (
        ["recover", "wh_1", "--since", "2026-11-24T16:00:00Z", "--all"],
        ok({"queued": 12, "complete": True, "next": None}, 202),
        ("POST", "/v1/webhooks/wh_1/recover", {"since": "2026-11-24T16:00:00Z", "all": True}),
    ),
    "enable": (["enable", "wh_1"], ok(ENDPOINT), ("POST", "/v1/webhooks/wh_1/enable", None)),
    "disable": (["disable", "wh_1"], ok(ENDPOINT), ("PATCH", "/v1/webhooks/wh_1", {"enabled": False})),
    "remove": (["remove", "wh_1", "--yes"], ok(None, 204), ("DELETE", "/v1/webhooks/wh_1", None)),
}


@pytest.mark.parametrize("deed", DEED)
def test_a_deed_is_one_request_and_a_pipe_gets_its_answer_as_the_api_has_it(
    deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, answer, request = DEED[deed]
    bridge = Bridge(answer)
    result = run(monkeypatch, bridge, *arguments)
    assert (result.exit_code, result.stderr, asked(bridge)) == (0, "", [request])
    body = answer.json() if answer.content else None
    expected = [] if body is None else body.get("items", [body])
    assert [json.loads(line) for line in result.stdout.splitlines()] == expected


def test_show_has_the_newest_deliveries_beside_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(ok(ENDPOINT), page(delivery(status_code=204)))
    assert json.loads(run(monkeypatch, bridge, "show", "wh_1").stdout) == {
        **ENDPOINT,
        "deliveries": [delivery(status_code=204)],
    }


def test_headers_and_secrets_come_from_a_file_and_no_error_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(ok(ENDPOINT, 201))
    fields = {"url": "https://example.com/cvm", "headers": {"X-Key": CANARY}, "to": ["error"]}
    run(monkeypatch, bridge, "add", "--to", "running", "--fields", "-", given=json.dumps(fields))
    assert asked(bridge)[0][2] == {**fields, "to": ["running"]}
    for given in (f'"{CANARY}', f'["{CANARY}"]', f'{{"secret": "{CANARY}"}}'):
        result = run(monkeypatch, Bridge(), "add", "--fields", "-", given=given)
        assert (result.exit_code, CANARY in result.stderr) == (2, False)


async def test_what_is_made_is_tried_again_with_the_same_key() -> None:
    naps = Naps()
    busy = httpx.Response(503, headers={"Retry-After": "5"})
    bridge = Bridge(httpx.ReadError("cut"), busy, ok(ENDPOINT, 201))
    async with client(bridge, naps) as made:
        assert await add_endpoint(made, Output(is_terminal=False), {"url": "https://a"}, None) is Exit.DONE
    keys = {each.headers["idempotency-key"] for each in bridge.requests}
    assert (len(bridge.requests), len(keys), naps.taken) == (3, 1, [1.0, 5.0])


def test_of_several_the_refused_one_is_told_and_the_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(NOT_THERE, ok(None, 204))
    result = run(monkeypatch, bridge, "remove", "wh_0", "wh_1", "--yes")
    assert (result.exit_code, len(bridge.requests)) == (1, 2)
    assert result.stderr == "wh_0: the bridge answered 404: no such endpoint\n"


def test_a_token_that_is_refused_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(httpx.Response(403, json={"title": "forbidden"}), ok(ENDPOINT))
    result = run(monkeypatch, bridge, "enable", "wh_0", "wh_1")
    assert (result.exit_code, len(bridge.requests)) == (4, 1)
    assert "to a token of scope admin" in result.stderr


def test_removal_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge()
    result = run(monkeypatch, bridge, "remove", "wh_1", given="n\n")
    assert (result.exit_code, result.stdout, bridge.requests) == (1, "", [])


@pytest.mark.parametrize(
    ("answers", "status", "told"),
    [
        ([ok(delivery("pending"), 202), ok(delivery("pending")), ok(delivery(status_code=204))], 0, ""),
        ([ok(delivery("pending"), 202), ok(delivery("given_up", status_code=500))], 1, ""),
        ([DISABLED], 1, "the bridge answered 409: the endpoint is disabled\n"),
        ([ok(delivery("pending"), 202), httpx.ReadError("cut")], 4, "http://127.0.0.1:8000 cannot be reached"),
    ],
)
def test_a_test_ends_as_its_attempt_does(
    answers: list[httpx.Response | Exception], status: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, Bridge(*answers), "test", "wh_1")
    assert result.exit_code == status
    assert result.stderr.startswith(told)


def test_what_is_not_finished_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, Bridge(ok(delivery("pending"), 202)), "test", "wh_1", "--timeout", "0")
    assert (result.exit_code, "does `bridge dispatcher` run?" in result.stderr) == (3, True)
    more = ok({"queued": 9, "complete": False, "next": "2026-11-24T16:05:00Z"}, 202)
    result = run(monkeypatch, Bridge(more), "recover", "wh_1", "--since", "2026-11-24T16:00:00Z")
    assert (result.exit_code, "--since 2026-11-24T16:05:00Z" in result.stderr) == (3, True)


async def test_a_terminal_gets_tables_and_the_secret_once(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(is_terminal=True)
    failed = {**delivery("given_up", status_code=None, error="timeout\x07"), "created_at": "2026-11-24T16:01:59Z"}
    answers = [page(ENDPOINT), ok(ENDPOINT), page(failed), ok({**ENDPOINT, "secret": "whsec_x"}, 201), page()]
    async with client(Bridge(*answers)) as bridge:
        await list_endpoints(bridge, output)
        head, row = shown(capsys)
        assert (head[0], row) == (
            "ID",
            ["wh_1", "ok", "3", "2026-11-24", "16:01:59", "standard", "–", "https://example.com/cvm"],
        )
        await show_endpoint(bridge, output, "wh_1")
        lines = shown(capsys)
        assert ["cvms", "0e4b,", "name:web-*"] in lines
        assert ["headers", "X-Team:", "***"] in lines
        assert lines[-1] == ["wh_1-7-0", "given_up", "2026-11-24", "16:01:59", "webhook.test", "1", "timeout\\x07"]
        await add_endpoint(bridge, output, {}, None)
        assert ["secret", "whsec_x"] in shown(capsys)
        await list_endpoints(bridge, output)
        assert shown(capsys)[0][:4] == ["there", "is", "no", "endpoint:"]


async def test_a_test_on_a_terminal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with client(Bridge(ok(delivery(status_code=204), 202))) as bridge:
        await send_test(bridge, Output(is_terminal=True), "wh_1", 30.0)
    assert shown(capsys) == [["wh_1-7-0", "delivered", "–", "webhook.test", "1", "204"]]
