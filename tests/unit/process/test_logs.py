"""Logs: one JSON object per line for machines, a readable line for people, no secrets in either."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.process import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARIES = [
    "GET /v1/events?cvm=a&access_token=canary HTTP/1.1",
    "headers: {'Authorization': 'Bearer canary'}",
    "Authorization: canary",
    'authorization="Basic canary"',
    "[(b'authorization', b'Bearer canary'), (b'x-api-key', b'canary')]",
    "X-API-Key: canary",
    "token was Bearer canary-canary.canary",
    "secret whsec_canary+/=",
    "key phak_canary",
    "redis://user:canary@host:6379/0",
    "redis://:canary@h1:1,h2:2/main",
    "unix:///run/s.sock?db=0&password=canary",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(format: logs.Format | None = "json", stream: io.StringIO | None = None, **extra: Any) -> str:
    """One warning's line."""
    out = stream or io.StringIO()
    logs.configure(format, "debug", out)
    logging.getLogger("bridge.test").warning("slot %d opened", 3, extra=extra)
    return out.getvalue()


def test_a_json_line_is_one_object_with_all_fields() -> None:
    line = logged(cvm_id="web-1", count=3, ratio=float("nan"), nothing=None)
    entry = json.loads(line)
    assert line.count("\n") == 1
    assert entry.pop("ts").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "bridge.test",
        "msg": "slot 3 opened",
        "cvm_id": "web-1",
        "count": 3,
        "ratio": "nan",
        "nothing": None,
    }


def test_a_terminal_gets_a_readable_line_and_a_pipe_json() -> None:
    assert "bridge.test: slot 3 opened  cvm_id=web-1\n" in logged(None, Terminal(), cvm_id="web-1")
    assert "\x1b[33m" in logged(None, Terminal())
    assert json.loads(logged(None))["msg"] == "slot 3 opened"
    assert "\x1b" not in logged("console")


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("text", CANARIES)
def test_no_known_shape_of_a_secret_is_logged(format: logs.Format, text: str) -> None:
    out = io.StringIO()
    logs.configure(format, "info", out)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("bridge.test").exception("told %s", text, extra={"about": text, "many": [text]})
    assert "canary" not in out.getvalue()
    assert "RuntimeError" in out.getvalue()


def test_a_name_with_control_characters_writes_neither_a_second_line_nor_to_the_terminal() -> None:
    name = "a\nb\x1b[2J\r\u2028\x00"
    for line in (logged("json", cvm=name), logged("console", cvm=name)):
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line


@given(st.text())
def test_redaction_is_idempotent_and_leaves_plain_text(text: str) -> None:
    once = logs.redacted(text)
    assert logs.redacted(once) == once
    assert logs.redacted("cvm web-1: running → stopped at 12:00 (http://host:80/x)") == (
        "cvm web-1: running → stopped at 12:00 (http://host:80/x)"
    )


def test_lines_per_request_are_left_out_and_the_servers_lines_are_kept() -> None:
    out = io.StringIO()
    logs.configure("json", "debug", out)
    logging.getLogger("httpx").info("HTTP Request: GET http://upstream")
    logging.getLogger("uvicorn.access").info("GET /")
    assert out.getvalue() == ""
    logging.getLogger("uvicorn.error").info("started")
    assert json.loads(out.getvalue())["logger"] == "uvicorn.error"


def test_a_handler_of_uvicorns_own_is_removed_because_it_would_not_redact() -> None:
    server = logging.getLogger("uvicorn.access")
    server.addHandler(logging.StreamHandler())
    server.propagate = False
    logs.configure("json", stream=io.StringIO())
    assert (server.handlers, server.propagate) == ([], True)
