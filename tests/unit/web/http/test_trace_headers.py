"""The caller's trace context comes back with every answer, also with that to a fault of the bridge."""

from __future__ import annotations

import logging

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from bridge import tracing
from bridge.config import Settings
from bridge.process.logs import JsonLines
from bridge.tracing import Trace
from bridge.web.app import FrontEnd
from tests.fakes import fake_backend
from tests.virtual import VirtualClock

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"

Headers = list[tuple[str, str]]


async def ask(*requests: tuple[str, Headers]) -> list[httpx.Response]:
    """One after another in one task, as a connection's pipelined requests may be. `/told` answers with a log line."""

    async def told(_: Request) -> Response:
        line = JsonLines().format(logging.makeLogRecord({"state": getattr(tracing.current.get(), "state", "")}))
        return Response(line, headers={"TraceParent": "of a relayed answer"})

    async def fault(_: Request) -> Response:
        raise RuntimeError

    backend = fake_backend()
    app = FrontEnd(Settings(cors_origins=("https://a.example",)), backend, VirtualClock(), open_access=True).app
    app.add_route("/told", told)
    app.add_route("/fault", fault)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answers = [await http.get(path, headers=headers) for path, headers in requests]
    await backend.close()
    return answers


@pytest.mark.parametrize("path", ["/healthz", "/fault", "/nowhere", "/v1/cvms?x=y"])
async def test_every_answer_gives_the_trace_back_as_a_span_within_it(path: str) -> None:
    (answer,) = await ask((path, [("TraceParent", PARENT)]))
    (back,) = answer.headers.get_list("traceparent")
    found = tracing.read(back)
    assert found is not None
    assert (found.trace_id, found.flags) == (ID, 1)
    assert found.span_id != SPAN


@pytest.mark.parametrize("given", [[], [("traceparent", "malformed")], [("traceparent", PARENT)] * 2])
async def test_without_one_valid_traceparent_there_is_none(given: Headers) -> None:
    before = ("/told", [("traceparent", PARENT)])
    first, answer = await ask(before, ("/told", [*given, ("tracestate", "a=1")]))
    assert ["trace_id" in each.json() for each in (first, answer)] == [True, False]
    assert answer.headers["traceparent"] == "of a relayed answer"


async def test_routes_and_log_lines_have_it_with_the_tracestate_of_all_fields() -> None:
    given = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2"), ("Origin", "https://a.example")]
    (answer,) = await ask(("/told", given))
    found = tracing.read(answer.headers["traceparent"], "a=1,b=2")
    assert isinstance(found, Trace)
    assert answer.json().items() >= {**found.ids, "state": "a=1,b=2"}.items()
    assert "traceparent" in answer.headers["access-control-expose-headers"]
